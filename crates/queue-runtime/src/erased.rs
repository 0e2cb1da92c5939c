//! The seam between typed handlers and the pool: the handler's types are erased once, in the registry.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use queue_core::{ClaimId, Clock, Fence, Outcome, Payload, Priority, Progress, QueueName, TaskId, TaskType, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::lock::lock;

/// What a run knows of its task; the payload is handed over apart.
#[derive(Clone, Debug)]
pub(crate) struct TaskHead {
    pub(crate) id: TaskId,
    pub(crate) claim: ClaimId,
    pub(crate) task_type: TaskType,
    pub(crate) queue: QueueName,
    pub(crate) priority: Priority,
    pub(crate) attempt: u16,
    pub(crate) max_attempts: u16,
    pub(crate) fence: Fence,
    pub(crate) created_at: Timestamp,
    pub(crate) deadline_at: Option<Timestamp>,
}

/// One run of one task, shared by the pool and the handler's context.
#[derive(Debug)]
pub(crate) struct RunHandle {
    pub(crate) task: TaskHead,
    /// Fires when the handler shall stop: cancelled, out of time, shutdown or fenced.
    pub(crate) cancel: CancellationToken,
    pub(crate) clock: Arc<dyn Clock>,
    /// When the run must be over (budget or timeout, whichever is first), on the monotonic clock.
    pub(crate) ends_at: Option<Duration>,
    /// The latest progress not yet taken by the pool.
    progress: Mutex<Option<Progress>>,
    /// Whether the handler has written its completion into a transaction of its own, which may or may not have committed.
    completing: AtomicBool,
}

impl RunHandle {
    pub(crate) fn new(
        task: TaskHead,
        cancel: CancellationToken,
        clock: Arc<dyn Clock>,
        ends_at: Option<Duration>,
    ) -> Self {
        Self { task, cancel, clock, ends_at, progress: Mutex::new(None), completing: AtomicBool::new(false) }
    }

    /// Replaces the progress that waits to be written.
    pub(crate) fn set_progress(&self, progress: Progress) {
        *lock(&self.progress) = Some(progress);
    }

    /// Takes the progress that waits to be written.
    pub(crate) fn take_progress(&self) -> Option<Progress> {
        lock(&self.progress).take()
    }

    /// Notes that the handler completes the task in a transaction of its own.
    pub(crate) fn mark_completing(&self) {
        self.completing.store(true, Ordering::Release);
    }

    /// Whether the handler said that it completes the task in a transaction of its own.
    pub(crate) fn is_completing(&self) -> bool {
        self.completing.load(Ordering::Acquire)
    }
}

/// The future of one run.
pub(crate) type RunFuture = Pin<Box<dyn Future<Output = Outcome> + Send + 'static>>;

/// A handler whose types are erased.
pub(crate) trait ErasedHandler: Send + Sync + Debug {
    /// The type it handles.
    fn task_type(&self) -> &TaskType;

    /// Whether runs occupy a thread and cannot be dropped.
    fn is_blocking(&self) -> bool;

    /// Starts a run. Decoding the payload is part of the run: an error in it is an outcome. A panic may come out of this call
    /// or of the future; the pool catches both.
    fn run(&self, payload: Payload, handle: Arc<RunHandle>) -> RunFuture;
}
