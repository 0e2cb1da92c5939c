//! A store whose every call can be made to fail, and a process that can be killed.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use mockall::automock;
use queue_core::admin::{Acted, Action, Filter, Page, Pause, Selection, Stats};
use queue_core::claim::Resolved;
use queue_core::ids::IdBlock;
use queue_core::progress::ProgressUpdate;
use queue_core::reap::{FencedSession, Lost, StoreTime, Swept};
use queue_core::session::{Renewal, SessionRecord, SessionSpec};
use queue_core::store::SchemaStatus;
use queue_core::{
    AttemptRecord, ClaimId, ClaimReply, ClaimRequest, Enqueued, Migrate, NewTask, QueueName, Scope, SessionId, Settle,
    Settled, Status, StoreError, StoreLimits, TaskAdmin, TaskId, TaskRecord, TaskResult, TaskStore, Transactional,
};
use queue_runtime::ports::{Detached, Spawn};
use queue_testkit::MemoryStore;
use tokio::task::AbortHandle;

/// A call to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    Open,
    Renew,
    Close,
    Claim,
    Resolve,
    Settle,
    Progress,
    Time,
    Lost,
    Busy,
    Schema,
}

/// What a call comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It works.
    None,
    /// Nothing is written: unavailable.
    Unavailable,
    /// It is written, and the acknowledgement is lost.
    AckLost,
    /// Nothing is written, and the acknowledgement is lost.
    Lost,
    /// Nothing is written, and there is no answer at all.
    Hangs,
    /// The store refuses it for good.
    Refused,
    /// The store panics.
    Panics,
}

/// Decides what each call comes to; `nth` counts the calls of a kind from 1.
#[automock]
pub(crate) trait Faults: Send + Sync + 'static {
    fn strike(&self, call: Call, nth: usize) -> Fault;
}

/// See the module.
#[derive(Clone)]
pub(crate) struct FaultyStore {
    inner: MemoryStore,
    faults: Arc<dyn Faults>,
    calls: Arc<Mutex<BTreeMap<Call, usize>>>,
    /// Whether a handler's own transaction commits.
    commits: bool,
    /// A task whose settlement cannot be written, nor a batch with it.
    refuses: Option<TaskId>,
}

impl std::fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FaultyStore")
    }
}

impl FaultyStore {
    pub(crate) fn new(inner: &MemoryStore, strike: impl Fn(Call, usize) -> Fault + Send + Sync + 'static) -> Self {
        let mut faults = MockFaults::new();
        faults.expect_strike().returning(strike);
        Self::with(inner, faults)
    }

    pub(crate) fn with(inner: &MemoryStore, faults: MockFaults) -> Self {
        Self { inner: inner.clone(), faults: Arc::new(faults), calls: Arc::default(), commits: true, refuses: None }
    }

    /// A store on which a handler's own transaction is rolled back.
    pub(crate) fn rolling_back(inner: &MemoryStore) -> Self {
        Self { commits: false, ..Self::new(inner, |_, _| Fault::None) }
    }

    /// A store that cannot write the settlement of this task, nor of a batch with it.
    pub(crate) fn refusing(inner: &MemoryStore, task: TaskId) -> Self {
        Self { refuses: Some(task), ..Self::new(inner, |_, _| Fault::None) }
    }

    /// How often a call was made.
    pub(crate) fn calls(&self, call: Call) -> usize {
        self.calls.lock().unwrap().get(&call).copied().unwrap_or(0)
    }

    async fn call<T>(
        &self,
        call: Call,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let nth = {
            let mut calls = self.calls.lock().unwrap();
            let nth = calls.entry(call).or_default();
            *nth += 1;
            *nth
        };
        match self.faults.strike(call, nth) {
            Fault::None => work.await,
            Fault::Unavailable => Err(StoreError::unavailable("as the test wants it")),
            Fault::AckLost => {
                work.await?;
                Err(StoreError::unknown_outcome("as the test wants it"))
            }
            Fault::Lost => Err(StoreError::unknown_outcome("as the test wants it")),
            Fault::Hangs => std::future::pending().await,
            Fault::Refused => Err(StoreError::other("as the test wants it")),
            Fault::Panics => panic!("as the test wants it"),
        }
    }
}

