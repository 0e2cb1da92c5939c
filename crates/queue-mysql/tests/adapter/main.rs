//! What only a real server shows: errors of connecting, migrations by many at once, the user's own transactions, locks.

mod guessing;
mod pruning;
#[path = "../support/mod.rs"]
mod support;
mod sweeping;

use std::sync::Arc;
use std::time::Duration;

use queue_core::admin::{Acted, Action, Selection};
use queue_core::claim::Capacity;
use queue_core::diagnose::{Diagnose as _, Examination, Finding};
use queue_core::progress::ProgressUpdate;
use queue_core::session::{Renewal, SessionSpec};
use queue_core::{
    Budget, ClaimId, ClaimReply, ClaimRequest, ClaimedTask, Enqueued, ErrorKind, Migrate as _, NewTask, Nonce, Payload,
    Percent, Priority, Progress, Scope, SessionId, Settle, Settled, Settlement, Status, TaskAdmin as _, TaskId,
    TaskResult, TaskSpec, TaskStore as _, TaskType, Timestamp, Transactional as _,
};
use queue_mysql::MySqlStore;
use queue_testkit::conformance::Fixture as _;
use sqlx::{Connection as _, Executor as _, Row as _};
use support::{Database, MARIADB, MYSQL, OCEANBASE, server};

const TYPE: TaskType = TaskType::new("adapter.test");
const LEASE: Duration = Duration::from_secs(60);

async fn new_tasks(store: &MySqlStore, count: u32) -> Arc<[NewTask]> {
    let ids = store.reserve_ids(count).await.unwrap();
    ids.map(|id| NewTask { id, nonce: Nonce::new(1), spec: TaskSpec::new(TYPE, Payload::json("1")) }).collect()
}

async fn session(store: &MySqlStore) -> SessionId {
    let id = SessionId::new(7).unwrap();
    let spec = SessionSpec { id, name: "w".into(), host: "h".into(), version: "0".into(), lease: LEASE };
    assert!(matches!(store.open_session(spec).await.unwrap(), Renewal::Renewed(_)));
    id
}

async fn claim(store: &MySqlStore, session: SessionId, claim: u64, tasks: usize) -> Vec<ClaimedTask> {
    let request = ClaimRequest {
        session,
        claim: ClaimId::new(claim).unwrap(),
        scope: Scope::of([TYPE]),
        capacity: Capacity::of(tasks),
    };
    match store.claim(request).await.unwrap() {
        ClaimReply::Claimed(claimed) => claimed.tasks,
        ClaimReply::Fenced => panic!("fenced"),
    }
}

/// One running task of a fresh database.
async fn running(database: &Database) -> ClaimedTask {
    let store = database.store();
    store.enqueue(new_tasks(store, 1).await).await.unwrap();
    let session = session(store).await;
    claim(store, session, 1, 1).await.pop().unwrap()
}

#[tokio::test]
async fn what_ends_without_a_run_takes_no_room_of_its_type() {
    end_and_claim_within_a_type(MYSQL).await;
}

#[tokio::test]
async fn what_ends_without_a_run_takes_no_room_of_its_type_on_mariadb() {
    end_and_claim_within_a_type(MARIADB).await;
}

/// A task whose budget is spent comes first; there is room for one of its type behind it.
async fn end_and_claim_within_a_type(variable: &str) {
    let database = Database::fresh(variable).await;
    let store = database.store();
    let mut tasks = new_tasks(store, 2).await.to_vec();
    (tasks[0].spec.budget, tasks[0].spec.priority) = (Budget::of(Duration::ZERO), Priority::HIGH);
    let ids = [tasks[0].id, tasks[1].id];
    store.enqueue(tasks.into()).await.unwrap();
    let capacity = Capacity { per_type: vec![(TYPE, 1)], ..Capacity::of(5) };
    let (session, claim) = (session(store).await, ClaimId::new(1).unwrap());
    let request = ClaimRequest { session, claim, scope: Scope::of([TYPE]), capacity };
    let ClaimReply::Claimed(claimed) = store.claim(request).await.unwrap() else { panic!("fenced") };
    let ended: Vec<_> = claimed.ended.iter().map(|ended| ended.id).collect();
    let taken: Vec<_> = claimed.tasks.iter().map(|task| task.id).collect();
    assert_eq!((ended, taken), (vec![ids[0]], vec![ids[1]]));
}

