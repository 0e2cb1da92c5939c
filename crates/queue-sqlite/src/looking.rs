//! What operators see of tasks: one, its failed attempts, lists.

use bytes::Bytes;
use queue_core::admin::{Filter, Page};
use queue_core::record::ATTEMPTS_MAX;
use queue_core::{
    AttemptRecord, ErrorText, Fence, Payload, Queues, Status, StoreError, TaskId, TaskRecord, TaskResult, Timestamp,
};
use rusqlite::{Row, params};

use crate::claiming::payload;
use crate::lanes::waiting;
use crate::task::{TaskRow, task_columns};
use crate::work::{Id as _, Result, Work, clamped};

const LAST_ERROR: &str = "SELECT error FROM queue_attempt WHERE task_id = ?1 ORDER BY fence DESC LIMIT 1";
const ATTEMPTS: &str = "SELECT fence, attempt, started_at, ended_at, outcome, error FROM queue_attempt \
                        WHERE task_id = ?1 ORDER BY fence DESC LIMIT ?2";
const WORKER: &str =
    "SELECT s.name FROM queue_claim AS c JOIN queue_session AS s ON s.id = c.session_id WHERE c.id = ?1";
const RESULT: &str = "SELECT body, dropped FROM queue_result WHERE task_id = ?1";

/// Tasks of any status by the latest id: parameters are the position, type, queue, reason and limit, as in all of these.
pub(crate) const BY_ID: &str = concat!(
    "SELECT ",
    task_columns!(),
    ", 0, t.id FROM queue_task AS t WHERE t.id < -?2 AND ?1 IS NOT NULL AND (?3 IS NULL OR t.type_id = ?3) \
     AND (?4 IS NULL OR t.queue_id = ?4) AND (?5 IS NULL OR t.reason = ?5) ORDER BY t.id DESC LIMIT ?6"
);
/// Running tasks by id.
pub(crate) const RUNNING: &str = concat!(
    "SELECT ",
    task_columns!(),
    ", 0, t.id FROM queue_claim AS c CROSS JOIN json_each(c.members) AS m CROSS JOIN queue_task AS t \
     WHERE t.id = m.value AND t.claim_id = c.id AND t.status = 1 AND (0, t.id) > (?1, ?2) \
     AND (?3 IS NULL OR t.type_id = ?3) AND (?4 IS NULL OR t.queue_id = ?4) AND (?5 IS NULL OR t.reason = ?5) \
     ORDER BY t.id LIMIT ?6"
);
/// Ended tasks by the latest end.
pub(crate) const ENDED: &str = concat!(
    "SELECT ",
    task_columns!(),
    ", f.completed_at, f.task_id FROM queue_finished AS f CROSS JOIN queue_task AS t \
     WHERE f.status = ?7 AND (f.completed_at, f.task_id) < (?1, ?2) AND t.id = f.task_id \
     AND (?3 IS NULL OR f.type_id = ?3) AND (?4 IS NULL OR f.queue_id = ?4) AND (?5 IS NULL OR f.reason = ?5) \
     ORDER BY f.completed_at DESC, f.task_id DESC LIMIT ?6"
);
/// Queued tasks of a lane by due time.
pub(crate) const QUEUED: &str = concat!(
    "SELECT ",
    task_columns!(),
    ", r.run_at, r.task_id FROM queue_ready AS r CROSS JOIN queue_task AS t \
     WHERE r.queue_id = ?7 AND r.suspect = ?8 AND r.rank = ?9 AND (r.run_at, r.task_id) > (?1, ?2) AND t.id = r.task_id \
     AND (?3 IS NULL OR r.type_id = ?3) AND (?4 IS NULL OR r.queue_id = ?4) AND (?5 IS NULL OR t.reason = ?5) \
     ORDER BY r.run_at, r.task_id LIMIT ?6"
);
/// Where the two columns of the position are, after the task columns.
const POSITION: usize = 22;

/// A row of a list with its two columns of position, whatever the task's own row is like.
type Listed = ((i64, i64), Result<TaskRow>);

pub(crate) fn get(work: &mut Work<'_>, id: TaskId) -> Result<Option<TaskRecord>> {
    let Some(row) = TaskRow::load(work, id)? else { return Ok(None) };
    let mut record = record(work, row)?;
    record.payload = payload(work, id)?;
    record.result = result(work, id)?;
    Ok(Some(record))
}

pub(crate) fn attempts(work: &Work<'_>, task: TaskId) -> Result<Vec<AttemptRecord>> {
    work.all(ATTEMPTS, params![task.number(), clamped(ATTEMPTS_MAX)], |row| {
        Ok(AttemptRecord {
            task,
            fence: Fence::new(row.get(0)?),
            attempt: row.get(1)?,
            started_at: Timestamp::from_micros(row.get(2)?),
            ended_at: Timestamp::from_micros(row.get(3)?),
            outcome: row.get(4)?,
            error: ErrorText::new(row.get::<_, String>(5)?),
        })
    })
}

