//! `queue bench`: how fast this machine's database is under the queue, measured through the client and the pool that users
//! run, in a database of its own.

mod draining;
mod enqueueing;
mod idle;
mod latency;
mod memory;
mod options;
mod place;
mod report;
mod server;
mod worker;
mod workload;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use queue_runtime::{Queue, Retention, TaskSpec};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;

pub(crate) use self::options::Bench;
use self::options::Part;
use self::place::Place;
use self::report::Figures;
use self::workload::{PRUNED, Workload, failed, queue as named};
use crate::database::Database;
use crate::failure::{Failure, Outcome};
use crate::output::{Output, grouped};
use crate::progress::Spinner;

/// How often the line on the terminal is renewed.
const SHOW: Duration = Duration::from_millis(100);
/// Seconds that each measurement of single enqueues takes, about.
const SINGLES: f64 = 2.0;
/// A caller alone is tried with so many tasks first.
const ALONE: u64 = 100;

/// Runs the hidden command that the arguments name, if they do.
pub(crate) fn hidden(args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    worker::hidden(args)
}

pub(crate) async fn run(named: &Database, options: &Bench, output: &mut Output) -> Outcome {
    if options.snapshot && named.is_file() {
        return Err(Failure::usage("--snapshot is for servers; an SQLite file has one writer and no such snapshot"));
    }
    let drains = options.needs_drain();
    for (is_idle, name, of) in [
        (options.retention && !drains, "--retention", "drain"),
        (options.snapshot && !drains, "--snapshot", "drain"),
        (options.rate.is_some() && !options.measures(Part::Latency), "--rate", "latency"),
    ] {
        if is_idle {
            let said = format!("{name} is about the {of}, and --only leaves that out");
            return Err(Failure::usage(said).hint(format!("--only {of}")));
        }
    }
    let told = |error| failed("cannot listen to signals", error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(told)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(told)?;
    let mut place = Place::make(named).await?;
    let measured = tokio::select! {
        biased;
        _ = interrupt.recv() => Err(Failure::failed("interrupted")),
        _ = terminate.recv() => Err(Failure::failed("interrupted")),
        measured = Measuring::new(&mut place, options).measure() => measured,
    };
    let removed = place.remove().await;
    let figures = measured?;
    removed?;
    figures.print(output)
}

/// The bench at work.
struct Measuring<'a> {
    place: &'a mut Place,
    options: &'a Bench,
    spinner: Spinner,
    /// How far the work of the moment is.
    done: Arc<AtomicU64>,
}

impl<'a> Measuring<'a> {
    fn new(place: &'a mut Place, options: &'a Bench) -> Self {
        Self { place, options, spinner: Spinner::start(), done: Arc::default() }
    }

    async fn measure(mut self) -> Outcome<Figures> {
        let options = self.options;
        let mut figures = Figures::new(options, self.place.engine());
        let queue = self.place.open().await?;
        let work = Arc::new(Workload::new(options)?);
        self.fill(&queue, &work).await?;
        if options.fills()
            && let Some(server) = self.place.server()
        {
            self.spinner.say("the server writes back what was filled in".to_owned());
            server.rest().await?;
        }
        if options.needs_tasks() {
            self.bulk(&queue, &work, &mut figures).await?;
        }
        let snapshot = match self.place.server().filter(|_| options.snapshot) {
            Some(server) => Some(server.snapshot().await?),
            None => None,
        };
        if options.needs_drain() {
            self.drain(&queue, &work, &mut figures).await?;
        }
        // Under the snapshot, if there is one: what was drained lies there still.
        self.idle(&queue, &work, &mut figures).await?;
        drop(snapshot);
        if options.measures(Part::Singles) {
            self.singles(&queue, &work, &mut figures).await?;
        }
        if options.measures(Part::Latency) {
            self.latency(&queue, &work, &mut figures).await?;
        }
        if options.measures(Part::Pickup) {
            self.pickup(&queue, &work, &mut figures).await?;
        }
        Ok(figures)
    }

    /// Shows how far the work is, while it is done.
    async fn watch<T>(&self, what: &str, total: u64, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        self.done.store(0, Ordering::Relaxed);
        let (mut ticks, mut work) = (interval(SHOW), std::pin::pin!(work));
        loop {
            tokio::select! {
                biased;
                worked = &mut work => return worked,
                _ = ticks.tick() => {
                    let done = self.done.load(Ordering::Relaxed);
                    self.spinner.say(match total {
                        0 => what.to_owned(),
                        total => format!("{what}: {} of {}", grouped(done), grouped(total)),
                    });
                }
            }
        }
    }

    /// What lies there before anything is measured.
    async fn fill(&self, queue: &Queue, work: &Arc<Workload>) -> Outcome {
        let options = self.options;
        let history = options.history();
        if history > 0 {
            self.put(queue, work, "enqueuing what will be history", history, Workload::task).await?;
            let url = self.place.database().url();
            let working = draining::drain(queue, url, work, options, Retention::FOREVER, history, &self.done);
            self.watch("making history of it", history, working).await?;
        }
        if options.scheduled > 0 {
            self.put(queue, work, "enqueuing tasks for later", options.scheduled, Workload::later).await?;
        }
        if options.backlog > 0 {
            self.put(queue, work, "enqueuing the backlog", options.backlog, Workload::task).await?;
        }
        Ok(())
    }

    /// Enqueues so many tasks in bulk. How long that took.
    async fn put(
        &self,
        queue: &Queue,
        work: &Arc<Workload>,
        what: &str,
        count: u64,
        make: fn(&Workload, u64) -> TaskSpec,
    ) -> Outcome<Duration> {
        let work = Arc::clone(work);
        let make = move |number| make(&work, number);
        let filling = enqueueing::bulk(queue, count, self.options.payload, &self.done, make);
        self.watch(what, count, filling).await
    }

