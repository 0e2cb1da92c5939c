//! The operators' port.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use queue_core::admin::{Acted, Action, Filter, Page, Pause, Selection, Stats};
use queue_core::session::SessionRecord;
use queue_core::{AttemptRecord, QueueName, SessionId, Status, StoreError, TaskAdmin, TaskId, TaskRecord};

use crate::acting::{self, Entry, Pruning};
use crate::store::SqliteStore;
use crate::{looking, stats};

/// Tasks that one transaction of an operator changes or removes: small, so that workers get their turn in between.
const BATCH_MAX: usize = 250;

#[async_trait]
impl TaskAdmin for SqliteStore {
    async fn get(&self, task: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        self.read(move |work| looking::get(work, task)).await
    }

    async fn attempts(&self, task: TaskId) -> Result<Vec<AttemptRecord>, StoreError> {
        self.read(move |work| looking::attempts(work, task)).await
    }

    async fn list(&self, filter: Filter, page: Page) -> Result<Vec<TaskRecord>, StoreError> {
        self.read(move |work| looking::list(work, &filter, page)).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.read(stats::stats).await
    }

    async fn act(&self, selection: Selection, action: Action, actor: &str) -> Result<Vec<(TaskId, Acted)>, StoreError> {
        let ids = selection.ids(self, BATCH_MAX).await?;
        let mut entry = Entry { action, actor: actor.to_owned(), id: None };
        let mut acted = Vec::with_capacity(ids.len());
        let mut rest = ids.as_slice();
        // Once at least, so that an action on nothing is written down as well.
        while entry.id.is_none() || !rest.is_empty() {
            let (batch, left) = rest.split_at(rest.len().min(BATCH_MAX));
            rest = left;
            let (batch, this) = (Arc::<[TaskId]>::from(batch), entry.clone());
            let (done, audit) = self.write(batch.len().max(1), move |work| acting::act(work, &batch, &this)).await?;
            acted.extend(done);
            entry.id = Some(audit);
        }
        Ok(acted)
    }

    async fn set_paused(&self, queue: QueueName, pause: Option<Pause>, actor: &str) -> Result<(), StoreError> {
        let actor = actor.to_owned();
        self.write(1, move |work| acting::set_paused(work, &queue, pause.as_ref(), &actor)).await
    }

    async fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        self.read(|work| stats::sessions(work)).await
    }

    async fn request_drain(&self, session: SessionId, actor: &str) -> Result<bool, StoreError> {
        let actor = actor.to_owned();
        self.write(1, move |work| acting::request_drain(work, session, &actor)).await
    }

    async fn prune(&self, status: Option<Status>, older_than: Duration, limit: usize) -> Result<u64, StoreError> {
        let pruning = Pruning { status, older_than };
        if !self.read(move |work| pruning.has_work(work)).await? {
            return Ok(0);
        }
        let mut pruned = 0;
        loop {
            let room = (limit - pruned).min(BATCH_MAX);
            let batch = self.write(room.max(1), move |work| pruning.batch(work, room)).await?;
            pruned += batch;
            if batch < room || pruned >= limit {
                return Ok(pruned as u64);
            }
        }
    }
}
