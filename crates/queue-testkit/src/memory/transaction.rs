//! A user's own transaction over the store in memory, so that what enqueues or completes within one can be tested.

use std::fmt;

use async_trait::async_trait;
use queue_core::{
    ClaimId, Enqueued, NewTask, Settle, Settled, Settlement, StoreError, TaskId, TaskResult, Transactional,
};

use super::MemoryStore;

/// Writes that wait for their commit: nobody sees them before. Dropping it rolls them back.
///
/// It locks nothing. What it was told is checked once more when it commits, and where somebody else was quicker (took the
/// idempotency key, settled the task) the commit fails as a whole, as with a database that detects conflicts.
pub struct MemoryTransaction {
    store: MemoryStore,
    enqueued: Vec<(NewTask, Enqueued)>,
    completed: Vec<Settle>,
}

impl MemoryStore {
    /// Begins a transaction.
    #[must_use]
    pub fn begin(&self) -> MemoryTransaction {
        MemoryTransaction { store: self.clone(), enqueued: Vec::new(), completed: Vec::new() }
    }
}

impl MemoryTransaction {
    /// Writes everything, or nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] when somebody else was quicker; nothing was written then.
    pub fn commit(self) -> Result<(), StoreError> {
        let quicker = || StoreError::unavailable("the transaction is in conflict with another one");
        let (batch, answers): (Vec<_>, Vec<_>) = self.enqueued.into_iter().unzip();
        let mut database = self.store.lock();
        let now = self.store.clock.now();
        let current = self.completed.iter().all(|settle| database.would_settle(settle, now) == Settled::Applied);
        if !current || database.answers(&batch)? != answers {
            return Err(quicker());
        }
        database.enqueue(&batch, now)?;
        database.settle(&self.completed, &self.store.limits, now)?;
        Ok(())
    }
}

impl fmt::Debug for MemoryTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (enqueued, completed) = (self.enqueued.len(), self.completed.len());
        write!(f, "MemoryTransaction({enqueued} to enqueue, {completed} to complete)")
    }
}

#[async_trait]
impl Transactional for MemoryStore {
    type Conn = MemoryTransaction;

    async fn prepare(&self, batch: &[NewTask]) -> Result<(), StoreError> {
        self.limits.check_enqueue(batch)
    }

    async fn enqueue_in(&self, conn: &mut MemoryTransaction, batch: &[NewTask]) -> Result<Vec<Enqueued>, StoreError> {
        self.limits.check_enqueue(batch)?;
        // The batch sees what the transaction has written before it.
        let before = conn.enqueued.len();
        let all: Vec<_> = conn.enqueued.iter().map(|(task, _)| task).chain(batch).cloned().collect();
        let answers = self.lock().answers(&all).map_err(|error| match error {
            StoreError::KeyConflict { index, existing } => {
                StoreError::KeyConflict { index: index.saturating_sub(before), existing }
            }
            other => other,
        })?;
        let answers = answers[before..].to_vec();
        conn.enqueued.extend(batch.iter().cloned().zip(answers.iter().copied()));
        Ok(answers)
    }

