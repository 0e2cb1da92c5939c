//! Stores that break one promise each.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use queue_core::admin::{Acted, Action, Filter, Page, Pause, Selection};
use queue_core::claim::Resolved;
use queue_core::reap::{Lost, Swept};
use queue_core::session::{Renewal, SessionSpec};
use queue_core::{
    ClaimId, ClaimReply, ClaimRequest, Enqueued, NewTask, QueueName, Scope, SessionId, Settle, Settled, Status, Store,
    StoreError, TaskAdmin, TaskId, TaskRecord, TaskStore,
};
use queue_testkit::MemoryStore;
use queue_testkit::around::{Around, Wrapped};

/// Which promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// A settle is written whoever sends it.
    NoFence,
    /// The reaper leaves the lost claim's id on the row.
    ReaperLeavesTheClaim,
    /// A void answer keeps nobody from committing the claim later.
    VoidIsNotDecisive,
    /// A fenced session may claim.
    FencedMayClaim,
    /// Types do not matter to a claim.
    EveryTypeIsTaken,
    /// One more task than there is room for.
    OneTooMany,
    /// Batches are written as far as they go.
    HalfABatch,
    /// What a repeat finds is told as new.
    RepeatIsNew,
    /// A renewal brings no cancels.
    NoCancels,
    /// Everything is lost, whoever holds it.
    NobodyIsAlive,
    /// A sweep says that it is finished when it is not.
    SweepStopsEarly,
    /// A pause is forgotten.
    NoPause,
    /// An empty filter means everything.
    EmptyMeansAll,
    /// A page begins with the last task of the one before.
    PagesOverlap,
    /// Pruning does not look at the age.
    PrunesTheYoung,
    /// Nothing is ever busy.
    NeverBusy,
}

#[derive(Debug)]
pub(crate) struct BrokenStore {
    inner: MemoryStore,
    broken: Broken,
}

impl BrokenStore {
    /// A store that breaks this promise.
    pub(crate) fn new(broken: Broken) -> Wrapped<Self> {
        Wrapped(Self { inner: MemoryStore::new(), broken })
    }

    fn is(&self, broken: Broken) -> bool {
        self.broken == broken
    }
}

#[async_trait]
impl Around for BrokenStore {
    fn inner(&self) -> &dyn Store {
        &self.inner
    }

    async fn enqueue(&self, batch: Arc<[NewTask]>) -> Result<Vec<Enqueued>, StoreError> {
        if self.is(Broken::HalfABatch) {
            let mut answers = Vec::new();
            for task in batch.iter() {
                answers.extend(self.inner.enqueue([task.clone()].into()).await?);
            }
            return Ok(answers);
        }
        let answers = self.inner.enqueue(batch.clone()).await?;
        if self.is(Broken::RepeatIsNew) {
            return Ok(batch.iter().map(|task| Enqueued::Created(task.id)).collect());
        }
        Ok(answers)
    }

    async fn renew_session(&self, session: SessionId, lease: Duration) -> Result<Renewal, StoreError> {
        let mut renewal = self.inner.renew_session(session, lease).await?;
        if let Renewal::Renewed(signals) = &mut renewal
            && self.is(Broken::NoCancels)
        {
            signals.cancels.clear();
        }
        Ok(renewal)
    }

    async fn claim(&self, mut request: ClaimRequest) -> Result<ClaimReply, StoreError> {
        if self.is(Broken::EveryTypeIsTaken) {
            let every = [request.scope.types.to_vec(), vec!["conformance.two".parse().unwrap()]].concat();
            request.scope.types = every.into();
        }
        if self.is(Broken::OneTooMany) {
            request.capacity.tasks = request.capacity.tasks.saturating_add(1);
        }
        let reply = self.inner.claim(request.clone()).await?;
        if reply == ClaimReply::Fenced && self.is(Broken::FencedMayClaim) {
            let id = SessionId::new(1).unwrap();
            let text = String::new;
            let spec = SessionSpec { id, name: text(), host: text(), version: text(), lease: Duration::from_secs(9) };
            self.inner.open_session(spec).await?;
            return self.inner.claim(ClaimRequest { session: id, ..request }).await;
        }
        Ok(reply)
    }

    async fn resolve_claim(&self, session: SessionId, claim: ClaimId) -> Result<Resolved, StoreError> {
        if self.is(Broken::VoidIsNotDecisive) {
            return Ok(Resolved::Void);
        }
        self.inner.resolve_claim(session, claim).await
    }

    async fn settle(&self, batch: Arc<[Settle]>) -> Result<Vec<Settled>, StoreError> {
        let mut batch = batch.to_vec();
        for item in &mut batch {
            if self.is(Broken::NoFence)
                && let Some(task) = self.inner.get(item.task).await?
                && let Some(current) = task.state.claim
            {
                (item.claim, item.leaves) = (current, current);
            }
            if self.is(Broken::ReaperLeavesTheClaim) {
                item.leaves = item.claim;
            }
        }
        self.inner.settle(batch.into()).await
    }

    async fn lost(&self, limit: usize) -> Result<Lost, StoreError> {
        if self.is(Broken::NobodyIsAlive) {
            for session in self.inner.sessions().await? {
                self.inner.close_session(session.id).await?;
            }
        }
        self.inner.lost(limit).await
    }

    async fn expire(&self, limit: usize) -> Result<Swept, StoreError> {
        let swept = self.inner.expire(limit).await?;
        Ok(Swept { finished: swept.finished || self.is(Broken::SweepStopsEarly), ..swept })
    }

    async fn is_busy(&self, scope: Scope) -> Result<bool, StoreError> {
        Ok(!self.is(Broken::NeverBusy) && self.inner.is_busy(scope).await?)
    }

    async fn list(&self, filter: Filter, mut page: Page) -> Result<Vec<TaskRecord>, StoreError> {
        if self.is(Broken::PagesOverlap) {
            page.after = page.after.map(|(first, second)| (first, second.saturating_sub(1)));
        }
        self.inner.list(filter, page).await
    }

    async fn act(&self, selection: Selection, action: Action, actor: &str) -> Result<Vec<(TaskId, Acted)>, StoreError> {
        match selection {
            Selection::Matching { filter, limit } if filter.is_empty() && self.is(Broken::EmptyMeansAll) => {
                let all = self.inner.list(filter, Page { after: None, limit }).await?;
                let ids = Selection::Ids(all.into_iter().map(|task| task.id).collect());
                self.inner.act(ids, action, actor).await
            }
            selection => self.inner.act(selection, action, actor).await,
        }
    }

    async fn set_paused(&self, queue: QueueName, pause: Option<Pause>, actor: &str) -> Result<(), StoreError> {
        self.inner.set_paused(queue, pause.filter(|_| !self.is(Broken::NoPause)), actor).await
    }

    async fn prune(&self, status: Option<Status>, older_than: Duration, limit: usize) -> Result<u64, StoreError> {
        let older_than = if self.is(Broken::PrunesTheYoung) { Duration::ZERO } else { older_than };
        self.inner.prune(status, older_than, limit).await
    }
}
