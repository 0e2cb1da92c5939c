//! The storage ports that the hot path needs.
//!
//! A backend implements [`TaskStore`], [`TaskAdmin`] and [`Migrate`]; `queue-testkit` has a reference store in memory and a
//! conformance suite to run against it. What every method promises, unless its own documentation says otherwise:
//!
//! - **Atomicity**: a call writes everything or nothing.
//! - **Time**: the store's clock decides. It is read once for each call; callers hand in durations, never points in time
//!   (but for [`Start::At`](crate::Start::At)). `now` in an answer is that reading.
//! - **Errors**: [`StoreError::Unavailable`] means that nothing was written. [`StoreError::UnknownOutcome`] means that it may
//!   have been: each method says how to go on. A store repeats deadlocks and lock timeouts by itself, a bounded number of
//!   times, before it says *unavailable*.
//! - **Cancel safety**: dropping the future never leaves a connection or a lock in disorder. Whether the write happened is
//!   then as unknown as after an `UnknownOutcome`.
//! - **Rules**: stores apply [`transition`](crate::transition), [`Admission`](crate::admission::Admission) and
//!   [`Settlement`](crate::Settlement); they decide nothing that these decide.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::admin::TaskAdmin;
use crate::claim::{ClaimReply, ClaimRequest, Resolved, Scope};
use crate::error::StoreError;
use crate::ids::{ClaimId, IdBlock, SessionId, TaskId};
use crate::limits::StoreLimits;
use crate::payload::TaskResult;
use crate::progress::ProgressUpdate;
use crate::reap::{FencedSession, Lost, StoreTime, Swept};
use crate::session::{Renewal, SessionSpec};
use crate::settlement::{Settle, Settled};
use crate::spec::{Enqueued, NewTask};
use crate::time::Timestamp;
use crate::wake::WakeChannel;

/// What a producer and a pool need of a store. Batch first: one call is one round of the database.
#[async_trait]
pub trait TaskStore: Send + Sync + Debug {
    /// The sizes that this store accepts. Constant over the store's life.
    fn limits(&self) -> StoreLimits;

