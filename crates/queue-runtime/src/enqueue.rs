//! Enqueueing: builders that are awaited.

use std::future::{Future, IntoFuture, Ready};
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use queue_core::spec::KeyError;
use queue_core::{
    Budget, Enqueued, IdempotencyKey, NameError, Priority, QueueName, Retry, Start, Store, StoreError, TaskId,
    TaskSpec, TaskType, Transactional,
};

use crate::client::Queue;
use crate::codec::EncodeError;
use crate::gather;
use crate::write;

/// Why a task was not enqueued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnqueueError {
    /// The task's payload cannot be written.
    #[error("a task of type {task_type} cannot be written: {source}")]
    Encode {
        /// The task's type.
        task_type: TaskType,
        /// Why.
        source: EncodeError,
    },
    /// The queue's name is none.
    #[error("not the name of a queue: {0}")]
    Queue(#[source] NameError),
    /// The idempotency key is none.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The payload is larger than the store takes.
    #[error("a payload of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size, in bytes.
        size: u64,
        /// The largest that is taken, in bytes.
        limit: u64,
    },
    /// The idempotency key belongs to a task with another payload.
    #[error("the idempotency key belongs to task {existing}, which has another payload")]
    KeyConflict {
        /// The task that has the key.
        existing: TaskId,
    },
    /// The store failed, after a bounded number of tries. [`StoreError::UnknownOutcome`] means that the task may have been
    /// written; enqueueing it again may make a second one, unless it has an idempotency key.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for EnqueueError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::KeyConflict { existing, .. } => Self::KeyConflict { existing },
            error => Self::Store(error),
        }
    }
}

impl From<(TaskType, EncodeError)> for EnqueueError {
    fn from((task_type, source): (TaskType, EncodeError)) -> Self {
        Self::Encode { task_type, source }
    }
}

/// Why a batch of tasks was not enqueued, and how far it got.
#[derive(Debug, thiserror::Error)]
#[error("{}{source}; {}", AtTask(*.index), Far(.written.len()))]
pub struct EnqueueAllError {
    /// What was written before, in the order of the batch. Nothing after it was, unless the error says that it is not known.
    pub written: Vec<Enqueued>,
    /// The position of the task at fault, from 0, where it is one task's fault.
    pub index: Option<usize>,
    /// What went wrong.
    #[source]
    pub source: EnqueueError,
}

struct AtTask(Option<usize>);

impl std::fmt::Display for AtTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |index| write!(f, "task {index} of the batch: "))
    }
}

struct Far(usize);

impl std::fmt::Display for Far {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => f.write_str("none was written before"),
            written => write!(f, "the first {written} were written before"),
        }
    }
}

/// A task that is not enqueued yet; see [`Queue::enqueue`].
#[derive(Debug)]
#[must_use = "nothing is enqueued until this is awaited"]
pub struct Enqueue<'q, S: ?Sized> {
    queue: &'q Queue<S>,
    spec: Result<TaskSpec, EnqueueError>,
}

/// Tasks that are not enqueued yet; see [`Queue::enqueue_all`].
#[derive(Debug)]
#[must_use = "nothing is enqueued until this is awaited"]
pub struct EnqueueAll<'q, S: ?Sized> {
    queue: &'q Queue<S>,
    specs: Result<Vec<TaskSpec>, EnqueueAllError>,
}

macro_rules! setters {
    ($set:ident) => {
        /// First due this long after it is enqueued, on the store's clock.
        pub fn delay(self, delay: Duration) -> Self {
            self.start(Start::After(delay))
        }

        /// First due at this point; at once when it is past. Takes a [`SystemTime`] or what becomes one, such as a
        /// [`Timestamp`](queue_core::Timestamp) and those of `jiff` and `chrono`.
        pub fn at(self, at: impl Into<SystemTime>) -> Self {
            self.start(Start::At(at.into().into()))
        }

        /// When it is first due.
        pub fn start(self, start: Start) -> Self {
            self.$set(|spec| {
                spec.start = start;
                Ok(())
            })
        }

        /// Into this queue instead of its type's.
        pub fn queue(self, queue: impl AsRef<str>) -> Self {
            let queue = QueueName::parse(queue.as_ref());
            self.$set(|spec| {
                spec.queue = queue.clone().map_err(EnqueueError::Queue)?;
                Ok(())
            })
        }

        /// With this priority instead of its type's.
        pub fn priority(self, priority: Priority) -> Self {
            self.$set(|spec| {
                spec.priority = priority;
                Ok(())
            })
        }

        /// Tried this often in all instead of as often as its type says; zero counts as one.
        pub fn max_attempts(self, attempts: u16) -> Self {
            self.$set(|spec| {
                spec.retry = std::mem::take(&mut spec.retry).attempts(attempts);
                Ok(())
            })
        }

        /// Tried by this policy instead of its type's.
        pub fn retry(self, retry: Retry) -> Self {
            self.$set(|spec| {
                spec.retry = retry.clone();
                Ok(())
            })
        }

        /// With this budget instead of its type's: a [`Duration`], or [`Budget::NONE`].
        pub fn budget(self, budget: impl Into<Budget>) -> Self {
            let budget = budget.into();
            self.$set(|spec| {
                spec.budget = budget;
                Ok(())
            })
        }
    };
}

