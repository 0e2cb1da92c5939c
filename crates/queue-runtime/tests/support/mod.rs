//! A store whose every answer a test decides.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mockall::mock;
use queue_core::admin::{Acted, Action, Filter, Page, Pause, Selection, Stats};
use queue_core::claim::{ClaimReply, ClaimRequest, Resolved, Scope};
use queue_core::ids::{IdBlock, SessionId};
use queue_core::progress::ProgressUpdate;
use queue_core::reap::{FencedSession, Lost, StoreTime, Swept};
use queue_core::session::{Renewal, SessionRecord, SessionSpec};
use queue_core::store::{Migrate, SchemaStatus};
use queue_core::{
    AttemptRecord, ClaimId, Enqueued, NewTask, QueueName, Settle, Settled, Status, StoreError, StoreLimits, TaskAdmin,
    TaskId, TaskRecord, TaskResult, TaskStore, Transactional,
};

/// What stands for a connection with a transaction on it: it notes what was written.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Conn(pub(crate) Vec<&'static str>);

mock! {
    #[derive(Debug)]
    pub(crate) Store {}

    #[async_trait]
    impl TaskStore for Store {
        fn limits(&self) -> StoreLimits;
        async fn reserve_ids(&self, count: u32) -> Result<IdBlock, StoreError>;
        async fn enqueue(&self, batch: Arc<[NewTask]>) -> Result<Vec<Enqueued>, StoreError>;
        async fn open_session(&self, spec: SessionSpec) -> Result<Renewal, StoreError>;
        async fn renew_session(&self, session: SessionId, lease: Duration) -> Result<Renewal, StoreError>;
        async fn close_session(&self, session: SessionId) -> Result<(), StoreError>;
        async fn claim(&self, request: ClaimRequest) -> Result<ClaimReply, StoreError>;
        async fn resolve_claim(&self, session: SessionId, claim: ClaimId) -> Result<Resolved, StoreError>;
        async fn settle(&self, batch: Arc<[Settle]>) -> Result<Vec<Settled>, StoreError>;
        async fn progress(&self, batch: Vec<ProgressUpdate>) -> Result<(), StoreError>;
        async fn time(&self) -> Result<StoreTime, StoreError>;
        async fn fence_expired(&self, limit: usize) -> Result<Vec<FencedSession>, StoreError>;
        async fn lost(&self, limit: usize) -> Result<Lost, StoreError>;
        async fn expire(&self, limit: usize) -> Result<Swept, StoreError>;
        async fn is_busy(&self, scope: Scope) -> Result<bool, StoreError>;
    }

    #[async_trait]
    impl TaskAdmin for Store {
        async fn get(&self, task: TaskId) -> Result<Option<TaskRecord>, StoreError>;
        async fn attempts(&self, task: TaskId) -> Result<Vec<AttemptRecord>, StoreError>;
        async fn list(&self, filter: Filter, page: Page) -> Result<Vec<TaskRecord>, StoreError>;
        async fn stats(&self) -> Result<Stats, StoreError>;
        async fn act(&self, selection: Selection, action: Action, actor: &str) -> Result<Vec<(TaskId, Acted)>, StoreError>;
        async fn set_paused(&self, queue: QueueName, pause: Option<Pause>, actor: &str) -> Result<(), StoreError>;
        async fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError>;
        async fn request_drain(&self, session: SessionId, actor: &str) -> Result<bool, StoreError>;
        async fn prune(&self, status: Option<Status>, older_than: Duration, limit: usize) -> Result<u64, StoreError>;
    }

    #[async_trait]
    impl Migrate for Store {
        async fn migrate(&self) -> Result<Vec<u32>, StoreError>;
        async fn schema(&self) -> Result<SchemaStatus, StoreError>;
    }

    #[async_trait]
    impl Transactional for Store {
        type Conn = Conn;
        async fn prepare(&self, batch: &[NewTask]) -> Result<(), StoreError>;
        async fn enqueue_in(&self, conn: &mut Conn, batch: &[NewTask]) -> Result<Vec<Enqueued>, StoreError>;
        async fn complete_in(
            &self,
            conn: &mut Conn,
            task: TaskId,
            claim: ClaimId,
            result: TaskResult,
        ) -> Result<Settled, StoreError>;
    }
}

/// A store with the default limits that hands out ids from 1 on.
pub(crate) fn store() -> MockStore {
    with_limits(StoreLimits::DEFAULT)
}

/// A store with these limits that hands out ids from 1 on.
pub(crate) fn with_limits(limits: StoreLimits) -> MockStore {
    let mut store = MockStore::new();
    store.expect_limits().return_const(limits);
    let mut first = 1;
    store.expect_reserve_ids().returning(move |count| {
        let block = IdBlock::new(TaskId::new(first).unwrap(), count.into());
        first += u64::from(count);
        Ok(block)
    });
    store
}

/// Every task was written.
pub(crate) fn created(batch: &[NewTask]) -> Vec<Enqueued> {
    batch.iter().map(|task| Enqueued::Created(task.id)).collect()
}
