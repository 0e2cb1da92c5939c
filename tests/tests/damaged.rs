//! Rows that were damaged behind the queue's back: a pool runs all the others, tries no damaged one again and again, and ends.

use std::time::Duration;

use queue_core::StoreError;
use queue_runtime::{Ctx, Pool, Result, Status, TaskId};
use queue_tests::{Backend, Database, Job};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection};

/// An attempt over the limit, a type that nobody knows, a status that there is not.
const DAMAGES: [&str; 3] = ["attempt = 9", "type_id = 999", "status = 7"];
const TASKS: usize = 30;

async fn run(_: Job, _: Ctx) -> Result {
    Ok(())
}

async fn damage(backend: Backend, database: &Database, task: TaskId, what: &str) {
    let sql = format!("UPDATE queue_task SET {what} WHERE id = {task}");
    if backend == Backend::Sqlite {
        let file = database.url().trim_start_matches("sqlite://");
        let file = rusqlite::Connection::open(file).unwrap();
        file.execute_batch(&format!("PRAGMA ignore_check_constraints = ON; {sql}")).unwrap();
    } else {
        let mut user = MySqlConnection::connect(database.url()).await.unwrap();
        user.execute(AssertSqlSafe(sql)).await.unwrap();
    }
}

async fn works_around_damaged_rows(backend: Backend) {
    let database = Database::fresh(backend).await;
    let queue = database.queue().await;
    let enqueued = queue.enqueue_all(&vec![Job { sleep_ms: 0 }; TASKS]).await.unwrap();
    let ids: Vec<_> = enqueued.into_iter().map(queue_core::Enqueued::id).collect();
    let damaged = &ids[..DAMAGES.len()];
    for (&task, what) in damaged.iter().zip(DAMAGES) {
        damage(backend, &database, task, what).await;
    }
    // The limit only ends a pool that never ends.
    let drain = async { Pool::new(&queue).handle(run).drain().await };
    let done = tokio::time::timeout(Duration::from_secs(60), drain).await;
    let done = done.expect("a damaged row keeps the pool from ending").unwrap();
    assert_eq!(done.completed, (TASKS - DAMAGES.len()) as u64, "{done:?}");
    let tries: u64 = queue.store().retries().iter().map(|(_, count)| count).sum();
    assert!(tries <= 2 * DAMAGES.len() as u64, "they were tried {tries} times");
    for &task in damaged {
        let error = queue.store().get(task).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { task: Some(told), .. } if told == task), "{error}");
    }
    for &task in &ids[DAMAGES.len()..] {
        assert_eq!(queue.store().get(task).await.unwrap().unwrap().state.status, Status::Completed);
    }
}

#[tokio::test]
async fn a_pool_works_around_damaged_rows_on_mysql() {
    works_around_damaged_rows(Backend::MySql).await;
}

#[tokio::test]
async fn a_pool_works_around_damaged_rows_on_mariadb() {
    works_around_damaged_rows(Backend::MariaDb).await;
}

#[tokio::test]
async fn a_pool_works_around_damaged_rows_on_sqlite() {
    works_around_damaged_rows(Backend::Sqlite).await;
}
