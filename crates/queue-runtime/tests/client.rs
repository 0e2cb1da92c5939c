//! The client on the store in memory.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use queue_core::admin::Acted;
use queue_core::{Payload, StoreLimits};
use queue_runtime::testing::memory_queue;
use queue_runtime::{
    Budget, EnqueueError, Enqueued, Options, Priority, Queue, QueueName, Retry, Start, Status, Task, TaskId, TaskSpec,
    TaskType, Timestamp,
};
use queue_testkit::MemoryStore;
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Welcome {
    email: String,
}

impl Task for Welcome {
    const TYPE: TaskType = TaskType::new("mail.welcome");
    type Output = ();
    const OPTIONS: Options = Options::DEFAULT.queue("mail").retry(Retry::NEVER);
}

fn welcome(email: &str) -> Welcome {
    Welcome { email: email.to_owned() }
}

fn small(limits: StoreLimits) -> Queue<MemoryStore> {
    Queue::new(MemoryStore::new().with_limits(limits))
}

#[tokio::test]
async fn a_task_is_written_as_its_type_says() {
    let queue = memory_queue();
    let id = queue.enqueue(&welcome("ada@example.com")).await.unwrap().id();
    let record = queue.get(id).await.unwrap().unwrap();
    assert_eq!((record.task_type.as_str(), record.queue.as_str()), ("mail.welcome", "mail"));
    assert_eq!((record.state.status, record.state.max_attempts), (Status::Queued, 1));
    assert_eq!(queue.enqueued::<Welcome>(), [welcome("ada@example.com")]);
}

#[tokio::test]
async fn a_producer_may_say_more() {
    let queue = memory_queue();
    let id = queue
        .enqueue(&welcome("ada@example.com"))
        .queue("bulk")
        .priority(Priority::LOW)
        .delay(Duration::from_mins(5))
        .retry(Retry::fixed(Duration::from_secs(1)))
        .max_attempts(9)
        .budget(Budget::NONE)
        .await
        .unwrap()
        .id();
    let record = queue.get(id).await.unwrap().unwrap();
    assert_eq!((record.queue.as_str(), record.priority), ("bulk", Priority::LOW));
    assert_eq!((record.backoff.to_string().as_str(), record.state.max_attempts), ("fixed:1000000", 9));
    assert_eq!(record.state.deadline_at, None);
    assert_eq!(record.state.run_at.since(record.state.created_at), Duration::from_mins(5));
}

#[tokio::test]
async fn a_task_may_start_at_a_point_in_time() {
    let queue = memory_queue();
    let in_2100 = Duration::from_secs(4_102_444_800);
    let by_system_time = queue.enqueue(&welcome("a")).at(SystemTime::UNIX_EPOCH + in_2100).await.unwrap().id();
    let by_timestamp =
        queue.enqueue(&welcome("b")).start(Start::At(Timestamp::EPOCH.after(in_2100))).await.unwrap().id();
    for id in [by_system_time, by_timestamp] {
        assert_eq!(queue.get(id).await.unwrap().unwrap().state.run_at, Timestamp::EPOCH.after(in_2100));
    }
    let long_ago = SystemTime::UNIX_EPOCH - in_2100;
    let id = queue.enqueue(&welcome("c")).at(long_ago).await.unwrap().id();
    let state = queue.get(id).await.unwrap().unwrap().state;
    assert_eq!(state.run_at, state.created_at);
}

#[tokio::test]
async fn a_key_makes_a_repeat_harmless() {
    let queue = memory_queue();
    let first = queue.enqueue(&welcome("ada")).key("signup-7").await.unwrap();
    let again = queue.enqueue(&welcome("ada")).key("signup-7").await.unwrap();
    assert_eq!((first, again), (Enqueued::Created(first.id()), Enqueued::Existing(first.id())));

    let error = queue.enqueue(&welcome("bob")).key("signup-7").await.unwrap_err();
    assert!(matches!(error, EnqueueError::KeyConflict { existing } if existing == first.id()), "{error}");
    assert_eq!(queue.enqueued::<Welcome>().len(), 1);
}

#[tokio::test]
async fn what_is_no_name_or_key_is_refused() {
    let queue = memory_queue();
    let told = |error: EnqueueError| error.to_string();
    assert_eq!(
        told(queue.enqueue(&welcome("a")).queue("no spaces").priority(Priority::LOW).await.unwrap_err()),
        "not the name of a queue: a name must not contain what is at its byte 3; use 1 to 64 of A-Z a-z 0-9 . _ -"
    );
    assert_eq!(
        told(queue.enqueue(&welcome("a")).key("").await.unwrap_err()),
        "an idempotency key has 1 to 128 bytes, not 0"
    );
    let error = queue.enqueue_all(&[welcome("a"), welcome("b")]).queue("").await.unwrap_err();
    assert_eq!(error.index, Some(0));
    assert!(queue.enqueued::<Welcome>().is_empty());
}

#[derive(Serialize, Deserialize)]
struct Unwritable {
    by_list: BTreeMap<Vec<u8>, u8>,
}

impl Task for Unwritable {
    const TYPE: TaskType = TaskType::new("bad.keys");
    type Output = ();
}

#[tokio::test]
async fn a_payload_that_does_not_encode_is_refused() {
    let queue = memory_queue();
    let good = Unwritable { by_list: BTreeMap::new() };
    let bad = Unwritable { by_list: BTreeMap::from([(vec![1], 1)]) };
    let error = queue.enqueue(&bad).await.unwrap_err();
    assert!(error.to_string().starts_with("a task of type bad.keys cannot be written: "), "{error}");
    let error = queue.enqueue_all([&good, &bad]).await.unwrap_err();
    assert_eq!((error.index, error.written.len()), (Some(1), 0));
    assert!(queue.enqueued::<Unwritable>().is_empty());
}

