//! `queue work`

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use queue_runtime::metrics::Exporter;
use queue_runtime::queue_core::{Queues, Scope};
use queue_runtime::{Limits, Pool, Queue, Report, Retention, RunningPool, StartError};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use crate::args::Work;
use crate::database::{Database, Need};
use crate::duration::short;
use crate::exec::{Launcher, Runner, run as run_program};
use crate::failure::{Failure, Outcome};
use crate::output::{Output, grouped, watched};

/// How long a program has between SIGTERM and SIGKILL.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// What the pool needs beside the graces to write down how runs ended.
const SETTLE_MARGIN: Duration = Duration::from_secs(2);
/// How often a worker that drains looks whether anything is left.
const DRAIN_LOOK: Duration = Duration::from_millis(100);

pub(super) async fn run(database: &Database, args: Work, output: &mut Output) -> Outcome {
    let mut types = HashSet::new();
    for assignment in &args.exec {
        assignment.program.check()?;
        if !types.insert(assignment.task_type.clone()) {
            return Err(Failure::usage(format!("--exec names two programs for the type {}", assignment.task_type)));
        }
    }
    let exporter = args.metrics.map(Exporter::serve).transpose().map_err(|error| Failure::failed(error.to_string()))?;
    let queue = database.open(Need::Write).await?;
    // Before the pool starts, so that no signal ends the process while tasks are in its hands.
    let mut signals =
        Signals::listen().map_err(|error| Failure::failed(format!("cannot listen to signals: {error}")))?;
    let mut pool = pool(&queue, &args)?;
    if let Some(exporter) = &exporter {
        pool = pool.observer(Arc::new(exporter.metrics()));
    }
    let mut running = pool.start().await.map_err(|error| not_started(database, error))?;
    let limit = args.grace.saturating_add(CANCEL_GRACE).saturating_add(SETTLE_MARGIN);
    tokio::select! {
        biased;
        ended = running.ended() => return report(database, ended, output),
        () = signals.next() => {
            tell(&format!("stopping: running programs have {} to end; Ctrl-C again stops now", short(args.grace)));
            running.stop(limit);
        }
        drained = drained(&queue, &args) => {
            drained.map_err(|error| database.explain(&error))?;
            running.stop(limit);
        }
    }
    let ended = stopped(&mut running, &mut signals).await;
    report(database, ended, output)
}

/// Waits until the pool has stopped, which a further signal hastens.
async fn stopped(running: &mut RunningPool, signals: &mut Signals) -> Result<Report, StartError> {
    tokio::select! {
        biased;
        ended = running.ended() => return ended,
        () = signals.next() => {
            tell("stopping now: what runs goes back to the queue");
            running.stop_now();
        }
    }
    running.ended().await
}

fn pool(queue: &Queue, args: &Work) -> Outcome<Pool> {
    let launcher = Launcher::start().map_err(|error| Failure::failed(format!("cannot start programs: {error}")))?;
    let result_bytes_max = queue.erased_store().limits().result_bytes_max;
    let concurrency = match args.concurrency {
        Some(concurrency) => usize::from(concurrency),
        None => thread::available_parallelism().map_or(1, NonZeroUsize::get),
    };
    let limits = args.timeout.map_or(Limits::DEFAULT, |timeout| Limits::DEFAULT.timeout(timeout));
    let mut retention = Retention::FOREVER;
    if let Some(keep) = args.keep_completed {
        retention = retention.completed(keep);
    }
    if let Some(keep) = args.keep_failed {
        retention = retention.failed(keep);
    }
    let mut pool = Pool::new(queue)
        .concurrency(concurrency)
        .lease(args.lease)
        .grace(args.grace)
        .cancel_grace(CANCEL_GRACE)
        .retention(retention);
    if !args.queue.is_empty() {
        pool = pool.queues(args.queue.iter().cloned());
    }
    for assignment in &args.exec {
        let runner =
            Arc::new(Runner { program: assignment.program.clone(), launcher: launcher.clone(), result_bytes_max });
        let handler = move |payload, cx| run_program(Arc::clone(&runner), payload, cx);
        pool = pool.handle_raw(assignment.task_type.clone(), handler, limits);
    }
    Ok(pool)
}

/// With `--drain`, waits until nothing is left to do; for ever without it.
async fn drained(queue: &Queue, args: &Work) -> Result<(), queue_runtime::StoreError> {
    if !args.drain {
        return std::future::pending().await;
    }
    let mut scope = Scope::of(args.exec.iter().map(|assignment| assignment.task_type.clone()).collect::<Vec<_>>());
    if !args.queue.is_empty() {
        scope.queues = Queues::Named(args.queue.clone().into());
    }
    let store = queue.erased_store();
    loop {
        match store.is_busy(scope.clone()).await {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "it is not known whether anything is left to do")
            }
            Err(error) => return Err(error),
        }
        sleep(DRAIN_LOOK).await;
    }
}

fn not_started(database: &Database, error: StartError) -> Failure {
    match error {
        StartError::Store(error) => database.explain(&error),
        StartError::Build(error) => Failure::usage(error.to_string()),
        error => Failure::failed(error.to_string()),
    }
}

fn report(database: &Database, ended: Result<Report, StartError>, output: &mut Output) -> Outcome {
    let report = ended.map_err(|error| not_started(database, error))?;
    if output.is_json() {
        let failed = report.failed.iter().map(|(reason, count)| (reason.as_str().to_owned(), json!(count)));
        return output.value(&json!({
            "completed": report.completed, "retried": report.retried, "snoozed": report.snoozed,
            "released": report.released, "stale": report.stale, "unsettled": report.unsettled,
            "failed": failed.collect::<serde_json::Map<_, _>>(),
        }));
    }
    let mut said = format!("completed {}", grouped(report.completed));
    let counts = [
        ("retried", report.retried),
        ("given back", report.released),
        ("taken by other workers", report.stale),
        ("left to other workers", report.unsettled),
    ];
    for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        said.push_str(&format!(", {name} {}", grouped(count)));
    }
    for (reason, count) in &report.failed {
        said.push_str(&format!(", failed({reason}) {}", grouped(*count)));
    }
    output.line(said)
}

/// Says something to whoever watches.
fn tell(said: &str) {
    use std::io::Write as _;

    if watched() {
        let _ = writeln!(std::io::stderr(), "{said}");
    }
}

/// Ctrl-C and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
