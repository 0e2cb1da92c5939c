//! Three servers as one replication group; the primary is killed under load, again and again. Nothing acknowledged is lost,
//! nothing completes twice, and work goes on with the new primary by itself.
//!
//! `cargo xtask failover` runs it and shows its report, `cargo xtask test` runs it with two kills.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use queue_runtime::{Ctx, MySqlStore, Pool, Queue, Result};
use queue_testkit::around::Wrapped;
use queue_tests::history::{Fact, FinalState, How, RecordingStore, Verdict, Violation, check, ghosts};
use queue_tests::{Group, History, Job, Journal, Worker};
use sqlx::{AssertSqlSafe, Executor as _, MySqlConnection, Row as _};

/// How soon work must go on once there is a new primary.
const RESUMED_WITHIN: Duration = Duration::from_secs(15);
const DATABASE: &str = "failover";
const LEASE_MS: &str = "QUEUE_FAILOVER_LEASE_MS";
/// How long the load runs on a whole group before the next fault.
const CALM: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const DRAINED_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test]
#[ignore = "the body of the worker processes that the test starts"]
async fn worker() {
    let (url, folder) = Worker::place();
    let lease = std::env::var(LEASE_MS).expect("a worker process is started by its test");
    let lease = Duration::from_millis(lease.parse().unwrap());
    let journal = Journal::in_folder(&folder);
    let queue = recorded(&url, &journal).await;
    Pool::with_state(&queue, journal)
        .handle(job)
        .concurrency(64)
        .lease(lease)
        .heartbeat(lease / 6)
        .run()
        .await
        .unwrap();
}

async fn job(job: Job, cx: Ctx<Journal>) -> Result {
    cx.state().started(&cx);
    let mut run = Run { cx: &cx, how: How::Dropped };
    tokio::time::sleep(job.sleep()).await;
    run.how = How::Succeeded;
    Ok(())
}

/// Notes how a handler ended, also when it was dropped because its session lapsed.
struct Run<'a> {
    cx: &'a Ctx<Journal>,
    how: How,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.cx.state().ended(self.cx, self.how);
    }
}

/// A queue whose calls are noted.
async fn recorded(url: &str, journal: &Journal) -> Queue {
    let store = MySqlStore::connect(url).await.expect("the database can be reached");
    Queue::new(Wrapped(RecordingStore::new(Arc::new(store), journal.clone()))).erase()
}

