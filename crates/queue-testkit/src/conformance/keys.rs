//! Idempotency keys.

use std::time::Duration;

use queue_core::admin::{Acted, Action, Filter};
use queue_core::payload::ContentType;
use queue_core::{Enqueued, IdempotencyKey, NewTask, Payload, Priority, StoreError, TaskSpec};

use super::Subject;
use super::subject::{OTHER, at_once, complete, persist, spec};

fn keyed(key: &str) -> TaskSpec {
    TaskSpec { key: Some(IdempotencyKey::parse(key).unwrap()), ..spec() }
}

fn with_payload(key: &str, payload: &'static str) -> TaskSpec {
    TaskSpec { payload: Payload::json(payload), ..keyed(key) }
}

/// "A task whose idempotency key is taken … is answered as existing and not written", whatever else its spec says.
pub async fn a_repeated_key_finds_the_first_task(store: Subject) {
    let first = store.put(keyed("order-7")).await;
    let before = store.record(first).await;
    let again = store.named([TaskSpec { priority: Priority::HIGH, ..keyed("order-7") }]).await;
    assert_eq!(store.write(&again).await.unwrap(), [Enqueued::Existing(first)]);
    assert_eq!(store.get(again[0].id).await.unwrap(), None);
    assert_eq!(store.record(first).await, before);
}

