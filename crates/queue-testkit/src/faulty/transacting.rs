//! The user's own transaction, in which nothing goes wrong that the user does not do.

use async_trait::async_trait;
use queue_core::{ClaimId, Enqueued, NewTask, Settled, Store, StoreError, TaskId, TaskResult, Transactional};

use super::FaultyStore;

#[async_trait]
impl<S: Store + Transactional + 'static> Transactional for FaultyStore<S> {
    type Conn = S::Conn;

    async fn prepare(&self, batch: &[NewTask]) -> Result<(), StoreError> {
        self.inner.prepare(batch).await
    }

    async fn enqueue_in(&self, conn: &mut S::Conn, batch: &[NewTask]) -> Result<Vec<Enqueued>, StoreError> {
        self.inner.enqueue_in(conn, batch).await
    }

    async fn complete_in(
        &self,
        conn: &mut S::Conn,
        task: TaskId,
        claim: ClaimId,
        result: TaskResult,
    ) -> Result<Settled, StoreError> {
        self.inner.complete_in(conn, task, claim, result).await
    }
}
