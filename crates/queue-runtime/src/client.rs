//! The client: what a producer needs, and what pools are made from.

use std::fmt;
use std::sync::Arc;

use queue_core::admin::{Acted, Action, Selection};
use queue_core::observer::Silent;
use queue_core::store::SchemaStatus;
use queue_core::{Clock, Entropy, Observer, Store, StoreError, StoreLimits, TaskId, TaskRecord, TaskSpec};
use tokio::sync::Notify;

use crate::clock::{OsEntropy, SystemClock};
use crate::complete::Complete;
use crate::ctx::Ctx;
use crate::enqueue::{Enqueue, EnqueueAll};
use crate::gather::Gatherer;
use crate::herald::Herald;
use crate::ids::IdAllocator;
use crate::task::{self, Task};

/// Who the audit says it was, when a program cancels a task.
const ACTOR: &str = "client";

/// A queue in a store. Cheap to clone; clones share everything.
///
/// `Queue<MySqlStore>` knows its store, and so can enqueue and complete within a transaction of your own on it. Plain `Queue`, as
/// [`connect`](crate::connect) returns it, works on any store and cannot.
pub struct Queue<S: ?Sized = dyn Store> {
    store: Arc<S>,
    shared: Arc<Shared>,
}

/// What does not depend on the store's type.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) limits: StoreLimits,
    pub(crate) ids: Arc<IdAllocator>,
    pub(crate) gatherer: Arc<Gatherer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) observer: Arc<dyn Observer>,
    /// Whether that is somebody's: nobody hears the silent one.
    pub(crate) is_observed: bool,
    pub(crate) wake: Arc<Notify>,
    pub(crate) herald: Arc<Herald>,
}

impl<S: Store + 'static> Queue<S> {
    /// A queue in this store.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self::with_ports(store, Arc::new(SystemClock::new()), Arc::new(OsEntropy))
    }

    /// A queue whose time and randomness come from here, for a simulation.
    #[must_use]
    pub fn with_ports(store: S, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        let store = Arc::new(store);
        let shared = Shared {
            limits: store.limits(),
            herald: Arc::new(Herald::new(store.wake_channel(), Arc::clone(&clock))),
            store: Arc::<S>::clone(&store),
            ids: Arc::new(IdAllocator::new()),
            gatherer: Arc::new(Gatherer::new()),
            clock,
            entropy,
            observer: Arc::new(Silent),
            is_observed: false,
            wake: Arc::new(Notify::new()),
        };
        Self { store, shared: Arc::new(shared) }
    }

    /// The same queue, without its store's type.
    #[must_use]
    pub fn erase(&self) -> Queue {
        Queue { store: Arc::<S>::clone(&self.store), shared: Arc::clone(&self.shared) }
    }
}

impl<S: ?Sized> Queue<S> {
    /// Tells this observer what is enqueued, what pools made from this queue do and, every 15 s while one runs, how the queues
    /// stand.
    #[must_use]
    pub fn with_observer(self, observer: impl Observer + 'static) -> Self {
        // What the one queue gathers is not told to the other's observer.
        let gatherer = Arc::new(Gatherer::new());
        let shared =
            Shared { observer: Arc::new(observer), is_observed: true, gatherer, ..Shared::clone(&self.shared) };
        Self { store: self.store, shared: Arc::new(shared) }
    }

    /// The store. What operators do is a method of it: to list, retry and delete tasks, to pause a queue, to look at the workers.
    ///
    /// ```
    /// use queue_runtime::queue_core::TaskAdmin as _;
    /// use queue_runtime::queue_core::admin::Pause;
    /// use queue_runtime::{Queue, QueueName, StoreError, Timestamp};
    ///
    /// # #[allow(dead_code)]
    /// async fn pause_mail(queue: &Queue) -> Result<(), StoreError> {
    ///     let pause = Pause { by: "ana".into(), why: "the provider is down".into(), at: Timestamp::EPOCH };
    ///     queue.store().set_paused(QueueName::new("mail"), Some(pause), "ana").await
    /// }
    /// ```
    #[must_use]
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Brings the store's schema up to date and returns the versions applied now. Safe when many processes do it at once.
    ///
    /// # Errors
    ///
    /// [`StoreError::Schema`] when the schema is too new for this library.
    pub async fn migrate(&self) -> Result<Vec<u32>, StoreError> {
        self.shared.store.migrate().await
    }

