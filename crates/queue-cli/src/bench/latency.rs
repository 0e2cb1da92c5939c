//! How soon tasks start: under load, and on an idle pool.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use queue_runtime::queue_core::Entropy as _;
use queue_runtime::{OsEntropy, Queue, QueueName};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::options::Bench;
use super::worker::{Said, Worker};
use super::workload::{STOP, Workload, failed, pool, queue as named, token};
use crate::failure::{Failure, Outcome};

/// How often tasks are enqueued while the latency under load is measured.
const TICK: Duration = Duration::from_millis(5);
/// Enqueues under way at once, at most.
const FLIGHTS: usize = 16;
/// Single tasks enqueued on an idle pool, at most.
const PICKUPS: u64 = 200;
/// A task that did not start in this time never will.
const PATIENCE: Duration = Duration::from_secs(20);

/// The times that were seen, in order.
#[derive(Debug)]
pub(super) struct Times(Vec<Duration>);

impl Times {
    pub(super) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// The time within which so much of a hundred was done, in milliseconds; nothing where nothing was seen.
    pub(super) fn percentile_ms(&self, percent: usize) -> Option<f64> {
        let index = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(index).map(|time| time.as_secs_f64() * 1e3)
    }
}

/// From the call that enqueues to the start of the handler, at so many tasks a second.
pub(super) async fn under_load(queue: &Queue, work: &Arc<Workload>, options: &Bench, rate: f64) -> Outcome<Times> {
    let clock = queue.clock();
    let into = named("latency")?;
    let times = Arc::new(Mutex::new(Vec::new()));
    let running = pool(queue, &work.types, vec![into.clone()], options.concurrency, {
        let (times, clock) = (Arc::clone(&times), Arc::clone(&clock));
        move |payload| {
            let waited = clock.monotonic().saturating_sub(Duration::from_micros(token(payload)));
            times.lock().unwrap_or_else(PoisonError::into_inner).push(waited);
        }
    });
    let running = running.start().await.map_err(|error| failed("cannot start the pool", error))?;
    let flights = Arc::new(Semaphore::new(FLIGHTS));
    let (began, mut sent) = (clock.monotonic(), 0_u64);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut under_way = tokio::task::JoinSet::new();
    loop {
        ticks.tick().await;
        let now = clock.monotonic();
        let passed = now.saturating_sub(began);
        if passed >= options.watch {
            break;
        }
        let wanted = (passed.as_secs_f64() * rate) as u64;
        if wanted <= sent {
            continue;
        }
        let permit = Arc::clone(&flights).acquire_owned().await;
        let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let specs: Vec<_> = (sent..wanted).map(|_| work.told(&into, micros)).collect();
        sent = wanted;
        let queue = queue.clone();
        under_way.spawn(async move {
            let _permit = permit;
            queue.enqueue_specs(specs).await.map(drop)
        });
        while let Some(ended) = under_way.try_join_next() {
            joined(ended)?;
        }
    }
    while let Some(ended) = under_way.join_next().await {
        joined(ended)?;
    }
    let deadline = clock.monotonic() + PATIENCE;
    let seen = || times.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
    while seen() < sent {
        if clock.monotonic() > deadline {
            return Err(Failure::failed("tasks that were enqueued under load did not start"));
        }
        sleep(TICK).await;
    }
    running.shutdown(STOP).await.map_err(|error| failed("the pool", error))?;
    let times = std::mem::take(&mut *times.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Times::new(times))
}

fn joined<E: std::fmt::Display>(ended: Result<Result<(), E>, tokio::task::JoinError>) -> Outcome {
    ended.map_err(|error| failed("an enqueue", error))?.map_err(|error| failed("cannot enqueue", error))
}

/// From the acknowledged enqueue to the start of the handler, in this process.
pub(super) async fn pickup_here(queue: &Queue, work: &Workload, options: &Bench) -> Outcome<Times> {
    let clock = queue.clock();
    let into = named("pickup")?;
    let (tell, mut told) = mpsc::unbounded_channel();
    let running = pool(queue, &work.types[..1], vec![into.clone()], options.concurrency, {
        let clock = Arc::clone(&clock);
        move |payload| {
            let _ = tell.send((token(payload), clock.monotonic()));
        }
    });
    let running = running.start().await.map_err(|error| failed("cannot start the pool", error))?;
    let times = pickups(queue, work, options, &into, "an idle pool", async |number| {
        loop {
            match told.recv().await {
                Some((told, at)) if told == number => return Ok(at),
                Some(_) => {}
                None => return Err(never_started("an idle pool")),
            }
        }
    });
    let times = times.await?;
    running.shutdown(STOP).await.map_err(|error| failed("the pool", error))?;
    Ok(times)
}

/// The same, where another process works. What it says comes through a pipe, which is a part of the time.
pub(super) async fn pickup_across(queue: &Queue, url: &str, work: &Workload, options: &Bench) -> Outcome<Times> {
    let clock = queue.clock();
    let into = named("across")?;
    let mut worker = Worker::start(url, 1, options.concurrency, false, std::slice::from_ref(&into)).await?;
    worker.go().await?;
    let times = pickups(queue, work, options, &into, "an idle pool of another process", async |number| {
        loop {
            if let Said::Started(told) = worker.said().await?
                && told == number
            {
                return Ok(clock.monotonic());
            }
        }
    });
    let times = times.await?;
    worker.end().await?;
    Ok(times)
}

/// Enqueues tasks one by one on a pool that is idle, and measures from each one's acknowledgement to the time that `started` tells
/// for its number.
async fn pickups(
    queue: &Queue,
    work: &Workload,
    options: &Bench,
    into: &QueueName,
    whose: &str,
    mut started: impl AsyncFnMut(u64) -> Outcome<Duration>,
) -> Outcome<Times> {
    let clock = queue.clock();
    let mut times = Vec::new();
    for number in 0..options.tasks.min(PICKUPS) {
        rest().await;
        let mut spec = work.told(into, number);
        spec.task_type = work.types[0].clone();
        queue.enqueue_spec(spec).await.map_err(|error| failed("cannot enqueue", error))?;
        let acknowledged = clock.monotonic();
        let at = timeout(PATIENCE, started(number)).await.map_err(|_| never_started(whose))??;
        times.push(at.saturating_sub(acknowledged));
    }
    Ok(Times::new(times))
}

fn never_started(whose: &str) -> Failure {
    Failure::failed(format!("a task on {whose} did not start"))
}

/// Waits long enough for the pool to poll as rarely as it ever does, and not always as long.
async fn rest() {
    sleep(Duration::from_millis(60 + OsEntropy.next_u64() % 60)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_seen() {
        let times = Times::new((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!([50, 95, 99].map(|percent| times.percentile_ms(percent)), [100.0, 190.0, 198.0].map(Some));
        assert_eq!(Times::new(vec![Duration::from_millis(7)]).percentile_ms(50), Some(7.0));
        assert_eq!(Times::new(Vec::new()).percentile_ms(99), None);
    }
}
