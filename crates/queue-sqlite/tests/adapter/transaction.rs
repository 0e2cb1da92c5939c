//! The user's own transaction: the effect and the queue's write are there together or not at all.

use std::time::Duration;

use queue_core::{
    ClaimId, Enqueued, ErrorKind, IdempotencyKey, NewTask, Nonce, Payload, Settled, Status, StoreError, TaskAdmin as _,
    TaskId, TaskResult, TaskStore as _, Transactional as _,
};
use queue_sqlite::rusqlite::Connection;
use queue_sqlite::{SqliteOptions, SqliteStore};

use crate::support::{File, claim, put, request, session, spec};

/// The store, and a connection of the user's with a table of the user's.
async fn shop() -> (File, SqliteStore, Connection) {
    let file = File::new();
    let store = file.store().await;
    let conn = file.foreign();
    conn.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY)").unwrap();
    (file, store, conn)
}

async fn new_task(store: &SqliteStore) -> NewTask {
    let id = store.reserve_ids(1).await.unwrap().next().unwrap();
    NewTask { id, nonce: Nonce::new(1), spec: spec() }
}

fn orders(conn: &Connection) -> i64 {
    conn.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap()
}

async fn status(store: &SqliteStore, task: TaskId) -> Option<Status> {
    store.get(task).await.unwrap().map(|task| task.state.status)
}

#[tokio::test]
async fn an_enqueue_shares_the_fate_of_the_transaction() {
    let (_file, store, mut conn) = shop().await;
    for (end, found) in [("ROLLBACK", None), ("COMMIT", Some(Status::Queued))] {
        store.begin(&mut conn).await.unwrap();
        conn.execute("INSERT INTO orders DEFAULT VALUES", []).unwrap();
        // Ids can be had though the file is locked.
        let task = new_task(&store).await;
        store.prepare(std::slice::from_ref(&task)).await.unwrap();
        store.enqueue_in(&mut conn, std::slice::from_ref(&task)).await.unwrap();
        assert_eq!(status(&store, task.id).await, None);
        conn.execute_batch(end).unwrap();
        assert_eq!(status(&store, task.id).await, found);
        assert_eq!(orders(&conn), i64::from(found.is_some()));
    }
    let session = session(&store, 1).await;
    assert_eq!(claim(&store, request(session, 1, 9)).await.tasks.len(), 1);
}

