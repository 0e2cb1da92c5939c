//! How fast the tasks are worked off, through pools as users run them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use queue_runtime::{Queue, Retention};

use super::memory;
use super::options::Bench;
use super::worker::{Said, Worker};
use super::workload::{Ended, STOP, Workload, failed, pool, queues};
use crate::failure::{Failure, Outcome};
use tokio::sync::mpsc;

/// What a drain came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drained {
    pub(super) took: Duration,
    /// Of the process that held most.
    pub(super) memory_bytes: Option<u64>,
    /// Tasks of before that were removed meanwhile.
    pub(super) pruned: u64,
    /// Transactions that were repeated, for deadlocks and the like.
    pub(super) retries: u64,
}

/// Drains so many tasks, under this retention: in this process, or in as many others as wanted.
pub(super) async fn drain(
    queue: &Queue,
    url: &str,
    work: &Workload,
    options: &Bench,
    retention: Retention,
    tasks: u64,
    done: &Arc<AtomicU64>,
) -> Outcome<Drained> {
    if options.processes == 1 {
        alone(queue, work, options, retention, tasks, done).await
    } else {
        together(queue, url, options, retention != Retention::FOREVER, tasks, done).await
    }
}

async fn alone(
    queue: &Queue,
    work: &Workload,
    options: &Bench,
    retention: Retention,
    tasks: u64,
    done: &Arc<AtomicU64>,
) -> Outcome<Drained> {
    let (clock, before) = (queue.clock(), repeated(queue));
    memory::forget_peak();
    let ended = Ended::up_to(tasks);
    let began = clock.monotonic();
    let observer = Arc::clone(&ended);
    let started = Arc::clone(done);
    let pool = pool(queue, &work.types, queues(options.queues)?, options.concurrency, move |_| {
        started.fetch_add(1, Ordering::Relaxed);
    });
    let running = pool
        .retention(retention)
        .observer(observer)
        .start()
        .await
        .map_err(|error| failed("cannot start the pool", error))?;
    ended.reached().await;
    let took = clock.monotonic().saturating_sub(began);
    let (memory_bytes, pruned) = (memory::peak_bytes(), ended.pruned());
    running.shutdown(STOP).await.map_err(|error| failed("the pool", error))?;
    Ok(Drained { took, memory_bytes, pruned, retries: repeated(queue) - before })
}

/// Transactions that the store has repeated until now.
pub(super) fn repeated(queue: &Queue) -> u64 {
    queue.erased_store().retries().iter().map(|(_, count)| count).sum()
}

async fn together(
    queue: &Queue,
    url: &str,
    options: &Bench,
    prunes: bool,
    tasks: u64,
    done: &Arc<AtomicU64>,
) -> Outcome<Drained> {
    let clock = queue.clock();
    let queues = queues(options.queues)?;
    let mut workers = Vec::new();
    for _ in 0..options.processes {
        workers.push(Worker::start(url, options.types, options.concurrency, prunes, &queues).await?);
    }
    let began = clock.monotonic();
    for worker in &mut workers {
        worker.go().await?;
    }
    // Each is heard in a task of its own, and given back when all is done.
    let (tell, mut told) = mpsc::channel(64);
    let (over, _) = tokio::sync::watch::channel(false);
    let mut hearing = tokio::task::JoinSet::new();
    for (index, mut worker) in workers.into_iter().enumerate() {
        let (tell, mut over) = (tell.clone(), over.subscribe());
        hearing.spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    _ = over.changed() => return Ok(worker),
                    said = worker.said() => match said {
                        Ok(Said::Done(count)) => { let _ = tell.send((index, count)).await; }
                        Ok(_) => {}
                        Err(failure) => return Err(failure),
                    }
                }
            }
        });
    }
    drop(tell);
    let mut counts = vec![0; usize::from(options.processes)];
    while counts.iter().sum::<u64>() < tasks {
        tokio::select! {
            told = told.recv() => match told {
                Some((index, count)) => {
                    counts[index] = count;
                    done.store(counts.iter().sum(), Ordering::Relaxed);
                }
                None => return Err(Failure::failed("all workers of the bench have ended before their time")),
            },
            Some(Ok(Err(failure))) = hearing.join_next() => return Err(failure),
        }
    }
    let took = clock.monotonic().saturating_sub(began);
    let _ = over.send(true);
    let (mut memory, mut pruned, mut retries) = (0, 0, 0);
    while let Some(heard) = hearing.join_next().await {
        let worker = heard.map_err(|error| failed("a worker of the bench", error))??;
        let last = worker.end().await?;
        memory = memory.max(last.memory_bytes);
        pruned += last.pruned;
        retries += last.retries;
    }
    Ok(Drained { took, memory_bytes: Some(memory).filter(|bytes| *bytes > 0), pruned, retries })
}
