//! Under construction.

mod client;
pub mod clock;
mod codec;
mod complete;
mod connect;
mod ctx;
mod enqueue;
mod erased;
mod error;
mod handler;
mod ids;
mod limits;
mod pool;
pub mod ports;
mod task;
mod write;

pub use client::Queue;
pub use clock::{OsEntropy, SystemClock, TokioClock};
pub use codec::EncodeError;
pub use complete::{Complete, CompleteError};
pub use connect::connect;
pub use ctx::{Ctx, percent};
pub use enqueue::{Enqueue, EnqueueAll, EnqueueAllError, EnqueueError, WithinKnownStore};
pub use error::{Result, ResultExt, TaskError};
pub use limits::Limits;
pub use pool::{BuildError, Draining, HandlerError, Pool, Report, RunningPool, StartError};
pub use queue_core;
pub use queue_core::{
    Backoff, Budget, Enqueued, Fence, IdempotencyKey, Payload, Percent, Priority, Progress, QueueName, Retry, Start,
    Status, Store, StoreError, TaskId, TaskRecord, TaskResult, TaskSpec, TaskType, Timestamp,
};
pub use task::{Options, Task};

#[cfg(feature = "metrics")]
pub use queue_metrics as metrics;

#[cfg(feature = "testing")]
pub mod testing;
