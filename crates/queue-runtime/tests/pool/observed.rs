//! What an observer hears: only what the store has acknowledged, and only types that are registered.

use std::sync::Arc;

use queue_core::QueueName;
use queue_runtime::Ctx;

use crate::faulty::{Call, Fault, faulty};
use crate::support::{Heard, On, World, secs};

#[tokio::test(start_paused = true)]
async fn each_run_is_told_with_its_outcome() {
    let world = World::new();
    let heard = Heard::default();
    world.enqueue("good", |_| {}).await;
    world.enqueue("bad", |_| {}).await;
    world.enqueue("foreign", |_| {}).await;
    let pool = world
        .pool()
        .observer(Arc::new(heard.clone()))
        .fail_unregistered([QueueName::DEFAULT])
        .on("good", async |_: Ctx| {
            tokio::time::sleep(secs(2)).await;
            Ok(())
        })
        .on("bad", async |_: Ctx| Err("no")?);
    pool.drain().await.unwrap();
    let mut processed = heard.of("Processed");
    processed.sort();
    assert_eq!(
        processed,
        [
            "Processed { task_type: None, outcome: \"unregistered\", ran_for: None }",
            "Processed { task_type: Some(\"bad\"), outcome: \"exhausted\", ran_for: Some(0ns) }",
            "Processed { task_type: Some(\"bad\"), outcome: \"retried\", ran_for: Some(0ns) }",
            "Processed { task_type: Some(\"bad\"), outcome: \"retried\", ran_for: Some(0ns) }",
            "Processed { task_type: Some(\"good\"), outcome: \"completed\", ran_for: Some(2s) }",
        ]
    );
    assert_eq!(heard.of("Claimed").len(), 4);
    // The one that sleeps is told of; what ends at once may come and go between two looks.
    assert!(heard.of("InFlight").iter().any(|told| told == "InFlight(1)"));
    assert_eq!(heard.of("InFlight").last().unwrap(), "InFlight(0)");
    assert!(!heard.of("ClaimReturned").is_empty() && !heard.of("SettleBatch(").is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_that_was_not_acknowledged() {
    let world = World::new();
    let heard = Heard::default();
    let store = faulty(&world.store, |call, nth| match call {
        Call::Settle if nth <= 4 => Some(Fault::Unavailable),
        _ => None,
    });
    world.enqueue("a", |_| {}).await;
    let pool = world.pool_over(store).observer(Arc::new(heard.clone())).on("a", async |_| Ok(()));
    let running = pool.start().await.unwrap();
    world.until("four failures", async || heard.of("StoreFailed").len() == 4).await;
    assert_eq!(heard.of("StoreFailed").last().unwrap(), "StoreFailed(Unavailable)");
    assert!(heard.of("Processed").is_empty());
    world.until("told", async || heard.of("Processed").len() == 1).await;
    running.shutdown(secs(9)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn queues_and_repeats_are_sampled_for_an_observer() {
    let world = World::new();
    let heard = Heard::default();
    let store = faulty(&world.store, |_, _| None);
    world.enqueue("other", |_| {}).await;
    let pool = world.pool_over(store).observer(Arc::new(heard.clone())).on("a", async |_| Ok(()));
    let running = pool.start().await.unwrap();
    tokio::time::sleep(secs(16)).await;
    running.shutdown(secs(9)).await.unwrap();
    let depths = heard.of("QueueDepth { queue: \"default\", status: Queued, count: 1 }");
    assert_eq!(depths.len(), 2);
    let age = heard.of("OldestReady").pop().unwrap();
    assert!(age.starts_with("OldestReady { queue: \"default\", age: 1"), "{age}");
    assert_eq!(heard.of("StoreRetried { kind: \"deadlock\"").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn queues_are_sampled_for_an_observer_of_the_queue_as_well() {
    let world = World::new();
    let heard = Heard::default();
    world.enqueue("other", |_| {}).await;
    let running = world.pool_observed(heard.clone()).on("a", async |_| Ok(())).start().await.unwrap();
    tokio::time::sleep(secs(16)).await;
    running.shutdown(secs(9)).await.unwrap();
    assert_eq!(heard.of("QueueDepth { queue: \"default\", status: Queued, count: 1 }").len(), 2);
    assert_eq!(heard.of("OldestReady").len(), 2);
}
