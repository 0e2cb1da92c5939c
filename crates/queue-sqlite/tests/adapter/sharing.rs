//! Several stores on one file, which is what several processes are to SQLite, and foreign connections that behave badly.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{File, claim, put, request, session};
use queue_core::{
    ClaimId, ErrorKind, Migrate as _, Settle, Settled, Settlement, TaskAdmin as _, TaskId, TaskResult, TaskStore as _,
};
use queue_sqlite::{SqliteOptions, SqliteStore};

fn completed(task: TaskId, claim: ClaimId) -> Settle {
    Settle::by_holder(task, claim, Settlement::Complete { result: TaskResult::None })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_stores_migrate_a_new_file_at_once() {
    let file = File::new();
    let tasks = (0..16).map(|_| {
        let path = file.path.clone();
        tokio::spawn(async move {
            let store = SqliteStore::open(path).await.unwrap();
            store.migrate().await.unwrap()
        })
    });
    let mut applied = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        applied.extend(task.await.unwrap());
    }
    assert_eq!(applied, [1]);
    assert_eq!(put(&file.store().await, 1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_on_one_file_take_each_task_once() {
    const STORES: u64 = 4;
    const TASKS: usize = 2_000;
    let file = File::new();
    let ids = put(&file.store().await, TASKS / 2).await;
    let workers = (1..=STORES).map(|number| {
        let path = file.path.clone();
        tokio::spawn(async move {
            let store = crate::support::open(&path).await;
            let session = session(&store, number).await;
            let mut done = put(&store, TASKS / 2 / STORES as usize).await.len();
            let mut taken = Vec::new();
            for trip in 0.. {
                let claimed = claim(&store, request(session, number * 1_000_000 + trip + 1, 30)).await;
                if claimed.tasks.is_empty() {
                    break;
                }
                let batch: Arc<[Settle]> = claimed.tasks.iter().map(|task| completed(task.id, task.claim)).collect();
                let settled = store.settle(batch).await.unwrap();
                assert!(settled.iter().all(|one| *one == Settled::Applied));
                taken.extend(claimed.tasks.iter().map(|task| task.id));
                done += 1;
            }
            assert!(done > 0);
            taken
        })
    });
    let mut taken = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        taken.extend(worker.await.unwrap());
    }
    // A store that came last may have found the others' tasks not enqueued yet: what is left is still there.
    let left = file.foreign().query_row("SELECT count(*) FROM queue_ready", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(taken.len() + usize::try_from(left).unwrap(), TASKS);
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), taken.len());
    assert!(ids.len() <= TASKS);
}

#[tokio::test]
async fn what_another_process_did_not_commit_is_not_there() {
    let file = File::new();
    let store = file.store().await;
    let ids = put(&store, 1).await;
    let foreign = file.foreign();
    foreign.execute_batch("BEGIN IMMEDIATE; DELETE FROM queue_ready; UPDATE queue_task SET nonce = 77").unwrap();
    // As good as killed: it never commits.
    drop(foreign);
    let session = session(&store, 1).await;
    assert_eq!(claim(&store, request(session, 1, 9)).await.tasks[0].id, ids[0]);
}

#[tokio::test]
async fn a_file_kept_locked_is_unavailable_and_comes_back() {
    let file = File::new();
    drop(file.store().await);
    let options = SqliteOptions::file(&file.path).busy_timeout(Duration::from_millis(20));
    let store = SqliteStore::with_options(options).await.unwrap();
    let foreign = file.foreign();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.reserve_ids(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(store.retries(), [("busy", 2)]);
    // Reading goes on.
    assert!(store.stats().await.unwrap().queues.is_empty());
    foreign.execute_batch("COMMIT").unwrap();
    assert_eq!(store.reserve_ids(1).await.unwrap().remaining(), 1);
}

/// The look of an idle poll must not even ask for the write lock: it works while somebody else holds it.
#[tokio::test]
async fn an_idle_look_needs_no_lock() {
    let file = File::new();
    let options = SqliteOptions::file(&file.path).busy_timeout(Duration::ZERO);
    let store = SqliteStore::with_options(options).await.unwrap();
    store.migrate().await.unwrap();
    let session = session(&store, 1).await;
    let foreign = file.foreign();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(claim(&store, request(session, 1, 9)).await.tasks, []);
    let trip = store.settle_and_claim([].into(), request(session, 2, 9)).await;
    assert!(trip.settled.unwrap().is_empty() && trip.claim.is_ok());
    assert!(store.enqueue([].into()).await.unwrap().is_empty() && store.progress(Vec::new()).await.is_ok());
    let full = store
        .settle_and_claim([completed(TaskId::new(1).unwrap(), ClaimId::new(1).unwrap())].into(), request(session, 3, 9))
        .await;
    let kinds = (full.settled.unwrap_err().kind(), full.claim.unwrap_err().kind());
    assert_eq!(kinds, (ErrorKind::Unavailable, ErrorKind::Unavailable));
    assert_eq!(store.fence_expired(10).await.unwrap(), []);
    assert_eq!(store.lost(10).await.unwrap().tasks, []);
    assert!(store.expire(10).await.unwrap().finished);
    assert_eq!(store.prune(None, Duration::ZERO, 10).await.unwrap(), 0);
}

/// A job runs to its end though nobody waits for it any more.
#[tokio::test]
async fn a_dropped_call_leaves_nothing_in_disorder() {
    let file = File::new();
    let store = file.store().await;
    for _ in 0..50 {
        // Polled once, so that the job is handed over, and dropped.
        let mut call = Box::pin(store.reserve_ids(1));
        let waker = std::task::Waker::noop();
        let _ = call.as_mut().poll(&mut std::task::Context::from_waker(waker));
    }
    let next = store.reserve_ids(1).await.unwrap().next().unwrap();
    assert_eq!(next.get(), 51);
}

#[tokio::test]
async fn dropping_the_store_runs_what_was_handed_over() {
    let file = File::new();
    let store = file.store().await;
    {
        let mut call = Box::pin(store.reserve_ids(7));
        let waker = std::task::Waker::noop();
        let _ = call.as_mut().poll(&mut std::task::Context::from_waker(waker));
    }
    drop(store);
    let next: i64 = file.foreign().query_row("SELECT next FROM queue_id_block", [], |row| row.get(0)).unwrap();
    assert_eq!(next, 8);
}
