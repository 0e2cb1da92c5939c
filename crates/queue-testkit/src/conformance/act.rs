//! What operators do to tasks: retry, delete, selections.

use std::time::Duration;

use queue_core::admin::{Acted, Action, Filter, Selection};
use queue_core::budget::Budget;
use queue_core::settlement::Requeue;
use queue_core::{
    Event, FailureReason, Fence, Retry, Settlement, Start, Status, TaskId, TaskResult, TaskSpec, TransitionError,
    transition,
};

use super::Subject;
use super::subject::{OTHER, TYPE, complete, in_queue, of_type, spec};

fn reject() -> Settlement {
    Settlement::Fail { reason: FailureReason::Rejected, error: Some("no".into()) }
}

/// "Failed: queued again, with fresh attempts and a fresh budget"; the fence only rises.
pub async fn a_retry_grants_everything_afresh(store: Subject) {
    let wanted = TaskSpec { retry: Retry::NEVER, budget: Budget::of(Duration::from_secs(900)), ..spec() };
    let (session, task) = store.running(wanted).await;
    store.end(&task, Settlement::Fail { reason: FailureReason::Crashed, error: Some("gone".into()) }).await;
    let before = store.record(task.id).await;
    let earliest = store.now().await;
    assert_eq!(store.act_one(task.id, Action::Retry).await, Acted::Done);
    let after = store.record(task.id).await;
    assert!(earliest <= after.state.run_at && after.state.run_at <= store.now().await);
    assert_eq!(after.state, transition(&before.state, &Event::Retry, after.state.run_at).unwrap());
    let again = store.grab_one(session).await;
    assert_eq!((again.id, again.attempt, again.fence, again.losses), (task.id, 1, Fence::new(2), 0));
    store.end(&again, complete()).await;
    assert_eq!(store.attempts(task.id).await.unwrap().len(), 1, "the history stays");
}

/// A budget that was spent is granted afresh too, so that the task is not swept again at once.
pub async fn a_retry_of_a_spent_budget_runs(store: Subject) {
    let session = store.session().await;
    // The longer ones are for machines so slow that a short one is spent again before it is looked at.
    for budget in [50, 500, 5_000].map(Duration::from_millis) {
        let id = store.put(TaskSpec { budget: Budget::of(budget), ..spec() }).await;
        store.past(store.record(id).await.state.deadline_at.unwrap()).await;
        assert_eq!(store.sweep(10).await, [id]);
        assert_eq!(store.act_one(id, Action::Retry).await, Acted::Done);
        let state = store.record(id).await.state;
        assert_eq!(state.deadline_at, Some(state.run_at.after(budget)));
        let swept = store.sweep(10).await;
        if swept.is_empty() && store.grab(session, 1).await.pop().is_some_and(|task| task.id == id) {
            return;
        }
    }
    panic!("a task with a fresh budget is failed for the old one");
}

/// "Retry of a completed task is a typed error", and nothing but a failed one is retried.
pub async fn a_retry_of_anything_else_is_refused(store: Subject) {
    let (_, task) = store.running(spec()).await;
    let illegal = |status| Acted::Refused(TransitionError::Illegal { status, event: "retry" });
    assert_eq!(store.act_one(task.id, Action::Retry).await, illegal(Status::Running));
    store.end(&task, complete()).await;
    let before = store.record(task.id).await;
    assert_eq!(store.act_one(task.id, Action::Retry).await, Acted::Refused(TransitionError::RetryOfCompleted));
    assert_eq!(store.record(task.id).await, before);
    let queued = store.put(spec()).await;
    assert_eq!(store.act_one(queued, Action::Retry).await, illegal(Status::Queued));
    let unknown = store.named([spec()]).await.remove(0).id;
    assert_eq!(store.act_one(unknown, Action::Retry).await, Acted::NotFound);
}

/// A holder that repeats its settle after an operator's retry writes nothing over it.
pub async fn a_settle_after_a_retry_writes_nothing(store: Subject) {
    let (_, task) = store.running(spec()).await;
    store.end(&task, reject()).await;
    assert_eq!(store.act_one(task.id, Action::Retry).await, Acted::Done);
    let before = store.record(task.id).await;
    let settle = queue_core::Settle::by_holder(task.id, task.claim, reject());
    assert_ne!(store.settle_one(settle).await, queue_core::Settled::Applied);
    assert_eq!(store.record(task.id).await, before);
}

