//! `queue demo`: thousands of tasks of six kinds, two worker processes, one of them killed, and a table of what became of
//! all of it, read from the database.

mod kinds;
mod verdict;
mod view;
mod worker;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use queue_runtime::queue_core::admin::{Filter, Page};
use queue_runtime::queue_core::error::SchemaProblem;
use queue_runtime::queue_core::{Clock, FailureReason, Store};
use queue_runtime::{Enqueued, Queue, QueueName, Status, StoreError, TaskId, TaskRecord};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::sleep;

use self::verdict::Verdict;
use self::view::{Standing, View};
use self::worker::Worker;
use crate::args::Demo;
use crate::database::{Database, Need};
use crate::failure::{Failure, Outcome};
use crate::output::table::Columns;
use crate::output::{Output, grouped, tasks};
use crate::url::file_url;

/// How often the database is asked how it stands.
const LOOK: Duration = Duration::from_millis(60);
/// It takes seconds; what is not done after this never will be.
const PATIENCE: Duration = Duration::from_secs(60);
/// Looks in a row that must find everything done.
const QUIET_LOOKS: u32 = 3;
/// Running tasks looked at, at most: both workers run far fewer.
const RUNNING_MAX: usize = 500;

/// Runs the hidden command that the arguments name, if they do.
pub(crate) fn hidden(args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    worker::hidden(args)
}

pub(crate) async fn run(named: &Database, args: &Demo, output: &mut Output) -> Outcome {
    let place = Place::choose(named, args)?;
    let shown = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => return Err(Failure::failed("interrupted")),
        shown = show(&place, args, output) => shown,
    };
    if shown.is_err() {
        place.keep();
    }
    shown
}

/// Where it runs.
struct Place {
    database: Database,
    /// A directory that is removed at the end.
    temporary: Option<TempDir>,
    what: &'static str,
    /// The file that was asked for.
    kept: Option<String>,
}

impl Place {
    /// The file to keep, the database that an option names, or a fresh file. QUEUE_DATABASE_URL is left alone: a demonstration
    /// must be wanted on somebody's server.
    fn choose(named: &Database, args: &Demo) -> Outcome<Self> {
        if let Some(file) = &args.keep {
            if named.is_named_by_option() {
                return Err(Failure::usage("--keep makes a new SQLite file; it does not go with another database"));
            }
            if file.exists() {
                return Err(Failure::usage(format!(
                    "{} is there already, and --keep makes a new file",
                    file.display()
                )));
            }
            let url = file_url(file);
            return Ok(Self {
                database: Database::own(url.clone()),
                temporary: None,
                what: "SQLite, fresh file",
                kept: Some(url),
            });
        }
        if named.is_named_by_option() {
            let what = if named.is_file() { "SQLite" } else { "MySQL" };
            return Ok(Self { database: named.clone(), temporary: None, what, kept: Some(named.shown_url()) });
        }
        let directory = tempfile::Builder::new().prefix("queue-demo-").tempdir();
        let directory = directory.map_err(|error| Failure::failed(format!("cannot make a directory: {error}")))?;
        let url = file_url(&directory.path().join("demo.db"));
        Ok(Self { database: Database::own(url), temporary: Some(directory), what: "SQLite, fresh file", kept: None })
    }

    /// Leaves the file in place, so that one can see what went wrong.
    fn keep(self) {
        if let Some(directory) = self.temporary {
            let path = directory.keep();
            eprintln!("  the database is kept: {}", path.join("demo.db").display());
        }
    }

    async fn open(&self) -> Outcome<Queue> {
        let queue = self.database.open(Need::Migrate).await?;
        let explain = |error: StoreError| self.database.explain(&error);
        match queue.schema().await.map_err(explain)?.check() {
            Ok(()) => {}
            Err(SchemaProblem::Missing) => drop(queue.migrate().await.map_err(explain)?),
            Err(problem) => return Err(explain(problem.into())),
        }
        Ok(queue)
    }
}