/// Tasks that match, in the order of their positions. Rows that cannot be are passed over.
pub(crate) fn list(work: &mut Work<'_>, filter: &Filter, page: Page) -> Result<Vec<TaskRecord>> {
    let Some(query) = Query::of(work, filter)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    let mut after = page.after;
    while found.len() < page.limit {
        let room = page.limit - found.len();
        let listed = query.fetch(work, after, room)?;
        let is_last = listed.len() < room;
        for (position, row) in listed {
            after = Some(position);
            let record = row.and_then(|row| record(work, row));
            found.extend(work.pass_over_corrupt(record)?);
        }
        if is_last {
            break;
        }
    }
    Ok(found)
}

/// A filter in the database's numbers.
struct Query {
    status: Option<Status>,
    queues: Queues,
    type_id: Option<i64>,
    queue_id: Option<i64>,
    reason: Option<u8>,
}

impl Query {
    /// `None` when nothing can match.
    fn of(work: &mut Work<'_>, filter: &Filter) -> Result<Option<Self>> {
        let status = filter.status();
        let mut query = Self {
            status,
            queues: Queues::All,
            type_id: None,
            queue_id: None,
            reason: filter.reason.map(|reason| reason.code()),
        };
        if query.reason.is_some() && status != Some(Status::Failed) {
            return Ok(None);
        }
        if let Some(task_type) = &filter.task_type {
            query.type_id = work.memory.names.find(work.conn, task_type)?;
            if query.type_id.is_none() {
                return Ok(None);
            }
        }
        if let Some(queue) = &filter.queue {
            query.queues = Queues::Named([queue.clone()].into());
            query.queue_id = work.memory.names.find(work.conn, queue)?;
            if query.queue_id.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(query))
    }

    /// Up to `limit` rows after a position, in order.
    fn fetch(&self, work: &mut Work<'_>, after: Option<(i64, i64)>, limit: usize) -> Result<Vec<Listed>> {
        let (first, second) = after.unwrap_or((i64::MIN, i64::MIN));
        let (type_id, queue_id, reason, limit_rows) = (self.type_id, self.queue_id, self.reason, clamped(limit));
        match self.status {
            None => {
                // Ids are positive, and the position of one is its negative.
                let second = if after.is_some() { second } else { -i64::MAX };
                work.all(BY_ID, params![first, second, type_id, queue_id, reason, limit_rows], |row| {
                    listed(row, |first, id| (first, -id))
                })
            }
            Some(Status::Running) => {
                work.all(RUNNING, params![first, second, type_id, queue_id, reason, limit_rows], |row| {
                    listed(row, |first, id| (first, id))
                })
            }
            Some(status @ (Status::Completed | Status::Failed)) => {
                let (until, id) = (first.saturating_neg(), second.saturating_neg());
                let params = params![until, id, type_id, queue_id, reason, limit_rows, status.code()];
                work.all(ENDED, params, |row| listed(row, |at, id| (at.saturating_neg(), -id)))
            }
            Some(Status::Queued) => {
                let mut found = Vec::new();
                for lane in waiting(work, &self.queues, true)?.into_iter().flat_map(|queue| queue.lanes) {
                    let lane = (lane.queue_id, lane.suspect, lane.rank);
                    let params = params![first, second, type_id, queue_id, reason, limit_rows, lane.0, lane.1, lane.2];
                    found.extend(work.all(QUEUED, params, |row| listed(row, |run_at, id| (run_at, id)))?);
                }
                found.sort_unstable_by_key(|(position, _)| *position);
                found.truncate(limit);
                Ok(found)
            }
        }
    }
}

fn listed(row: &Row<'_>, position: impl Fn(i64, i64) -> (i64, i64)) -> Result<Listed> {
    Ok((position(row.get(POSITION)?, row.get(POSITION + 1)?), TaskRow::read(row)))
}

/// What is known of a task, but for its payload and its result.
fn record(work: &mut Work<'_>, row: TaskRow) -> Result<TaskRecord> {
    let last_error = work.first(LAST_ERROR, [row.id.number()], |row| Ok(ErrorText::new(row.get::<_, String>(0)?)))?;
    let worker = match row.state.claim {
        Some(claim) if row.state.status == Status::Running => {
            work.first(WORKER, [claim.number()], |row| Ok(row.get(0)?))?
        }
        _ => None,
    };
    Ok(TaskRecord {
        id: row.id,
        task_type: row.task_type(work)?,
        queue: row.queue(work)?,
        priority: row.priority,
        backoff: row.backoff(work)?,
        state: row.state,
        progress: row.progress,
        last_error,
        worker,
        payload: Payload::default(),
        result: TaskResult::None,
    })
}

fn result(work: &Work<'_>, task: TaskId) -> Result<TaskResult> {
    let found = work
        .first(RESULT, [task.number()], |row| Ok((row.get::<_, Option<Vec<u8>>>(0)?, row.get::<_, Option<i64>>(1)?)))?;
    match found {
        None => Ok(TaskResult::None),
        Some((Some(body), _)) => Ok(TaskResult::Value(Bytes::from(body))),
        Some((None, Some(bytes))) => Ok(TaskResult::Dropped { bytes: bytes.unsigned_abs() }),
        Some((None, None)) => Err(StoreError::corrupt(Some(task), "its result is neither there nor dropped").into()),
    }
}
