//! How the processes that share a store wake each other, where the store has a way for that. Nothing depends on it: whoever is
//! not woken finds the task with the next poll.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::claim::Scope;
use crate::names::{QueueName, TaskType};

/// Kinds of tasks that are told apart, at most; more of them are anything.
pub const KINDS_MAX: usize = 16;

/// What may be due, by queue and type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    kinds: BTreeSet<(QueueName, TaskType)>,
    anything: bool,
}

impl Due {
    /// Nobody knows what.
    #[must_use]
    pub const fn anything() -> Self {
        Self { kinds: BTreeSet::new(), anything: true }
    }

    /// Nothing is said to be due.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.kinds.is_empty() && !self.anything
    }

    /// A task of this type, in this queue, is due as well.
    pub fn add(&mut self, queue: &QueueName, task_type: &TaskType) {
        if self.anything || self.kinds.contains(&(queue.clone(), task_type.clone())) {
            return;
        }
        if self.kinds.len() == KINDS_MAX {
            *self = Self::anything();
        } else {
            self.kinds.insert((queue.clone(), task_type.clone()));
        }
    }

    /// All that the other says is due, too.
    pub fn merge(&mut self, other: Self) {
        if other.anything {
            *self = other;
            return;
        }
        for (queue, task_type) in &other.kinds {
            self.add(queue, task_type);
        }
    }

    /// The kinds, in order; `None` when it may be anything.
    #[must_use]
    pub fn kinds(&self) -> Option<impl Iterator<Item = (&QueueName, &TaskType)>> {
        (!self.anything).then(|| self.kinds.iter().map(|(queue, task_type)| (queue, task_type)))
    }

    /// Whether a worker of this scope would find something to do.
    #[must_use]
    pub fn concerns(&self, scope: &Scope) -> bool {
        self.anything || self.kinds.iter().any(|(queue, task_type)| scope.reaches(queue, task_type))
    }
}

/// A way to wake the workers of other processes. A store has one when
/// [`TaskStore::wake_channel`](crate::TaskStore::wake_channel) says so.
///
/// # Contract
///
/// Best effort on both sides. A wake-up may be lost, come late, come twice or come for nothing, and costs latency or one claim
/// then, never more. Whatever is wrong with the channel is told in its log, once, and tried again calmly.
#[async_trait]
pub trait WakeChannel: Send + Sync + Debug {
    /// Wakes a worker of another process that listens and that this concerns; one is enough, because a worker that finds more
    /// than it can take announces that. Does not wake those that listen through this very channel.
    ///
    /// Says how long to wait before the next announcement, which is how a channel bounds what it costs.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any time; whether anybody was woken is then unknown.
    async fn announce(&self, due: &Due) -> Duration;

    /// Waits until another process announces something that concerns this scope. However long that takes, and also while the channel
    /// does not work.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the listening, without waiting for the store.
    async fn listen(&self, scope: &Scope);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::Queues;

    const MAIL: QueueName = QueueName::new("mail");

    fn kind(number: usize) -> TaskType {
        TaskType::parse(format!("type.{number}")).unwrap()
    }

    fn of(types: impl IntoIterator<Item = usize>) -> Due {
        let mut due = Due::default();
        for number in types {
            due.add(&MAIL, &kind(number));
        }
        due
    }

    fn told(due: &Due) -> Option<Vec<(&QueueName, &TaskType)>> {
        due.kinds().map(Iterator::collect)
    }

    #[test]
    fn what_is_due_adds_up_until_it_may_be_anything() {
        assert!(Due::default().is_nothing() && !Due::anything().is_nothing() && !of([1]).is_nothing());
        let mut due = of([2, 1, 2]);
        assert_eq!(told(&due), Some(vec![(&MAIL, &kind(1)), (&MAIL, &kind(2))]));
        due.merge(of([3]));
        assert_eq!(due, of([1, 2, 3]));
        assert_ne!(of(0..KINDS_MAX), Due::anything());
        let mut many = of(0..=KINDS_MAX);
        assert_eq!((&many, told(&many)), (&Due::anything(), None));
        many.merge(of([1]));
        many.add(&MAIL, &kind(1));
        assert_eq!(many, Due::anything());
        due.merge(many);
        assert_eq!(due, Due::anything());
    }

    #[test]
    fn a_worker_is_concerned_by_what_it_would_claim() {
        let scope = |queues, fail_unregistered| Scope { queues, types: [kind(1)].into(), fail_unregistered };
        let (mail, other) = (Queues::Named([MAIL].into()), Queues::Named([QueueName::DEFAULT].into()));
        let serves = scope(Queues::All, Queues::none());
        assert!(of([1, 2]).concerns(&serves) && !of([2]).concerns(&serves) && !Due::default().concerns(&serves));
        assert!(of([2]).concerns(&scope(Queues::All, mail)));
        assert!(!of([1]).concerns(&scope(other.clone(), Queues::none())));
        assert!(Due::anything().concerns(&scope(other, Queues::none())));
    }
}
