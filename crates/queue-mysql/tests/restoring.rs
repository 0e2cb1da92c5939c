//! What docs/SCALING.md tells to do after restoring a backup.

mod support;

use std::sync::Arc;
use std::time::Duration;

use queue_core::claim::Capacity;
use queue_core::session::{Renewal, SessionSpec};
use queue_core::{
    ClaimId, ClaimRequest, NewTask, Nonce, Payload, Scope, SessionId, TaskSpec, TaskStore as _, TaskType,
};
use queue_testkit::conformance::Fixture as _;
use sqlx::{AssertSqlSafe, Executor as _};
use support::{Database, MARIADB, MYSQL};

const PAGE: &str = include_str!("../../../docs/SCALING.md");
const LEASE: Duration = Duration::from_secs(60);

/// The statements of the page's part about it.
fn statements() -> Vec<&'static str> {
    let (_, part) = PAGE.split_once("## Restoring a backup").expect("the page has such a part");
    let (_, rest) = part.split_once("```sql").expect("it has SQL");
    let (sql, _) = rest.split_once("```").expect("the SQL ends");
    sql.split(';').map(str::trim).filter(|statement| !statement.is_empty()).collect()
}

#[tokio::test]
async fn restored_sessions_are_fenced_and_ids_skipped() {
    fence_and_skip(MYSQL).await;
}

#[tokio::test]
async fn restored_sessions_are_fenced_and_ids_skipped_on_mariadb() {
    fence_and_skip(MARIADB).await;
}

async fn fence_and_skip(variable: &str) {
    const TYPE: TaskType = TaskType::new("restored");
    let database = Database::fresh(variable).await;
    let store = database.store();
    let before = store.reserve_ids(1).await.unwrap().next().unwrap();
    let task = NewTask { id: before, nonce: Nonce::new(1), spec: TaskSpec::new(TYPE, Payload::json("1")) };
    store.enqueue(Arc::from([task])).await.unwrap();
    let session = SessionId::new(7).unwrap();
    let spec = SessionSpec { id: session, name: "w".into(), host: "h".into(), version: "0".into(), lease: LEASE };
    store.open_session(spec).await.unwrap();
    let (claim, scope, capacity) = (ClaimId::new(1).unwrap(), Scope::of([TYPE]), Capacity::of(1));
    store.claim(ClaimRequest { session, claim, scope, capacity }).await.unwrap();
    assert!(store.lost(10).await.unwrap().tasks.is_empty(), "its worker is alive");

    let mut user = database.user().await;
    for statement in statements() {
        user.execute(AssertSqlSafe(statement)).await.unwrap();
    }
    assert_eq!(store.renew_session(session, LEASE).await.unwrap(), Renewal::Fenced);
    let lost: Vec<_> = store.lost(10).await.unwrap().tasks.iter().map(|task| task.id).collect();
    assert_eq!(lost, [before]);
    let after = store.reserve_ids(1).await.unwrap().next().unwrap();
    assert!(after.get() > before.get() + 1_000_000, "ids of before the restore are not given out again");
}
