//! What operators need: looking, acting, pausing, pruning.

mod acting;
mod lists;
mod looking;
mod pruning;
mod stats;

pub(crate) use self::pruning::Pruned;
pub(crate) use self::stats::clock;

use std::time::Duration;

use async_trait::async_trait;
use queue_core::admin::{Acted, Action, Filter, Page, Pause, Selection, Stats};
use queue_core::session::SessionRecord;
use queue_core::{AttemptRecord, QueueName, SessionId, Status, StoreError, TaskAdmin, TaskId, TaskRecord};

use crate::store::MySqlStore;

/// Tasks that one transaction of an operator changes or removes: few, so that workers get their turn in between.
const BATCH_MAX: usize = 250;

#[async_trait]
impl TaskAdmin for MySqlStore {
    async fn get(&self, task: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        self.perform(looking::Get { task }).await
    }

    async fn attempts(&self, task: TaskId) -> Result<Vec<AttemptRecord>, StoreError> {
        self.perform(looking::Attempts { task }).await
    }

    async fn list(&self, filter: Filter, page: Page) -> Result<Vec<TaskRecord>, StoreError> {
        self.perform(lists::List { filter, page }).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.perform(stats::TakeStats).await
    }

    async fn act(&self, selection: Selection, action: Action, actor: &str) -> Result<Vec<(TaskId, Acted)>, StoreError> {
        let ids = selection.ids(self, BATCH_MAX).await?;
        let mut audit = None;
        let mut acted = Vec::with_capacity(ids.len());
        let mut rest = ids.as_slice();
        // Once at least, so that an action on nothing is written down as well.
        while audit.is_none() || !rest.is_empty() {
            let (batch, left) = rest.split_at(rest.len().min(BATCH_MAX));
            rest = left;
            let act = acting::Act { ids: batch.to_vec(), action, actor: actor.to_owned(), audit };
            let (done, entry) = self.perform(act).await?;
            acted.extend(done);
            audit = Some(entry);
        }
        Ok(acted)
    }

    async fn set_paused(&self, queue: QueueName, pause: Option<Pause>, actor: &str) -> Result<(), StoreError> {
        self.perform(acting::SetPaused { queue, pause, actor: actor.to_owned() }).await
    }

    async fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        self.perform(stats::ListSessions).await
    }

    async fn request_drain(&self, session: SessionId, actor: &str) -> Result<bool, StoreError> {
        self.perform(acting::RequestDrain { session, actor: actor.to_owned() }).await
    }

    async fn prune(&self, status: Option<Status>, older_than: Duration, limit: usize) -> Result<u64, StoreError> {
        let mut pruned = 0;
        loop {
            let room = (limit - pruned).min(pruning::PRUNED_MAX);
            let batch = self.perform(pruning::Prune { status, older_than, limit: room }).await?;
            pruned += batch;
            if batch < room || pruned >= limit {
                return Ok(pruned as u64);
            }
        }
    }
}
