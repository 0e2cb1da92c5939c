//! Writes down every statement that the store runs, for the catalogue of the doctor, and explains them all on tables of every
//! size.
//!
//! After a statement was changed: `INSTA_UPDATE=always cargo xtask test -- the_catalogue_is_what_runs`, and read the difference.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use queue_core::admin::{Action, Filter, Page, Pause, Selection};
use queue_core::claim::{Capacity, Resolved};
use queue_core::diagnose::{Diagnose as _, Examination, Finding, Level};
use queue_core::ids::IdBlock;
use queue_core::progress::ProgressUpdate;
use queue_core::session::{Renewal, SessionSpec};
use queue_core::settlement::Requeue;
use queue_core::{
    Budget, ClaimId, ClaimReply, ClaimRequest, ClaimedTask, ErrorText, FailureReason, IdempotencyKey, Migrate as _,
    NewTask, Nonce, Payload, Percent, Priority, Progress, QueueName, Scope, SessionId, Settle, Settled, Settlement,
    Start, Status, TaskAdmin as _, TaskId, TaskResult, TaskSpec, TaskStore as _, TaskType, Timestamp,
    Transactional as _,
};
use queue_testkit::conformance::Fixture as _;
use sqlx::{AssertSqlSafe, Connection as _};

use super::plans;
use super::statements::tests::{looks_further_on, reads_a_lane, templates};
use super::statements::{Sample, catalogue, expand};
use crate::MySqlStore;
use crate::server::Flavor;
use crate::support::{Database, MARIADB, MYSQL};

thread_local! {
    /// What this thread's test has run. Its runtime has no other thread.
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Notes what is about to be run.
pub(crate) fn saw(sql: &str) {
    SEEN.with_borrow_mut(|seen| seen.push(sql.to_owned()));
}

const A: TaskType = TaskType::new("record.a");
const B: TaskType = TaskType::new("record.b");
const LEASE: Duration = Duration::from_secs(60);

fn id<T>(make: fn(u64) -> Option<T>, number: u64) -> T {
    make(number).expect("not zero")
}

/// The store, called in every way.
struct Workload<'a> {
    store: &'a MySqlStore,
    session: SessionId,
    claims: u64,
    ids: IdBlock,
}

impl Workload<'_> {
    fn tasks(&mut self, specs: Vec<TaskSpec>) -> Arc<[NewTask]> {
        let task = |spec| NewTask { id: self.ids.next().unwrap(), nonce: Nonce::new(7), spec };
        specs.into_iter().map(task).collect()
    }

    async fn enqueue(&mut self, specs: Vec<TaskSpec>) -> Vec<TaskId> {
        let batch = self.tasks(specs);
        self.store.enqueue(Arc::clone(&batch)).await.unwrap();
        batch.iter().map(|task| task.id).collect()
    }

    async fn claim(&mut self, types: &[TaskType], tasks: usize) -> Vec<ClaimedTask> {
        self.claims += 1;
        let request = ClaimRequest {
            session: self.session,
            claim: id(ClaimId::new, self.claims),
            scope: Scope::of(types.to_vec()),
            capacity: Capacity { suspects: 1, ..Capacity::of(tasks) },
        };
        match self.store.claim(request).await.unwrap() {
            ClaimReply::Claimed(claimed) => claimed.tasks,
            ClaimReply::Fenced => panic!("fenced"),
        }
    }

    async fn settle(&self, tasks: &[ClaimedTask], settlement: &Settlement) {
        let batch: Arc<[Settle]> =
            tasks.iter().map(|task| Settle::by_holder(task.id, task.claim, settlement.clone())).collect();
        let settled = self.store.settle(batch).await.unwrap();
        assert!(settled.iter().all(|settled| *settled == Settled::Applied), "{settled:?}");
    }
}

fn specs(count: usize, of: &TaskType) -> Vec<TaskSpec> {
    vec![TaskSpec::new(of.clone(), Payload::json("1")); count]
}

const COMPLETE: Settlement = Settlement::Complete { result: TaskResult::None };

fn fail(error: &str) -> Settlement {
    Settlement::Fail { reason: FailureReason::Rejected, error: Some(ErrorText::new(error)) }
}

