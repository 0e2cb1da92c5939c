//! The task's life: four statuses and one total transition function.
//!
//! ```text
//! enqueue ─▶ queued ─claim─▶ running ─ok──────────────▶ completed
//!              ▲                │ ├─ error, attempts left ─▶ queued   (run_at = now + delay)
//!              │                │ ├─ snooze / release ──────▶ queued   (attempt refunded)
//!              └─ worker lost ──┘ └─ otherwise ─────────────▶ failed   (reason)
//! queued ─ budget spent, cancelled ─▶ failed            failed ─ operator retry ─▶ queued
//! ```
//!
//! Due time is data, not a status: a queued task has a `run_at`.

use std::fmt;

use crate::budget::Budget;
use crate::ids::{ClaimId, Fence};
use crate::settlement::{Requeue, Settlement};
use crate::time::Timestamp;

macro_rules! coded {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal, $text:literal;)+ }) => {
        $(#[$doc])*
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// All of them, in the order of their codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable number under which stores keep it.
            #[must_use]
            pub const fn code(self) -> u8 {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The one of a stored number.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }

            /// The stable name used in output, labels and filters.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The one of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

coded! {
    /// Where a task stands. There are these four and no more.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    Status {
        /// Waits, for its due time or for a worker.
        Queued = 0, "queued";
        /// Held by a claim.
        Running = 1, "running";
        /// Ended well.
        Completed = 2, "completed";
        /// Ended otherwise; the [`FailureReason`] says how.
        Failed = 3, "failed";
    }
}

impl Status {
    /// Whether a task of this status has ended.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

coded! {
    /// Why a task failed. When several hold, the order is: cancelled, crashed or exhausted, budget exceeded.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    #[non_exhaustive]
    FailureReason {
        /// Its last allowed attempt ended with an error.
        Exhausted = 1, "exhausted";
        /// Its handler panicked.
        Panicked = 2, "panicked";
        /// Its wall-clock budget was spent.
        BudgetExceeded = 3, "budget_exceeded";
        /// Its handler said: do not retry.
        Rejected = 4, "rejected";
        /// An operator or a producer cancelled it.
        Cancelled = 5, "cancelled";
        /// Its worker process died during its last allowed attempt.
        Crashed = 6, "crashed";
        /// No handler is registered for its type, and the worker was told to fail such tasks.
        Unregistered = 7, "unregistered";
    }
}

/// The part of a task that the rules read and change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskState {
    /// Where it stands.
    pub status: Status,
    /// Why it failed; present exactly when it did.
    pub reason: Option<FailureReason>,
    /// Attempts begun, the running one included; a snooze or a release gives one back.
    pub attempt: u16,
    /// Attempts allowed, at least 1.
    pub max_attempts: u16,
    /// How often in a row its worker was lost. Above zero the task is a suspect.
    pub losses: u16,
    /// How often it was claimed.
    pub fence: Fence,
    /// The claim that holds it or, when it is not running, that ended last.
    pub claim: Option<ClaimId>,
    /// Whether it shall be cancelled though it runs.
    pub cancel_requested: bool,
    /// When it was enqueued.
    pub created_at: Timestamp,
    /// When it is due, or was.
    pub run_at: Timestamp,
    /// When its last attempt began.
    pub started_at: Option<Timestamp>,
    /// When it ended; present exactly when it did.
    pub completed_at: Option<Timestamp>,
    /// When its budget is spent.
    pub deadline_at: Option<Timestamp>,
    /// The budget's length, so that an operator's retry can grant it afresh.
    pub budget: Budget,
}

impl TaskState {
    /// A task just enqueued. A first due time in the past counts as now.
    #[must_use]
    pub fn enqueued(now: Timestamp, first_run_at: Timestamp, max_attempts: u16, budget: Budget) -> Self {
        let run_at = first_run_at.max(now);
        Self {
            status: Status::Queued,
            reason: None,
            attempt: 0,
            max_attempts,
            losses: 0,
            fence: Fence::default(),
            claim: None,
            cancel_requested: false,
            created_at: now,
            run_at,
            started_at: None,
            completed_at: None,
            deadline_at: budget.deadline(now, run_at),
            budget,
        }
    }

    /// Whether its worker was lost while it ran, so that it might have killed it.
    #[must_use]
    pub const fn is_suspect(&self) -> bool {
        self.losses > 0
    }

    /// What is wrong with this state, if it is one that no sequence of events can reach: a stored row that says so is
    /// corrupt.
    #[must_use]
    pub fn defect(&self) -> Option<&'static str> {
        let failed = self.status == Status::Failed;
        if self.reason.is_some() != failed {
            return Some("a reason goes with a failed task, and only with one");
        }
        if self.completed_at.is_some() != self.status.is_terminal() {
            return Some("an end time goes with an ended task, and only with one");
        }
        if self.max_attempts == 0 || self.attempt > self.max_attempts {
            return Some("attempts are over their limit");
        }
        if self.status == Status::Running && (self.claim.is_none() || self.attempt == 0 || self.started_at.is_none()) {
            return Some("a running task has a claim, an attempt and a start");
        }
        if self.status == Status::Queued && self.attempt == self.max_attempts {
            return Some("a queued task has an attempt left");
        }
        if self.deadline_at.is_some() != self.budget.length().is_some() {
            return Some("a deadline goes with a budget, and only with one");
        }
        None
    }
}

/// What happens to a task.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A worker takes it under this claim.
    Claim(ClaimId),
    /// Its run is over.
    Settle {
        /// The claim that is said to hold it.
        claim: ClaimId,
        /// The id left on the task: the claim's own, or the reaper's, which makes the old holder stale.
        leaves: ClaimId,
        /// What the outcome came to.
        settlement: &'a Settlement,
    },
    /// Its budget was spent while it waited.
    Expire,
    /// A worker that fails unregistered types met it.
    Unregister,
    /// An operator or a producer wants it cancelled.
    Cancel,
    /// An operator wants a failed task tried again.
    Retry,
}

