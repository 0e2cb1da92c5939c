//! Shutting down: the end comes by the deadline, whatever handlers and store do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use queue_core::{FailureReason, Status};
use queue_runtime::ports::Ports;
use queue_runtime::{Ctx, Limits, Pool, Queue, StartError, Task, TaskType};
use queue_testkit::MemoryStore;
use serde::{Deserialize, Serialize};

use crate::faulty::{Call, Fault, Process, faulty};
use crate::support::{Count, CountsDrop, Heard, On, World, ms, secs};

#[tokio::test(start_paused = true)]
async fn what_does_not_finish_is_given_back_with_its_attempt() {
    let world = World::new();
    let (hangs, obeys, ends) = (
        world.enqueue("hangs", |_| {}).await,
        world.enqueue("obeys", |_| {}).await,
        world.enqueue("ends", |_| {}).await,
    );
    let dropped = Count::default();
    let counter = dropped.clone();
    let pool = world
        .pool()
        .on("hangs", move |_| {
            let guard = CountsDrop(counter.clone());
            async move {
                std::future::pending::<()>().await;
                drop(guard);
                Ok(())
            }
        })
        .on("obeys", async |cx: Ctx| {
            cx.cancelled().await;
            Err("stopped")?
        })
        .on("ends", async |_: Ctx| {
            tokio::time::sleep(secs(15)).await;
            Ok(())
        });
    let running = pool.start().await.unwrap();
    world.reaches(ends, Status::Running).await;
    let at = world.elapsed();
    let report = running.shutdown(secs(60)).await.unwrap();
    assert_eq!((report.completed, report.released, report.unsettled, report.still_running), (1, 2, 0, 0), "{report:?}");
    // The grace and the grace after the cancel.
    assert!((secs(25)..secs(26)).contains(&(world.elapsed() - at)), "{:?}", world.elapsed() - at);
    assert_eq!(dropped.get(), 1);
    for task in [hangs, obeys] {
        let task = world.task(task).await;
        assert_eq!((task.state.status, task.state.attempt, task.last_error), (Status::Queued, 0, None));
    }
    assert!(world.queue.store().sessions().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn claiming_stops_at_once_and_what_waits_is_given_back() {
    let world = World::new();
    for _ in 0..40 {
        world.enqueue("fast", |_| {}).await;
    }
    let slow = async |_: Ctx| {
        tokio::time::sleep(secs(2)).await;
        Ok(())
    };
    let pool = world.pool().concurrency(1).prefetch(1).on("fast", async |_| Ok(())).on("slow", slow);
    let running = pool.start().await.unwrap();
    tokio::time::sleep(ms(500)).await;
    let (first, second) = (world.enqueue("slow", |_| {}).await, world.enqueue("slow", |_| {}).await);
    world.reaches(second, Status::Running).await;
    let third = world.enqueue("slow", |_| {}).await;
    running.stop(secs(30));
    world.reaches(second, Status::Queued).await;
    assert_eq!(world.task(first).await.state.status, Status::Running);
    let report = running.shutdown(secs(30)).await.unwrap();
    assert_eq!((report.completed, report.released), (41, 1), "{report:?}");
    assert_eq!(world.task(second).await.state.attempt, 0);
    assert_eq!(world.task(third).await.state.fence.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_shorter_than_the_graces_cuts_them() {
    let world = World::new();
    let task = world.enqueue("a", |_| {}).await;
    let running = world.pool().on("a", async |_| std::future::pending().await).start().await.unwrap();
    world.reaches(task, Status::Running).await;
    let at = world.elapsed();
    let report = running.shutdown(secs(4)).await.unwrap();
    assert!(world.elapsed() - at <= secs(4), "{:?}", world.elapsed() - at);
    assert_eq!((report.released, world.task(task).await.state.status), (1, Status::Queued));
}

#[tokio::test(start_paused = true)]
async fn it_returns_by_its_deadline_though_the_store_is_gone() {
    let world = World::new();
    for fault in [Some(Fault::Unavailable), Some(Fault::Hang)] {
        let task = world.enqueue("a", |_| {}).await;
        let store = faulty(&world.store, move |call, _| match call {
            Call::Settle | Call::CloseSession => fault,
            _ => None,
        });
        let running = world.pool_over(store).on("a", async |_| Ok(())).start().await.unwrap();
        world.reaches(task, Status::Running).await;
        let at = world.elapsed();
        let report = running.shutdown(secs(10)).await.unwrap();
        assert!(world.elapsed() - at <= secs(10), "{:?}", world.elapsed() - at);
        assert_eq!((report.completed, report.unsettled), (0, 1), "{report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_now_gives_back_what_runs_at_once() {
    let world = World::new();
    let task = world.enqueue("a", |_| {}).await;
    let mut running = world.pool().on("a", async |_| std::future::pending().await).start().await.unwrap();
    world.reaches(task, Status::Running).await;
    let at = world.elapsed();
    running.stop(secs(30));
    tokio::time::sleep(secs(1)).await;
    running.stop_now();
    let report = running.ended().await.unwrap();
    assert!(world.elapsed() - at <= ms(1_100), "{:?}", world.elapsed() - at);
    assert_eq!((report.released, report.still_running), (1, 1));
    assert_eq!((world.task(task).await.state.status, world.task(task).await.state.attempt), (Status::Queued, 0));
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_dropped_stops_in_good_order() {
    let world = World::new();
    let task = world.enqueue("a", |_| {}).await;
    let pool = world.pool().on("a", async |_: Ctx| {
        tokio::time::sleep(secs(3)).await;
        Ok(())
    });
    let running = pool.start().await.unwrap();
    world.reaches(task, Status::Running).await;
    drop(running);
    world.reaches(task, Status::Completed).await;
    world.until("it is gone", async || world.queue.store().sessions().await.unwrap().is_empty()).await;
}

#[derive(Serialize, Deserialize)]
struct Block;

impl Task for Block {
    const TYPE: TaskType = TaskType::new("block");
    type Output = u32;
}

/// A pool on real time and threads, with short times.
fn real() -> (Queue<MemoryStore>, Pool) {
    let queue = Queue::new(MemoryStore::new());
    let pool = Pool::new(&queue).lease(secs(3)).cancel_grace(ms(20)).grace(ms(50)).name("test");
    (queue, pool)
}

/// A handler that blocks its thread, blind to everything, until told to end.
fn blocks_until(end: &Arc<AtomicBool>) -> impl Fn(Block, Ctx) -> queue_runtime::Result<u32> + Send + Sync + 'static {
    let end = Arc::clone(end);
    move |_, _| {
        while !end.load(Ordering::Acquire) {
            std::thread::sleep(ms(1));
        }
        Ok(7)
    }
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..10_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(ms(1)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn a_blocking_handler_that_overruns_is_told_of_and_its_late_result_refused() {
    let (queue, pool) = real();
    let (end, heard) = (Arc::new(AtomicBool::new(false)), Heard::default());
    let task = queue.enqueue(&Block).budget(ms(30)).await.unwrap().id();
    let pool = pool.concurrency(1).observer(Arc::new(heard.clone())).handle_blocking(blocks_until(&end));
    let running = pool.start().await.unwrap();
    let ended = async || queue.get(task).await.unwrap().unwrap().state.status == Status::Failed;
    eventually("the budget is enforced", ended).await;
    assert_eq!(heard.of("Overrun"), ["Overrun { task_type: Some(\"block\") }"]);
    assert_eq!(heard.of("InFlight").last().unwrap(), "InFlight(1)");
    end.store(true, Ordering::Release);
    eventually("its slot is free", async || heard.of("InFlight").last().unwrap() == "InFlight(0)").await;
    let next = queue.enqueue(&Block).await.unwrap().id();
    let completed = async || queue.get(next).await.unwrap().unwrap().state.status == Status::Completed;
    eventually("another task runs in its place", completed).await;
    let report = running.shutdown(secs(9)).await.unwrap();
    assert_eq!((report.completed, report.stale), (1, 0));
    assert_eq!(report.failed.get(&FailureReason::BudgetExceeded), Some(&1));
    assert_eq!(queue.get(task).await.unwrap().unwrap().state.reason, Some(FailureReason::BudgetExceeded));
}

#[tokio::test]
async fn a_blocking_handler_completes() {
    let (queue, pool) = real();
    let task = queue.enqueue(&Block).await.unwrap().id();
    let end = Arc::new(AtomicBool::new(true));
    let limits = Limits::DEFAULT.concurrency(1);
    assert_eq!(pool.handle_blocking_with(blocks_until(&end), limits).drain().await.unwrap().completed, 1);
    let result = queue.get(task).await.unwrap().unwrap().result;
    assert_eq!(result, queue_runtime::TaskResult::Value("7".into()));
}

#[tokio::test]
async fn it_returns_by_its_deadline_though_a_blocking_handler_will_not() {
    let (queue, pool) = real();
    let (end, process) = (Arc::new(AtomicBool::new(false)), Arc::new(Process::default()));
    let pool = pool.ports(Ports { spawn: process.clone(), ..Ports::system() });
    let task = queue.enqueue(&Block).await.unwrap().id();
    let running = pool.handle_blocking(blocks_until(&end)).start().await.unwrap();
    let status = async || queue.get(task).await.unwrap().unwrap().state.status;
    eventually("it runs", async || status().await == Status::Running).await;
    let report = tokio::time::timeout(secs(5), running.shutdown(ms(400))).await.unwrap().unwrap();
    assert_eq!((report.released, report.still_running), (1, 1), "{report:?}");
    assert_eq!(status().await, Status::Queued);
    end.store(true, Ordering::Release);
    eventually("nothing of the pool runs on", async || process.alive().is_empty()).await;
}

/// Both of the runtime's threads are busy with handlers that never yield: the heartbeat lives on a thread of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_that_never_yield_do_not_starve_the_heartbeat() {
    let (queue, pool) = real();
    queue.enqueue(&Block).await.unwrap();
    queue.enqueue(&Block).await.unwrap();
    let (end, both) = (Arc::new(AtomicBool::new(false)), Count::default());
    let (spin, counter) = (Arc::clone(&end), both.clone());
    let pool = pool.lease(ms(600)).concurrency(2).handle(move |_: Block, _: Ctx| {
        let spin = Arc::clone(&spin);
        counter.up();
        async move {
            while !spin.load(Ordering::Acquire) {
                std::thread::sleep(ms(1));
            }
            Ok(7)
        }
    });
    let running = pool.start().await.unwrap();
    let store = queue.erased_store();
    // With both workers busy nobody drives the runtime's timers, so this thread must not wait for one.
    while both.get() < 2 {
        std::thread::sleep(ms(1));
    }
    // The workers are busy; this thread is the test's own.
    std::thread::sleep(Duration::from_millis(1_500));
    let sessions = futures_util::future::FutureExt::now_or_never(store.sessions()).unwrap().unwrap();
    let now = futures_util::future::FutureExt::now_or_never(store.time()).unwrap().unwrap().now;
    assert!(sessions[0].lease_until > now);
    assert_eq!(sessions[0].fenced_at, None);
    end.store(true, Ordering::Release);
    assert_eq!(running.shutdown(secs(9)).await.unwrap().completed, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_returns_by_its_deadline_though_handlers_never_yield() {
    let (queue, pool) = real();
    queue.enqueue(&Block).await.unwrap();
    queue.enqueue(&Block).await.unwrap();
    let (end, both) = (Arc::new(AtomicBool::new(false)), Count::default());
    let (spin, counter) = (Arc::clone(&end), both.clone());
    let pool = pool.concurrency(2).handle(move |_: Block, _: Ctx| {
        let spin = Arc::clone(&spin);
        counter.up();
        async move {
            while !spin.load(Ordering::Acquire) {
                std::thread::sleep(ms(1));
            }
            Ok(7)
        }
    });
    let running = pool.start().await.unwrap();
    while both.get() < 2 {
        std::thread::sleep(ms(1));
    }
    // This thread is the test's own; no timer of the runtime fires any more.
    let error = running.shutdown(ms(300)).await.unwrap_err();
    assert!(matches!(error, StartError::Starved), "{error}");
    end.store(true, Ordering::Release);
}