fn complete(task: &ClaimedTask) -> Arc<[Settle]> {
    Arc::from([Settle::by_holder(task.id, task.claim, Settlement::Complete { result: TaskResult::None })])
}

#[tokio::test]
async fn errors_of_connecting_say_what_is_wrong_and_never_the_password() {
    let server = server(MYSQL);
    let (scheme, rest) = server.split_once("://").unwrap();
    let (_, place) = rest.rsplit_once('@').unwrap();
    let cases = [
        (format!("{scheme}://app:s3cret-and-wrong@{place}/mysql"), ErrorKind::Denied),
        (format!("{server}/no_such_database_here"), ErrorKind::Other),
        (format!("{scheme}://app:s3cret-and-wrong@127.0.0.1:1/x"), ErrorKind::Unavailable),
    ];
    for (url, kind) in cases {
        let error = MySqlStore::connect(&url).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!format!("{error} {error:?}").contains("s3cret"), "the password is told: {error:?}");
    }
}

#[tokio::test]
async fn a_database_without_schema_says_so() {
    let database = Database::empty(MYSQL).await;
    assert_eq!(database.store().reserve_ids(1).await.unwrap_err().kind(), ErrorKind::Schema);
    assert_eq!(database.store().schema().await.unwrap().found, None);
}

#[tokio::test]
async fn many_migrate_at_once() {
    migrate_at_once(MYSQL).await;
}

#[tokio::test]
async fn many_migrate_at_once_on_mariadb() {
    migrate_at_once(MARIADB).await;
}

#[tokio::test]
async fn many_migrate_at_once_on_oceanbase() {
    migrate_at_once(OCEANBASE).await;
}

async fn migrate_at_once(variable: &str) {
    let database = Database::empty(variable).await;
    let mut migrating = Vec::new();
    for _ in 0..16 {
        let store = MySqlStore::builder().max_connections(1).connect(&database.url()).await.unwrap();
        migrating.push(tokio::spawn(async move { store.migrate().await }));
    }
    let mut applied = 0;
    for one in migrating {
        applied += one.await.unwrap().unwrap().len();
    }
    assert_eq!(applied, 1, "each step is applied by one of them");
    database.store().schema().await.unwrap().check().unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let database = Database::fresh(MYSQL).await;
    let mut user = database.user().await;
    user.execute("UPDATE queue_schema SET version = 99, min_compatible = 1").await.unwrap();
    assert_eq!(database.store().migrate().await.unwrap(), Vec::<u32>::new());
    user.execute("UPDATE queue_schema SET min_compatible = 98").await.unwrap();
    assert_eq!(database.store().migrate().await.unwrap_err().kind(), ErrorKind::Schema);
}

#[tokio::test]
async fn enqueueing_within_a_transaction_is_all_or_nothing() {
    enqueue_within(MYSQL).await;
}

#[tokio::test]
async fn enqueueing_within_a_transaction_is_all_or_nothing_on_mariadb() {
    enqueue_within(MARIADB).await;
}

#[tokio::test]
async fn enqueueing_within_a_transaction_is_all_or_nothing_on_oceanbase() {
    enqueue_within(OCEANBASE).await;
}

async fn enqueue_within(variable: &str) {
    let database = Database::fresh(variable).await;
    let store = database.store();
    let mut user = database.user().await;
    for (commits, expected) in [(false, None), (true, Some(Status::Queued))] {
        let batch = new_tasks(store, 1).await;
        store.prepare(&batch).await.unwrap();
        let mut tx = user.begin().await.unwrap();
        let enqueued = store.enqueue_in(&mut tx, &batch).await.unwrap();
        assert_eq!(enqueued, [Enqueued::Created(batch[0].id)]);
        assert_eq!(store.get(batch[0].id).await.unwrap(), None, "it is not there before the commit");
        if commits {
            tx.commit().await.unwrap()
        } else {
            tx.rollback().await.unwrap()
        }
        let found = store.get(batch[0].id).await.unwrap();
        assert_eq!(found.map(|task| task.state.status), expected);
    }
}

