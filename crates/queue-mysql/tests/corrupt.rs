//! Rows that cannot be, bent by hand as a bad disk or a careless person would: told by name where they are asked for, passed
//! over everywhere else.

mod support;

use std::sync::Arc;
use std::time::Duration;

use queue_core::admin::{Action, Filter, Page, Selection};
use queue_core::claim::{Capacity, Resolved};
use queue_core::session::{Renewal, SessionSpec};
use queue_core::{
    Budget, ClaimId, ClaimReply, ClaimRequest, Claimed, ErrorKind, FailureReason, NewTask, Nonce, Payload, Retry,
    Scope, SessionId, Settle, Settled, Settlement, Status, StoreError, TaskAdmin as _, TaskId, TaskResult, TaskSpec,
    TaskStore as _, TaskType,
};
use queue_mysql::MySqlStore;
use queue_testkit::conformance::Fixture as _;
use sqlx::{AssertSqlSafe, Executor as _};
use support::{Database, MARIADB, MYSQL};

const TYPE: TaskType = TaskType::new("corrupt.test");
const LEASE: Duration = Duration::from_secs(600);

/// What makes a queued task's rows impossible; `{}` is its id.
const DEFECTS: [&str; 13] = [
    "UPDATE queue_task SET status = 7 WHERE id = {}",
    "UPDATE queue_task SET status = 2 WHERE id = {}",
    "UPDATE queue_task SET reason = 99 WHERE id = {}",
    "UPDATE queue_task SET attempt = 3 WHERE id = {}",
    "UPDATE queue_task SET max_attempts = 0 WHERE id = {}",
    "UPDATE queue_task SET priority_rank = 101 WHERE id = {}",
    "UPDATE queue_task SET completed_at = -5 WHERE id = {}",
    "UPDATE queue_task SET deadline_at = NULL WHERE id = {}",
    "UPDATE queue_task SET type_id = 999 WHERE id = {}",
    "UPDATE queue_payload SET budget = -1 WHERE task_id = {}",
    "UPDATE queue_payload SET policy_id = 999 WHERE task_id = {}",
    "UPDATE queue_policy SET backoff = 'fixed:soon' WHERE id = (SELECT policy_id FROM queue_payload WHERE task_id = {})",
    "DELETE FROM queue_payload WHERE task_id = {}",
];

/// A database whose own checks do not look, and three tasks in it, the middle one with a policy of its own.
async fn damaged(variable: &str, spec: &TaskSpec, defect: &str) -> (Database, Vec<TaskId>) {
    let database = Database::fresh(variable).await;
    let ids = put(database.store(), spec).await;
    bend(&database, defect, ids[1]).await;
    (database, ids)
}

async fn put(store: &MySqlStore, spec: &TaskSpec) -> Vec<TaskId> {
    let ids: Vec<_> = store.reserve_ids(3).await.unwrap().collect();
    let task = |(index, &id): (usize, &TaskId)| {
        let retry = if index == 1 { Retry::fixed(Duration::from_secs(77)) } else { Retry::DEFAULT };
        NewTask { id, nonce: Nonce::new(1), spec: TaskSpec { retry, ..spec.clone() } }
    };
    store.enqueue(ids.iter().enumerate().map(task).collect()).await.unwrap();
    ids
}

async fn bend(database: &Database, defect: &str, task: TaskId) {
    let mut user = database.user().await;
    for name in ["queue_task_reason", "queue_task_end", "queue_task_run"] {
        // Gone already where this is the second time.
        let _ = user.execute(AssertSqlSafe(format!("ALTER TABLE queue_task DROP CONSTRAINT {name}"))).await;
    }
    let done = user.execute(AssertSqlSafe(defect.replace("{}", &task.to_string()))).await.unwrap();
    assert_eq!(done.rows_affected(), 1, "{defect}");
}

fn spec() -> TaskSpec {
    TaskSpec::new(TYPE, Payload::json("1"))
}

