//! History that looks after itself.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use queue_core::session::SessionSpec;
use queue_core::{SessionId, Start, Status, TaskAdmin as _, TaskStore as _};
use queue_runtime::{Pool, Retention, TaskId};
use queue_testkit::faulty::Strike;

use crate::completing;
use crate::faulty::{Call, Fault, FaultyStore, faulty};
use crate::support::{Heard, On, World, secs};

/// A pool that completes `good` and rejects `bad`.
fn pool(pool: Pool) -> Pool {
    pool.poll(secs(1), secs(5)).on("good", async |_| Ok(())).on("bad", async |cx| cx.reject("no"))
}

/// `count` tasks that have completed.
async fn completed(world: &World, count: usize) {
    for _ in 0..count {
        world.enqueue("good", |_| {}).await;
    }
    let done = pool(world.pool()).concurrency(200).drain().await.unwrap();
    assert_eq!(done.completed, count as u64);
}

async fn is_there(world: &World, task: TaskId) -> bool {
    world.store.get(task).await.unwrap().is_some()
}

/// The times of what was heard, and its text without them.
fn timed(heard: &Heard, what: &str) -> Vec<Duration> {
    let all = heard.of("");
    let mine = all.iter().filter(|told| told.contains(what));
    let time = |told: &String| {
        let text = told.split(' ').next().unwrap();
        let number = |unit: &str| text.strip_suffix(unit).and_then(|number| number.parse::<f64>().ok());
        let seconds = number("ns")
            .or_else(|| number("ms").map(|ms| ms / 1e3))
            .or_else(|| number("µs").map(|us| us / 1e6))
            .or_else(|| number("s"));
        Duration::from_secs_f64(seconds.unwrap_or_else(|| panic!("no time in {told}")))
    };
    mine.map(time).collect()
}