#[tokio::test]
async fn completing_within_a_transaction_commits_with_it() {
    complete_within(MYSQL).await;
}

#[tokio::test]
async fn completing_within_a_transaction_commits_with_it_on_mariadb() {
    complete_within(MARIADB).await;
}

#[tokio::test]
async fn completing_within_a_transaction_commits_with_it_on_oceanbase() {
    complete_within(OCEANBASE).await;
}

async fn complete_within(variable: &str) {
    let database = Database::fresh(variable).await;
    let (store, task) = (database.store(), running(&database).await);
    let mut user = database.user().await;

    let mut tx = user.begin().await.unwrap();
    let stale = ClaimId::new(99).unwrap();
    assert_eq!(store.complete_in(&mut tx, task.id, stale, TaskResult::None).await.unwrap(), Settled::Stale);
    let result = TaskResult::Value("7".into());
    assert_eq!(store.complete_in(&mut tx, task.id, task.claim, result.clone()).await.unwrap(), Settled::Applied);
    tx.rollback().await.unwrap();
    assert_eq!(status(store, task.id).await, Status::Running);

    let mut tx = user.begin().await.unwrap();
    store.complete_in(&mut tx, task.id, task.claim, result.clone()).await.unwrap();
    tx.commit().await.unwrap();
    let found = store.get(task.id).await.unwrap().unwrap();
    assert_eq!((found.state.status, found.result), (Status::Completed, result));
    let again = store.settle(complete(&task)).await.unwrap();
    assert_eq!(again, [Settled::Already(Status::Completed)], "the pool finds out that it was committed");
}

#[tokio::test]
async fn a_user_transaction_with_an_old_snapshot_completes_or_is_to_be_run_again() {
    complete_with_an_old_snapshot(MYSQL, REPEATABLE, false).await;
}

#[tokio::test]
async fn a_user_transaction_with_an_old_snapshot_completes_or_is_to_be_run_again_on_mariadb() {
    // From 11.6 on it refuses to write rows that changed since the snapshot, unless it is told otherwise. Earlier ones do when they
    // are told to; the oldest cannot.
    let database = Database::fresh(MARIADB).await;
    let mut user = database.user().await;
    if user.execute("SET SESSION innodb_snapshot_isolation = ON").await.is_err() {
        return complete_with_an_old_snapshot(MARIADB, REPEATABLE, false).await;
    }
    for (isolation, refuses) in [
        ("SET innodb_snapshot_isolation = OFF; SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", false),
        ("SET innodb_snapshot_isolation = ON; SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", true),
        ("SET innodb_snapshot_isolation = ON; SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", false),
    ] {
        complete_with_an_old_snapshot(MARIADB, isolation, refuses).await;
    }
}

#[tokio::test]
async fn a_user_transaction_with_an_old_snapshot_completes_or_is_to_be_run_again_on_oceanbase() {
    complete_with_an_old_snapshot(OCEANBASE, REPEATABLE, true).await;
}

const REPEATABLE: &str = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ";

/// The task's progress is written after the user's transaction has read something.
async fn complete_with_an_old_snapshot(variable: &str, isolation: &'static str, refuses: bool) {
    let database = Database::fresh(variable).await;
    let (store, task) = (database.store(), running(&database).await);
    let mut user = database.user().await;
    user.execute(isolation).await.unwrap();

    let mut tx = user.begin().await.unwrap();
    tx.execute("SELECT COUNT(*) FROM queue_task").await.unwrap();
    let progress = Progress::new(Percent::new(50), "half");
    store.progress(vec![ProgressUpdate { task: task.id, claim: task.claim, progress }]).await.unwrap();
    let completed = store.complete_in(&mut tx, task.id, task.claim, TaskResult::None).await;
    if refuses {
        let error = completed.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("run the transaction again"), "{error}");
        tx.rollback().await.unwrap();
        assert_eq!(status(store, task.id).await, Status::Running);
        tx = user.begin().await.unwrap();
        let again = store.complete_in(&mut tx, task.id, task.claim, TaskResult::None).await.unwrap();
        assert_eq!(again, Settled::Applied);
    } else {
        assert_eq!(completed.unwrap(), Settled::Applied);
    }
    tx.commit().await.unwrap();
    assert_eq!(status(store, task.id).await, Status::Completed);
}

