//! The port that operators need: looking, acting, pausing, pruning.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::StoreError;
use crate::ids::TaskId;
use crate::machine::{FailureReason, Status, TransitionError};
use crate::names::{QueueName, TaskType};
use crate::record::{AttemptRecord, TaskRecord};
use crate::session::SessionRecord;
use crate::time::Timestamp;

/// Which tasks. Every condition given must hold; an empty filter matches every task, so acting on one is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only of this status.
    pub status: Option<Status>,
    /// Only failed for this reason.
    pub reason: Option<FailureReason>,
    /// Only of this type.
    pub task_type: Option<TaskType>,
    /// Only in this queue.
    pub queue: Option<QueueName>,
}

impl Filter {
    /// Whether no condition is given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a task matches.
    #[must_use]
    pub fn matches(&self, task: &TaskRecord) -> bool {
        self.status.is_none_or(|status| status == task.state.status)
            && self.reason.is_none_or(|reason| Some(reason) == task.state.reason)
            && self.task_type.as_ref().is_none_or(|task_type| *task_type == task.task_type)
            && self.queue.as_ref().is_none_or(|queue| *queue == task.queue)
    }

    /// The status that a match must have: the one asked for or, with a reason, failed.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        self.status.or(self.reason.map(|_| Status::Failed))
    }

    /// The position of a task in the list of this filter: lists are in ascending order of it.
    ///
    /// Queued tasks come by due time, running ones by id, ended ones by the latest end, and tasks of any status by the
    /// latest id.
    #[must_use]
    pub fn position(&self, task: &TaskRecord) -> (i64, i64) {
        let id = i64::try_from(task.id.get()).unwrap_or(i64::MAX);
        match self.status() {
            Some(Status::Queued) => (task.state.run_at.as_micros(), id),
            Some(Status::Running) => (0, id),
            Some(Status::Completed | Status::Failed) => {
                (task.state.completed_at.unwrap_or_default().as_micros().saturating_neg(), -id)
            }
            None => (0, -id),
        }
    }
}

/// A part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Start after this position ([`Filter::position`] of the last task seen); at the beginning when `None`.
    pub after: Option<(i64, i64)>,
    /// Tasks at most.
    pub limit: usize,
}

/// What an operator does to tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Queued: failed as cancelled at once. Running: its handler is told with the next heartbeat; a completion may win.
    Cancel,
    /// Failed: queued again, with fresh attempts and a fresh budget.
    Retry,
    /// Not running: every trace of it is removed.
    Delete,
}

impl Action {
    /// The stable name, as the audit keeps it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Retry => "retry",
            Self::Delete => "delete",
        }
    }
}

/// On which tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// These.
    Ids(Vec<TaskId>),
    /// Those that match, `limit` at most, in the order of the list.
    Matching {
        /// The condition; an empty one is refused.
        filter: Filter,
        /// Tasks at most.
        limit: usize,
    },
}

/// What became of an [`Action`] on one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acted {
    /// It was done.
    Done,
    /// The task runs; its handler will be told to stop.
    Signalled,
    /// There is no such task.
    NotFound,
    /// It does not go with where the task stands; nothing was changed.
    Refused(TransitionError),
}

/// A number that was not counted beyond a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// What was counted.
    pub number: u64,
    /// Whether there are more.
    pub more: bool,
}

impl Count {
    /// How far counts go.
    pub const BOUND: u64 = 10_000;

    /// Out of a count that looked at up to one more than [`Count::BOUND`].
    #[must_use]
    pub const fn bounded(number: u64) -> Self {
        if number > Self::BOUND { Self { number: Self::BOUND, more: true } } else { Self { number, more: false } }
    }
}

/// Why and by whom a queue is paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Who did it. At most 64 bytes are kept.
    pub by: String,
    /// Why. At most 200 bytes are kept.
    pub why: String,
    /// When.
    pub at: Timestamp,
}

/// How a queue stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueStats {
    /// Its name.
    pub queue: QueueName,
    /// Tasks that are due.
    pub ready: Count,
    /// Tasks due later.
    pub later: Count,
    /// Tasks that run.
    pub running: Count,
    /// How long the oldest due task has waited.
    pub oldest_ready: Option<Duration>,
    /// Tasks completed within the last minute.
    pub completed_last_minute: Count,
    /// Tasks failed within the last 24 hours.
    pub failed_last_day: Count,
    /// Whether it is paused.
    pub paused: Option<Pause>,
}

/// How the whole stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// The store's clock.
    pub now: Timestamp,
    /// Every queue that was ever used, by name.
    pub queues: Vec<QueueStats>,
    /// Sessions that are alive.
    pub sessions: u64,
}

/// What operators need of a store. Same promises as [`TaskStore`](crate::TaskStore).
#[async_trait]
pub trait TaskAdmin: Send + Sync + Debug {
    /// One task, with payload and result; `None` when there is no such task.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] when its rows are ones that cannot be.
    async fn get(&self, task: TaskId) -> Result<Option<TaskRecord>, StoreError>;

    /// The failed attempts of a task, the latest first, 100 at most.
    async fn attempts(&self, task: TaskId) -> Result<Vec<AttemptRecord>, StoreError>;

    /// Tasks that match, in the order of [`Filter::position`], without gaps or repeats from page to page as far as tasks
    /// stay where they are. Payloads and results are left empty. Rows that are corrupt are left out.
    async fn list(&self, filter: Filter, page: Page) -> Result<Vec<TaskRecord>, StoreError>;

    /// How the queues stand. Counts are bounded.
    async fn stats(&self) -> Result<Stats, StoreError>;

    /// Acts on tasks and writes one audit entry with the actor, the action and how many were changed. One answer per task.
    ///
    /// # Contract
    ///
    /// Each task moves by [`transition`](crate::transition). A running task is never waited for: cancelling it
    /// writes a signal, which its session's next renewal brings.
    ///
    /// # Atomicity
    ///
    /// Each task by itself; a long selection is worked off in batches.
    async fn act(&self, selection: Selection, action: Action, actor: &str) -> Result<Vec<(TaskId, Acted)>, StoreError>;

    /// Pauses a queue (nothing of it is claimed by any process until it is resumed) or, with `None`, resumes it. The
    /// queue need not have been used yet. The pause's own time is not read; the store's now is kept.
    async fn set_paused(&self, queue: QueueName, pause: Option<Pause>, actor: &str) -> Result<(), StoreError>;

    /// Sessions, the latest first, 1,000 at most.
    async fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError>;

    /// Tells the pool of this session to drain and stop. `false` when there is no such session.
    async fn request_drain(&self, session: crate::ids::SessionId, actor: &str) -> Result<bool, StoreError>;

    /// Removes ended tasks (of this status, or of both) that ended longer ago than `older_than`, the oldest first, `limit` at most
    /// in this call, in small batches. Returns how many: less than `limit` means that none is left. Idempotency keys stay for
    /// 24 h at least.
    async fn prune(&self, status: Option<Status>, older_than: Duration, limit: usize) -> Result<u64, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_bounded() {
        assert_eq!(Count::bounded(10_000), Count { number: 10_000, more: false });
        assert_eq!(Count::bounded(10_001), Count { number: 10_000, more: true });
    }

    #[test]
    fn a_reason_implies_failed() {
        let filter = Filter { reason: Some(FailureReason::Crashed), ..Filter::default() };
        assert_eq!((filter.status(), filter.is_empty()), (Some(Status::Failed), false));
        assert!(Filter::default().is_empty());
        assert_eq!([Action::Cancel, Action::Retry, Action::Delete].map(Action::as_str), ["cancel", "retry", "delete"]);
    }
}