async fn show(place: &Place, args: &Demo, output: &mut Output) -> Outcome {
    let queue = place.open().await?;
    let explain = |error: StoreError| place.database.explain(&error);
    // A queue of its own, so that whatever else is in the database stays out of it.
    let name = QueueName::parse(format!("demo-{:08x}", queue.entropy().next_u64() >> 32))
        .map_err(|error| Failure::failed(error.to_string()))?;
    let mut view = View::new(output.is_json());
    view.say(&format!("queue demo · {} · 2 worker processes", place.what));
    let mut stage = Stage { store: queue.erased_store(), clock: queue.clock(), name, total: args.tasks.into() };
    let acknowledged = stage.enqueue(&queue, &view).await.map_err(|error| Failure::failed(error.to_string()))?;
    let began = stage.clock.monotonic();
    let crash = stage.perform(place.database.url(), &mut view).await?;
    let took = stage.clock.monotonic().saturating_sub(began);
    view.end();
    let verdict = Verdict::of(&*stage.store, &stage.name, &acknowledged).await.map_err(explain)?;
    let good = verdict.is_good() && crash.is_good();
    if output.is_json() {
        output.value(&as_json(&verdict, &crash, took, stage.total, view.best_rate()))?;
    } else {
        for line in as_text(&verdict, &crash, took, stage.total, view.best_rate()) {
            output.line(line)?;
        }
        output.line(next(place, good))?;
    }
    output.flush()?;
    if good { Ok(()) } else { Err(Failure::failed("what became of the tasks is not what was expected")) }
}

/// What the demonstration plays on.
struct Stage {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    name: QueueName,
    total: u64,
}

/// What the killed worker left behind, and what became of it.
#[derive(Debug, Default)]
struct Crash {
    lost: Vec<TaskRecord>,
    /// How long after its death all of them had been taken from it.
    taken_over: Option<Duration>,
    /// Those that ran once more, or were out of time by then.
    recovered: usize,
}

impl Crash {
    fn is_good(&self) -> bool {
        self.recovered == self.lost.len()
    }
}

impl Stage {
    async fn enqueue(&mut self, queue: &Queue, view: &View) -> Result<Vec<TaskId>, queue_runtime::EnqueueAllError> {
        let before = self.clock.monotonic();
        let total = u32::try_from(self.total).unwrap_or(u32::MAX);
        let enqueued = queue.enqueue_specs(kinds::tasks(total, &self.name)).await?;
        let took = self.clock.monotonic().saturating_sub(before);
        view.say(&format!("enqueued {} of 6 kinds in {:.2} s", tasks(self.total), took.as_secs_f64()));
        Ok(enqueued.into_iter().map(Enqueued::id).collect())
    }

    /// Lets the workers work, kills one of them, and returns when every task has ended.
    async fn perform(&self, url: &str, view: &mut View) -> Outcome<Crash> {
        let started = |error: std::io::Error| Failure::failed(format!("cannot start a worker: {error}"));
        let start = |number| Worker::start(number, url, &self.name).map_err(started);
        let mut workers = vec![start(1)?];
        let mut victim = Some(start(2)?);
        let mut dead = None;
        let mut crash = Crash::default();
        let mut quiet = 0;
        let began = self.clock.monotonic();
        loop {
            let failed = |error: StoreError| Failure::failed(error.to_string());
            let running = self.running().await.map_err(failed)?;
            let standing = self.standing(began).await.map_err(failed)?;
            let example = running
                .iter()
                .filter(|task| task.task_type == kinds::RESIZE)
                .max_by_key(|task| task.progress.as_ref().map(|progress| progress.percent()));
            view.show(standing, example);
            let holds = |name: &str| running.iter().any(|task| task.worker.as_deref() == Some(name));
            if standing.done >= self.total / 4
                && let Some(mut worker) = victim.take_if(|worker| holds(&worker.name))
            {
                worker.kill().map_err(|error| Failure::failed(format!("cannot kill a worker: {error}")))?;
                let killed_at = self.clock.monotonic();
                crash.lost = self.running().await.map_err(failed)?;
                crash.lost.retain(|task| task.worker.as_deref() == Some(&worker.name));
                view.say(&format!("  ⚡ killed worker 2 on purpose: {} in it", were_running(crash.lost.len())));
                dead = Some((worker.name.clone(), killed_at));
                workers.push(start(3)?);
            }
            if let Some((name, killed_at)) = &dead
                && crash.taken_over.is_none()
                && !holds(name)
            {
                crash.taken_over = Some(self.clock.monotonic().saturating_sub(*killed_at));
            }
            // A task on its way from waiting to running may be in neither count, so one look is not enough.
            quiet = if standing.done >= self.total { quiet + 1 } else { 0 };
            if quiet == QUIET_LOOKS || standing.at > PATIENCE {
                break;
            }
            sleep(LOOK).await;
        }
        for task in &crash.lost {
            let now = self.store.get(task.id).await.map_err(|error| Failure::failed(error.to_string()))?;
            crash.recovered += usize::from(now.is_some_and(|now| went_on(task, &now)));
        }
        for worker in workers.into_iter().chain(victim) {
            worker.end().map_err(|error| Failure::failed(format!("cannot end a worker: {error}")))?;
        }
        Ok(crash)
    }

