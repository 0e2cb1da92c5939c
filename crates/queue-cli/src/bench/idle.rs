//! What a pool costs that has nothing to do.

use std::mem::take;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use queue_runtime::Queue;
use queue_runtime::queue_core::{Observation, Observer};
use tokio::time::sleep;

use super::latency::Times;
use super::options::Bench;
use super::place::Place;
use super::server::Counters;
use super::workload::{STOP, Workload, failed, pool, queue as named};
use crate::failure::Outcome;

/// How long a pool is left alone before it counts as idle.
const SETTLE: Duration = Duration::from_secs(1);

/// What was seen of an idle pool.
#[derive(Debug)]
pub(super) struct Idle {
    /// How long each claim took to come back with nothing.
    pub(super) claims: Times,
    pub(super) seconds: f64,
    /// What the server did meanwhile; nothing where there is none.
    pub(super) cost: Option<Counters>,
}

/// Collects how long claims take.
#[derive(Debug, Default)]
struct Claims(Mutex<Vec<Duration>>);

impl Claims {
    fn take(&self) -> Vec<Duration> {
        take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Claims {
    fn observe(&self, observation: &Observation<'_>) {
        if let Observation::ClaimReturned(took) = observation {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(*took);
        }
    }
}

/// Watches a pool on a queue in which there is nothing, whatever lies in the others.
pub(super) async fn watch(place: &mut Place, queue: &Queue, work: &Workload, options: &Bench) -> Outcome<Idle> {
    let claims = Arc::new(Claims::default());
    let idle = pool(queue, &work.types, vec![named("idle")?], options.concurrency, |_| {});
    let observer = Arc::clone(&claims);
    let running = idle.observer(observer).start().await.map_err(|error| failed("cannot start the pool", error))?;
    sleep(SETTLE.min(options.watch)).await;
    let before = place.counters().await?;
    claims.take();
    let clock = queue.clock();
    let began = clock.monotonic();
    sleep(options.watch).await;
    let seconds = clock.monotonic().saturating_sub(began).as_secs_f64().max(1e-9);
    let times = Times::new(claims.take());
    let cost = place.counters().await?.zip(before).map(|(after, before)| after.since(&before));
    running.shutdown(STOP).await.map_err(|error| failed("the pool", error))?;
    Ok(Idle { claims: times, seconds, cost })
}
