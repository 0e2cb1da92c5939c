//! Rows that cannot be: told by name where they are asked for, passed over everywhere else.

use crate::support::{File, claim, put, request, session};
use queue_core::admin::{Action, Filter, Page, Selection};
use queue_core::{
    ClaimId, ErrorKind, Settle, Settled, Settlement, Status, StoreError, TaskAdmin as _, TaskId, TaskResult,
    TaskStore as _,
};

/// What makes a queued task's rows impossible.
const DEFECTS: [&str; 9] = [
    "UPDATE queue_task SET status = 7 WHERE id = ?1",
    "UPDATE queue_task SET reason = 99 WHERE id = ?1",
    "UPDATE queue_task SET attempt = 3 WHERE id = ?1",
    "UPDATE queue_task SET rank = 101 WHERE id = ?1",
    "UPDATE queue_task SET losses = 70000 WHERE id = ?1",
    "UPDATE queue_task SET deadline_at = NULL WHERE id = ?1",
    "UPDATE queue_task SET budget = -1 WHERE id = ?1",
    "UPDATE queue_task SET type_id = 999 WHERE id = ?1",
    "UPDATE queue_task SET policy_id = 999 WHERE id = ?1",
];

const fn complete() -> Settlement {
    Settlement::Complete { result: TaskResult::None }
}

fn damage(file: &File, sql: &str, task: TaskId) {
    let foreign = file.foreign();
    foreign.execute_batch("PRAGMA ignore_check_constraints = ON").unwrap();
    assert_eq!(foreign.execute(sql, [task.get().cast_signed()]).unwrap(), 1, "{sql}");
}

#[tokio::test]
async fn each_defect_is_told_by_name_and_stops_nothing() {
    for defect in DEFECTS {
        let file = File::new();
        let store = file.store().await;
        let ids = put(&store, 3).await;
        damage(&file, defect, ids[1]);
        let error = store.get(ids[1]).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { task: Some(task), .. } if task == ids[1]), "{defect}: {error}");

        let session = session(&store, 1).await;
        let claimed = claim(&store, request(session, 1, 9)).await;
        let taken: Vec<_> = claimed.tasks.iter().map(|task| task.id).collect();
        assert_eq!(taken, [ids[0], ids[2]], "{defect}");

        let listed = store.list(Filter::default(), Page { after: None, limit: 9 }).await.unwrap();
        assert_eq!(listed.iter().map(|task| task.id).collect::<Vec<_>>(), [ids[2], ids[0]], "{defect}");

        // Nothing is left that a pool could do, so nothing keeps it awake, and it may end.
        let again = claim(&store, request(session, 2, 9)).await;
        assert!(again.tasks.is_empty() && again.next_due.is_none_or(|due| due > again.now), "{defect}: {again:?}");
        let settle = |id| Settle::by_holder(id, claimed.tasks[0].claim, complete());
        assert_eq!(store.settle([settle(ids[0]), settle(ids[2])].into()).await.unwrap(), [Settled::Applied; 2]);
        assert!(!store.is_busy(request(session, 3, 9).scope).await.unwrap(), "{defect}");
    }
}

/// A task's own row is sound, and the lists have it elsewhere.
#[tokio::test]
async fn a_task_in_the_wrong_list_is_left_alone() {
    let file = File::new();
    let store = file.store().await;
    let ids = put(&store, 3).await;
    damage(&file, "UPDATE queue_ready SET run_at = run_at - 1, deadline_at = 0 WHERE task_id = ?1", ids[0]);
    damage(&file, "UPDATE queue_ready SET rank = -5 WHERE task_id = ?1", ids[1]);
    damage(&file, "UPDATE queue_task SET budget = 1, deadline_at = 1 WHERE id = ?1", ids[0]);
    let session = session(&store, 1).await;
    let claimed = claim(&store, request(session, 1, 9)).await;
    assert_eq!(claimed.tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [ids[2]]);
    assert_eq!(claimed.ended, []);
    let swept = store.expire(9).await.unwrap();
    assert!(swept.ended.is_empty() && swept.finished);
    assert_eq!(store.get(ids[0]).await.unwrap().unwrap().state.status, Status::Queued);
}

#[tokio::test]
async fn a_row_that_waits_without_a_task_is_passed_over() {
    let file = File::new();
    let store = file.store().await;
    let ids = put(&store, 2).await;
    damage(&file, "DELETE FROM queue_task WHERE id = ?1", ids[0]);
    let session = session(&store, 1).await;
    let claimed = claim(&store, request(session, 1, 9)).await;
    assert_eq!(claimed.tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [ids[1]]);
    // It does not keep a pool awake either.
    assert_eq!(claim(&store, request(session, 2, 9)).await.next_due, None);
    assert_eq!(store.get(ids[0]).await.unwrap(), None);
}

