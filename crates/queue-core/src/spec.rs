//! Tasks to be enqueued.

use std::time::Duration;

use crate::budget::Budget;
use crate::ids::{Nonce, TaskId};
use crate::machine::TaskState;
use crate::names::{QueueName, TaskType};
use crate::payload::Payload;
use crate::priority::Priority;
use crate::retry::Retry;
use crate::time::Timestamp;

/// When a task is first due. Delays run on the store's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At once.
    #[default]
    Now,
    /// This long after it is enqueued.
    After(Duration),
    /// At this point; at once when it is past.
    At(Timestamp),
}

impl Start {
    /// The first due time of a task enqueued at `now`.
    #[must_use]
    pub fn due(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Now => now,
            Self::After(delay) => now.after(delay),
            Self::At(at) => at.max(now),
        }
    }
}

/// The longest idempotency key, in bytes.
pub const KEY_BYTES_MAX: usize = 128;

/// How long an idempotency key is kept at least, also when its task is pruned before.
pub const KEY_KEPT: Duration = Duration::from_secs(24 * 3600);

/// A key under which a producer enqueues a task of some type at most once. A repeat with the same payload finds the first
/// task; a repeat with another payload is a conflict. Keys are kept until the task is pruned, and for 24 h at least.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(String);

/// A key that is empty or longer than [`KEY_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key has 1 to 128 bytes, not {0}")]
pub struct KeyError(usize);

impl IdempotencyKey {
    /// The key, checked.
    ///
    /// # Errors
    ///
    /// When it is empty or longer than [`KEY_BYTES_MAX`].
    pub fn parse(key: impl Into<String>) -> Result<Self, KeyError> {
        let key = key.into();
        match key.len() {
            1..=KEY_BYTES_MAX => Ok(Self(key)),
            length => Err(KeyError(length)),
        }
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// All that a producer says of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSpec {
    /// Its type.
    pub task_type: TaskType,
    /// Its queue.
    pub queue: QueueName,
    /// Its priority.
    pub priority: Priority,
    /// What it works on.
    pub payload: Payload,
    /// When it is first due.
    pub start: Start,
    /// How often it is tried, and when.
    pub retry: Retry,
    /// How long it may take in all.
    pub budget: Budget,
    /// A key that makes enqueueing it repeatable.
    pub key: Option<IdempotencyKey>,
}

impl TaskSpec {
    /// A task with every default: queue `default`, priority 0, due at once, three attempts, one hour.
    #[must_use]
    pub const fn new(task_type: TaskType, payload: Payload) -> Self {
        Self {
            task_type,
            queue: QueueName::DEFAULT,
            priority: Priority::NORMAL,
            payload,
            start: Start::Now,
            retry: Retry::DEFAULT,
            budget: Budget::DEFAULT,
            key: None,
        }
    }
}

/// A task with the id reserved for it, ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    /// Its id, from [`TaskStore::reserve_ids`](crate::TaskStore::reserve_ids).
    pub id: TaskId,
    /// Random bits that go with the id.
    pub nonce: Nonce,
    /// What the producer said.
    pub spec: TaskSpec,
}

impl NewTask {
    /// The state in which it is written at `now`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> TaskState {
        TaskState::enqueued(now, self.spec.start.due(now), self.spec.retry.max_attempts(), self.spec.budget)
    }
}

/// What became of one task of an enqueued batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// It was written under its own id (now, or by an earlier try of this very batch).
    Created(TaskId),
    /// Its idempotency key was there before: nothing was written, this is the first task's id.
    Existing(TaskId),
}

impl Enqueued {
    /// The task's id.
    #[must_use]
    pub const fn id(self) -> TaskId {
        match self {
            Self::Created(id) | Self::Existing(id) => id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bounded() {
        assert_eq!(IdempotencyKey::parse(""), Err(KeyError(0)));
        assert_eq!(
            IdempotencyKey::parse("k".repeat(129)).unwrap_err().to_string(),
            "an idempotency key has 1 to 128 bytes, not 129"
        );
        assert_eq!(IdempotencyKey::parse("order-7").unwrap().as_str(), "order-7");
    }

    #[test]
    fn a_task_is_due_when_its_producer_says() {
        let now = Timestamp::from_micros(100);
        let id = TaskId::new(1).unwrap();
        let mut task =
            NewTask { id, nonce: Nonce::new(1), spec: TaskSpec::new(TaskType::new("a"), Payload::default()) };
        assert_eq!(task.state(now).run_at, now);
        task.spec.start = Start::After(Duration::from_micros(5));
        assert_eq!(task.state(now).run_at, Timestamp::from_micros(105));
        task.spec.start = Start::At(Timestamp::from_micros(7));
        assert_eq!(task.state(now).run_at, now);
        assert_eq!(task.state(now).defect(), None);
        assert_eq!([Enqueued::Created(id), Enqueued::Existing(id)].map(Enqueued::id), [id, id]);
    }
}
