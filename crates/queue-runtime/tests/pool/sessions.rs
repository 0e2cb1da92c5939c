//! Sessions that are fenced, that cannot be renewed, and workers that die.

use std::sync::Arc;

use queue_core::{FailureReason, Status};
use queue_runtime::{Ctx, Retry};

use crate::faulty::{Call, Fault, Process, faulty};
use crate::support::{Count, CountsDrop, Heard, On, World, ms, secs};

#[tokio::test(start_paused = true)]
async fn a_fenced_session_cancels_its_handlers_and_a_new_one_is_opened() {
    let world = World::new();
    let task = world.enqueue("a", |_| {}).await;
    let (dropped, heard) = (Count::default(), Heard::default());
    let counter = dropped.clone();
    let pool = world.pool().observer(Arc::new(heard.clone())).on("a", move |cx| {
        let guard = CountsDrop(counter.clone());
        async move {
            if cx.fence().get() == 1 {
                std::future::pending::<()>().await;
            }
            drop(guard);
            Ok(())
        }
    });
    let running = pool.start().await.unwrap();
    world.reaches(task, Status::Running).await;
    let session = world.queue.store().sessions().await.unwrap()[0].id;
    world.queue.store().close_session(session).await.unwrap();
    world.reaches(task, Status::Completed).await;
    let state = world.task(task).await.state;
    assert_eq!((state.fence.get(), state.attempt, dropped.get()), (2, 2, 2));
    assert_eq!((heard.of("SessionFenced").len(), heard.of("Stale")), (1, vec!["Stale { count: 1 }".to_owned()]));
    assert_ne!(world.queue.store().sessions().await.unwrap()[0].id, session);
    assert_eq!(running.shutdown(secs(9)).await.unwrap().stale, 1);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_renew_stops_its_handlers_before_its_lease_ends() {
    let world = World::new();
    let task = world.enqueue("a", |_| {}).await;
    let store = faulty(&world.store, |call, nth| match call {
        Call::RenewSession if nth > 1 => Some(Fault::Unavailable),
        _ => None,
    });
    let (dropped, clock) = (Count::default(), world.time.clock);
    let counter = dropped.clone();
    let pool = world.pool_over(store).on("a", move |cx| {
        let guard = CountsDrop(counter.clone());
        async move {
            if cx.fence().get() == 1 {
                std::future::pending::<()>().await;
            }
            drop(guard);
            Ok(())
        }
    });
    let running = pool.start().await.unwrap();
    world.reaches(task, Status::Running).await;
    world.until("one renewal", async || world.elapsed() > secs(6)).await;
    let lease_until = world.queue.store().sessions().await.unwrap()[0].lease_until;
    // It may have run again within the same instant.
    world.until("the handler is gone", async || dropped.get() >= 1).await;
    let left = lease_until.since(queue_core::Clock::wall(&clock));
    assert!((ms(500)..secs(3)).contains(&left), "{left:?}");
    // It was given back in time, without losing its attempt.
    world.reaches(task, Status::Completed).await;
    assert_eq!(world.task(task).await.state.attempt, 1);
    assert_eq!(running.shutdown(secs(9)).await.unwrap().released, 1);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_acknowledgement_was_lost_is_repeated_and_nothing_happens() {
    let world = World::new();
    let task = world.enqueue("a", |_| {}).await;
    let store = faulty(&world.store, |call, nth| match (call, nth % 3) {
        (Call::RenewSession, 0) => Some(Fault::AnswerLost),
        (Call::RenewSession, 1) => Some(Fault::Hang),
        _ => None,
    });
    let pool = world.pool_over(store.clone()).on("a", async |_: Ctx| {
        tokio::time::sleep(secs(200)).await;
        Ok(())
    });
    assert_eq!(pool.drain().await.unwrap().completed, 1);
    assert_eq!(world.task(task).await.state.fence.get(), 1);
    assert!(store.calls(Call::RenewSession) > 20, "{}", store.calls(Call::RenewSession));
    assert_eq!(store.calls(Call::OpenSession), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outage_longer_than_a_lease_loses_nothing() {
    let world = World::new();
    let (began, clock) = (world.elapsed(), world.time.clock);
    let down = move |_: Call, _: u64| {
        let since = queue_core::Clock::monotonic(&clock) - began;
        if (secs(5)..secs(125)).contains(&since) { Some(Fault::Unavailable) } else { None }
    };
    let mut tasks = Vec::new();
    for _ in 0..50 {
        tasks.push(world.enqueue("a", |spec| spec.retry = Retry::DEFAULT.attempts(5)).await);
    }
    let pool = world.pool_over(faulty(&world.store, down)).on("a", async |_: Ctx| {
        tokio::time::sleep(secs(4)).await;
        Ok(())
    });
    let done = pool.drain().await.unwrap();
    assert_eq!(done.completed, 50, "{done:?}");
    assert!((secs(125)..secs(240)).contains(&world.elapsed()), "{:?}", world.elapsed());
    for task in tasks {
        assert_eq!(world.task(task).await.state.status, Status::Completed);
    }
    assert!(world.store.ghosts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_killed_worker_costs_an_attempt_and_another_worker_finds_its_tasks() {
    let world = World::new();
    let process = Arc::new(Process::default());
    let mut ports = world.ports();
    ports.spawn = process.clone();
    let hang = async |_: Ctx| std::future::pending().await;
    let mut tasks = Vec::new();
    for _ in 0..10 {
        tasks.push(world.enqueue("a", |_| {}).await);
    }
    let dying = world.pool().ports(ports).on("a", hang).start().await.unwrap();
    world.reaches(tasks[9], Status::Running).await;
    let other = world.pool().on("a", async |_| Ok(())).start().await.unwrap();
    tokio::time::sleep(secs(12)).await;
    process.kill();
    let died = world.elapsed();
    for task in &tasks {
        world.reaches(*task, Status::Completed).await;
    }
    // The lease, two ticks, and a second.
    assert!(world.elapsed() - died <= secs(30 + 20 + 1), "{:?}", world.elapsed() - died);
    for task in &tasks {
        let task = world.task(*task).await;
        assert_eq!((task.state.attempt, task.state.losses), (2, 1));
        assert_eq!(task.last_error.unwrap().as_str(), "the worker was lost while the task ran");
    }
    let report = other.shutdown(secs(9)).await.unwrap();
    assert_eq!(report.completed, 10);
    drop(dying);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_kills_its_worker_each_time_ends_as_crashed() {
    let world = World::new();
    let pill = world.enqueue("pill", |_| {}).await;
    let neighbour = world.enqueue("good", |spec| spec.retry = Retry::DEFAULT.attempts(9)).await;
    for _ in 0..3 {
        let process = Arc::new(Process::default());
        let mut ports = world.ports();
        ports.spawn = process.clone();
        let killer = process.clone();
        let pool = world.pool().ports(ports).on("good", async |_: Ctx| {
            tokio::time::sleep(secs(50)).await;
            Ok(())
        });
        let pool = pool.on("pill", move |_| {
            let killer = killer.clone();
            async move {
                tokio::time::sleep(secs(1)).await;
                killer.kill();
                std::future::pending().await
            }
        });
        let running = pool.start().await.unwrap();
        world
            .until("it is dead", async || tokio::time::timeout(ms(1), std::future::pending::<()>()).await.is_err())
            .await;
        tokio::time::sleep(secs(100)).await;
        drop(running);
    }
    let last = world.pool().on("good", async |_| Ok(())).on("pill", async |_| Ok(())).start().await.unwrap();
    world.until("the pill is known", async || world.task(pill).await.state.status.is_terminal()).await;
    let state = world.task(pill).await.state;
    assert_eq!((state.reason, state.attempt), (Some(FailureReason::Crashed), 3));
    world.reaches(neighbour, Status::Completed).await;
    last.shutdown(secs(9)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn suspects_start_one_at_a_time_until_one_has_run_for_a_lease() {
    let world = World::new();
    let process = Arc::new(Process::default());
    let mut ports = world.ports();
    ports.spawn = process.clone();
    for _ in 0..3 {
        world.enqueue("a", |_| {}).await;
    }
    let hang = async |_: Ctx| std::future::pending().await;
    let dying = world.pool().ports(ports).on("a", hang).start().await.unwrap();
    tokio::time::sleep(secs(1)).await;
    process.kill();
    let [running, most] = [(); 2].map(|()| Count::default());
    let (now, peak) = (running.clone(), most.clone());
    let pool = world.pool().on("a", move |_| {
        let (now, peak) = (now.clone(), peak.clone());
        async move {
            let count = now.up() + 1;
            while peak.get() < count {
                peak.up();
            }
            tokio::time::sleep(secs(100)).await;
            now.down();
            Ok(())
        }
    });
    let survivor = pool.on("ordinary", async |_| Ok(())).start().await.unwrap();
    world.until("the first suspect runs", async || running.get() == 1).await;
    tokio::time::sleep(secs(29)).await;
    assert_eq!(most.get(), 1);
    // Ordinary tasks go on beside it.
    let ordinary = world.enqueue("ordinary", |_| {}).await;
    world.reaches(ordinary, Status::Completed).await;
    tokio::time::sleep(secs(10)).await;
    assert_eq!(most.get(), 2);
    tokio::time::sleep(secs(30)).await;
    assert_eq!(most.get(), 3);
    survivor.shutdown(secs(200)).await.unwrap();
    drop(dying);
}

#[tokio::test(start_paused = true)]
async fn a_session_found_fenced_by_a_claim_is_replaced_at_once() {
    let world = World::new();
    let running = world.pool().on("a", async |_| Ok(())).start().await.unwrap();
    tokio::time::sleep(ms(100)).await;
    let session = world.queue.store().sessions().await.unwrap()[0].id;
    world.queue.store().close_session(session).await.unwrap();
    let at = world.elapsed();
    let task = world.enqueue("a", |_| {}).await;
    world.reaches(task, Status::Completed).await;
    assert!(world.elapsed() - at < ms(100), "{:?}", world.elapsed() - at);
    running.shutdown(secs(9)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_is_opened_again_until_that_works() {
    let world = World::new();
    let store = faulty(&world.store, |call, nth| match (call, nth) {
        (Call::OpenSession, 2 | 3) => Some(Fault::AnswerLost),
        (Call::OpenSession, 4) => Some(Fault::Hang),
        _ => None,
    });
    let running = world.pool_over(store.clone()).on("a", async |_| Ok(())).start().await.unwrap();
    let session = world.queue.store().sessions().await.unwrap()[0].id;
    world.queue.store().close_session(session).await.unwrap();
    let task = world.enqueue("a", |_| {}).await;
    world.reaches(task, Status::Completed).await;
    assert_eq!((store.calls(Call::OpenSession), world.queue.store().sessions().await.unwrap().len()), (5, 1));
    running.shutdown(secs(9)).await.unwrap();
    assert!(world.queue.store().sessions().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_operator_can_drain_a_worker() {
    let world = World::new();
    let task = world.enqueue("a", |_| {}).await;
    let pool = world.pool().on("a", async |_: Ctx| {
        tokio::time::sleep(secs(12)).await;
        Ok(())
    });
    let mut running = pool.start().await.unwrap();
    world.reaches(task, Status::Running).await;
    let session = world.queue.store().sessions().await.unwrap()[0].id;
    assert!(world.queue.store().request_drain(session, "ana").await.unwrap());
    assert_eq!(running.ended().await.unwrap().completed, 1);
    assert!(world.elapsed() < secs(13));
    assert!(world.queue.store().sessions().await.unwrap().is_empty());
}
