//! What a pool did, told at its end.

use std::collections::BTreeMap;
use std::fmt;

use queue_core::{ErrorText, FailureReason, Settle, Settled, Settlement, Status, TaskId, TaskType};

/// Errors kept by a pool that drains, at most.
const ERRORS_MAX: usize = 100;

/// What a pool did, as far as the store has acknowledged it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Runs that completed their task.
    pub completed: u64,
    /// Runs that ended with an error and are tried again, and tasks recovered from lost workers.
    pub retried: u64,
    /// Runs that asked to be run later.
    pub snoozed: u64,
    /// Tasks given back with their attempt refunded: they never started, or did not end before the pool did.
    pub released: u64,
    /// Tasks that failed for good, by reason.
    pub failed: BTreeMap<FailureReason, u64>,
    /// Runs whose claim was no longer current when they ended.
    pub stale: u64,
    /// Tasks whose end the store did not acknowledge before the pool ended; the reaper of another pool recovers them.
    pub unsettled: u64,
    /// Handlers that did not end before the pool did.
    pub still_running: u64,
    /// Errors that handlers ended with, as far as the store has acknowledged them: the first 100. Only a pool that
    /// [drains](crate::Pool::drain) keeps them.
    pub errors: Vec<HandlerError>,
}

/// An error that a handler ended with.
///
/// Its `Debug` form shows the text, so that a failed assertion about a drained queue says why. The text may quote what the
/// handler worked on: do not log it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandlerError {
    /// The task.
    pub task: TaskId,
    /// Its type; `None` when it is not registered with the pool.
    pub task_type: Option<TaskType>,
    /// What the run came to: `retried` or a failure reason.
    pub outcome: &'static str,
    /// The error.
    pub error: ErrorText,
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let task_type = self.task_type.as_ref().map_or("unknown", TaskType::as_str);
        write!(f, "{task_type} {} {}: {}", self.task, self.outcome, self.error.as_str())
    }
}

impl Report {
    /// Tasks that failed for good, whatever the reason.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Counts what the store said of a settlement, and returns its label; `None` when it was stale.
    pub(crate) fn count(&mut self, settlement: &Settlement, settled: Settled) -> Option<&'static str> {
        // In the handler's own transaction the task may have completed though its settlement says otherwise.
        let completed = settled == Settled::Already(Status::Completed);
        match (settled, settlement) {
            (Settled::Stale, _) => {
                self.stale += 1;
                return None;
            }
            _ if completed => self.completed += 1,
            (_, Settlement::Complete { .. }) => self.completed += 1,
            (_, Settlement::Fail { reason, .. }) => self.failure(*reason),
            (_, Settlement::Requeue { .. }) => match settlement.label() {
                "snoozed" => self.snoozed += 1,
                "released" => self.released += 1,
                _ => self.retried += 1,
            },
        }
        Some(if completed { "completed" } else { settlement.label() })
    }

    /// Counts a task that failed.
    pub(crate) fn failure(&mut self, reason: FailureReason) {
        *self.failed.entry(reason).or_default() += 1;
    }

    /// Keeps the error, if there is one, of a run that came to this.
    pub(crate) fn error(&mut self, settle: &Settle, outcome: &'static str, task_type: Option<&TaskType>) {
        // A run that is settled as an error may have completed in the handler's own transaction.
        let error = settle.settlement.error().filter(|_| outcome == settle.settlement.label());
        if let Some(error) = error.filter(|_| self.errors.len() < ERRORS_MAX) {
            let (task, task_type, error) = (settle.task, task_type.cloned(), error.clone());
            self.errors.push(HandlerError { task, task_type, outcome, error });
        }
    }
}
