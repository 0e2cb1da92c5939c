//! How a run ends: what happened ([`Outcome`]) becomes what the store writes ([`Settlement`]).
//!
//! Success, retry, failure, release on shutdown and recovery after a crash all leave through this one exit, each under
//! its claim's id, so that a late worker and the reaper race safely: one is applied, the other is stale.

use std::time::Duration;

use crate::ids::{ClaimId, TaskId};
use crate::machine::{FailureReason, Status};
use crate::payload::TaskResult;
use crate::retry::{Backoff, Jitter};
use crate::text::ErrorText;
use crate::time::Timestamp;

/// The longest jittered delay of a task recovered from a lost worker.
pub const RECOVERY_DELAY_MAX: Duration = Duration::from_secs(1);

/// What the decision about a run's end depends on. A worker may lower `max_attempts` and `deadline_at`, never raise them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which attempt it was, from 1.
    pub attempt: u16,
    /// Attempts allowed.
    pub max_attempts: u16,
    /// The delay between attempts.
    pub backoff: Backoff,
    /// When the budget is spent.
    pub deadline_at: Option<Timestamp>,
    /// Whether the task shall be cancelled.
    pub cancel_requested: bool,
}

/// What happened to a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The handler returned a value.
    Succeeded(TaskResult),
    /// The handler returned an error; the attempt may be repeated.
    Errored {
        /// The error's text.
        error: ErrorText,
        /// A delay that the handler asked for instead of the policy's.
        delay: Option<Duration>,
    },
    /// The handler said: do not retry.
    Rejected(ErrorText),
    /// The handler panicked, with this message.
    Panicked(ErrorText),
    /// The handler asked to be run later, without spending an attempt.
    Snoozed(Duration),
    /// The run was given back, unharmed: it never started, or the worker shut down.
    Released,
    /// The handler was cancelled because an operator wanted it.
    Cancelled,
    /// The handler was cancelled because the budget was spent.
    OutOfBudget,
    /// The worker is gone: its session was fenced.
    Lost,
}

/// Why a task goes back to waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Requeue {
    /// The attempt failed; the next one follows.
    Retry {
        /// The error's text.
        error: ErrorText,
    },
    /// The handler asked for it; the attempt is refunded.
    Snooze,
    /// The worker gave it back; the attempt is refunded.
    Release,
    /// The worker was lost; the attempt is spent and the task is a suspect.
    Recover {
        /// What is told of the lost attempt.
        error: ErrorText,
    },
}

impl Requeue {
    /// Whether the attempt is given back.
    #[must_use]
    pub const fn refunds(&self) -> bool {
        matches!(self, Self::Snooze | Self::Release)
    }
}

/// What a store writes at the end of a run. Stores apply it and decide nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Settlement {
    /// Completed.
    Complete {
        /// What it leaves behind.
        result: TaskResult,
    },
    /// Failed for good.
    Fail {
        /// Why.
        reason: FailureReason,
        /// The last error; `None` leaves an earlier one in place.
        error: Option<ErrorText>,
    },
    /// Back to waiting.
    Requeue {
        /// Due this long after the store's now.
        delay: Duration,
        /// Why.
        kind: Requeue,
    },
}

impl Settlement {
    /// What the outcome of a run comes to. `now` is the store's clock as the worker knows it, at the moment the handler
    /// returned: slow settling never turns success into failure.
    pub fn decide(run: &Run, outcome: Outcome, now: Timestamp, jitter: Jitter) -> Self {
        if run.cancel_requested && !matches!(outcome, Outcome::Succeeded(_)) {
            return Self::Fail { reason: FailureReason::Cancelled, error: outcome.into_error() };
        }
        let attempts_left = run.attempt < run.max_attempts;
        match outcome {
            Outcome::Succeeded(result) => Self::Complete { result },
            Outcome::Errored { error, .. } if !attempts_left => {
                Self::Fail { reason: FailureReason::Exhausted, error: Some(error) }
            }
            Outcome::Errored { error, delay } => {
                let delay = delay.unwrap_or_else(|| run.backoff.delay(run.attempt, jitter));
                run.requeue(delay, Requeue::Retry { error }, now)
            }
            Outcome::Lost if !attempts_left => {
                Self::Fail { reason: FailureReason::Crashed, error: outcome.into_error() }
            }
            Outcome::Lost => {
                run.requeue(jitter.of(RECOVERY_DELAY_MAX), Requeue::Recover { error: ErrorText::from(LOST) }, now)
            }
            Outcome::Rejected(error) => Self::Fail { reason: FailureReason::Rejected, error: Some(error) },
            Outcome::Panicked(error) => Self::Fail { reason: FailureReason::Panicked, error: Some(error) },
            Outcome::Snoozed(delay) => run.requeue(delay, Requeue::Snooze, now),
            Outcome::Released => run.requeue(Duration::ZERO, Requeue::Release, now),
            Outcome::Cancelled => Self::Fail { reason: FailureReason::Cancelled, error: None },
            Outcome::OutOfBudget => Self::Fail { reason: FailureReason::BudgetExceeded, error: None },
        }
    }

