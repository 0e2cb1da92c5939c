//! Stores that answer as real databases may, and stores that are broken on purpose.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use queue_core::admin::{Filter, Page};
use queue_core::claim::Resolved;
use queue_core::progress::ProgressUpdate;
use queue_core::reap::{Lost, LostTask};
use queue_core::session::{Renewal, Signals};
use queue_core::settlement::{Requeue, Run};
use queue_core::{
    ClaimId, ClaimReply, ClaimRequest, Claimed, Clock as _, SessionId, Settle, Settled, Settlement, Status, Store,
    StoreError, TaskId, TaskRecord,
};
use queue_runtime::clock::TokioClock;
use queue_testkit::SeededEntropy;
use queue_testkit::around::{Around, Wrapped};

/// A way to be wrong that the simulation must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A settle is written whoever sends it.
    NoFence,
    /// An attempt is forgotten with the process that made it.
    AttemptNotPersisted,
    /// What is running is lost, whoever holds it.
    ReaperIgnoresLiveSessions,
    /// A settle that is sent again, because its outcome was unknown, is written whatever holds the task by now.
    RetriedSettleWithoutItsClaim,
    /// A release does not give the attempt back.
    ReleaseKeepsTheAttempt,
    /// Nobody asks what became of a claim whose acknowledgement was lost.
    LostClaimNeverResolved,
    /// A worker whose session cannot be renewed, or was fenced, lets its handlers go on for a while.
    FencedHandlersGoOn,
}

impl Broken {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NoFence,
        Self::AttemptNotPersisted,
        Self::ReaperIgnoresLiveSessions,
        Self::RetriedSettleWithoutItsClaim,
        Self::ReleaseKeepsTheAttempt,
        Self::LostClaimNeverResolved,
        Self::FencedHandlersGoOn,
    ];

    /// Whether it is the pool that is wrong, so that the store must be wrong for the pool alone.
    pub(super) const fn is_around(self) -> bool {
        matches!(self, Self::LostClaimNeverResolved | Self::FencedHandlersGoOn)
    }
}

/// How long a worker that is broken in this way does not hear that its session is gone: several leases.
const DEAF: Duration = Duration::from_secs(30);
const DEAF_TO_SILENCE: Duration = Duration::from_millis(300);

/// What a store remembers in order to be wrong.
#[derive(Debug, Default)]
struct Memory {
    /// What was lost, when it was looked for last.
    lost: Vec<LostTask>,
    /// How often each task's worker was lost.
    losses: BTreeMap<TaskId, u16>,
    /// Settlements that were here before.
    settled: BTreeSet<(TaskId, ClaimId)>,
    /// Since when sessions cannot be renewed, on the virtual clock.
    gone: BTreeMap<SessionId, Duration>,
}

/// A store in between. Clones share what they remember.
#[derive(Clone, Debug)]
pub(super) struct Bent {
    inner: Arc<dyn Store>,
    clock: TokioClock,
    broken: Option<Broken>,
    /// Where stale reads come from, if there are any.
    stale: Option<Arc<SeededEntropy>>,
    memory: Arc<Mutex<Memory>>,
}

impl Bent {
    pub(super) fn new(
        inner: Arc<dyn Store>,
        clock: TokioClock,
        broken: Option<Broken>,
        stale: Option<SeededEntropy>,
    ) -> Wrapped<Self> {
        Wrapped(Self { inner, clock, broken, stale: stale.map(Arc::new), memory: Arc::default() })
    }

    fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    fn is_stale(&self) -> bool {
        self.stale.as_ref().is_some_and(|entropy| entropy.per_mille(200))
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attempts as they are told where those of lost workers do not count.
    fn forget(&self, claimed: &mut Claimed) {
        if self.is(Broken::AttemptNotPersisted) {
            let memory = self.lock();
            for task in &mut claimed.tasks {
                let losses = memory.losses.get(&task.id).copied().unwrap_or_default();
                task.attempt = task.attempt.saturating_sub(losses).max(1);
            }
        }
    }

    /// Whether the pool shall not hear, just now, that this session is gone.
    fn is_deaf(&self, session: SessionId) -> bool {
        let now = self.clock.monotonic();
        self.is(Broken::FencedHandlersGoOn) && now < *self.lock().gone.entry(session).or_insert(now) + DEAF
    }

    /// Who holds the task now, if anybody does.
    async fn holder(&self, task: TaskId) -> Result<Option<ClaimId>, StoreError> {
        let task = self.inner.get(task).await?;
        Ok(task.filter(|task| task.state.status == Status::Running).and_then(|task| task.state.claim))
    }

    async fn bend(&self, item: &mut Settle) -> Result<(), StoreError> {
        let again = !self.lock().settled.insert((item.task, item.claim));
        let by_holder = item.claim == item.leaves;
        let reckless =
            self.is(Broken::NoFence) || (self.is(Broken::RetriedSettleWithoutItsClaim) && again && by_holder);
        if reckless && let Some(claim) = self.holder(item.task).await? {
            (item.claim, item.leaves) = (claim, claim);
        }
        match &mut item.settlement {
            Settlement::Requeue { kind: Requeue::Recover { .. }, .. } => {
                *self.lock().losses.entry(item.task).or_default() += 1;
            }
            Settlement::Requeue { kind: kind @ Requeue::Release, .. } if self.is(Broken::ReleaseKeepsTheAttempt) => {
                let task = self.inner.get(item.task).await?;
                // The last one has to be given back: the row could not be otherwise.
                if task.is_some_and(|task| task.state.attempt < task.state.max_attempts) {
                    *kind = Requeue::Retry { error: "released".into() };
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[async_trait]
impl Around for Bent {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    async fn renew_session(&self, session: SessionId, lease: Duration) -> Result<Renewal, StoreError> {
        let call = self.inner.renew_session(session, lease);
        let answer = if self.is(Broken::FencedHandlersGoOn) {
            // No answer at all is no news either.
            tokio::time::timeout(DEAF_TO_SILENCE, call)
                .await
                .unwrap_or_else(|_| Err(StoreError::unavailable("silence")))
        } else {
            call.await
        };
        match answer {
            Ok(Renewal::Renewed(_)) => drop(self.lock().gone.remove(&session)),
            _ if self.is_deaf(session) => {
                let signals = Signals { now: self.clock.wall(), ..Signals::default() };
                return Ok(Renewal::Renewed(signals));
            }
            _ => {}
        }
        answer
    }

    async fn claim(&self, mut request: ClaimRequest) -> Result<ClaimReply, StoreError> {
        let skips = self.is_stale();
        if skips {
            // Rows that another transaction has locked are skipped.
            request.capacity.tasks = request.capacity.tasks.div_ceil(2);
        }
        let session = request.session;
        let answer = match self.inner.claim(request).await? {
            ClaimReply::Claimed(mut claimed) => {
                self.forget(&mut claimed);
                if skips {
                    // What others have locked may be due: only the next poll can tell.
                    claimed.next_due = None;
                }
                ClaimReply::Claimed(claimed)
            }
            ClaimReply::Fenced if self.is_deaf(session) => {
                let now = self.clock.wall();
                ClaimReply::Claimed(Claimed { now, tasks: Vec::new(), ended: Vec::new(), next_due: None })
            }
            ClaimReply::Fenced => ClaimReply::Fenced,
        };
        Ok(answer)
    }

    async fn resolve_claim(&self, session: SessionId, claim: ClaimId) -> Result<Resolved, StoreError> {
        if self.is(Broken::LostClaimNeverResolved) {
            return Ok(Resolved::Void);
        }
        let mut answer = self.inner.resolve_claim(session, claim).await?;
        if let Resolved::Committed(claimed) = &mut answer {
            self.forget(claimed);
        }
        Ok(answer)
    }

    async fn settle(&self, batch: Arc<[Settle]>) -> Result<Vec<Settled>, StoreError> {
        let mut batch = batch.to_vec();
        for item in &mut batch {
            self.bend(item).await?;
        }
        self.inner.settle(batch.into()).await
    }

    async fn progress(&self, batch: Vec<ProgressUpdate>) -> Result<(), StoreError> {
        if self.is_stale() {
            // Every row of it is locked by somebody.
            return Ok(());
        }
        self.inner.progress(batch).await
    }

    async fn lost(&self, limit: usize) -> Result<Lost, StoreError> {
        let mut lost = self.inner.lost(limit).await?;
        if self.is(Broken::ReaperIgnoresLiveSessions) {
            let filter = Filter { status: Some(Status::Running), ..Filter::default() };
            let running = self.inner.list(filter, Page { after: None, limit }).await?;
            lost.tasks = running.into_iter().filter_map(as_lost).collect();
        }
        let before = std::mem::replace(&mut self.lock().lost, lost.tasks.clone());
        if self.is_stale() {
            // A snapshot that is older than what has been settled since.
            lost.tasks = before;
        }
        Ok(lost)
    }
}

fn as_lost(task: TaskRecord) -> Option<LostTask> {
    let run = Run {
        attempt: task.state.attempt,
        max_attempts: task.state.max_attempts,
        backoff: task.backoff,
        deadline_at: task.state.deadline_at,
        cancel_requested: task.state.cancel_requested,
    };
    Some(LostTask { id: task.id, claim: task.state.claim?, task_type: task.task_type, run })
}
