//! What a handler knows of its run, and may say about it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use queue_core::{Fence, Percent, Priority, Progress, QueueName, TaskId, TaskType, Timestamp};

use crate::erased::RunHandle;
use crate::error::{Result, TaskError};

/// The context of one run of a task, with the state that its pool was given. Cheap to clone.
///
/// A handler is cancelled in two steps: first [`is_cancelled`](Self::is_cancelled) turns true, and after a short grace its
/// future is dropped. A blocking handler cannot be dropped, so it must look.
pub struct Ctx<S = ()> {
    run: Arc<RunHandle>,
    state: Arc<S>,
    #[cfg(feature = "testing")]
    recorder: Option<Recorder>,
}

/// Takes note of every progress, of which a pool only keeps the latest.
#[cfg(feature = "testing")]
pub(crate) type Recorder = Arc<std::sync::Mutex<Vec<Progress>>>;

impl<S> Ctx<S> {
    pub(crate) fn new(run: Arc<RunHandle>, state: Arc<S>) -> Self {
        Self {
            run,
            state,
            #[cfg(feature = "testing")]
            recorder: None,
        }
    }

    #[cfg(feature = "testing")]
    pub(crate) fn recording(mut self, recorder: Recorder) -> Self {
        self.recorder = Some(recorder);
        self
    }

    pub(crate) fn run(&self) -> &RunHandle {
        &self.run
    }

    /// The state that the pool was given.
    #[must_use]
    pub fn state(&self) -> &S {
        &self.state
    }

    /// The task's id.
    #[must_use]
    pub fn task_id(&self) -> TaskId {
        self.run.task.id
    }

    /// The task's type.
    #[must_use]
    pub fn task_type(&self) -> &TaskType {
        &self.run.task.task_type
    }

    /// The queue that the task waited in.
    #[must_use]
    pub fn queue(&self) -> &QueueName {
        &self.run.task.queue
    }

    /// The task's priority.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.run.task.priority
    }

    /// Which attempt this is, from 1. Snoozes and releases give their attempt back.
    #[must_use]
    pub fn attempt(&self) -> u16 {
        self.run.task.attempt
    }

    /// How many attempts the task has in all.
    #[must_use]
    pub fn max_attempts(&self) -> u16 {
        self.run.task.max_attempts
    }

    /// How often the task was claimed. It only rises, over refunds and an operator's retry as well: hand it to downstream systems that
    /// shall refuse a worker that was taken for dead.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.run.task.fence
    }

    /// When the task was enqueued, by the store's clock.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.run.task.created_at
    }

    /// When the task's budget is spent, by the store's clock; `None` when it has none.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.run.task.deadline_at
    }

    /// How long this run may still take, by the budget or the worker's timeout, whichever is over first.
    /// [`Duration::MAX`] when neither limits it.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        match self.run.ends_at {
            Some(ends_at) => ends_at.saturating_sub(self.run.clock.monotonic()),
            None => Duration::MAX,
        }
    }

    /// Whether the handler shall stop: the task was cancelled, its time is over, or the worker shuts down or has lost its lease.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.run.cancel.is_cancelled()
    }

    /// Waits until the handler shall stop; see [`is_cancelled`](Self::is_cancelled).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn cancelled(&self) {
        self.run.cancel.cancelled().await;
    }

    /// Reports how far the task has come, 0 to 100, and a short message (an empty one is none; 200 bytes are kept). It
    /// never blocks and never fails: the pool writes the latest report, about once a second.
    pub fn progress(&self, percent: u8, message: impl Into<String>) {
        let progress = Progress::new(Percent::new(percent), message);
        #[cfg(feature = "testing")]
        if let Some(recorder) = &self.recorder {
            crate::lock::lock(recorder).push(progress.clone());
        }
        self.run.set_progress(progress);
    }

    /// Ends the run for good: the task fails as `rejected`, however many attempts are left. An error of any kind will do.
    ///
    /// # Errors
    ///
    /// Always, so that `return cx.reject("…")` ends the handler.
    pub fn reject<T>(&self, why: impl Into<TaskError>) -> Result<T> {
        Err(TaskError::reject(why))
    }

    /// Ends the run without a verdict: the task runs again after `delay`, and this attempt is refunded. A snooze that would
    /// pass the task's deadline fails it as `budget_exceeded`.
    ///
    /// # Errors
    ///
    /// Always, so that `return cx.snooze(…)` ends the handler.
    pub fn snooze<T>(&self, delay: Duration) -> Result<T> {
        Err(TaskError::snooze(delay))
    }
}

impl<S> Clone for Ctx<S> {
    fn clone(&self) -> Self {
        Self {
            run: Arc::clone(&self.run),
            state: Arc::clone(&self.state),
            #[cfg(feature = "testing")]
            recorder: self.recorder.clone(),
        }
    }
}

impl<S> fmt::Debug for Ctx<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ctx").field("task", &self.run.task).finish_non_exhaustive()
    }
}

/// How much `done` of `total` is, in percent, for [`Ctx::progress`]; all of it when the total is zero.
///
/// ```
/// assert_eq!(queue_runtime::percent(1, 3), 33);
/// ```
#[must_use]
pub fn percent(done: usize, total: usize) -> u8 {
    let wide = |number| u64::try_from(number).unwrap_or(u64::MAX);
    Percent::of(wide(done), wide(total)).get()
}
