//! Testing one's handlers, without a database and without a clock.
//!
//! ```
//! use queue_runtime::testing::perform;
//! use queue_runtime::{Ctx, Result, Task, TaskType, percent};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Export {
//!     account: u32,
//!     pages: usize,
//! }
//!
//! impl Task for Export {
//!     const TYPE: TaskType = TaskType::new("report.export");
//!     type Output = String;
//! }
//!
//! async fn export(task: Export, cx: Ctx) -> Result<String> {
//!     for page in 1..=task.pages {
//!         cx.progress(percent(page, task.pages), format!("page {page}"));
//!     }
//!     Ok(format!("exports/{}.csv", task.account))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let run = perform(export, Export { account: 7, pages: 2 }, ()).attempt(3).await;
//! assert_eq!(run.output.as_deref(), Some("exports/7.csv"));
//! assert_eq!(run.progress, [(50, "page 1".into()), (100, "page 2".into())]);
//! # }
//! ```
//!
//! A queue in memory takes what the code under test enqueues, and a pool works it off:
//!
//! ```
//! # use queue_runtime::testing::memory_queue;
//! # use queue_runtime::{Ctx, Pool, Result, Task, TaskType};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Serialize, Deserialize)]
//! # struct Welcome { email: String }
//! # impl Task for Welcome {
//! #     const TYPE: TaskType = TaskType::new("mail.welcome");
//! #     type Output = ();
//! # }
//! # async fn welcome(_: Welcome, _: Ctx) -> Result {
//! #     Ok(())
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> anyhow::Result<()> {
//! let queue = memory_queue();
//! queue.enqueue(&Welcome { email: "ada@example.com".into() }).await?;
//! assert_eq!(queue.enqueued::<Welcome>()[0].email, "ada@example.com");
//! let done = Pool::new(&queue).handle(welcome).drain().await?;
//! assert_eq!((done.completed, done.retried), (1, 0), "{done:?}");
//! # Ok(())
//! # }
//! ```
//!
//! Delays between attempts are waited for. Where the runtime's time is paused (tokio's feature `test-util`), with
//! [`paused_queue`] and [`Ports::paused`](crate::ports::Ports::paused), they take no time:
//!
//! ```
//! # use std::sync::Arc;
//! # use std::time::Duration;
//! # use queue_runtime::ports::Ports;
//! # use queue_runtime::testing::paused_queue;
//! # use queue_runtime::{Ctx, OsEntropy, Pool, Result, Task, TaskType};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Serialize, Deserialize)]
//! # struct Welcome { email: String }
//! # impl Task for Welcome {
//! #     const TYPE: TaskType = TaskType::new("mail.welcome");
//! #     type Output = ();
//! # }
//! async fn stubborn(_: Welcome, cx: Ctx) -> Result {
//!     if cx.attempt() < 3 { Err("not yet")? } else { Ok(()) }
//! }
//!
//! # /*
//! #[tokio::test(start_paused = true)]
//! # */
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> anyhow::Result<()> {
//! let queue = paused_queue();
//! queue.enqueue(&Welcome { email: "ada@example.com".into() }).delay(Duration::from_hours(9)).await?;
//! let pool = Pool::new(&queue).ports(Ports::paused(Arc::new(OsEntropy))).handle(stubborn);
//! let done = pool.drain().with_later().await?; // nine hours and more, at once
//! assert_eq!((done.completed, done.retried), (1, 2), "{done:?}");
//! # Ok(())
//! # }
//! ```

use std::future::{Future, IntoFuture, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use queue_core::admin::{Filter, Page};
use queue_core::{
    ClaimId, Clock, Fence, Outcome, Progress, Status, StoreLimits, TaskAdmin as _, TaskId, TaskResult, Timestamp,
};
use queue_testkit::{MemoryStore, StoreClock};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::client::Queue;
use crate::clock::{OsEntropy, TokioClock};
use crate::codec;
use crate::ctx::{Ctx, Recorder};
use crate::erased::{RunHandle, TaskHead};
use crate::error::{Result, TaskError};
use crate::handler;
use crate::lock::lock;
use crate::task::{self, Task};

/// Runs a handler once, as a pool would: the payload is encoded and decoded, and so is the output.
///
/// A panic of the handler is not caught, so that its own assertions fail the test.
pub fn perform<T, S, F, Fut>(handler: F, task: T, state: S) -> Perform<F, T, S>
where
    T: Task,
    F: Fn(T, Ctx<S>) -> Fut,
    Fut: Future<Output = Result<T::Output>>,
{
    Perform { handler, task, state, attempt: 1, max_attempts: None, remaining: None, cancelled: false }
}

/// Runs a blocking handler once, on this very thread; otherwise as [`perform`].
#[expect(clippy::type_complexity, reason = "a function's return type cannot be named otherwise")]
pub fn perform_blocking<T, S, F>(
    handler: F,
    task: T,
    state: S,
) -> Perform<impl Fn(T, Ctx<S>) -> Ready<Result<T::Output>> + Send, T, S>
where
    T: Task,
    F: Fn(T, Ctx<S>) -> Result<T::Output> + Send,
{
    perform(move |task, cx| ready(handler(task, cx)), task, state)
}

/// A run that has not begun yet; await it.
#[derive(Debug)]
#[must_use = "nothing runs until this is awaited"]
pub struct Perform<F, T, S> {
    handler: F,
    task: T,
    state: S,
    attempt: u16,
    max_attempts: Option<u16>,
    remaining: Option<Duration>,
    cancelled: bool,
}

impl<F, T, S> Perform<F, T, S> {
    /// As this attempt; the first unless this is called.
    pub fn attempt(mut self, attempt: u16) -> Self {
        self.attempt = attempt;
        self
    }

    /// Out of so many attempts; as the task's type says unless this is called.
    pub fn max_attempts(mut self, max_attempts: u16) -> Self {
        self.max_attempts = Some(max_attempts);
        self
    }

    /// With so much time left, which [`Ctx::remaining`] tells and which does not run down; without a limit unless this is
    /// called.
    pub fn remaining(mut self, remaining: Duration) -> Self {
        self.remaining = Some(remaining);
        self
    }

    /// With a context that says from the beginning that the handler shall stop.
    pub fn cancelled(mut self) -> Self {
        self.cancelled = true;
        self
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Performed<O> {
    /// What was kept of the handler's value: `None` when there was none, or it was too large to be kept.
    pub output: Option<O>,
    /// What a pool makes of the run.
    pub outcome: Outcome,
    /// The text of the handler's error.
    pub error: Option<String>,
    /// All that the handler reported, in order; a pool writes only the latest, once a second.
    pub progress: Vec<(u8, String)>,
}

impl<T, S, F, Fut> IntoFuture for Perform<F, T, S>
where
    T: Task<Output: DeserializeOwned>,
    S: Send + Sync + 'static,
    F: Fn(T, Ctx<S>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T::Output>> + Send + 'static,
{
    type Output = Performed<T::Output>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    /// # Panics
    ///
    /// When the task or the output does not survive being encoded and decoded.
    fn into_future(self) -> Self::IntoFuture {
        let recorder = Recorder::default();
        let spec = task::spec_of(&self.task).unwrap_or_else(|error| panic!("the task {}: {error}", T::TYPE));
        let head = TaskHead {
            id: TaskId::new(1).expect("1 is not 0"),
            claim: ClaimId::from_random(2),
            task_type: spec.task_type,
            queue: spec.queue,
            priority: spec.priority,
            attempt: self.attempt,
            max_attempts: self.max_attempts.unwrap_or_else(|| spec.retry.max_attempts()),
            fence: Fence::new(self.attempt.into()),
            created_at: Timestamp::EPOCH,
            deadline_at: spec.budget.deadline(Timestamp::EPOCH, Timestamp::EPOCH),
        };
        let cancel = CancellationToken::new();
        if self.cancelled {
            cancel.cancel();
        }
        let run = RunHandle::new(head, cancel, Arc::new(Standstill), self.remaining);
        let cx = Ctx::new(Arc::new(run), Arc::new(self.state)).recording(Arc::clone(&recorder));
        let (handler, payload) = (self.handler, spec.payload);
        drop(self.task);
        Box::pin(async move {
            let outcome = match codec::decode::<T>(&payload) {
                Ok(task) => handler::outcome(handler(task, cx).await, StoreLimits::DEFAULT.result_bytes_max),
                Err(error) => TaskError::from(error).into_outcome(),
            };
            Performed::new(outcome, &recorder)
        })
    }
}

impl<O: DeserializeOwned> Performed<O> {
    fn new(outcome: Outcome, recorder: &Recorder) -> Self {
        let output = match &outcome {
            Outcome::Succeeded(TaskResult::None) => Some(decoded(b"null")),
            Outcome::Succeeded(TaskResult::Value(json)) => Some(decoded(json)),
            _ => None,
        };
        let error = match &outcome {
            Outcome::Errored { error, .. } | Outcome::Rejected(error) => Some(error.as_str().to_owned()),
            _ => None,
        };
        let told = |progress: &Progress| (progress.percent().get(), progress.message().unwrap_or_default().to_owned());
        let progress = lock(recorder).iter().map(told).collect();
        Self { output, outcome, error, progress }
    }
}

fn decoded<O: DeserializeOwned>(json: &[u8]) -> O {
    serde_json::from_slice(json).unwrap_or_else(|error| panic!("the output encodes, but does not decode: {error}"))
}

/// A clock that does not move.
#[derive(Debug)]
struct Standstill;

#[async_trait]
impl Clock for Standstill {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn wall(&self) -> Timestamp {
        Timestamp::EPOCH
    }

    async fn sleep(&self, _: Duration) {
        std::future::pending::<()>().await;
    }
}

/// A queue in memory, with everything but durability.
#[must_use]
pub fn memory_queue() -> Queue<MemoryStore> {
    Queue::new(MemoryStore::new())
}

/// A queue in memory on the time of the tokio runtime that it is made in, for one whose time is paused. Its pools need
/// [`Ports::paused`](crate::ports::Ports::paused) as well.
#[must_use]
pub fn paused_queue() -> Queue<MemoryStore> {
    let clock = TokioClock::new();
    Queue::with_ports(MemoryStore::with_clock(Arc::new(Paused(clock))), Arc::new(clock), Arc::new(OsEntropy))
}

/// The store's clock is the runtime's.
#[derive(Debug)]
struct Paused(TokioClock);

impl StoreClock for Paused {
    fn now(&self) -> Timestamp {
        self.0.wall()
    }
}

/// Tasks in one page when looking for what is enqueued.
const PAGE: usize = 1_000;

impl Queue<MemoryStore> {
    /// The tasks of this type that wait to be run, in the order in which they are due.
    ///
    /// # Panics
    ///
    /// When one of them does not decode.
    #[must_use]
    pub fn enqueued<T: Task>(&self) -> Vec<T> {
        let filter = Filter { status: Some(Status::Queued), task_type: Some(T::TYPE), ..Filter::default() };
        let mut tasks = Vec::new();
        let mut after = None;
        loop {
            let page = Page { after, limit: PAGE };
            let listed = at_once(self.store().list(filter.clone(), page));
            // A list leaves the payloads out.
            for task in &listed {
                let record = at_once(self.store().get(task.id)).expect("a task that was just listed is there");
                tasks.push(codec::decode(&record.payload).unwrap_or_else(|error| panic!("task {}: {error}", task.id)));
            }
            match listed.last() {
                Some(last) if listed.len() == PAGE => after = Some(filter.position(last)),
                _ => return tasks,
            }
        }
    }
}

/// What a store in memory answers: it never waits and never fails.
fn at_once<T>(call: impl Future<Output = std::result::Result<T, queue_core::StoreError>>) -> T {
    call.now_or_never().expect("a store in memory never waits").expect("a store in memory never fails")
}