    async fn bulk(&mut self, queue: &Queue, work: &Arc<Workload>, figures: &mut Figures) -> Outcome {
        let options = self.options;
        let before = self.place.counters().await?;
        let took = self.put(queue, work, "enqueuing", options.tasks, Workload::task).await?;
        if !options.measures(Part::Enqueue) {
            return Ok(());
        }
        figures.enqueue_per_second = Some(enqueueing::rate(options.tasks, took));
        let cost = self.place.counters().await?.zip(before).map(|(after, before)| after.since(&before));
        figures.enqueue_binlog_bytes_per_task =
            cost.and_then(|cost| cost.binlog_bytes).map(|bytes| bytes as f64 / options.tasks as f64);
        Ok(())
    }

    async fn drain(&mut self, queue: &Queue, work: &Workload, figures: &mut Figures) -> Outcome {
        let options = self.options;
        let before = self.place.counters().await?;
        let retention = if options.retention { PRUNED } else { Retention::FOREVER };
        let url = self.place.database().url();
        let draining = draining::drain(queue, url, work, options, retention, options.tasks, &self.done);
        let drained = self.watch("draining", options.tasks, draining).await?;
        let tasks = options.tasks as f64;
        figures.drain_per_second = Some(enqueueing::rate(options.tasks, drained.took));
        figures.prune_per_second = options.retention.then(|| enqueueing::rate(drained.pruned, drained.took));
        figures.memory_peak_bytes = drained.memory_bytes;
        figures.retries = Some(drained.retries);
        if let Some((after, before)) = self.place.counters().await?.zip(before) {
            let cost = after.since(&before);
            figures.statements_per_task = Some(cost.statements as f64 / tasks);
            figures.commits_per_task = Some(cost.commits as f64 / tasks);
            figures.binlog_bytes_per_task = cost.binlog_bytes.map(|bytes| bytes as f64 / tasks);
        }
        Ok(())
    }

    async fn singles(&self, queue: &Queue, work: &Arc<Workload>, figures: &mut Figures) -> Outcome {
        let into = named("singles")?;
        let most = self.options.tasks;
        let probe = ALONE.min(most);
        let took = enqueueing::singly(queue, work, &into, 1, probe, &self.done).await?;
        let count = ((enqueueing::rate(probe, took) * SINGLES) as u64).clamp(1, most);
        let alone = enqueueing::singly(queue, work, &into, 1, count, &self.done);
        let took = self.watch("one caller enqueues singly", count, alone).await?;
        figures.enqueue_alone_per_second = Some(enqueueing::rate(count, took));
        let probe = (ALONE * 10).min(most);
        let took = enqueueing::singly(queue, work, &into, enqueueing::CALLERS, probe, &self.done).await?;
        let count = ((enqueueing::rate(probe, took) * SINGLES) as u64).clamp(1, most);
        let callers = enqueueing::singly(queue, work, &into, enqueueing::CALLERS, count, &self.done);
        let took = self.watch("64 callers enqueue singly", count, callers).await?;
        figures.enqueue_single_per_second = Some(enqueueing::rate(count, took));
        Ok(())
    }

    async fn latency(&self, queue: &Queue, work: &Arc<Workload>, figures: &mut Figures) -> Outcome {
        let half = figures.drain_per_second.map(|rate| rate / 2.0);
        let Some(rate) = self.options.rate.map(f64::from).or(half) else { return Ok(()) };
        let times = latency::under_load(queue, work, self.options, rate);
        let times = self.watch("latency under load", 0, times).await?;
        figures.latency_rate_per_second = Some(rate);
        figures.latency_p50_ms = times.percentile_ms(50);
        figures.latency_p95_ms = times.percentile_ms(95);
        figures.latency_p99_ms = times.percentile_ms(99);
        Ok(())
    }

    async fn pickup(&self, queue: &Queue, work: &Workload, figures: &mut Figures) -> Outcome {
        let here = latency::pickup_here(queue, work, self.options);
        let times = self.watch("single tasks on an idle pool", 0, here).await?;
        figures.pickup_p50_ms = times.percentile_ms(50);
        figures.pickup_p99_ms = times.percentile_ms(99);
        let across = latency::pickup_across(queue, self.place.database().url(), work, self.options);
        let times = self.watch("single tasks on an idle pool of another process", 0, across).await?;
        figures.pickup_across_p50_ms = times.percentile_ms(50);
        figures.pickup_across_p99_ms = times.percentile_ms(99);
        Ok(())
    }

    async fn idle(&mut self, queue: &Queue, work: &Workload, figures: &mut Figures) -> Outcome {
        if !self.options.measures(Part::Idle) {
            return Ok(());
        }
        self.spinner.say("an idle pool".to_owned());
        let idle = idle::watch(self.place, queue, work, self.options).await?;
        figures.idle_claim_p50_ms = idle.claims.percentile_ms(50);
        figures.idle_claim_p99_ms = idle.claims.percentile_ms(99);
        if let Some(cost) = idle.cost {
            figures.idle_statements_per_second = Some(cost.statements as f64 / idle.seconds);
            figures.idle_writes_per_second = Some(cost.writes as f64 / idle.seconds);
            figures.idle_rows_per_claim = Some(cost.rows as f64 / idle.claims.len().max(1) as f64);
        }
        if self.options.snapshot {
            self.spinner.say("an idle pool that has just connected".to_owned());
            let fresh = self.place.open().await?;
            let idle = idle::watch(self.place, &fresh, work, self.options).await?;
            figures.idle_claim_fresh_p50_ms = idle.claims.percentile_ms(50);
            figures.idle_claim_fresh_p99_ms = idle.claims.percentile_ms(99);
        }
        Ok(())
    }
}
