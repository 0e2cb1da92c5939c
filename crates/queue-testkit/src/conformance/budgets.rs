//! Wall-clock budgets: sweeping what waited too long.

use std::collections::BTreeSet;
use std::time::Duration;

use queue_core::budget::Budget;
use queue_core::claim::Ended;
use queue_core::settlement::Requeue;
use queue_core::{ClaimedTask, FailureReason, Settlement, Start, Status, TaskId, TaskSpec, Timestamp};

use super::Subject;
use super::subject::{OTHER, TYPE, complete, in_queue, of_type, spec};

fn short(spec: TaskSpec) -> TaskSpec {
    TaskSpec { budget: Budget::of(Duration::from_millis(1)), ..spec }
}

async fn spent(store: &Subject, ids: &[TaskId]) {
    for id in ids {
        store.past(store.record(*id).await.state.deadline_at.unwrap()).await;
    }
}

/// A task that runs with so little budget that it is soon spent, and yet enough to be claimed on a slow machine.
async fn running_out(store: &Subject) -> ClaimedTask {
    let session = store.session().await;
    for millis in [100, 500, 2_500, 12_500] {
        let id = store.put(TaskSpec { budget: Budget::of(Duration::from_millis(millis)), ..spec() }).await;
        if let Some(task) = store.grab(session, 1).await.pop() {
            assert_eq!(task.id, id);
            return task;
        }
    }
    panic!("no claim within 12 s");
}

/// A sweep fails what is past its deadline "whatever its type", due or not, paused or not, and nothing else.
pub async fn a_sweep_fails_what_is_spent(store: Subject) {
    let alive = store
        .put_all([
            spec(),
            TaskSpec { budget: Budget::NONE, ..spec() },
            TaskSpec { start: Start::After(Duration::from_secs(3600)), ..short(spec()) },
        ])
        .await;
    let dead = store.put_all([short(spec()), short(of_type(OTHER)), short(in_queue("paused"))]).await;
    let pause = queue_core::admin::Pause { by: "ana".into(), why: String::new(), at: Timestamp::EPOCH };
    store.set_paused("paused".parse().unwrap(), Some(pause), "ana").await.unwrap();
    spent(&store, &dead).await;
    let before = store.now().await;
    let mut ended = Vec::new();
    for _ in 0..100 {
        let swept = store.expire(100).await.unwrap();
        ended.extend(swept.ended);
        if swept.finished {
            break;
        }
    }
    ended.sort_by_key(|ended| ended.id);
    let types = [TYPE, OTHER, TYPE];
    let wanted: Vec<_> = dead
        .iter()
        .zip(types)
        .map(|(&id, task_type)| Ended { id, task_type, reason: FailureReason::BudgetExceeded })
        .collect();
    assert_eq!(ended, wanted);
    for id in dead {
        let state = store.record(id).await.state;
        assert_eq!((state.status, state.reason), (Status::Failed, Some(FailureReason::BudgetExceeded)));
        assert!(state.completed_at.is_some_and(|at| at >= before));
    }
    for id in alive {
        assert_eq!(store.record(id).await.state.status, Status::Queued);
    }
    assert_eq!(store.sweep(100).await, []);
}

/// "Repeated calls until finished have looked at all of it", whatever the limit; the next call begins anew.
pub async fn repeated_sweeps_look_at_everything(store: Subject) {
    for round in 0..2 {
        store.put_all((0..30).map(|_| spec())).await;
        let dead = store.put_all((0..25).map(|number| short(in_queue(["a", "b", "c"][number % 3])))).await;
        store.put_all((0..30).map(|_| spec())).await;
        spent(&store, &dead).await;
        let mut ended = store.sweep(4).await;
        // A sweep that began in the middle of what waits sees the rest with the next.
        ended.extend(store.sweep(4).await);
        assert_eq!(ended.len(), 25, "round {round}");
        assert_eq!(ended.into_iter().collect::<BTreeSet<_>>(), dead.into_iter().collect());
    }
    assert_eq!(store.sweep(4).await, []);
}

/// An empty store is swept in bounded steps as well.
pub async fn an_empty_sweep_finishes(store: Subject) {
    assert_eq!(store.sweep(10).await, []);
    assert_eq!(store.sweep(1).await, []);
}

/// What runs is not swept, whatever its deadline: its handler is cancelled by who runs it, and success stays success.
pub async fn what_runs_is_not_swept(store: Subject) {
    let task = running_out(&store).await;
    spent(&store, &[task.id]).await;
    assert!(!store.sweep(10).await.contains(&task.id));
    store.end(&task, complete()).await;
    assert_eq!(store.record(task.id).await.state.status, Status::Completed);
}

/// A task that waits for its next attempt is swept like any other, and keeps what is known of it.
pub async fn a_task_between_attempts_is_swept(store: Subject) {
    let task = running_out(&store).await;
    let kind = Requeue::Retry { error: "first".into() };
    store.end(&task, Settlement::Requeue { delay: Duration::from_secs(60), kind }).await;
    spent(&store, &[task.id]).await;
    assert_eq!(store.sweep(10).await, [task.id]);
    let record = store.record(task.id).await;
    assert_eq!((record.state.reason, record.state.attempt), (Some(FailureReason::BudgetExceeded), 1));
    assert_eq!(record.last_error, Some("first".into()));
    assert_eq!(store.attempts(task.id).await.unwrap().len(), 1);
}

/// Two sweepers at once fail each task once.
pub async fn two_sweepers_fail_each_task_once(store: Subject) {
    let dead = store.put_all((0..40).map(|_| short(spec()))).await;
    spent(&store, &dead).await;
    let sweepers = (0..3).map(|_| {
        let store = store.clone();
        async move {
            let mut ended = Vec::new();
            for _ in 0..40 {
                let swept = super::subject::persist(|| store.expire(5)).await;
                ended.extend(swept.ended.into_iter().map(|ended| ended.id));
            }
            ended
        }
    });
    let mut ended: Vec<_> = super::subject::at_once(sweepers).await.into_iter().flatten().collect();
    ended.extend(store.sweep(5).await);
    ended.sort_unstable();
    assert_eq!(ended, dead);
}
