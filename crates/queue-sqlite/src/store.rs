//! The store: every call becomes a job on the thread that writes or on one that reads.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use queue_core::claim::Resolved;
use queue_core::ids::IdBlock;
use queue_core::progress::ProgressUpdate;
use queue_core::reap::{FencedSession, Lost, StoreTime, Swept};
use queue_core::session::{Renewal, SessionSpec};
use queue_core::store::{SchemaStatus, Trip};
use queue_core::{
    ClaimId, ClaimReply, ClaimRequest, Enqueued, ErrorKind, Migrate, NewTask, Scope, SessionId, Settle, Settled,
    StoreError, StoreLimits, TaskStore, Timestamp,
};
use tokio::sync::oneshot;

use crate::clock::Now;
use crate::error::Fault;
use crate::jobs::{Jobs, Weight};
use crate::options::SqliteOptions;
use crate::reaping::{self, BEGINNING, Position};
use crate::threads::Threads;
use crate::work::Work;
use crate::{busy, claiming, connection, enqueue, migrate, session, settling};

/// A queue in one SQLite file.
///
/// Cheap calls and long ones alike run on threads of the store's own; no call blocks the caller's thread. Dropping the store
/// waits until the jobs that were handed over have run, and closes the file.
#[derive(Debug)]
pub struct SqliteStore {
    // In this order: the connection that writes is the last to close, and empties the write-ahead log.
    readers: Option<Threads>,
    writer: Threads,
    limits: StoreLimits,
    busy: Arc<AtomicU64>,
    /// Where the sweep of spent budgets goes on.
    sweep: Mutex<Position>,
    /// What is said to be the server: the file.
    server: String,
    /// The file's name, as SQLite tells it of a connection; `None` in memory.
    path: Option<String>,
    now: Now,
    /// How long a write waits for another process before it is tried again.
    pub(crate) busy_timeout: Duration,
    /// Ids put aside for transactions of the user's, in which none can be reserved.
    aside: Mutex<Option<IdBlock>>,
}

/// Ids that are put aside, at least: as many as a client reserves at once.
const ASIDE_MIN: u32 = 10_000;