impl Event<'_> {
    /// The event's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Claim(_) => "claim",
            Self::Settle { .. } => "settle",
            Self::Expire => "expire",
            Self::Unregister => "unregister",
            Self::Cancel => "cancel",
            Self::Retry => "retry",
        }
    }
}

/// Why an event does not apply. Nothing changes then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransitionError {
    /// The event does not go with the status.
    #[error("cannot {event} a task that is {status}")]
    Illegal {
        /// Where the task stands.
        status: Status,
        /// The event's name.
        event: &'static str,
    },
    /// A completed task is not run again.
    #[error("a completed task cannot be retried; enqueue a copy instead")]
    RetryOfCompleted,
    /// The task is not due yet.
    #[error("the task is not due yet")]
    NotDue,
    /// The budget is not spent, so the task cannot be expired.
    #[error("the task's budget is not spent")]
    NotExpired,
    /// The budget is spent, so the task must be expired and not run.
    #[error("the task's budget is spent")]
    DeadlinePassed,
    /// No attempt is left.
    #[error("the task has no attempt left")]
    AttemptsSpent,
    /// The claim is no longer current: another claim or the reaper took the task.
    #[error("the claim is no longer current")]
    Stale,
    /// This very settle was applied before; it is repeated after a lost acknowledgement.
    #[error("the claim has settled the task already")]
    AlreadySettled,
}

/// The state after `event`, or why it does not apply. Total over every pair of status and event.
///
/// `now` is the store's clock at the moment of the write.
///
/// # Errors
///
/// A [`TransitionError`]; the state stays as it is.
pub fn transition(task: &TaskState, event: &Event<'_>, now: Timestamp) -> Result<TaskState, TransitionError> {
    use Status::{Completed, Failed, Queued, Running};

    match (task.status, event) {
        (Queued, Event::Claim(claim)) => claim_queued(task, *claim, now),
        (Queued, Event::Expire) if task.deadline_at.is_none_or(|deadline| now < deadline) => {
            Err(TransitionError::NotExpired)
        }
        (Queued, Event::Expire) => Ok(failed(task, FailureReason::BudgetExceeded, now)),
        (Queued, Event::Unregister) => Ok(failed(task, FailureReason::Unregistered, now)),
        (Queued, Event::Cancel) => Ok(failed(task, FailureReason::Cancelled, now)),

        (Running, Event::Settle { claim, leaves, settlement }) if task.claim == Some(*claim) => {
            Ok(TaskState { claim: Some(*leaves), ..settled(task, settlement, now) })
        }
        (Running, Event::Cancel) => Ok(TaskState { cancel_requested: true, ..task.clone() }),

        (Queued | Completed | Failed, Event::Settle { leaves, .. }) if task.claim == Some(*leaves) => {
            Err(TransitionError::AlreadySettled)
        }
        (_, Event::Settle { .. }) => Err(TransitionError::Stale),

        (Failed, Event::Retry) => Ok(TaskState {
            status: Queued,
            reason: None,
            attempt: 0,
            losses: 0,
            cancel_requested: false,
            run_at: now,
            completed_at: None,
            deadline_at: task.budget.deadline(now, now),
            ..task.clone()
        }),
        (Completed, Event::Retry) => Err(TransitionError::RetryOfCompleted),

        (status @ Queued, Event::Retry)
        | (status @ Running, Event::Claim(_) | Event::Expire | Event::Unregister | Event::Retry)
        | (status @ (Completed | Failed), Event::Claim(_) | Event::Expire | Event::Unregister | Event::Cancel) => {
            Err(TransitionError::Illegal { status, event: event.name() })
        }
    }
}

fn claim_queued(task: &TaskState, claim: ClaimId, now: Timestamp) -> Result<TaskState, TransitionError> {
    if task.run_at > now {
        return Err(TransitionError::NotDue);
    }
    if task.deadline_at.is_some_and(|deadline| deadline <= now) {
        return Err(TransitionError::DeadlinePassed);
    }
    if task.attempt >= task.max_attempts {
        return Err(TransitionError::AttemptsSpent);
    }
    Ok(TaskState {
        status: Status::Running,
        attempt: task.attempt + 1,
        fence: task.fence.next(),
        claim: Some(claim),
        started_at: Some(now),
        ..task.clone()
    })
}

fn settled(task: &TaskState, settlement: &Settlement, now: Timestamp) -> TaskState {
    match settlement {
        Settlement::Complete { .. } => {
            TaskState { status: Status::Completed, completed_at: Some(now), cancel_requested: false, ..task.clone() }
        }
        Settlement::Fail { reason, .. } => failed(task, *reason, now),
        Settlement::Requeue { delay, kind } => TaskState {
            status: Status::Queued,
            attempt: if kind.refunds() { task.attempt.saturating_sub(1) } else { task.attempt },
            losses: match kind {
                Requeue::Recover { .. } => task.losses.saturating_add(1),
                Requeue::Release => task.losses,
                Requeue::Retry { .. } | Requeue::Snooze => 0,
            },
            cancel_requested: false,
            run_at: now.after(*delay),
            ..task.clone()
        },
    }
}

fn failed(task: &TaskState, reason: FailureReason, now: Timestamp) -> TaskState {
    TaskState {
        status: Status::Failed,
        reason: Some(reason),
        completed_at: Some(now),
        cancel_requested: false,
        losses: task.losses.saturating_add(u16::from(reason == FailureReason::Crashed)),
        ..task.clone()
    }
}
