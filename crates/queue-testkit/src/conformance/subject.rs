use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use queue_core::admin::{Acted, Action, Filter, Page, Selection};
use queue_core::claim::Capacity;
use queue_core::reap::Swept;
use queue_core::session::{Renewal, SessionSpec, Signals};
use queue_core::{
    ClaimId, ClaimReply, ClaimRequest, Claimed, ClaimedTask, Enqueued, Entropy, NewTask, Nonce, Payload, QueueName,
    Scope, SessionId, Settle, Settled, Settlement, Store, StoreError, TaskId, TaskRecord, TaskResult, TaskSpec,
    TaskType, Timestamp,
};

use super::fixture::Erased;
use crate::SeededEntropy;

/// The type that cases enqueue and claim when it does not matter.
pub(super) const TYPE: TaskType = TaskType::new("conformance.one");
/// Another type.
pub(super) const OTHER: TaskType = TaskType::new("conformance.two");
/// A lease that does not end within a case.
pub(super) const LEASE: Duration = Duration::from_secs(3600);
/// How long a case waits for what must come: it only ends a store that never does it.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(2);

/// The store under test, with the steps that cases share. It derefs to the store.
#[derive(Clone)]
pub struct Subject {
    fixture: Arc<dyn Erased>,
    entropy: Arc<SeededEntropy>,
}

impl Subject {
    pub(super) fn new(fixture: Arc<dyn Erased>) -> Self {
        Self { fixture, entropy: Arc::new(SeededEntropy::new(1)) }
    }

    pub(super) fn entropy(&self) -> &SeededEntropy {
        &self.entropy
    }

    pub(super) fn claim_id(&self) -> ClaimId {
        ClaimId::from_random(self.entropy.next_u64())
    }

    pub(super) fn session_id(&self) -> SessionId {
        SessionId::from_random(self.entropy.next_u64())
    }

    pub(super) async fn now(&self) -> Timestamp {
        self.time().await.unwrap().now
    }

    /// Waits until the store's clock is past this point.
    pub(super) async fn past(&self, point: Timestamp) {
        self.until("the store's clock to go on", async |store| store.now().await > point).await;
    }