    async fn complete_in(
        &self,
        conn: &mut MemoryTransaction,
        task: TaskId,
        claim: ClaimId,
        result: TaskResult,
    ) -> Result<Settled, StoreError> {
        let settle = Settle::by_holder(task, claim, Settlement::Complete { result });
        if conn.completed.iter().any(|before| (before.task, before.claim) == (task, claim)) {
            return Ok(Settled::Already(settle.settlement.status()));
        }
        let now = self.clock.now();
        let answer = self.lock().would_settle(&settle, now);
        if answer == Settled::Applied {
            conn.completed.push(settle);
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use queue_core::claim::Capacity;
    use queue_core::session::SessionSpec;
    use queue_core::{
        ClaimReply, ClaimRequest, ClaimedTask, ErrorKind, IdempotencyKey, Nonce, Payload, Scope, SessionId, Status,
        TaskAdmin as _, TaskSpec, TaskStore as _, TaskType,
    };

    use super::*;

    const TYPE: TaskType = TaskType::new("t");

    async fn task(store: &MemoryStore, key: Option<&str>, payload: &'static str) -> NewTask {
        let id = store.reserve_ids(1).await.unwrap().next().unwrap();
        let key = key.map(|key| IdempotencyKey::parse(key).unwrap());
        NewTask { id, nonce: Nonce::new(1), spec: TaskSpec { key, ..TaskSpec::new(TYPE, Payload::json(payload)) } }
    }

    async fn running(store: &MemoryStore) -> ClaimedTask {
        let new = task(store, None, "1").await;
        store.enqueue([new].into()).await.unwrap();
        let session = SessionId::new(1).unwrap();
        let (name, host, version) = ("w".to_owned(), "h".to_owned(), "1".to_owned());
        let lease = Duration::from_secs(60);
        store.open_session(SessionSpec { id: session, name, host, version, lease }).await.unwrap();
        let claim = ClaimId::new(1).unwrap();
        let request = ClaimRequest { session, claim, scope: Scope::of([TYPE]), capacity: Capacity::of(1) };
        let ClaimReply::Claimed(mut claimed) = store.claim(request).await.unwrap() else { unreachable!("not fenced") };
        claimed.tasks.remove(0)
    }

    async fn status(store: &MemoryStore, id: TaskId) -> Option<Status> {
        store.get(id).await.unwrap().map(|record| record.state.status)
    }

    #[tokio::test]
    async fn nothing_is_seen_before_the_commit_and_everything_after() {
        let store = MemoryStore::new();
        let run = running(&store).await;
        let new = task(&store, None, "2").await;
        for commits in [false, true] {
            let mut tx = store.begin();
            store.prepare(std::slice::from_ref(&new)).await.unwrap();
            let enqueued = store.enqueue_in(&mut tx, std::slice::from_ref(&new)).await.unwrap();
            assert_eq!(enqueued, [Enqueued::Created(new.id)]);
            let complete = async |tx: &mut _| store.complete_in(tx, run.id, run.claim, TaskResult::None).await.unwrap();
            assert_eq!(complete(&mut tx).await, Settled::Applied);
            assert_eq!(complete(&mut tx).await, Settled::Already(Status::Completed));
            assert_eq!(format!("{tx:?}"), "MemoryTransaction(1 to enqueue, 1 to complete)");
            assert_eq!((status(&store, new.id).await, status(&store, run.id).await), (None, Some(Status::Running)));
            if commits {
                tx.commit().unwrap();
            }
        }
        assert_eq!(status(&store, new.id).await, Some(Status::Queued));
        assert_eq!(status(&store, run.id).await, Some(Status::Completed));
        let mut tx = store.begin();
        let again = store.complete_in(&mut tx, run.id, run.claim, TaskResult::None).await.unwrap();
        assert_eq!(again, Settled::Already(Status::Completed));
        let foreign = ClaimId::new(9).unwrap();
        assert_eq!(store.complete_in(&mut tx, run.id, foreign, TaskResult::None).await.unwrap(), Settled::Stale);
        assert_eq!(store.ghosts(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn keys_are_seen_within_and_conflicts_found_at_the_commit() {
        let store = MemoryStore::new();
        let (one, two, clash) = (
            task(&store, Some("k"), "1").await,
            task(&store, Some("k"), "1").await,
            task(&store, Some("k"), "2").await,
        );
        let (mut first, mut second) = (store.begin(), store.begin());
        assert_eq!(
            store.enqueue_in(&mut first, std::slice::from_ref(&one)).await.unwrap(),
            [Enqueued::Created(one.id)]
        );
        assert_eq!(
            store.enqueue_in(&mut first, std::slice::from_ref(&two)).await.unwrap(),
            [Enqueued::Existing(one.id)]
        );
        match store.enqueue_in(&mut first, &[clash]).await {
            Err(StoreError::KeyConflict { index, existing }) => assert_eq!((index, existing), (0, one.id)),
            other => panic!("{other:?}"),
        }
        assert_eq!(store.enqueue_in(&mut second, &[two]).await.unwrap().len(), 1);
        first.commit().unwrap();
        assert_eq!(second.commit().unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(store.stats().await.unwrap().queues[0].ready.number, 1);
    }

    #[tokio::test]
    async fn a_completion_that_came_too_late_commits_nothing() {
        let store = MemoryStore::new();
        let run = running(&store).await;
        let new = task(&store, None, "2").await;
        let mut tx = store.begin();
        store.enqueue_in(&mut tx, std::slice::from_ref(&new)).await.unwrap();
        store.complete_in(&mut tx, run.id, run.claim, TaskResult::None).await.unwrap();
        let fail = Settlement::Fail { reason: queue_core::FailureReason::Rejected, error: None };
        store.settle([Settle::by_holder(run.id, run.claim, fail)].into()).await.unwrap();
        assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(status(&store, new.id).await, None);
    }

    #[tokio::test]
    async fn what_is_too_large_is_refused_before_it_is_written() {
        let limits = queue_core::StoreLimits { payload_bytes_max: 1, ..Default::default() };
        let store = MemoryStore::new().with_limits(limits);
        let large = [task(&store, None, "22").await];
        assert_eq!(store.prepare(&large).await.unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(store.enqueue_in(&mut store.begin(), &large).await.unwrap_err().kind(), ErrorKind::TooLarge);
    }
}
