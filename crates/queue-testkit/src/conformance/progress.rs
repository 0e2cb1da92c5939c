//! How far runs have come.

use std::time::Duration;

use queue_core::progress::ProgressUpdate;
use queue_core::settlement::Requeue;
use queue_core::{ClaimId, Percent, Progress, Settlement, TaskId};

use super::Subject;
use super::subject::{complete, spec};

fn update(task: TaskId, claim: ClaimId, percent: u8) -> ProgressUpdate {
    ProgressUpdate { task, claim, progress: Progress::new(Percent::new(percent), format!("at {percent}")) }
}

async fn percent(store: &Subject, task: TaskId) -> Option<u8> {
    store.record(task).await.progress.map(|progress| progress.percent().get())
}

/// Progress of running tasks is recorded, the latest last, many in one batch; an empty batch is a batch.
pub async fn is_recorded(store: Subject) {
    store.put_all((0..3).map(|_| spec())).await;
    let session = store.session().await;
    let tasks = store.grab_all(session, 3).await;
    store.progress(Vec::new()).await.unwrap();
    for step in [10, 50] {
        let batch = tasks.iter().zip(0..).map(|(task, more)| update(task.id, task.claim, step + more)).collect();
        store.progress(batch).await.unwrap();
        for (task, more) in tasks.iter().zip(0..) {
            let progress = store.record(task.id).await.progress.unwrap();
            assert_eq!(progress, update(task.id, task.claim, step + more).progress);
        }
    }
}

/// "A stale claim writes nothing": not for a foreign claim, a task that waits, or one that has ended.
pub async fn of_a_stale_claim_is_dropped(store: Subject) {
    let (session, first) = store.running(spec()).await;
    store.progress(vec![update(first.id, store.claim_id(), 5)]).await.unwrap();
    assert_eq!(percent(&store, first.id).await, None);
    store.end(&first, Settlement::Requeue { delay: Duration::ZERO, kind: Requeue::Snooze }).await;
    store.progress(vec![update(first.id, first.claim, 6)]).await.unwrap();
    assert_eq!(percent(&store, first.id).await, None);
    let second = store.grab_one(session).await;
    store.progress(vec![update(first.id, first.claim, 7), update(second.id, second.claim, 8)]).await.unwrap();
    assert_eq!(percent(&store, second.id).await, Some(8));
    store.end(&second, complete()).await;
    store.progress(vec![update(second.id, second.claim, 9)]).await.unwrap();
    assert_eq!(percent(&store, second.id).await, Some(8));
}

/// Of one task in one batch the latest word of the current claim counts, whatever a stale one says before or after it.
pub async fn of_one_task_is_that_of_its_current_claim(store: Subject) {
    let (session, first) = store.running(spec()).await;
    store.end(&first, Settlement::Requeue { delay: Duration::ZERO, kind: Requeue::Snooze }).await;
    let second = store.grab_one(session).await;
    for (percents, wanted) in [([1, 2, 3], 2), ([6, 5, 4], 5)] {
        let [early, late, stale] = percents;
        let current = [early, late].map(|percent| update(second.id, second.claim, percent));
        let batch = [update(first.id, first.claim, 99)].into_iter().chain(current);
        store.progress(batch.chain([update(first.id, first.claim, stale)]).collect()).await.unwrap();
        assert_eq!(percent(&store, second.id).await, Some(wanted));
    }
}

/// A stale or unknown one in a batch does not keep the others from being written.
pub async fn of_others_is_not_affected_by_a_stale_one(store: Subject) {
    store.put_all([spec(), spec()]).await;
    let session = store.session().await;
    let tasks = store.grab_all(session, 2).await;
    let unknown = store.named([spec()]).await.remove(0).id;
    let batch = vec![
        update(tasks[0].id, store.claim_id(), 1),
        update(unknown, tasks[0].claim, 2),
        update(tasks[1].id, tasks[1].claim, 3),
    ];
    store.progress(batch).await.unwrap();
    assert_eq!((percent(&store, tasks[0].id).await, percent(&store, tasks[1].id).await), (None, Some(3)));
}

/// "Progress is kept as it stands" when a run ends, however it does, and when the next one begins.
pub async fn stays_when_a_run_ends(store: Subject) {
    let (session, task) = store.running(spec()).await;
    store.progress(vec![update(task.id, task.claim, 40)]).await.unwrap();
    store.end(&task, Settlement::Requeue { delay: Duration::ZERO, kind: Requeue::Snooze }).await;
    let again = store.grab_one(session).await;
    assert_eq!((again.id, percent(&store, task.id).await), (task.id, Some(40)));
    store.end(&again, complete()).await;
    for settlement in [complete(), Settlement::Requeue { delay: Duration::from_secs(60), kind: Requeue::Release }] {
        let (_, task) = store.running(spec()).await;
        store.progress(vec![update(task.id, task.claim, 40)]).await.unwrap();
        store.end(&task, settlement).await;
        assert_eq!(percent(&store, task.id).await, Some(40));
    }
}
