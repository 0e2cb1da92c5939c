//! Finding tasks whose worker is gone, and recovering them.

use std::time::Duration;

use queue_core::admin::{Acted, Action};
use queue_core::reap::Lost;
use queue_core::{
    FailureReason, Jitter, Outcome, Retry, SessionId, Settle, Settled, Settlement, Status, TaskId, TaskSpec,
};

use super::Subject;
use super::subject::{complete, spec};

fn ids(lost: &Lost) -> Vec<TaskId> {
    lost.tasks.iter().map(|task| task.id).collect()
}

/// Settles a lost task as a reaper does.
async fn recover(store: &Subject, lost: &Lost, at: usize) -> Settled {
    let task = &lost.tasks[at];
    let settlement = Settlement::decide(&task.run, Outcome::Lost, lost.now, Jitter::ZERO);
    store.settle_one(Settle::by_reaper(task.id, task.claim, store.claim_id(), settlement)).await
}

async fn row_is_gone(store: &Subject, session: SessionId) {
    store
        .until("the fenced session's row to go", async |store| {
            store.lost(100).await.unwrap();
            store.sessions().await.unwrap().iter().all(|one| one.id != session)
        })
        .await;
}

/// Only tasks of fenced sessions are lost, by id, each with all that the decision about it needs.
pub async fn tells_tasks_of_fenced_sessions(store: Subject) {
    let wanted = store.put_all((0..3).map(|_| TaskSpec { retry: Retry::DEFAULT.attempts(7), ..spec() })).await;
    let dead = store.session().await;
    let mut held = store.grab_all(dead, 1).await;
    held.extend(store.grab_all(dead, 2).await);
    held.sort_by_key(|task| task.id);
    let (_, alive) = store.running(spec()).await;
    store.put(spec()).await;
    assert_eq!(store.lost(100).await.unwrap().tasks, []);
    let before = store.now().await;
    store.close_session(dead).await.unwrap();
    let lost = store.lost(100).await.unwrap();
    assert!(lost.now >= before);
    assert_eq!(ids(&lost), wanted);
    for (task, held) in lost.tasks.iter().zip(&held) {
        assert_eq!(
            (task.id, task.claim, &task.task_type, &task.run),
            (held.id, held.claim, &held.task_type, &held.run())
        );
    }
    assert_eq!(store.record(alive.id).await.state.status, Status::Running);
}

/// "Finding a task here changes nothing about it": it is found again until it is settled.
pub async fn finding_changes_nothing(store: Subject) {
    let (session, task) = store.running(spec()).await;
    store.close_session(session).await.unwrap();
    let before = store.record(task.id).await;
    for _ in 0..3 {
        assert_eq!(ids(&store.lost(100).await.unwrap()), [task.id]);
        assert_eq!(store.record(task.id).await.state, before.state);
    }
    store.end(&task, complete()).await;
    assert_eq!(store.lost(100).await.unwrap().tasks, []);
}

/// No more than the limit at a time, and in the end all of them.
pub async fn tells_no_more_than_the_limit(store: Subject) {
    let wanted = store.put_all((0..7).map(|_| spec())).await;
    let session = store.session().await;
    store.grab_all(session, 7).await;
    store.close_session(session).await.unwrap();
    let mut recovered = Vec::new();
    while recovered.len() < 7 {
        let lost = store.lost(3).await.unwrap();
        assert!(!lost.tasks.is_empty() && lost.tasks.len() <= 3, "{lost:?}");
        for at in 0..lost.tasks.len() {
            assert_eq!(recover(&store, &lost, at).await, Settled::Applied);
            recovered.push(lost.tasks[at].id);
        }
    }
    recovered.sort_unstable();
    assert_eq!(recovered, wanted);
    assert_eq!(store.lost(3).await.unwrap().tasks, []);
    row_is_gone(&store, session).await;
}

/// A session whose lease ended is fenced, its task found, given to another, and the late holder is stale.
pub async fn a_lost_task_is_run_again_by_another(store: Subject) {
    let id = store.put(spec()).await;
    let dead = store.open(Duration::from_millis(1)).await;
    let first = store.grab_one(dead).await;
    store.until("the lease to end", async |store| !store.fence_expired(10).await.unwrap().is_empty()).await;
    let lost = store.lost(10).await.unwrap();
    assert_eq!(recover(&store, &lost, 0).await, Settled::Applied);
    let state = store.record(id).await.state;
    assert_eq!((state.status, state.losses, state.attempt), (Status::Queued, 1, 1));
    let alive = store.session().await;
    let second = store.grab_one(alive).await;
    assert_eq!((second.id, second.attempt, second.losses), (id, 2, 1));
    let late = Settle::by_holder(first.id, first.claim, complete());
    assert_eq!(store.settle_one(late).await, Settled::Stale);
    store.end(&second, complete()).await;
    row_is_gone(&store, dead).await;
}

