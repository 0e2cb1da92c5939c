//! Reserving ids and enqueueing.

use std::collections::BTreeSet;
use std::time::Duration;

use queue_core::admin::Filter;
use queue_core::budget::Budget;
use queue_core::{
    Backoff, Enqueued, ErrorKind, NewTask, Nonce, Payload, Priority, Retry, Settled, Start, Status, TaskId, TaskResult,
    TaskSpec, Timestamp,
};

use super::Subject;
use super::subject::{OTHER, at_once, in_queue, persist, spec};

const HOUR: Duration = Duration::from_secs(3600);

/// "Ids rise", and a block holds as many as were asked for.
pub async fn ids_rise(store: Subject) {
    let mut last = 0;
    for count in [1, 3, 1_000, 2] {
        let ids: Vec<_> = store.reserve_ids(count).await.unwrap().map(TaskId::get).collect();
        assert_eq!(ids.len(), usize::try_from(count).unwrap());
        assert!(ids[0] > last && ids.is_sorted(), "{ids:?} after {last}");
        last = *ids.last().unwrap();
    }
}

/// "No id is ever handed out twice."
pub async fn concurrent_reservations_share_no_id(store: Subject) {
    let reservations = (0..8).map(|_| {
        let store = store.clone();
        async move {
            let mut ids = Vec::new();
            for _ in 0..12 {
                ids.extend(persist(|| store.reserve_ids(7)).await);
            }
            ids
        }
    });
    let ids: Vec<_> = at_once(reservations).await.into_iter().flatten().collect();
    assert_eq!(ids.len(), 8 * 12 * 7);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
}

/// Ids that were reserved and not used leave a gap, and a block may be used late and in any order.
pub async fn gaps_and_late_ids_are_fine(store: Subject) {
    let early = store.named([spec(), spec(), spec()]).await;
    let late = store.put(spec()).await;
    assert_eq!(store.write(&early[2..]).await.unwrap(), [Enqueued::Created(early[2].id)]);
    assert_eq!(store.write(&early[..1]).await.unwrap(), [Enqueued::Created(early[0].id)]);
    let all: BTreeSet<_> = store.ids(Filter::default()).await.into_iter().collect();
    assert_eq!(all, BTreeSet::from([early[0].id, early[2].id, late]));
}

/// Everything that a producer says is kept, and the state is the one that the core says.
pub async fn keeps_what_the_producer_said(store: Subject) {
    let wanted = TaskSpec {
        priority: Priority::new(-7),
        retry: Retry::new(Backoff::Steps(vec![Duration::ZERO, Duration::from_micros(1_500_001)].into())).attempts(9),
        budget: Budget::of(Duration::from_secs(90)),
        payload: Payload::json("{\"a\": 1}"),
        ..in_queue("reports")
    };
    let before = store.now().await;
    let task = store.named([wanted.clone()]).await.remove(0);
    assert_eq!(store.write(std::slice::from_ref(&task)).await.unwrap(), [Enqueued::Created(task.id)]);
    let after = store.now().await;
    let record = store.record(task.id).await;
    assert_eq!((record.id, &record.task_type, &record.queue), (task.id, &wanted.task_type, &wanted.queue));
    assert_eq!((record.priority, &record.backoff), (wanted.priority, wanted.retry.backoff()));
    assert_eq!((record.payload, record.result), (wanted.payload, TaskResult::None));
    assert_eq!((record.progress, record.last_error, record.worker), (None, None, None));
    assert!(before <= record.state.created_at && record.state.created_at <= after, "{:?}", record.state);
    assert_eq!(record.state, task.state(record.state.created_at));
    assert_eq!(store.attempts(task.id).await.unwrap(), []);
}

/// Each kind of backoff and budget comes back as it was.
pub async fn keeps_every_policy(store: Subject) {
    let retries = [
        Retry::DEFAULT,
        Retry::NEVER,
        Retry::fixed(Duration::from_micros(5)).attempts(u16::MAX),
        Retry::fixed(Duration::from_micros(i64::MAX as u64)),
        Retry::exponential(Duration::from_millis(3), HOUR).attempts(2),
        Retry::steps(&[]),
        Retry::new(Backoff::Steps(vec![Duration::from_secs(7); 40].into())),
    ];
    let budgets = [Budget::DEFAULT, Budget::NONE, Budget::of(Duration::from_micros(1)), Budget::of(HOUR * 24 * 365)];
    for (retry, budget) in retries.iter().zip(budgets.iter().cycle()) {
        let id = store.put(TaskSpec { retry: retry.clone(), budget: *budget, ..spec() }).await;
        let record = store.record(id).await;
        assert_eq!((&record.backoff, record.state.max_attempts), (retry.backoff(), retry.max_attempts()));
        assert_eq!(record.state.budget, *budget);
        assert_eq!(record.state.deadline_at, budget.deadline(record.state.created_at, record.state.run_at));
    }
}

