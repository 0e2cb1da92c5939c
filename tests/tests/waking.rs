//! Idle pools that other processes wake through the server. Their polls are so far apart that what nobody wakes them for is not
//! run within the test, which then ends by its own limit.

use std::env;
use std::time::Duration;

use queue_core::TaskId;
use queue_runtime::{Ctx, Pool, Queue, Result, Status};
use queue_tests::history::How;
use queue_tests::{Backend, Database, Job, Journal, Worker};
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, Row as _};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// How long the worker waits between polls, in milliseconds.
const POLL: &str = "QUEUE_E2E_POLL_MS";
/// Longer than any test runs.
const RARE: Duration = Duration::from_secs(3_600);
const OFTEN: Duration = Duration::from_millis(20);
/// How often something is looked for that is not told.
const LOOK: Duration = Duration::from_millis(10);
/// How long a test may take. It only ends one that hangs.
const PATIENCE: Duration = Duration::from_secs(100);
/// A claim that was under way may find a task or two by chance, but not all of so many.
const ROUNDS: usize = 5;

#[tokio::test]
#[ignore = "the body of the worker processes that the other tests start"]
async fn worker() {
    let (url, folder) = Worker::place();
    let poll = Duration::from_millis(env::var(POLL).unwrap().parse().unwrap());
    let queue = queue_runtime::connect(&url).await.unwrap();
    let pool = Pool::with_state(&queue, Journal::in_folder(&folder)).handle(job).poll(poll, poll);
    pool.run().await.unwrap();
}

async fn job(_: Job, cx: Ctx<Journal>) -> Result {
    cx.state().started(&cx);
    cx.state().ended(&cx, How::Succeeded);
    Ok(())
}

/// A worker process on a database, and one who looks what sleeps there.
struct Scene {
    database: Database,
    looks: MySqlConnection,
    worker: Worker,
    _folder: TempDir,
}

impl Scene {
    async fn set(database: Database, url: &str, poll: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let looks = MySqlConnection::connect(database.url()).await.unwrap();
        let poll = [(POLL, poll.as_millis().to_string())];
        let worker = Worker::start_with(&waking(url), folder.path(), &poll);
        Self { database, looks, worker, _folder: folder }
    }

    /// The connection on which the worker sleeps, as soon as there is one.
    async fn sleeper(&mut self) -> u64 {
        loop {
            if let Some(id) = sleeper(&mut self.looks).await {
                return id;
            }
            sleep(LOOK).await;
        }
    }

    async fn completed(&self, task: TaskId) {
        let store = self.database.store().await;
        while store.get(task).await.unwrap().unwrap().state.status != Status::Completed {
            sleep(LOOK).await;
        }
    }

    /// Enqueues while the worker sleeps, and waits until it has done that.
    async fn wakes(&mut self, producer: &Queue) {
        for _ in 0..ROUNDS {
            self.sleeper().await;
            let task = producer.enqueue(&Job { sleep_ms: 0 }).await.unwrap();
            self.completed(task.id()).await;
        }
    }

    fn end(mut self) {
        assert!(self.worker.stop().success(), "a worker that sleeps stops when it is told to");
    }
}

/// Some connection that sleeps, as far as this account can see.
async fn sleeper(looks: &mut MySqlConnection) -> Option<u64> {
    let sql = "SELECT CAST(ID AS UNSIGNED) FROM information_schema.processlist WHERE DB = DATABASE() \
               AND STATE = 'User sleep' AND INFO LIKE 'SELECT /*queue.wake %'";
    let rows = sqlx::raw_sql(sql).fetch_all(looks).await.unwrap();
    rows.first().map(|row| row.get_unchecked(0))
}

fn waking(url: &str) -> String {
    format!("{url}?wake=on")
}

async fn another_process_wakes_a_pool(backend: Backend) {
    let database = Database::fresh(backend).await;
    let url = database.url().to_owned();
    let mut scene = Scene::set(database, &url, RARE).await;
    let producer = queue_runtime::connect(&waking(&url)).await.unwrap();
    scene.wakes(&producer).await;
    scene.end();
}

#[tokio::test]
async fn another_process_wakes_a_pool_on_mysql() {
    timeout(PATIENCE, another_process_wakes_a_pool(Backend::MySql)).await.expect("nobody woke it");
}

#[tokio::test]
async fn another_process_wakes_a_pool_on_mariadb() {
    timeout(PATIENCE, another_process_wakes_a_pool(Backend::MariaDb)).await.expect("nobody woke it");
}

async fn a_pool_whose_sleep_is_lost_is_woken_again(backend: Backend) {
    let database = Database::fresh(backend).await;
    let url = database.url().to_owned();
    let mut scene = Scene::set(database, &url, RARE).await;
    let producer = queue_runtime::connect(&waking(&url)).await.unwrap();
    // The first is killed in its first sleep, the second in a later one.
    for _ in 0..2 {
        let lost = scene.sleeper().await;
        let kill = AssertSqlSafe(format!("KILL CONNECTION {lost}"));
        sqlx::raw_sql(kill).execute(&mut scene.looks).await.unwrap();
        while scene.sleeper().await == lost {
            sleep(LOOK).await;
        }
        scene.wakes(&producer).await;
    }
    scene.end();
}

#[tokio::test]
async fn a_pool_whose_sleep_is_lost_is_woken_again_on_mysql() {
    timeout(PATIENCE, a_pool_whose_sleep_is_lost_is_woken_again(Backend::MySql)).await.expect("nobody woke it");
}

#[tokio::test]
async fn a_pool_whose_sleep_is_lost_is_woken_again_on_mariadb() {
    timeout(PATIENCE, a_pool_whose_sleep_is_lost_is_woken_again(Backend::MariaDb)).await.expect("nobody woke it");
}

/// An account sees no connections but its own in the process list, and may end none.
async fn who_may_wake_nobody_enqueues_and_polls_find_it(backend: Backend) {
    let mut database = Database::fresh(backend).await;
    let (worker, stranger) = (database.account("w").await, database.account("p").await);
    let mut scene = Scene::set(database, &worker, OFTEN).await;
    let producer = queue_runtime::connect(&waking(&stranger)).await.unwrap();
    let mut looks = MySqlConnection::connect(&stranger).await.unwrap();
    for _ in 0..ROUNDS {
        let asleep = scene.sleeper().await;
        assert_eq!(sleeper(&mut looks).await, None);
        let refused = sqlx::raw_sql(AssertSqlSafe(format!("KILL QUERY {asleep}"))).execute(&mut looks).await;
        assert!(refused.is_err(), "it may end what is not its own");
        let task = producer.enqueue(&Job { sleep_ms: 0 }).await.unwrap();
        producer.announced().await;
        scene.completed(task.id()).await;
    }
    scene.end();
}

#[tokio::test]
async fn who_may_wake_nobody_enqueues_and_polls_find_it_on_mysql() {
    let test = who_may_wake_nobody_enqueues_and_polls_find_it(Backend::MySql);
    timeout(PATIENCE, test).await.expect("polls do not find it");
}

#[tokio::test]
async fn who_may_wake_nobody_enqueues_and_polls_find_it_on_mariadb() {
    let test = who_may_wake_nobody_enqueues_and_polls_find_it(Backend::MariaDb);
    timeout(PATIENCE, test).await.expect("polls do not find it");
}