/// Calls everything, and so has every statement run.
async fn run_everything(database: &Database) {
    let store = database.store();
    store.reserve_ids(2_000).await.unwrap();
    let ids = store.reserve_ids(1_000).await.unwrap();
    let session = id(SessionId::new, 70_001);
    let open = |id, lease| SessionSpec { id, name: "w".into(), host: "h".into(), version: "0".into(), lease };
    assert!(matches!(store.open_session(open(session, LEASE)).await.unwrap(), Renewal::Renewed(_)));
    let mut work = Workload { store, session, claims: 80_000, ids };
    enqueue_everything(database, &mut work).await;

    // Claims: of all types, of chosen ones, with spent budgets; settled in every way.
    work.enqueue(specs(4, &A)).await;
    let done = work.claim(&[A, B], 2).await;
    work.settle(&done, &COMPLETE).await;
    work.enqueue(specs(3, &B)).await;
    let chosen = work.claim(&[B], 2).await;
    assert_eq!(chosen.len(), 2);
    work.settle(&chosen, &Settlement::Complete { result: TaskResult::Value("7".into()) }).await;
    let failed = work.claim(&[A], 2).await;
    work.settle(&failed, &fail("no")).await;
    let spent =
        TaskSpec { budget: Budget::of(Duration::from_micros(1)), priority: Priority::HIGH, ..specs(1, &A).remove(0) };
    work.enqueue(vec![spent.clone(), spent.clone()]).await;
    work.claim(&[A, B], 1).await;
    work.enqueue(vec![spent.clone(), spent]).await;
    while !store.expire(100).await.unwrap().finished {}
    // Lanes are read from a little before now, or on from where they were left: that depends on how young the rows are.
    for wait in [0, 250, 0] {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        for types in [&[A, B][..], &[B]] {
            work.enqueue([specs(2, &A), specs(2, &B)].concat()).await;
            work.claim(types, 2).await;
            work.claim(types, 1).await;
        }
    }
    let mut user = database.user().await;
    work.enqueue(specs(2, &B)).await;
    let own = work.claim(&[B], 1).await.remove(0);
    let mut tx = user.begin().await.unwrap();
    let result = TaskResult::Value("7".into());
    assert_eq!(store.complete_in(&mut tx, own.id, own.claim, result).await.unwrap(), Settled::Applied);
    tx.commit().await.unwrap();

    // Progress, cancels and what a renewal brings.
    work.enqueue(specs(3, &A)).await;
    let running = work.claim(&[A, B], 100).await;
    let update = |task: &ClaimedTask| ProgressUpdate {
        task: task.id,
        claim: task.claim,
        progress: Progress::new(Percent::new(50), "half"),
    };
    store.progress(running.iter().take(2).map(update).collect()).await.unwrap();
    let ids = |tasks: &[ClaimedTask]| Selection::Ids(tasks.iter().map(|task| task.id).collect());
    store.act(ids(&running[..2]), Action::Cancel, "me").await.unwrap();
    store.renew_session(session, LEASE).await.unwrap();
    work.settle(&running[..1], &fail("cancelled")).await;
    work.settle(&running[1..2], &COMPLETE).await;
    store.renew_session(session, LEASE).await.unwrap();
    looking(store, &work, running[2].id).await;

    // What operators do.
    let dead = Filter { status: Some(Status::Failed), ..Filter::default() };
    let failed = store.list(dead, Page { after: None, limit: 100 }).await.unwrap();
    let failed: Vec<_> = failed.iter().map(|task| task.id).collect();
    store.act(Selection::Ids(failed.clone()), Action::Retry, "me").await.unwrap();
    store.act(Selection::Ids(failed[..2].to_vec()), Action::Cancel, "me").await.unwrap();
    store.act(Selection::Ids(failed), Action::Delete, "me").await.unwrap();
    let pause = Pause { by: "me".into(), why: "because".into(), at: Timestamp::from_micros(0) };
    store.set_paused(QueueName::new("default"), Some(pause), "me").await.unwrap();
    store.set_paused(QueueName::new("default"), None, "me").await.unwrap();
    store.request_drain(session, "me").await.unwrap();
    store.prune(None, Duration::ZERO, 100).await.unwrap();

    // A claim whose answer was lost, a session that dies, one that ends well.
    work.enqueue(specs(3, &A)).await;
    let claimed = work.claim(&[A, B], 2).await;
    assert!(matches!(store.resolve_claim(session, claimed[0].claim).await.unwrap(), Resolved::Committed(_)));
    assert!(matches!(store.resolve_claim(session, id(ClaimId::new, 99_999)).await.unwrap(), Resolved::Void));
    let dying = id(SessionId::new, 70_002);
    store.open_session(open(dying, Duration::ZERO)).await.unwrap();
    assert_eq!(store.fence_expired(10).await.unwrap().len(), 1);
    store.close_session(session).await.unwrap();
    let lost = store.lost(10).await.unwrap().tasks;
    assert!(!lost.is_empty());
    let kind = Requeue::Recover { error: ErrorText::new("lost") };
    let requeue = Settlement::Requeue { delay: Duration::ZERO, kind };
    let reaper = id(ClaimId::new, 90_000);
    let settles = lost.iter().map(|task| Settle::by_reaper(task.id, task.claim, reaper, requeue.clone()));
    store.settle(settles.collect()).await.unwrap();
    store.lost(10).await.unwrap();
    // Suspects, which wait in a lane of their own.
    work.session = id(SessionId::new, 70_003);
    store.open_session(open(work.session, LEASE)).await.unwrap();
    work.claim(&[A, B], 10).await;
}

