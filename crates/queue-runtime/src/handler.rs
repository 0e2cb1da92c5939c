//! Handlers: functions of a task and its context, whose types are erased once.

use std::fmt;
use std::panic::resume_unwind;
use std::sync::Arc;

use queue_core::{Outcome, Payload, TaskResult, TaskType};
use serde::Serialize;

use crate::codec;
use crate::ctx::Ctx;
use crate::erased::{ErasedHandler, RunFuture, RunHandle};
use crate::error::{Result, TaskError};
use crate::task::Task;

/// Erases an async handler.
pub(crate) fn erase<T, S, F, Fut>(handler: F, state: Arc<S>, result_bytes_max: u64) -> Arc<dyn ErasedHandler>
where
    T: Task,
    S: Send + Sync + 'static,
    F: Fn(T, Ctx<S>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T::Output>> + Send + 'static,
{
    let handler = Arc::new(handler);
    Erased::shared(T::TYPE, false, move |payload, run| {
        let (handler, cx) = (Arc::clone(&handler), Ctx::new(run, Arc::clone(&state)));
        Box::pin(async move {
            let task = match codec::decode(&payload) {
                Ok(task) => task,
                Err(error) => return TaskError::from(error).into_outcome(),
            };
            drop(payload);
            outcome(handler(task, cx).await, result_bytes_max)
        })
    })
}

/// Erases a blocking handler; it runs on a thread that may block.
pub(crate) fn erase_blocking<T, S, F>(handler: F, state: Arc<S>, result_bytes_max: u64) -> Arc<dyn ErasedHandler>
where
    T: Task,
    S: Send + Sync + 'static,
    F: Fn(T, Ctx<S>) -> Result<T::Output> + Send + Sync + 'static,
{
    let handler = Arc::new(handler);
    Erased::shared(T::TYPE, true, move |payload, run| {
        let (handler, cx) = (Arc::clone(&handler), Ctx::new(run, Arc::clone(&state)));
        let span = tracing::Span::current();
        let work = move || {
            let _entered = span.entered();
            match codec::decode(&payload) {
                Ok(task) => outcome(handler(task, cx), result_bytes_max),
                Err(error) => TaskError::from(error).into_outcome(),
            }
        };
        Box::pin(async move {
            match tokio::task::spawn_blocking(work).await.map_err(tokio::task::JoinError::try_into_panic) {
                Ok(outcome) => outcome,
                Err(Ok(panic)) => resume_unwind(panic),
                // The runtime shuts down and has not started the work.
                Err(Err(_)) => Outcome::Released,
            }
        })
    })
}

/// Erases a handler of payloads as they are, for a type that is only known at run time.
pub(crate) fn erase_raw<S, F, Fut>(
    task_type: TaskType,
    handler: F,
    state: Arc<S>,
    result_bytes_max: u64,
) -> Arc<dyn ErasedHandler>
where
    S: Send + Sync + 'static,
    F: Fn(Payload, Ctx<S>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<TaskResult>> + Send + 'static,
{
    let handler = Arc::new(handler);
    Erased::shared(task_type, false, move |payload, run| {
        let (handler, cx) = (Arc::clone(&handler), Ctx::new(run, Arc::clone(&state)));
        Box::pin(async move {
            let result = handler(payload, cx).await;
            match result.map(|result| codec::check_result(result, result_bytes_max)) {
                Ok(checked) => succeeded(checked),
                Err(error) => error.into_outcome(),
            }
        })
    })
}

/// What a typed handler's end comes to.
pub(crate) fn outcome<O: Serialize>(returned: Result<O>, result_bytes_max: u64) -> Outcome {
    match returned {
        Ok(output) => succeeded(codec::encode_output(&output, result_bytes_max)),
        Err(error) => error.into_outcome(),
    }
}

/// The work is done, so a result that does not encode must not have it done again: the task fails for good.
fn succeeded(result: std::result::Result<TaskResult, codec::EncodeError>) -> Outcome {
    match result {
        Ok(result) => Outcome::Succeeded(result),
        Err(error) => {
            TaskError::reject(format!("the handler succeeded, but its output is lost: {error}")).into_outcome()
        }
    }
}

struct Erased<F> {
    task_type: TaskType,
    blocking: bool,
    start: F,
}

impl<F: Fn(Payload, Arc<RunHandle>) -> RunFuture + Send + Sync + 'static> Erased<F> {
    fn shared(task_type: TaskType, blocking: bool, start: F) -> Arc<dyn ErasedHandler> {
        Arc::new(Self { task_type, blocking, start })
    }
}

impl<F: Fn(Payload, Arc<RunHandle>) -> RunFuture + Send + Sync> ErasedHandler for Erased<F> {
    fn task_type(&self) -> &TaskType {
        &self.task_type
    }

    fn is_blocking(&self) -> bool {
        self.blocking
    }

    fn run(&self, payload: Payload, handle: Arc<RunHandle>) -> RunFuture {
        (self.start)(payload, handle)
    }
}

impl<F> fmt::Debug for Erased<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").field("task_type", &self.task_type).field("blocking", &self.blocking).finish()
    }
}
