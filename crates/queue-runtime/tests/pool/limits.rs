//! How much runs at a time, and what a worker may shorten.

use std::time::Duration;

use queue_core::{FailureReason, Status, StoreLimits};
use queue_runtime::{Ctx, Limits, Payload};

use crate::support::{Count, On, World, ms, secs};

/// A handler that runs for a while and notes the most that ever ran at a time.
fn crowd(now: &Count, most: &Count, runs_for: Duration) -> impl Fn(Ctx) -> Run + Send + Sync + 'static {
    let (now, most) = (now.clone(), most.clone());
    move |_| {
        let (now, most) = (now.clone(), most.clone());
        Box::pin(async move {
            let running = now.up() + 1;
            while most.get() < running {
                most.up();
            }
            tokio::time::sleep(runs_for).await;
            now.down();
            Ok(())
        })
    }
}

type Run = std::pin::Pin<Box<dyn Future<Output = queue_runtime::Result> + Send>>;

#[tokio::test(start_paused = true)]
async fn never_more_handlers_than_allowed_overall_and_by_type() {
    let world = World::new();
    for _ in 0..200 {
        world.enqueue("many", |_| {}).await;
        world.enqueue("few", |_| {}).await;
    }
    let [many, most_many, few, most_few] = [(); 4].map(|()| Count::default());
    let pool = world.pool().concurrency(10).on("many", crowd(&many, &most_many, ms(5))).on_with(
        "few",
        Limits::DEFAULT.concurrency(2),
        crowd(&few, &most_few, ms(5)),
    );
    let done = pool.drain().await.unwrap();
    assert_eq!(done.completed, 400);
    assert_eq!(most_few.get(), 2);
    assert!((8..=10).contains(&most_many.get()), "{}", most_many.get());
}

#[tokio::test(start_paused = true)]
async fn a_store_may_take_very_small_batches() {
    let world = World::new();
    for _ in 0..40 {
        world.enqueue("a", |_| {}).await;
    }
    let limits = StoreLimits { batch_max: 2, ..StoreLimits::DEFAULT };
    let pool = world.pool_over(world.store.clone().with_limits(limits));
    let done = pool.concurrency(10).on("a", async |_| Ok(())).drain().await.unwrap();
    assert_eq!(done.completed, 40);
}

#[tokio::test(start_paused = true)]
async fn types_that_are_all_full_are_not_asked_for() {
    let world = World::new();
    for _ in 0..20 {
        world.enqueue("a", |_| {}).await;
    }
    let [now, most] = [(); 2].map(|()| Count::default());
    let pool = world.pool().concurrency(50).on_with("a", Limits::DEFAULT.concurrency(3), crowd(&now, &most, ms(200)));
    let running = pool.start().await.unwrap();
    tokio::time::sleep(ms(100)).await;
    let held = world.queue.store().sessions().await.unwrap()[0].running;
    assert_eq!((held, most.get()), (3, 3));
    assert_eq!(running.shutdown(secs(9)).await.unwrap().completed, 3);
}

#[tokio::test(start_paused = true)]
async fn only_fast_handlers_have_tasks_claimed_ahead() {
    let world = World::new();
    for _ in 0..40 {
        world.enqueue("slow", |_| {}).await;
    }
    let [now, most] = [(); 2].map(|()| Count::default());
    let pool = world.pool().concurrency(4).on("slow", crowd(&now, &most, secs(2)));
    let running = pool.start().await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(ms(900)).await;
        assert!(world.queue.store().sessions().await.unwrap()[0].running <= 4);
    }
    running.shutdown(secs(9)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_waits_too_long_in_the_process_is_given_back() {
    let world = World::new();
    for _ in 0..100 {
        world.enqueue("fast", |_| {}).await;
    }
    let slow = async |_: Ctx| {
        tokio::time::sleep(secs(20)).await;
        Ok(())
    };
    let pool = world.pool().concurrency(2).prefetch(2).on("fast", async |_| Ok(())).on("slow", slow);
    let running = pool.start().await.unwrap();
    tokio::time::sleep(ms(500)).await;
    for _ in 0..8 {
        world.enqueue("slow", |_| {}).await;
    }
    tokio::time::sleep(ms(500)).await;
    assert_eq!(world.queue.store().sessions().await.unwrap()[0].running, 4);
    tokio::time::sleep(secs(3)).await;
    assert_eq!(world.queue.store().sessions().await.unwrap()[0].running, 2);
    let report = running.shutdown(secs(60)).await.unwrap();
    assert_eq!((report.completed, report.released), (102, 2), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn payloads_that_wait_are_bounded_in_bytes() {
    let world = World::new();
    let half = "x".repeat(1 << 20);
    for _ in 0..40 {
        world.enqueue("a", |spec| spec.payload = Payload::json(half.clone())).await;
    }
    let slow = async |_: Ctx| {
        tokio::time::sleep(secs(5)).await;
        Ok(())
    };
    let running = world.pool().concurrency(100).on("a", slow).start().await.unwrap();
    tokio::time::sleep(ms(1)).await;
    // The first claim takes 16 MiB; they start at once, and the next claim follows.
    tokio::time::sleep(secs(1)).await;
    assert_eq!(world.queue.store().sessions().await.unwrap()[0].running, 40);
    assert_eq!(running.shutdown(secs(9)).await.unwrap().completed, 40);
}

#[tokio::test(start_paused = true)]
async fn a_worker_may_allow_less_than_the_task_does_but_not_more() {
    let world = World::new();
    let less = world.enqueue("less", |_| {}).await;
    let more = world.enqueue("more", |_| {}).await;
    let short = world.enqueue("short", |_| {}).await;
    let fail = async |cx: Ctx| Err(format!("of {}", cx.max_attempts()))?;
    let pool = world
        .pool()
        .on_with("less", Limits::DEFAULT.max_attempts(2), fail)
        .on_with("more", Limits::DEFAULT.max_attempts(9), fail)
        .on_with("short", Limits::DEFAULT.budget(secs(40)), async |_| std::future::pending().await);
    pool.drain().await.unwrap();
    let ended = async |task| {
        let task = world.task(task).await;
        (task.state.reason, task.state.attempt, task.last_error.map(|error| error.as_str().to_owned()))
    };
    assert_eq!(ended(less).await, (Some(FailureReason::Exhausted), 2, Some("of 2".into())));
    assert_eq!(ended(more).await, (Some(FailureReason::Exhausted), 3, Some("of 3".into())));
    assert_eq!(ended(short).await, (Some(FailureReason::BudgetExceeded), 1, None));
}

#[tokio::test(start_paused = true)]
async fn a_budget_spent_while_waiting_in_the_process_fails_without_a_run() {
    let world = World::new();
    for _ in 0..40 {
        world.enqueue("fast", |_| {}).await;
    }
    let runs = Count::default();
    let counter = runs.clone();
    let pool = world.pool().concurrency(1).prefetch(1).on("fast", async |_| Ok(())).on("slow", move |_| {
        counter.up();
        async {
            tokio::time::sleep(ms(800)).await;
            Ok(())
        }
    });
    let running = pool.start().await.unwrap();
    tokio::time::sleep(ms(500)).await;
    world.enqueue("slow", |_| {}).await;
    let task = world.enqueue("slow", |spec| spec.budget = ms(300).into()).await;
    world.reaches(task, Status::Failed).await;
    assert_eq!((world.task(task).await.state.reason, runs.get()), (Some(FailureReason::BudgetExceeded), 1));
    running.shutdown(secs(9)).await.unwrap();
}
