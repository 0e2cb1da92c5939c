//! Bytes, texts and names come back exactly.

use std::time::Duration;

use bytes::Bytes;
use queue_core::payload::ContentType;
use queue_core::progress::ProgressUpdate;
use queue_core::{
    Backoff, ErrorKind, ErrorText, FailureReason, Payload, Percent, Priority, Progress, QueueName, Retry, Scope,
    Settlement, TaskResult, TaskSpec, TaskType,
};

use super::Subject;
use super::subject::{complete, spec};

/// Texts that an encoding, a collation or a quoting that is not quite right would change.
const TEXTS: [&str; 8] = [
    "plain",
    " spaces around ",
    "quotes ' \" ` \\ \\' %_",
    "zero \0 and control \u{1} \r\n\t",
    "é ß ä 中文 \u{301}",
    "\u{1f980} \u{10ffff}",
    "'); DROP TABLE task; --",
    "?1 :name $1",
];

/// Payloads are opaque: empty, binary, JSON that nobody would write, and what is no JSON at all.
pub async fn payloads_come_back_exactly(store: Subject) {
    let mut bodies: Vec<Bytes> = TEXTS.iter().map(|text| Bytes::from_static(text.as_bytes())).collect();
    bodies.push(Bytes::new());
    bodies.push((0..=255).collect::<Vec<u8>>().into());
    bodies.push(vec![0; 300].into());
    bodies.push(vec![0xff; 70_000].into());
    bodies.push(Bytes::from_static(b" { \"b\" : 1.0e0, \"a\": 1.10, \"a\": 12345678901234567890123 } \n"));
    let payloads: Vec<_> = bodies
        .into_iter()
        .flat_map(|body| [Payload::json(body.clone()), Payload::new(ContentType::Binary, body)])
        .collect();
    let ids = store.put_all(payloads.iter().map(|payload| TaskSpec { payload: payload.clone(), ..spec() })).await;
    for (id, payload) in ids.iter().zip(&payloads) {
        assert!(store.record(*id).await.payload == *payload, "{payload:?} is changed when looked at");
    }
    let session = store.session().await;
    for task in store.grab_all(session, payloads.len()).await {
        let index = ids.iter().position(|id| *id == task.id).unwrap();
        assert!(task.payload == payloads[index], "{:?} is changed when claimed", payloads[index]);
    }
}

/// Results come back exactly, none apart from an empty one, and one that was dropped with its size.
pub async fn results_come_back_exactly(store: Subject) {
    let limit = usize::try_from(store.limits().result_bytes_max).unwrap();
    let results = [
        TaskResult::None,
        TaskResult::Value(Bytes::from_static(b"null")),
        TaskResult::Value(Bytes::from_static(b" {\"z\": 1.0e0, \"a\":\"\xc3\xa9\"} ")),
        TaskResult::Value(vec![b'7'; limit].into()),
        TaskResult::Dropped { bytes: 1 << 40 },
    ];
    for result in results {
        let (_, task) = store.running(spec()).await;
        store.end(&task, Settlement::Complete { result: result.clone() }).await;
        assert!(store.record(task.id).await.result == result, "{result:?} is changed");
    }
}

/// "The largest result, in bytes; a larger one is dropped and flagged": by the store, whoever forgot to.
pub async fn a_result_over_the_limit_is_dropped_and_flagged(store: Subject) {
    let bytes = store.limits().result_bytes_max + 1;
    let (_, task) = store.running(spec()).await;
    let result = TaskResult::Value(vec![b'7'; usize::try_from(bytes).unwrap()].into());
    store.end(&task, Settlement::Complete { result }).await;
    assert_eq!(store.record(task.id).await.result, TaskResult::Dropped { bytes });
}

/// Error texts, in the task and in its history, up to the longest.
pub async fn errors_come_back_exactly(store: Subject) {
    let longest = ["\u{1f980}".repeat(2_000), "x".repeat(5_000)].map(ErrorText::new);
    let texts = TEXTS.iter().map(|text| ErrorText::from(*text)).chain(longest).chain([ErrorText::from("")]);
    for text in texts {
        let (_, task) = store.running(spec()).await;
        store.end(&task, Settlement::Fail { reason: FailureReason::Rejected, error: Some(text.clone()) }).await;
        assert_eq!(store.record(task.id).await.last_error.as_ref(), Some(&text));
        assert_eq!(store.attempts(task.id).await.unwrap()[0].error, text);
    }
}

