//! What the worker processes of a run do, and the producers.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use queue_core::NewTask;
use queue_runtime::{
    Ctx, EnqueueError, MySqlStore, Options, Payload, Pool, Priority, Queue, Result, Retry, Start, StartError,
    StoreError, Task, TaskType,
};
use queue_testkit::SeededEntropy;
use queue_testkit::around::Wrapped;
use serde::{Deserialize, Serialize};
use sqlx::MySqlPool;
use sqlx::mysql::MySqlPoolOptions;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::history::{Fact, How, Journal, RecordingStore};

/// The type of tasks that worker processes of ours run.
pub(super) const NATIVE: TaskType = TaskType::new("chaos.native");
/// The type of tasks that `queue work --exec` runs.
pub(super) const EXEC: TaskType = TaskType::new("chaos.exec");
/// The table that handlers write to in the transaction that completes their task. It has no unique key: a second effect
/// must show, not fail.
pub(super) const LEDGER: &str =
    "CREATE TABLE chaos_ledger (task_id BIGINT UNSIGNED NOT NULL, fence INT UNSIGNED NOT NULL)";

/// How a producer notes that it was told that a task was not written; the task's number follows.
pub(super) const REFUSED: &str = "refused ";

/// So many that hardly a task spends them all, however often it is hit.
const ATTEMPTS: u16 = 25;

const PRIORITIES: [Priority; 3] = [Priority::LOW, Priority::NORMAL, Priority::HIGH];

/// How a task behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Works for a while and succeeds.
    Plain,
    /// Fails at its first attempt.
    Flaky,
    /// Asks to be run later when it is claimed first.
    Snoozing,
    /// Its effect and its completion commit together.
    Ledger,
    /// Says that it must not be tried again.
    Rejected,
    /// Is run by `queue work --exec`; else as [`Plain`](Self::Plain).
    Exec,
}

/// A task of the chaos.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Work {
    /// No other task has it.
    pub number: u64,
    /// How it behaves.
    pub kind: Kind,
    /// How long it works, in milliseconds.
    pub ms: u64,
}

impl Task for Work {
    const TYPE: TaskType = NATIVE;
    type Output = u64;
    const OPTIONS: Options =
        Options::DEFAULT.retry(Retry::fixed(Duration::from_millis(100)).attempts(ATTEMPTS)).no_budget();
}

/// What the handlers share.
#[derive(Debug)]
struct Tools {
    journal: Journal,
    /// Knows its store, so that tasks can be completed in transactions of the handlers.
    queue: Queue<MySqlStore>,
    db: MySqlPool,
}

/// How a worker process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to, and drained.
    Stopped,
    /// The server could not be reached: start it again.
    NotStarted,
}

/// The body of a worker process: works until SIGTERM.
///
/// # Errors
///
/// When the pool cannot be set up or does not stop in good order. That the server cannot be reached at first is no error.
pub async fn work(url: &str, folder: &Path, name: &str, lease: Duration) -> std::result::Result<Ended, Box<dyn Error>> {
    let journal = Journal::in_folder(folder);
    let queue = Queue::new(connected(|| MySqlStore::connect(url)).await?);
    let recorded = Queue::new(Wrapped(RecordingStore::new(queue.erased_store(), journal.clone())));
    let db = MySqlPoolOptions::new().max_connections(4).acquire_timeout(lease).connect_lazy(url)?;
    let pool = Pool::with_state(&recorded, Tools { journal, queue, db })
        .handle(native)
        .name(name)
        .concurrency(16)
        .lease(lease)
        .grace(lease)
        .cancel_grace(lease / 8);
    match pool.run().await {
        Ok(_) => Ok(Ended::Stopped),
        // A pool that could not open its session has done nothing yet.
        Err(StartError::Store(error)) if error.is_transient() => Ok(Ended::NotStarted),
        Err(error) => Err(error.into()),
    }
}

async fn native(work: Work, cx: Ctx<Tools>) -> Result<u64> {
    let Tools { journal, .. } = cx.state();
    journal.started(&cx);
    // Tells of a future that is dropped as well.
    let mut end = End { cx: &cx, told: false };
    sleep(Duration::from_millis(work.ms)).await;
    match work.kind {
        Kind::Flaky if cx.attempt() == 1 => {
            end.is(How::Errored);
            return Err("flaky".into());
        }
        Kind::Snoozing if cx.fence().get() == 1 => {
            end.is(How::Snoozed);
            return cx.snooze(Duration::from_millis(200));
        }
        Kind::Rejected => {
            end.is(How::Errored);
            return cx.reject("as it was told");
        }
        Kind::Ledger => match ledger(&cx, &work).await {
            Ok(()) => {}
            Err(error) => {
                end.is(How::Errored);
                return Err(error);
            }
        },
        _ => {}
    }
    end.is(How::Succeeded);
    Ok(work.number)
}

/// Writes down how a run ends.
struct End<'c> {
    cx: &'c Ctx<Tools>,
    told: bool,
}

impl End<'_> {
    fn is(&mut self, how: How) {
        self.told = true;
        self.cx.state().journal.ended(self.cx, how);
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.is(How::Dropped);
        }
    }
}