/// Enqueues by itself and in a transaction of the user's, anew and repeated, with keys and without.
async fn enqueue_everything(database: &Database, work: &mut Workload<'_>) {
    let store = database.store();
    let mut keyed = specs(2, &A);
    keyed[0].key = Some(IdempotencyKey::parse("a").unwrap());
    keyed[1].key = Some(IdempotencyKey::parse("b").unwrap());
    keyed[1].start = Start::After(Duration::from_secs(3600));
    let batch = work.tasks(keyed.clone());
    store.enqueue(Arc::clone(&batch)).await.unwrap();
    store.enqueue(batch).await.unwrap();
    let mut user = database.user().await;
    let batch = work.tasks(specs(2, &A));
    store.prepare(&batch).await.unwrap();
    for _ in 0..2 {
        let mut tx = user.begin().await.unwrap();
        store.enqueue_in(&mut tx, &batch).await.unwrap();
        tx.commit().await.unwrap();
    }
    keyed[0].key = Some(IdempotencyKey::parse("c").unwrap());
    let batch = work.tasks(keyed);
    let mut tx = user.begin().await.unwrap();
    store.enqueue_in(&mut tx, &batch).await.unwrap();
    tx.rollback().await.unwrap();
}

/// Looks at everything.
async fn looking(store: &MySqlStore, work: &Workload<'_>, task: TaskId) {
    store.time().await.unwrap();
    store.schema().await.unwrap();
    store.is_busy(Scope::of([TaskType::new("other")])).await.unwrap();
    assert!(store.get(task).await.unwrap().is_some());
    store.attempts(task).await.unwrap();
    store.stats().await.unwrap();
    store.sessions().await.unwrap();
    for status in [None, Some(Status::Queued), Some(Status::Running), Some(Status::Completed), Some(Status::Failed)] {
        let filter = Filter { status, ..Filter::default() };
        let narrow = Filter {
            task_type: Some(A),
            queue: Some(QueueName::new("default")),
            reason: (status == Some(Status::Failed)).then_some(FailureReason::Rejected),
            ..filter.clone()
        };
        for filter in [filter, narrow] {
            let page = Page { after: None, limit: 1 };
            let first = store.list(filter.clone(), page).await.unwrap();
            let Some(last) = first.last() else { continue };
            let after = Some(filter.position(last));
            store.list(filter, Page { after, limit: 50 }).await.unwrap();
        }
    }
    assert!(matches!(work.store.renew_session(work.session, LEASE).await.unwrap(), Renewal::Renewed(_)));
}

fn file(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::MySql => "mysql.sql",
        Flavor::MariaDb => "mariadb.sql",
        Flavor::OceanBase => unreachable!("it has no catalogue of its own"),
    }
}

async fn hold_the_catalogue_against_a_record(variable: &str, flavor: Flavor) {
    let database = Database::fresh(variable).await;
    SEEN.take();
    run_everything(&database).await;
    let seen: BTreeSet<String> = SEEN.take().iter().flat_map(|sql| templates(sql)).collect();
    let known: BTreeSet<String> = catalogue(flavor).map(str::to_owned).collect();
    let by_the_clock: BTreeSet<String> = known.iter().filter(|template| reads_a_lane(template)).cloned().collect();
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        let lines: Vec<_> = seen.union(&by_the_clock).map(String::as_str).collect();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/doctor/statements").join(file(flavor));
        let head = "-- What the store runs and reads by, written down by the tests: see doctor/recording.rs.\n";
        std::fs::write(path, format!("{head}{}\n", lines.join("\n"))).unwrap();
        return;
    }
    // One is held against the record for all of them: how many lanes it names, and whether it is prepared, is a matter of time.
    let new: Vec<_> = seen.difference(&known).filter(|template| !looks_further_on(template)).collect();
    assert!(known.iter().any(|template| looks_further_on(template)));
    let gone: Vec<_> = known.difference(&seen).filter(|template| !by_the_clock.contains(*template)).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "the doctor's catalogue is not what the store runs; see doctor/recording.rs. new: {new:#?} gone: {gone:#?}"
    );
}