async fn status(store: &MySqlStore, task: TaskId) -> Status {
    store.get(task).await.unwrap().unwrap().state.status
}

#[tokio::test]
async fn nothing_waits_for_a_user_transaction_that_holds_a_running_task() {
    hold_the_row(MYSQL).await;
}

#[tokio::test]
async fn nothing_waits_for_a_user_transaction_that_holds_a_running_task_on_mariadb() {
    hold_the_row(MARIADB).await;
}

#[tokio::test]
async fn nothing_waits_for_a_user_transaction_that_holds_a_running_task_on_oceanbase() {
    hold_the_row(OCEANBASE).await;
}

async fn hold_the_row(variable: &str) {
    let database = Database::fresh(variable).await;
    let (store, task) = (database.store(), running(&database).await);
    let mut user = database.user().await;
    let mut tx = user.begin().await.unwrap();
    store.complete_in(&mut tx, task.id, task.claim, TaskResult::None).await.unwrap();

    // While the row is held: cancelling, progress, renewing, reaping. Each would fail with a lock timeout if it waited.
    let progress = Progress::new(Percent::new(50), "half");
    store.progress(vec![ProgressUpdate { task: task.id, claim: task.claim, progress }]).await.unwrap();
    let acted = store.act(Selection::Ids(vec![task.id]), Action::Cancel, "test").await.unwrap();
    assert_eq!(acted, [(task.id, Acted::Signalled)]);
    let session = SessionId::new(7).unwrap();
    let Renewal::Renewed(signals) = store.renew_session(session, LEASE).await.unwrap() else { panic!("fenced") };
    assert_eq!(signals.cancels, [(task.id, task.claim)]);
    store.close_session(session).await.unwrap();
    assert_eq!(store.lost(10).await.unwrap().tasks, [], "a task that is completing right now is not lost");
    assert!(store.retries().is_empty(), "something waited for the row: {:?}", store.retries());

    tx.commit().await.unwrap();
    assert_eq!(status(store, task.id).await, Status::Completed);
    assert_eq!(store.lost(10).await.unwrap().tasks, []);
}

#[tokio::test]
async fn what_others_hold_of_a_lane_is_passed_on_mysql() {
    look_further_on(MYSQL).await;
}

#[tokio::test]
async fn what_others_hold_of_a_lane_is_passed_on_mariadb() {
    look_further_on(MARIADB).await;
}

#[tokio::test]
async fn what_others_hold_of_a_lane_is_passed_on_oceanbase() {
    look_further_on(OCEANBASE).await;
}

/// Another claim holds the first rows of a lane while this one looks for a few.
async fn look_further_on(variable: &str) {
    let database = Database::fresh(variable).await;
    let store = database.store();
    let batch = new_tasks(store, 60).await;
    store.enqueue(Arc::clone(&batch)).await.unwrap();
    let session = session(store).await;
    let mut other = database.user().await;
    let mut held = other.begin().await.unwrap();
    let queue: u32 = held.fetch_one("SELECT id FROM queue_queue").await.unwrap().get(0);
    let sql = format!(
        "SELECT task_id FROM queue_ready FORCE INDEX (PRIMARY) WHERE queue_id = {queue} AND suspect = 0 AND \
         priority_rank = 0 ORDER BY run_at, task_id LIMIT 50 FOR UPDATE"
    );
    assert_eq!(held.fetch_all(sqlx::AssertSqlSafe(sql)).await.unwrap().len(), 50);

    let claimed: Vec<_> = claim(store, session, 1, 2).await.iter().map(|task| task.id).collect();
    assert_eq!(claimed, [batch[50].id, batch[51].id]);
    let claimed = claim(store, session, 2, 100).await;
    assert_eq!(claimed.len(), 8, "all that is free");
    held.rollback().await.unwrap();
}

#[tokio::test]
async fn nobody_waits_for_the_end_of_a_lane() {
    hold_the_end(MYSQL).await;
}

