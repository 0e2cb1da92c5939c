//! What the classic system did, by name.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use queue_core::{FailureReason, Priority, QueueName, Status};
use queue_runtime::{Backoff, Ctx, Retry, Start};

use crate::faulty::{Call, faulty};
use crate::support::{Count, On, World, ms, secs};

#[tokio::test(start_paused = true)]
async fn register_a_handler_and_it_runs_each_task_once() {
    let world = World::new();
    let runs = Count::default();
    let counter = runs.clone();
    for _ in 0..500 {
        world.enqueue("a", |_| {}).await;
    }
    let pool = world.pool().on("a", move |_| {
        counter.up();
        async { Ok(()) }
    });
    let done = pool.drain().await.unwrap();
    assert_eq!((done.completed, done.failures(), runs.get()), (500, 0, 500), "{done:?}");
    assert!(world.elapsed() < secs(1), "{:?}", world.elapsed());
    assert!(world.store.ghosts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn start_and_shut_down_with_a_deadline_for_draining() {
    let world = World::new();
    let task = world.enqueue("a", |_| {}).await;
    let slow = async |_: Ctx| {
        tokio::time::sleep(secs(9)).await;
        Ok(())
    };
    let running = world.pool().on("a", slow).start().await.unwrap();
    world.reaches(task, Status::Running).await;
    let report = running.shutdown(secs(30)).await.unwrap();
    assert_eq!((report.completed, report.released), (1, 0));
    assert!(world.elapsed() < secs(10), "{:?}", world.elapsed());
    assert_eq!(world.task(task).await.state.status, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_terminal_and_harms_nobody_else() {
    let world = World::new();
    let (bad, good) = (world.enqueue("bad", |_| {}).await, world.enqueue("good", |_| {}).await);
    let pool = world.pool().on("bad", async |_| panic!("as it must")).on("good", async |_| Ok(()));
    let done = pool.drain().await.unwrap();
    assert_eq!((done.completed, done.failed.get(&FailureReason::Panicked)), (1, Some(&1)));
    let bad = world.task(bad).await;
    assert_eq!((bad.state.reason, bad.state.attempt), (Some(FailureReason::Panicked), 1));
    assert_eq!(bad.last_error.unwrap().as_str(), "as it must");
    assert_eq!(world.task(good).await.state.status, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_the_first_poll_and_one_without_text_are_caught_as_well() {
    let world = World::new();
    let (early, odd) = (world.enqueue("early", |_| {}).await, world.enqueue("odd", |_| {}).await);
    let pool = world
        .pool()
        .on("early", |_| -> std::future::Ready<_> { panic!("{} {}", "before", "it began") })
        .on("odd", async |_| std::panic::panic_any(7));
    assert_eq!(pool.drain().await.unwrap().failures(), 2);
    assert_eq!(world.task(early).await.last_error.unwrap().as_str(), "before it began");
    assert_eq!(world.task(odd).await.last_error.unwrap().as_str(), "the handler panicked without a message");
}

#[tokio::test(start_paused = true)]
async fn the_budget_ends_a_handler_that_is_blind_to_cancelling() {
    let world = World::new();
    let task = world.enqueue("a", |spec| spec.budget = secs(60).into()).await;
    let blind = async |_: Ctx| std::future::pending().await;
    let done = world.pool().on("a", blind).drain().await.unwrap();
    assert_eq!(done.failed.get(&FailureReason::BudgetExceeded), Some(&1));
    let state = world.task(task).await.state;
    let took = state.completed_at.unwrap().since(state.created_at);
    // The budget and the grace between token and drop.
    assert!((secs(65)..secs(66)).contains(&took), "{took:?}");
}

/// The times at which a task that always fails is tried, since the first.
async fn tried_at(retry: Option<Retry>) -> Vec<u64> {
    let world = World::new();
    let task = world.enqueue("a", |spec| spec.retry = retry.unwrap_or_default()).await;
    let (times, clock) = (Arc::new(Mutex::new(Vec::new())), world.time.clock);
    let noted = Arc::clone(&times);
    let pool = world.pool().on("a", move |_| {
        noted.lock().unwrap().push(queue_core::Clock::monotonic(&clock));
        async { Err("no")? }
    });
    let done = pool.drain().await.unwrap();
    let tries = times.lock().unwrap().len() as u64;
    assert_eq!((done.retried, done.failed.get(&FailureReason::Exhausted)), (tries - 1, Some(&1)), "{done:?}");
    assert_eq!(done.errors.len() as u64, tries);
    assert_eq!(world.task(task).await.state.reason, Some(FailureReason::Exhausted));
    let times = times.lock().unwrap();
    times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect()
}

#[tokio::test(start_paused = true)]
async fn three_attempts_by_default_after_0_s_and_30_s() {
    assert_eq!(tried_at(None).await, [0, 30]);
}

#[tokio::test(start_paused = true)]
async fn more_attempts_come_after_5_min_each() {
    assert_eq!(tried_at(Some(Retry::DEFAULT.attempts(5))).await, [0, 30, 300, 300]);
}

#[tokio::test(start_paused = true)]
async fn progress_is_written_while_the_handler_runs_and_at_its_end() {
    let world = World::new();
    let store = faulty(&world.store, |_, _| None);
    let task = world.enqueue("a", |_| {}).await;
    let pool = world.pool_over(store.clone()).on("a", async |cx: Ctx| {
        for percent in 0..50 {
            cx.progress(percent, format!("step {percent}"));
            tokio::time::sleep(ms(100)).await;
        }
        cx.progress(100, "done");
        Ok(())
    });
    let running = pool.start().await.unwrap();
    world.until("progress", async || world.task(task).await.progress.is_some_and(|p| p.percent().get() >= 20)).await;
    assert_eq!(world.task(task).await.state.status, Status::Running);
    world.reaches(task, Status::Completed).await;
    let last = world.task(task).await.progress.unwrap();
    assert_eq!((last.percent().get(), last.message()), (100, Some("done")));
    // Once a second at most, and once at the end.
    assert!((4..=7).contains(&store.calls(Call::Progress)), "{}", store.calls(Call::Progress));
    running.shutdown(secs(9)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn unregistered_types_are_left_alone_unless_told_otherwise() {
    let world = World::new();
    let other = QueueName::new("strict");
    let left = world.enqueue("unknown", |_| {}).await;
    let failed = world.enqueue("unknown", |spec| spec.queue = other.clone()).await;
    let pool = world.pool().on("a", async |_| Ok(())).fail_unregistered([other]);
    let done = pool.drain().await.unwrap();
    assert_eq!(done.failed.get(&FailureReason::Unregistered), Some(&1));
    assert_eq!(world.task(failed).await.state.reason, Some(FailureReason::Unregistered));
    let left = world.task(left).await.state;
    assert_eq!((left.status, left.attempt), (Status::Queued, 0));
}

#[tokio::test(start_paused = true)]
async fn an_idle_pool_backs_off_and_is_woken() {
    let world = World::new();
    let store = faulty(&world.store, |_, _| None);
    let running = world.pool_over(store.clone()).on("a", async |_| Ok(())).start().await.unwrap();
    tokio::time::sleep(secs(60)).await;
    let polls = store.calls(Call::Claim);
    // Between 37.5 and 50 ms apart.
    assert!((1_200..1_500).contains(&polls), "{polls}");

    // What is enqueued elsewhere is found with the next poll.
    let task = world.enqueue("a", |_| {}).await;
    let at = world.elapsed();
    world.reaches(task, Status::Completed).await;
    assert!(world.elapsed() - at <= ms(60), "{:?}", world.elapsed() - at);
    running.shutdown(secs(9)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_enqueued_in_this_process_is_picked_up_at_once() {
    let world = World::new();
    let hour = secs(3_600);
    let running = world.pool().on("a", async |_| Ok(())).poll(hour, hour).start().await.unwrap();
    tokio::time::sleep(secs(5)).await;
    let at = world.elapsed();
    let task = world.enqueue("a", |_| {}).await;
    world.reaches(task, Status::Completed).await;
    assert!(world.elapsed() - at <= ms(2), "{:?}", world.elapsed() - at);
    running.shutdown(secs(9)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_due_later_starts_when_it_is_due_however_rarely_the_pool_polls() {
    let world = World::new();
    let hour = secs(3_600);
    let task = world.enqueue("a", |spec| spec.start = Start::After(secs(100))).await;
    let running = world.pool().on("a", async |_| Ok(())).poll(hour, hour).start().await.unwrap();
    tokio::time::sleep(secs(101)).await;
    let state = world.task(task).await.state;
    let late = state.started_at.unwrap().since(state.run_at);
    assert!(late <= ms(2), "{late:?}");
    running.shutdown(secs(9)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_workers_never_run_one_task() {
    let world = World::new();
    let runs = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for _ in 0..2_000 {
        tasks.push(world.enqueue("a", |_| {}).await);
    }
    let pool = || {
        let runs = Arc::clone(&runs);
        let handler = move |cx: Ctx| {
            runs.lock().unwrap().push(cx.task_id());
            async {
                tokio::time::sleep(ms(3)).await;
                Ok(())
            }
        };
        world.pool().on("a", handler).concurrency(20)
    };
    let (one, two) = tokio::join!(pool().drain(), pool().drain());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert!(one.completed > 100 && two.completed > 100, "{one:?} {two:?}");
    assert_eq!((one.completed + two.completed, one.stale + two.stale), (2_000, 0));
    let mut runs = runs.lock().unwrap();
    runs.sort();
    assert_eq!(*runs, tasks);
}

#[tokio::test(start_paused = true)]
async fn a_snooze_gives_the_attempt_back_and_a_rejection_is_final() {
    let world = World::new();
    let (snoozed, rejected) = (world.enqueue("snooze", |_| {}).await, world.enqueue("reject", |_| {}).await);
    let times = Count::default();
    let pool = world
        .pool()
        .on("snooze", move |cx| {
            let before = times.up();
            async move { if before < 5 { cx.snooze(secs(10)) } else { Ok(()) } }
        })
        .on("reject", async |cx: Ctx| cx.reject("never"));
    let done = pool.drain().await.unwrap();
    assert_eq!((done.snoozed, done.completed), (5, 1), "{done:?}");
    assert_eq!(done.failed.get(&FailureReason::Rejected), Some(&1));
    let snoozed = world.task(snoozed).await.state;
    assert_eq!((snoozed.status, snoozed.attempt, snoozed.fence.get()), (Status::Completed, 1, 6));
    assert!(world.elapsed() >= secs(50));
    let rejected = world.task(rejected).await;
    assert_eq!((rejected.state.attempt, rejected.last_error.unwrap().as_str()), (1, "never"));
}

#[tokio::test(start_paused = true)]
async fn the_higher_priority_runs_first() {
    let world = World::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    for priority in [Priority::LOW, Priority::HIGH, Priority::NORMAL] {
        world.enqueue("a", |spec| spec.priority = priority).await;
    }
    let noted = Arc::clone(&order);
    let pool = world.pool().concurrency(1).on("a", move |cx| {
        noted.lock().unwrap().push(cx.priority());
        async { Ok(()) }
    });
    pool.drain().await.unwrap();
    assert_eq!(*order.lock().unwrap(), [Priority::HIGH, Priority::NORMAL, Priority::LOW]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_serves_only_the_queues_it_names() {
    let world = World::new();
    let mail = QueueName::new("mail");
    let served = world.enqueue("a", |spec| spec.queue = mail.clone()).await;
    let left = world.enqueue("a", |_| {}).await;
    let done = world.pool().on("a", async |_| Ok(())).queues([mail]).drain().await.unwrap();
    assert_eq!(done.completed, 1);
    assert_eq!(world.task(served).await.state.status, Status::Completed);
    assert_eq!(world.task(left).await.state.status, Status::Queued);
}

#[tokio::test(start_paused = true)]
async fn draining_waits_for_retries_and_for_later_tasks_only_when_told_to() {
    let world = World::new();
    let retried = Retry::new(Backoff::Fixed(Duration::from_mins(3)));
    world.enqueue("a", |spec| spec.retry = retried).await;
    let later = world.enqueue("a", |spec| spec.start = Start::After(secs(7_200))).await;
    let first = Count::default();
    let pool = || {
        let first = first.clone();
        world.pool().on("a", move |_| {
            let before = first.up();
            async move { if before == 0 { Err("once")? } else { Ok(()) } }
        })
    };
    let done = pool().drain().await.unwrap();
    assert_eq!((done.completed, done.retried), (1, 1), "{done:?}");
    assert!((secs(180)..secs(190)).contains(&world.elapsed()), "{:?}", world.elapsed());
    assert_eq!(world.task(later).await.state.status, Status::Queued);
    assert_eq!(pool().drain().with_later().await.unwrap().completed, 1);
    assert!(world.elapsed() >= secs(7_200));
}
