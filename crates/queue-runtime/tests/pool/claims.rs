//! Claims and settlements whose acknowledgement is lost, and a store that is down.

use queue_core::Status;
use queue_runtime::Ctx;

use crate::faulty::{Call, Fault, FaultyStore, faulty, refusing};
use crate::support::{Count, On, World, ms, secs};

/// Drains 300 tasks over this store and checks that each completed, by as many runs.
async fn drains(strike: impl Fn(Call, u64) -> Option<Fault> + Send + Sync + 'static) -> FaultyStore {
    let world = World::new();
    let store = faulty(&world.store, strike);
    let mut tasks = Vec::new();
    for _ in 0..300 {
        tasks.push(world.enqueue("a", |_| {}).await);
    }
    let runs = Count::default();
    let counter = runs.clone();
    let pool = world.pool_over(store.clone()).on("a", move |_| {
        counter.up();
        async {
            tokio::time::sleep(ms(7)).await;
            Ok(())
        }
    });
    let done = pool.drain().await.unwrap();
    assert_eq!((done.completed, done.stale, done.unsettled, runs.get()), (300, 0, 0, 300), "{done:?}");
    for task in tasks {
        let state = world.task(task).await.state;
        assert_eq!((state.status, state.attempt), (Status::Completed, 1));
    }
    assert!(world.store.ghosts().is_empty());
    store
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_acknowledgement_was_lost_is_found_and_run() {
    let store = drains(|call, nth| match call {
        Call::Claim if nth % 3 == 1 => Some(Fault::AnswerLost),
        Call::ResolveClaim if nth % 2 == 1 => Some(Fault::Unavailable),
        _ => None,
    })
    .await;
    assert!(store.calls(Call::ResolveClaim) > 5);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_lost_before_it_was_written_is_void() {
    drains(|call, nth| if call == Call::Claim && nth % 3 == 1 { Some(Fault::RequestLost) } else { None }).await;
}

#[tokio::test(start_paused = true)]
async fn a_settle_whose_acknowledgement_was_lost_is_repeated_and_counted_once() {
    drains(|call, nth| if call == Call::Settle && nth % 2 == 1 { Some(Fault::AnswerLost) } else { None }).await;
}

#[tokio::test(start_paused = true)]
async fn calls_that_fail_hang_or_panic_never_end_the_pool() {
    drains(|call, nth| match (call, nth % 7) {
        (Call::Claim, 2) | (Call::Settle, 3) | (Call::IsBusy, 1) => Some(Fault::Unavailable),
        (Call::Claim, 5) | (Call::Settle, 6) | (Call::ResolveClaim, 1) => Some(Fault::Hang),
        (Call::Claim, 6) | (Call::Settle, 4) => Some(Fault::Panic),
        (Call::Claim, 0) | (Call::Settle, 0) => Some(Fault::Refused),
        _ => None,
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_claimed_while_settlements_fail() {
    let world = World::new();
    let store = faulty(&world.store, |call, nth| match call {
        Call::Settle if nth < 20 => Some(Fault::Unavailable),
        _ => None,
    });
    for _ in 0..200 {
        world.enqueue("a", |_| {}).await;
    }
    let running =
        world.pool_over(store.clone()).concurrency(4).prefetch(4).on("a", async |_| Ok(())).start().await.unwrap();
    world.until("it goes on failing", async || store.calls(Call::Settle) >= 10).await;
    let claims = store.calls(Call::Claim);
    let held = world.queue.store().sessions().await.unwrap()[0].running;
    assert!(held <= 16, "{held}");
    world.until("it goes on failing", async || store.calls(Call::Settle) >= 19).await;
    assert_eq!(store.calls(Call::Claim), claims);
    running.shutdown(secs(60)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn errors_are_backed_off_from() {
    let world = World::new();
    let store = faulty(&world.store, |call, _| match call {
        Call::Claim => Some(Fault::Unavailable),
        _ => None,
    });
    let running = world.pool_over(store.clone()).on("a", async |_| Ok(())).start().await.unwrap();
    tokio::time::sleep(secs(60)).await;
    // 0.1, 0.2, … up to 5 s apart, less a quarter at most.
    assert!((14..30).contains(&store.calls(Call::Claim)), "{}", store.calls(Call::Claim));
    running.shutdown(secs(9)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_settlement_that_cannot_be_written_does_not_hold_up_the_others() {
    let world = World::new();
    let bad = world.enqueue("bad", |_| {}).await;
    let poisoned = refusing(&world.store, bad);
    let pool = world.pool_over(poisoned).on("bad", async |_: Ctx| Ok(())).on("a", async |_: Ctx| Ok(()));
    let mut tasks = Vec::new();
    for _ in 0..50 {
        tasks.push(world.enqueue("a", |_| {}).await);
    }
    let running = pool.start().await.unwrap();
    for task in tasks {
        world.reaches(task, Status::Completed).await;
    }
    let later = world.enqueue("a", |_| {}).await;
    world.reaches(later, Status::Completed).await;
    assert_eq!(world.task(bad).await.state.status, Status::Running);
    assert_eq!(running.shutdown(secs(9)).await.unwrap().unsettled, 1);
}
