//! Filling the tables, and how fast tasks can be enqueued.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use queue_runtime::{EnqueueAllError, EnqueueError, Queue, QueueName, TaskSpec};
use tokio::task::JoinSet;

use super::workload::{Workload, failed};
use crate::failure::Outcome;

/// Producers that enqueue in bulk at once.
const PRODUCERS: u64 = 4;
/// Tasks that a producer hands over at once.
const CHUNK: u64 = 1_000;
/// The bytes of them, at most.
const CHUNK_BYTES: u64 = 4 << 20;
/// Callers that enqueue singly at once.
pub(super) const CALLERS: u64 = 64;

/// Tasks per second.
pub(super) fn rate(tasks: u64, took: Duration) -> f64 {
    tasks as f64 / took.as_secs_f64().max(1e-9)
}

/// Enqueues so many tasks from a few producers, in batches. Returns the time that it took.
pub(super) async fn bulk(
    queue: &Queue,
    tasks: u64,
    bytes: u32,
    done: &Arc<AtomicU64>,
    make: impl Fn(u64) -> TaskSpec + Clone + Send + 'static,
) -> Outcome<Duration> {
    let clock = queue.clock();
    let chunk = (CHUNK_BYTES / u64::from(bytes).max(1)).clamp(1, CHUNK);
    let next = Arc::new(AtomicU64::new(0));
    let began = clock.monotonic();
    let mut producers = JoinSet::new();
    for _ in 0..PRODUCERS {
        let (queue, next, done, make) = (queue.clone(), Arc::clone(&next), Arc::clone(done), make.clone());
        producers.spawn(async move {
            loop {
                let first = next.fetch_add(chunk, Ordering::Relaxed);
                let last = first.saturating_add(chunk).min(tasks);
                if first >= last {
                    return Ok::<_, EnqueueAllError>(());
                }
                queue.enqueue_specs((first..last).map(&make)).await?;
                done.fetch_add(last - first, Ordering::Relaxed);
            }
        });
    }
    while let Some(ended) = producers.join_next().await {
        ended.map_err(|error| failed("a producer", error))?.map_err(|error| failed("cannot enqueue", error))?;
    }
    Ok(clock.monotonic().saturating_sub(began))
}

/// Enqueues single tasks from so many callers, each waiting for its answer before the next. Returns the time that it took.
pub(super) async fn singly(
    queue: &Queue,
    work: &Arc<Workload>,
    into: &QueueName,
    callers: u64,
    tasks: u64,
    done: &Arc<AtomicU64>,
) -> Outcome<Duration> {
    let clock = queue.clock();
    let next = Arc::new(AtomicU64::new(0));
    let began = clock.monotonic();
    let mut all = JoinSet::new();
    for _ in 0..callers {
        let (queue, next, done) = (queue.clone(), Arc::clone(&next), Arc::clone(done));
        let (work, into) = (Arc::clone(work), into.clone());
        all.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= tasks {
                    return Ok::<_, EnqueueError>(());
                }
                queue.enqueue_spec(work.told(&into, number)).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(ended) = all.join_next().await {
        ended.map_err(|error| failed("a caller", error))?.map_err(|error| failed("cannot enqueue", error))?;
    }
    Ok(clock.monotonic().saturating_sub(began))
}
