//! The pool as users build it.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use queue_core::session::LEASE_DEFAULT;
use queue_core::{Observer, Payload, QueueName, Queues, TaskResult, TaskType};

use super::config::{Config, Drain, Handlers, Registered};
use super::engine::Engine;
use super::error::{BuildError, StartError};
use super::report::Report;
use super::running::RunningPool;
use super::signals::Signals;
use crate::client::{Queue, Shared};
use crate::ctx::Ctx;
use crate::erased::ErasedHandler;
use crate::error::Result as HandlerResult;
use crate::handler::{erase, erase_blocking, erase_raw};
use crate::limits::Limits;
use crate::ports::{Ports, Spawn, Threads};
use crate::retention::Retention;
use crate::task::Task;

/// Tasks that wait in the process beside those that run, at most, unless told otherwise.
const PREFETCH_DEFAULT: usize = 500;

/// Works on the tasks of a queue, in as many processes as you like.
///
/// ```no_run
/// # use queue_runtime::{Ctx, Pool, Queue, Result, Store, Task, TaskType};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Welcome { email: String }
/// # impl Task for Welcome {
/// #     const TYPE: TaskType = TaskType::new("mail.welcome");
/// #     type Output = ();
/// # }
/// async fn welcome(task: Welcome, cx: Ctx) -> Result {
///     println!("attempt {}: hello {}", cx.attempt(), task.email);
///     Ok(())
/// }
///
/// # async fn example(queue: Queue) -> anyhow::Result<()> {
/// Pool::new(&queue).handle(welcome).run().await?;          // until Ctrl-C, then drains
/// # Ok(())
/// # }
/// ```
///
/// Every run is *at least once*: a task whose worker dies runs again. A handler that is told to stop gets its token first
/// and is dropped a little later; see [`cancel_grace`](Self::cancel_grace).
#[must_use]
pub struct Pool<S = ()> {
    queue: Shared,
    state: Arc<S>,
    handlers: Vec<Registered>,
    queues: Queues,
    fail_unregistered: Vec<QueueName>,
    observer: Option<Arc<dyn Observer>>,
    spawn: Arc<dyn Spawn>,
    name: Option<String>,
    concurrency: usize,
    prefetch: usize,
    lease: Duration,
    heartbeat: Option<Duration>,
    grace: Duration,
    cancel_grace: Duration,
    poll: (Duration, Duration),
    retention: Retention,
    allow_panic_abort: bool,
}

impl Pool {
    /// A pool whose handlers need no state.
    pub fn new<Q: ?Sized>(queue: &Queue<Q>) -> Self {
        Self::with_state(queue, ())
    }
}

