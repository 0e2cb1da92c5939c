//! The history of failed attempts, and the last error.

use std::time::Duration;

use queue_core::record::ATTEMPTS_MAX;
use queue_core::settlement::Requeue;
use queue_core::{FailureReason, Fence, Retry, Settlement, TaskResult, TaskSpec};

use super::Subject;
use super::subject::{complete, spec};

fn retry(error: &str) -> Settlement {
    Settlement::Requeue { delay: Duration::ZERO, kind: Requeue::Retry { error: error.into() } }
}

/// Each failed attempt is a row, the latest first, with the claim count that tells it apart.
pub async fn failed_attempts_are_kept(store: Subject) {
    let (session, mut task) = store.running(TaskSpec { retry: Retry::DEFAULT.attempts(9), ..spec() }).await;
    let recover = Requeue::Recover { error: "lost".into() };
    let ends = [
        retry("one"),
        Settlement::Requeue { delay: Duration::ZERO, kind: Requeue::Snooze },
        Settlement::Requeue { delay: Duration::ZERO, kind: recover },
        Settlement::Fail { reason: FailureReason::Rejected, error: Some("three".into()) },
    ];
    let mut wanted = Vec::new();
    for settlement in ends {
        let before = store.now().await;
        store.end(&task, settlement.clone()).await;
        if let Some(error) = settlement.error() {
            let told =
                (task.fence, task.attempt, settlement.label().to_owned(), error.clone(), task.started_at, before);
            wanted.insert(0, told);
            assert_eq!(store.record(task.id).await.last_error.as_ref(), Some(error));
        }
        if settlement.status() == queue_core::Status::Queued {
            task = store.grab_one(session).await;
        }
    }
    let after = store.now().await;
    let attempts = store.attempts(task.id).await.unwrap();
    assert_eq!(attempts.len(), wanted.len());
    for (attempt, (fence, number, outcome, error, started_at, before)) in attempts.into_iter().zip(wanted) {
        assert_eq!((attempt.task, attempt.fence, attempt.attempt), (task.id, fence, number));
        assert_eq!((attempt.outcome, attempt.error, attempt.started_at), (outcome, error, started_at));
        assert!(before <= attempt.ended_at && attempt.ended_at <= after);
    }
}

/// What ends without an error leaves no row, and an earlier last error in its place.
pub async fn an_end_without_an_error_leaves_the_last_one(store: Subject) {
    for last in [complete(), Settlement::Fail { reason: FailureReason::BudgetExceeded, error: None }] {
        let (session, task) = store.running(spec()).await;
        store.end(&task, retry("first")).await;
        let task = store.grab_one(session).await;
        store.end(&task, last).await;
        assert_eq!(store.record(task.id).await.last_error, Some("first".into()));
        assert_eq!(store.attempts(task.id).await.unwrap().len(), 1);
    }
}

/// "Free on success": a task that completes at its first attempt has no history.
pub async fn success_leaves_no_history(store: Subject) {
    let (_, task) = store.running(spec()).await;
    store.end(&task, Settlement::Complete { result: TaskResult::Value(b"1".as_slice().into()) }).await;
    assert_eq!(store.attempts(task.id).await.unwrap(), []);
    assert_eq!(store.record(task.id).await.last_error, None);
}

/// An end without a run is no attempt.
pub async fn an_end_without_a_run_is_no_attempt(store: Subject) {
    let id = store.put(spec()).await;
    store.act_one(id, queue_core::admin::Action::Cancel).await;
    assert_eq!(store.attempts(id).await.unwrap(), []);
}

/// The latest of them are kept, and no more.
pub async fn no_more_than_a_hundred_are_told(store: Subject) {
    let (session, mut task) = store.running(TaskSpec { retry: Retry::DEFAULT.attempts(500), ..spec() }).await;
    for number in 0..ATTEMPTS_MAX + 3 {
        store.end(&task, retry(&number.to_string())).await;
        task = store.grab_one(session).await;
    }
    let attempts = store.attempts(task.id).await.unwrap();
    assert_eq!(attempts.len(), ATTEMPTS_MAX);
    assert_eq!((attempts[0].fence, attempts[ATTEMPTS_MAX - 1].fence), (Fence::new(103), Fence::new(4)));
    assert_eq!((attempts[0].error.as_str(), attempts[ATTEMPTS_MAX - 1].error.as_str()), ("102", "3"));
}

/// Runs that ended without an error take no room: what is kept is counted in failures, not in claims.
pub async fn only_failures_count(store: Subject) {
    let (session, mut task) = store.running(TaskSpec { retry: Retry::DEFAULT.attempts(500), ..spec() }).await;
    let snooze = Settlement::Requeue { delay: Duration::ZERO, kind: Requeue::Snooze };
    for number in 0..60 {
        store.end(&task, retry(&number.to_string())).await;
        task = store.grab_one(session).await;
        store.end(&task, snooze.clone()).await;
        task = store.grab_one(session).await;
    }
    let errors: Vec<_> = store.attempts(task.id).await.unwrap().into_iter().map(|one| one.error).collect();
    assert_eq!(errors, (0..60).rev().map(|number| number.to_string().into()).collect::<Vec<_>>());
}
