//! What runs handlers stays: whatever became of one task, the next one runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use queue_core::Status;
use queue_runtime::ports::Ports;
use queue_runtime::{Ctx, Limits};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::faulty::Process;
use crate::support::{On, World, ms, secs};

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_runs_after_one_that_ended_badly() {
    let world = World::new();
    let kinds = ["panics", "panics_early", "hangs", "panics_late", "fails"];
    let mut good = Vec::new();
    for kind in kinds {
        world.enqueue(kind, |_| {}).await;
        good.push(world.enqueue("good", |_| {}).await);
    }
    let limits = Limits::DEFAULT.timeout(secs(1)).max_attempts(1);
    let pool = world.pool().concurrency(1).prefetch(0);
    let pool = pool
        .on("panics", async |_| panic!("as it must"))
        .on("panics_early", |_| -> std::future::Ready<_> { panic!("before it began") })
        .on_with("hangs", limits, async |_| std::future::pending().await)
        .on_with("panics_late", limits, async |_| {
            let _bomb = Bomb;
            std::future::pending().await
        })
        .on_with("fails", limits, async |_| Err("no")?)
        .on("good", async |_| Ok(()));
    let report = pool.drain().await.unwrap();
    assert_eq!((report.completed, report.failures()), (5, 5), "{report:?}");
    for task in good {
        assert_eq!(world.task(task).await.state.status, Status::Completed);
    }
}

#[tokio::test(start_paused = true)]
async fn there_are_no_more_runners_than_handlers_that_run_at_once() {
    let world = World::new();
    let process = Arc::new(Process::default());
    for _ in 0..200 {
        world.enqueue("a", |_| {}).await;
    }
    let task = world.enqueue("hangs", |_| {}).await;
    let ports = Ports { spawn: process.clone(), ..world.ports() };
    let pool = world.pool().ports(ports).concurrency(3).on("a", async |_| Ok(()));
    let running = pool.on("hangs", async |_| std::future::pending().await).start().await.unwrap();
    world.reaches(task, Status::Running).await;
    let runners = process.named("runner");
    assert!((1..=3).contains(&runners), "{runners}");
    assert_eq!(running.shutdown(secs(60)).await.unwrap().completed, 200);
    tokio::time::sleep(ms(1)).await;
    assert_eq!(process.alive(), [""; 0]);
}

/// Panics the first time that a span of a task is left.
struct Faulty(AtomicBool);

impl Subscriber for Faulty {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.name() == "task"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {
        assert!(self.0.swap(true, Ordering::Relaxed), "a bug of the subscriber");
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_panics_costs_no_other_task() {
    let world = World::new();
    let (first, second) = (world.enqueue("a", |_| {}).await, world.enqueue("a", |_| {}).await);
    let _guard = tracing::subscriber::set_default(Faulty(AtomicBool::new(false)));
    let pool = world.pool().concurrency(1).prefetch(0).on("a", async |_: Ctx| Ok(()));
    let report = tokio::time::timeout(secs(600), pool.drain()).await.unwrap().unwrap();
    assert_eq!(report.completed, 2, "{report:?}");
    for task in [first, second] {
        assert_eq!(world.task(task).await.state.status, Status::Completed);
    }
}
