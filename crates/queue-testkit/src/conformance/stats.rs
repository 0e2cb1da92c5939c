//! How the queues stand.

use std::time::Duration;

use queue_core::admin::{Count, QueueStats};
use queue_core::{FailureReason, QueueName, Settlement, Start, TaskSpec};

use super::Subject;
use super::subject::{complete, in_queue};

const fn exactly(number: u64) -> Count {
    Count { number, more: false }
}

async fn of_queue(store: &Subject, queue: &'static str) -> QueueStats {
    let queue = QueueName::new(queue);
    store.stats().await.unwrap().queues.into_iter().find(|stats| stats.queue == queue).unwrap()
}

/// Each queue's tasks are counted by where they stand.
pub async fn tasks_are_counted_by_queue(store: Subject) {
    let later = |queue| TaskSpec { start: Start::After(Duration::from_secs(3600)), ..in_queue(queue) };
    let session = store.session().await;
    store.put_all((0..6).map(|_| in_queue("a"))).await;
    let tasks = store.grab_all(session, 6).await;
    for task in &tasks[..3] {
        store.end(task, complete()).await;
    }
    store.end(&tasks[3], Settlement::Fail { reason: FailureReason::Rejected, error: None }).await;
    store.put_all([in_queue("a"), in_queue("b"), later("b"), later("b"), in_queue("a"), in_queue("a")]).await;
    let a = of_queue(&store, "a").await;
    assert_eq!((a.ready, a.later, a.running), (exactly(3), exactly(0), exactly(2)));
    assert_eq!((a.completed_last_minute, a.failed_last_day, a.paused), (exactly(3), exactly(1), None));
    let b = of_queue(&store, "b").await;
    assert_eq!((b.ready, b.later, b.running), (exactly(1), exactly(2), exactly(0)));
    assert_eq!((b.completed_last_minute, b.failed_last_day), (exactly(0), exactly(0)));
}

/// How long the oldest due task has waited; none where nothing is due.
pub async fn the_oldest_due_task_is_told(store: Subject) {
    let first = store.put(in_queue("a")).await;
    store.put(in_queue("a")).await;
    store.put(TaskSpec { start: Start::After(Duration::from_secs(3600)), ..in_queue("b") }).await;
    let run_at = store.record(first).await.state.run_at;
    let before = store.now().await;
    let waited = of_queue(&store, "a").await.oldest_ready.unwrap();
    let after = store.now().await;
    assert!(before.since(run_at) <= waited && waited <= after.since(run_at), "{waited:?}");
    assert_eq!(of_queue(&store, "b").await.oldest_ready, None);
}

/// "Every queue that was ever used, by name", also when nothing of it is left.
pub async fn a_queue_once_used_stays_known(store: Subject) {
    assert_eq!(store.stats().await.unwrap().queues, []);
    let session = store.session().await;
    for name in ["m", "z", "a"] {
        store.put(in_queue(name)).await;
        let task = store.grab_one(session).await;
        store.end(&task, complete()).await;
        store.act_one(task.id, queue_core::admin::Action::Delete).await;
    }
    let queues = store.stats().await.unwrap().queues;
    assert_eq!(queues.iter().map(|one| one.queue.as_str()).collect::<Vec<_>>(), ["a", "m", "z"]);
    for one in queues {
        assert_eq!((one.ready, one.later, one.running, one.oldest_ready), (exactly(0), exactly(0), exactly(0), None));
    }
}

/// Sessions that are alive: opened and not ended.
pub async fn live_sessions_are_counted(store: Subject) {
    let before = store.now().await;
    assert_eq!(store.stats().await.unwrap().sessions, 0);
    let one = store.session().await;
    store.session().await;
    assert_eq!(store.stats().await.unwrap().sessions, 2);
    store.close_session(one).await.unwrap();
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.sessions, 1);
    assert!(before <= stats.now && stats.now <= store.now().await);
}