/// Effect and completion in one transaction.
async fn ledger(cx: &Ctx<Tools>, work: &Work) -> Result<()> {
    let Tools { queue, db, .. } = cx.state();
    let mut tx = db.begin().await?;
    sqlx::query("INSERT INTO chaos_ledger (task_id, fence) VALUES (?, ?)")
        .bind(cx.task_id().get())
        .bind(cx.fence().get())
        .execute(&mut *tx)
        .await?;
    queue.complete(cx, work.number).within(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Connects, however long the server cannot be reached.
async fn connected<T, Fut: Future<Output = std::result::Result<T, StoreError>>>(
    connect: impl Fn() -> Fut,
) -> std::result::Result<T, StoreError> {
    loop {
        match connect().await {
            Err(error) if error.is_transient() => sleep(Duration::from_millis(100)).await,
            connected => return connected,
        }
    }
}

/// The body of a producer process: enqueues until it is killed. `id` is no other producer's.
///
/// # Errors
///
/// When an enqueue fails with an error that no fault explains.
pub async fn produce(url: &str, folder: &Path, id: u64, seed: u64) -> std::result::Result<(), Box<dyn Error>> {
    let journal = Journal::in_folder(folder);
    let entropy = SeededEntropy::new(seed ^ id);
    let store = connected(|| MySqlStore::connect(url)).await?;
    let queue = Queue::new(Wrapped(RecordingStore::new(Arc::new(store), journal.clone()).job(number_of))).erase();
    let mut next = id << 32;
    loop {
        let batch: Vec<_> = (0..1 + entropy.below(10))
            .map(|_| {
                next += 1;
                drawn(&entropy, next)
            })
            .collect();
        if entropy.per_mille(150) {
            for work in batch.iter().filter(|work| work.kind != Kind::Exec) {
                with_key(&queue, work).await?;
            }
        } else {
            at_once(&queue, &journal, &entropy, &batch).await?;
        }
        sleep(Duration::from_millis(30 + entropy.below(40))).await;
    }
}

fn drawn(entropy: &SeededEntropy, number: u64) -> Work {
    let kind = match entropy.below(20) {
        0..11 => Kind::Plain,
        11..14 => Kind::Flaky,
        14..16 => Kind::Snoozing,
        16..18 => Kind::Ledger,
        18 => Kind::Exec,
        _ => Kind::Rejected,
    };
    // Most are short, some outlast a lease.
    let ms = match entropy.below(200) {
        0 => 1_000 + entropy.below(3_000),
        1..20 => entropy.below(300),
        _ => entropy.below(15),
    };
    Work { number, kind, ms }
}

/// One batch in one write.
async fn at_once(
    queue: &Queue,
    journal: &Journal,
    entropy: &SeededEntropy,
    batch: &[Work],
) -> std::result::Result<(), Box<dyn Error>> {
    let specs = batch.iter().map(|work| {
        let task_type = if work.kind == Kind::Exec { EXEC } else { NATIVE };
        let body = serde_json::to_string(work).expect("a task is plain data");
        let mut spec = Work::OPTIONS.spec(task_type, Payload::json(body));
        spec.priority = *entropy.choose(&PRIORITIES).unwrap_or(&Priority::NORMAL);
        if entropy.per_mille(100) {
            spec.start = Start::After(Duration::from_millis(entropy.below(1_500)));
        }
        spec
    });
    if let Err(error) = queue.enqueue_specs(specs.collect::<Vec<_>>()).await {
        let unknown = is_unknown(&error.source)?;
        for work in batch[error.written.len()..].iter().filter(|_| !unknown) {
            journal.record(Fact::Note { text: format!("{REFUSED}{}", work.number) });
        }
    }
    Ok(())
}

/// One task under a key, again and again until it is acknowledged: whatever became of an earlier try, there must be one.
async fn with_key(queue: &Queue, work: &Work) -> std::result::Result<(), Box<dyn Error>> {
    loop {
        match queue.enqueue(work).key(work.number.to_string()).await {
            Ok(_) => return Ok(()),
            Err(error) => drop(is_unknown(&error)?),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

fn number_of(task: &NewTask) -> Option<u64> {
    serde_json::from_slice::<Work>(task.spec.payload.body()).ok().map(|work| work.number)
}

/// Whether the error leaves open what was written; one that no fault explains is given back.
fn is_unknown(error: &EnqueueError) -> std::result::Result<bool, Box<dyn Error>> {
    match error {
        EnqueueError::Store(StoreError::UnknownOutcome { .. }) => Ok(true),
        EnqueueError::Store(error) if error.is_transient() => Ok(false),
        error => Err(format!("an enqueue failed: {error}").into()),
    }
}

/// What `queue work --exec` runs: a task of the type `EXEC`.
///
/// # Errors
///
/// When it is not run by `queue work`, or was told to stop.
pub async fn exec(folder: &Path) -> std::result::Result<(), Box<dyn Error>> {
    let variable = |name: &str| std::env::var(name).map_err(|error| format!("{name}: {error}"));
    let mut terminated = signal(SignalKind::terminate())?;
    let journal = Journal::in_folder(folder);
    let (task, fence) = (variable("QUEUE_TASK_ID")?.parse()?, variable("QUEUE_FENCE")?.parse()?);
    let attempt = variable("QUEUE_ATTEMPT")?.parse()?;
    journal.record(Fact::Started { task, fence, attempt, max_attempts: ATTEMPTS });
    let work: Work = serde_json::from_reader(std::io::stdin().lock())?;
    tokio::select! {
        biased;
        _ = terminated.recv() => {
            journal.record(Fact::Ended { task, fence, how: How::Dropped });
            Err("told to stop".into())
        }
        () = sleep(Duration::from_millis(work.ms)) => {
            journal.record(Fact::Ended { task, fence, how: How::Succeeded });
            Ok(())
        }
    }
}