/// A conflict names the task in the batch and the one that has the key, and refuses the whole batch.
pub async fn another_payload_is_a_conflict(store: Subject) {
    let first = store.put(with_payload("k", "1")).await;
    let other_type = Payload::new(ContentType::Binary, "1");
    for clash in [with_payload("k", "2"), with_payload("k", "1 "), TaskSpec { payload: other_type, ..keyed("k") }] {
        let batch = store.named([spec(), keyed("new"), clash]).await;
        match store.write(&batch).await {
            Err(StoreError::KeyConflict { index, existing }) => assert_eq!((index, existing), (2, first)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(store.ids(Filter::default()).await, [first]);
    // The key of the refused batch was not taken either.
    store.put(with_payload("new", "3")).await;
}

/// The same key under another type is another key.
pub async fn keys_belong_to_a_type(store: Subject) {
    let one = store.put(with_payload("k", "1")).await;
    let two = store.put(TaskSpec { task_type: OTHER, ..with_payload("k", "2") }).await;
    let again = store.named([with_payload("k", "1"), TaskSpec { task_type: OTHER, ..with_payload("k", "2") }]).await;
    assert_eq!(store.write(&again).await.unwrap(), [Enqueued::Existing(one), Enqueued::Existing(two)]);
}

/// "The same key twice within a batch counts as a repeat."
pub async fn a_key_twice_in_a_batch_is_a_repeat(store: Subject) {
    let batch = store.named([keyed("k"), spec(), keyed("k"), keyed("j"), keyed("k")]).await;
    let wanted = [
        Enqueued::Created(batch[0].id),
        Enqueued::Created(batch[1].id),
        Enqueued::Existing(batch[0].id),
        Enqueued::Created(batch[3].id),
        Enqueued::Existing(batch[0].id),
    ];
    answers_twice(&store, &batch, &wanted, 3).await;
}

/// So it is whatever the order of their ids.
pub async fn the_first_of_a_batch_counts_and_not_the_lowest_id(store: Subject) {
    let mut batch = store.named([keyed("k"), spec(), keyed("k"), keyed("k")]).await;
    batch.reverse();
    let wanted = [
        Enqueued::Created(batch[0].id),
        Enqueued::Existing(batch[0].id),
        Enqueued::Created(batch[2].id),
        Enqueued::Existing(batch[0].id),
    ];
    answers_twice(&store, &batch, &wanted, 2).await;
}

/// A batch is answered so, also when it comes again, and leaves so many tasks.
async fn answers_twice(store: &Subject, batch: &[NewTask], wanted: &[Enqueued], tasks: usize) {
    for time in ["the first time", "the whole batch again"] {
        assert_eq!(store.write(batch).await.unwrap(), wanted, "{time}");
        assert_eq!(store.ids(Filter::default()).await.len(), tasks, "{time}");
    }
}

/// The same key twice within a batch, with two payloads, is a conflict of the batch with itself.
pub async fn a_batch_can_be_in_conflict_with_itself(store: Subject) {
    let batch = store.named([with_payload("k", "1"), with_payload("k", "2")]).await;
    match store.write(&batch).await {
        Err(StoreError::KeyConflict { index, existing }) => assert_eq!((index, existing), (1, batch[0].id)),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.ids(Filter::default()).await, []);
}

/// Keys are bytes: case, accents, spaces at the end and length tell them apart.
pub async fn keys_are_exact(store: Subject) {
    let (long, longer) = ("k".repeat(127), "k".repeat(128));
    let wide = "\u{1f980}".repeat(32);
    let keys = ["k", "K", "k ", " k", "k\0", "é", "e", "e\u{301}", "ß", "ss", "'", "\\", "%", &long, &longer, &wide];
    let first = store.put_all(keys.iter().map(|key| keyed(key))).await;
    let again = store.named(keys.iter().map(|key| keyed(key))).await;
    let existing: Vec<_> = first.into_iter().map(Enqueued::Existing).collect();
    assert_eq!(store.write(&again).await.unwrap(), existing);
}

/// "Two concurrent enqueues with one key write one task."
pub async fn concurrent_enqueues_with_one_key_write_one_task(store: Subject) {
    for round in 0..5 {
        let producers = (0..6).map(|_| {
            let store = store.clone();
            async move {
                let batch = store.named([keyed(&format!("k{round}")), keyed(&format!("j{round}"))]).await;
                persist(|| store.write(&batch)).await
            }
        });
        let answers = at_once(producers).await;
        for at in [0, 1] {
            let created = answers.iter().filter(|answer| matches!(answer[at], Enqueued::Created(_))).count();
            assert_eq!(created, 1, "{answers:?}");
            assert!(answers.iter().all(|answer| answer[at].id() == answers[0][at].id()), "{answers:?}");
        }
    }
    assert_eq!(store.ids(Filter::default()).await.len(), 10);
}

/// Batches that name the same keys in opposite orders do not end in a deadlock that anybody sees.
pub async fn keys_in_opposite_orders_do_not_deadlock(store: Subject) {
    let keys: Vec<_> = (0..10).map(|number| format!("k{number}")).collect();
    let producers = (0..6).map(|number| {
        let (store, mut keys) = (store.clone(), keys.clone());
        async move {
            if number % 2 == 0 {
                keys.reverse();
            }
            let batch = store.named(keys.iter().map(|key| keyed(key))).await;
            persist(|| store.write(&batch)).await
        }
    });
    let answers: Vec<_> = at_once(producers).await.into_iter().flatten().collect();
    assert_eq!(answers.iter().filter(|answer| matches!(answer, Enqueued::Created(_))).count(), 10, "{answers:?}");
}

/// A task that has ended keeps its key, and so does one that was pruned, "for 24 h at least".
pub async fn a_key_outlives_its_task(store: Subject) {
    let (_, task) = store.running(with_payload("k", "1")).await;
    store.end(&task, complete()).await;
    let again = store.named([with_payload("k", "1")]).await;
    assert_eq!(store.write(&again).await.unwrap(), [Enqueued::Existing(task.id)]);
    store.past(store.record(task.id).await.state.completed_at.unwrap()).await;
    assert_eq!(store.prune(None, Duration::ZERO, 10).await.unwrap(), 1);
    assert_eq!(store.get(task.id).await.unwrap(), None);
    assert_eq!(store.write(&again).await.unwrap(), [Enqueued::Existing(task.id)]);
    let clash = store.named([with_payload("k", "2")]).await;
    assert!(
        matches!(store.write(&clash).await, Err(StoreError::KeyConflict { index: 0, existing }) if existing == task.id)
    );
}

/// A batch that is written again is answered as the first time, also when what it wrote was pruned meanwhile.
pub async fn a_repeat_knows_its_own_key(store: Subject) {
    let session = store.session().await;
    let batch = store.named([with_payload("k", "1"), spec()]).await;
    let wanted: Vec<_> = batch.iter().map(|task| Enqueued::Created(task.id)).collect();
    assert_eq!(store.write(&batch).await.unwrap(), wanted);
    let task = store.grab_one(session).await;
    store.end(&task, complete()).await;
    store.past(store.record(task.id).await.state.completed_at.unwrap()).await;
    assert_eq!(store.prune(None, Duration::ZERO, 10).await.unwrap(), 1);
    assert_eq!(store.write(&batch).await.unwrap(), wanted);
    assert_eq!(store.get(task.id).await.unwrap(), None, "what has ended does not run again");
}

/// Deleting a task removes "every trace of it", so its key is free again.
pub async fn a_deleted_task_frees_its_key(store: Subject) {
    let first = store.put(with_payload("k", "1")).await;
    assert_eq!(store.act_one(first, Action::Delete).await, Acted::Done);
    let second = store.put(with_payload("k", "2")).await;
    assert!(second > first);
}