async fn session(store: &MySqlStore) -> SessionId {
    let id = SessionId::new(7).unwrap();
    let spec = SessionSpec { id, name: "w".into(), host: "h".into(), version: "0".into(), lease: LEASE };
    assert!(matches!(store.open_session(spec).await.unwrap(), Renewal::Renewed(_)));
    id
}

async fn claim(store: &MySqlStore, session: SessionId, claim: u64) -> Claimed {
    let (scope, capacity) = (Scope::of([TYPE]), Capacity::of(9));
    let request = ClaimRequest { session, claim: ClaimId::new(claim).unwrap(), scope, capacity };
    match store.claim(request).await.unwrap() {
        ClaimReply::Claimed(claimed) => claimed,
        ClaimReply::Fenced => panic!("fenced"),
    }
}

fn ids(claimed: &Claimed) -> Vec<TaskId> {
    claimed.tasks.iter().map(|task| task.id).collect()
}

fn complete(task: TaskId, claim: u64) -> Settle {
    Settle::by_holder(task, ClaimId::new(claim).unwrap(), Settlement::Complete { result: TaskResult::None })
}

fn tells(error: &StoreError, task: TaskId) -> bool {
    matches!(error, StoreError::Corrupt { task: Some(told), .. } if *told == task)
}

async fn each_defect_is_told_by_name_and_stops_nothing(variable: &str) {
    for defect in DEFECTS {
        let (database, tasks) = damaged(variable, &spec(), defect).await;
        // A process of its own: the first one knows the names from before.
        let store = database.another().await;
        let error = store.get(tasks[1]).await.unwrap_err();
        assert!(tells(&error, tasks[1]), "{defect}: {error}");
        let listed = store.list(Filter::default(), Page { after: None, limit: 9 }).await.unwrap();
        assert_eq!(listed.iter().map(|task| task.id).collect::<Vec<_>>(), [tasks[2], tasks[0]], "{defect}");

        let session = session(&store).await;
        let claimed = claim(&store, session, 1).await;
        assert_eq!(ids(&claimed), [tasks[0], tasks[2]], "{defect}");
        // Nothing is left that a pool could do, so nothing keeps it awake, and it may end.
        let again = claim(&store, session, 2).await;
        assert_eq!(ids(&again), [], "{defect}");
        assert!(again.next_due.is_none_or(|due| due > again.now), "{defect}: {again:?}");
        let settled = store.settle([complete(tasks[0], 1), complete(tasks[2], 1)].into()).await.unwrap();
        assert_eq!(settled, [Settled::Applied; 2], "{defect}");
        assert!(!store.is_busy(Scope::of([TYPE])).await.unwrap(), "{defect}");
        store.stats().await.unwrap();
    }
}

/// Lists do not look at payloads; whoever needs it is told.
async fn a_payload_of_no_known_kind_costs_its_own_task_only(variable: &str) {
    let (database, tasks) =
        damaged(variable, &spec(), "UPDATE queue_payload SET content_type = 9 WHERE task_id = {}").await;
    let store = database.store();
    let session = session(store).await;
    assert_eq!(ids(&claim(store, session, 1).await), [tasks[0], tasks[2]]);
    let error = store.get(tasks[1]).await.unwrap_err();
    assert!(tells(&error, tasks[1]), "{error}");
}

