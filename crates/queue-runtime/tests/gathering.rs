//! Single enqueues that meet: written together, told apart.

mod support;

use std::future::IntoFuture as _;
use std::mem;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use queue_core::{ErrorKind, NewTask, Payload, StoreLimits};
use queue_runtime::{EnqueueError, Enqueued, OsEntropy, Queue, StoreError, TaskId, TaskSpec, TaskType, TokioClock};
use support::{MockStore, created, with_limits};

/// How many tasks each call was given.
type Sizes = Arc<Mutex<Vec<usize>>>;

/// A store that answers with this, and how many tasks it was given each time.
fn answering(
    answer: impl Fn(usize, &[NewTask]) -> Result<Vec<Enqueued>, StoreError> + Send + 'static,
) -> (Queue<MockStore>, Sizes) {
    answering_with(StoreLimits::DEFAULT, answer)
}

fn answering_with(
    limits: StoreLimits,
    answer: impl Fn(usize, &[NewTask]) -> Result<Vec<Enqueued>, StoreError> + Send + 'static,
) -> (Queue<MockStore>, Sizes) {
    let (mut store, sizes) = (with_limits(limits), Sizes::default());
    let seen = Arc::clone(&sizes);
    store.expect_enqueue().returning(move |batch: Arc<[NewTask]>| {
        let mut seen = seen.lock().unwrap();
        seen.push(batch.len());
        answer(seen.len(), &batch)
    });
    (Queue::with_ports(store, Arc::new(TokioClock::new()), Arc::new(OsEntropy)), sizes)
}

fn spec(body: &'static str) -> TaskSpec {
    TaskSpec::new(TaskType::new("a"), Payload::json(body))
}

fn is_bad(task: &NewTask) -> bool {
    &task.spec.payload.body()[..] == b"bad"
}

#[tokio::test]
async fn callers_that_meet_share_a_write() {
    let (queue, sizes) = answering(|_, batch| Ok(created(batch)));
    let told = join_all((0..64).map(|_| async { queue.enqueue_spec(spec("1")).await.unwrap() })).await;
    let mut ids: Vec<_> = told.iter().map(|told| told.id()).collect();
    ids.dedup();
    assert_eq!((ids.len(), sizes.lock().unwrap().clone()), (64, vec![64]));
}

#[tokio::test]
async fn a_batch_is_no_larger_than_the_store_takes() {
    let tight = StoreLimits { batch_max: 10, batch_bytes_max: 30, ..StoreLimits::DEFAULT };
    let (queue, sizes) = answering_with(tight, |_, batch| Ok(created(batch)));
    let told = join_all((0..25).map(|_| async { queue.enqueue_spec(spec("1")).await.unwrap() })).await;
    assert_eq!((told.len(), mem::take(&mut *sizes.lock().unwrap())), (25, vec![10, 10, 5]));
    join_all((0..3).map(|_| async { queue.enqueue_spec(spec("\"some more bytes\"")).await.unwrap() })).await;
    assert_eq!(*sizes.lock().unwrap(), [1, 1, 1], "two of them have more bytes than the store takes at once");
}

#[tokio::test]
async fn a_conflict_of_keys_is_told_to_whom_it_concerns() {
    let existing = TaskId::new(4_711).unwrap();
    let (queue, sizes) = answering(move |_, batch| match batch.iter().position(is_bad) {
        Some(index) => Err(StoreError::KeyConflict { index, existing }),
        None => Ok(created(batch)),
    });
    let bodies = ["1", "bad", "2", "bad", "3"];
    let told = join_all(bodies.map(|body| {
        let queue = &queue;
        async move { queue.enqueue_spec(spec(body)).key(body).await }
    }))
    .await;
    // The same key twice does not go at once.
    assert_eq!(*sizes.lock().unwrap(), [3, 2, 2, 1]);
    for (body, told) in bodies.into_iter().zip(told) {
        match told {
            Err(EnqueueError::KeyConflict { existing: told }) => assert_eq!((body, told), ("bad", existing)),
            told => assert!(told.is_ok() && body != "bad", "{body}: {told:?}"),
        }
    }
}

#[tokio::test]
async fn a_task_that_the_store_refuses_costs_no_other() {
    let (queue, sizes) = answering(|_, batch| match batch.iter().any(is_bad) {
        true => Err(StoreError::other("refused")),
        false => Ok(created(batch)),
    });
    let told = join_all(["1", "bad", "2"].map(|body| {
        let queue = &queue;
        async move { queue.enqueue_spec(spec(body)).await }
    }))
    .await;
    assert_eq!(told.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(*sizes.lock().unwrap(), [3, 1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_to_all() {
    let (queue, sizes) = answering(|_, _| Err(StoreError::unavailable("refused")));
    for told in join_all((0..3).map(|_| async { queue.enqueue_spec(spec("1")).await })).await {
        let Err(EnqueueError::Store(error)) = told else { panic!("{told:?}") };
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::Unavailable, "the store is unavailable: refused")
        );
    }
    assert_eq!(*sizes.lock().unwrap(), [3; 5]);
}

#[tokio::test]
async fn a_caller_that_goes_takes_nobody_with_it() {
    let (queue, sizes) = answering(|_, batch| Ok(created(batch)));
    let (mut first, mut second) =
        (Box::pin(queue.enqueue_spec(spec("1")).into_future()), Box::pin(queue.enqueue_spec(spec("2")).into_future()));
    assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
    drop(first);
    second.await.unwrap();
    assert_eq!(*sizes.lock().unwrap(), [1], "what was dropped before its write began is not written");
}

#[test]
fn a_runtime_that_ends_leaves_nobody_waiting() {
    let (queue, _) = answering(|_, batch| Ok(created(batch)));
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (ending, other) = (runtime(), runtime());
    let mut waiting = Box::pin(queue.enqueue_spec(spec("1")).into_future());
    ending.block_on(async { assert!(waiting.as_mut().now_or_never().is_none()) });
    drop(ending);
    let told = other.block_on(waiting);
    assert!(matches!(told, Err(EnqueueError::Store(StoreError::Unavailable { .. }))), "{told:?}");
    assert!(other.block_on(queue.enqueue_spec(spec("2")).into_future()).is_ok());
}
