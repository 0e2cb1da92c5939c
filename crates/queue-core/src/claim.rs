//! Claims: how a worker takes a batch of due tasks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::{ClaimId, Fence, SessionId, TaskId};
use crate::machine::FailureReason;
use crate::names::{QueueName, TaskType};
use crate::payload::Payload;
use crate::priority::Priority;
use crate::retry::Backoff;
use crate::settlement::Run;
use crate::time::Timestamp;

/// A choice of queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Queues {
    /// Every queue there is, now or later.
    #[default]
    All,
    /// These queues; none when empty.
    Named(Arc<[QueueName]>),
}

impl fmt::Display for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Named(names) if names.is_empty() => f.write_str("none"),
            Self::Named(names) => {
                for (index, name) in names.iter().enumerate() {
                    write!(f, "{}{name}", if index > 0 { ", " } else { "" })?;
                }
                Ok(())
            }
        }
    }
}

impl Queues {
    /// No queue.
    #[must_use]
    pub fn none() -> Self {
        Self::Named(Arc::from([]))
    }

    /// Whether the queue is among them.
    #[must_use]
    pub fn contains(&self, queue: &QueueName) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(queue),
        }
    }

    /// Whether no queue is among them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Named(names) if names.is_empty())
    }
}

/// What a worker serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The queues it claims from.
    pub queues: Queues,
    /// The types it has handlers for. It claims no other, so that a rolling deploy loses nothing.
    pub types: Arc<[TaskType]>,
    /// The queues in which it fails tasks of other types instead of leaving them to other workers.
    pub fail_unregistered: Queues,
}

impl Scope {
    /// These types in every queue; tasks of other types are left alone.
    #[must_use]
    pub fn of(types: impl Into<Arc<[TaskType]>>) -> Self {
        Self { queues: Queues::All, types: types.into(), fail_unregistered: Queues::none() }
    }

    /// Whether a task of this type in this queue may run here.
    #[must_use]
    pub fn serves(&self, queue: &QueueName, task_type: &TaskType) -> bool {
        self.queues.contains(queue) && self.types.contains(task_type)
    }

    /// Whether a claim would do anything with such a task: run it or, where its type is not registered, fail it.
    #[must_use]
    pub fn reaches(&self, queue: &QueueName, task_type: &TaskType) -> bool {
        self.serves(queue, task_type) || (self.queues.contains(queue) && self.fail_unregistered.contains(queue))
    }
}

/// How much a claim may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Tasks in all.
    pub tasks: usize,
    /// Payload bytes in all. A single larger task is taken alone.
    pub bytes: u64,
    /// Suspects among them: tasks whose last worker was lost.
    pub suspects: usize,
    /// Tasks of the types that have a limit of their own; a type not named here is limited by `tasks` alone.
    pub per_type: Vec<(TaskType, usize)>,
}

impl Capacity {
    /// Room for this many tasks of any kind, suspects included.
    #[must_use]
    pub const fn of(tasks: usize) -> Self {
        Self { tasks, bytes: u64::MAX, suspects: tasks, per_type: Vec::new() }
    }
}

/// A wish for tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRequest {
    /// The session that will hold them.
    pub session: SessionId,
    /// The claim's id, random, never used before.
    pub claim: ClaimId,
    /// What may be taken.
    pub scope: Scope,
    /// How much may be taken.
    pub capacity: Capacity,
}

/// A task that was claimed, with all that a run of it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedTask {
    /// Its id.
    pub id: TaskId,
    /// The claim that holds it.
    pub claim: ClaimId,
    /// Its type.
    pub task_type: TaskType,
    /// Its queue.
    pub queue: QueueName,
    /// Its priority.
    pub priority: Priority,
    /// Which attempt this is, from 1.
    pub attempt: u16,
    /// Attempts allowed.
    pub max_attempts: u16,
    /// The delay between attempts.
    pub backoff: Backoff,
    /// How often it was claimed, this claim included.
    pub fence: Fence,
    /// How often in a row its worker was lost.
    pub losses: u16,
    /// When it was enqueued.
    pub created_at: Timestamp,
    /// When it was due.
    pub run_at: Timestamp,
    /// When this attempt began, by the store's clock.
    pub started_at: Timestamp,
    /// When its budget is spent.
    pub deadline_at: Option<Timestamp>,
    /// What it works on.
    pub payload: Payload,
}

impl ClaimedTask {
    /// What the decision about the end of this run depends on.
    #[must_use]
    pub fn run(&self) -> Run {
        Run {
            attempt: self.attempt,
            max_attempts: self.max_attempts,
            backoff: self.backoff.clone(),
            deadline_at: self.deadline_at,
            cancel_requested: false,
        }
    }

    /// Whether its last worker was lost, so that the task may have killed it.
    #[must_use]
    pub const fn is_suspect(&self) -> bool {
        self.losses > 0
    }

    /// How long it waited from due to claimed.
    #[must_use]
    pub fn schedule_to_start(&self) -> Duration {
        self.started_at.since(self.run_at)
    }
}

/// A task that ended without a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its id.
    pub id: TaskId,
    /// Its type.
    pub task_type: TaskType,
    /// Why it failed.
    pub reason: FailureReason,
}

/// What a claim took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The store's clock when it claimed.
    pub now: Timestamp,
    /// The tasks now held, in the order in which they should start.
    pub tasks: Vec<ClaimedTask>,
    /// What was met and failed without a run: its budget was spent, or its type is not registered.
    pub ended: Vec<Ended>,
    /// When the next task that this scope could take is due; not after `now` when there is more right away. `None` when
    /// nothing is waiting.
    pub next_due: Option<Timestamp>,
}

/// The answer to a [`ClaimRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimReply {
    /// What was taken; it may be nothing.
    Claimed(Claimed),
    /// The session is fenced or gone: nothing was claimed, and nothing ever will be under it.
    Fenced,
}

/// What is known of a claim whose acknowledgement was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// It was committed: these tasks of it are still held. Those that `ended` with it are not told again.
    Committed(Claimed),
    /// It was not committed, and never will be.
    Void,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_all_or_named() {
        let mail = Queues::Named(Arc::from([QueueName::new("mail")]));
        assert!(Queues::default().contains(&QueueName::DEFAULT) && !Queues::All.is_empty());
        assert!(mail.contains(&QueueName::new("mail")) && !mail.contains(&QueueName::DEFAULT));
        assert!(Queues::none().is_empty() && !mail.is_empty());
        let two = Queues::Named(Arc::from([QueueName::new("mail"), QueueName::DEFAULT]));
        assert_eq!(
            [Queues::All, Queues::none(), mail, two].map(|told| told.to_string()),
            ["all", "none", "mail", "mail, default"]
        );
    }

    #[test]
    fn a_scope_serves_its_types_in_its_queues() {
        let scope = Scope::of([TaskType::new("a")]);
        assert!(scope.serves(&QueueName::DEFAULT, &TaskType::new("a")));
        assert!(!scope.serves(&QueueName::DEFAULT, &TaskType::new("b")));
        let strict = Scope { fail_unregistered: Queues::All, ..scope.clone() };
        assert!(strict.reaches(&QueueName::DEFAULT, &TaskType::new("b")));
        assert!(!scope.reaches(&QueueName::DEFAULT, &TaskType::new("b")));
        let nowhere = Scope { queues: Queues::none(), ..strict };
        assert!(!nowhere.serves(&QueueName::DEFAULT, &TaskType::new("a")));
        assert!(!nowhere.reaches(&QueueName::DEFAULT, &TaskType::new("a")));
    }
}