/// Many rows in every table, made of the few that are there.
async fn fill(database: &Database, rows: u32) {
    let ten = "(SELECT 0 AS d UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 \
               UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)";
    let numbers = format!(
        "(SELECT 1 + a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d AS i FROM {ten} AS a, {ten} AS b, {ten} AS c, \
         {ten} AS e, {ten} AS f) AS n"
    );
    let half = rows / 2;
    let at = "1700000000000000 + i";
    let sql = [
        format!(
            "INSERT INTO queue_task (id, type_id, queue_id, priority_rank, status, attempt, max_attempts, losses, claims, run_at, \
             completed_at) SELECT 10000 + i, 1, 1, 0, IF(i > {half}, 0, 2), 0, 3, 0, 0, {at}, IF(i > {half}, 0, {at}) \
             FROM {numbers} WHERE i <= {rows}"
        ),
        format!(
            "INSERT INTO queue_ready (queue_id, suspect, priority_rank, run_at, task_id, type_id, body_bytes, again) \
             SELECT 1, 0, 0, {at}, 10000 + i, 1, 9, 0 FROM {numbers} WHERE i > {half} AND i <= {rows}"
        ),
        format!(
            "INSERT INTO queue_finished (status, completed_at, task_id, type_id, queue_id) \
             SELECT 2, {at}, 10000 + i, 1, 1 FROM {numbers} WHERE i <= {half}"
        ),
        format!(
            "INSERT INTO queue_payload (task_id, nonce, policy_id, created_at, content_type, body_bytes, body) \
             SELECT 10000 + i, 1, 1, 1, 0, 9, '123456789' FROM {numbers} WHERE i <= {rows}"
        ),
        format!(
            "INSERT INTO queue_attempt (task_id, fence, attempt, started_at, ended_at, outcome, error) \
             SELECT 10000 + i, 1, 1, 1, 1, '', '' FROM {numbers} WHERE i <= {half}"
        ),
        format!("INSERT INTO queue_result (task_id, body) SELECT 10000 + i, '1' FROM {numbers} WHERE i <= {half}"),
        format!(
            "INSERT INTO queue_idempotency (type_id, idempotency_key, task_id, digest, created_at, expires_at) \
             SELECT 1, i, 10000 + i, REPEAT('x', 32), 1, IF(i % 2, NULL, {at}) FROM {numbers} WHERE i <= {half}"
        ),
        format!(
            "INSERT INTO queue_claim (id, session_id, created_at, members) SELECT 10000 + i, i % 50, 1, 'x' FROM {numbers} \
             WHERE i <= {}",
            rows.min(500)
        ),
        format!(
            "INSERT INTO queue_session (id, name, host, version, opened_at, lease_until, drain) \
             SELECT 10000 + i, '', '', '', 1, {at}, 0 FROM {numbers} WHERE i <= {}",
            rows.min(50)
        ),
        "ANALYZE TABLE queue_task, queue_ready, queue_finished, queue_payload, queue_attempt, queue_result, \
         queue_idempotency, queue_claim, queue_session"
            .to_owned(),
    ];
    let mut user = database.user().await;
    sqlx::raw_sql(AssertSqlSafe(sql.join("; "))).execute(&mut user).await.unwrap();
}

/// What is wrong with a plan, and on which tables, with lists of which lengths.
type Wrong = BTreeMap<String, BTreeSet<String>>;

/// Explains every statement, with lists of every length.
async fn explain(database: &Database, flavor: Flavor, size: &str, few_rows: u64, wrong: &mut Wrong) {
    let inner = &database.store().inner;
    let mut conn = inner.connections.acquire(false).await.unwrap();
    for template in catalogue(flavor) {
        for list in [1, 2, 10, 1_000] {
            let sample = Sample { id: 10_100, time: 1_700_000_000_000_100, list };
            let faults = plans::examine(&mut conn, &expand(template, sample), few_rows).await;
            for (fault, step) in faults.unwrap_or_else(|error| panic!("{template}: {error}")) {
                let told = format!("{fault:?} in {template}\n    {step:?}");
                wrong.entry(told).or_default().insert(format!("{list} {size}"));
            }
        }
    }
}

