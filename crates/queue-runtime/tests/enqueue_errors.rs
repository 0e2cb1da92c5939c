//! What a producer sees when the store fails: what is repeated, under which ids, and what is told in the end.

mod support;

use std::sync::{Arc, Mutex};

use mockall::Sequence;
use queue_core::ids::{IdBlock, Nonce};
use queue_core::{ErrorKind, NewTask, Observation, Observer, Payload};
use queue_runtime::{EnqueueError, Enqueued, OsEntropy, Queue, StoreError, TaskId, TaskSpec, TaskType, TokioClock};
use support::{MockStore, created, store};

fn queue(store: MockStore) -> Queue<MockStore> {
    Queue::with_ports(store, Arc::new(TokioClock::new()), Arc::new(OsEntropy))
}

fn spec() -> TaskSpec {
    TaskSpec::new(TaskType::new("a"), Payload::json("1"))
}

fn id(id: u64) -> TaskId {
    TaskId::new(id).unwrap()
}

fn kind(error: &EnqueueError) -> Option<ErrorKind> {
    match error {
        EnqueueError::Store(error) => Some(error.kind()),
        _ => None,
    }
}

/// What each call was given.
type Calls = Arc<Mutex<Vec<Vec<(TaskId, Nonce)>>>>;

/// A store whose enqueue fails with these, one call after the other, and then succeeds; and what it was given each time.
fn failing(errors: Vec<StoreError>) -> (MockStore, Calls) {
    let (mut store, calls) = (store(), Calls::default());
    let (seen, errors) = (Arc::clone(&calls), Mutex::new(errors.into_iter()));
    store.expect_enqueue().returning(move |batch: Arc<[NewTask]>| {
        seen.lock().unwrap().push(batch.iter().map(|task| (task.id, task.nonce)).collect());
        errors.lock().unwrap().next().map_or_else(|| Ok(created(&batch)), Err)
    });
    (store, calls)
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_repeated_under_the_same_ids() {
    let (store, calls) = failing(vec![StoreError::unknown_outcome("gone"), StoreError::unavailable("refused")]);
    let queue = queue(store);
    let before = queue.clock().monotonic();

    assert_eq!(queue.enqueue_spec(spec()).await.unwrap(), Enqueued::Created(id(1)));

    let calls = calls.lock().unwrap();
    assert_eq!(calls.len(), 3);
    assert!(calls.iter().all(|call| *call == calls[0]), "{calls:?}");
    let waited = (queue.clock().monotonic() - before).as_millis();
    assert!((150..=310).contains(&waited), "half to all of 100 ms, then of 200 ms, but it was {waited} ms");
}

#[tokio::test(start_paused = true)]
async fn it_is_repeated_a_bounded_number_of_times() {
    let (store, calls) = failing((0..9).map(|_| StoreError::unavailable("refused")).collect());
    let error = queue(store).enqueue_spec(spec()).await.unwrap_err();
    assert_eq!((kind(&error), calls.lock().unwrap().len()), (Some(ErrorKind::Unavailable), 5));
    assert_eq!(error.to_string(), "the store is unavailable: refused");
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_written_stays_unknown() {
    let unknown = || StoreError::unknown_outcome("gone");
    let existing = id(7);
    let cases = [
        (vec![unknown(), StoreError::denied("no")], Some(ErrorKind::UnknownOutcome)),
        (vec![StoreError::unavailable("refused"), StoreError::denied("no")], Some(ErrorKind::Denied)),
        (vec![unknown(), StoreError::KeyConflict { index: 0, existing }], None),
    ];
    for (errors, expected) in cases {
        let (store, calls) = failing(errors);
        let error = queue(store).enqueue_spec(spec()).await.unwrap_err();
        assert_eq!((kind(&error), calls.lock().unwrap().len()), (expected, 2), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_definite_error_is_not_repeated() {
    let (store, calls) = failing(vec![StoreError::KeyConflict { index: 0, existing: id(7) }]);
    let error = queue(store).enqueue_spec(spec()).await.unwrap_err();
    assert!(matches!(error, EnqueueError::KeyConflict { existing } if existing == id(7)), "{error}");
    assert_eq!(calls.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn ids_are_asked_for_again() {
    let (mut store, mut order) = (MockStore::new(), Sequence::new());
    store.expect_limits().return_const(queue_core::StoreLimits::DEFAULT);
    store.expect_reserve_ids().times(1).in_sequence(&mut order).returning(|_| Err(StoreError::unknown_outcome("gone")));
    store
        .expect_reserve_ids()
        .times(1)
        .in_sequence(&mut order)
        .returning(|count| Ok(IdBlock::new(id(101), count.into())));
    store.expect_enqueue().times(1).returning(|batch| Ok(created(&batch)));
    assert_eq!(queue(store).enqueue_spec(spec()).await.unwrap(), Enqueued::Created(id(101)));
}

#[tokio::test(start_paused = true)]
async fn a_batch_tells_how_far_it_got() {
    let limits = queue_core::StoreLimits { batch_max: 2, ..queue_core::StoreLimits::DEFAULT };
    let mut store = support::with_limits(limits);
    let mut order = Sequence::new();
    store.expect_enqueue().times(1).in_sequence(&mut order).returning(|batch| Ok(created(&batch)));
    store
        .expect_enqueue()
        .times(1)
        .in_sequence(&mut order)
        .returning(|_| Err(StoreError::KeyConflict { index: 1, existing: id(9) }));

    let error = queue(store).enqueue_specs(vec![spec(); 5]).await.unwrap_err();

    assert_eq!(error.written, [Enqueued::Created(id(1)), Enqueued::Created(id(2))]);
    assert_eq!(error.index, Some(3));
    assert_eq!(
        error.to_string(),
        "task 3 of the batch: the idempotency key belongs to task 9, which has another payload; \
         the first 2 were written before"
    );
}

#[tokio::test(start_paused = true)]
async fn a_store_that_answers_wrong_is_not_believed() {
    let mut store = store();
    store.expect_enqueue().returning(|_| Ok(Vec::new()));
    let error = queue(store).enqueue_spec(spec()).await.unwrap_err();
    assert_eq!(error.to_string(), "the store failed: the store gave 0 answers to 1 enqueued tasks");
}

#[derive(Clone, Debug, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Observer for Heard {
    fn observe(&self, observation: &Observation<'_>) {
        let told = match observation {
            Observation::Enqueued { task_type, count } => format!("{count} × {task_type}"),
            Observation::StoreFailed(kind) => kind.as_str().to_owned(),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(told);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_written_is_counted_and_what_failed_too() {
    let mut store = store();
    let mut first = true;
    store.expect_enqueue().times(2).returning(move |batch| {
        if std::mem::take(&mut first) {
            return Err(StoreError::unavailable("refused"));
        }
        let mut answers = created(&batch);
        answers[1] = Enqueued::Existing(id(77));
        Ok(answers)
    });
    let heard = Heard::default();
    let other = TaskSpec::new(TaskType::new("b"), Payload::json("1"));
    queue(store).with_observer(heard.clone()).enqueue_specs([spec(), spec(), other, spec()]).await.unwrap();
    assert_eq!(*heard.0.lock().unwrap(), ["unavailable", "2 × a", "1 × b"]);
}
