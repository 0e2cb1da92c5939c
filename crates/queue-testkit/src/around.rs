//! A store around another one: it does something of its own in some calls, and passes on all others.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use queue_core::admin::{Acted, Action, Filter, Page, Pause, Selection, Stats};
use queue_core::claim::Resolved;
use queue_core::ids::IdBlock;
use queue_core::progress::ProgressUpdate;
use queue_core::reap::{FencedSession, Lost, StoreTime, Swept};
use queue_core::session::{Renewal, SessionRecord, SessionSpec};
use queue_core::store::{SchemaStatus, Trip};
use queue_core::{
    AttemptRecord, ClaimId, ClaimReply, ClaimRequest, Enqueued, Migrate, NewTask, QueueName, Scope, SessionId, Settle,
    Settled, Status, Store, StoreError, StoreLimits, TaskAdmin, TaskId, TaskRecord, TaskStore, WakeChannel,
};

/// What stands around a store: the calls of its ports, each passed on unless it is written anew. [`Wrapped`] makes a store of it.
///
/// ```
/// use async_trait::async_trait;
/// use queue_core::{Migrate as _, Scope, Store, StoreError, TaskStore as _};
/// use queue_testkit::around::{Around, Wrapped};
/// use queue_testkit::MemoryStore;
///
/// #[derive(Debug)]
/// struct NeverBusy(MemoryStore);
///
/// #[async_trait]
/// impl Around for NeverBusy {
///     fn inner(&self) -> &dyn Store {
///         &self.0
///     }
///
///     async fn is_busy(&self, _: Scope) -> Result<bool, StoreError> {
///         Ok(false)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let store = Wrapped(NeverBusy(MemoryStore::new()));
/// assert!(store.schema().await.unwrap().found.is_some());
/// assert!(!store.is_busy(Scope::of([])).await.unwrap());
/// # }
/// ```
#[async_trait]
#[expect(missing_docs, reason = "each is the call of the same name of `TaskStore`, `TaskAdmin` or `Migrate`")]
pub trait Around: Send + Sync + Debug {
    /// The store that is passed on to.
    fn inner(&self) -> &dyn Store;

    fn limits(&self) -> StoreLimits {
        self.inner().limits()
    }

    fn retries(&self) -> Vec<(&'static str, u64)> {
        self.inner().retries()
    }

    fn wake_channel(&self) -> Option<Arc<dyn WakeChannel>> {
        self.inner().wake_channel()
    }

    async fn reserve_ids(&self, count: u32) -> Result<IdBlock, StoreError> {
        self.inner().reserve_ids(count).await
    }

    async fn enqueue(&self, batch: Arc<[NewTask]>) -> Result<Vec<Enqueued>, StoreError> {
        self.inner().enqueue(batch).await
    }

    async fn open_session(&self, spec: SessionSpec) -> Result<Renewal, StoreError> {
        self.inner().open_session(spec).await
    }

    async fn renew_session(&self, session: SessionId, lease: Duration) -> Result<Renewal, StoreError> {
        self.inner().renew_session(session, lease).await
    }

    async fn close_session(&self, session: SessionId) -> Result<(), StoreError> {
        self.inner().close_session(session).await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<ClaimReply, StoreError> {
        self.inner().claim(request).await
    }

    async fn resolve_claim(&self, session: SessionId, claim: ClaimId) -> Result<Resolved, StoreError> {
        self.inner().resolve_claim(session, claim).await
    }

    async fn settle(&self, batch: Arc<[Settle]>) -> Result<Vec<Settled>, StoreError> {
        self.inner().settle(batch).await
    }

    /// One after the other, each as it is written here.
    async fn settle_and_claim(&self, batch: Arc<[Settle]>, request: ClaimRequest) -> Trip {
        let settled = self.settle(batch).await;
        let claim = self.claim(request).await;
        Trip { settled, claim }
    }

    async fn progress(&self, batch: Vec<ProgressUpdate>) -> Result<(), StoreError> {
        self.inner().progress(batch).await
    }

    async fn time(&self) -> Result<StoreTime, StoreError> {
        self.inner().time().await
    }

    async fn fence_expired(&self, limit: usize) -> Result<Vec<FencedSession>, StoreError> {
        self.inner().fence_expired(limit).await
    }

    async fn lost(&self, limit: usize) -> Result<Lost, StoreError> {
        self.inner().lost(limit).await
    }

    async fn expire(&self, limit: usize) -> Result<Swept, StoreError> {
        self.inner().expire(limit).await
    }

    async fn is_busy(&self, scope: Scope) -> Result<bool, StoreError> {
        self.inner().is_busy(scope).await
    }

    async fn get(&self, task: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        self.inner().get(task).await
    }

    async fn attempts(&self, task: TaskId) -> Result<Vec<AttemptRecord>, StoreError> {
        self.inner().attempts(task).await
    }

    async fn list(&self, filter: Filter, page: Page) -> Result<Vec<TaskRecord>, StoreError> {
        self.inner().list(filter, page).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.inner().stats().await
    }

    async fn act(&self, selection: Selection, action: Action, actor: &str) -> Result<Vec<(TaskId, Acted)>, StoreError> {
        self.inner().act(selection, action, actor).await
    }

    async fn set_paused(&self, queue: QueueName, pause: Option<Pause>, actor: &str) -> Result<(), StoreError> {
        self.inner().set_paused(queue, pause, actor).await
    }

    async fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        self.inner().sessions().await
    }

