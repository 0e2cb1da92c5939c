use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use queue_core::admin::{Acted, Action, Filter, Page, Pause, Selection};
use queue_core::claim::{Ended, Resolved};
use queue_core::progress::ProgressUpdate;
use queue_core::reap::{FencedSession, Lost};
use queue_core::session::{Renewal, SessionSpec};
use queue_core::{
    ClaimId, ClaimReply, ClaimRequest, Enqueued, NewTask, QueueName, Scope, SessionId, Settle, Settled, Status, Store,
    StoreError, TaskId, TaskRecord,
};

/// How often a call is repeated that says that it may succeed later.
const TRIES_MAX: u32 = 50;
const WAIT: Duration = Duration::from_millis(2);
/// More tasks than any sequence has.
const LISTED_MAX: usize = 5_000;

/// A step with everything that it refers to.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Enqueue(Arc<[NewTask]>),
    Open(SessionSpec),
    /// Under an id that was opened before.
    Reopen(SessionSpec),
    Renew(SessionId, Duration),
    Close(SessionId),
    Claim(ClaimRequest),
    /// Under an id that was resolved as void.
    ClaimVoid(ClaimRequest),
    Resolve(SessionId, ClaimId),
    Settle(Arc<[Settle]>),
    Trip(Arc<[Settle]>, ClaimRequest),
    Progress(Vec<ProgressUpdate>),
    Fence(usize),
    Lost(usize),
    Sweep(usize),
    Act(Selection, Action),
    Pause(QueueName, Option<Pause>),
    Drain(SessionId),
    Prune(Option<Status>, Duration, usize),
    List(Filter, usize),
    Busy(Scope),
}

/// What a store answered.
#[derive(Debug)]
pub(super) enum Reply {
    Done,
    Refused(StoreError),
    Enqueued(Vec<Enqueued>),
    Renewal(Renewal),
    Claim(ClaimReply),
    Resolved(Resolved),
    Settled(Vec<Settled>),
    Trip(Box<(Self, Self)>),
    Fenced(Vec<FencedSession>),
    Lost(Lost),
    Swept(Vec<Ended>),
    Acted(Vec<(TaskId, Acted)>),
    Told(bool),
    /// How many were pruned, and which are gone.
    Pruned(u64, Vec<TaskId>),
    Listed(Vec<TaskRecord>),
}

impl Call {
    /// Makes the call, again where the answer is that it may succeed later.
    pub(super) async fn make(&self, store: &dyn Store) -> Reply {
        for _ in 0..TRIES_MAX {
            match self.once(store).await {
                // A void claim is to be refused, however.
                Err(error) if error.is_transient() && !matches!(self, Self::ClaimVoid(_)) => {
                    tokio::time::sleep(WAIT).await;
                }
                Err(error) => return Reply::Refused(error),
                Ok(reply) => return reply,
            }
        }
        panic!("the store stays unavailable for {self:?}");
    }

    async fn once(&self, store: &dyn Store) -> Result<Reply, StoreError> {
        Ok(match self {
            Self::Enqueue(batch) => Reply::Enqueued(store.enqueue(batch.clone()).await?),
            Self::Open(spec) | Self::Reopen(spec) => Reply::Renewal(store.open_session(spec.clone()).await?),
            Self::Renew(session, lease) => Reply::Renewal(store.renew_session(*session, *lease).await?),
            Self::Close(session) => {
                store.close_session(*session).await?;
                Reply::Done
            }
            Self::Claim(request) | Self::ClaimVoid(request) => Reply::Claim(store.claim(request.clone()).await?),
            Self::Resolve(session, claim) => Reply::Resolved(store.resolve_claim(*session, *claim).await?),
            Self::Settle(batch) => Reply::Settled(store.settle(batch.clone()).await?),
            Self::Trip(batch, request) => {
                let trip = store.settle_and_claim(batch.clone(), request.clone()).await;
                let settled = trip.settled.map_or_else(Reply::Refused, Reply::Settled);
                let claim = trip.claim.map_or_else(Reply::Refused, Reply::Claim);
                Reply::Trip(Box::new((settled, claim)))
            }
            Self::Progress(batch) => {
                store.progress(batch.clone()).await?;
                Reply::Done
            }
            Self::Fence(limit) => Reply::Fenced(store.fence_expired(*limit).await?),
            Self::Lost(limit) => Reply::Lost(store.lost(*limit).await?),
            Self::Sweep(limit) => Reply::Swept(sweep(store, *limit).await?),
            Self::Act(selection, action) => Reply::Acted(store.act(selection.clone(), *action, "model").await?),
            Self::Pause(queue, pause) => {
                store.set_paused(queue.clone(), pause.clone(), "model").await?;
                Reply::Done
            }
            Self::Drain(session) => Reply::Told(store.request_drain(*session, "model").await?),
            Self::Prune(status, older_than, limit) => {
                let before = ids(store).await?;
                let number = store.prune(*status, *older_than, *limit).await?;
                let after = ids(store).await?;
                Reply::Pruned(number, before.difference(&after).copied().collect())
            }
            Self::List(filter, limit) => Reply::Listed(list(store, filter, *limit).await?),
            Self::Busy(scope) => Reply::Told(store.is_busy(scope.clone()).await?),
        })
    }
}

/// Everything that matches, in pages of so many.
pub(super) async fn list(store: &dyn Store, filter: &Filter, limit: usize) -> Result<Vec<TaskRecord>, StoreError> {
    let mut listed = Vec::new();
    let mut after = None;
    // A list that comes back to where it was has no end; what came of it is told to be wrong all the same.
    while listed.len() < LISTED_MAX {
        let page = store.list(filter.clone(), Page { after, limit }).await?;
        after = page.last().map(|task| filter.position(task));
        let is_last = page.len() < limit;
        listed.extend(page);
        if is_last {
            break;
        }
    }
    Ok(listed)
}

async fn ids(store: &dyn Store) -> Result<BTreeSet<TaskId>, StoreError> {
    Ok(list(store, &Filter::default(), 1_000).await?.into_iter().map(|task| task.id).collect())
}

/// Sweeps twice until all was looked at: where the first sweep went on from where an earlier one had stopped, it has not
/// seen everything.
async fn sweep(store: &dyn Store, limit: usize) -> Result<Vec<Ended>, StoreError> {
    let mut ended = Vec::new();
    for _ in 0..2 {
        for round in 0.. {
            assert!(round < 1_000, "a sweep never finishes");
            let swept = store.expire(limit).await?;
            assert!(swept.ended.len() <= limit, "a sweep ended {} over its limit of {limit}", swept.ended.len());
            ended.extend(swept.ended);
            if swept.finished {
                break;
            }
        }
    }
    Ok(ended)
}