fn gaps(times: &[Duration]) -> Vec<Duration> {
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn each_status_goes_in_its_own_time_and_nothing_else() {
    let world = World::new();
    let good = world.enqueue("good", |_| {}).await;
    let bad = world.enqueue("bad", |_| {}).await;
    let later = world.enqueue("good", |spec| spec.start = Start::After(secs(10_000))).await;
    let foreign = world.enqueue("foreign", |_| {}).await;
    let long = world.enqueue("long", |_| {}).await;
    let retention = Retention::FOREVER.completed(secs(100)).failed(secs(600));
    let heard = Heard::default();
    let working = pool(world.pool())
        .observer(Arc::new(heard.clone()))
        .retention(retention)
        .on("long", async |_| std::future::pending().await);
    let running = working.start().await.unwrap();
    world.reaches(good, Status::Completed).await;
    world.reaches(bad, Status::Failed).await;
    tokio::time::sleep(secs(95)).await;
    assert!(is_there(&world, good).await && is_there(&world, bad).await);
    tokio::time::sleep(secs(20)).await;
    assert!(!is_there(&world, good).await && is_there(&world, bad).await);
    tokio::time::sleep(secs(480)).await;
    assert!(is_there(&world, bad).await);
    tokio::time::sleep(secs(20)).await;
    assert!(!is_there(&world, bad).await);
    for (task, status) in [(later, Status::Queued), (foreign, Status::Queued), (long, Status::Running)] {
        assert_eq!(world.task(task).await.state.status, status);
    }
    assert_eq!(heard.of("Pruned"), ["Pruned { status: Completed, count: 1 }", "Pruned { status: Failed, count: 1 }"]);
    running.shutdown(secs(9)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn everything_is_kept_unless_told_otherwise() {
    let world = World::new();
    let (good, bad) = (world.enqueue("good", |_| {}).await, world.enqueue("bad", |_| {}).await);
    for retention in [Retention::FOREVER, Retention::FOREVER.completed(secs(10_000))] {
        let running = pool(world.pool()).retention(retention).start().await.unwrap();
        tokio::time::sleep(secs(2_000)).await;
        running.shutdown(secs(9)).await.unwrap();
        assert!(is_there(&world, good).await && is_there(&world, bad).await);
    }
}

#[tokio::test(start_paused = true)]
async fn old_history_goes_in_small_batches_that_leave_the_store_to_others() {
    let world = World::new();
    completed(&world, 1_700).await;
    let heard = Heard::timed(world.time.clock);
    let slow =
        |call, _| if call == Call::Prune { Strike { after: secs(1), ..Strike::default() } } else { Strike::default() };
    let working = pool(world.pool_over(FaultyStore::new(world.store.clone(), slow)));
    let working = working.retention(Retention::FOREVER.completed(Duration::ZERO)).observer(Arc::new(heard.clone()));
    let running = working.start().await.unwrap();
    world.until("all are gone", async || timed(&heard, "Pruned").len() == 4).await;
    assert_eq!(timed(&heard, "count: 500 }").len(), 3);
    assert_eq!(timed(&heard, "count: 200 }").len(), 1);
    for gap in gaps(&timed(&heard, "Pruned")) {
        assert!((secs(9)..secs(12)).contains(&gap), "{gap:?}");
    }
    running.shutdown(secs(9)).await.unwrap();
}

/// Where 3,000 are old, works off 2,000 tasks of type `a`, 200 of them due every so often, and says how long that took and when
/// batches went. Trips take 0.4 s, batches 0.3 s.
async fn pruned_beside<S: Send + Sync + 'static>(
    due_every: Duration,
    pool: impl FnOnce(&World, FaultyStore) -> Pool<S>,
) -> (Duration, Vec<Duration>) {
    let world = World::new();
    completed(&world, 3_000).await;
    tokio::time::sleep(secs(2_000)).await;
    let mut last = None;
    for n in 0..2_000 {
        last = Some(world.enqueue("a", |spec| spec.start = Start::After(due_every * (n / 200))).await);
    }
    let heard = Heard::timed(world.time.clock);
    let slow = |call, _| {
        let pause = match call {
            Call::Prune => secs(3) / 10,
            Call::Settle => secs(4) / 10,
            _ => Duration::ZERO,
        };
        Strike { after: pause, ..Strike::default() }
    };
    let working = pool(&world, FaultyStore::new(world.store.clone(), slow)).concurrency(200).prefetch(0);
    let working = working.retention(Retention::FOREVER.completed(secs(1_000))).observer(Arc::new(heard.clone()));
    let began = world.elapsed();
    let running = working.start().await.unwrap();
    world.reaches(last.unwrap(), Status::Completed).await;
    let took = world.elapsed() - began;
    running.shutdown(secs(9)).await.unwrap();
    (took, timed(&heard, "Pruned"))
}

#[tokio::test(start_paused = true)]
async fn as_much_goes_as_ends() {
    let by_pool = pruned_beside(secs(1) / 2, simple).await;
    let by_handler = pruned_beside(secs(1) / 2, |world, store| completing::pool(world, store, true)).await;
    for (took, batches) in [by_pool, by_handler] {
        // One at once, and one for each 469 that ended; by the clock alone there would have been fewer.
        let by_the_clock = took.as_secs() / 3 + 1;
        assert!((4..=6).contains(&batches.len()) && batches.len() as u64 > by_the_clock, "{batches:?} in {took:?}");
    }
}

fn simple(world: &World, store: FaultyStore) -> Pool {
    pool(world.pool_over(store)).on("a", async |_| Ok(()))
}

#[tokio::test(start_paused = true)]
async fn while_more_is_due_than_can_be_taken_a_tenth_of_the_time_goes_into_history() {
    let among_many = |world: &World, store| {
        let sessions = (1..=40).map(|id| SessionSpec {
            id: SessionId::new(id).unwrap(),
            name: "other".into(),
            host: "other".into(),
            version: "1".into(),
            lease: secs(10_000),
        });
        for spec in sessions {
            world.store.open_session(spec).now_or_never().unwrap().unwrap();
        }
        simple(world, store)
    };
    for (took, batches) in
        [pruned_beside(Duration::ZERO, simple).await, pruned_beside(Duration::ZERO, among_many).await]
    {
        // The last are taken after 3.2 s or so: what is removed after that is no longer in the way.
        assert!(took > secs(3) && (secs(3)..secs(4)).contains(&gaps(&batches)[0]), "{batches:?} in {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_left_alone_for_longer_each_time_and_the_pool_goes_on() {
    let world = World::new();
    let good = world.enqueue("good", |_| {}).await;
    let heard = Heard::timed(world.time.clock);
    let store = faulty(&world.store, |call, nth| (call == Call::Prune && nth <= 9).then_some(Fault::Unavailable));
    let working = pool(world.pool_over(store)).observer(Arc::new(heard.clone()));
    let running = working.retention(Retention::FOREVER.completed(Duration::ZERO)).start().await.unwrap();
    world.reaches(good, Status::Completed).await;
    tokio::time::sleep(secs(290)).await;
    assert!(!is_there(&world, good).await);
    let tries = timed(&heard, "StoreFailed(Unavailable)");
    let least: Vec<_> = [1, 2, 4, 8, 16, 32, 60, 60].map(|most| secs(most) * 3 / 4).to_vec();
    for ((gap, least), most) in gaps(&tries).iter().zip(&least).zip([1, 2, 4, 8, 16, 32, 60, 60]) {
        // What the clock rounds, by.
        assert!(*gap >= *least - secs(1) / 100 && *gap <= secs(most) + secs(1) / 100, "{gap:?}");
    }
    assert_eq!(tries.len(), 9);
    running.shutdown(secs(9)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_pool_does_not_wait_for_a_batch() {
    let world = World::new();
    completed(&world, 1).await;
    let store = faulty(&world.store, |call, _| (call == Call::Prune).then_some(Fault::Hang));
    let running = pool(world.pool_over(store));
    let running = running.retention(Retention::FOREVER.completed(Duration::ZERO)).start().await.unwrap();
    tokio::time::sleep(secs(2)).await;
    let began = world.elapsed();
    running.shutdown(secs(9)).await.unwrap();
    assert!(world.elapsed() - began < secs(1));
}
