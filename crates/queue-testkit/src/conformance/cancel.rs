//! Cancelling.

use std::time::Duration;

use queue_core::admin::{Acted, Action};
use queue_core::settlement::Requeue;
use queue_core::{FailureReason, Fence, Settlement, Status};

use super::Subject;
use super::subject::{complete, spec};

/// "Queued: failed as cancelled at once."
pub async fn a_waiting_task_fails_at_once(store: Subject) {
    let id = store.put(spec()).await;
    assert_eq!(store.act_one(id, Action::Cancel).await, Acted::Done);
    let state = store.record(id).await.state;
    assert_eq!((state.status, state.reason), (Status::Failed, Some(FailureReason::Cancelled)));
    assert_eq!((state.attempt, state.fence), (0, Fence::default()));
    let session = store.session().await;
    assert_eq!(store.grab(session, 10).await, []);
}

/// "Running: its handler is told with the next heartbeat": its own session is told, at each renewal until it is settled.
pub async fn a_running_task_is_signalled(store: Subject) {
    let (session, task) = store.running(spec()).await;
    let (other, neighbour) = store.running(spec()).await;
    assert_eq!(store.signals(session).await.cancels, []);
    assert_eq!(store.act_one(task.id, Action::Cancel).await, Acted::Signalled);
    assert_eq!(store.act_one(task.id, Action::Cancel).await, Acted::Signalled, "a repeat");
    let state = store.record(task.id).await.state;
    assert_eq!((state.status, state.cancel_requested), (Status::Running, true));
    for _ in 0..2 {
        assert_eq!(store.signals(session).await.cancels, [(task.id, task.claim)]);
        assert_eq!(store.signals(other).await.cancels, []);
    }
    store.end(&task, Settlement::Fail { reason: FailureReason::Cancelled, error: None }).await;
    assert_eq!(store.signals(session).await.cancels, []);
    let state = store.record(task.id).await.state;
    assert_eq!((state.reason, state.cancel_requested), (Some(FailureReason::Cancelled), false));
    assert!(!store.record(neighbour.id).await.state.cancel_requested);
}

/// "A completion may win."
pub async fn a_completion_may_win(store: Subject) {
    let (session, task) = store.running(spec()).await;
    assert_eq!(store.act_one(task.id, Action::Cancel).await, Acted::Signalled);
    store.end(&task, complete()).await;
    let state = store.record(task.id).await.state;
    assert_eq!((state.status, state.cancel_requested), (Status::Completed, false));
    assert_eq!(store.signals(session).await.cancels, []);
}

/// A request belongs to the run that it found: once that is settled, the next run is not cancelled by it.
pub async fn a_request_does_not_reach_the_next_run(store: Subject) {
    let (session, task) = store.running(spec()).await;
    assert_eq!(store.act_one(task.id, Action::Cancel).await, Acted::Signalled);
    store.end(&task, Settlement::Requeue { delay: Duration::ZERO, kind: Requeue::Snooze }).await;
    assert!(!store.record(task.id).await.state.cancel_requested);
    let again = store.grab_one(session).await;
    assert_eq!(again.id, task.id);
    assert_eq!(store.signals(session).await.cancels, []);
    assert!(!store.record(task.id).await.state.cancel_requested);
    assert_eq!(store.act_one(task.id, Action::Cancel).await, Acted::Signalled);
    assert_eq!(store.signals(session).await.cancels, [(task.id, again.claim)]);
}

/// A request that comes while the task is being settled, before or after: in the end no signal is left.
pub async fn a_request_races_a_settle(store: Subject) {
    for _ in 0..10 {
        let (session, task) = store.running(spec()).await;
        let (one, other, id) = (store.clone(), store.clone(), task.id);
        let cancelling = tokio::spawn(async move { one.act_one(id, Action::Cancel).await });
        let settling = tokio::spawn(async move { other.end(&task, complete()).await });
        settling.await.unwrap();
        let acted = cancelling.await.unwrap();
        let state = store.record(id).await.state;
        assert_eq!((state.status, state.cancel_requested), (Status::Completed, false));
        assert!(matches!(acted, Acted::Signalled | Acted::Refused(_)), "{acted:?}");
        assert_eq!(store.signals(session).await.cancels, []);
    }
}

/// What has ended cannot be cancelled, and what is not there is not found.
pub async fn what_has_ended_is_refused(store: Subject) {
    let (_, task) = store.running(spec()).await;
    store.end(&task, complete()).await;
    let failed = store.put(spec()).await;
    store.act_one(failed, Action::Cancel).await;
    for id in [task.id, failed] {
        let before = store.record(id).await;
        assert!(matches!(store.act_one(id, Action::Cancel).await, Acted::Refused(_)));
        assert_eq!(store.record(id).await, before);
    }
    let unknown = store.named([spec()]).await.remove(0).id;
    assert_eq!(store.act_one(unknown, Action::Cancel).await, Acted::NotFound);
}