/// However many there are, and however few tasks are wanted.
#[tokio::test]
async fn corrupt_rows_take_no_room() {
    let file = File::new();
    let store = file.store().await;
    let ids = put(&store, 4).await;
    for id in &ids[..3] {
        damage(&file, "UPDATE queue_task SET status = 7 WHERE id = ?1", *id);
    }
    let session = session(&store, 1).await;
    let claimed = claim(&store, request(session, 1, 1)).await;
    assert_eq!(claimed.tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [ids[3]]);
}

#[tokio::test]
async fn a_payload_that_is_gone_costs_its_own_task_only() {
    let file = File::new();
    let store = file.store().await;
    let ids = put(&store, 7).await;
    for gone in [0, 2, 6] {
        damage(&file, "DELETE FROM queue_payload WHERE task_id = ?1", ids[gone]);
    }
    damage(&file, "UPDATE queue_payload SET content_type = 99 WHERE task_id = ?1", ids[4]);
    let session = session(&store, 1).await;
    let claimed = claim(&store, request(session, 1, 9)).await;
    assert_eq!(claimed.tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [ids[1], ids[3], ids[5]]);
    for corrupt in [0, 2, 4, 6] {
        assert_eq!(store.get(ids[corrupt]).await.unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

/// It is seen only when its slot is given away already.
#[tokio::test]
async fn payloads_that_are_gone_do_not_take_the_only_slot_for_ever() {
    let file = File::new();
    let store = file.store().await;
    let ids = put(&store, 3).await;
    for gone in &ids[..2] {
        damage(&file, "DELETE FROM queue_payload WHERE task_id = ?1", *gone);
    }
    let session = session(&store, 1).await;
    let mut taken = Vec::new();
    for number in 1..=3 {
        taken.extend(claim(&store, request(session, number, 1)).await.tasks.iter().map(|task| task.id));
    }
    assert_eq!(taken, [ids[2]]);
}

#[tokio::test]
async fn a_corrupt_task_is_stale_to_its_holder_and_the_neighbours_settle() {
    let file = File::new();
    let store = file.store().await;
    let ids = put(&store, 2).await;
    let session = session(&store, 1).await;
    let held = claim(&store, request(session, 1, 9)).await.tasks;
    damage(&file, "UPDATE queue_task SET attempt = 9 WHERE id = ?1", ids[0]);
    let settle = |id| Settle::by_holder(id, held[0].claim, Settlement::Complete { result: TaskResult::None });
    let settled = store.settle([settle(ids[0]), settle(ids[1])].into()).await.unwrap();
    assert_eq!(settled, [Settled::Stale, Settled::Applied]);
    assert_eq!(store.get(ids[1]).await.unwrap().unwrap().state.status, Status::Completed);
    let error = store.act(Selection::Ids(vec![ids[0]]), Action::Delete, "test").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

/// Nothing may write what cannot be read back: the table refuses it as well.
#[tokio::test]
async fn the_tables_refuse_what_cannot_be() {
    let file = File::new();
    let store = file.store().await;
    let ids = put(&store, 1).await;
    let session = session(&store, 1).await;
    claim(&store, request(session, 1, 9)).await;
    let foreign = file.foreign();
    for sql in [
        "UPDATE queue_task SET status = 2 WHERE id = ?1",
        "UPDATE queue_task SET status = 3, completed_at = 1 WHERE id = ?1",
        "UPDATE queue_task SET claim_id = NULL WHERE id = ?1",
        "UPDATE queue_task SET attempt = 4 WHERE id = ?1",
        "UPDATE queue_task SET completed_at = 1 WHERE id = ?1",
        "INSERT INTO queue_finished (status, completed_at, task_id, type_id, queue_id) VALUES (3, 1, ?1, 1, 1)",
        "INSERT INTO queue_result (task_id) VALUES (?1)",
    ] {
        let error = foreign.execute(sql, [ids[0].get().cast_signed()]).unwrap_err().to_string();
        assert!(error.contains("CHECK constraint failed"), "{sql}: {error}");
    }
    let resolved = store.resolve_claim(session, ClaimId::new(1).unwrap()).await.unwrap();
    assert!(matches!(resolved, queue_core::claim::Resolved::Committed(claimed) if claimed.tasks.len() == 1));
}
