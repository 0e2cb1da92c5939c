//! What the writing thread does when something goes wrong in a transaction that several jobs share, and when the disk is full.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use queue_core::{
    ErrorKind, Migrate as _, NewTask, Nonce, Payload, StoreError, TaskAdmin as _, TaskSpec, TaskStore as _, TaskType,
};
use tempfile::TempDir;

use crate::SqliteStore;
use crate::error::Fault;
use crate::work::Work;

async fn store() -> (SqliteStore, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("queue.db")).await.unwrap();
    store.migrate().await.unwrap();
    (store, directory)
}

/// Writes a row that tells that a job has run.
fn leave_trace(work: &Work<'_>, trace: &str) -> Result<(), Fault> {
    work.execute("INSERT INTO queue_policy (backoff) VALUES (?1)", [trace])?;
    Ok(())
}

async fn traces(store: &SqliteStore) -> Vec<String> {
    store
        .read(|work| work.all("SELECT backoff FROM queue_policy ORDER BY id", [], |row| Ok(row.get(0)?)))
        .await
        .unwrap()
}

/// What the second of three jobs that share a transaction does.
async fn between_two(
    store: &SqliteStore,
    mut second: impl FnMut(&mut Work<'_>) -> Result<(), Fault> + Send + 'static,
) -> (Result<(), StoreError>, usize) {
    let (go, gate) = mpsc::channel();
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    // The first holds the thread until the others wait behind it.
    let first = store.write(1, move |work| {
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            gate.recv().unwrap();
        }
        leave_trace(work, "first")
    });
    let second = store.write(1, move |work| {
        leave_trace(work, "second")?;
        second(work)
    });
    let third = store.write(1, |work| leave_trace(work, "third"));
    let (first, second, third, ()) = tokio::join!(biased; first, second, third, async move { go.send(()).unwrap() });
    first.unwrap();
    third.unwrap();
    (second, runs.load(Ordering::SeqCst))
}

#[tokio::test]
async fn jobs_that_wait_share_a_transaction() {
    let (store, directory) = store().await;
    let path = directory.path().join("queue.db");
    let (second, runs) = between_two(&store, move |work| {
        let seen: i64 = work.conn.query_row("SELECT count(*) FROM queue_policy", [], |row| row.get(0))?;
        let others = rusqlite::Connection::open(&path)?;
        let committed: i64 = others.query_row("SELECT count(*) FROM queue_policy", [], |row| row.get(0))?;
        assert_eq!((seen, committed), (2, 0));
        Ok(())
    })
    .await;
    second.unwrap();
    assert_eq!((traces(&store).await, runs), (["first", "second", "third"].map(str::to_owned).into(), 1));
}

#[tokio::test]
async fn a_job_that_fails_is_undone_alone() {
    let (store, _directory) = store().await;
    let (second, runs) = between_two(&store, |_| Err(StoreError::denied("on purpose").into())).await;
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!((traces(&store).await, runs), (["first", "third"].map(str::to_owned).into(), 1));
}

/// As SQLite does by itself when the disk is full.
#[tokio::test]
async fn a_rollback_of_everything_costs_only_who_caused_it() {
    let (store, _directory) = store().await;
    let (second, runs) = between_two(&store, |work| {
        work.conn.execute_batch("ROLLBACK")?;
        Err(StoreError::unavailable("on purpose").into())
    })
    .await;
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!((traces(&store).await, runs), (["first", "third"].map(str::to_owned).into(), 2));
}

#[tokio::test]
async fn a_panic_is_undone_and_the_thread_goes_on() {
    let (store, _directory) = store().await;
    let (second, _) = between_two(&store, |_| panic!("on purpose")).await;
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Other);
    assert_eq!(traces(&store).await, ["first", "third"]);
    let alone = store.write(1, |_| -> Result<(), Fault> { panic!("on purpose") }).await;
    assert_eq!(alone.unwrap_err().kind(), ErrorKind::Other);
    assert_eq!(store.reserve_ids(1).await.unwrap().remaining(), 1);
}

/// A name's number is given again after a rollback; nobody may remember the old one.
#[tokio::test]
async fn names_of_a_failed_job_are_forgotten() {
    let (store, _directory) = store().await;
    let intern = |name: &'static str, fails: bool| {
        store.write(1, move |work| {
            let id = work.memory.names.intern(work.conn, &TaskType::new(name))?;
            if fails { Err(StoreError::denied("on purpose").into()) } else { Ok(id) }
        })
    };
    intern("a", true).await.unwrap_err();
    let b = intern("b", false).await.unwrap();
    let a = intern("a", false).await.unwrap();
    assert_ne!(a, b);
}

#[tokio::test]
async fn a_full_disk_is_unavailable_and_writes_nothing_by_halves() {
    let (store, _directory) = store().await;
    let limit_pages = |pages: i64| {
        store.write(1, move |work| {
            Ok(work.conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get::<_, i64>(0))?)
        })
    };
    limit_pages(200).await.unwrap();
    let batch = async || {
        let ids = store.reserve_ids(10).await?;
        let payload = || Payload::json(vec![b'x'; 10_000]);
        let spec = || TaskSpec::new(TaskType::new("big"), payload());
        let batch: Arc<[NewTask]> = ids.map(|id| NewTask { id, nonce: Nonce::new(1), spec: spec() }).collect();
        store.enqueue(batch).await
    };
    let mut written = 0;
    let error = loop {
        match batch().await {
            Ok(answers) => written += answers.len() as u64,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(written > 0 && error.to_string().contains("disk is full"), "{error}");
    let counts = "SELECT (SELECT count(*) FROM queue_task), (SELECT count(*) FROM queue_ready), (SELECT count(*) FROM queue_payload)";
    let counted =
        store.read(move |work| work.first(counts, [], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))).await;
    assert_eq!(counted.unwrap(), Some([written.cast_signed(); 3]));
    limit_pages(1_000_000).await.unwrap();
    batch().await.unwrap();
    assert_eq!(store.stats().await.unwrap().queues[0].ready.number, written + 10);
}
