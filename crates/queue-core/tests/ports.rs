//! What the ports bring along: provided methods, filters and the answers of a claim.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use queue_core::admin::Filter;
use queue_core::claim::Capacity;
use queue_core::error::SchemaProblem;
use queue_core::ids::IdBlock;
use queue_core::progress::ProgressUpdate;
use queue_core::reap::{FencedSession, Lost, StoreTime, Swept};
use queue_core::session::{Renewal, SessionSpec};
use queue_core::{
    Backoff, Budget, ClaimId, ClaimReply, ClaimRequest, ClaimedTask, Enqueued, Event, FailureReason, Fence, NewTask,
    Payload, Priority, QueueName, Scope, SessionId, Settle, Settled, Settlement, Status, StoreError, StoreLimits,
    TaskId, TaskRecord, TaskResult, TaskState, TaskStore, TaskType, Timestamp,
};

fn id(id: u64) -> TaskId {
    TaskId::new(id).unwrap()
}

/// A store that knows how to settle and how to be fenced, and nothing else.
#[derive(Debug)]
struct Narrow;

fn refuse<T>() -> Result<T, StoreError> {
    Err(SchemaProblem::Missing.into())
}

#[async_trait]
impl TaskStore for Narrow {
    fn limits(&self) -> StoreLimits {
        StoreLimits::default()
    }
    async fn reserve_ids(&self, _: u32) -> Result<IdBlock, StoreError> {
        refuse()
    }
    async fn enqueue(&self, _: Arc<[NewTask]>) -> Result<Vec<Enqueued>, StoreError> {
        refuse()
    }
    async fn open_session(&self, _: SessionSpec) -> Result<Renewal, StoreError> {
        refuse()
    }
    async fn renew_session(&self, _: SessionId, _: Duration) -> Result<Renewal, StoreError> {
        refuse()
    }
    async fn close_session(&self, _: SessionId) -> Result<(), StoreError> {
        refuse()
    }
    async fn claim(&self, _: ClaimRequest) -> Result<ClaimReply, StoreError> {
        Ok(ClaimReply::Fenced)
    }
    async fn resolve_claim(&self, _: SessionId, _: ClaimId) -> Result<queue_core::claim::Resolved, StoreError> {
        refuse()
    }
    async fn settle(&self, batch: Arc<[Settle]>) -> Result<Vec<Settled>, StoreError> {
        Ok(vec![Settled::Stale; batch.len()])
    }
    async fn progress(&self, _: Vec<ProgressUpdate>) -> Result<(), StoreError> {
        refuse()
    }
    async fn time(&self) -> Result<StoreTime, StoreError> {
        refuse()
    }
    async fn fence_expired(&self, _: usize) -> Result<Vec<FencedSession>, StoreError> {
        refuse()
    }
    async fn lost(&self, _: usize) -> Result<Lost, StoreError> {
        refuse()
    }
    async fn expire(&self, _: usize) -> Result<Swept, StoreError> {
        refuse()
    }
    async fn is_busy(&self, _: Scope) -> Result<bool, StoreError> {
        refuse()
    }
}