impl<'q, S: ?Sized> Enqueue<'q, S> {
    pub(crate) const fn new(queue: &'q Queue<S>, spec: Result<TaskSpec, EnqueueError>) -> Self {
        Self { queue, spec }
    }

    setters!(set);

    /// Enqueues a task of this type and key at most once: a repeat with the same payload finds the first task and answers
    /// [`Enqueued::Existing`]. The key has 1 to 128 bytes.
    pub fn key(self, key: impl Into<String>) -> Self {
        self.set(|spec| {
            spec.key = Some(IdempotencyKey::parse(key)?);
            Ok(())
        })
    }

    fn set(mut self, set: impl FnOnce(&mut TaskSpec) -> Result<(), EnqueueError>) -> Self {
        if let Ok(spec) = &mut self.spec
            && let Err(error) = set(spec)
        {
            self.spec = Err(error);
        }
        self
    }
}

impl<'q, S: ?Sized> EnqueueAll<'q, S> {
    pub(crate) fn new(queue: &'q Queue<S>, specs: impl Iterator<Item = Result<TaskSpec, EnqueueError>>) -> Self {
        let checked = specs.enumerate().map(|(index, spec)| spec.map_err(|source| at_fault(index, source)));
        Self { queue, specs: checked.collect() }
    }

    setters!(set_all);

    fn set_all(mut self, set: impl Fn(&mut TaskSpec) -> Result<(), EnqueueError>) -> Self {
        if let Ok(specs) = &mut self.specs {
            let failed =
                specs.iter_mut().enumerate().find_map(|(index, spec)| set(spec).err().map(|error| (index, error)));
            if let Some((index, error)) = failed {
                self.specs = Err(at_fault(index, error));
            }
        }
        self
    }
}

impl<S: Transactional> Enqueue<'_, S> {
    /// Enqueues the task in this transaction: it is there when the transaction commits. Call [`Queue::wake`] after that,
    /// lest the task wait for a pool's next poll.
    ///
    /// # Errors
    ///
    /// Nothing is repeated in your transaction. Roll it back after any error.
    pub async fn within(self, tx: &mut S::Conn) -> Result<Enqueued, EnqueueError> {
        let answers = write::within(self.queue, tx, vec![self.spec?]).await.map_err(|error| error.source)?;
        write::single(answers)
    }
}

impl<S: Transactional> EnqueueAll<'_, S> {
    /// Enqueues the tasks in this transaction: they are there when the transaction commits.
    ///
    /// # Errors
    ///
    /// Nothing is repeated in your transaction. Roll it back after any error.
    pub async fn within(self, tx: &mut S::Conn) -> Result<Vec<Enqueued>, EnqueueAllError> {
        write::within(self.queue, tx, self.specs?).await
    }
}

/// Only here to say, where it does not compile, what to write instead.
impl Enqueue<'_, dyn Store> {
    #[doc(hidden)]
    pub fn within<T: WithinKnownStore>(self, tx: T) -> Ready<Result<Enqueued, EnqueueError>> {
        tx.never()
    }
}

/// Only here to say, where it does not compile, what to write instead.
impl EnqueueAll<'_, dyn Store> {
    #[doc(hidden)]
    pub fn within<T: WithinKnownStore>(self, tx: T) -> Ready<Result<Vec<Enqueued>, EnqueueAllError>> {
        tx.never()
    }
}

/// Implemented by nothing: what `within` asks for on a queue that does not know its store.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "this queue does not know its store, so it cannot write in a transaction of yours",
    label = "a `Queue` from `connect` or `erase` works on any store, and has no `within`",
    note = "give the queue its store's type: `Queue<MySqlStore>`, from `Queue::new(MySqlStore::connect(url).await?)`"
)]
pub trait WithinKnownStore {
    #[doc(hidden)]
    fn never<R>(self) -> R;
}

pub(crate) const fn at_fault(index: usize, source: EnqueueError) -> EnqueueAllError {
    EnqueueAllError { written: Vec::new(), index: Some(index), source }
}

impl<'q, S: ?Sized> IntoFuture for Enqueue<'q, S> {
    type Output = Result<Enqueued, EnqueueError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'q>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { queue, spec } = self;
        let shared = queue.shared();
        Box::pin(async move { gather::enqueue(shared, spec?).await })
    }
}

impl<'q, S: ?Sized> IntoFuture for EnqueueAll<'q, S> {
    type Output = Result<Vec<Enqueued>, EnqueueAllError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'q>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { queue, specs } = self;
        let shared = queue.shared();
        Box::pin(async move { write::alone(shared, specs?).await })
    }
}