#[tokio::test]
async fn nobody_waits_for_the_end_of_a_lane_on_mariadb() {
    hold_the_end(MARIADB).await;
}

#[tokio::test]
async fn nobody_waits_for_the_end_of_a_lane_on_oceanbase() {
    hold_the_end(OCEANBASE).await;
}

/// A transaction holds the row at the end of a lane, as a claim does on MariaDB, while a process that knows nothing yet enqueues
/// into the lane and works it off.
async fn hold_the_end(variable: &str) {
    let database = Database::fresh(variable).await;
    let store = database.store();
    store.enqueue(new_tasks(store, 3).await).await.unwrap();
    let mut other = database.user().await;
    other.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await.unwrap();
    let mut held = other.begin().await.unwrap();
    let ends = held.fetch_all("SELECT run_at FROM queue_ready WHERE task_id = 0 FOR UPDATE").await.unwrap();
    assert_eq!(ends.iter().map(|row| row.get(0)).collect::<Vec<i64>>(), [i64::MAX]);

    let fresh = MySqlStore::connect(&database.url()).await.unwrap();
    fresh.enqueue(new_tasks(&fresh, 2).await).await.unwrap();
    let session = session(&fresh).await;
    let tasks = claim(&fresh, session, 1, 100).await;
    assert_eq!(tasks.len(), 5);
    for task in &tasks {
        assert_eq!(fresh.settle(complete(task)).await.unwrap(), [Settled::Applied]);
    }
    held.rollback().await.unwrap();
}

#[tokio::test]
async fn the_doctor_needs_no_second_connection() {
    let database = Database::fresh(MYSQL).await;
    let store = MySqlStore::builder().max_connections(1).connect(&database.url()).await.unwrap();
    let findings = store.diagnose(Examination::at(Timestamp::from_micros(0))).await;
    let schema: Vec<_> = findings.iter().filter(|finding| finding.check == "schema").collect();
    assert_eq!(schema, [&Finding::ok("schema", "version 1, as this program brings")]);
}

#[tokio::test]
async fn many_large_results_are_more_than_one_packet_on_mysql() {
    large_results(MYSQL).await;
}

#[tokio::test]
async fn many_large_results_are_more_than_one_packet_on_mariadb() {
    large_results(MARIADB).await;
}

/// Together they are larger than what MariaDB takes at once (`max_allowed_packet`).
async fn large_results(variable: &str) {
    let database = Database::fresh(variable).await;
    let store = database.store();
    let batch = new_tasks(store, 500).await;
    store.enqueue(batch).await.unwrap();
    let session = session(store).await;
    let tasks = claim(store, session, 1, 500).await;
    let result = TaskResult::Value(format!("\"{}\"", "r".repeat(65_000)).into());
    let complete =
        |task: &ClaimedTask| Settle::by_holder(task.id, task.claim, Settlement::Complete { result: result.clone() });
    let settled = store.settle(tasks.iter().map(complete).collect()).await.unwrap();
    assert_eq!(settled, vec![Settled::Applied; 500]);
    for task in [&tasks[0], &tasks[499]] {
        assert_eq!(store.get(task.id).await.unwrap().unwrap().result, result);
    }
}

#[tokio::test]
async fn claiming_and_settling_wait_for_no_neighbour() {
    neighbours(MYSQL).await;
}

#[tokio::test]
async fn claiming_and_settling_wait_for_no_neighbour_on_mariadb() {
    neighbours(MARIADB).await;
}