    /// How often the store repeated its own transactions since it was made, by kind (`deadlock`, `lock_timeout`, …). The
    /// kinds are a small closed set.
    fn retries(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// The way to wake the workers of other processes; `None` where there is none, or nobody wants it. Every call gives one
    /// that shares all there is to share.
    fn wake_channel(&self) -> Option<Arc<dyn WakeChannel>> {
        None
    }

    /// Reserves `count` task ids for the caller alone.
    ///
    /// # Contract
    ///
    /// No id is ever handed out twice, by any process. Ids rise. Those never used leave a gap, which is fine.
    ///
    /// # Atomicity
    ///
    /// Runs in a transaction of its own, so that no user's transaction ever holds the counter.
    ///
    /// # Errors
    ///
    /// After any error, call again; a reservation that was lost leaves a gap.
    async fn reserve_ids(&self, count: u32) -> Result<IdBlock, StoreError>;

    /// Writes a batch of tasks, each queued and due as its spec says.
    ///
    /// # Contract
    ///
    /// One answer per task, in order. A task whose id is there already *with the same nonce* was written by an earlier try:
    /// it is answered as [`Enqueued::Created`] and not touched. A task whose idempotency key is taken by a task of the same
    /// type and the same payload is answered as [`Enqueued::Existing`] and not written. The same key twice within a
    /// batch counts as a repeat. Two concurrent enqueues with one key write one task.
    ///
    /// # Errors
    ///
    /// [`StoreError::KeyConflict`] and [`StoreError::TooLarge`] (of a payload, the batch or a
    /// [backoff](crate::Backoff::stored)) refuse the whole batch. After an
    /// [`StoreError::UnknownOutcome`] repeat the same batch under the same ids. An id that is there with another nonce is
    /// [`StoreError::Corrupt`].
    async fn enqueue(&self, batch: Arc<[NewTask]>) -> Result<Vec<Enqueued>, StoreError>;

    /// Opens a session whose lease runs from now, and says what now is.
    ///
    /// # Contract
    ///
    /// Opening the same id again renews it, unless it was fenced.
    ///
    /// # Errors
    ///
    /// After an [`StoreError::UnknownOutcome`] call again with the same id.
    async fn open_session(&self, spec: SessionSpec) -> Result<Renewal, StoreError>;

    /// Renews a session's lease: an update of one row, however many tasks it holds.
    ///
    /// # Contract
    ///
    /// A session that is fenced or gone stays so: the answer is [`Renewal::Fenced`]. A session past its lease that nobody has
    /// fenced yet is renewed. Never waits for the row of a running task.
    async fn renew_session(&self, session: SessionId, lease: Duration) -> Result<Renewal, StoreError>;

    /// Ends a session: it is fenced at once, and its row goes when no claim of it is left. Ending one that is gone is fine.
    async fn close_session(&self, session: SessionId) -> Result<(), StoreError>;

    /// Takes due tasks for a session.
    ///
    /// # Contract
    ///
    /// Locks the session's row for sharing first, and answers [`ClaimReply::Fenced`] if it is fenced or gone. Takes no more than
    /// the [`Admission`](crate::admission::Admission) of the request admits, from queues that are not paused. Within a queue
    /// the higher priority first, then the earlier due time, then the lower id; queues take turns, so that a long one
    /// cannot starve the others. Suspects may be taken after, or before, ordinary tasks of a higher priority.
    /// Rows that another claim has locked are skipped, not waited for. A task that is taken has its attempt and its
    /// fence raised and its claim set before this returns. Two concurrent claims never take one task.
    ///
    /// # Errors
    ///
    /// After an [`StoreError::UnknownOutcome`] call [`resolve_claim`](Self::resolve_claim) with the claim's id. Rows that are
    /// corrupt are left alone and told in the log; they fail no claim.
    async fn claim(&self, request: ClaimRequest) -> Result<ClaimReply, StoreError>;

    /// Finds out what became of a claim whose acknowledgement was lost.
    ///
    /// # Contract
    ///
    /// Decisive: after [`Resolved::Void`] the claim cannot be committed any more, even if its transaction is still under
    /// way on the server. Repeatable.
    async fn resolve_claim(&self, session: SessionId, claim: ClaimId) -> Result<Resolved, StoreError>;

    /// Writes how runs ended. One answer per item, in order.
    ///
    /// # Contract
    ///
    /// An item is applied when the task is running under its claim, at the store's now ([`Settle::leaves`] becomes the claim
    /// on the row). When the task is not running and that id is on its row already, this very settle (or, for
    /// the holder, a completion in the user's own transaction) was written before: [`Settled::Already`]. In any other case,
    /// a deleted task included, it is [`Settled::Stale`] and nothing is written for it; other items are not affected.
    /// An error is kept as the task's last error and as a row of its history of failed attempts. A result goes with a completion.
    /// Progress is kept as it stands.
    ///
    /// # Errors
    ///
    /// After any transient error repeat the same batch: what was written answers `Already`, or `Stale` where the task has been
    /// claimed anew since. A store that repeats it by itself answers no differently.
    async fn settle(&self, batch: Arc<[Settle]>) -> Result<Vec<Settled>, StoreError>;

    /// Settles and claims in one trip. Backends with a faster way than one after the other override it.
    ///
    /// # Contract
    ///
    /// As [`settle`](Self::settle) and [`claim`](Self::claim). Each part is atomic, the whole need not be.
    async fn settle_and_claim(&self, batch: Arc<[Settle]>, request: ClaimRequest) -> Trip {
        let settled = self.settle(batch).await;
        let claim = self.claim(request).await;
        Trip { settled, claim }
    }

    /// Records progress of running tasks, as far as their claims are current.
    ///
    /// # Contract
    ///
    /// Best effort: a task whose row is locked by somebody is skipped, so that this never waits for a user's transaction. A
    /// stale claim writes nothing.
    async fn progress(&self, batch: Vec<ProgressUpdate>) -> Result<(), StoreError>;

    /// The store's clock, and which server answers.
    async fn time(&self) -> Result<StoreTime, StoreError>;

    /// Fences sessions whose lease has ended, `limit` at most.
    ///
    /// # Contract
    ///
    /// Races a renewal on the session's row: either it is renewed and stays, or it is fenced and can never be renewed.
    async fn fence_expired(&self, limit: usize) -> Result<Vec<FencedSession>, StoreError>;

    /// Tasks held by fenced sessions, `limit` at most.
    ///
    /// # Contract
    ///
    /// Skips tasks whose rows are locked (one may be completing in a user's transaction right now). Also removes
    /// what is left over: claims without a current member, and fenced sessions without a claim. Finding a task here changes
    /// nothing about it; only [`settle`](Self::settle) does.
    async fn lost(&self, limit: usize) -> Result<Lost, StoreError>;

    /// Fails waiting tasks whose budget is spent, whatever their type; `limit` at most.
    ///
    /// # Contract
    ///
    /// Looks at a bounded part of what waits and remembers where it stopped. Repeated calls until
    /// [`Swept::finished`] have looked at all of it. Paused queues are swept as well.
    async fn expire(&self, limit: usize) -> Result<Swept, StoreError>;

    /// Whether anything in this scope is due, running in any process, or waits to be run again (a retry, a snooze, a
    /// release). A task that waits for its first due time does not count, nor does one in a paused queue, nor a row that a claim
    /// has found to be corrupt.
    async fn is_busy(&self, scope: Scope) -> Result<bool, StoreError>;
}

/// The answer to [`TaskStore::settle_and_claim`].
#[derive(Debug)]
pub struct Trip {
    /// What became of the settlements.
    pub settled: Result<Vec<Settled>, StoreError>,
    /// What was claimed.
    pub claim: Result<ClaimReply, StoreError>,
}

/// How a store's schema stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaStatus {
    /// The version found; `None` when there is no schema.
    pub found: Option<u32>,
    /// The version that this library brings.
    pub supported: u32,
    /// The oldest library schema version that may use what was found.
    pub min_compatible: Option<u32>,
}

