//! Removing what ended long ago.

use std::time::Duration;

use queue_core::admin::{Action, Filter};
use queue_core::settlement::Requeue;
use queue_core::{FailureReason, Settlement, Status, TaskId};

use super::Subject;
use super::subject::{complete, spec};

/// Ends a task, and waits until that is past.
async fn ended(store: &Subject, settlement: Settlement) -> TaskId {
    let (_, task) = store.running(spec()).await;
    store.end(&task, settlement).await;
    store.past(store.record(task.id).await.state.completed_at.unwrap()).await;
    task.id
}

fn failed() -> Settlement {
    Settlement::Fail { reason: FailureReason::Rejected, error: Some("no".into()) }
}

/// Ended tasks go, with their history; what waits and what runs stays.
pub async fn removes_what_has_ended(store: Subject) {
    let gone = [ended(&store, complete()).await, ended(&store, failed()).await];
    let (session, running) = store.running(spec()).await;
    let (_, retried) = store.running(spec()).await;
    let kind = Requeue::Retry { error: "again".into() };
    store.end(&retried, Settlement::Requeue { delay: Duration::ZERO, kind }).await;
    assert_eq!(store.prune(None, Duration::ZERO, 100).await.unwrap(), 2);
    for id in gone {
        assert_eq!(store.get(id).await.unwrap(), None);
        assert_eq!(store.attempts(id).await.unwrap(), []);
    }
    assert_eq!(store.ids(Filter::default()).await.len(), 2);
    store.end(&running, complete()).await;
    assert_eq!(store.grab_one(session).await.id, retried.id);
    assert_eq!(store.attempts(retried.id).await.unwrap().len(), 1);
}

/// "Ended tasks of this status, or of both."
pub async fn removes_only_the_status_asked_for(store: Subject) {
    let (completed, failed) = (ended(&store, complete()).await, ended(&store, failed()).await);
    assert_eq!(store.prune(Some(Status::Failed), Duration::ZERO, 100).await.unwrap(), 1);
    assert_eq!(store.ids(Filter::default()).await, [completed]);
    assert_eq!(store.prune(Some(Status::Completed), Duration::ZERO, 100).await.unwrap(), 1);
    assert_eq!(store.get(failed).await.unwrap(), None);
    assert_eq!(store.ids(Filter::default()).await, []);
}

/// "That ended longer ago than `older_than`", however long that is.
pub async fn keeps_what_ended_lately(store: Subject) {
    let id = ended(&store, complete()).await;
    for age in [Duration::from_secs(3600), Duration::from_micros(i64::MAX as u64), Duration::MAX] {
        assert_eq!(store.prune(None, age, 100).await.unwrap(), 0);
    }
    store.record(id).await;
}

/// "The oldest first, `limit` at most"; "less than `limit` means that none is left".
pub async fn removes_the_oldest_first(store: Subject) {
    let mut ids = Vec::new();
    for settlement in [complete(), failed(), complete(), complete(), failed()] {
        ids.push(ended(&store, settlement).await);
    }
    let mut kept = ids.clone();
    for removed in [2, 2, 1, 0] {
        assert_eq!(store.prune(None, Duration::ZERO, 2).await.unwrap(), removed);
        kept.drain(..usize::try_from(removed).unwrap());
        let mut left = store.ids(Filter::default()).await;
        left.sort_unstable();
        assert_eq!(left, kept);
    }
}

/// A task that an operator retried in between is not pruned for the end that it had before.
pub async fn a_retried_task_has_not_ended(store: Subject) {
    let id = ended(&store, failed()).await;
    store.act_one(id, Action::Retry).await;
    assert_eq!(store.prune(None, Duration::ZERO, 100).await.unwrap(), 0);
    assert_eq!(store.record(id).await.state.status, Status::Queued);
}