impl<S: Send + Sync + 'static> Pool<S> {
    /// A pool whose handlers find this in [`Ctx::state`].
    pub fn with_state<Q: ?Sized>(queue: &Queue<Q>, state: S) -> Self {
        Self {
            queue: queue.shared().clone(),
            state: Arc::new(state),
            handlers: Vec::new(),
            queues: Queues::All,
            fail_unregistered: Vec::new(),
            observer: None,
            spawn: Arc::new(Threads),
            name: None,
            concurrency: 16,
            prefetch: PREFETCH_DEFAULT,
            lease: LEASE_DEFAULT,
            heartbeat: None,
            grace: Duration::from_secs(20),
            cancel_grace: Duration::from_secs(5),
            poll: (Duration::from_millis(10), Duration::from_millis(50)),
            retention: Retention::FOREVER,
            allow_panic_abort: false,
        }
    }

    /// Runs tasks of the type `T` with this handler, `async fn(T, Ctx<S>) -> Result<T::Output>`.
    pub fn handle<T, F, Fut>(self, handler: F) -> Self
    where
        T: Task,
        F: Fn(T, Ctx<S>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = HandlerResult<T::Output>> + Send + 'static,
    {
        self.handle_with(handler, Limits::DEFAULT)
    }

    /// As [`handle`](Self::handle), within limits of this worker's.
    pub fn handle_with<T, F, Fut>(self, handler: F, limits: Limits) -> Self
    where
        T: Task,
        F: Fn(T, Ctx<S>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = HandlerResult<T::Output>> + Send + 'static,
    {
        let handler = erase(handler, Arc::clone(&self.state), self.queue.limits.result_bytes_max);
        self.register(handler, limits)
    }

    /// Runs tasks of the type `T` with this blocking handler, on a thread that may block.
    ///
    /// It cannot be dropped: it must look at [`Ctx::is_cancelled`] or [`Ctx::remaining`] by itself. One that does not
    /// stop keeps its slot until it ends, and what it comes to then is refused.
    pub fn handle_blocking<T, F>(self, handler: F) -> Self
    where
        T: Task,
        F: Fn(T, Ctx<S>) -> HandlerResult<T::Output> + Send + Sync + 'static,
    {
        self.handle_blocking_with(handler, Limits::DEFAULT)
    }

    /// As [`handle_blocking`](Self::handle_blocking), within limits of this worker's.
    pub fn handle_blocking_with<T, F>(self, handler: F, limits: Limits) -> Self
    where
        T: Task,
        F: Fn(T, Ctx<S>) -> HandlerResult<T::Output> + Send + Sync + 'static,
    {
        let handler = erase_blocking(handler, Arc::clone(&self.state), self.queue.limits.result_bytes_max);
        self.register(handler, limits)
    }

    /// Runs tasks of a type that is only known at run time, with their payloads as they are.
    pub fn handle_raw<F, Fut>(self, task_type: TaskType, handler: F, limits: Limits) -> Self
    where
        F: Fn(Payload, Ctx<S>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = HandlerResult<TaskResult>> + Send + 'static,
    {
        let handler = erase_raw(task_type, handler, Arc::clone(&self.state), self.queue.limits.result_bytes_max);
        self.register(handler, limits)
    }

    fn register(mut self, handler: Arc<dyn ErasedHandler>, limits: Limits) -> Self {
        self.handlers.push(Registered { handler, limits });
        self
    }

    /// Serves these queues only; without this, every queue there is. Called again, it serves these as well.
    pub fn queues(mut self, queues: impl IntoIterator<Item = QueueName>) -> Self {
        let before = match &self.queues {
            Queues::All => Vec::new(),
            Queues::Named(names) => names.to_vec(),
        };
        self.queues = Queues::Named(before.into_iter().chain(queues).collect());
        self
    }

    /// Fails tasks in these queues whose type has no handler here, as `unregistered`. Without this they are left to other
    /// workers, so that a rolling deploy loses nothing.
    pub fn fail_unregistered(mut self, queues: impl IntoIterator<Item = QueueName>) -> Self {
        self.fail_unregistered.extend(queues);
        self
    }

    /// How many handlers run at a time, at most; 16 unless told otherwise.
    pub fn concurrency(mut self, tasks: usize) -> Self {
        self.concurrency = tasks;
        self
    }

    /// How many tasks may wait in the process beside those that run, at most, so that handlers do not stand idle while the
    /// store is asked; 500 unless told otherwise. It never takes more than its handlers work off in a twentieth of a second, as
    /// they have done lately, and none where they take 100 ms or more. A task that waits for over a second is given back.
    ///
    /// What waits is claimed, and its attempt is counted: should the process be killed, it costs those tasks an attempt as well. 0 keeps
    /// that to the tasks that run.
    pub fn prefetch(mut self, tasks: usize) -> Self {
        self.prefetch = tasks;
        self
    }

    /// How long the store waits for a sign of life before it takes the worker for dead; 30 s unless told otherwise. At least
    /// three times the heartbeat.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// How often the lease is renewed, and cancels of running tasks are heard of; a sixth of the lease unless told otherwise.
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = Some(interval);
        self
    }

    /// How long handlers may go on after the pool was told to stop; 20 s unless told otherwise.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How long a handler may go on after it was told to stop, before its future is dropped; 5 s unless told otherwise. Dropping
    /// it at once could cut the handler's own database call in two.
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.cancel_grace = grace;
        self
    }

    /// How long to wait after a poll that found nothing: `min` at first, doubling up to `max`; 10 ms and 50 ms unless told
    /// otherwise. Where more than four sessions are alive, `max` grows with their number, so that many idle pools together ask
    /// no more of the store than four do. The next due time and wake-ups cut it short.
    pub fn poll(mut self, min: Duration, max: Duration) -> Self {
        self.poll = (min, max);
        self
    }

    /// Removes tasks that ended longer ago than this, while the pool works; without it everything is kept. In small batches, about
    /// as many as end here, so that history does not grow. While more is due than the pool can take, work comes first, and batches
    /// take a tenth of the time. All pools may have it, or one.
    ///
    /// It is about the whole database, whatever queues and types this pool serves: where pools differ, the shortest time
    /// holds. An idempotency key outlives its task, for 24 hours from its enqueue.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Tells this observer, and not the queue's, what the pool does and, every 15 s, how the queues stand.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// What operators see this worker as; the host's name and the process's id unless told otherwise.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Takes time, randomness and a place to run things from here and not from the queue and the machine; for simulations.
    pub fn ports(mut self, ports: Ports) -> Self {
        self.queue.clock = ports.clock;
        self.queue.entropy = ports.entropy;
        self.spawn = ports.spawn;
        self
    }

    /// Starts even if the program is built with `panic = "abort"`, so that a panic in one handler ends the process with all
    /// its tasks (which other workers then recover).
    pub fn allow_panic_abort(mut self) -> Self {
        self.allow_panic_abort = true;
        self
    }

    /// Works until Ctrl-C or SIGTERM, then stops in good order; a second signal stops at once. Also ends when an operator wants
    /// the worker to drain.
    ///
    /// # Errors
    ///
    /// When the pool is not built as it must be, or cannot start.
    pub async fn run(self) -> Result<Report, StartError> {
        let mut signals = Signals::listen().map_err(StartError::Signals)?;
        let mut running = self.start().await?;
        let limit = running.stop_limit();
        tokio::select! {
            biased;
            report = running.ended() => return report,
            () = signals.next() => running.stop(limit),
        }
        tokio::select! {
            biased;
            report = running.ended() => return report,
            () = signals.next() => running.stop_now(),
        }
        running.ended().await
    }

    /// Starts to work.
    ///
    /// # Errors
    ///
    /// When the pool is not built as it must be, or cannot start.
    pub async fn start(self) -> Result<RunningPool, StartError> {
        let config = self.config(None)?;
        let limit = config.grace.saturating_add(config.cancel_grace).saturating_add(Duration::from_secs(2));
        Ok(RunningPool::new(Engine::start(config).await?, limit))
    }

    /// Works until, of the types and queues served, nothing is due, waits for a retry or a snooze, or is running, in whichever
    /// process. Then stops.
    pub const fn drain(self) -> Draining<S> {
        Draining { pool: self, later: false }
    }

    fn config(self, drain: Option<Drain>) -> Result<Config, BuildError> {
        self.checked(cfg!(panic = "abort"), drain)
    }

    fn checked(self, panic_aborts: bool, drain: Option<Drain>) -> Result<Config, BuildError> {
        if self.handlers.is_empty() {
            return Err(BuildError::NoHandlers);
        }
        if self.concurrency == 0 {
            return Err(BuildError::ZeroConcurrency);
        }
        let mut handlers = Handlers::default();
        for registered in self.handlers {
            let task_type = registered.handler.task_type().clone();
            if registered.limits.concurrency == Some(0) {
                return Err(BuildError::ZeroTypeConcurrency(task_type));
            }
            if !handlers.add(registered) {
                return Err(BuildError::DuplicateType(task_type));
            }
        }
        let heartbeat = self.heartbeat.unwrap_or(self.lease / 6);
        if heartbeat.is_zero() || self.lease < heartbeat * 3 {
            return Err(BuildError::LeaseTooShort { lease: self.lease, heartbeat });
        }
        let (poll_min, poll_max) = self.poll;
        if poll_min.is_zero() || poll_min > poll_max {
            return Err(BuildError::Poll { min: poll_min, max: poll_max });
        }
        if panic_aborts && !self.allow_panic_abort {
            return Err(BuildError::PanicAborts);
        }
        let host = host();
        Ok(Config {
            store: self.queue.store,
            clock: self.queue.clock,
            entropy: self.queue.entropy,
            spawn: self.spawn,
            samples: self.observer.is_some() || self.queue.is_observed,
            observer: self.observer.unwrap_or(self.queue.observer),
            wake: self.queue.wake,
            herald: self.queue.herald,
            handlers,
            queues: self.queues,
            fail_unregistered: Queues::Named(self.fail_unregistered.into()),
            name: self.name.unwrap_or_else(|| format!("{host}:{}", std::process::id())),
            host,
            concurrency: self.concurrency,
            prefetch: self.prefetch,
            lease: self.lease,
            heartbeat,
            grace: self.grace,
            cancel_grace: self.cancel_grace,
            poll_min,
            poll_max,
            retention: self.retention,
            drain,
        })
    }
}

