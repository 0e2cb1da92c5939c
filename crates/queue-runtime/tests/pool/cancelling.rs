//! Cancelling in two steps, and who wins when several things happen at once.

use queue_core::{FailureReason, Status};
use queue_runtime::{Ctx, Limits};

use crate::support::{Count, CountsDrop, On, World, ms, secs};

#[tokio::test(start_paused = true)]
async fn a_running_task_is_cancelled_with_the_next_heartbeat() {
    let world = World::new();
    let task = world.enqueue("a", |_| {}).await;
    let dropped = Count::default();
    let counter = dropped.clone();
    let pool = world.pool().on("a", move |cx| {
        let guard = CountsDrop(counter.clone());
        async move {
            cx.cancelled().await;
            drop(guard);
            Err("told to stop")?
        }
    });
    let running = pool.start().await.unwrap();
    world.reaches(task, Status::Running).await;
    let at = world.elapsed();
    world.queue.cancel(task).await.unwrap();
    world.reaches(task, Status::Failed).await;
    // The heartbeat's interval.
    assert!(world.elapsed() - at <= secs(5) + ms(10), "{:?}", world.elapsed() - at);
    assert_eq!((world.task(task).await.state.reason, dropped.get()), (Some(FailureReason::Cancelled), 1));
    assert_eq!(running.shutdown(secs(9)).await.unwrap().failed.get(&FailureReason::Cancelled), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_look_is_dropped_after_the_grace() {
    let world = World::new();
    let task = world.enqueue("a", |_| {}).await;
    let dropped = Count::default();
    let counter = dropped.clone();
    let pool = world.pool().cancel_grace(secs(4)).on("a", move |_| {
        let guard = CountsDrop(counter.clone());
        async move {
            std::future::pending::<()>().await;
            drop(guard);
            Ok(())
        }
    });
    let running = pool.start().await.unwrap();
    world.reaches(task, Status::Running).await;
    world.queue.cancel(task).await.unwrap();
    world.reaches(task, Status::Failed).await;
    assert_eq!((dropped.get(), world.task(task).await.state.reason), (1, Some(FailureReason::Cancelled)));
    assert!((secs(4)..secs(10)).contains(&world.elapsed()), "{:?}", world.elapsed());
    running.shutdown(secs(9)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_completion_may_win_against_a_cancel() {
    let world = World::new();
    let task = world.enqueue("a", |_| {}).await;
    let finish = async |cx: Ctx| {
        cx.cancelled().await;
        tokio::time::sleep(secs(1)).await;
        Ok(())
    };
    let running = world.pool().on("a", finish).start().await.unwrap();
    world.reaches(task, Status::Running).await;
    world.queue.cancel(task).await.unwrap();
    world.reaches(task, Status::Completed).await;
    running.shutdown(secs(9)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_in_the_process_is_cancelled_without_a_run() {
    let world = World::new();
    // Fast handlers first, so that the pool claims ahead; then two slow ones, of which one must wait.
    for _ in 0..40 {
        world.enqueue("fast", |_| {}).await;
    }
    let started = Count::default();
    let counter = started.clone();
    let pool = world.pool().concurrency(1).prefetch(1).heartbeat(ms(100)).lease(secs(2)).on("fast", async |_| Ok(()));
    let pool = pool.on("slow", move |_| {
        counter.up();
        async {
            tokio::time::sleep(secs(10)).await;
            Ok(())
        }
    });
    let running = pool.start().await.unwrap();
    tokio::time::sleep(ms(500)).await;
    let (first, second) = (world.enqueue("slow", |_| {}).await, world.enqueue("slow", |_| {}).await);
    world.reaches(second, Status::Running).await;
    assert_eq!((world.task(first).await.state.status, started.get()), (Status::Running, 1));
    world.queue.cancel(second).await.unwrap();
    world.reaches(second, Status::Failed).await;
    assert_eq!((world.task(second).await.state.reason, started.get()), (Some(FailureReason::Cancelled), 1));
    running.shutdown(secs(30)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_is_retried() {
    let world = World::new();
    let task = world.enqueue("a", |_| {}).await;
    let pool = world.pool().on_with("a", Limits::DEFAULT.timeout(secs(20)), async |cx: Ctx| {
        if cx.attempt() < 3 {
            assert_eq!(cx.remaining(), secs(20));
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    let done = pool.drain().await.unwrap();
    assert_eq!((done.completed, done.retried), (1, 2), "{done:?}");
    assert_eq!(done.errors[0].error.as_str(), "timed out after 20s");
    assert_eq!(world.task(task).await.state.attempt, 3);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_says_what_the_handler_said_to_it() {
    let world = World::new();
    world.enqueue("a", |_| {}).await;
    let pool = world.pool().on_with("a", Limits::DEFAULT.timeout(secs(20)).max_attempts(1), async |cx: Ctx| {
        cx.cancelled().await;
        Err("the export is at page 7")?
    });
    let done = pool.drain().await.unwrap();
    assert_eq!(done.errors[0].error.as_str(), "timed out after 20s: the export is at page 7");
    assert_eq!(done.failed.get(&FailureReason::Exhausted), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_the_future_is_dropped_is_a_panic() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    let world = World::new();
    let (bad, good) = (world.enqueue("bad", |_| {}).await, world.enqueue("good", |_| {}).await);
    let pool = world
        .pool()
        .on_with("bad", Limits::DEFAULT.timeout(secs(2)), async |_| {
            let _bomb = Bomb;
            std::future::pending().await
        })
        .on("good", async |_| Ok(()));
    let done = pool.drain().await.unwrap();
    assert_eq!((done.completed, done.failed.get(&FailureReason::Panicked)), (1, Some(&1)), "{done:?}");
    assert_eq!(world.task(bad).await.last_error.unwrap().as_str(), "dropped");
    assert_eq!(world.task(good).await.state.status, Status::Completed);
}
