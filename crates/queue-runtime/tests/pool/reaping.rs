//! When the reaper looks, and when it rather waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use queue_core::{FailureReason, QueueName, Status};
use queue_runtime::Ctx;

use crate::faulty::{Call, Fault, Process, faulty};
use crate::support::{Heard, On, World, secs};

/// A world in which a worker has just died with one task, and the task.
async fn bereaved() -> (World, queue_runtime::TaskId) {
    let world = World::new();
    let process = Arc::new(Process::default());
    let mut ports = world.ports();
    ports.spawn = process.clone();
    let task = world.enqueue("a", |_| {}).await;
    let hang = async |_: Ctx| std::future::pending().await;
    let _dying = world.pool().ports(ports).on("a", hang).start().await.unwrap();
    world.reaches(task, Status::Running).await;
    process.kill();
    (world, task)
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_makes_it_wait_for_one_lease() {
    let (world, task) = bereaved().await;
    let running = world.pool().on("other", async |_| Ok(())).start().await.unwrap();
    tokio::time::sleep(secs(15)).await;
    world.time.jump(secs(600));
    // Without the guard the session would be past its lease at the next tick.
    tokio::time::sleep(secs(30)).await;
    assert_eq!(world.task(task).await.state.status, Status::Running);
    tokio::time::sleep(secs(20)).await;
    assert_eq!(world.task(task).await.state.status, Status::Queued);
    running.shutdown(secs(9)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_server_makes_it_wait_for_one_lease() {
    let (world, task) = bereaved().await;
    let running = world.pool().on("other", async |_| Ok(())).start().await.unwrap();
    tokio::time::sleep(secs(29)).await;
    world.store.set_server("another");
    tokio::time::sleep(secs(29)).await;
    assert_eq!(world.task(task).await.state.status, Status::Running);
    tokio::time::sleep(secs(20)).await;
    assert_eq!(world.task(task).await.state.status, Status::Queued);
    running.shutdown(secs(9)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reaper_that_fails_tries_again_and_tells_what_it_recovered() {
    let (world, task) = bereaved().await;
    let heard = Heard::default();
    let store = faulty(&world.store, |call, nth| match (call, nth) {
        (Call::Time, 2) | (Call::Lost, 1..=3) => Some(Fault::Unavailable),
        (Call::Settle, 1) => Some(Fault::AnswerLost),
        _ => None,
    });
    let pool = world.pool_over(store).observer(Arc::new(heard.clone())).on("other", async |_| Ok(()));
    let running = pool.start().await.unwrap();
    tokio::time::sleep(secs(120)).await;
    let state = world.task(task).await.state;
    assert_eq!((state.status, state.attempt, state.losses), (Status::Queued, 1, 1));
    running.shutdown(secs(9)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_waits_past_its_budget_is_failed_whatever_its_type() {
    let world = World::new();
    let heard = Heard::default();
    let elsewhere = QueueName::new("elsewhere");
    let task = world
        .enqueue("unknown", |spec| {
            spec.queue = elsewhere;
            spec.budget = secs(15).into();
        })
        .await;
    let pool = world.pool().observer(Arc::new(heard.clone())).queues([QueueName::DEFAULT]).on("a", async |_| Ok(()));
    let running = pool.start().await.unwrap();
    world.reaches(task, Status::Failed).await;
    assert_eq!(world.task(task).await.state.reason, Some(FailureReason::BudgetExceeded));
    assert!(world.elapsed() <= secs(26), "{:?}", world.elapsed());
    assert_eq!(heard.of("Processed"), ["Processed { task_type: None, outcome: \"budget_exceeded\", ran_for: None }"]);
    running.shutdown(secs(9)).await.unwrap();
}

/// How often so many pools looked for lost sessions and how often they swept, all together, in ten minutes, where a sweep is done at
/// its so many-th try.
async fn looks_and_sweeps_of(pools: usize, tries: u64) -> (u64, u64) {
    let world = World::new();
    let (looks, sweeps) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut running = Vec::new();
    for _ in 0..pools {
        let (looks, sweeps) = (Arc::clone(&looks), Arc::clone(&sweeps));
        let store = faulty(&world.store, move |call, nth| {
            let (count, fails) = match call {
                Call::FenceExpired => (&looks, false),
                Call::Expire => (&sweeps, nth % tries != 0),
                _ => return None,
            };
            count.fetch_add(1, Ordering::Relaxed);
            fails.then_some(Fault::Unavailable)
        });
        running.push(world.pool_over(store).on("a", async |_| Ok(())).start().await.unwrap());
    }
    tokio::time::sleep(secs(5)).await;
    assert_eq!(sweeps.load(Ordering::Relaxed), 0, "a pool that starts is busy enough");
    tokio::time::sleep(secs(595)).await;
    for pool in running {
        pool.shutdown(secs(9)).await.unwrap();
    }
    (looks.load(Ordering::Relaxed), sweeps.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn many_pools_sweep_no_more_often_than_one() {
    let (looks, alone) = looks_and_sweeps_of(1, 1).await;
    assert!(alone >= 60 && looks == alone, "{looks} looks, {alone} sweeps");
    let (looks, together) = looks_and_sweeps_of(8, 1).await;
    assert!(looks >= 8 * 60, "{looks} looks");
    assert!((alone / 2..=alone * 3 / 2).contains(&together), "{together} sweeps, {alone} alone");
}

#[tokio::test(start_paused = true)]
async fn a_sweep_that_takes_long_is_gone_on_with_and_begun_more_rarely() {
    let (looks, alone) = looks_and_sweeps_of(1, 10).await;
    assert_eq!(looks, alone);
    // It is gone on with at each tick.
    let (looks, together) = looks_and_sweeps_of(2, u64::MAX).await;
    assert!(together > looks * 3 / 4, "{together} tries, {looks} looks");
    // Each of them learns how long it takes by its first; if they began as often again, half of them would be at it at any time.
    let (_, together) = looks_and_sweeps_of(8, 10).await;
    assert!((alone..alone * 3).contains(&together), "{together} tries, {alone} alone");
}