    async fn request_drain(&self, session: SessionId, actor: &str) -> Result<bool, StoreError> {
        self.inner().request_drain(session, actor).await
    }

    async fn prune(&self, status: Option<Status>, older_than: Duration, limit: usize) -> Result<u64, StoreError> {
        self.inner().prune(status, older_than, limit).await
    }

    async fn migrate(&self) -> Result<Vec<u32>, StoreError> {
        self.inner().migrate().await
    }

    async fn schema(&self) -> Result<SchemaStatus, StoreError> {
        self.inner().schema().await
    }
}

/// The store that [`Around`] describes.
#[derive(Clone, Debug)]
pub struct Wrapped<A>(pub A);

#[async_trait]
impl<A: Around> TaskStore for Wrapped<A> {
    fn limits(&self) -> StoreLimits {
        self.0.limits()
    }

    fn retries(&self) -> Vec<(&'static str, u64)> {
        self.0.retries()
    }

    fn wake_channel(&self) -> Option<Arc<dyn WakeChannel>> {
        self.0.wake_channel()
    }

    async fn reserve_ids(&self, count: u32) -> Result<IdBlock, StoreError> {
        self.0.reserve_ids(count).await
    }

    async fn enqueue(&self, batch: Arc<[NewTask]>) -> Result<Vec<Enqueued>, StoreError> {
        self.0.enqueue(batch).await
    }

    async fn open_session(&self, spec: SessionSpec) -> Result<Renewal, StoreError> {
        self.0.open_session(spec).await
    }

    async fn renew_session(&self, session: SessionId, lease: Duration) -> Result<Renewal, StoreError> {
        self.0.renew_session(session, lease).await
    }

    async fn close_session(&self, session: SessionId) -> Result<(), StoreError> {
        self.0.close_session(session).await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<ClaimReply, StoreError> {
        self.0.claim(request).await
    }

    async fn resolve_claim(&self, session: SessionId, claim: ClaimId) -> Result<Resolved, StoreError> {
        self.0.resolve_claim(session, claim).await
    }

    async fn settle(&self, batch: Arc<[Settle]>) -> Result<Vec<Settled>, StoreError> {
        self.0.settle(batch).await
    }

    async fn settle_and_claim(&self, batch: Arc<[Settle]>, request: ClaimRequest) -> Trip {
        self.0.settle_and_claim(batch, request).await
    }

    async fn progress(&self, batch: Vec<ProgressUpdate>) -> Result<(), StoreError> {
        self.0.progress(batch).await
    }

    async fn time(&self) -> Result<StoreTime, StoreError> {
        self.0.time().await
    }

    async fn fence_expired(&self, limit: usize) -> Result<Vec<FencedSession>, StoreError> {
        self.0.fence_expired(limit).await
    }

    async fn lost(&self, limit: usize) -> Result<Lost, StoreError> {
        self.0.lost(limit).await
    }

    async fn expire(&self, limit: usize) -> Result<Swept, StoreError> {
        self.0.expire(limit).await
    }

    async fn is_busy(&self, scope: Scope) -> Result<bool, StoreError> {
        self.0.is_busy(scope).await
    }
}

#[async_trait]
impl<A: Around> TaskAdmin for Wrapped<A> {
    async fn get(&self, task: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        self.0.get(task).await
    }

    async fn attempts(&self, task: TaskId) -> Result<Vec<AttemptRecord>, StoreError> {
        self.0.attempts(task).await
    }

    async fn list(&self, filter: Filter, page: Page) -> Result<Vec<TaskRecord>, StoreError> {
        self.0.list(filter, page).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.0.stats().await
    }

    async fn act(&self, selection: Selection, action: Action, actor: &str) -> Result<Vec<(TaskId, Acted)>, StoreError> {
        self.0.act(selection, action, actor).await
    }

    async fn set_paused(&self, queue: QueueName, pause: Option<Pause>, actor: &str) -> Result<(), StoreError> {
        self.0.set_paused(queue, pause, actor).await
    }

    async fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        self.0.sessions().await
    }

    async fn request_drain(&self, session: SessionId, actor: &str) -> Result<bool, StoreError> {
        self.0.request_drain(session, actor).await
    }

    async fn prune(&self, status: Option<Status>, older_than: Duration, limit: usize) -> Result<u64, StoreError> {
        self.0.prune(status, older_than, limit).await
    }
}

#[async_trait]
impl<A: Around> Migrate for Wrapped<A> {
    async fn migrate(&self) -> Result<Vec<u32>, StoreError> {
        self.0.migrate().await
    }

    async fn schema(&self) -> Result<SchemaStatus, StoreError> {
        self.0.schema().await
    }
}
