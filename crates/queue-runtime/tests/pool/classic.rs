//! What the classic system did, by name.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use queue_core::{FailureReason, Status};
use queue_runtime::{Ctx, Limits, Payload, Result, TaskResult, TaskType};

use crate::support::{World, secs};

async fn succeed(_: Payload, _: Ctx) -> Result<TaskResult> {
    Ok(TaskResult::None)
}

#[tokio::test(start_paused = true)]
async fn register_a_handler_and_it_runs_each_task_once() {
    let world = World::new();
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    for _ in 0..500 {
        world.enqueue("a", |_| {}).await;
    }
    let count = move |_, _| {
        let counter = Arc::clone(&counter);
        async move {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(TaskResult::None)
        }
    };
    let done = world.pool().handle_raw(TaskType::new("a"), count, Limits::DEFAULT).drain().await.unwrap();
    assert_eq!((done.completed, done.failures(), runs.load(Ordering::Relaxed)), (500, 0, 500), "{done:?}");
    assert!(world.elapsed() < secs(1), "{:?}", world.elapsed());
    assert!(world.store.ghosts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn start_and_shut_down_with_a_deadline_for_draining() {
    let world = World::new();
    let task = world.enqueue("a", |_| {}).await;
    let slow = async |_: Payload, _: Ctx| {
        tokio::time::sleep(secs(9)).await;
        Ok(TaskResult::None)
    };
    let running = world.pool().handle_raw(TaskType::new("a"), slow, Limits::DEFAULT).start().await.unwrap();
    world.until("it runs", async || world.task(task).await.state.status == Status::Running).await;
    let report = running.shutdown(secs(30)).await.unwrap();
    assert_eq!((report.completed, report.released), (1, 0));
    assert!(world.elapsed() < secs(10), "{:?}", world.elapsed());
    assert_eq!(world.task(task).await.state.status, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_terminal_and_harms_nobody_else() {
    let world = World::new();
    let (bad, good) = (world.enqueue("bad", |_| {}).await, world.enqueue("good", |_| {}).await);
    let pool = world
        .pool()
        .handle_raw(TaskType::new("bad"), async |_, _| panic!("as it must"), Limits::DEFAULT)
        .handle_raw(TaskType::new("good"), succeed, Limits::DEFAULT);
    let done = pool.drain().await.unwrap();
    assert_eq!((done.completed, done.failed.get(&FailureReason::Panicked)), (1, Some(&1)));
    let bad = world.task(bad).await;
    assert_eq!((bad.state.reason, bad.state.attempt), (Some(FailureReason::Panicked), 1));
    assert_eq!(bad.last_error.unwrap().as_str(), "as it must");
    assert_eq!(world.task(good).await.state.status, Status::Completed);
}
