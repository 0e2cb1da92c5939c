//! When a trip to the store leaves beside another.

use std::time::Duration;

use queue_core::session::SessionSpec;
use queue_core::{SessionId, TaskStore as _};
use queue_testkit::FaultyStore;
use queue_testkit::faulty::{Call, Fault, Faults, Strike};

use crate::support::{On, World, ms, secs};

const LATE: usize = 300;

/// Runs ten tasks that end after 10 ms and [`LATE`] that end after 20 ms, and tells how many of the latter were completed within
/// this time.
async fn late_ones_within(world: &World, faults: impl Faults + 'static, time: Duration) -> usize {
    for _ in 0..10 {
        world.enqueue("early", |_| {}).await;
    }
    let mut late = Vec::new();
    for _ in 0..LATE {
        late.push(world.enqueue("late", |_| {}).await);
    }
    let pool = world.pool_over(FaultyStore::new(world.store.clone(), faults)).concurrency(320);
    let pool = pool.on("early", async |_| ends_after(ms(10)).await).on("late", async |_| ends_after(ms(20)).await);
    let done = pool.drain().await.unwrap();
    assert_eq!(done.completed, 10 + LATE as u64);
    let mut within = 0;
    for task in late {
        let state = world.task(task).await.state;
        within += usize::from(state.completed_at.unwrap().since(state.started_at.unwrap()) < time);
    }
    within
}

async fn ends_after(time: Duration) -> queue_runtime::Result {
    tokio::time::sleep(time).await;
    Ok(())
}

/// A store that takes 50 ms for a settle.
fn slow(call: Call, _: u64) -> Strike {
    let before = if call == Call::Settle { ms(50) } else { Duration::ZERO };
    Strike { before, ..Strike::default() }
}

#[tokio::test(start_paused = true)]
async fn alone_trips_go_side_by_side() {
    assert!(late_ones_within(&World::new(), slow, ms(90)).await >= LATE / 2);
}

#[tokio::test(start_paused = true)]
async fn beside_other_sessions_only_full_trips_do() {
    let world = World::new();
    let id = SessionId::from_random(1);
    let (name, host, version) = ("other".into(), "host".into(), "1".into());
    world.store.open_session(SessionSpec { id, name, host, version, lease: secs(3_600) }).await.unwrap();
    assert_eq!(late_ones_within(&world, slow, ms(90)).await, 0);
    // All went with the next one.
    assert_eq!(late_ones_within(&world, slow, ms(120)).await, LATE);
}

#[tokio::test(start_paused = true)]
async fn a_trip_that_hangs_holds_up_the_others_for_a_moment_only() {
    let hangs = |call, nth| if (call, nth) == (Call::Settle, 1) { Fault::Hang.into() } else { Strike::default() };
    assert_eq!(late_ones_within(&World::new(), hangs, secs(1)).await, LATE);
}