impl SqliteStore {
    /// Opens what a URL names: `sqlite://queue.db`, `sqlite:///var/lib/queue.db`, `sqlite::memory:` (see [`SqliteOptions`]).
    /// The schema is not touched: migrate it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] when the URL is not one of SQLite; see [`with_options`](Self::with_options).
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::with_options(SqliteOptions::from_url(url)?).await
    }

    /// Opens this file and makes it when it is missing.
    ///
    /// # Errors
    ///
    /// See [`with_options`](Self::with_options).
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::with_options(SqliteOptions::file(path)).await
    }

    /// Opens it as the options say.
    ///
    /// # Errors
    ///
    /// [`StoreError::Denied`] when the account may not; [`StoreError::Unavailable`] when another process keeps the file locked;
    /// [`StoreError::Other`] when it cannot be a database: its directory is missing, or it is another kind of file.
    pub async fn with_options(options: SqliteOptions) -> Result<Self, StoreError> {
        let (reply, opened) = oneshot::channel();
        let opening = options.clone();
        // Opening waits for the disk and for other processes, so it has a thread as well.
        std::thread::Builder::new()
            .name("queue-sqlite-open".to_owned())
            .spawn(move || {
                // Whoever has dropped the future has no use for the connections.
                let _ = reply.send(connection::open(&opening));
            })
            .map_err(StoreError::unavailable)?;
        let conns = opened.await.map_err(StoreError::unavailable)??;
        let path = conns.writer.path().filter(|path| !path.is_empty()).map(str::to_owned);
        let busy = Arc::new(AtomicU64::new(0));
        Ok(Self {
            readers: Threads::readers(conns.readers, &options.now)?,
            writer: Threads::writer(conns.writer, options.now.clone(), Arc::clone(&busy))?,
            limits: options.limits,
            busy,
            sweep: Mutex::new(BEGINNING),
            server: options.server(),
            path,
            now: options.now,
            busy_timeout: options.busy_timeout,
            aside: Mutex::new(None),
        })
    }

    pub(crate) fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// The store's clock, for what does not run on its threads.
    pub(crate) fn now(&self) -> Timestamp {
        self.now.read()
    }

    /// Sees to it that ids can be reserved while nobody can write.
    pub(crate) async fn put_ids_aside(&self) -> Result<(), StoreError> {
        let left = self.aside().as_ref().map_or(0, IdBlock::remaining);
        if left < u64::from(ASIDE_MIN) {
            let block = self.write(1, |work| enqueue::reserve_ids(work, 2 * ASIDE_MIN)).await?;
            *self.aside() = Some(block);
        }
        Ok(())
    }

    /// Takes ids that were put aside. When there are too few, they are given up, because later ones would not rise.
    fn take_aside(&self, count: u32) -> Option<IdBlock> {
        let mut aside = self.aside();
        let block = aside.as_mut()?;
        if block.remaining() < u64::from(count) || count == 0 {
            *aside = None;
            return None;
        }
        let first = block.next()?;
        if count > 1 {
            block.nth(count as usize - 2);
        }
        Some(IdBlock::new(first, count.into()))
    }

    fn aside(&self) -> MutexGuard<'_, Option<IdBlock>> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a job in a transaction that may write.
    pub(crate) async fn write<T, F>(&self, weight: Weight, call: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Work<'_>) -> Result<T, Fault> + Send + 'static,
    {
        self.writer.jobs.call(weight, call).await
    }

    /// Runs a job that only reads, on one state of the database.
    pub(crate) async fn read<T, F>(&self, call: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Work<'_>) -> Result<T, Fault> + Send + 'static,
    {
        let jobs: &Jobs = self.readers.as_ref().map_or(&self.writer.jobs, |readers| &readers.jobs);
        jobs.call(1, call).await
    }
}

#[async_trait]
impl TaskStore for SqliteStore {
    fn limits(&self) -> StoreLimits {
        self.limits
    }

    fn retries(&self) -> Vec<(&'static str, u64)> {
        vec![("busy", self.busy.load(Ordering::Relaxed))]
    }

    async fn reserve_ids(&self, count: u32) -> Result<IdBlock, StoreError> {
        match self.take_aside(count) {
            Some(block) => Ok(block),
            None => self.write(1, move |work| enqueue::reserve_ids(work, count)).await,
        }
    }

    async fn enqueue(&self, batch: Arc<[NewTask]>) -> Result<Vec<Enqueued>, StoreError> {
        self.limits.check_enqueue(&batch)?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.write(enqueue::weight(&batch), move |work| enqueue::enqueue(work, &batch)).await
    }

    async fn open_session(&self, spec: SessionSpec) -> Result<Renewal, StoreError> {
        self.write(1, move |work| session::open(work, &spec)).await
    }

    async fn renew_session(&self, session: SessionId, lease: Duration) -> Result<Renewal, StoreError> {
        self.writer.jobs.call_urgent(move |work| session::renew(work, session, lease)).await
    }

    async fn close_session(&self, session: SessionId) -> Result<(), StoreError> {
        self.write(1, move |work| session::close(work, session)).await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<ClaimReply, StoreError> {
        let request = Arc::new(self.bounded(request));
        let looking = Arc::clone(&request);
        // The idle poll ends with the look.
        if let Some(reply) = self.read(move |work| claiming::look(work, &looking)).await? {
            return Ok(reply);
        }
        self.write(request.capacity.tasks, move |work| claiming::claim(work, &request)).await
    }

    async fn resolve_claim(&self, session: SessionId, claim: ClaimId) -> Result<Resolved, StoreError> {
        self.write(1, move |work| claiming::resolve(work, session, claim)).await
    }

    async fn settle(&self, batch: Arc<[Settle]>) -> Result<Vec<Settled>, StoreError> {
        let limits = self.limits;
        limits.check_settle(batch.len())?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.write(batch.len(), move |work| settling::settle(work, &batch, &limits)).await
    }

    /// One job, one transaction, one wait for the disk.
    async fn settle_and_claim(&self, batch: Arc<[Settle]>, request: ClaimRequest) -> Trip {
        if !batch.is_empty() && self.limits.check_settle(batch.len()).is_ok() {
            let (limits, settles, bounded) = (self.limits, Arc::clone(&batch), self.bounded(request.clone()));
            let weight = settles.len() + bounded.capacity.tasks;
            let both = self.write(weight, move |work| {
                Ok((settling::settle(work, &settles, &limits)?, claiming::claim(work, &bounded)?))
            });
            match both.await {
                Ok((settled, claim)) => return Trip { settled: Ok(settled), claim: Ok(claim) },
                // Waiting for the lock all over again, twice, helps nobody.
                Err(error) => match error.kind() {
                    ErrorKind::Unavailable => {
                        let claim = Err(StoreError::unavailable(error.to_string()));
                        return Trip { settled: Err(error), claim };
                    }
                    ErrorKind::UnknownOutcome => {
                        let claim = Err(StoreError::unknown_outcome(error.to_string()));
                        return Trip { settled: Err(error), claim };
                    }
                    _ => {}
                },
            }
        }
        // One of the two failed and took the other with it: each by itself says which. Repeating a settle is safe.
        let settled = self.settle(batch).await;
        let claim = self.claim(request).await;
        Trip { settled, claim }
    }

    async fn progress(&self, batch: Vec<ProgressUpdate>) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.write(batch.len(), move |work| settling::progress(work, &batch)).await
    }

    async fn time(&self) -> Result<StoreTime, StoreError> {
        let server = self.server.clone();
        self.read(move |work| Ok(StoreTime { now: work.now, server: server.clone() })).await
    }

    async fn fence_expired(&self, limit: usize) -> Result<Vec<FencedSession>, StoreError> {
        if !self.read(|work| reaping::has_expired(work)).await? {
            return Ok(Vec::new());
        }
        self.write(limit, move |work| reaping::fence_expired(work, limit)).await
    }

    async fn lost(&self, limit: usize) -> Result<Lost, StoreError> {
        let (lost, has_empty) =
            self.read(move |work| Ok((reaping::lost(work, limit)?, session::has_empty(work)?))).await?;
        if has_empty {
            self.write(1, |work| session::forget_empty(work)).await?;
        }
        Ok(lost)
    }

    async fn expire(&self, limit: usize) -> Result<Swept, StoreError> {
        let after = *self.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        let reaping::Spent { tasks, next, finished } =
            self.read(move |work| reaping::spent(work, after, limit)).await?;
        let ended = if tasks.is_empty() {
            Vec::new()
        } else {
            self.write(tasks.len(), move |work| reaping::expire(work, &tasks)).await?
        };
        *self.sweep.lock().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(Swept { ended, finished })
    }

    async fn is_busy(&self, scope: Scope) -> Result<bool, StoreError> {
        self.read(move |work| busy::is_busy(work, &scope)).await
    }
}

impl SqliteStore {
    fn bounded(&self, mut request: ClaimRequest) -> ClaimRequest {
        request.capacity.tasks = request.capacity.tasks.min(self.limits.batch_max);
        request
    }
}

#[async_trait]
impl Migrate for SqliteStore {
    async fn migrate(&self) -> Result<Vec<u32>, StoreError> {
        // Nothing to do is the common case, and then a file that is only read is fine.
        if self.read(|work| migrate::is_current(work)).await? {
            return Ok(Vec::new());
        }
        self.write(1, |work| migrate::migrate(work)).await
    }

    async fn schema(&self) -> Result<SchemaStatus, StoreError> {
        self.read(|work| migrate::status(work)).await
    }
}