/// "A task that kills its worker N times ends as crashed", after exactly its attempts.
pub async fn a_task_that_kills_its_workers_crashes(store: Subject) {
    let id = store.put(TaskSpec { retry: Retry::DEFAULT.attempts(3), ..spec() }).await;
    for attempt in 1..=3 {
        let session = store.session().await;
        let task = store.grab_one(session).await;
        assert_eq!((task.id, task.attempt, task.losses), (id, attempt, attempt - 1));
        store.close_session(session).await.unwrap();
        let lost = store.lost(10).await.unwrap();
        assert_eq!(recover(&store, &lost, 0).await, Settled::Applied);
    }
    let state = store.record(id).await.state;
    assert_eq!((state.status, state.reason, state.attempt), (Status::Failed, Some(FailureReason::Crashed), 3));
    let attempts = store.attempts(id).await.unwrap();
    let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt.outcome.as_str()).collect();
    assert_eq!(outcomes, ["crashed", "retried", "retried"]);
}

/// A lost task that an operator wanted cancelled is not run again.
pub async fn a_cancel_request_is_told_of_a_lost_task(store: Subject) {
    let (session, task) = store.running(spec()).await;
    assert_eq!(store.act_one(task.id, Action::Cancel).await, Acted::Signalled);
    store.close_session(session).await.unwrap();
    let lost = store.lost(10).await.unwrap();
    assert!(lost.tasks[0].run.cancel_requested);
    assert_eq!(recover(&store, &lost, 0).await, Settled::Applied);
    let state = store.record(task.id).await.state;
    assert_eq!((state.status, state.reason), (Status::Failed, Some(FailureReason::Cancelled)));
    assert!(!state.cancel_requested);
}

/// "A fenced session's row goes only when no claim of it is left": as long as one is, it is there.
pub async fn the_row_stays_as_long_as_a_task_is_held(store: Subject) {
    store.put_all([spec(), spec()]).await;
    let session = store.session().await;
    let tasks = store.grab_all(session, 2).await;
    store.close_session(session).await.unwrap();
    for task in tasks {
        for _ in 0..2 {
            assert!(ids(&store.lost(10).await.unwrap()).contains(&task.id));
            assert!(store.sessions().await.unwrap().iter().any(|one| one.id == session));
        }
        store.end(&task, complete()).await;
    }
    row_is_gone(&store, session).await;
}

/// Several reapers at once: each lost task is recovered once.
pub async fn several_reapers_recover_each_task_once(store: Subject) {
    let wanted = store.put_all((0..20).map(|_| spec())).await;
    let session = store.session().await;
    store.grab_all(session, 20).await;
    store.close_session(session).await.unwrap();
    let reapers = (0..4).map(|_| {
        let store = store.clone();
        async move {
            let mut applied = Vec::new();
            for _ in 0..30 {
                let lost = super::subject::persist(|| store.lost(5)).await;
                for task in &lost.tasks {
                    let settlement = Settlement::decide(&task.run, Outcome::Lost, lost.now, Jitter::ZERO);
                    let settle = Settle::by_reaper(task.id, task.claim, store.claim_id(), settlement);
                    let batch: std::sync::Arc<[_]> = [settle].into();
                    if super::subject::persist(|| store.settle(batch.clone())).await == [Settled::Applied] {
                        applied.push(task.id);
                    }
                }
            }
            applied
        }
    });
    let mut applied: Vec<_> = super::subject::at_once(reapers).await.into_iter().flatten().collect();
    applied.sort_unstable();
    assert_eq!(applied, wanted);
    for id in wanted {
        assert_eq!(store.record(id).await.state.losses, 1);
    }
}

/// The store's clock goes on, and the mark of the server stays as long as the server does.
pub async fn the_time_is_the_stores(store: Subject) {
    let first = store.time().await.unwrap();
    let id = store.put(spec()).await;
    let second = store.time().await.unwrap();
    assert!(first.now <= second.now);
    assert_eq!(first.server, second.server);
    let created = store.record(id).await.state.created_at;
    assert!(first.now <= created && created <= second.now);
}
