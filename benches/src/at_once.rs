//! A store that answers at once, so that what is measured over it is the client or the pool, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use queue_core::admin::{Acted, Action, Filter, Page, Pause, Selection, Stats};
use queue_core::claim::Resolved;
use queue_core::ids::IdBlock;
use queue_core::progress::ProgressUpdate;
use queue_core::reap::{FencedSession, Lost, StoreTime, Swept};
use queue_core::session::{Renewal, SessionRecord, SessionSpec, Signals};
use queue_core::store::{Migrate, SchemaStatus};
use queue_core::{
    AttemptRecord, Backoff, ClaimId, ClaimReply, ClaimRequest, Claimed, ClaimedTask, Enqueued, Fence, NewTask, Payload,
    Priority, QueueName, Scope, SessionId, Settle, Settled, Status, StoreError, StoreLimits, TaskAdmin, TaskId,
    TaskRecord, TaskStore, TaskType, Timestamp,
};

/// The type of the tasks that it gives away.
pub const TYPE: TaskType = TaskType::new("at.once");

/// Holds so many tasks and gives them away at once; takes any number of new ones and keeps none.
#[derive(Debug)]
pub struct AtOnce {
    tasks: u64,
    payload: Payload,
    next: AtomicU64,
    ids: AtomicU64,
}

impl AtOnce {
    /// A store of so many tasks, each with this payload.
    #[must_use]
    pub const fn new(tasks: u64, payload: Payload) -> Self {
        Self { tasks, payload, next: AtomicU64::new(0), ids: AtomicU64::new(0) }
    }
}

fn unused<T>() -> Result<T, StoreError> {
    Err(StoreError::other("nobody asks for this here"))
}

#[async_trait]
impl TaskStore for AtOnce {
    fn limits(&self) -> StoreLimits {
        StoreLimits::DEFAULT
    }
    async fn reserve_ids(&self, count: u32) -> Result<IdBlock, StoreError> {
        let first = self.ids.fetch_add(count.into(), Ordering::Relaxed) + 1;
        TaskId::new(first)
            .map(|first| IdBlock::new(first, count.into()))
            .ok_or_else(|| StoreError::other("no ids left"))
    }
    async fn enqueue(&self, batch: Arc<[NewTask]>) -> Result<Vec<Enqueued>, StoreError> {
        Ok(batch.iter().map(|task| Enqueued::Created(task.id)).collect())
    }
    async fn open_session(&self, _: SessionSpec) -> Result<Renewal, StoreError> {
        Ok(Renewal::Renewed(Signals::default()))
    }
    async fn renew_session(&self, _: SessionId, _: Duration) -> Result<Renewal, StoreError> {
        Ok(Renewal::Renewed(Signals::default()))
    }
    async fn close_session(&self, _: SessionId) -> Result<(), StoreError> {
        Ok(())
    }
    async fn claim(&self, request: ClaimRequest) -> Result<ClaimReply, StoreError> {
        let wanted = request.capacity.tasks as u64;
        let first = self.next.fetch_add(wanted, Ordering::Relaxed).min(self.tasks);
        let last = first.saturating_add(wanted).min(self.tasks);
        let now = Timestamp::EPOCH;
        let tasks = (first..last).filter_map(|number| TaskId::new(number + 1)).map(|id| ClaimedTask {
            id,
            claim: request.claim,
            task_type: TYPE,
            queue: QueueName::DEFAULT,
            priority: Priority::NORMAL,
            attempt: 1,
            max_attempts: 3,
            backoff: Backoff::DEFAULT,
            fence: Fence::new(1),
            losses: 0,
            created_at: now,
            run_at: now,
            started_at: now,
            deadline_at: None,
            payload: self.payload.clone(),
        });
        let next_due = (last < self.tasks).then_some(now);
        Ok(ClaimReply::Claimed(Claimed { now, tasks: tasks.collect(), ended: Vec::new(), next_due }))
    }
    async fn resolve_claim(&self, _: SessionId, _: ClaimId) -> Result<Resolved, StoreError> {
        Ok(Resolved::Void)
    }
    async fn settle(&self, batch: Arc<[Settle]>) -> Result<Vec<Settled>, StoreError> {
        Ok(vec![Settled::Applied; batch.len()])
    }
    async fn progress(&self, _: Vec<ProgressUpdate>) -> Result<(), StoreError> {
        Ok(())
    }
    async fn time(&self) -> Result<StoreTime, StoreError> {
        unused()
    }
    async fn fence_expired(&self, _: usize) -> Result<Vec<FencedSession>, StoreError> {
        Ok(Vec::new())
    }
    async fn lost(&self, _: usize) -> Result<Lost, StoreError> {
        Ok(Lost { now: Timestamp::EPOCH, tasks: Vec::new() })
    }
    async fn expire(&self, _: usize) -> Result<Swept, StoreError> {
        unused()
    }
    async fn is_busy(&self, _: Scope) -> Result<bool, StoreError> {
        Ok(self.next.load(Ordering::Relaxed) < self.tasks)
    }
}

#[async_trait]
impl TaskAdmin for AtOnce {
    async fn get(&self, _: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        unused()
    }
    async fn attempts(&self, _: TaskId) -> Result<Vec<AttemptRecord>, StoreError> {
        unused()
    }
    async fn list(&self, _: Filter, _: Page) -> Result<Vec<TaskRecord>, StoreError> {
        unused()
    }
    async fn stats(&self) -> Result<Stats, StoreError> {
        unused()
    }
    async fn act(&self, _: Selection, _: Action, _: &str) -> Result<Vec<(TaskId, Acted)>, StoreError> {
        unused()
    }
    async fn set_paused(&self, _: QueueName, _: Option<Pause>, _: &str) -> Result<(), StoreError> {
        unused()
    }
    async fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        unused()
    }
    async fn request_drain(&self, _: SessionId, _: &str) -> Result<bool, StoreError> {
        unused()
    }
    async fn prune(&self, _: Option<Status>, _: Duration, _: usize) -> Result<u64, StoreError> {
        unused()
    }
}

#[async_trait]
impl Migrate for AtOnce {
    async fn migrate(&self) -> Result<Vec<u32>, StoreError> {
        Ok(Vec::new())
    }
    async fn schema(&self) -> Result<SchemaStatus, StoreError> {
        Ok(SchemaStatus { found: Some(1), supported: 1, min_compatible: Some(1) })
    }
}