#[async_trait]
impl TaskStore for FaultyStore {
    fn limits(&self) -> StoreLimits {
        self.inner.limits()
    }
    fn retries(&self) -> Vec<(&'static str, u64)> {
        vec![("deadlock", u64::try_from(self.calls(Call::Claim)).unwrap())]
    }
    async fn reserve_ids(&self, count: u32) -> Result<IdBlock, StoreError> {
        self.inner.reserve_ids(count).await
    }
    async fn enqueue(&self, batch: Arc<[NewTask]>) -> Result<Vec<Enqueued>, StoreError> {
        self.inner.enqueue(batch).await
    }
    async fn open_session(&self, spec: SessionSpec) -> Result<Renewal, StoreError> {
        self.call(Call::Open, self.inner.open_session(spec)).await
    }
    async fn renew_session(&self, session: SessionId, lease: Duration) -> Result<Renewal, StoreError> {
        self.call(Call::Renew, self.inner.renew_session(session, lease)).await
    }
    async fn close_session(&self, session: SessionId) -> Result<(), StoreError> {
        self.call(Call::Close, self.inner.close_session(session)).await
    }
    async fn claim(&self, request: ClaimRequest) -> Result<ClaimReply, StoreError> {
        self.call(Call::Claim, self.inner.claim(request)).await
    }
    async fn resolve_claim(&self, session: SessionId, claim: ClaimId) -> Result<Resolved, StoreError> {
        self.call(Call::Resolve, self.inner.resolve_claim(session, claim)).await
    }
    async fn settle(&self, batch: Arc<[Settle]>) -> Result<Vec<Settled>, StoreError> {
        if batch.iter().any(|item| Some(item.task) == self.refuses) {
            return Err(StoreError::corrupt(self.refuses, "as the test wants it"));
        }
        self.call(Call::Settle, self.inner.settle(batch)).await
    }
    async fn progress(&self, batch: Vec<ProgressUpdate>) -> Result<(), StoreError> {
        self.call(Call::Progress, self.inner.progress(batch)).await
    }
    async fn time(&self) -> Result<StoreTime, StoreError> {
        self.call(Call::Time, self.inner.time()).await
    }
    async fn fence_expired(&self, limit: usize) -> Result<Vec<FencedSession>, StoreError> {
        self.inner.fence_expired(limit).await
    }
    async fn lost(&self, limit: usize) -> Result<Lost, StoreError> {
        self.call(Call::Lost, self.inner.lost(limit)).await
    }
    async fn expire(&self, limit: usize) -> Result<Swept, StoreError> {
        self.inner.expire(limit).await
    }
    async fn is_busy(&self, scope: Scope) -> Result<bool, StoreError> {
        self.call(Call::Busy, self.inner.is_busy(scope)).await
    }
}

#[async_trait]
impl TaskAdmin for FaultyStore {
    async fn get(&self, task: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        self.inner.get(task).await
    }
    async fn attempts(&self, task: TaskId) -> Result<Vec<AttemptRecord>, StoreError> {
        self.inner.attempts(task).await
    }
    async fn list(&self, filter: Filter, page: Page) -> Result<Vec<TaskRecord>, StoreError> {
        self.inner.list(filter, page).await
    }
    async fn stats(&self) -> Result<Stats, StoreError> {
        self.inner.stats().await
    }
    async fn act(&self, selection: Selection, action: Action, actor: &str) -> Result<Vec<(TaskId, Acted)>, StoreError> {
        self.inner.act(selection, action, actor).await
    }
    async fn set_paused(&self, queue: QueueName, pause: Option<Pause>, actor: &str) -> Result<(), StoreError> {
        self.inner.set_paused(queue, pause, actor).await
    }
    async fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        self.inner.sessions().await
    }
    async fn request_drain(&self, session: SessionId, actor: &str) -> Result<bool, StoreError> {
        self.inner.request_drain(session, actor).await
    }
    async fn prune(&self, status: Option<Status>, older_than: Duration, limit: usize) -> Result<u64, StoreError> {
        self.inner.prune(status, older_than, limit).await
    }
}

#[async_trait]
impl Migrate for FaultyStore {
    async fn migrate(&self) -> Result<Vec<u32>, StoreError> {
        self.inner.migrate().await
    }
    async fn schema(&self) -> Result<SchemaStatus, StoreError> {
        let found = self.call(Call::Schema, self.inner.schema()).await;
        match found {
            Err(StoreError::Other { .. }) => Ok(SchemaStatus { found: None, supported: 1, min_compatible: None }),
            found => found,
        }
    }
}

/// A transaction of the handler's own, of which only the end matters here.
#[async_trait]
impl Transactional for FaultyStore {
    type Conn = ();

    async fn prepare(&self, _: &[NewTask]) -> Result<(), StoreError> {
        Ok(())
    }
    async fn enqueue_in(&self, (): &mut (), batch: &[NewTask]) -> Result<Vec<Enqueued>, StoreError> {
        self.inner.enqueue(batch.into()).await
    }
    async fn complete_in(
        &self,
        (): &mut (),
        task: TaskId,
        claim: ClaimId,
        result: TaskResult,
    ) -> Result<Settled, StoreError> {
        if !self.commits {
            return Ok(Settled::Applied);
        }
        let complete = queue_core::Settlement::Complete { result };
        let answers = self.inner.settle([Settle::by_holder(task, claim, complete)].into()).await?;
        Ok(answers[0])
    }
}

/// A process: all that it runs dies with it.
#[derive(Debug, Default)]
pub(crate) struct Process {
    running: Mutex<Vec<AbortHandle>>,
}

impl Process {
    /// As SIGKILL does it.
    pub(crate) fn kill(&self) {
        for one in self.running.lock().unwrap().drain(..) {
            one.abort();
        }
    }
}

impl Spawn for Process {
    fn spawn(&self, _: &'static str, future: Detached) {
        self.running.lock().unwrap().push(tokio::spawn(future).abort_handle());
    }

    fn spawn_apart(&self, name: &'static str, future: Detached) -> io::Result<()> {
        self.spawn(name, future);
        Ok(())
    }
}