/// Polls a future that never waits.
fn now<F: Future>(future: F) -> F::Output {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

#[test]
fn a_store_that_settles_and_claims_can_do_both_in_one_trip() {
    let claim = ClaimId::new(3).unwrap();
    let settle = Settle::by_holder(id(1), claim, Settlement::Complete { result: TaskResult::None });
    let request = ClaimRequest {
        session: SessionId::new(1).unwrap(),
        claim,
        scope: Scope::of([TaskType::new("a")]),
        capacity: Capacity::of(1),
    };
    let trip = now(Narrow.settle_and_claim(Arc::from([settle]), request));
    assert_eq!(trip.settled.unwrap(), [Settled::Stale]);
    assert_eq!(trip.claim.unwrap(), ClaimReply::Fenced);
    assert_eq!((Narrow.retries(), Narrow.limits()), (Vec::new(), StoreLimits::DEFAULT));
    assert!(now(Narrow.time()).is_err() && Narrow.wake_channel().is_none());
}

#[test]
fn a_claimed_task_tells_its_run() {
    let task = ClaimedTask {
        id: id(1),
        claim: ClaimId::new(3).unwrap(),
        task_type: TaskType::new("a"),
        queue: QueueName::DEFAULT,
        priority: Priority::NORMAL,
        attempt: 2,
        max_attempts: 3,
        backoff: Backoff::DEFAULT,
        fence: Fence::new(2),
        losses: 1,
        created_at: Timestamp::from_micros(1),
        run_at: Timestamp::from_micros(5),
        started_at: Timestamp::from_micros(9),
        deadline_at: Some(Timestamp::from_micros(99)),
        payload: Payload::default(),
    };
    assert!(task.is_suspect());
    assert_eq!(task.schedule_to_start(), Duration::from_micros(4));
    let run = task.run();
    assert_eq!((run.attempt, run.max_attempts, run.deadline_at), (2, 3, task.deadline_at));
    assert!(!run.cancel_requested);
}

fn record(number: u64, status: Status) -> TaskRecord {
    let mut state = TaskState::enqueued(Timestamp::from_micros(10), Timestamp::from_micros(20), 3, Budget::NONE);
    state.status = status;
    state.reason = (status == Status::Failed).then_some(FailureReason::Rejected);
    state.completed_at = status.is_terminal().then_some(Timestamp::from_micros(30));
    TaskRecord {
        id: id(number),
        task_type: TaskType::new("a"),
        queue: QueueName::DEFAULT,
        priority: Priority::NORMAL,
        state,
        backoff: Backoff::DEFAULT,
        progress: None,
        last_error: None,
        worker: None,
        payload: Payload::default(),
        result: TaskResult::None,
    }
}

#[test]
fn a_filter_matches_when_every_condition_holds() {
    let failed = record(1, Status::Failed);
    let filter = Filter {
        status: Some(Status::Failed),
        reason: Some(FailureReason::Rejected),
        task_type: Some(TaskType::new("a")),
        queue: Some(QueueName::DEFAULT),
    };
    assert!(filter.matches(&failed) && Filter::default().matches(&failed));
    assert!(!filter.matches(&record(1, Status::Completed)));
    for other in [
        Filter { reason: Some(FailureReason::Crashed), ..filter.clone() },
        Filter { task_type: Some(TaskType::new("b")), ..filter.clone() },
        Filter { queue: Some(QueueName::new("q")), ..filter.clone() },
    ] {
        assert!(!other.matches(&failed));
    }
}

#[test]
fn lists_come_in_the_order_that_suits_their_status() {
    let position = |status: Option<Status>, task: &TaskRecord| Filter { status, ..Filter::default() }.position(task);
    assert_eq!(position(Some(Status::Queued), &record(7, Status::Queued)), (20, 7));
    assert_eq!(position(Some(Status::Running), &record(7, Status::Running)), (0, 7));
    assert_eq!(position(Some(Status::Completed), &record(7, Status::Completed)), (-30, -7));
    assert_eq!(position(Some(Status::Failed), &record(7, Status::Failed)), (-30, -7));
    assert_eq!(position(None, &record(7, Status::Queued)), (0, -7));
}

#[test]
fn events_have_names() {
    let settlement = Settlement::Complete { result: TaskResult::None };
    let claim = ClaimId::new(1).unwrap();
    let events = [
        Event::Claim(claim),
        Event::Settle { claim, leaves: claim, settlement: &settlement },
        Event::Expire,
        Event::Unregister,
        Event::Cancel,
        Event::Retry,
    ];
    let names = events.map(|event| event.name());
    assert_eq!(names, ["claim", "settle", "expire", "unregister", "cancel", "retry"]);
}