#[tokio::test]
async fn many_tasks_go_in_batches_that_the_store_takes() {
    let queue = small(StoreLimits { batch_max: 3, batch_bytes_max: 40, ..StoreLimits::DEFAULT });
    let tasks = (0..20).map(|n| welcome(&n.to_string())).collect::<Vec<_>>();
    let enqueued = queue.enqueue_all(&tasks).priority(Priority::HIGH).delay(Duration::ZERO).await.unwrap();
    let ids = enqueued.iter().map(|one| one.id().get()).collect::<Vec<_>>();
    assert!(ids.is_sorted() && ids.len() == 20, "{ids:?}");
    assert_eq!(queue.enqueued::<Welcome>(), tasks);
    assert!(queue.enqueue_all::<Welcome>([]).await.unwrap().is_empty());
}

#[tokio::test]
async fn tasks_of_one_queue_and_priority_get_ids_that_follow_on_one_another() {
    let queue = memory_queue();
    let lanes = [("b", Priority::HIGH), ("a", Priority::LOW), ("b", Priority::LOW), ("a", Priority::HIGH)];
    let specs = (0..12).map(|number| {
        let (name, priority) = lanes[number % lanes.len()];
        let mut spec = TaskSpec::new(Welcome::TYPE, Payload::json(format!("{number}")));
        (spec.queue, spec.priority) = (QueueName::new(name), priority);
        spec
    });
    let ids: Vec<_> = queue.enqueue_specs(specs).await.unwrap().iter().map(|one| one.id().get()).collect();
    let first = ids.iter().min().unwrap();
    let places: Vec<_> = ids.iter().map(|id| id - first).collect();
    assert_eq!(places, [9, 0, 3, 6, 10, 1, 4, 7, 11, 2, 5, 8], "in the order of the batch within each");
}

#[tokio::test]
async fn one_task_that_is_too_large_keeps_all_from_being_written() {
    let queue = small(StoreLimits { batch_max: 1, payload_bytes_max: 20, ..StoreLimits::DEFAULT });
    let tasks = [welcome("short"), welcome("too long to be taken")];
    let error = queue.enqueue_all(&tasks).await.unwrap_err();
    assert!(matches!(error.source, EnqueueError::TooLarge { size: 32, limit: 20 }), "{error}");
    assert_eq!(
        error.to_string(),
        "task 1 of the batch: a payload of 32 bytes is over the limit of 20; none was written before"
    );
    assert!(queue.enqueued::<Welcome>().is_empty());
}

#[tokio::test]
async fn types_may_be_known_only_at_run_time() {
    let queue = memory_queue();
    let spec = |body: &'static str| TaskSpec::new(TaskType::parse("mail.welcome").unwrap(), Payload::json(body));
    queue.enqueue_spec(spec(r#"{"email":"a"}"#)).await.unwrap();
    queue.enqueue_specs([spec(r#"{"email":"b"}"#)]).await.unwrap();
    assert_eq!(queue.enqueued::<Welcome>(), [welcome("a"), welcome("b")]);
}

#[tokio::test]
async fn concurrent_producers_get_ids_of_their_own() {
    let queue = memory_queue();
    let producers = (0..8).map(|_| {
        let queue = queue.clone();
        tokio::spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..50 {
                ids.push(queue.enqueue(&welcome("a")).await.unwrap().id());
            }
            ids
        })
    });
    let mut ids = Vec::new();
    for producer in producers.collect::<Vec<_>>() {
        ids.extend(producer.await.unwrap());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 400);
}

#[tokio::test]
async fn an_enqueue_wakes_who_waits_and_who_is_about_to() {
    let queue = memory_queue();
    let signal = queue.wake_signal();
    queue.enqueue(&welcome("a")).await.unwrap();
    signal.notified().await;

    let (one, other) = (signal.notified(), signal.notified());
    tokio::pin!(one, other);
    assert!(!one.as_mut().enable() && !other.as_mut().enable());
    queue.clone().wake();
    one.await;
    other.await;
}

#[tokio::test]
async fn a_waiting_task_can_be_cancelled() {
    let queue = memory_queue();
    let id = queue.enqueue(&welcome("a")).await.unwrap().id();
    assert_eq!(queue.cancel(id).await.unwrap(), Acted::Done);
    assert_eq!(queue.get(id).await.unwrap().unwrap().state.status, Status::Failed);
    let nobody = TaskId::new(999_999).unwrap();
    assert_eq!(queue.cancel(nobody).await.unwrap(), Acted::NotFound);
    assert_eq!(queue.get(nobody).await.unwrap(), None);
}

#[tokio::test]
async fn a_queue_may_forget_its_stores_type() {
    let typed = memory_queue();
    let erased: Queue = typed.erase();
    assert!(erased.migrate().await.unwrap().is_empty());
    assert!(erased.schema().await.unwrap().check().is_ok());
    erased.clone().enqueue(&welcome("a")).await.unwrap();
    assert_eq!(typed.enqueued::<Welcome>().len(), 1);
    assert_eq!(erased.store().limits(), typed.erased_store().limits());
    assert!(format!("{erased:?}").starts_with("Queue { store: MemoryStore"), "{erased:?}");
}
