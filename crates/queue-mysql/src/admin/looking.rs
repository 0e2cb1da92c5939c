//! One task and its failed attempts.

use bytes::Bytes;
use queue_core::payload::ContentType;
use queue_core::record::ATTEMPTS_MAX;
use queue_core::{
    AttemptRecord, ErrorText, Fence, Payload, Percent, Progress, Status, StoreError, TaskId, TaskRecord, TaskResult,
};
use sqlx::mysql::MySqlRow;

use crate::connection::Conn;
use crate::error::Failure;
use crate::inner::Inner;
use crate::operation::Operation;
use crate::row::{COLUMNS, COLUMNS_LEN, Defect, TaskRow};
use crate::sql::{text, time, value};

/// What a record has beyond a task's row: progress, a cancel request, the last error, the worker.
const EXTRAS: &str = "t.progress, t.progress_message, \
     EXISTS (SELECT 1 FROM queue_signal AS g WHERE g.task_id = t.id AND g.claim_id = t.claim_id), \
     (SELECT a.error FROM queue_attempt AS a WHERE a.task_id = t.id ORDER BY a.fence DESC LIMIT 1), \
     (SELECT n.name FROM queue_claim AS c JOIN queue_session AS n ON n.id = c.session_id \
      WHERE c.id = t.claim_id AND t.status = 1)";
/// How many columns [`columns`] are.
pub(super) const RECORD_LEN: usize = COLUMNS_LEN + 5;

/// The columns that [`Seen::read`] reads, of `queue_task t` joined to `queue_payload p`.
pub(super) fn columns() -> String {
    format!("{COLUMNS}, {EXTRAS}")
}

/// A task's row with what is known besides, its names still numbers.
pub(super) struct Seen {
    row: TaskRow,
    progress: Option<Progress>,
    last_error: Option<ErrorText>,
    worker: Option<String>,
}

impl Seen {
    /// Reads [`columns`].
    pub(super) fn read(row: &MySqlRow) -> Result<Result<Self, Defect>, sqlx::Error> {
        let mut task = match TaskRow::read(row)? {
            Ok(task) => task,
            Err(defect) => return Ok(Err(defect)),
        };
        let percent: Option<u8> = value(row, COLUMNS_LEN)?;
        let message = text(row, COLUMNS_LEN + 1)?;
        let signalled: i64 = value(row, COLUMNS_LEN + 2)?;
        task.state.cancel_requested = signalled != 0 && task.state.status == Status::Running;
        Ok(Ok(Self {
            row: task,
            progress: percent.map(|percent| Progress::new(Percent::new(percent), message.unwrap_or_default())),
            last_error: text(row, COLUMNS_LEN + 3)?.map(ErrorText::new),
            worker: text(row, COLUMNS_LEN + 4)?,
        }))
    }

    /// Whether its names are known without asking again.
    pub(super) fn is_known(&self, inner: &Inner) -> bool {
        self.row.is_known(inner)
    }

    /// The record, without payload and result.
    pub(super) fn record(self, inner: &Inner) -> Result<TaskRecord, Defect> {
        let names = self.row.refer(inner)?;
        Ok(TaskRecord {
            id: self.row.id,
            task_type: names.task_type,
            queue: names.queue,
            priority: names.priority,
            state: self.row.state,
            backoff: names.backoff,
            progress: self.progress,
            last_error: self.last_error,
            worker: self.worker,
            payload: Payload::default(),
            result: TaskResult::None,
        })
    }
}

/// Reads one task.
pub(super) struct Get {
    pub(super) task: TaskId,
}

impl Operation for Get {
    type Output = Option<TaskRecord>;
    const REPEATABLE: bool = true;

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<Option<TaskRecord>, Failure> {
        let id = self.task;
        let replies = conn
            .run(format!(
                "SELECT {}, p.content_type, p.body FROM queue_task AS t LEFT JOIN queue_payload AS p ON p.task_id = t.id \
                 WHERE t.id = {id}; SELECT body, dropped_bytes FROM queue_result WHERE task_id = {id}",
                columns()
            ))
            .await?;
        let Some(row) = replies.first().and_then(|reply| reply.rows.first()) else { return Ok(None) };
        let seen = Seen::read(row)?.map_err(StoreError::from)?;
        if !seen.is_known(inner) {
            inner.names.refresh(conn).await?;
        }
        let mut record = seen.record(inner).map_err(StoreError::from)?;
        let content_type = value::<Option<u8>>(row, RECORD_LEN)?.and_then(ContentType::from_code);
        let content_type = content_type.ok_or_else(|| StoreError::corrupt(Some(id), "its content type is unknown"))?;
        let body: Vec<u8> = value(row, RECORD_LEN + 1)?;
        record.payload = Payload::new(content_type, body);
        if let Some(row) = replies.get(1).and_then(|reply| reply.rows.first()) {
            record.result = match (value::<Option<Vec<u8>>>(row, 0)?, value::<Option<u64>>(row, 1)?) {
                (Some(body), _) => TaskResult::Value(Bytes::from(body)),
                (None, Some(bytes)) => TaskResult::Dropped { bytes },
                (None, None) => {
                    return Err(StoreError::corrupt(Some(id), "its result is neither there nor dropped").into());
                }
            };
        }
        Ok(Some(record))
    }
}

/// Reads the failed attempts of a task.
pub(super) struct Attempts {
    pub(super) task: TaskId,
}

impl Operation for Attempts {
    type Output = Vec<AttemptRecord>;
    const REPEATABLE: bool = true;

    async fn attempt(&mut self, _: &Inner, conn: &mut Conn) -> Result<Vec<AttemptRecord>, Failure> {
        let task = self.task;
        let sql = format!(
            "SELECT fence, attempt, started_at, ended_at, outcome, error FROM queue_attempt WHERE task_id = {task} \
             ORDER BY fence DESC LIMIT {ATTEMPTS_MAX}"
        );
        let rows = conn.run(sql).await?.pop().unwrap_or_default().rows;
        let mut attempts = Vec::with_capacity(rows.len());
        for row in &rows {
            attempts.push(AttemptRecord {
                task,
                fence: Fence::new(value(row, 0)?),
                attempt: value(row, 1)?,
                started_at: time(row, 2)?,
                ended_at: time(row, 3)?,
                outcome: text(row, 4)?.unwrap_or_default(),
                error: ErrorText::new(text(row, 5)?.unwrap_or_default()),
            });
        }
        Ok(attempts)
    }
}
