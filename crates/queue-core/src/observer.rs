//! What metrics hang on.

use std::fmt::Debug;
use std::time::Duration;

use crate::error::ErrorKind;
use crate::machine::Status;
use crate::names::{QueueName, TaskType};

/// Hears what happens, after the store has acknowledged it. It is called on hot paths and must neither block nor panic.
pub trait Observer: Send + Sync + Debug {
    /// Something happened.
    fn observe(&self, observation: &Observation<'_>);
}

/// Something that happened. A task type is `None` where it is not registered with the pool that met it, so that what the
/// database says cannot make unbounded labels.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Observation<'a> {
    /// A task was claimed.
    Claimed {
        /// Its type, when registered.
        task_type: Option<&'a TaskType>,
        /// How long it waited from due to claimed.
        schedule_to_start: Duration,
    },
    /// The run of a task, or its end without a run, was written down.
    Processed {
        /// Its type, when registered.
        task_type: Option<&'a TaskType>,
        /// What it came to (see [`Settlement::label`](crate::Settlement::label)).
        outcome: &'static str,
        /// How long its handler ran; `None` when it never started.
        ran_for: Option<Duration>,
    },
    /// Tasks were enqueued by this process.
    Enqueued {
        /// Their type.
        task_type: &'a TaskType,
        /// How many.
        count: u64,
    },
    /// The number of handlers that run right now.
    InFlight(usize),
    /// What a queue held when it was looked at last.
    QueueDepth {
        /// The queue.
        queue: &'a QueueName,
        /// The status counted.
        status: Status,
        /// How many tasks, up to the bound of counting.
        count: u64,
    },
    /// How long the oldest due task of a queue had waited when it was looked at last; zero when nothing was due.
    OldestReady {
        /// The queue.
        queue: &'a QueueName,
        /// How long.
        age: Duration,
    },
    /// The session of this process was fenced.
    SessionFenced,
    /// Settlements that came too late: their claims were no longer current.
    Stale {
        /// How many.
        count: u64,
    },
    /// A claim came back after this long.
    ClaimReturned(Duration),
    /// This many settlements were written in one batch.
    SettleBatch(usize),
    /// A call to the store failed.
    StoreFailed(ErrorKind),
    /// The store repeated transactions by itself.
    StoreRetried {
        /// Why: `deadlock`, `lock_timeout`, ….
        kind: &'static str,
        /// How often.
        count: u64,
    },
    /// Tasks that had ended long ago were removed, as the pool's retention says.
    Pruned {
        /// The status that they ended with.
        status: Status,
        /// How many.
        count: u64,
    },
    /// A handler did not end when its time was over.
    Overrun {
        /// Its type, when registered.
        task_type: Option<&'a TaskType>,
    },
}

/// Hears everything and does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn observe(&self, _: &Observation<'_>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_an_observer() {
        Silent.observe(&Observation::InFlight(1));
    }
}
