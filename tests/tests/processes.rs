//! Several worker processes on one database: each task completes exactly once, and a killed process loses nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use queue_core::admin::{Filter, Page};
use queue_core::{Store, TaskRecord};
use queue_runtime::Status;
use queue_tests::{Backend, Database, History, Job, Worker, serve};

#[tokio::test]
#[ignore = "the body of the worker processes that the other tests start"]
async fn worker() {
    serve().await;
}

#[tokio::test]
async fn two_processes_complete_each_task_once_on_mysql() {
    complete_each_task_once(Backend::MySql, 10_000).await;
}

#[tokio::test]
async fn two_processes_complete_each_task_once_on_mariadb() {
    complete_each_task_once(Backend::MariaDb, 2_000).await;
}

#[tokio::test]
async fn two_processes_complete_each_task_once_on_sqlite() {
    complete_each_task_once(Backend::Sqlite, 2_000).await;
}

#[tokio::test]
async fn a_killed_process_loses_nothing_on_mysql() {
    lose_nothing_to_a_kill(Backend::MySql).await;
}

#[tokio::test]
async fn a_killed_process_loses_nothing_on_mariadb() {
    lose_nothing_to_a_kill(Backend::MariaDb).await;
}

#[tokio::test]
async fn a_killed_process_loses_nothing_on_sqlite() {
    lose_nothing_to_a_kill(Backend::Sqlite).await;
}

async fn complete_each_task_once(backend: Backend, tasks: usize) {
    let database = Database::fresh(backend).await;
    let folder = tempfile::tempdir().unwrap();
    let ids = enqueue(&database, &vec![Job { sleep_ms: 0 }; tasks]).await;

    let mut workers = [Worker::start(database.url(), folder.path()), Worker::start(database.url(), folder.path())];
    let ended = wait_until_ended(&database, tasks).await;
    for worker in &mut workers {
        assert!(worker.stop().success(), "a worker that is told to stop drains and ends well");
    }

    let history = History::read(folder.path()).starts();
    assert_eq!(history.keys().copied().collect::<BTreeSet<_>>(), ids, "lost, or never enqueued");
    assert!(history.values().all(|times| *times == (1, 1)), "a task ran twice");
    assert!(ended.iter().all(|task| task.state.status == Status::Completed && task.state.attempt == 1));
}

async fn lose_nothing_to_a_kill(backend: Backend) {
    const TASKS: usize = 1_500;
    let database = Database::fresh(backend).await;
    let folder = tempfile::tempdir().unwrap();
    let ids = enqueue(&database, &vec![Job { sleep_ms: 20 }; TASKS]).await;

    let mut victim = Worker::start(database.url(), folder.path());
    while History::read(folder.path()).starts().len() < TASKS / 5 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    victim.kill();
    let _survivor = Worker::start(database.url(), folder.path());
    let ended = wait_until_ended(&database, TASKS).await;

    let history = History::read(folder.path()).starts();
    assert_eq!(history.keys().copied().collect::<BTreeSet<_>>(), ids, "lost, or never enqueued");
    assert!(ended.iter().all(|task| task.state.status == Status::Completed));
    let store = database.store().await;
    let mut lost = 0;
    for task in &ended {
        let failed = store.attempts(task.id).await.unwrap();
        let (started, _) = history[&task.id.get()];
        // Claimed by the victim and not yet started counts as an attempt too, so a lost task has run once or twice.
        assert_eq!(
            usize::from(task.state.attempt),
            1 + failed.len(),
            "an attempt is spent for each lost run, and no other"
        );
        assert!(failed.len() <= 1, "one kill costs a task one attempt at most");
        assert!(
            started <= 1 + u32::try_from(failed.len()).unwrap(),
            "task {} was rerun without a lost worker",
            task.id
        );
        lost += failed.len();
    }
    assert!(lost > 0, "the victim was killed while it held tasks");
}

async fn enqueue(database: &Database, jobs: &[Job]) -> BTreeSet<u64> {
    let queue = database.queue().await;
    let enqueued = queue.enqueue_all(jobs).await.unwrap();
    enqueued.iter().map(|one| one.id().get()).collect()
}

/// Every task of the database, once all of them have ended.
async fn wait_until_ended(database: &Database, tasks: usize) -> Vec<TaskRecord> {
    let store = database.store().await;
    loop {
        let ended = ended(&*store).await;
        if ended.len() == tasks {
            return ended;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn ended(store: &dyn Store) -> Vec<TaskRecord> {
    let mut all = Vec::new();
    for status in [Status::Completed, Status::Failed] {
        let filter = Filter { status: Some(status), ..Filter::default() };
        let mut after = None;
        loop {
            let page = store.list(filter.clone(), Page { after, limit: 1_000 }).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(filter.position(last));
            all.extend(page);
        }
    }
    all
}
