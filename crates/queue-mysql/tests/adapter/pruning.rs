//! Pruning beside work: it leaves nothing behind, and waits for nobody.

use std::sync::Arc;
use std::time::Duration;

use queue_core::{
    FailureReason, IdempotencyKey, NewTask, Settle, Settled, Settlement, TaskAdmin as _, TaskResult, TaskStore as _,
    Transactional as _,
};
use queue_testkit::conformance::Fixture as _;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection, Row as _};

use crate::support::{Database, MARIADB, MYSQL};
use crate::{claim, new_tasks, session};

async fn count(conn: &mut MySqlConnection, from: &str) -> i64 {
    conn.fetch_one(AssertSqlSafe(format!("SELECT COUNT(*) FROM {from}"))).await.unwrap().get(0)
}

#[tokio::test]
async fn pruning_leaves_nothing_behind_and_waits_for_nobody() {
    prune_beside_others(MYSQL).await;
}

#[tokio::test]
async fn pruning_leaves_nothing_behind_and_waits_for_nobody_on_mariadb() {
    prune_beside_others(MARIADB).await;
}

/// The row after the last that goes is one that a user's transaction holds, in every table.
async fn prune_beside_others(variable: &str) {
    let database = Database::fresh(variable).await;
    let store = database.store();
    let mut batch: Vec<NewTask> = new_tasks(store, 40).await.to_vec();
    for number in [0, 20] {
        batch[number].spec.key = Some(IdempotencyKey::parse(format!("k{number}")).unwrap());
    }
    store.enqueue(batch.into()).await.unwrap();
    let session = session(store).await;
    let tasks = claim(store, session, 1, 30).await;
    let settle = |number: usize| match number {
        1 => Settlement::Complete { result: TaskResult::Value("7".into()) },
        2 => Settlement::Fail { reason: FailureReason::Rejected, error: Some("no".into()) },
        _ => Settlement::Complete { result: TaskResult::None },
    };
    let settles = tasks[..20].iter().enumerate();
    let settles: Arc<[Settle]> =
        settles.map(|(number, task)| Settle::by_holder(task.id, task.claim, settle(number))).collect();
    assert_eq!(store.settle(settles).await.unwrap(), vec![Settled::Applied; 20]);

    let mut user = database.user().await;
    let mut tx = user.begin().await.unwrap();
    let result = TaskResult::Value("8".into());
    store.complete_in(&mut tx, tasks[20].id, tasks[20].claim, result).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(store.prune(None, Duration::ZERO, 500).await.unwrap(), 20);
    assert_eq!(store.retries(), vec![], "nothing was waited for");
    tx.commit().await.unwrap();

    let mut look = database.user().await;
    for (table, left) in [
        ("queue_task", 20),
        ("queue_payload", 20),
        ("queue_finished", 1),
        ("queue_result", 1),
        ("queue_attempt", 0),
        ("queue_idempotency WHERE expires_at IS NULL", 1),
        ("queue_idempotency WHERE expires_at = created_at + 86400000000", 1),
    ] {
        assert_eq!(count(&mut look, table).await, left, "{table}");
    }

    // A key that has had its time goes with the next batch, though no task goes.
    look.execute("UPDATE queue_idempotency SET expires_at = 1 WHERE expires_at IS NOT NULL").await.unwrap();
    assert_eq!(store.prune(None, Duration::from_secs(3600), 500).await.unwrap(), 0);
    assert_eq!(count(&mut look, "queue_idempotency").await, 1);
}

#[tokio::test]
async fn several_prune_at_once_and_each_task_goes_once() {
    several(MYSQL).await;
}

#[tokio::test]
async fn several_prune_at_once_and_each_task_goes_once_on_mariadb() {
    several(MARIADB).await;
}

async fn several(variable: &str) {
    let database = Database::fresh(variable).await;
    let store = database.store();
    store.enqueue(new_tasks(store, 900).await).await.unwrap();
    let session = session(store).await;
    for number in 1..=9 {
        let tasks = claim(store, session, number, 100).await;
        let complete = |task: &queue_core::ClaimedTask| {
            Settle::by_holder(task.id, task.claim, Settlement::Complete { result: TaskResult::None })
        };
        store.settle(tasks.iter().map(complete).collect()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(2)).await;
    let others = [database.another().await, database.another().await, database.another().await];
    let pruning = others.iter().map(|store| async {
        let mut pruned = 0;
        loop {
            match store.prune(None, Duration::ZERO, 70).await.unwrap() {
                0 => return pruned,
                some => pruned += some,
            }
        }
    });
    let pruned: u64 = futures_util::future::join_all(pruning).await.iter().sum();
    let left = store.prune(None, Duration::ZERO, 1_000).await.unwrap();
    assert_eq!(pruned + left, 900);
    for other in &others {
        assert_eq!(other.retries(), vec![], "nothing was waited for");
    }
    let mut look = database.user().await;
    for table in ["queue_task", "queue_payload", "queue_finished"] {
        assert_eq!(count(&mut look, table).await, 0, "{table}");
    }
}