impl SchemaStatus {
    /// Whether this library may use the schema as it stands.
    ///
    /// # Errors
    ///
    /// Says what is wrong and, with it, what to do.
    pub fn check(&self) -> Result<(), crate::error::SchemaProblem> {
        use crate::error::SchemaProblem::{Missing, TooNew, TooOld};

        let found = self.found.ok_or(Missing)?;
        match self.min_compatible {
            Some(min_compatible) if min_compatible > self.supported => {
                Err(TooNew { min_compatible, supported: self.supported })
            }
            _ if found < self.supported => Err(TooOld { found, needed: self.supported }),
            _ => Ok(()),
        }
    }
}

/// Brings a store's schema up to date.
#[async_trait]
pub trait Migrate: Send + Sync + Debug {
    /// Applies what is missing and returns the versions applied now, in order.
    ///
    /// # Contract
    ///
    /// Safe when many processes migrate at once, and re-runnable after a crash at any point. Never touches a schema that is
    /// newer than this library.
    ///
    /// # Errors
    ///
    /// [`StoreError::Schema`] when the schema is too new for this library.
    async fn migrate(&self) -> Result<Vec<u32>, StoreError>;

    /// How the schema stands.
    async fn schema(&self) -> Result<SchemaStatus, StoreError>;
}

/// Writing inside the user's own transaction. Not object-safe on purpose: the connection's type is the point.
///
/// Nothing in here is ever repeated behind the user's back, and an error leaves it to the user to roll back. When the
/// connection dies, the error is [`StoreError::UnknownOutcome`] only for the user's own commit; until then nothing was written.
#[async_trait]
pub trait Transactional: TaskStore {
    /// The connection that a transaction lives on.
    type Conn: Send;

    /// Makes known, outside any transaction, the types, queues and retry policies that the batch names, so that
    /// [`enqueue_in`](Self::enqueue_in) locks nothing that others need.
    ///
    /// # Errors
    ///
    /// As [`TaskStore::enqueue`] does before it writes.
    async fn prepare(&self, batch: &[NewTask]) -> Result<(), StoreError>;

    /// Writes the batch in the transaction that `conn` is in. As [`TaskStore::enqueue`]; call
    /// [`prepare`](Self::prepare) first.
    ///
    /// # Errors
    ///
    /// As [`TaskStore::enqueue`]; roll back after any of them.
    async fn enqueue_in(&self, conn: &mut Self::Conn, batch: &[NewTask]) -> Result<Vec<Enqueued>, StoreError>;

    /// Completes a running task in the transaction that `conn` is in: its effect and its completion commit together.
    ///
    /// # Contract
    ///
    /// Touches the task, its result and the list of finished tasks; never the claim's row, so that nothing of the queue's
    /// own waits for this transaction. [`Settled::Stale`] when the claim is no longer current: roll back then.
    ///
    /// # Errors
    ///
    /// Roll back after any of them.
    async fn complete_in(
        &self,
        conn: &mut Self::Conn,
        task: TaskId,
        claim: ClaimId,
        result: TaskResult,
    ) -> Result<Settled, StoreError>;
}

/// A whole backend, as the runtime holds it.
pub trait Store: TaskStore + TaskAdmin + Migrate {}

impl<S: TaskStore + TaskAdmin + Migrate + ?Sized> Store for S {}

/// When a store's own reading of the clock is what a caller has, this is how the caller reckons on from it.
#[derive(Clone, Copy, Debug)]
pub struct Reckoning {
    store: Timestamp,
    monotonic: Duration,
}

impl Reckoning {
    /// The store said `store` when this process's monotonic clock said `monotonic`.
    #[must_use]
    pub const fn new(store: Timestamp, monotonic: Duration) -> Self {
        Self { store, monotonic }
    }

    /// The store's clock, as it should be when the monotonic clock says `monotonic`.
    #[must_use]
    pub fn at(self, monotonic: Duration) -> Timestamp {
        self.store.after(monotonic.saturating_sub(self.monotonic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::SchemaProblem;

    #[test]
    fn a_schema_is_used_only_by_libraries_that_know_it() {
        let status = |found, supported, min_compatible| SchemaStatus { found, supported, min_compatible }.check();
        assert_eq!(status(None, 2, None), Err(SchemaProblem::Missing));
        assert_eq!(status(Some(1), 2, Some(1)), Err(SchemaProblem::TooOld { found: 1, needed: 2 }));
        assert_eq!(status(Some(2), 2, Some(1)), Ok(()));
        assert_eq!(status(Some(3), 2, Some(2)), Ok(()));
        assert_eq!(status(Some(4), 2, Some(3)), Err(SchemaProblem::TooNew { min_compatible: 3, supported: 2 }));
    }

    #[test]
    fn reckons_with_monotonic_time() {
        let reckoning = Reckoning::new(Timestamp::from_micros(100), Duration::from_micros(40));
        assert_eq!(reckoning.at(Duration::from_micros(45)), Timestamp::from_micros(105));
        assert_eq!(reckoning.at(Duration::from_micros(30)), Timestamp::from_micros(100));
    }
}
