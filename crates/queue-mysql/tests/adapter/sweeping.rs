//! A sweep for spent budgets over more than one call looks at.

use std::time::Duration;

use queue_core::{Budget, Priority, TaskId, TaskStore as _};
use queue_testkit::conformance::Fixture as _;

use crate::new_tasks;
use crate::support::{Database, MARIADB, MYSQL, OCEANBASE};

/// More than one call looks at in one lane.
const WAITING: u32 = 5_200;

#[tokio::test]
async fn many_lanes_and_a_long_one_are_swept_once() {
    sweep_much(MYSQL).await;
}

#[tokio::test]
async fn many_lanes_and_a_long_one_are_swept_once_on_mariadb() {
    sweep_much(MARIADB).await;
}

#[tokio::test]
async fn many_lanes_and_a_long_one_are_swept_once_on_oceanbase() {
    sweep_much(OCEANBASE).await;
}

/// A lane of [`WAITING`] tasks, the last of them spent, and forty lanes with three spent tasks each.
async fn sweep_much(variable: &str) {
    let database = Database::fresh(variable).await;
    let store = database.store();
    let spent = Budget::of(Duration::ZERO);
    let mut dead: Vec<TaskId> = Vec::new();
    for part in 0..WAITING / 400 {
        let mut batch = new_tasks(store, 400).await.to_vec();
        if part == WAITING / 400 - 1 {
            let last = batch.last_mut().unwrap();
            last.spec.budget = spent;
            dead.push(last.id);
        }
        store.enqueue(batch.into()).await.unwrap();
    }
    let mut batch = new_tasks(store, 120).await.to_vec();
    for (number, task) in (0..).zip(&mut batch) {
        task.spec.budget = spent;
        task.spec.priority = Priority::new(1 + number % 40);
        dead.push(task.id);
    }
    store.enqueue(batch.into()).await.unwrap();

    // Room for a lane and a half with each call.
    let (mut ended, mut calls) = (Vec::new(), 0);
    loop {
        let swept = store.expire(5).await.unwrap();
        assert!(swept.ended.len() <= 5);
        ended.extend(swept.ended.into_iter().map(|ended| ended.id));
        calls += 1;
        if swept.finished {
            break;
        }
        assert!(calls < 60, "{} of {} are ended", ended.len(), dead.len());
    }
    ended.sort_unstable();
    dead.sort_unstable();
    assert_eq!(ended, dead);
    assert_eq!(store.expire(5).await.unwrap().ended, []);
}

/// What one call looks at is shared by the lanes, and nothing of it is looked at again.
#[tokio::test]
async fn long_lanes_are_swept_side_by_side() {
    let database = Database::fresh(MYSQL).await;
    let store = database.store();
    for priority in [1, 2] {
        for part in 0..8 {
            let mut batch = new_tasks(store, 750).await.to_vec();
            batch.iter_mut().for_each(|task| task.spec.priority = Priority::new(priority));
            if part == 0 {
                batch[0].spec.budget = Budget::of(Duration::ZERO);
            }
            store.enqueue(batch.into()).await.unwrap();
        }
    }
    let first = store.expire(100).await.unwrap();
    assert_eq!((first.ended.len(), first.finished), (2, false));
    let mut calls = 1;
    while !store.expire(100).await.unwrap().finished {
        calls += 1;
    }
    assert_eq!(calls, 2, "12,000 rows and 5,000 with each call");
}