#[tokio::test]
#[ignore = "it wants three servers; `cargo xtask failover` has them, and `cargo xtask test` runs it as well"]
async fn failover() {
    let kills = std::env::var("QUEUE_FAILOVER_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(2);
    let mut group = Group::start().await;
    let mut first = group.connect(0).await.unwrap();
    first.execute(AssertSqlSafe(format!("CREATE DATABASE {DATABASE}"))).await.unwrap();
    // The primary is named last: that the others come first must not matter.
    let url = group.url(0, DATABASE);
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::in_folder(folder.path());
    let queue = recorded(&url, &journal).await;
    queue.migrate().await.unwrap();

    // One of them cannot keep its lease over a failover, the others can.
    let leases = [Duration::from_secs(30), Duration::from_secs(15), Duration::from_secs(3)];
    let mut workers =
        leases.map(|lease| Worker::start_with(&url, folder.path(), &[(LEASE_MS, lease.as_millis().to_string())]));
    let load = Load::start(&queue);

    println!("failover: {} members, {} workers, 2 producers, {kills} kills", group.len(), workers.len());
    println!("{:<12} {:>8} {:>10} {:>10} {:>10}", "fault", "primary", "elected s", "resumed s", "enqueued s");
    for number in 1..=kills {
        let primary = calm(&group, &load).await;
        let at = now();
        journal.record(Fact::Note { text: format!("member {} is killed", primary + 1) });
        group.kill(primary);
        recovered(&format!("kill {number}"), &group, &load, primary, at).await;
        group.restart(primary).await;
    }

    let primary = calm(&group, &load).await;
    let at = now();
    group.promote((primary + 1) % group.len()).await;
    recovered("switchover", &group, &load, primary, at).await;

    if kills > 2 {
        // A primary that hangs closes no connection: whoever waits for its answer must notice by asking the others.
        let primary = calm(&group, &load).await;
        let at = now();
        signal(&group, primary, Signal::SIGSTOP);
        recovered("freeze", &group, &load, primary, at).await;
        signal(&group, primary, Signal::SIGCONT);

        // A primary without the others, as a cut network leaves it: its commits hang, until it gives itself up.
        let primary = calm(&group, &load).await;
        let others: Vec<_> = (0..group.len()).filter(|member| *member != primary).collect();
        let at = now();
        others.iter().for_each(|member| signal(&group, *member, Signal::SIGSTOP));
        while group.takes_writes(primary).await == Some(true) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        others.iter().for_each(|member| signal(&group, *member, Signal::SIGCONT));
        recovered("cut off", &group, &load, primary, at).await;
    }

    calm(&group, &load).await;
    let (acknowledged, refused) = load.stop().await;
    let primary = group.primary().await.unwrap();
    let mut conn = connect(&group, primary).await;
    drained(&mut conn).await;
    for worker in &mut workers {
        assert!(worker.stop().success(), "a worker that is told to stop drains and ends well");
    }

    let mut end = FinalState::of(&*queue.erased_store(), |_| None, false).await.unwrap();
    end.ghosts = ghosts(&mut conn).await.unwrap();
    let history = History::read(folder.path());
    let verdict = check(&history, &end);
    println!("{}", report(&verdict, refused));
    for violation in &verdict.violations {
        println!("{violation:?}\n{}", history.text(Some(&violation.tasks())));
    }
    assert!(verdict.is_good() && acknowledged > 0);
    assert_eq!(verdict.tally.failed, 0, "a failover costs a task an attempt at most");
    group.await_whole().await;
    for member in 0..group.len() {
        assert_eq!(group.strangers(member).await, Vec::<String>::new(), "a member that was no primary was written to");
    }
    assert_same_tables(&group).await;
}

fn signal(group: &Group, member: usize, signal: Signal) {
    kill(Pid::from_raw(group.process(member).try_into().unwrap()), signal).unwrap();
}

fn report(verdict: &Verdict, refused: u64) -> String {
    let found = |what: fn(&Violation) -> bool| verdict.violations.iter().filter(|one| what(one)).count();
    let lost = found(|one| matches!(one, Violation::Lost { .. } | Violation::Undone { .. }));
    let twice = found(|one| matches!(one, Violation::Duplicated { .. } | Violation::EnqueuedTwice { .. }));
    let others = verdict.violations.len() - lost - twice;
    format!(
        "{}; calls of producers that failed {refused}\nlost {lost}, completed twice {twice}, other violations {others}",
        verdict.tally
    )
}

/// Lets the load run on a whole group; which member is the primary.
async fn calm(group: &Group, load: &Load) -> usize {
    group.await_whole().await;
    let before = load.acknowledged();
    tokio::time::sleep(CALM).await;
    assert!(load.acknowledged() > before, "nothing is enqueued, though the group is whole");
    group.primary().await.expect("a whole group has a primary")
}

/// Waits until another primary is there and work goes on, and tells how long that took.
async fn recovered(fault: &str, group: &Group, load: &Load, old: usize, at: i64) {
    let new = group.await_other_primary(old).await;
    let elected = now();
    let acknowledged = load.acknowledged();
    let mut enqueued = None;
    let mut conn = connect(group, new).await;
    let sql = format!("SELECT MIN(completed_at) FROM queue_finished WHERE status = 2 AND completed_at > {elected}");
    let resumed = loop {
        if load.acknowledged() > acknowledged {
            enqueued.get_or_insert_with(now);
        }
        let row = conn.fetch_one(AssertSqlSafe(sql.clone())).await.unwrap();
        if let Some(first) = row.get::<Option<i64>, _>(0).filter(|_| enqueued.is_some()) {
            break first;
        }
        let waited = seconds(now() - elected);
        assert!(waited < RESUMED_WITHIN.as_secs_f64(), "{fault}: nothing goes on {waited:.1} s after the election");
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let [elected_after, resumed_after, enqueued_after] =
        [elected - at, resumed - elected, enqueued.unwrap_or(elected) - elected].map(seconds);
    let moved = format!("{}→{}", old + 1, new + 1);
    println!("{fault:<12} {moved:>8} {elected_after:>10.1} {resumed_after:>10.1} {enqueued_after:>10.1}");
}

/// Two producers that go on whatever happens.
struct Load {
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
    acknowledged: Arc<AtomicU64>,
    producers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(queue: &Queue) -> Self {
        let mut load =
            Self { stop: Arc::default(), refused: Arc::default(), acknowledged: Arc::default(), producers: Vec::new() };
        // Some take longer than the shortest lease, so that a failover finds them running.
        let quick = [Job { sleep_ms: 0 }; 10];
        let mut mixed = [Job { sleep_ms: 20 }; 10];
        mixed[9] = Job { sleep_ms: 3_500 };
        for jobs in [quick, mixed] {
            let (queue, stop) = (queue.clone(), Arc::clone(&load.stop));
            let (acknowledged, refused) = (Arc::clone(&load.acknowledged), Arc::clone(&load.refused));
            load.producers.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    match queue.enqueue_all(&jobs).await {
                        Ok(written) => drop(acknowledged.fetch_add(written.len() as u64, Ordering::Relaxed)),
                        // Not acknowledged: such a task may be there or not, and runs once at most as well.
                        Err(_) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }));
        }
        load
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// How many tasks were acknowledged, and how many calls failed.
    async fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        for producer in self.producers {
            producer.await.unwrap();
        }
        (self.acknowledged.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

/// Waits until every task has ended.
async fn drained(conn: &mut MySqlConnection) {
    let since = now();
    loop {
        let row = conn.fetch_one("SELECT COUNT(*) FROM queue_task WHERE status < 2").await.unwrap();
        let left: i64 = row.get(0);
        if left == 0 {
            return;
        }
        let waited = seconds(now() - since);
        assert!(
            waited < DRAINED_WITHIN.as_secs_f64(),
            "{left} tasks have not ended {waited:.0} s after the last fault"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Every member must have come to the same rows.
async fn assert_same_tables(group: &Group) {
    let row = "CONCAT_WS(',', id, status, attempt, claims, claim_id, completed_at)";
    let sql = format!("SELECT COUNT(*), CAST(BIT_XOR(CRC32({row})) AS UNSIGNED) FROM queue_task");
    let mut told = BTreeSet::new();
    for _ in 0..200 {
        told.clear();
        for member in 0..group.len() {
            let row = connect(group, member).await.fetch_one(AssertSqlSafe(sql.clone())).await.unwrap();
            told.insert((row.get::<i64, _>(0), row.get::<u64, _>(1)));
        }
        if told.len() == 1 {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    panic!("the members differ: {told:?}");
}

async fn connect(group: &Group, member: usize) -> MySqlConnection {
    let mut conn = group.connect(member).await.expect("the member answers");
    conn.execute(AssertSqlSafe(format!("USE {DATABASE}"))).await.unwrap();
    conn
}

/// The machine's clock in microseconds, which is also that of the servers on it.
#[expect(clippy::disallowed_methods, reason = "the report tells times")]
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap()
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}
