//! The port that operators need: looking, acting, pausing, pruning.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::StoreError;
use crate::ids::TaskId;
use crate::machine::{Event, FailureReason, Status, TaskState, TransitionError, transition};
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

    /// What it comes to for a task that stands like this.
    ///
    /// # Errors
    ///
    /// When the action does not go with where the task stands; nothing changes then.
    pub fn on(self, task: &TaskState, now: Timestamp) -> Result<Effect, TransitionError> {
        let event = match self {
            Self::Cancel => Event::Cancel,
            Self::Retry => Event::Retry,
            Self::Delete if task.status == Status::Running => {
                return Err(TransitionError::Illegal { status: task.status, event: self.as_str() });
            }
            Self::Delete => return Ok(Effect::Delete),
        };
        let next = transition(task, &event, now)?;
        Ok(if next.status == Status::Running { Effect::Signal(next) } else { Effect::Move(next) })
    }
}

/// What an [`Action`] comes to for one task. Stores carry it out and decide nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// It moves to this state.
    Move(TaskState),
    /// It goes on running, and its handler is told; its state is this one then.
    Signal(TaskState),
    /// Every trace of it is removed.
    Delete,
}

impl Effect {
    /// The answer, once it is carried out.
    #[must_use]
    pub const fn acted(&self) -> Acted {
        match self {
            Self::Move(_) | Self::Delete => Acted::Done,
            Self::Signal(_) => Acted::Signalled,
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

impl Selection {
    /// Refuses an empty filter: it matches every task, which nobody is taken to mean.
    ///
    /// # Errors
    ///
    /// [`StoreError::Other`] for an empty filter.
    pub fn check(&self) -> Result<(), StoreError> {
        match self {
            Self::Matching { filter, .. } if filter.is_empty() => {
                Err(StoreError::other("an empty filter matches every task; name a condition"))
            }
            Self::Ids(_) | Self::Matching { .. } => Ok(()),
        }
    }

    /// The ids, each once: naming a task twice acts on it once.
    #[must_use]
    pub fn distinct(ids: Vec<TaskId>) -> Vec<TaskId> {
        let mut seen = BTreeSet::new();
        ids.into_iter().filter(|id| seen.insert(*id)).collect()
    }

    /// The ids of the tasks, found page by page of at most `page_max`, so that a long list is never held as a whole.
    ///
    /// # Errors
    ///
    /// For an empty filter, and when the store fails.
    pub async fn ids<A: TaskAdmin + ?Sized>(self, admin: &A, page_max: usize) -> Result<Vec<TaskId>, StoreError> {
        self.check()?;
        let (filter, limit) = match self {
            Self::Ids(ids) => return Ok(Self::distinct(ids)),
            Self::Matching { filter, limit } => (filter, limit),
        };
        let mut ids = Vec::new();
        let mut after = None;
        while ids.len() < limit {
            let page = Page { after, limit: (limit - ids.len()).min(page_max) };
            let tasks = admin.list(filter.clone(), page).await?;
            after = tasks.last().map(|task| filter.position(task));
            ids.extend(tasks.iter().map(|task| task.id));
            if tasks.len() < page.limit {
                break;
            }
        }
        Ok(ids)
    }
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

impl Acted {
    /// Whether anything was changed, which is what the audit counts.
    #[must_use]
    pub const fn is_change(self) -> bool {
        matches!(self, Self::Done | Self::Signalled)
    }
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

    /// The failed attempts of a task, the latest first; [`ATTEMPTS_MAX`](crate::record::ATTEMPTS_MAX) are kept.
    async fn attempts(&self, task: TaskId) -> Result<Vec<AttemptRecord>, StoreError>;

    /// Tasks that match, in the order of [`Filter::position`], without gaps or repeats from page to page as far as tasks
    /// stay where they are. Payloads and results are left empty. Rows that are corrupt are left out.
    async fn list(&self, filter: Filter, page: Page) -> Result<Vec<TaskRecord>, StoreError>;

    /// How the queues stand. Counts are bounded.
    async fn stats(&self) -> Result<Stats, StoreError>;

    /// Acts on tasks and writes one audit entry with the actor, the action and how many were changed. One answer per task,
    /// also where it is named twice.
    ///
    /// # Contract
    ///
    /// Each task moves by [`transition`]. A running task is never waited for: cancelling it
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

    /// Tells the pool of this session to drain and stop. `false` when there is no such session; one that was fenced and holds
    /// nothing may be gone already or not.
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
    fn an_action_is_a_transition_or_a_removal() {
        let now = Timestamp::from_micros(9);
        let queued = TaskState::enqueued(now, now, 3, crate::Budget::NONE);
        let claim = Event::Claim(crate::ClaimId::from_random(2));
        let running = transition(&queued, &claim, now).unwrap();
        let acted = |action: Action, task: &TaskState| action.on(task, now).map(|effect| effect.acted());
        assert_eq!(acted(Action::Cancel, &queued), Ok(Acted::Done));
        assert_eq!(acted(Action::Cancel, &running), Ok(Acted::Signalled));
        assert_eq!(acted(Action::Delete, &queued), Ok(Acted::Done));
        let refused = TransitionError::Illegal { status: Status::Running, event: "delete" };
        assert_eq!(acted(Action::Delete, &running), Err(refused));
        assert!(matches!(acted(Action::Retry, &queued), Err(TransitionError::Illegal { event: "retry", .. })));
        assert_eq!([Acted::Done, Acted::Signalled].map(Acted::is_change), [true; 2]);
        assert_eq!([Acted::NotFound, Acted::Refused(refused)].map(Acted::is_change), [false; 2]);
    }

    #[test]
    fn a_task_named_twice_is_one() {
        let id = |id| TaskId::new(id).unwrap();
        assert_eq!(Selection::distinct(vec![id(2), id(1), id(2)]), [id(2), id(1)]);
    }

    #[test]
    fn a_reason_implies_failed() {
        let filter = Filter { reason: Some(FailureReason::Crashed), ..Filter::default() };
        assert_eq!((filter.status(), filter.is_empty()), (Some(Status::Failed), false));
        assert!(Filter::default().is_empty());
        assert_eq!([Action::Cancel, Action::Retry, Action::Delete].map(Action::as_str), ["cancel", "retry", "delete"]);
    }
}
