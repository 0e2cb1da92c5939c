//! The ports, each call passed on by [`FaultyStore::pass`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use queue_core::admin::{Acted, Action, Filter, Page, Pause, Selection, Stats};
use queue_core::claim::Resolved;
use queue_core::ids::IdBlock;
use queue_core::progress::ProgressUpdate;
use queue_core::reap::{FencedSession, Lost, StoreTime, Swept};
use queue_core::session::{Renewal, SessionRecord, SessionSpec};
use queue_core::store::SchemaStatus;
use queue_core::{
    AttemptRecord, ClaimId, ClaimReply, ClaimRequest, Enqueued, Migrate, NewTask, QueueName, Scope, SessionId, Settle,
    Settled, Status, Store, StoreError, StoreLimits, TaskAdmin, TaskId, TaskRecord, TaskStore,
};

use super::{Call, FaultyStore};

/// Settling and claiming in one trip is two calls here, each with a fault of its own.
#[async_trait]
impl<S: Store + ?Sized + 'static> TaskStore for FaultyStore<S> {
    fn limits(&self) -> StoreLimits {
        self.inner.limits()
    }

    fn retries(&self) -> Vec<(&'static str, u64)> {
        let mut retries = self.inner.retries();
        retries.extend(self.faults.retries());
        retries
    }

    async fn reserve_ids(&self, count: u32) -> Result<IdBlock, StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::ReserveIds, async move { inner.reserve_ids(count).await }).await
    }

    async fn enqueue(&self, batch: Arc<[NewTask]>) -> Result<Vec<Enqueued>, StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::Enqueue, async move { inner.enqueue(batch).await }).await
    }

    async fn open_session(&self, spec: SessionSpec) -> Result<Renewal, StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::OpenSession, async move { inner.open_session(spec).await }).await
    }

    async fn renew_session(&self, session: SessionId, lease: Duration) -> Result<Renewal, StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::RenewSession, async move { inner.renew_session(session, lease).await }).await
    }

    async fn close_session(&self, session: SessionId) -> Result<(), StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::CloseSession, async move { inner.close_session(session).await }).await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<ClaimReply, StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::Claim, async move { inner.claim(request).await }).await
    }

    async fn resolve_claim(&self, session: SessionId, claim: ClaimId) -> Result<Resolved, StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::ResolveClaim, async move { inner.resolve_claim(session, claim).await }).await
    }

    async fn settle(&self, batch: Arc<[Settle]>) -> Result<Vec<Settled>, StoreError> {
        if let Some(item) = batch.iter().find(|item| self.faults.is_corrupt(item.task)) {
            return Err(StoreError::corrupt(Some(item.task), "a fault was injected into its rows"));
        }
        let inner = self.inner.clone();
        self.pass(Call::Settle, async move { inner.settle(batch).await }).await
    }

    async fn progress(&self, batch: Vec<ProgressUpdate>) -> Result<(), StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::Progress, async move { inner.progress(batch).await }).await
    }

    async fn time(&self) -> Result<StoreTime, StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::Time, async move { inner.time().await }).await
    }

    async fn fence_expired(&self, limit: usize) -> Result<Vec<FencedSession>, StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::FenceExpired, async move { inner.fence_expired(limit).await }).await
    }

    async fn lost(&self, limit: usize) -> Result<Lost, StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::Lost, async move { inner.lost(limit).await }).await
    }

    async fn expire(&self, limit: usize) -> Result<Swept, StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::Expire, async move { inner.expire(limit).await }).await
    }

    async fn is_busy(&self, scope: Scope) -> Result<bool, StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::IsBusy, async move { inner.is_busy(scope).await }).await
    }
}

#[async_trait]
impl<S: Store + ?Sized + 'static> TaskAdmin for FaultyStore<S> {
    async fn get(&self, task: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::Get, async move { inner.get(task).await }).await
    }

    async fn attempts(&self, task: TaskId) -> Result<Vec<AttemptRecord>, StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::Attempts, async move { inner.attempts(task).await }).await
    }

    async fn list(&self, filter: Filter, page: Page) -> Result<Vec<TaskRecord>, StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::List, async move { inner.list(filter, page).await }).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::Stats, async move { inner.stats().await }).await
    }

    async fn act(&self, selection: Selection, action: Action, actor: &str) -> Result<Vec<(TaskId, Acted)>, StoreError> {
        let (inner, actor) = (self.inner.clone(), actor.to_owned());
        self.pass(Call::Act, async move { inner.act(selection, action, &actor).await }).await
    }

    async fn set_paused(&self, queue: QueueName, pause: Option<Pause>, actor: &str) -> Result<(), StoreError> {
        let (inner, actor) = (self.inner.clone(), actor.to_owned());
        self.pass(Call::SetPaused, async move { inner.set_paused(queue, pause, &actor).await }).await
    }

    async fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::Sessions, async move { inner.sessions().await }).await
    }

    async fn request_drain(&self, session: SessionId, actor: &str) -> Result<bool, StoreError> {
        let (inner, actor) = (self.inner.clone(), actor.to_owned());
        self.pass(Call::RequestDrain, async move { inner.request_drain(session, &actor).await }).await
    }

    async fn prune(&self, status: Option<Status>, older_than: Duration, limit: usize) -> Result<u64, StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::Prune, async move { inner.prune(status, older_than, limit).await }).await
    }
}

#[async_trait]
impl<S: Store + ?Sized + 'static> Migrate for FaultyStore<S> {
    async fn migrate(&self) -> Result<Vec<u32>, StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::Migrate, async move { inner.migrate().await }).await
    }

    async fn schema(&self) -> Result<SchemaStatus, StoreError> {
        let inner = self.inner.clone();
        self.pass(Call::Schema, async move { inner.schema().await }).await
    }
}