/// "One answer per task, in order"; an empty batch is a batch.
pub async fn answers_in_order(store: Subject) {
    assert_eq!(store.write(&[]).await.unwrap(), []);
    let mut batch = store.named((0..50).map(|_| spec())).await;
    batch.reverse();
    let answers: Vec<_> = batch.iter().map(|task| Enqueued::Created(task.id)).collect();
    assert_eq!(store.write(&batch).await.unwrap(), answers);
}

/// "Delays run on the store's clock."
pub async fn a_delay_counts_from_the_stores_now(store: Subject) {
    let id = store.put(TaskSpec { start: Start::After(HOUR), budget: Budget::of(HOUR), ..spec() }).await;
    let state = store.record(id).await.state;
    assert_eq!(state.run_at, state.created_at.after(HOUR));
    assert_eq!(state.deadline_at, Some(state.run_at.after(HOUR)));
}

/// "At this point; at once when it is past", down to the first point that can be told.
pub async fn a_start_in_the_past_is_now(store: Subject) {
    for micros in [0, -1, i64::MIN] {
        let id = store.put(TaskSpec { start: Start::At(Timestamp::from_micros(micros)), ..spec() }).await;
        let state = store.record(id).await.state;
        assert_eq!(state.run_at, state.created_at);
    }
}

/// A due time is kept to the microsecond, up to the last point that can be told, and far ones disturb nobody.
pub async fn a_start_in_the_future_is_exact(store: Subject) {
    let far = store.now().await.after(HOUR * 24 * 365 * 30).after(Duration::from_micros(1));
    for at in [far, Timestamp::from_micros(Timestamp::MAX.as_micros() - 1), Timestamp::MAX] {
        for budget in [Budget::NONE, Budget::DEFAULT, Budget::of(Duration::MAX)] {
            let id = store.put(TaskSpec { start: Start::At(at), budget, ..spec() }).await;
            let state = store.record(id).await.state;
            assert_eq!((state.run_at, state.deadline_at), (at, budget.deadline(state.created_at, at)));
        }
    }
    let delayed = store.put(TaskSpec { start: Start::After(Duration::MAX), ..spec() }).await;
    assert_eq!(store.record(delayed).await.state.run_at, Timestamp::MAX);
    let due = store.put(spec()).await;
    let session = store.session().await;
    assert_eq!(store.grab_one(session).await.id, due);
    assert_eq!(store.grab(session, 100).await, []);
    assert_eq!(store.sweep(100).await, []);
}

/// "A task whose id is there already with the same nonce … is answered as created and not touched", wherever it stands.
pub async fn a_repeat_changes_nothing(store: Subject) {
    let batch = store.named([spec(), spec()]).await;
    let created = [Enqueued::Created(batch[0].id), Enqueued::Created(batch[1].id)];
    assert_eq!(store.write(&batch[..1]).await.unwrap(), created[..1]);
    let session = store.session().await;
    let task = store.grab_one(session).await;
    let before = store.record(task.id).await;
    assert_eq!(store.write(&batch).await.unwrap(), created);
    assert_eq!(store.record(task.id).await, before);
    assert_eq!(store.record(batch[1].id).await.state.status, Status::Queued);
    store.end(&task, super::subject::complete()).await;
    let before = store.record(task.id).await;
    assert_eq!(store.write(&batch).await.unwrap(), created);
    assert_eq!(store.record(task.id).await, before);
    assert_eq!(store.ids(Filter::default()).await.len(), 2);
}

/// Several tries of one batch at once write it once.
pub async fn concurrent_repeats_write_once(store: Subject) {
    let batch = store.named((0..20).map(|_| spec())).await;
    let tries = (0..5).map(|_| {
        let (store, batch) = (store.clone(), batch.clone());
        async move { persist(|| store.write(&batch)).await }
    });
    let created: Vec<_> = batch.iter().map(|task| Enqueued::Created(task.id)).collect();
    for answers in at_once(tries).await {
        assert_eq!(answers, created);
    }
    assert_eq!(store.ids(Filter::default()).await.len(), 20);
    let session = store.session().await;
    assert_eq!(store.grab_all(session, 20).await.len(), 20);
    assert_eq!(store.grab(session, 20).await, []);
}