/// Whoever commits in spite of an error has what was written before it, and it waits.
#[tokio::test]
async fn what_an_enqueue_wrote_before_it_failed_waits() {
    let (_file, store, mut conn) = shop().await;
    let (first, second) = (new_task(&store).await, new_task(&store).await);
    assert!(first.id < second.id);
    store.enqueue([second.clone()].into()).await.unwrap();
    let other = NewTask { nonce: Nonce::new(2), ..second };
    let batch = [other, first];
    store.prepare(&batch).await.unwrap();
    store.begin(&mut conn).await.unwrap();
    let error = store.enqueue_in(&mut conn, &batch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    conn.execute_batch("COMMIT").unwrap();
    let session = session(&store, 1).await;
    assert_eq!(claim(&store, request(session, 1, 9)).await.tasks.len(), 2);
}

/// Whoever commits in spite of a conflict has no key of a task that was not written.
#[tokio::test]
async fn a_conflict_leaves_no_key_without_a_task() {
    let (_file, store, mut conn) = shop().await;
    let keyed = async |key: &str, payload: &str| {
        let mut task = new_task(&store).await;
        task.spec.key = Some(IdempotencyKey::parse(key).unwrap());
        task.spec.payload = Payload::json(payload.to_owned());
        task
    };
    store.enqueue([keyed("taken", "1").await].into()).await.unwrap();
    let free = keyed("free", "1").await;
    let batch = [free.clone(), keyed("taken", "2").await];
    store.prepare(&batch).await.unwrap();
    store.begin(&mut conn).await.unwrap();
    let error = store.enqueue_in(&mut conn, &batch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyConflict);
    conn.execute_batch("COMMIT").unwrap();
    let again = NewTask { id: new_task(&store).await.id, ..free };
    assert_eq!(store.enqueue([again.clone()].into()).await.unwrap(), [Enqueued::Created(again.id)]);
}

#[tokio::test]
async fn a_completion_shares_the_fate_of_the_transaction() {
    let (_file, store, mut conn) = shop().await;
    let task = put(&store, 1).await[0];
    let session = session(&store, 1).await;
    let held = claim(&store, request(session, 1, 9)).await.tasks[0].claim;
    for (end, found) in [("ROLLBACK", Status::Running), ("COMMIT", Status::Completed)] {
        store.begin(&mut conn).await.unwrap();
        conn.execute("INSERT INTO orders DEFAULT VALUES", []).unwrap();
        let settled = store.complete_in(&mut conn, task, held, TaskResult::Value("7".into())).await.unwrap();
        assert_eq!(settled, Settled::Applied);
        conn.execute_batch(end).unwrap();
        assert_eq!(status(&store, task).await, Some(found));
    }
    assert_eq!(store.get(task).await.unwrap().unwrap().result, TaskResult::Value("7".into()));
    store.begin(&mut conn).await.unwrap();
    let again = store.complete_in(&mut conn, task, held, TaskResult::None).await.unwrap();
    assert_eq!(again, Settled::Already(Status::Completed));
    let other = ClaimId::new(99).unwrap();
    assert_eq!(store.complete_in(&mut conn, task, other, TaskResult::None).await.unwrap(), Settled::Stale);
    conn.execute_batch("ROLLBACK").unwrap();
    // The claim that holds nothing any more goes with the housekeeping.
    assert_eq!(store.sessions().await.unwrap()[0].running, 0);
    assert_eq!(store.lost(9).await.unwrap().tasks, []);
    let claims: i64 = conn.query_row("SELECT count(*) FROM queue_claim", [], |row| row.get(0)).unwrap();
    assert_eq!(claims, 0);
}

#[tokio::test]
async fn what_is_no_transaction_on_this_file_is_refused() {
    let (_file, store, mut conn) = shop().await;
    let task = new_task(&store).await;
    let told = |error: StoreError| {
        assert_eq!(error.kind(), ErrorKind::Other);
        error.to_string()
    };
    let batch = std::slice::from_ref(&task);
    assert!(told(store.enqueue_in(&mut conn, batch).await.unwrap_err()).contains("in no transaction"));
    let mut other = Connection::open_in_memory().unwrap();
    assert!(told(store.begin(&mut other).await.unwrap_err()).contains("another database"));
    let memory = SqliteStore::with_options(SqliteOptions::memory()).await.unwrap();
    assert!(told(memory.begin(&mut other).await.unwrap_err()).contains("in memory"));
    assert!(other.is_autocommit() && conn.is_autocommit());
    assert_eq!(status(&store, task.id).await, None);
}

#[tokio::test]
async fn a_conflict_refuses_the_batch_and_the_rollback_undoes_it() {
    let (_file, store, mut conn) = shop().await;
    let key = queue_core::IdempotencyKey::parse("k").unwrap();
    let mut tasks = [new_task(&store).await, new_task(&store).await];
    for (task, payload) in tasks.iter_mut().zip(["1", "2"]) {
        task.spec.key = Some(key.clone());
        task.spec.payload = queue_core::Payload::json(payload);
    }
    store.begin(&mut conn).await.unwrap();
    let error = store.enqueue_in(&mut conn, &tasks).await.unwrap_err();
    assert!(matches!(error, StoreError::KeyConflict { index: 1, existing } if existing == tasks[0].id), "{error}");
    conn.execute_batch("ROLLBACK").unwrap();
    assert_eq!(status(&store, tasks[0].id).await, None);
}

#[tokio::test]
async fn ids_rise_whether_put_aside_or_not() {
    let (_file, store, mut conn) = shop().await;
    let mut last = 0;
    for count in [1, 5, 20_000, 3, 9_000, 9_000, 9_000, 2] {
        store.begin(&mut conn).await.unwrap();
        conn.execute_batch("ROLLBACK").unwrap();
        let ids: Vec<_> = store.reserve_ids(count).await.unwrap().map(TaskId::get).collect();
        assert_eq!(ids.len(), count as usize);
        assert!(ids[0] > last && ids.is_sorted(), "{count}: {} after {last}", ids[0]);
        last = ids[ids.len() - 1];
    }
}

/// While the user's transaction is open the queue waits for it, and says so when it takes too long.
#[tokio::test]
async fn the_queue_waits_for_the_users_transaction() {
    let file = File::new();
    drop(file.store().await);
    let options = SqliteOptions::file(&file.path).busy_timeout(Duration::from_millis(10));
    let store = SqliteStore::with_options(options).await.unwrap();
    let mut conn = file.foreign();
    store.begin(&mut conn).await.unwrap();
    let error = store.close_session(queue_core::SessionId::new(1).unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    conn.execute_batch("COMMIT").unwrap();
    store.close_session(queue_core::SessionId::new(1).unwrap()).await.unwrap();
}
