//! Handlers that complete their task in a transaction of their own.

use std::sync::Arc;

use queue_core::{FailureReason, Status};
use queue_runtime::{Ctx, Limits, Payload, Pool, Queue, TaskResult, TaskType};

use crate::faulty::{Call, Fault, FaultyStore, faulty};
use crate::support::{World, secs};

/// A pool whose handler completes the task in a transaction of its own, commits that or not, and returns `Ok`.
pub(crate) fn pool(world: &World, store: FaultyStore, commits: bool) -> Pool<Queue<FaultyStore>> {
    let queue = Queue::with_ports(store, Arc::new(world.time.clock), Arc::clone(&world.entropy));
    let database = world.store.clone();
    let complete = move |_: Payload, cx: Ctx<Queue<FaultyStore>>| {
        let mut tx = database.begin();
        async move {
            cx.state().complete(&cx, 7).within(&mut tx).await?;
            if commits {
                tx.commit()?;
            }
            Ok(TaskResult::None)
        }
    };
    Pool::with_state(&queue, queue.clone()).ports(world.ports()).name("test").handle_raw(
        TaskType::new("a"),
        complete,
        Limits::DEFAULT,
    )
}

#[tokio::test(start_paused = true)]
async fn ok_after_a_transaction_that_was_rolled_back_is_a_retry() {
    let world = World::new();
    let task = world.enqueue("a", |_| {}).await;
    let done = pool(&world, faulty(&world.store, |_, _| None), false).drain().await.unwrap();
    assert_eq!((done.completed, done.retried), (0, 2), "{done:?}");
    assert_eq!(done.failed.get(&FailureReason::Exhausted), Some(&1));
    let task = world.task(task).await;
    assert_eq!(task.last_error.unwrap().as_str(), "the completing transaction was not committed");
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_was_committed_is_a_completion() {
    let world = World::new();
    let task = world.enqueue("a", |_| {}).await;
    let done = pool(&world, faulty(&world.store, |_, _| None), true).drain().await.unwrap();
    assert_eq!((done.completed, done.retried, done.stale), (1, 0, 0), "{done:?}");
    assert_eq!(done.errors, []);
    let task = world.task(task).await;
    assert_eq!((task.state.status, task.state.attempt), (Status::Completed, 1));
    assert_eq!(task.result, TaskResult::Value("7".into()));
}

#[tokio::test(start_paused = true)]
async fn a_settle_that_waits_for_a_handlers_transaction_keeps_nobody_else_waiting() {
    let world = World::new();
    // The settle of the completing task hangs, as behind a lock; that of others does not.
    let store = faulty(&world.store, |call, nth| match (call, nth) {
        (Call::Settle, 1) => Some(Fault::Hang),
        _ => None,
    });
    let completing = world.enqueue("a", |_| {}).await;
    let running = pool(&world, store.clone(), true)
        .handle_raw(TaskType::new("b"), async |_, _| Ok(TaskResult::None), Limits::DEFAULT)
        .start()
        .await
        .unwrap();
    world.until("the settle hangs", async || store.calls(Call::Settle) == 1).await;
    for _ in 0..20 {
        let task = world.enqueue("b", |_| {}).await;
        world.reaches(task, Status::Completed).await;
    }
    assert!(world.elapsed() < secs(2), "{:?}", world.elapsed());
    assert_eq!(world.task(completing).await.state.status, Status::Completed);
    let report = running.shutdown(secs(60)).await.unwrap();
    assert_eq!((report.completed, report.unsettled), (21, 0), "{report:?}");
}
