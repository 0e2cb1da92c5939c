//! A claim locks on a guess, in the same round trip as its look at the lanes. What another process has done since must count.

use std::time::Duration;

use queue_core::admin::{Action, Pause, Selection};
use queue_core::{
    NewTask, Nonce, Payload, Priority, QueueName, SessionId, TaskAdmin as _, TaskId, TaskSpec, TaskStore as _,
    Timestamp,
};
use queue_mysql::MySqlStore;
use queue_testkit::conformance::Fixture as _;
use sqlx::{Connection as _, Executor as _};

use super::support::{Database, MARIADB, MYSQL};
use super::{TYPE, claim, session};

const OTHER: QueueName = QueueName::new("other");

async fn put(store: &MySqlStore, count: u32, queue: QueueName, priority: i8) -> Vec<TaskId> {
    let ids: Vec<_> = store.reserve_ids(count).await.unwrap().collect();
    let spec = TaskSpec { queue, priority: Priority::new(priority), ..TaskSpec::new(TYPE, Payload::json("1")) };
    let batch = ids.iter().map(|&id| NewTask { id, nonce: Nonce::new(1), spec: spec.clone() }).collect();
    store.enqueue(batch).await.unwrap();
    ids
}

/// A store whose last claim left something due, another process, the session's number, and what is left.
async fn guessing(variable: &str) -> (Database, MySqlStore, SessionId, Vec<TaskId>) {
    let database = Database::fresh(variable).await;
    let store = database.store();
    let mut tasks = put(store, 20, QueueName::DEFAULT, 0).await;
    let session = session(store).await;
    let first: Vec<_> = claim(store, session, 1, 2).await.iter().map(|task| task.id).collect();
    assert_eq!(first, tasks[..2]);
    tasks.drain(..2);
    let other = database.another().await;
    (database, other, session, tasks)
}

async fn ids(database: &Database, session: SessionId, number: u64, count: usize) -> Vec<TaskId> {
    claim(database.store(), session, number, count).await.iter().map(|task| task.id).collect()
}

async fn what_is_more_urgent_comes_first(variable: &str) {
    let (database, other, session, tasks) = guessing(variable).await;
    let urgent = put(&other, 1, QueueName::DEFAULT, 9).await;
    assert_eq!(ids(&database, session, 2, 2).await, [urgent[0], tasks[0]]);
    // And what was locked in vain is free again.
    assert_eq!(ids(&database, session, 3, 20).await, tasks[1..]);
}

async fn a_paused_queue_is_left_alone(variable: &str) {
    let (database, other, session, tasks) = guessing(variable).await;
    let pause = Pause { by: "me".into(), why: "a test".into(), at: Timestamp::EPOCH };
    other.set_paused(QueueName::DEFAULT, Some(pause), "me").await.unwrap();
    assert_eq!(ids(&database, session, 2, 5).await, []);
    other.set_paused(QueueName::DEFAULT, None, "me").await.unwrap();
    assert_eq!(ids(&database, session, 3, 5).await, tasks[..5]);
}

async fn another_queue_gets_its_share(variable: &str) {
    let (database, other, session, tasks) = guessing(variable).await;
    let others = put(&other, 20, OTHER, 0).await;
    let mut claimed = ids(&database, session, 2, 10).await;
    claimed.sort_unstable();
    assert_eq!(claimed, [&tasks[..5], &others[..5]].concat());
}

async fn a_task_that_was_cancelled_is_not_run(variable: &str) {
    let (database, other, session, tasks) = guessing(variable).await;
    other.act(Selection::Ids(vec![tasks[0]]), Action::Cancel, "me").await.unwrap();
    assert_eq!(ids(&database, session, 2, 2).await, tasks[1..3]);
}

/// From its look on, the session cannot be fenced before the claim is committed.
async fn the_session_is_held(variable: &str) {
    let (database, _other, session, tasks) = guessing(variable).await;
    let (mut user, mut reaper) = (database.user().await, database.user().await);
    // The claim waits where it writes its own row.
    let mut held = user.begin().await.unwrap();
    let taken = format!("INSERT INTO queue_claim (id, session_id, created_at, members) VALUES (2, {session}, 0, '')");
    held.execute(sqlx::AssertSqlSafe(taken)).await.unwrap();
    let fence = format!("SELECT 1 FROM queue_session WHERE id = {session} FOR UPDATE NOWAIT");
    let mut is_held = async || reaper.execute(sqlx::AssertSqlSafe(fence.clone())).await.is_err();
    assert!(!is_held().await);
    let watch = async {
        for _ in 0..200 {
            if is_held().await {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    };
    let (claimed, was_held) = tokio::join!(ids(&database, session, 2, 2), async {
        let was_held = watch.await;
        held.rollback().await.unwrap();
        was_held
    });
    assert!(was_held, "the session's row was free while the claim was under way");
    assert_eq!(claimed, tasks[..2]);
}

macro_rules! on_both {
    ($($name:ident)+) => {
        mod mysql {
            $(#[tokio::test] async fn $name() { super::$name(super::MYSQL).await; })+
        }
        mod mariadb {
            $(#[tokio::test] async fn $name() { super::$name(super::MARIADB).await; })+
        }
    };
}

on_both! {
    what_is_more_urgent_comes_first
    a_paused_queue_is_left_alone
    another_queue_gets_its_share
    a_task_that_was_cancelled_is_not_run
    the_session_is_held
}