    /// Waits until `check` holds.
    pub(super) async fn until(&self, what: &str, check: impl AsyncFn(&Self) -> bool) {
        let reached = async {
            while !check(self).await {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
    }

    pub(super) async fn open(&self, lease: Duration) -> SessionId {
        let id = self.session_id();
        let spec = SessionSpec { id, name: "worker".into(), host: "host".into(), version: "1.0.0".into(), lease };
        assert!(matches!(self.open_session(spec).await.unwrap(), Renewal::Renewed(_)));
        id
    }

    pub(super) async fn session(&self) -> SessionId {
        self.open(LEASE).await
    }

    pub(super) async fn signals(&self, session: SessionId) -> Signals {
        match self.renew_session(session, LEASE).await.unwrap() {
            Renewal::Renewed(signals) => signals,
            Renewal::Fenced => panic!("the session is fenced"),
        }
    }

    /// Gives each spec an id of its own.
    pub(super) async fn named(&self, specs: impl IntoIterator<Item = TaskSpec>) -> Vec<NewTask> {
        let specs: Vec<_> = specs.into_iter().collect();
        let ids = self.reserve_ids(u32::try_from(specs.len()).unwrap()).await.unwrap();
        assert_eq!(ids.remaining(), specs.len() as u64);
        let nonce = |_: TaskId| Nonce::new(self.entropy.next_u64() as u32);
        ids.zip(specs).map(|(id, spec)| NewTask { id, nonce: nonce(id), spec }).collect()
    }

    pub(super) async fn write(&self, batch: &[NewTask]) -> Result<Vec<Enqueued>, StoreError> {
        self.enqueue(Arc::from(batch)).await
    }

    /// Enqueues new tasks.
    pub(super) async fn put_all(&self, specs: impl IntoIterator<Item = TaskSpec>) -> Vec<TaskId> {
        let batch = self.named(specs).await;
        for part in batch.chunks(self.limits().batch_max) {
            let created: Vec<_> = part.iter().map(|task| Enqueued::Created(task.id)).collect();
            assert_eq!(self.write(part).await.unwrap(), created);
        }
        batch.iter().map(|task| task.id).collect()
    }

    pub(super) async fn put(&self, spec: TaskSpec) -> TaskId {
        self.put_all([spec]).await[0]
    }

    /// A request for tasks of [`TYPE`] in every queue, under a new claim id.
    pub(super) fn request(&self, session: SessionId, tasks: usize) -> ClaimRequest {
        let scope = Scope::of([TYPE]);
        ClaimRequest { session, claim: self.claim_id(), scope, capacity: Capacity::of(tasks) }
    }

    pub(super) async fn ask(&self, request: ClaimRequest) -> Claimed {
        match self.claim(request).await.unwrap() {
            ClaimReply::Claimed(claimed) => claimed,
            ClaimReply::Fenced => panic!("the session is fenced"),
        }
    }

    pub(super) async fn grab(&self, session: SessionId, tasks: usize) -> Vec<ClaimedTask> {
        self.ask(self.request(session, tasks)).await.tasks
    }

    /// Claims one task, as soon as one is due.
    pub(super) async fn grab_one(&self, session: SessionId) -> ClaimedTask {
        self.grab_all(session, 1).await.remove(0)
    }

    /// Claims until this many tasks are held.
    pub(super) async fn grab_all(&self, session: SessionId, tasks: usize) -> Vec<ClaimedTask> {
        let held = tokio::sync::Mutex::new(Vec::new());
        self.until("enough tasks to claim", async |store| {
            let mut held = held.lock().await;
            let more = store.grab(session, tasks - held.len()).await;
            held.extend(more);
            held.len() == tasks
        })
        .await;
        held.into_inner()
    }

    /// Enqueues one task and claims it.
    pub(super) async fn running(&self, spec: TaskSpec) -> (SessionId, ClaimedTask) {
        let id = self.put(spec).await;
        let session = self.session().await;
        let task = self.grab_one(session).await;
        assert_eq!(task.id, id);
        (session, task)
    }

    pub(super) async fn settle_one(&self, settle: Settle) -> Settled {
        let answers = self.settle(Arc::from([settle])).await.unwrap();
        assert_eq!(answers.len(), 1, "one answer per item");
        answers[0]
    }

    /// Settles as the holder, and sees it applied.
    pub(super) async fn end(&self, task: &ClaimedTask, settlement: Settlement) {
        let settle = Settle::by_holder(task.id, task.claim, settlement);
        assert_eq!(self.settle_one(settle).await, Settled::Applied);
    }

    pub(super) async fn record(&self, id: TaskId) -> TaskRecord {
        let record = self.get(id).await.unwrap().unwrap_or_else(|| panic!("task {id} is gone"));
        assert_eq!(record.state.defect(), None, "{record:?}");
        record
    }

    pub(super) async fn act_one(&self, id: TaskId, action: Action) -> Acted {
        let acted = self.act(Selection::Ids(vec![id]), action, "suite").await.unwrap();
        assert_eq!(acted.len(), 1, "one answer per task");
        assert_eq!(acted[0].0, id);
        acted[0].1
    }

    pub(super) async fn ids(&self, filter: Filter) -> Vec<TaskId> {
        let page = Page { after: None, limit: 1_000 };
        self.list(filter, page).await.unwrap().into_iter().map(|task| task.id).collect()
    }

    /// Sweeps until all that waits was looked at, and returns all that it failed.
    pub(super) async fn sweep(&self, limit: usize) -> Vec<TaskId> {
        let mut ended = Vec::new();
        for _ in 0..1_000 {
            let Swept { ended: some, finished } = self.expire(limit).await.unwrap();
            assert!(some.len() <= limit, "{} over the limit of {limit}", some.len());
            ended.extend(some.into_iter().map(|ended| ended.id));
            if finished {
                return ended;
            }
        }
        panic!("a sweep never finishes");
    }
}

impl Deref for Subject {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        self.fixture.erased()
    }
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Subject").field(&self.fixture.erased()).finish()
    }
}

/// A task that is due at once, of [`TYPE`] in the default queue.
pub(super) fn spec() -> TaskSpec {
    TaskSpec::new(TYPE, Payload::json("{}"))
}

pub(super) fn of_type(task_type: TaskType) -> TaskSpec {
    TaskSpec { task_type, ..spec() }
}

pub(super) fn in_queue(queue: &'static str) -> TaskSpec {
    TaskSpec { queue: QueueName::new(queue), ..spec() }
}

pub(super) const fn complete() -> Settlement {
    Settlement::Complete { result: TaskResult::None }
}

/// Runs many futures at once, each a task of its own, and returns what they came to, in order.
pub(super) async fn at_once<T: Send + 'static>(
    futures: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        match task.await {
            Ok(result) => results.push(result),
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }
    results
}

/// Repeats a call for as long as it says that it may succeed later. A store repeats deadlocks by itself, but not for ever.
pub(super) async fn persist<T, F: Future<Output = Result<T, StoreError>>>(call: impl Fn() -> F) -> T {
    for _ in 0..50 {
        match call().await {
            Ok(answer) => return answer,
            Err(error) if error.is_transient() => tokio::time::sleep(POLL).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the store stays unavailable");
}
