//! The runs that this process claimed, as it left their rows, so that ending one need not read its row again.
//!
//! What is known here holds only while nobody else has written to the file, which SQLite tells by a number. Whatever another
//! process, an operator or a user's own transaction did: rows are read again then.

use std::collections::HashMap;

use queue_core::{ClaimId, Status, TaskId};

use crate::task::TaskRow;

/// More than this, and it starts afresh: what is forgotten is read again.
const HELD_MAX: usize = 10_000;

/// A number that changes when another connection has written to the file.
pub(crate) const OTHERS_WROTE: &str = "PRAGMA data_version";

/// What the thread that writes knows of them.
#[derive(Debug, Default)]
pub(crate) struct Held {
    rows: HashMap<TaskId, TaskRow>,
    /// Of the [number](OTHERS_WROTE) under which the rows were written.
    version: i64,
}

impl Held {
    /// Forgets everything when others have written meanwhile.
    pub(crate) fn check(&mut self, version: i64) {
        if self.version != version {
            self.rows.clear();
            self.version = version;
        }
    }

    /// A run begins. The version must have been [checked](Self::check) in this transaction.
    pub(crate) fn keep(&mut self, row: TaskRow) {
        debug_assert!(row.state.status == Status::Running && row.state.claim.is_some());
        if self.rows.len() >= HELD_MAX {
            self.rows.clear();
        }
        self.rows.insert(row.id, row);
    }

    /// The run of this task under this claim, which is about to end. The same goes for the version.
    pub(crate) fn take(&mut self, task: TaskId, claim: ClaimId) -> Option<TaskRow> {
        self.rows.remove(&task).filter(|row| row.state.claim == Some(claim))
    }
}
