//! Rows that wait, locked and read with their tasks and payloads in one statement.

use std::time::Duration;

use queue_core::payload::ContentType;
use queue_core::{Payload, Status, TaskId, Timestamp};
use sqlx::mysql::MySqlRow;

use crate::inner::Inner;
use crate::lanes::Position;
use crate::row::{COLUMNS, COLUMNS_LEN, Defect, Referred, TaskRow};
use crate::sql::value;

/// The statement for rows `r` of what waits under a condition, which may end with an order and a limit. Payloads of over `inline`
/// bytes are left out.
///
/// All three rows are locked, so that none of them is of another time than the others; all three are there or not, so that a missing
/// one is seen; and all are found by primary key, so that no row of others is ever looked at.
pub(super) fn find_sql(condition: &str, inline: u64) -> String {
    format!(
        "SELECT {COLUMNS}, r.run_at, r.task_id, p.content_type, IF(r.body_bytes <= {inline}, p.body, NULL) \
         FROM queue_ready AS r FORCE INDEX (PRIMARY) LEFT JOIN queue_task AS t FORCE INDEX (PRIMARY) ON t.id = r.task_id \
         LEFT JOIN queue_payload AS p FORCE INDEX (PRIMARY) ON p.task_id = r.task_id WHERE {condition} FOR UPDATE SKIP LOCKED"
    )
}

/// How long a row is passed over that could not be reached, and one that cannot be.
const OUT_OF_REACH_FOR: Duration = Duration::from_millis(20);
const DEFECT_FOR: Duration = Duration::from_secs(5);

/// A row that waits, with its task.
pub(super) struct Found {
    pub(super) position: Position,
    row: Result<TaskRow, Unusable>,
    payload: Result<Payload, &'static str>,
    is_bare: bool,
}

/// One that may be claimed.
pub(super) struct Usable {
    pub(super) row: TaskRow,
    pub(super) names: Referred,
    pub(super) payload: Payload,
    /// Whether the payload's bytes are still to be read.
    pub(super) is_bare: bool,
}

/// Why a row that waits is left alone for a while.
pub(super) enum Unusable {
    /// Somebody else holds its task's row, for a moment mostly: a commit lets go of its locks one by one. Or there is none.
    OutOfReach,
    Defect(Defect),
}

impl Unusable {
    /// Passes over it, so that the others are claimed without it.
    pub(super) fn leave(&self, inner: &Inner, task: TaskId, now: Timestamp) {
        match self {
            // For longer by a transaction that tried to complete it under a claim that was no longer current.
            Self::OutOfReach => {
                inner.lanes.avoid(task, now.after(OUT_OF_REACH_FOR));
                tracing::debug!(
                    task = task.get(),
                    "the row of a task that waits is locked or missing; it is passed over"
                );
            }
            Self::Defect(defect) => {
                inner.lanes.avoid(task, now.after(DEFECT_FOR));
                tracing::error!(task = task.get(), defect = defect.what, "a row that cannot be is left alone");
            }
        }
    }
}

impl Found {
    /// Reads a row of [`find_sql`]'s answer.
    pub(super) fn read(row: &MySqlRow) -> Result<Self, sqlx::Error> {
        let position = (value(row, COLUMNS_LEN)?, value(row, COLUMNS_LEN + 1)?);
        let task = match value::<Option<u64>>(row, 0)? {
            None => Err(Unusable::OutOfReach),
            Some(_) => TaskRow::read(row)?.map_err(Unusable::Defect),
        };
        let body: Option<Vec<u8>> = value(row, COLUMNS_LEN + 3)?;
        let is_bare = body.is_none();
        let content_type = value::<Option<u8>>(row, COLUMNS_LEN + 2)?.and_then(ContentType::from_code);
        let payload = content_type
            .map(|content_type| Payload::new(content_type, body.unwrap_or_default()))
            .ok_or("its content type is unknown");
        Ok(Self { position, row: task, payload, is_bare })
    }

    /// Whether all its names are known already.
    pub(super) fn is_known(&self, inner: &Inner) -> bool {
        self.row.as_ref().map_or(true, |row| row.is_known(inner))
    }

    /// It, if it can be claimed.
    pub(super) fn usable(self, inner: &Inner) -> Result<Usable, Unusable> {
        let row = self.row?;
        let defect = |what| Unusable::Defect(Defect { task: row.id, what });
        if row.state.status != Status::Queued {
            return Err(defect("it waits and is not queued"));
        }
        let payload = self.payload.map_err(defect)?;
        let names = row.refer(inner).map_err(Unusable::Defect)?;
        Ok(Usable { row, names, payload, is_bare: self.is_bare })
    }
}
