//! Tasks that are moved together, with one among them that goes another way.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{File, claim, put, request, session, spec};
use queue_core::admin::{Action, Selection};
use queue_core::{
    ClaimedTask, NewTask, Nonce, Priority, Settle, Settled, Settlement, Status, StoreError, TaskAdmin as _, TaskResult,
    TaskSpec, TaskStore as _,
};

fn complete(task: &ClaimedTask) -> Settle {
    Settle::by_holder(task.id, task.claim, Settlement::Complete { result: TaskResult::None })
}

/// What ended, by the list of it.
fn finished(file: &File) -> Vec<i64> {
    let conn = file.foreign();
    let mut found = conn.prepare("SELECT task_id FROM queue_finished ORDER BY task_id").unwrap();
    found.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[tokio::test]
async fn a_task_that_somebody_else_moved_is_seen() {
    let file = File::new();
    let store = file.store().await;
    let ids = put(&store, 4).await;
    let session = session(&store, 1).await;
    let held = claim(&store, request(session, 1, 9)).await.tasks;
    let foreign = file.foreign();
    foreign.execute("UPDATE queue_task SET claim_id = 7 WHERE id = ?1", [ids[1].get().cast_signed()]).unwrap();
    let settled = store.settle(held.iter().map(complete).collect()).await.unwrap();
    assert_eq!(settled, [Settled::Applied, Settled::Stale, Settled::Applied, Settled::Applied]);
    assert_eq!(store.get(ids[1]).await.unwrap().unwrap().state.status, Status::Running);
    assert_eq!(finished(&file), [ids[0], ids[2], ids[3]].map(|id| id.get().cast_signed()));
    // A repeat of it is told so, and nothing is written twice.
    let again = store.settle(held.iter().map(complete).collect()).await.unwrap();
    let already = Settled::Already(Status::Completed);
    assert_eq!(again, [already, Settled::Stale, already, already]);
}

#[tokio::test]
async fn each_goes_its_own_way_whatever_its_neighbours_do() {
    let file = File::new();
    let store = file.store().await;
    let ids = put(&store, 8).await;
    let session = session(&store, 1).await;
    let mut held = claim(&store, request(session, 1, 9)).await.tasks;
    store.act(Selection::Ids(vec![ids[6]]), Action::Cancel, "test").await.unwrap();
    // In the order in which handlers end, which is any.
    held.reverse();
    let reject = || Settlement::Fail { reason: queue_core::FailureReason::Rejected, error: None };
    let settles: Arc<[Settle]> = held
        .iter()
        .map(|task| match task.id.get() - ids[0].get() {
            2 | 3 => Settle::by_holder(task.id, task.claim, reject()),
            4 => Settle::by_holder(task.id, task.claim, Settlement::Complete { result: TaskResult::Value("1".into()) }),
            _ => complete(task),
        })
        .collect();
    assert_eq!(store.settle(settles).await.unwrap(), [Settled::Applied; 8]);
    for (index, id) in ids.iter().enumerate() {
        let expected = if matches!(index, 2 | 3) { Status::Failed } else { Status::Completed };
        let record = store.get(*id).await.unwrap().unwrap();
        assert_eq!((record.state.status, record.state.attempt), (expected, 1), "{index}");
        assert_eq!(matches!(record.result, TaskResult::Value(_)), index == 4);
    }
    assert_eq!(finished(&file), ids.iter().map(|id| id.get().cast_signed()).collect::<Vec<_>>());
    let left: i64 = file
        .foreign()
        .query_row("SELECT (SELECT count(*) FROM queue_claim) + (SELECT count(*) FROM queue_signal)", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(left, 0);
}

/// Ids that follow on one another, in several lanes and with different histories.
#[tokio::test]
async fn lanes_are_not_mixed_up() -> Result<(), StoreError> {
    let file = File::new();
    let store = file.store().await;
    let ids = store.reserve_ids(12).await?.collect::<Vec<_>>();
    let priority = |index: usize| Priority::new([0, 0, 0, 5, 5, -5][index % 6]);
    let batch = ids.iter().enumerate().map(|(index, &id)| NewTask {
        id,
        nonce: Nonce::new(1),
        spec: TaskSpec { priority: priority(index), ..spec() },
    });
    store.enqueue(batch.collect()).await?;
    let session = session(&store, 1).await;
    let first = claim(&store, request(session, 1, 5)).await.tasks;
    assert_eq!(first.iter().map(|task| task.priority.get()).collect::<Vec<_>>(), [5, 5, 5, 5, 0]);
    assert_eq!(store.settle(first.iter().map(complete).collect()).await?, [Settled::Applied; 5]);
    let second = claim(&store, request(session, 2, 12)).await.tasks;
    assert_eq!(second.iter().map(|task| task.priority.get()).collect::<Vec<_>>(), [0, 0, 0, 0, 0, -5, -5]);
    let mut seen = first.iter().chain(&second).map(|task| task.id).collect::<Vec<_>>();
    seen.sort_unstable();
    assert_eq!(seen, ids);
    let waiting: i64 = file.foreign().query_row("SELECT count(*) FROM queue_ready", [], |row| row.get(0)).unwrap();
    assert_eq!(waiting, 0);
    Ok(())
}

/// What is written to a row takes the room that it has kept, so that its page need not be split.
#[tokio::test]
async fn no_row_grows_until_its_task_has_ended() {
    let file = File::new();
    let store = file.store().await;
    put(&store, 300).await;
    let session = session(&store, 1).await;
    let size = || {
        let sql = "SELECT sum(payload), count(*) FROM dbstat WHERE name = 'queue_task'";
        file.foreign().query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).unwrap()
    };
    let enqueued = size();
    // An id as large as nearly all are: small numbers take less.
    let held = claim(&store, request(session, 1 << 62, 300)).await.tasks;
    assert_eq!((held.len(), size()), (300, enqueued), "claimed");
    // Every second one, so that each of them goes alone; the others then as well.
    let (some, others): (Vec<_>, Vec<_>) = held.into_iter().partition(|task| task.id.get() % 2 == 0);
    let release = |task: &ClaimedTask| {
        let settlement = Settlement::Requeue { delay: Duration::ZERO, kind: queue_core::settlement::Requeue::Release };
        Settle::by_holder(task.id, task.claim, settlement)
    };
    store.settle(others.iter().map(release).collect()).await.unwrap();
    assert_eq!(size(), enqueued, "released");
    store.settle(some.iter().map(complete).collect()).await.unwrap();
    assert_eq!(size(), enqueued, "completed");
}