/// Tasks enqueued together are named by first and last of their ids; the row after the last is somebody else's.
async fn neighbours(variable: &str) {
    let database = Database::fresh(variable).await;
    let store = database.store();
    let batch = new_tasks(store, 40).await;
    let neighbour = batch[20].id;
    store.enqueue(batch).await.unwrap();
    let session = session(store).await;
    let mut other = database.user().await;
    other.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await.unwrap();
    other.execute("BEGIN").await.unwrap();
    for sql in [
        format!("SELECT 1 FROM queue_ready WHERE task_id = {neighbour} FOR UPDATE"),
        format!("SELECT 1 FROM queue_task WHERE id = {neighbour} FOR UPDATE"),
    ] {
        other.fetch_one(sqlx::AssertSqlSafe(sql)).await.unwrap();
    }
    let tasks = claim(store, session, 1, 20).await;
    assert_eq!(tasks.len(), 20);
    let batch: Arc<[Settle]> = tasks.iter().flat_map(|task| complete(task).to_vec()).collect();
    let request =
        ClaimRequest { session, claim: ClaimId::new(2).unwrap(), scope: Scope::of([TYPE]), capacity: Capacity::of(10) };
    let trip = store.settle_and_claim(batch, request).await;
    assert_eq!(trip.settled.unwrap(), vec![Settled::Applied; 20]);
    assert!(matches!(trip.claim.unwrap(), ClaimReply::Claimed(claimed) if claimed.tasks.len() == 10));
    assert_eq!(store.retries(), vec![], "nothing was waited for");
    other.execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn killed_connections_are_replaced() {
    let database = Database::fresh(MYSQL).await;
    let store = database.store();
    let mut user = database.user().await;
    store.reserve_ids(1).await.unwrap();
    let name = database.url().rsplit('/').next().unwrap().to_owned();
    let own: u64 = user.fetch_one("SELECT CONNECTION_ID()").await.unwrap().get(0);
    let ids = sqlx::query("SELECT id FROM information_schema.processlist WHERE db = ? AND id <> ?")
        .bind(name)
        .bind(own)
        .fetch_all(&mut user)
        .await
        .unwrap();
    assert!(!ids.is_empty());
    for row in ids {
        let id: u64 = row.get(0);
        user.execute(sqlx::AssertSqlSafe(format!("KILL {id}"))).await.unwrap();
    }
    store.reserve_ids(1).await.expect("a connection that lay idle is replaced behind the caller's back");
}

#[tokio::test]
async fn a_row_that_cannot_be_is_told_and_others_go_on() {
    let database = Database::fresh(MYSQL).await;
    let store = database.store();
    let batch = new_tasks(store, 3).await;
    store.enqueue(Arc::clone(&batch)).await.unwrap();
    let mut user = database.user().await;
    let bad = batch[0].id;
    sqlx::query("UPDATE queue_task SET attempt = 9 WHERE id = ?").bind(bad.get()).execute(&mut user).await.unwrap();

    assert_eq!(store.get(bad).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let session = session(store).await;
    let claimed: Vec<_> = claim(store, session, 1, 10).await.iter().map(|task| task.id).collect();
    assert_eq!(claimed, [batch[1].id, batch[2].id]);
}

#[tokio::test]
async fn the_clock_is_the_servers_in_utc() {
    let database = Database::fresh(MYSQL).await;
    let mut user = database.user().await;
    user.execute("SET time_zone = '+05:00'").await.unwrap();
    let sql = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))";
    let before: i64 = user.fetch_one(sql).await.unwrap().get(0);
    let told = database.store().time().await.unwrap().now.as_micros();
    let after: i64 = user.fetch_one(sql).await.unwrap().get(0);
    assert!((before..=after).contains(&told));
}

#[tokio::test]
async fn only_the_latest_failed_attempts_are_kept() {
    let database = Database::fresh(MYSQL).await;
    let task = running(&database).await;
    let mut user = database.user().await;
    let rows: Vec<_> = (1..=150).map(|fence| format!("({},{fence},1,1,2,'retried','e')", task.id)).collect();
    let sql = format!(
        "INSERT INTO queue_attempt (task_id, fence, attempt, started_at, ended_at, outcome, error) VALUES {}; \
         UPDATE queue_task SET claims = 500 WHERE id = {}",
        rows.join(","),
        task.id
    );
    user.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.unwrap();
    let fail = Settlement::Fail { reason: queue_core::FailureReason::Rejected, error: Some("last".into()) };
    let settle = Settle::by_holder(task.id, task.claim, fail);
    assert_eq!(database.store().settle([settle].into()).await.unwrap(), [Settled::Applied]);
    let sql = "SELECT COUNT(*), MIN(fence), MAX(fence) FROM queue_attempt";
    let row = user.fetch_one(sql).await.unwrap();
    assert_eq!((row.get::<i64, _>(0), row.get::<u32, _>(1), row.get::<u32, _>(2)), (100, 52, 500));
}