    /// The status it leads to.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::Complete { .. } => Status::Completed,
            Self::Fail { .. } => Status::Failed,
            Self::Requeue { .. } => Status::Queued,
        }
    }

    /// The error that the run ended with; it makes a row in the history of failed attempts and is the task's last error.
    #[must_use]
    pub const fn error(&self) -> Option<&ErrorText> {
        match self {
            Self::Fail { error, .. } => error.as_ref(),
            Self::Requeue { kind: Requeue::Retry { error } | Requeue::Recover { error }, .. } => Some(error),
            Self::Complete { .. } | Self::Requeue { .. } => None,
        }
    }

    /// The stable label of metrics: `completed`, `retried`, `snoozed`, `released` or a failure reason.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Complete { .. } => "completed",
            Self::Fail { reason, .. } => reason.as_str(),
            Self::Requeue { kind, .. } => match kind {
                Requeue::Retry { .. } | Requeue::Recover { .. } => "retried",
                Requeue::Snooze => "snoozed",
                Requeue::Release => "released",
            },
        }
    }
}

const LOST: &str = "the worker was lost while the task ran";

impl Run {
    /// Back to waiting, unless that would end at or after the deadline: then the budget is spent now.
    fn requeue(&self, delay: Duration, kind: Requeue, now: Timestamp) -> Settlement {
        if self.deadline_at.is_some_and(|deadline| now.after(delay) >= deadline) {
            let error = match kind {
                Requeue::Retry { error } | Requeue::Recover { error } => Some(error),
                Requeue::Snooze | Requeue::Release => None,
            };
            return Settlement::Fail { reason: FailureReason::BudgetExceeded, error };
        }
        Settlement::Requeue { delay, kind }
    }
}

impl Outcome {
    fn into_error(self) -> Option<ErrorText> {
        match self {
            Self::Errored { error, .. } | Self::Rejected(error) | Self::Panicked(error) => Some(error),
            Self::Lost => Some(ErrorText::from(LOST)),
            Self::Succeeded(_) | Self::Snoozed(_) | Self::Released | Self::Cancelled | Self::OutOfBudget => None,
        }
    }
}

/// One settlement on its way to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// The task.
    pub task: TaskId,
    /// The claim that is said to hold it.
    pub claim: ClaimId,
    /// The id left on the task, by which a repeated settle recognises itself.
    pub leaves: ClaimId,
    /// What to write.
    pub settlement: Settlement,
}

impl Settle {
    /// A settlement by the claim's own holder.
    pub const fn by_holder(task: TaskId, claim: ClaimId, settlement: Settlement) -> Self {
        Self { task, claim, leaves: claim, settlement }
    }

    /// A settlement by the reaper, whose id replaces the lost claim's, so that the late holder is stale.
    pub const fn by_reaper(task: TaskId, claim: ClaimId, reaper: ClaimId, settlement: Settlement) -> Self {
        Self { task, claim, leaves: reaper, settlement }
    }
}

/// What became of one [`Settle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was written now.
    Applied,
    /// It had been written before, by this very settle or in the user's own transaction, and led to this status.
    Already(Status),
    /// The claim is no longer current: nothing was written now. Had an earlier try no answer, that one may have been, and the
    /// task been claimed anew since: what it left on the row is gone then.
    Stale,
}

impl Settled {
    /// Whether the claim's holder has settled the task, now or before.
    #[must_use]
    pub const fn is_applied(self) -> bool {
        matches!(self, Self::Applied | Self::Already(_))
    }
}
