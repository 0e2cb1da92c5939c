//! One seed, one history: what a simulation builds on.

use std::sync::Arc;

use queue_core::{Clock as _, TaskAdmin as _};
use queue_runtime::{Ctx, Retry};

use crate::faulty::{Call, Fault, faulty};
use crate::support::{Heard, On, World, ms, secs};

/// Two workers, faults of all kinds, handlers of all kinds; told as text.
async fn history() -> Vec<String> {
    let world = World::new();
    let heard = Heard::timed(world.time.clock);
    for number in 0..150 {
        let kind = ["good", "fails", "panics", "snoozes", "slow"][number % 5];
        world.enqueue(kind, |spec| spec.retry = Retry::exponential(ms(50), secs(2)).attempts(4)).await;
    }
    let pool = |name: &str, shift: u64| {
        let store = faulty(&world.store, move |call, nth| match (call, (nth + shift) % 11) {
            (Call::Claim, 3) | (Call::Settle, 7) => Some(Fault::AnswerLost),
            (Call::Claim, 8) | (Call::Settle, 2) | (Call::RenewSession, 5) => Some(Fault::Unavailable),
            (Call::Settle, 9) | (Call::RenewSession, 1) => Some(Fault::Hang),
            _ => None,
        });
        world
            .pool_over(store)
            .name(name)
            .lease(secs(6))
            .concurrency(7)
            .observer(Arc::new(heard.clone()))
            .on("good", async |_| Ok(()))
            .on("fails", async |_| Err("no")?)
            .on("panics", async |_| panic!("as it must"))
            .on("snoozes", async |cx: Ctx| if cx.fence().get() < 3 { cx.snooze(ms(700)) } else { Ok(()) })
            .on("slow", async |cx: Ctx| {
                cx.progress(50, "half-way");
                tokio::time::sleep(ms(30 * cx.task_id().get())).await;
                Ok(())
            })
    };
    let (one, two) = tokio::join!(pool("one", 0).drain(), pool("two", 4).drain());
    let mut told = heard.of("");
    told.push(format!("{:?} {:?} {:?}", one.unwrap(), two.unwrap(), world.time.clock.monotonic()));
    told.push(format!("{:?}", world.store.stats().await.unwrap()));
    told
}

fn replay() -> Vec<String> {
    // A runtime each, as each run of a simulation has.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(history())
}

#[test]
fn one_seed_replays_one_history() {
    let (one, two) = (replay(), replay());
    assert!(one.len() > 500, "{}", one.len());
    for (number, (one, two)) in one.iter().zip(&two).enumerate() {
        assert_eq!(one, two, "event {number}");
    }
    assert_eq!(one.len(), two.len());
}
