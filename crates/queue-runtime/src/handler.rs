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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::panic::AssertUnwindSafe;
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use queue_core::payload::ContentType;
    use queue_core::{ClaimId, ErrorText, Fence, Priority, QueueName, TaskId, Timestamp};
    use serde::Deserialize;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::clock::TokioClock;
    use crate::erased::TaskHead;

    #[derive(Serialize, Deserialize)]
    struct Double(u32);

    impl Task for Double {
        const TYPE: TaskType = TaskType::new("double");
        type Output = u32;
    }

    fn run() -> Arc<RunHandle> {
        let head = TaskHead {
            id: TaskId::new(1).unwrap(),
            claim: ClaimId::from_random(2),
            task_type: Double::TYPE,
            queue: QueueName::DEFAULT,
            priority: Priority::NORMAL,
            attempt: 1,
            max_attempts: 3,
            fence: Fence::new(1),
            created_at: Timestamp::EPOCH,
            deadline_at: None,
        };
        Arc::new(RunHandle::new(head, CancellationToken::new(), Arc::new(TokioClock::new()), None))
    }

    async fn ran(handler: &Arc<dyn ErasedHandler>, json: &'static str) -> Outcome {
        handler.run(Payload::json(json), run()).await
    }

    fn value(json: &'static str) -> Outcome {
        Outcome::Succeeded(TaskResult::Value(json.into()))
    }

    #[tokio::test]
    async fn an_async_handler_decodes_runs_and_encodes() {
        let double = |Double(number): Double, cx: Ctx<u32>| async move {
            if number == 0 {
                return cx.snooze(Duration::from_secs(1));
            }
            Ok(number * cx.state())
        };
        let handler = erase(double, Arc::new(2), 2);
        assert_eq!((handler.task_type(), handler.is_blocking()), (&Double::TYPE, false));
        assert_eq!(format!("{handler:?}"), "Handler { task_type: \"double\", blocking: false }");
        assert_eq!(ran(&handler, "21").await, value("42"));
        assert_eq!(ran(&handler, "50").await, Outcome::Succeeded(TaskResult::Dropped { bytes: 3 }));
        assert_eq!(ran(&handler, "0").await, Outcome::Snoozed(Duration::from_secs(1)));
        let error = ErrorText::from("the payload does not decode as double: data error at line 1 column 6");
        assert_eq!(ran(&handler, "\"four\"").await, Outcome::Errored { error, delay: None });
    }

    #[tokio::test]
    async fn a_blocking_handler_runs_on_a_thread_that_may_block() {
        let here = std::thread::current().id();
        let double = move |Double(number): Double, cx: Ctx| {
            assert_ne!(std::thread::current().id(), here);
            if number == 0 {
                return cx.reject("nothing to double");
            }
            Ok(number.checked_mul(2).expect("it fits"))
        };
        let handler = erase_blocking(double, Arc::new(()), 99);
        assert!(handler.is_blocking());
        assert_eq!(ran(&handler, "21").await, value("42"));
        assert_eq!(ran(&handler, "0").await, Outcome::Rejected(ErrorText::from("nothing to double")));
        assert!(matches!(ran(&handler, "[]").await, Outcome::Errored { .. }));
        let panic = AssertUnwindSafe(ran(&handler, "4000000000")).catch_unwind().await.unwrap_err();
        assert_eq!(panic.downcast_ref::<String>().unwrap(), "it fits");
    }

    #[test]
    fn a_blocking_run_that_never_started_is_released() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        let _entered = handle.enter();
        let handler = erase_blocking(|Double(number): Double, _: Ctx| Ok(number), Arc::new(()), 99);
        assert_eq!(ran(&handler, "1").now_or_never(), Some(Outcome::Released));
    }

    #[tokio::test]
    async fn a_raw_handler_sees_the_payload_as_it_is() {
        let echo = |payload: Payload, cx: Ctx| async move {
            match payload.content_type() {
                ContentType::Json => Ok(TaskResult::Value(payload.body().clone())),
                _ => cx.reject("not JSON"),
            }
        };
        let handler = erase_raw(TaskType::parse("echo").unwrap(), echo, Arc::new(()), 3);
        assert_eq!(handler.task_type().as_str(), "echo");
        assert_eq!(ran(&handler, "[1]").await, value("[1]"));
        assert_eq!(ran(&handler, "[12]").await, Outcome::Succeeded(TaskResult::Dropped { bytes: 4 }));
        let binary = handler.run(Payload::new(ContentType::Binary, "x"), run()).await;
        assert_eq!(binary, Outcome::Rejected(ErrorText::from("not JSON")));
        assert!(matches!(ran(&handler, "[1").await, Outcome::Rejected(_)));
    }

    #[test]
    fn an_output_that_is_lost_is_not_worked_for_again() {
        let keyed_by_list = BTreeMap::from([(vec![1], 1)]);
        assert!(matches!(outcome(Ok(keyed_by_list), 99), Outcome::Rejected(_)));
    }
}
