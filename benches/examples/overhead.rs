//! What the pool costs by itself: a store that answers at once, beside a bare loop that spawns the same handlers and catches
//! their panics. `cargo run --release -p queue-benches --example overhead -- [TASKS] [CONCURRENCY]`

use std::env;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use queue_benches::{AtOnce, TYPE};
use queue_core::{Payload, TaskResult};
use queue_runtime::{Ctx, Limits, Pool, Queue, Result as HandlerResult};
use tokio::task::JoinSet;

/// Spawns so many handlers at a time, and catches their panics.
async fn bare(tasks: u64, concurrency: usize) -> u64 {
    let (mut running, mut ended) = (JoinSet::new(), 0);
    for _ in 0..tasks {
        if running.len() >= concurrency {
            ended += u64::from(matches!(running.join_next().await, Some(Ok(Ok(())))));
        }
        running.spawn(AssertUnwindSafe(async {}).catch_unwind());
    }
    while let Some(joined) = running.join_next().await {
        ended += u64::from(matches!(joined, Ok(Ok(()))));
    }
    ended
}

async fn pooled(tasks: u64, concurrency: usize) -> Result<u64, queue_runtime::StartError> {
    let queue = Queue::new(AtOnce::new(tasks, Payload::default()));
    let handler = |_: Payload, _: Ctx| async { HandlerResult::Ok(TaskResult::None) };
    let done = Pool::new(&queue).handle_raw(TYPE, handler, Limits::DEFAULT).concurrency(concurrency).drain().await?;
    Ok(done.completed)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let tasks = args.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let concurrency = args.next().map_or(Ok(64), |text| text.parse())?;
    let clock = queue_runtime::TokioClock::new();
    let clock: &dyn queue_core::Clock = &clock;
    for round in 1..=3 {
        let began = clock.monotonic();
        assert_eq!(bare(tasks, concurrency).await, tasks);
        let bare_took = (clock.monotonic() - began).as_secs_f64();
        let began = clock.monotonic();
        assert_eq!(pooled(tasks, concurrency).await?, tasks);
        let pool_took = (clock.monotonic() - began).as_secs_f64();
        let (bare, pool) = (tasks as f64 / bare_took, tasks as f64 / pool_took);
        println!("round {round}: bare loop {bare:.0}/s, pool {pool:.0}/s, ratio {:.2}", pool / bare);
    }
    Ok(())
}