    /// How the store's schema stands.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub async fn schema(&self) -> Result<SchemaStatus, StoreError> {
        self.shared.store.schema().await
    }

    /// Enqueues a task, with the [`Options`](crate::Options) of its type unless more is said.
    ///
    /// When the store cannot be reached, or does not say whether it has written, the same write is repeated a bounded number
    /// of times, which takes a second or two; it is recognised, so that it makes no second task.
    ///
    /// Calls that meet share a write, so that many callers at once do not wait for as many commits; each is told of its own task.
    ///
    /// # Cancel safety
    ///
    /// Once the future was polled, dropping it leaves unknown whether the task was written. With a [key](Enqueue::key) it
    /// can be enqueued again without harm.
    pub fn enqueue<T: Task>(&self, task: &T) -> Enqueue<'_, S> {
        Enqueue::new(self, task::spec_of(task).map_err(|error| (T::TYPE, error).into()))
    }

    /// Enqueues tasks of one type, in batches as large as the store takes. All are checked before the first is written.
    pub fn enqueue_all<'a, T: Task>(&self, tasks: impl IntoIterator<Item = &'a T>) -> EnqueueAll<'_, S> {
        let specs = tasks.into_iter().map(|task| task::spec_of(task).map_err(|error| (T::TYPE, error).into()));
        EnqueueAll::new(self, specs)
    }

    /// Enqueues a task whose type is only known at run time.
    pub fn enqueue_spec(&self, spec: TaskSpec) -> Enqueue<'_, S> {
        Enqueue::new(self, Ok(spec))
    }

    /// Enqueues tasks whose types are only known at run time, in batches as large as the store takes. All are checked
    /// before the first is written.
    ///
    /// The answers come in the order of the tasks. Ids rise in it within each queue and priority, and not over all of them.
    pub fn enqueue_specs(&self, specs: impl IntoIterator<Item = TaskSpec>) -> EnqueueAll<'_, S> {
        EnqueueAll::new(self, specs.into_iter().map(Ok))
    }

    /// Completes the task that a handler runs, in the handler's own transaction, so that its effect and its completion
    /// commit together. See [`Complete::within`].
    pub fn complete<'q, C, O>(&'q self, cx: &'q Ctx<C>, output: O) -> Complete<'q, S, O> {
        Complete::new(self, cx.run(), output)
    }

    /// Wakes the pools of this process that were made from this queue and, where the store has a
    /// [channel](queue_core::WakeChannel) for that, one of another process. Worth calling after a commit of one's own; a pool
    /// that is not woken finds the task with its next poll.
    pub fn wake(&self) {
        self.shared.wake();
        self.shared.herald.committed();
    }

    /// Waits until other processes were told of what this one has enqueued, a second at most. Enqueueing does not wait for that,
    /// so this is worth calling before a process ends that lives for a few tasks only. Returns at once where the store has no
    /// [channel](queue_core::WakeChannel).
    pub async fn announced(&self) {
        self.shared.herald.silence().await;
    }

    /// Cancels a task. One that waits fails at once; the handler of one that runs is told with its worker's next heartbeat,
    /// and may still complete.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub async fn cancel(&self, task: TaskId) -> Result<Acted, StoreError> {
        let acted = self.shared.store.act(Selection::Ids(vec![task]), Action::Cancel, ACTOR).await?;
        Ok(acted.first().map_or(Acted::NotFound, |(_, acted)| *acted))
    }

    /// All that is known of a task; `None` when there is no such task.
    ///
    /// # Errors
    ///
    /// When the store fails, or the task's rows are ones that cannot be.
    pub async fn get(&self, task: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        self.shared.store.get(task).await
    }

    /// The store without its type.
    #[must_use]
    pub fn erased_store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.shared.store)
    }

    /// Time as this queue sees it.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.shared.clock)
    }

    /// Where this queue takes its random bits from.
    #[must_use]
    pub fn entropy(&self) -> Arc<dyn Entropy> {
        Arc::clone(&self.shared.entropy)
    }

    /// Who is told what happens.
    #[must_use]
    pub fn observer(&self) -> Arc<dyn Observer> {
        Arc::clone(&self.shared.observer)
    }

    /// Fires when something was enqueued by this process, or [`wake`](Self::wake) was called.
    #[must_use]
    pub fn wake_signal(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.wake)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Shared {
    /// Wakes every pool that waits or, when none does, lets the next one not wait.
    pub(crate) fn wake(&self) {
        ring(&self.wake);
    }
}

/// Wakes all who wait or, when nobody does, lets the next one not wait.
pub(crate) fn ring(wake: &Notify) {
    // In this order: the other way round a permit would be left behind after every wake-up.
    wake.notify_one();
    wake.notify_waiters();
}

impl<S: ?Sized> Clone for Queue<S> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), shared: Arc::clone(&self.shared) }
    }
}

impl<S: ?Sized> fmt::Debug for Queue<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("store", &self.shared.store).finish_non_exhaustive()
    }
}