async fn a_corrupt_task_is_stale_to_its_holder_and_lost_to_nobody(variable: &str) {
    let database = Database::fresh(variable).await;
    let store = database.store();
    let tasks = put(store, &spec()).await;
    let session = session(store).await;
    assert_eq!(ids(&claim(store, session, 1).await), tasks);
    bend(&database, "UPDATE queue_task SET attempt = 9 WHERE id = {}", tasks[1]).await;
    // Completions alone go by the claim and do not read the rows; anything else does.
    let reject = Settlement::Fail { reason: FailureReason::Rejected, error: None };
    let reject = Settle::by_holder(tasks[0], ClaimId::new(1).unwrap(), reject);
    let settled = store.settle([reject, complete(tasks[1], 1)].into()).await.unwrap();
    assert_eq!(settled, [Settled::Applied, Settled::Stale]);
    assert_eq!(store.get(tasks[0]).await.unwrap().unwrap().state.status, Status::Failed);
    let Resolved::Committed(held) = store.resolve_claim(session, ClaimId::new(1).unwrap()).await.unwrap() else {
        panic!("the claim was committed")
    };
    assert_eq!(ids(&held), [tasks[2]]);
    store.close_session(session).await.unwrap();
    let lost = store.lost(9).await.unwrap();
    assert_eq!(lost.tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [tasks[2]]);
    let error = store.act(Selection::Ids(vec![tasks[1]]), Action::Delete, "test").await.unwrap_err();
    assert!(tells(&error, tasks[1]), "{error}");
}

async fn a_sweep_passes_over_it(variable: &str) {
    let spent = TaskSpec { budget: Budget::of(Duration::ZERO), ..spec() };
    let (database, tasks) = damaged(variable, &spent, "UPDATE queue_task SET attempt = 9 WHERE id = {}").await;
    let store = database.store();
    let mut ended = Vec::new();
    for _ in 0..9 {
        let swept = store.expire(1).await.unwrap();
        ended.extend(swept.ended.into_iter().map(|ended| ended.id));
        if swept.finished {
            break;
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, [tasks[0], tasks[2]]);
}

/// More of them than a claim is repeated: the rest is claimed all the same.
async fn many_of_them_stop_nothing(variable: &str) {
    let database = Database::fresh(variable).await;
    let store = database.store();
    let mut good = Vec::new();
    for _ in 0..30 {
        let tasks = put(store, &spec()).await;
        bend(&database, "UPDATE queue_task SET attempt = 9 WHERE id = {}", tasks[1]).await;
        good.extend([tasks[0], tasks[2]]);
    }
    let session = session(store).await;
    let (scope, capacity) = (Scope::of([TYPE]), Capacity::of(90));
    let request = ClaimRequest { session, claim: ClaimId::new(1).unwrap(), scope, capacity };
    let ClaimReply::Claimed(claimed) = store.claim(request).await.unwrap() else { panic!("fenced") };
    assert_eq!(ids(&claimed), good);
}

/// Times that no clock tells are odd and not impossible.
async fn times_long_past_are_taken(variable: &str) {
    let (database, tasks) =
        damaged(variable, &spec(), "UPDATE queue_payload SET created_at = -9223372036854775808 WHERE task_id = {}")
            .await;
    let store = database.store();
    bend(&database, "UPDATE queue_task SET run_at = -9223372036854775808 WHERE id = {}", tasks[0]).await;
    let session = session(store).await;
    assert_eq!(ids(&claim(store, session, 1).await), tasks);
    let batch: Arc<[_]> = tasks.iter().map(|&task| complete(task, 1)).collect();
    assert_eq!(store.settle(batch).await.unwrap(), [Settled::Applied; 3]);
    assert_eq!(store.get(tasks[0]).await.map_err(|error| error.kind()).err(), None::<ErrorKind>);
}

macro_rules! on_both {
    ($($case:ident)+) => {
        mod mysql {
            $(#[tokio::test] async fn $case() { super::$case(super::MYSQL).await; })+
        }
        mod mariadb {
            $(#[tokio::test] async fn $case() { super::$case(super::MARIADB).await; })+
        }
    };
}

on_both! {
    each_defect_is_told_by_name_and_stops_nothing
    a_payload_of_no_known_kind_costs_its_own_task_only
    a_corrupt_task_is_stale_to_its_holder_and_lost_to_nobody
    a_sweep_passes_over_it
    many_of_them_stop_nothing
    times_long_past_are_taken
}
