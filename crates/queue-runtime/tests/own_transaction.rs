//! Enqueueing and completing in a transaction of one's own: what reaches the store, and what becomes of its answers.

mod support;

use std::sync::Arc;

use mockall::predicate::{always, eq};
use queue_core::{ErrorKind, Outcome, Payload, Settled, Status, StoreLimits, TaskResult};
use queue_runtime::testing::perform;
use queue_runtime::{
    CompleteError, Ctx, EnqueueError, Enqueued, Queue, Result, StoreError, Task, TaskId, TaskSpec, TaskType,
};
use serde::{Deserialize, Serialize};
use support::{Conn, MockStore, created, store, with_limits};

#[derive(Serialize, Deserialize)]
struct Charge {
    cents: u32,
}

impl Task for Charge {
    const TYPE: TaskType = TaskType::new("billing.charge");
    type Output = u64;
}

fn id(id: u64) -> TaskId {
    TaskId::new(id).unwrap()
}

#[tokio::test]
async fn a_task_is_prepared_outside_and_written_inside() {
    let mut store = store();
    store.expect_prepare().times(1).returning(|_| Ok(()));
    store.expect_enqueue_in().times(1).returning(|conn, batch| {
        conn.0.push("task");
        assert_eq!(batch[0].spec.queue.as_str(), "billing");
        Ok(created(batch))
    });
    let queue = Queue::new(store);
    // As a pool's connection does, the transaction derefs to the connection, and `&mut tx` is enough.
    let mut tx = Box::new(Conn::default());

    let enqueued = queue.enqueue(&Charge { cents: 100 }).queue("billing").within(&mut tx).await.unwrap();

    assert_eq!((enqueued, tx.0.as_slice()), (Enqueued::Created(id(1)), ["task"].as_slice()));
}

#[tokio::test]
async fn a_batch_is_written_in_parts() {
    let mut store = with_limits(StoreLimits { batch_max: 2, ..StoreLimits::DEFAULT });
    store.expect_prepare().times(2).returning(|_| Ok(()));
    store.expect_enqueue_in().times(2).returning(|conn, batch| {
        conn.0.push("batch");
        Ok(created(batch))
    });
    let tasks = [1, 2, 3].map(|cents| Charge { cents });
    let mut tx = Conn::default();
    let enqueued = Queue::new(store).enqueue_all(&tasks).within(&mut tx).await.unwrap();
    assert_eq!(enqueued, [1, 2, 3].map(|number| Enqueued::Created(id(number))));
    assert_eq!(tx.0, ["batch", "batch"]);
}

#[tokio::test]
async fn nothing_is_repeated_in_the_users_transaction() {
    let mut store = store();
    store.expect_prepare().times(1).returning(|_| Ok(()));
    store.expect_enqueue_in().times(1).returning(|_, _| Err(StoreError::unavailable("deadlock")));
    let error = Queue::new(store).enqueue(&Charge { cents: 1 }).within(&mut Conn::default()).await.unwrap_err();
    assert!(matches!(&error, EnqueueError::Store(error) if error.kind() == ErrorKind::Unavailable), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_is_done_outside_is_repeated() {
    let mut store = store();
    let mut errors = vec![StoreError::unavailable("gone")].into_iter();
    store.expect_prepare().times(2).returning(move |_| errors.next().map_or(Ok(()), Err));
    store.expect_enqueue_in().times(1).returning(|_, batch| Ok(created(batch)));
    let queue = Queue::new(store);
    assert!(queue.enqueue(&Charge { cents: 1 }).within(&mut Conn::default()).await.is_ok());
}

#[tokio::test]
async fn what_cannot_be_prepared_is_not_written() {
    let mut store = store();
    store.expect_prepare().times(1).returning(|_| Err(StoreError::denied("read-only")));
    let spec = TaskSpec::new(TaskType::new("a"), Payload::json("1"));
    let error = Queue::new(store).enqueue_specs([spec]).within(&mut Conn::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "access denied: read-only; none was written before");
}

async fn charge(task: Charge, cx: Ctx<Arc<Queue<MockStore>>>) -> Result<u64> {
    let mut tx = Conn::default();
    let receipt = cx.state().complete(&cx, u64::from(task.cents) * 2).within(&mut tx).await?;
    assert_eq!(tx.0, ["completed"]);
    Ok(receipt)
}

async fn run(settled: std::result::Result<Settled, StoreError>) -> queue_runtime::testing::Performed<u64> {
    let mut store = store();
    let mut settled = Some(settled);
    store
        .expect_complete_in()
        .with(always(), eq(id(1)), always(), eq(TaskResult::Value("200".into())))
        .times(1)
        .returning(move |conn, _, _, _| {
            conn.0.push("completed");
            settled.take().unwrap()
        });
    perform(charge, Charge { cents: 100 }, Arc::new(Queue::new(store))).await
}

#[tokio::test]
async fn a_completion_gives_the_output_back() {
    for settled in [Settled::Applied, Settled::Already(Status::Completed)] {
        assert_eq!(run(Ok(settled)).await.output, Some(200));
    }
}

#[tokio::test]
async fn a_lost_claim_completes_nothing() {
    for settled in [Settled::Stale, Settled::Already(Status::Failed)] {
        let run = run(Ok(settled)).await;
        assert!(matches!(run.outcome, Outcome::Errored { .. }), "{run:?}");
        assert_eq!(run.error.unwrap(), "task 1 is no longer held by this run; roll the transaction back");
    }
    let failed = run(Err(StoreError::unavailable("gone"))).await;
    assert_eq!(failed.error.unwrap(), "the store is unavailable: gone");
}

#[tokio::test]
async fn a_stale_completion_can_be_told_apart() {
    async fn charge(_: Charge, cx: Ctx<Arc<Queue<MockStore>>>) -> Result<u64> {
        match cx.state().complete(&cx, 7).within(&mut Conn::default()).await {
            Err(CompleteError::Stale { task }) => cx.reject(format!("{task} is somebody else's")),
            other => panic!("{other:?}"),
        }
    }
    let mut store = store();
    store.expect_complete_in().returning(|_, _, _, _| Ok(Settled::Stale));
    let run = perform(charge, Charge { cents: 1 }, Arc::new(Queue::new(store))).await;
    assert_eq!(run.error.as_deref(), Some("1 is somebody else's"));
}