/// Progress with any message, and with none.
pub async fn progress_comes_back_exactly(store: Subject) {
    let (_, task) = store.running(spec()).await;
    let messages = TEXTS.iter().map(|text| (*text).to_owned()).chain(["\u{1f980}".repeat(50), String::new()]);
    for (percent, message) in [0, 1, 99, 100].into_iter().cycle().zip(messages) {
        let progress = Progress::new(Percent::new(percent), message);
        let update = ProgressUpdate { task: task.id, claim: task.claim, progress: progress.clone() };
        store.progress(vec![update]).await.unwrap();
        assert_eq!(store.record(task.id).await.progress, Some(progress));
    }
    store.end(&task, complete()).await;
}

/// Names differ by case and by every character; the longest are kept; so is every priority.
pub async fn names_and_priorities_are_exact(store: Subject) {
    let (long, longer) = ("x".repeat(63), "x".repeat(64));
    let names = ["a", "A", "a.", "a_", "a-", ".a", "-", "0", "00", "NULL", "Az09._-", &long, &longer];
    let mut wanted = Vec::new();
    for (index, name) in names.iter().enumerate() {
        wanted.push(TaskSpec {
            queue: QueueName::parse(*name).unwrap(),
            task_type: TaskType::parse(names[(index + 1) % names.len()]).unwrap(),
            priority: [Priority::LOWEST, Priority::NORMAL, Priority::HIGHEST, Priority::new(-1)][index % 4],
            ..spec()
        });
    }
    let ids = store.put_all(wanted.clone()).await;
    let session = store.session().await;
    for (id, spec) in ids.iter().zip(&wanted) {
        let record = store.record(*id).await;
        assert_eq!((&record.queue, &record.task_type), (&spec.queue, &spec.task_type));
        assert_eq!(record.priority, spec.priority);
        let mut request = store.request(session, 100);
        request.scope = Scope::of([spec.task_type.clone()]);
        let tasks = store.ask(request).await.tasks;
        assert_eq!(tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [*id], "by the type {}", spec.task_type);
        assert_eq!((&tasks[0].queue, &tasks[0].task_type), (&spec.queue, &spec.task_type));
        assert_eq!(tasks[0].priority, spec.priority);
    }
    let queues: Vec<_> = store.stats().await.unwrap().queues.into_iter().map(|stats| stats.queue).collect();
    assert!(queues.is_sorted(), "queues come by name: {queues:?}");
    assert!(wanted.iter().all(|spec| queues.contains(&spec.queue)), "{queues:?}");
}

/// Any delay that a policy may have is kept, in whole microseconds; a list of them that is too long is refused.
pub async fn retry_policies_come_back(store: Subject) {
    let odd = Duration::from_nanos(1_234_567_891);
    let backoffs = [
        Backoff::DEFAULT,
        Backoff::Fixed(odd),
        Backoff::Fixed(Duration::MAX),
        Backoff::Steps(vec![odd, Duration::ZERO, Duration::MAX].into()),
        Backoff::Steps(Vec::new().into()),
        Backoff::Exponential { base: odd, max: Duration::MAX },
    ];
    let of = |backoff: &Backoff| TaskSpec { retry: Retry::new(backoff.clone()), ..spec() };
    let ids = store.put_all(backoffs.iter().map(of)).await;
    for (id, backoff) in ids.iter().zip(&backoffs) {
        assert_eq!(store.record(*id).await.backoff, backoff.kept());
    }
    let session = store.session().await;
    for task in store.grab_all(session, backoffs.len()).await {
        let index = ids.iter().position(|id| *id == task.id).unwrap();
        assert_eq!(task.backoff, backoffs[index].kept());
    }
    let endless = store.named([of(&Backoff::Steps(vec![odd; 1_000].into()))]).await;
    assert_eq!(store.write(&endless).await.unwrap_err().kind(), ErrorKind::TooLarge);
}