    async fn running(&self) -> Result<Vec<TaskRecord>, StoreError> {
        let filter = Filter { status: Some(Status::Running), queue: Some(self.name.clone()), ..Filter::default() };
        self.store.list(filter, Page { after: None, limit: RUNNING_MAX }).await
    }

    /// How the queue stands. Everything that neither waits nor runs is done.
    async fn standing(&self, began: Duration) -> Result<Standing, StoreError> {
        let stats = self.store.stats().await?;
        let at = self.clock.monotonic().saturating_sub(began);
        let Some(queue) = stats.queues.iter().find(|queue| queue.queue == self.name) else {
            return Ok(Standing { at, ..Standing::default() });
        };
        let waiting = queue.ready.number + queue.later.number;
        let running = queue.running.number;
        // A count that stopped at its bound says no more than that.
        let left = if queue.ready.more || queue.later.more { self.total } else { waiting + running };
        Ok(Standing { at, waiting, running, done: self.total.saturating_sub(left) })
    }
}

/// Whether a task that was lost was run again, or could not be because its budget was spent.
fn went_on(lost: &TaskRecord, now: &TaskRecord) -> bool {
    now.state.status.is_terminal()
        && (now.state.fence > lost.state.fence || now.state.reason == Some(FailureReason::BudgetExceeded))
}

fn were_running(count: usize) -> String {
    if count == 1 { "1 task was running".to_owned() } else { format!("{count} tasks were running") }
}

fn as_text(verdict: &Verdict, crash: &Crash, took: Duration, total: u64, best: u64) -> Vec<String> {
    let mut columns = Columns::new(&["KIND", "WHAT IT DOES", ">TASKS", "EXPECTED", ">GOT"]);
    for (kind, got) in &verdict.kinds {
        let good = got.tasks == got.as_expected;
        let otherwise = got.otherwise.iter().map(|(what, count)| format!(", {} {what}", grouped(*count)));
        columns.row([
            kind.name.to_owned(),
            kind.does.to_owned(),
            grouped(got.tasks),
            kind.expected.to_owned(),
            format!("{} {}{}", grouped(got.as_expected), mark(good), otherwise.collect::<String>()),
        ]);
    }
    let mut lines = vec![String::new()];
    lines.extend(columns.lines());
    lines.push(match crash.taken_over {
        Some(after) if !crash.lost.is_empty() => format!(
            "crash        {} taken over after {:.1} s, each run once more or out of time  {}",
            crash.lost.len(),
            after.as_secs_f64(),
            mark(crash.is_good())
        ),
        _ => format!("crash        the killed worker had nothing to lose  {}", mark(crash.is_good())),
    });
    lines.push(String::new());
    lines.push(format!(
        "{} · {} runs · lost {} · finished twice {} · {:.1} s · up to {}/s",
        tasks(total),
        grouped(verdict.runs),
        grouped(verdict.lost),
        grouped(verdict.twice),
        took.as_secs_f64(),
        grouped(best),
    ));
    lines
}

const fn mark(good: bool) -> char {
    if good { '✓' } else { '✗' }
}

fn as_json(verdict: &Verdict, crash: &Crash, took: Duration, total: u64, best: u64) -> serde_json::Value {
    let kinds = verdict.kinds.iter().map(|(kind, got)| {
        json!({
            "type": kind.name, "tasks": got.tasks, "expected": kind.expected,
            "as_expected": got.as_expected, "otherwise": got.otherwise,
        })
    });
    json!({
        "tasks": total, "runs": verdict.runs, "lost": verdict.lost, "finished_twice": verdict.twice,
        "seconds": took.as_secs_f64(), "tasks_per_second_max": best,
        "kinds": kinds.collect::<Vec<_>>(),
        "killed": {
            "running": crash.lost.len(), "recovered": crash.recovered,
            "taken_over_after_seconds": crash.taken_over.map(|after| after.as_secs_f64()),
        },
        "ok": verdict.is_good() && crash.is_good(),
    })
}

/// What to look at next, in commands that exist.
fn next(place: &Place, good: bool) -> String {
    let program = env::args().next().filter(|name| name.contains('/')).unwrap_or_else(|| "queue".to_owned());
    let status = if good { " --status failed" } else { "" };
    match &place.kept {
        Some(url) => format!("next:  {program} --database-url {url} task list{status}"),
        None => format!(
            "next:  {program} demo --keep demo.db   then   {program} --database-url sqlite://demo.db task list{status}"
        ),
    }
}