/// "Not running: every trace of it is removed."
pub async fn deleting_leaves_no_trace(store: Subject) {
    let (session, task) = store.running(spec()).await;
    let refused = Acted::Refused(TransitionError::Illegal { status: Status::Running, event: "delete" });
    assert_eq!(store.act_one(task.id, Action::Delete).await, refused);
    store.end(&task, Settlement::Requeue { delay: Duration::ZERO, kind: Requeue::Retry { error: "one".into() } }).await;
    let task = store.grab_one(session).await;
    store.end(&task, Settlement::Complete { result: TaskResult::Value(b"1".as_slice().into()) }).await;
    let (_, failed) = store.running(spec()).await;
    store.end(&failed, reject()).await;
    let due = store.put(spec()).await;
    let later = store.put(TaskSpec { start: Start::After(Duration::from_secs(60)), ..spec() }).await;
    for id in [task.id, failed.id, due, later] {
        assert_eq!(store.act_one(id, Action::Delete).await, Acted::Done);
        assert_eq!(store.get(id).await.unwrap(), None);
        assert_eq!(store.attempts(id).await.unwrap(), []);
        assert_eq!(store.act_one(id, Action::Delete).await, Acted::NotFound);
    }
    for status in Status::ALL {
        assert_eq!(store.ids(Filter { status: Some(*status), ..Filter::default() }).await, []);
    }
    let claimed = store.ask(store.request(session, 10)).await;
    assert_eq!((claimed.tasks, claimed.next_due), (vec![], None));
    assert_eq!(store.sweep(10).await, []);
}

/// "One answer per task", in the order in which they were named, each task by itself.
pub async fn one_answer_for_each_task(store: Subject) {
    let (_, running) = store.running(spec()).await;
    let queued = store.put(spec()).await;
    let unknown = store.named([spec()]).await.remove(0).id;
    let ids = vec![unknown, running.id, queued];
    let acted = store.act(Selection::Ids(ids.clone()), Action::Cancel, "ana").await.unwrap();
    assert_eq!(acted, ids.into_iter().zip([Acted::NotFound, Acted::Signalled, Acted::Done]).collect::<Vec<_>>());
    assert_eq!(store.act(Selection::Ids(vec![]), Action::Cancel, "ana").await.unwrap(), []);
}

/// A long selection is worked off whole.
pub async fn a_long_selection_is_worked_off(store: Subject) {
    let ids = store.put_all((0..1_500).map(|_| spec())).await;
    let acted = store.act(Selection::Ids(ids.clone()), Action::Cancel, "ana").await.unwrap();
    assert_eq!(acted.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    assert!(acted.iter().all(|(_, acted)| *acted == Acted::Done));
    let filter = Filter { status: Some(Status::Failed), ..Filter::default() };
    let acted =
        store.act(Selection::Matching { filter: filter.clone(), limit: 2_000 }, Action::Delete, "ana").await.unwrap();
    assert_eq!(acted.len(), 1_500);
    assert_eq!(store.ids(filter).await, []);
}

/// "Those that match, `limit` at most, in the order of the list."
pub async fn a_filter_selects_in_the_order_of_its_list(store: Subject) {
    let other = store.put(of_type(OTHER)).await;
    let elsewhere = store.put(in_queue("elsewhere")).await;
    let ids = store.put_all((0..6).map(|_| spec())).await;
    let filter = Filter {
        status: Some(Status::Queued),
        task_type: Some(TYPE),
        queue: Some(queue_core::QueueName::DEFAULT),
        ..Filter::default()
    };
    let wanted: Vec<TaskId> = store.ids(filter.clone()).await;
    assert_eq!(wanted, ids);
    let first = Selection::Matching { filter: filter.clone(), limit: 4 };
    let acted = store.act(first, Action::Cancel, "ana").await.unwrap();
    assert_eq!(acted, ids[..4].iter().map(|id| (*id, Acted::Done)).collect::<Vec<_>>());
    let cancelled = Filter { reason: Some(FailureReason::Cancelled), ..Filter::default() };
    assert_eq!(store.ids(cancelled.clone()).await.len(), 4);
    let all = Selection::Matching { filter: cancelled, limit: 100 };
    assert_eq!(store.act(all, Action::Retry, "ana").await.unwrap().len(), 4);
    assert_eq!(store.ids(filter).await.len(), 6);
    for id in [other, elsewhere] {
        assert_eq!(store.record(id).await.state.fence, Fence::default());
        assert_eq!(store.record(id).await.state.status, Status::Queued);
    }
}

/// "An empty filter is refused": it never means everything.
pub async fn an_empty_filter_is_refused(store: Subject) {
    let id = store.put(spec()).await;
    let before = store.record(id).await;
    for action in [Action::Cancel, Action::Retry, Action::Delete] {
        let everything = Selection::Matching { filter: Filter::default(), limit: 10 };
        let error = store.act(everything, action, "ana").await.unwrap_err();
        assert!(!error.is_transient(), "trying again would not help: {error}");
    }
    assert_eq!(store.record(id).await, before);
}

/// "One answer per task, also where it is named twice": it is acted on once.
pub async fn a_task_named_twice_is_one(store: Subject) {
    let (one, two) = (store.put(spec()).await, store.put(spec()).await);
    for action in [Action::Cancel, Action::Retry, Action::Delete] {
        let acted = store.act(Selection::Ids(vec![two, one, two]), action, "suite").await.unwrap();
        assert_eq!(acted, [(two, Acted::Done), (one, Acted::Done)], "{action:?}");
    }
    assert_eq!(store.ids(Filter::default()).await, []);
}
