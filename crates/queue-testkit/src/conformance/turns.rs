//! Queues take turns.

use queue_core::admin::Filter;
use queue_core::{Priority, QueueName, Status, TaskSpec};

use super::Subject;
use super::subject::in_queue;

/// Claims this many tasks at a time, until the short queues are empty; how many of the long one were taken by then.
async fn taken_of_the_long_queue(store: &Subject, tasks: usize, short: &[&'static str]) -> usize {
    let session = store.session().await;
    let mut long = 0;
    loop {
        let taken = store.grab(session, tasks).await;
        assert!(!taken.is_empty(), "nothing was taken while something was due");
        long += taken.iter().filter(|task| task.queue.as_str() == "long").count();
        let mut left = 0;
        for name in short {
            let queue = Some(QueueName::new(name));
            left += store.ids(Filter { status: Some(Status::Queued), queue, ..Filter::default() }).await.len();
        }
        if left == 0 {
            return long;
        }
    }
}

/// "A long one cannot starve the others": they are served long before it is empty.
pub async fn a_long_queue_starves_no_other(store: Subject) {
    store.put_all((0..120).map(|_| in_queue("long"))).await;
    store.put_all(["b", "m", "z"].iter().cycle().take(9).map(|name| in_queue(name))).await;
    let long = taken_of_the_long_queue(&store, 4, &["b", "m", "z"]).await;
    assert!(long <= 60, "{long} tasks of the long queue came first");
}

/// So it is when each claim takes a single task.
pub async fn even_when_one_task_is_taken_at_a_time(store: Subject) {
    store.put_all((0..60).map(|_| in_queue("long"))).await;
    store.put_all(["b", "z"].map(in_queue)).await;
    let long = taken_of_the_long_queue(&store, 1, &["b", "z"]).await;
    assert!(long <= 30, "{long} tasks of the long queue came first");
}

/// Priority is strict within a queue and says nothing between queues.
pub async fn priority_does_not_reach_over_queues(store: Subject) {
    store.put_all((0..120).map(|_| TaskSpec { priority: Priority::HIGHEST, ..in_queue("long") })).await;
    store.put_all(["b", "z"].map(|name| TaskSpec { priority: Priority::LOWEST, ..in_queue(name) })).await;
    let long = taken_of_the_long_queue(&store, 4, &["b", "z"]).await;
    assert!(long <= 60, "{long} tasks of the long queue came first");
}
