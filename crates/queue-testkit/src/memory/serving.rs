//! The ports, each call one turn of the lock.

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
    Settled, Status, StoreError, StoreLimits, TaskAdmin, TaskId, TaskRecord, TaskStore,
};

use super::MemoryStore;

const SCHEMA: u32 = 1;

#[async_trait]
impl TaskStore for MemoryStore {
    fn limits(&self) -> StoreLimits {
        self.limits
    }

    async fn reserve_ids(&self, count: u32) -> Result<IdBlock, StoreError> {
        self.lock().reserve(count)
    }

    async fn enqueue(&self, batch: Arc<[NewTask]>) -> Result<Vec<Enqueued>, StoreError> {
        self.limits.check_enqueue(&batch)?;
        let mut database = self.lock();
        database.enqueue(&batch, self.clock.now())
    }

    async fn open_session(&self, spec: SessionSpec) -> Result<Renewal, StoreError> {
        let mut database = self.lock();
        Ok(database.open_session(spec, self.clock.now()))
    }

    async fn renew_session(&self, session: SessionId, lease: Duration) -> Result<Renewal, StoreError> {
        let mut database = self.lock();
        Ok(database.renew_session(session, lease, self.clock.now()))
    }

    async fn close_session(&self, session: SessionId) -> Result<(), StoreError> {
        let mut database = self.lock();
        database.close_session(session, self.clock.now());
        Ok(())
    }

    async fn claim(&self, request: ClaimRequest) -> Result<ClaimReply, StoreError> {
        let mut database = self.lock();
        database.claim(&request, self.limits.batch_max, self.clock.now())
    }

    async fn resolve_claim(&self, session: SessionId, claim: ClaimId) -> Result<Resolved, StoreError> {
        let mut database = self.lock();
        Ok(database.resolve_claim(session, claim, self.clock.now()))
    }

    async fn settle(&self, batch: Arc<[Settle]>) -> Result<Vec<Settled>, StoreError> {
        let mut database = self.lock();
        database.settle(&batch, &self.limits, self.clock.now())
    }

    async fn progress(&self, batch: Vec<ProgressUpdate>) -> Result<(), StoreError> {
        self.lock().progress(batch);
        Ok(())
    }

    async fn time(&self) -> Result<StoreTime, StoreError> {
        let database = self.lock();
        Ok(StoreTime { now: self.clock.now(), server: database.server.clone() })
    }

    async fn fence_expired(&self, limit: usize) -> Result<Vec<FencedSession>, StoreError> {
        let mut database = self.lock();
        Ok(database.fence_expired(limit, self.clock.now()))
    }

    async fn lost(&self, limit: usize) -> Result<Lost, StoreError> {
        let mut database = self.lock();
        Ok(database.lost(limit, self.clock.now()))
    }

    async fn expire(&self, limit: usize) -> Result<Swept, StoreError> {
        let mut database = self.lock();
        database.expire(limit, self.clock.now())
    }

    async fn is_busy(&self, scope: Scope) -> Result<bool, StoreError> {
        let database = self.lock();
        Ok(database.is_busy(&scope, self.clock.now()))
    }
}

#[async_trait]
impl TaskAdmin for MemoryStore {
    async fn get(&self, task: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        Ok(self.lock().get(task))
    }

    async fn attempts(&self, task: TaskId) -> Result<Vec<AttemptRecord>, StoreError> {
        Ok(self.lock().attempts(task))
    }

    async fn list(&self, filter: Filter, page: Page) -> Result<Vec<TaskRecord>, StoreError> {
        Ok(self.lock().list(&filter, page))
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let database = self.lock();
        Ok(database.stats(self.clock.now()))
    }

    async fn act(&self, selection: Selection, action: Action, actor: &str) -> Result<Vec<(TaskId, Acted)>, StoreError> {
        let mut database = self.lock();
        database.act(selection, action, actor, self.clock.now())
    }

    async fn set_paused(&self, queue: QueueName, pause: Option<Pause>, actor: &str) -> Result<(), StoreError> {
        let mut database = self.lock();
        database.set_paused(queue, pause, actor, self.clock.now());
        Ok(())
    }

    async fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        Ok(self.lock().sessions())
    }

    async fn request_drain(&self, session: SessionId, actor: &str) -> Result<bool, StoreError> {
        let mut database = self.lock();
        Ok(database.request_drain(session, actor, self.clock.now()))
    }

    async fn prune(&self, status: Option<Status>, older_than: Duration, limit: usize) -> Result<u64, StoreError> {
        let mut database = self.lock();
        Ok(database.prune(status, older_than, limit, self.clock.now()))
    }
}

/// There is no schema but the one that this library makes.
#[async_trait]
impl Migrate for MemoryStore {
    async fn migrate(&self) -> Result<Vec<u32>, StoreError> {
        let was_migrated = std::mem::replace(&mut self.lock().migrated, true);
        Ok(if was_migrated { Vec::new() } else { vec![SCHEMA] })
    }

    async fn schema(&self) -> Result<SchemaStatus, StoreError> {
        let found = self.lock().migrated.then_some(SCHEMA);
        Ok(SchemaStatus { found, supported: SCHEMA, min_compatible: found })
    }
}