impl<S: fmt::Debug> fmt::Debug for Pool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("handlers", &self.handlers).field("state", &self.state).finish_non_exhaustive()
    }
}

/// A pool that works until nothing is left to do; await it.
#[must_use = "it works only when it is awaited"]
#[derive(Debug)]
pub struct Draining<S = ()> {
    pool: Pool<S>,
    later: bool,
}

impl<S: Send + Sync + 'static> Draining<S> {
    /// Waits for tasks that are first due later, too.
    pub const fn with_later(mut self) -> Self {
        self.later = true;
        self
    }
}

impl<S: Send + Sync + 'static> IntoFuture for Draining<S> {
    type Output = Result<Report, StartError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let config = self.pool.config(Some(Drain { later: self.later }))?;
            Engine::start(config).await?.ended().await.ok_or(StartError::RuntimeGone)
        })
    }
}

/// The machine's name, for people.
fn host() -> String {
    let told =
        std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    let told = told.ok().or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    match told.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use queue_testkit::MemoryStore;

    use super::*;

    fn pool() -> Pool {
        Pool::new(&Queue::new(MemoryStore::new()))
    }

    fn handled(name: &'static str) -> Pool {
        with(pool(), name, Limits::DEFAULT)
    }

    fn with(pool: Pool, name: &'static str, limits: Limits) -> Pool {
        pool.handle_raw(TaskType::new(name), async |_, _| Ok(TaskResult::None), limits)
    }

    fn refused(pool: Pool) -> BuildError {
        pool.config(None).unwrap_err()
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let second = Duration::from_secs(1);
        assert_eq!(refused(pool()), BuildError::NoHandlers);
        assert_eq!(refused(handled("a").concurrency(0)), BuildError::ZeroConcurrency);
        let twice = with(handled("a"), "a", Limits::DEFAULT);
        assert_eq!(refused(twice), BuildError::DuplicateType(TaskType::new("a")));
        let none = with(pool(), "a", Limits::DEFAULT.concurrency(0));
        assert_eq!(refused(none), BuildError::ZeroTypeConcurrency(TaskType::new("a")));
        let lease = second * 3 - Duration::from_nanos(1);
        let short = handled("a").lease(lease).heartbeat(second);
        assert_eq!(refused(short), BuildError::LeaseTooShort { lease, heartbeat: second });
        assert!(handled("a").lease(second * 3).heartbeat(second).config(None).is_ok());
        assert_eq!(refused(handled("a").poll(second * 2, second)), BuildError::Poll { min: second * 2, max: second });
        assert!(matches!(refused(handled("a").poll(Duration::ZERO, second)), BuildError::Poll { .. }));
        assert!(matches!(refused(handled("a").lease(Duration::ZERO)), BuildError::LeaseTooShort { .. }));
    }

    #[test]
    fn a_program_whose_panics_abort_is_refused_unless_allowed() {
        assert_eq!(handled("a").checked(true, None).unwrap_err(), BuildError::PanicAborts);
        assert!(handled("a").allow_panic_abort().checked(true, None).is_ok());
    }

    #[test]
    fn no_default_is_missing() {
        let config = handled("a").config(None).unwrap();
        assert_eq!((config.concurrency, config.prefetch), (16, 500));
        assert_eq!((config.lease, config.heartbeat), (Duration::from_secs(30), Duration::from_secs(5)));
        assert!(config.fail_unregistered.is_empty() && config.queues == Queues::All);
        assert_eq!(config.name, format!("{}:{}", config.host, std::process::id()));
        let config = handled("a").concurrency(1_000).prefetch(0).name("w").config(None).unwrap();
        assert_eq!((config.concurrency, config.prefetch, config.name.as_str()), (1_000, 0, "w"));
    }

    #[test]
    fn queues_add_up() {
        let config = handled("a").queues([QueueName::new("x")]).queues([QueueName::new("y")]).config(None).unwrap();
        assert_eq!(config.queues, Queues::Named([QueueName::new("x"), QueueName::new("y")].into()));
    }
}
