//! A world in virtual time: one store, a clock that moves when everybody waits, and pools that run in it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use queue_core::{Clock, Entropy, Observation, Observer, TaskAdmin, TaskRecord};
use queue_runtime::clock::TokioClock;
use queue_runtime::ports::Ports;
use queue_runtime::{
    Ctx, Limits, Payload, Pool, Queue, Result, Status, Store, TaskId, TaskResult, TaskSpec, TaskType, Timestamp,
};
use queue_testkit::{MemoryStore, SeededEntropy, StoreClock};

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The store's clock: tokio's, which moves when everybody waits, and what a test adds to it.
#[derive(Clone, Debug)]
pub(crate) struct VirtualTime {
    pub(crate) clock: TokioClock,
    jump: Arc<Mutex<Duration>>,
}

impl VirtualTime {
    fn new() -> Self {
        let clock = TokioClock::starting_at(Timestamp::from_micros(1_700_000_000_000_000));
        Self { clock, jump: Arc::default() }
    }

    /// Moves the store's clock alone.
    pub(crate) fn jump(&self, by: Duration) {
        *self.jump.lock().unwrap() += by;
    }
}

impl StoreClock for VirtualTime {
    fn now(&self) -> Timestamp {
        self.clock.wall().after(*self.jump.lock().unwrap())
    }
}

/// One store, and what is needed to run pools on it.
pub(crate) struct World {
    pub(crate) store: MemoryStore,
    pub(crate) time: VirtualTime,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) queue: Queue,
}

impl World {
    /// A new world; the runtime's time must be paused.
    pub(crate) fn new() -> Self {
        let time = VirtualTime::new();
        let store = MemoryStore::with_clock(Arc::new(time.clone()));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(7));
        let queue = Queue::with_ports(store.clone(), Arc::new(time.clock), Arc::clone(&entropy)).erase();
        Self { store, time, entropy, queue }
    }

    /// A pool that runs in this world, on its store.
    pub(crate) fn pool(&self) -> Pool {
        self.pool_on(&self.queue)
    }

    /// A pool on another view of the store, one with faults for example.
    pub(crate) fn pool_over(&self, store: impl Store + 'static) -> Pool {
        self.pool_on(&Queue::with_ports(store, Arc::new(self.time.clock), Arc::clone(&self.entropy)).erase())
    }

    /// A pool of a queue that has an observer.
    pub(crate) fn pool_observed(&self, observer: impl Observer + 'static) -> Pool {
        let (clock, entropy) = (Arc::new(self.time.clock), Arc::clone(&self.entropy));
        self.pool_on(&Queue::with_ports(self.store.clone(), clock, entropy).with_observer(observer).erase())
    }

    fn pool_on(&self, queue: &Queue) -> Pool {
        Pool::new(queue).ports(self.ports()).name("test")
    }

    pub(crate) fn ports(&self) -> Ports {
        Ports { clock: Arc::new(self.time.clock), ..Ports::paused(Arc::clone(&self.entropy)) }
    }

    /// Virtual time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.time.clock.monotonic()
    }

    /// Enqueues a task with defaults, but for what `change` does to it.
    pub(crate) async fn enqueue(&self, task_type: &'static str, change: impl FnOnce(&mut TaskSpec)) -> TaskId {
        let mut spec = TaskSpec::new(TaskType::new(task_type), Payload::json("null"));
        change(&mut spec);
        self.queue.enqueue_spec(spec).await.unwrap().id()
    }

    /// A task as it stands.
    pub(crate) async fn task(&self, task: TaskId) -> TaskRecord {
        self.store.get(task).await.unwrap().unwrap()
    }

    /// Waits for something to hold, a minute of virtual time at most.
    pub(crate) async fn until<F: Future<Output = bool>>(&self, what: &str, mut holds: impl FnMut() -> F) {
        for _ in 0..60_000 {
            if holds().await {
                return;
            }
            tokio::time::sleep(ms(1)).await;
        }
        panic!("never: {what}");
    }
}

/// What was observed, as text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    told: Arc<Mutex<Vec<String>>>,
    clock: Option<TokioClock>,
}

impl Heard {
    /// Tells when as well.
    pub(crate) fn timed(clock: TokioClock) -> Self {
        Self { clock: Some(clock), ..Self::default() }
    }

    pub(crate) fn of(&self, prefix: &str) -> Vec<String> {
        self.told.lock().unwrap().iter().filter(|one| one.starts_with(prefix)).cloned().collect()
    }
}

impl Observer for Heard {
    fn observe(&self, observation: &Observation<'_>) {
        let told = match self.clock {
            Some(clock) => format!("{:?} {observation:?}", clock.monotonic()),
            None => format!("{observation:?}"),
        };
        self.told.lock().unwrap().push(told);
    }
}

/// A pool with one more handler, for tasks of a type without any type.
pub(crate) trait On: Sized {
    fn on<F, Fut>(self, task_type: &'static str, handler: F) -> Self
    where
        F: Fn(Ctx) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result> + Send + 'static,
    {
        self.on_with(task_type, Limits::DEFAULT, handler)
    }

    fn on_with<F, Fut>(self, task_type: &'static str, limits: Limits, handler: F) -> Self
    where
        F: Fn(Ctx) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result> + Send + 'static;
}

impl On for Pool {
    fn on_with<F, Fut>(self, task_type: &'static str, limits: Limits, handler: F) -> Self
    where
        F: Fn(Ctx) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result> + Send + 'static,
    {
        let raw = move |_: Payload, cx: Ctx| {
            let run = handler(cx);
            async move { run.await.map(|()| TaskResult::None) }
        };
        self.handle_raw(TaskType::new(task_type), raw, limits)
    }
}

impl World {
    /// Waits until a task has this status.
    pub(crate) async fn reaches(&self, task: TaskId, status: Status) {
        self.until(status.as_str(), async || self.task(task).await.state.status == status).await;
    }
}

/// Counts, across handlers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Count(Arc<std::sync::atomic::AtomicUsize>);

impl Count {
    /// One more; returns how many there were before.
    pub(crate) fn up(&self) -> usize {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }

    pub(crate) fn down(&self) {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// Counts when it is dropped.
pub(crate) struct CountsDrop(pub(crate) Count);

impl Drop for CountsDrop {
    fn drop(&mut self) {
        self.0.up();
    }
}