async fn explain_on_every_size(variable: &str, flavor: Flavor) {
    let mut wrong = Wrong::new();
    let database = Database::fresh(variable).await;
    explain(&database, flavor, "empty", plans::FEW_ROWS, &mut wrong).await;
    fill(&database, 4).await;
    explain(&database, flavor, "tiny", plans::FEW_ROWS, &mut wrong).await;
    let database = Database::fresh(variable).await;
    fill(&database, 20_000).await;
    explain(&database, flavor, "large", 0, &mut wrong).await;
    let told: Vec<_> = wrong.iter().map(|(what, where_)| format!("{what}\n    {where_:?}")).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}

async fn examine(store: &MySqlStore) -> Vec<Finding> {
    let wall = store.time().await.unwrap().now;
    store.diagnose(Examination::at(wall)).await
}

fn told(findings: &[Finding]) -> Vec<(Level, &'static str)> {
    findings.iter().filter(|finding| finding.level != Level::Ok).map(|finding| (finding.level, finding.check)).collect()
}

/// A healthy store, after all that can happen to it; then with what can be wrong.
async fn examine_a_store(variable: &str) {
    let database = Database::fresh(variable).await;
    let store = database.store();
    run_everything(&database).await;
    let findings = examine(store).await;
    let ours = ["durability", "replicas", "snapshots"]; // the server's own, and what a worker may not see
    let bad: Vec<_> = told(&findings).into_iter().filter(|(_, check)| !ours.contains(check)).collect();
    assert_eq!(bad, [], "{findings:#?}");

    let mut user = database.user().await;
    let break_it = "DELETE FROM queue_ready WHERE task_id > 0 LIMIT 1; UPDATE queue_claim SET members = ''; \
         UPDATE queue_task SET status = 2, completed_at = 5 WHERE status = 0 ORDER BY id DESC LIMIT 1; \
         INSERT INTO queue_finished (status, completed_at, task_id, type_id, queue_id) VALUES (2, 1, 1, 1, 1); \
         INSERT INTO queue_ready (queue_id, suspect, priority_rank, run_at, task_id, type_id, body_bytes, again) \
         VALUES (1, 0, 0, 1, 1, 1, 0, 0), (1, 0, 0, 2, 1, 1, 0, 0); \
         ALTER TABLE queue_idempotency DROP KEY queue_idempotency_expiry; ALTER TABLE queue_claim DROP KEY queue_claim_session, \
         ADD KEY queue_claim_session (created_at); DROP TABLE queue_lane";
    sqlx::raw_sql(break_it).execute(&mut user).await.unwrap();
    let findings = examine(store).await;
    let text = findings.iter().map(|finding| format!("{finding:?}\n")).collect::<String>();
    for expected in [
        "tasks that are queued and do not wait, so nobody will ever claim them: 1 (",
        "tasks that wait although they are not queued: 3 (1, 1, ",
        "tasks that wait more than once: 1 (1)",
        "tasks that run under a claim that does not list them, so nobody will ever find them lost: 2",
        "tasks that have ended and are not in the list of ended tasks, so they are never pruned: 1 (",
        "tasks that are in the list of ended tasks and have not ended so: 1 (1)",
        "the index queue_idempotency_expiry of queue_idempotency is missing",
        "ALTER TABLE queue_idempotency ADD KEY queue_idempotency_expiry (expires_at)",
        "queue_claim is KEY queue_claim_session (created_at) and must be KEY queue_claim_session (session_id)",
        "the table queue_lane is missing",
        "statements could not be explained",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
}

#[tokio::test]
async fn the_catalogue_is_what_runs() {
    hold_the_catalogue_against_a_record(MYSQL, Flavor::MySql).await;
}

#[tokio::test]
async fn the_catalogue_is_what_runs_on_mariadb() {
    hold_the_catalogue_against_a_record(MARIADB, Flavor::MariaDb).await;
}

#[tokio::test]
async fn every_statement_seeks_on_tables_of_every_size() {
    explain_on_every_size(MYSQL, Flavor::MySql).await;
}

#[tokio::test]
async fn every_statement_seeks_on_tables_of_every_size_on_mariadb() {
    explain_on_every_size(MARIADB, Flavor::MariaDb).await;
}

#[tokio::test]
async fn the_doctor_finds_what_is_wrong() {
    examine_a_store(MYSQL).await;
}

#[tokio::test]
async fn the_doctor_finds_what_is_wrong_on_mariadb() {
    examine_a_store(MARIADB).await;
}
