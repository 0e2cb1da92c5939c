//! Why a pool does not start.

use std::io;
use std::time::Duration;

use queue_core::{StoreError, TaskType};

/// Why a pool is refused before it starts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// It could do nothing.
    #[error("the pool has no handler; add one with `handle`")]
    NoHandlers,
    /// Only one of them could ever run.
    #[error("the type {0} has two handlers; a pool takes one for each type")]
    DuplicateType(TaskType),
    /// Nothing could ever run.
    #[error("a concurrency of zero runs nothing; allow at least one task at a time")]
    ZeroConcurrency,
    /// No task of the type could ever run.
    #[error("the type {0} has a concurrency of zero; allow at least one task at a time")]
    ZeroTypeConcurrency(TaskType),
    /// A renewal that is late once would cost the session.
    #[error(
        "a lease of {lease:?} is too short for a heartbeat of {heartbeat:?}; it must be at least three times as long, and neither may be zero"
    )]
    LeaseTooShort {
        /// The lease.
        lease: Duration,
        /// The heartbeat's interval.
        heartbeat: Duration,
    },
    /// The least wait is longer than the longest, or there is none at all.
    #[error("polls must wait for more than nothing, and not longer at least ({min:?}) than at most ({max:?})")]
    Poll {
        /// The least wait.
        min: Duration,
        /// The longest wait.
        max: Duration,
    },
    /// A panic of one handler would end the whole process.
    #[error(
        "this program is built with panic = \"abort\", so that a panic in one handler ends the process with all its tasks; build it with panic = \"unwind\", or say `allow_panic_abort()`"
    )]
    PanicAborts,
}

/// Why a pool does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// It is not built as it must be.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The store cannot be used as it is. A schema that is missing or too old says so; migrate it first.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread of the heartbeat cannot be had.
    #[error("the heartbeat's thread cannot be started: {0}")]
    Thread(#[from] io::Error),
    /// The signals that end a pool cannot be listened to.
    #[error("cannot listen to signals: {0}")]
    Signals(#[source] io::Error),
    /// The pool did not even notice that it was to stop, because handlers that never yield keep every thread of its runtime
    /// busy. Its session ends by itself after the process has ended, and other workers recover its tasks.
    #[error("the pool did not end by its deadline, because its handlers keep every thread of the runtime busy")]
    Starved,
    /// The runtime that the pool ran on is gone.
    #[error("the runtime ended before the pool did")]
    RuntimeGone,
}
