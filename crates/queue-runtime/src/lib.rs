//! Durable background tasks on the database you already run. Promise: **an enqueue that was acknowledged reaches an end**,
//! whatever worker dies on the way, and no run that was taken for dead can write over another.
//!
//! # A whole program
//!
#![cfg_attr(feature = "sqlite", doc = "```")]
#![cfg_attr(not(feature = "sqlite"), doc = "```ignore")]
//! use queue_runtime::{Ctx, Pool, Result, Task, TaskType, connect};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Welcome {
//!     email: String,
//! }
//!
//! impl Task for Welcome {
//!     const TYPE: TaskType = TaskType::new("mail.welcome");
//!     type Output = ();
//! }
//!
//! async fn welcome(task: Welcome, cx: Ctx) -> Result {
//!     println!("attempt {}: hello {}", cx.attempt(), task.email);
//!     Ok(())
//! }
//!
//! #[tokio::main]
//! async fn main() -> anyhow::Result<()> {
//!     let queue = connect("sqlite::memory:").await?; // or mysql://localhost/app, or sqlite://queue.db
//!     queue.migrate().await?;
//!     queue.enqueue(&Welcome { email: "ada@example.com".into() }).await?;
//!     let done = Pool::new(&queue).handle(welcome).drain().await?; // `run()` goes on until Ctrl-C
//!     assert_eq!(done.completed, 1);
//!     Ok(())
//! }
//! ```
//!
//! # What is where
//!
//! | | |
//! |---|---|
//! | [`Task`], [`Options`] | what producer and worker share: a name, a payload, an output, and what holds for each task |
//! | [`Queue`], [`connect`] | the client: enqueue, look, cancel, migrate |
//! | [`Ctx`], [`TaskError`], [`ResultExt`] | what a handler is given, and how it ends |
//! | [`Pool`], [`Limits`], [`Retention`] | the worker |
//! | `testing` (feature `testing`) | running a handler or a whole queue in a test |
//! | [`ports`], [`clock`] | what a simulation replaces |
//!
//! # Handlers
//!
//! A handler is an `async fn(T, Ctx<S>) -> Result<T::Output>`, or a closure of that shape. `S` is the pool's state: a
//! handler whose state its pool does not have does not compile. `?` takes any error, those of `anyhow` included; an error
//! is retried unless [`or_reject`](ResultExt::or_reject) makes it final.
//!
//! ```
//! use std::time::Duration;
//!
//! use queue_runtime::{Ctx, Limits, Options, Pool, Priority, Queue, Result, Retry, Task, TaskType, percent};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Export {
//!     account: u64,
//!     format: String,
//! }
//!
//! impl Task for Export {
//!     const TYPE: TaskType = TaskType::new("report.export");
//!     type Output = String;
//!     // What every producer agrees on.
//!     const OPTIONS: Options = Options::DEFAULT
//!         .queue("reports")
//!         .priority(Priority::LOW)
//!         .retry(Retry::exponential(Duration::from_secs(5), Duration::from_mins(10)).attempts(8))
//!         .budget(Duration::from_hours(6));
//! }
//!
//! trait Files: Send + Sync + 'static {
//!     fn pages(&self, account: u64) -> impl Future<Output = std::io::Result<Option<Vec<String>>>> + Send;
//!     fn append(&self, page: &str) -> impl Future<Output = std::io::Result<()>> + Send;
//! }
//!
//! struct Deps<F> {
//!     files: F,
//! }
//!
//! async fn export<F: Files>(task: Export, cx: Ctx<Deps<F>>) -> Result<String> {
//!     if task.format != "csv" {
//!         return cx.reject(format!("no such format: {}", task.format)); // final
//!     }
//!     let Some(pages) = cx.state().files.pages(task.account).await? else {
//!         return cx.snooze(Duration::from_secs(30)); // the attempt is refunded
//!     };
//!     for (i, page) in pages.iter().enumerate() {
//!         if cx.is_cancelled() || cx.remaining() < Duration::from_secs(5) {
//!             return cx.snooze(Duration::ZERO);
//!         }
//!         cx.state().files.append(page).await?;
//!         cx.progress(percent(i + 1, pages.len()), format!("page {}", i + 1)); // never blocks or fails
//!     }
//!     Ok(format!("exports/{}.csv", task.account))
//! }
//!
//! // What this worker decides.
//! fn pool<F: Files>(queue: &Queue, deps: Deps<F>) -> Pool<Deps<F>> {
//!     Pool::with_state(queue, deps)
//!         .concurrency(64)
//!         .handle_with(export, Limits::DEFAULT.concurrency(4).timeout(Duration::from_mins(20)))
//! }
//! ```
//!
//! # In your own transaction
//!
//! A queue that knows its store's type, such as `Queue<MySqlStore>` from `Queue::new(MySqlStore::connect(url).await?)`, enqueues
//! and completes in a transaction of yours on the same database. The driver must be of the version that the adapter has, which re-exports
//! it: `queue_mysql::sqlx` (0.9), `queue_sqlite::rusqlite` (0.43).
//!
//! ```no_run
//! # use std::time::Duration;
//! # use queue_runtime::queue_core::Transactional;
//! # use queue_runtime::{Ctx, Queue, Result, Task, TaskType};
//! # use serde::{Deserialize, Serialize};
//! # use sqlx::{MySqlConnection, MySqlPool};
//! # #[derive(Serialize, Deserialize)]
//! # struct Welcome { email: String }
//! # impl Task for Welcome {
//! #     const TYPE: TaskType = TaskType::new("mail.welcome");
//! #     type Output = ();
//! # }
//! # #[derive(Serialize, Deserialize)]
//! # struct Charge { account: u64, cents: u64 }
//! # #[derive(Serialize, Deserialize)]
//! # struct Receipt { number: u64 }
//! # impl Task for Charge {
//! #     const TYPE: TaskType = TaskType::new("billing.charge");
//! #     type Output = Receipt;
//! # }
//! # struct App<S> { db: MySqlPool, queue: Queue<S> }
//! # async fn sign_up<S: Transactional<Conn = MySqlConnection>>(db: &MySqlPool, queue: &Queue<S>, email: &str) -> anyhow::Result<()> {
//! let mut tx = db.begin().await?;
//! sqlx::query("INSERT INTO users (email) VALUES (?)").bind(email).execute(&mut *tx).await?;
//! queue.enqueue(&Welcome { email: email.into() }).delay(Duration::from_mins(5)).within(&mut tx).await?;
//! tx.commit().await?;
//! queue.wake(); // optional: a lost wake-up costs one poll
//! # Ok(())
//! # }
//!
//! // A handler whose effect and completion commit together.
//! # async fn charge<S: Transactional<Conn = MySqlConnection>>(task: Charge, cx: Ctx<App<S>>) -> Result<Receipt> {
//! # /*
//! async fn charge(task: Charge, cx: Ctx<App>) -> Result<Receipt> {
//! # */
//!     let App { db, queue } = cx.state();
//!     let mut tx = db.begin().await?;
//!     let number = sqlx::query("INSERT INTO ledger (account, cents) VALUES (?, ?)")
//!         .bind(task.account)
//!         .bind(task.cents)
//!         .execute(&mut *tx)
//!         .await?
//!         .last_insert_id();
//!     let receipt = queue.complete(&cx, Receipt { number }).within(&mut tx).await?; // an error when the claim is stale
//!     tx.commit().await?;
//!     Ok(receipt)
//! }
//! ```
//!
//! # What is promised
//!
//! A task runs *at least once*: one whose worker dies runs again, with one attempt spent. Where its effect must happen
//! exactly once, let it commit together with the task's completion (`complete(..).within(..)`), or hand [`Ctx::fence`] to the
//! system that takes the effect. An enqueue whose outcome stayed unknown ([`StoreError::UnknownOutcome`]) may be repeated without harm
//! when it has a [key](Enqueue::key).
//!
//! Payloads and errors of handlers are never logged.

mod client;
pub mod clock;
mod codec;
mod complete;
mod connect;
mod ctx;
mod enqueue;
mod erased;
mod error;
mod gather;
mod handler;
mod herald;
mod ids;
mod limits;
mod lock;
mod pool;
pub mod ports;
mod retention;
mod task;
mod write;

pub use client::Queue;
pub use clock::{OsEntropy, SystemClock, TokioClock};
pub use codec::EncodeError;
pub use complete::{Complete, CompleteError};
pub use connect::{connect, diagnose};
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
pub use retention::Retention;
pub use task::{Options, Task};

#[cfg(feature = "metrics")]
pub use queue_metrics as metrics;

// Whole as well, for the drivers that they re-export: a transaction of one's own must be of the same version.
#[cfg(feature = "mysql")]
pub use queue_mysql::{self, MySqlOptions, MySqlStore};
#[cfg(feature = "sqlite")]
pub use queue_sqlite::{self, SqliteOptions, SqliteStore};

#[cfg(feature = "testing")]
pub mod testing;

/// The README's examples are doc tests.
#[cfg(all(doctest, feature = "mysql", feature = "sqlite"))]
#[doc = include_str!("../../../README.md")]
#[derive(Debug)]
pub struct Readme;
