//! Pausing queues.

use queue_core::admin::Pause;
use queue_core::{QueueName, Status, Timestamp};

use super::Subject;
use super::subject::in_queue;

fn pause(why: impl Into<String>) -> Option<Pause> {
    Some(Pause { by: "ana".into(), why: why.into(), at: Timestamp::EPOCH })
}

async fn paused(store: &Subject, queue: &QueueName) -> Option<Pause> {
    let stats = store.stats().await.unwrap().queues;
    stats.into_iter().find(|stats| stats.queue == *queue).and_then(|stats| stats.paused)
}

/// "Nothing of it is claimed by any process until it is resumed"; other queues go on.
pub async fn a_paused_queue_is_not_claimed(store: Subject) {
    let ids = store.put_all(["a", "b", "a"].map(in_queue)).await;
    let queue = QueueName::new("a");
    store.set_paused(queue.clone(), pause("outage"), "ana").await.unwrap();
    let sessions = [store.session().await, store.session().await];
    let mut taken = Vec::new();
    for session in sessions {
        taken.extend(store.grab(session, 10).await.into_iter().map(|task| task.id));
    }
    assert_eq!(taken, [ids[1]]);
    let more = store.put(in_queue("a")).await;
    assert_eq!(store.grab(sessions[0], 10).await, []);
    store.set_paused(queue, None, "ana").await.unwrap();
    let taken: Vec<_> = store.grab_all(sessions[1], 3).await.into_iter().map(|task| task.id).collect();
    assert_eq!(taken, [ids[0], ids[2], more]);
}

/// "The queue need not have been used yet", and resuming one that was never paused is fine.
pub async fn an_unused_queue_can_be_paused(store: Subject) {
    let queue = QueueName::new("unused");
    store.set_paused(queue.clone(), None, "ana").await.unwrap();
    store.set_paused(queue.clone(), pause(""), "ana").await.unwrap();
    let id = store.put(in_queue("unused")).await;
    let session = store.session().await;
    assert_eq!(store.grab(session, 10).await, []);
    assert_eq!(store.signals(session).await.paused, std::slice::from_ref(&queue));
    store.set_paused(queue, None, "ana").await.unwrap();
    assert_eq!(store.grab_one(session).await.id, id);
    assert_eq!(store.signals(session).await.paused, []);
}

/// Who paused it and why is told; "the pause's own time is not read; the store's now is kept".
pub async fn tells_by_whom_and_why(store: Subject) {
    store.put(in_queue("a")).await;
    let queue = QueueName::new("a");
    assert_eq!(paused(&store, &queue).await, None);
    let before = store.now().await;
    store.set_paused(queue.clone(), pause("PSP outage"), "ana").await.unwrap();
    let told = paused(&store, &queue).await.unwrap();
    assert_eq!((told.by.as_str(), told.why.as_str()), ("ana", "PSP outage"));
    assert!(before <= told.at && told.at <= store.now().await, "{told:?}");
    store.set_paused(queue.clone(), pause("still"), "bob").await.unwrap();
    assert_eq!(paused(&store, &queue).await.unwrap().why, "still");
    store.set_paused(queue.clone(), None, "ana").await.unwrap();
    assert_eq!(paused(&store, &queue).await, None);
}

/// Long texts are cut between characters: 64 bytes of who, 200 of why.
pub async fn long_texts_are_cut(store: Subject) {
    let queue = QueueName::new("a");
    let (by, why) = ("é".repeat(40), "\u{1f980}".repeat(60));
    store.put(in_queue("a")).await;
    let long = Pause { by: by.clone(), why: why.clone(), at: Timestamp::EPOCH };
    store.set_paused(queue.clone(), Some(long), &"x".repeat(500)).await.unwrap();
    let told = paused(&store, &queue).await.unwrap();
    assert!(by.starts_with(&told.by) && told.by.len() == 64, "{told:?}");
    assert!(why.starts_with(&told.why) && told.why.len() == 200, "{told:?}");
}

/// A task that runs is not touched when its queue is paused: it may be settled, and waits then.
pub async fn what_runs_goes_on(store: Subject) {
    let (session, task) = store.running(in_queue("a")).await;
    store.set_paused(QueueName::new("a"), pause(""), "ana").await.unwrap();
    assert_eq!(store.record(task.id).await.state.status, Status::Running);
    let snooze = queue_core::settlement::Requeue::Snooze;
    store.end(&task, queue_core::Settlement::Requeue { delay: std::time::Duration::ZERO, kind: snooze }).await;
    assert_eq!(store.grab(session, 10).await, []);
    assert_eq!(store.record(task.id).await.state.status, Status::Queued);
}