/// "An id that is there with another nonce is corrupt", and nothing of the batch is written.
pub async fn another_nonce_is_corrupt(store: Subject) {
    let batch = store.named([spec(), spec()]).await;
    store.write(&batch[1..]).await.unwrap();
    let before = store.record(batch[1].id).await;
    let other = Nonce::new(batch[1].nonce.get() ^ 1);
    let clash = [batch[0].clone(), NewTask { nonce: other, ..batch[1].clone() }];
    assert_eq!(store.write(&clash).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(store.get(batch[0].id).await.unwrap(), None);
    assert_eq!(store.record(batch[1].id).await, before);
}

/// A payload of the largest size goes in and comes back; one byte more refuses the whole batch.
pub async fn a_payload_over_the_limit_refuses_the_batch(store: Subject) {
    let limit = usize::try_from(store.limits().payload_bytes_max).unwrap();
    let bytes: Vec<u8> = (0..limit).map(|_| store.entropy().below(256) as u8).collect();
    let largest = Payload::new(queue_core::payload::ContentType::Binary, bytes);
    let (_, task) = store.running(TaskSpec { payload: largest.clone(), ..spec() }).await;
    assert!(task.payload == largest, "the largest payload is changed by a round trip");
    let batch = store.named([spec(), TaskSpec { payload: Payload::json(vec![b'1'; limit + 1]), ..spec() }]).await;
    assert_eq!(store.write(&batch).await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(store.get(batch[0].id).await.unwrap(), None);
}

/// A batch of as many tasks as the limit says is written; one more is refused as a whole.
pub async fn a_batch_over_the_limit_is_refused(store: Subject) {
    let limit = store.limits().batch_max;
    let batch = store.named((0..=limit).map(|_| spec())).await;
    assert_eq!(store.write(&batch).await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(store.ids(Filter::default()).await, []);
    assert_eq!(store.write(&batch[..limit]).await.unwrap().len(), limit);
}

/// Payloads that are each within the limit, and together are not.
pub async fn a_batch_over_the_limit_in_bytes_is_refused(store: Subject) {
    let limits = store.limits();
    let size = usize::try_from(limits.payload_bytes_max).unwrap();
    let count = limits.batch_bytes_max / limits.payload_bytes_max + 1;
    let payload = Payload::json(vec![b'1'; size]);
    let batch = store.named((0..count).map(|_| TaskSpec { payload: payload.clone(), ..spec() })).await;
    assert_eq!(store.write(&batch).await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(store.ids(Filter::default()).await, []);
}

/// Many producers at once, new types, queues and policies among them: everything is written.
pub async fn concurrent_producers_write_everything(store: Subject) {
    let queues = ["a", "b", "c", "d"];
    let producers = (0..8_u64).map(|number| {
        let store = store.clone();
        async move {
            let mut created = Vec::new();
            for round in 0..5 {
                let mut wanted = in_queue(queues[usize::try_from(number + round).unwrap() % 4]);
                wanted.retry = Retry::fixed(Duration::from_secs(round));
                if number % 2 == 0 {
                    wanted.task_type = OTHER;
                }
                let batch = store.named([wanted.clone(), wanted]).await;
                created.extend(persist(|| store.write(&batch)).await);
            }
            created
        }
    });
    let created: BTreeSet<_> = at_once(producers).await.into_iter().flatten().map(Enqueued::id).collect();
    assert_eq!(created.len(), 80);
    assert_eq!(store.ids(Filter::default()).await.into_iter().collect::<BTreeSet<_>>(), created);
}

/// A task that was not enqueued is not there.
pub async fn what_was_not_enqueued_is_not_there(store: Subject) {
    let task = store.named([spec()]).await.remove(0);
    assert_eq!(store.get(task.id).await.unwrap(), None);
    assert_eq!(store.attempts(task.id).await.unwrap(), []);
    let settle = queue_core::Settle::by_holder(task.id, store.claim_id(), super::subject::complete());
    assert_eq!(store.settle_one(settle).await, Settled::Stale);
}
