//! Whether there is anything to wait for.

use std::time::Duration;

use queue_core::settlement::Requeue;
use queue_core::{QueueName, Queues, Scope, Settlement, Start, TaskSpec, Timestamp};

use super::Subject;
use super::subject::{OTHER, TYPE, complete, in_queue, of_type, spec};

const MINUTE: Duration = Duration::from_secs(60);

fn mine() -> Scope {
    Scope::of([TYPE])
}

/// Nothing is busy with nothing; a due task is, until it has ended.
pub async fn from_due_to_ended(store: Subject) {
    assert!(!store.is_busy(mine()).await.unwrap());
    store.put(spec()).await;
    assert!(store.is_busy(mine()).await.unwrap());
    let session = store.session().await;
    let task = store.grab_one(session).await;
    assert!(store.is_busy(mine()).await.unwrap(), "running, in whichever process");
    store.end(&task, complete()).await;
    assert!(!store.is_busy(mine()).await.unwrap());
}

/// "Waits to be run again (a retry, a snooze, a release)."
pub async fn what_waits_to_be_run_again(store: Subject) {
    let kinds = [
        Requeue::Retry { error: "again".into() },
        Requeue::Snooze,
        Requeue::Release,
        Requeue::Recover { error: "lost".into() },
    ];
    for kind in kinds {
        let (_, task) = store.running(spec()).await;
        store.end(&task, Settlement::Requeue { delay: MINUTE, kind: kind.clone() }).await;
        assert!(store.is_busy(mine()).await.unwrap(), "{kind:?}");
        store.act_one(task.id, queue_core::admin::Action::Cancel).await;
        assert!(!store.is_busy(mine()).await.unwrap());
    }
}

/// "A task that waits for its first due time does not count."
pub async fn not_what_is_due_later(store: Subject) {
    store.put(TaskSpec { start: Start::After(MINUTE), ..spec() }).await;
    assert!(!store.is_busy(mine()).await.unwrap());
}

/// "Nor does one in a paused queue": neither one that is due nor one that waits to be run again.
pub async fn not_what_is_paused(store: Subject) {
    let (_, task) = store.running(in_queue("paused")).await;
    store.end(&task, Settlement::Requeue { delay: MINUTE, kind: Requeue::Snooze }).await;
    store.put(in_queue("paused")).await;
    let queue = QueueName::new("paused");
    let pause = queue_core::admin::Pause { by: "ana".into(), why: String::new(), at: Timestamp::EPOCH };
    store.set_paused(queue.clone(), Some(pause), "ana").await.unwrap();
    assert!(!store.is_busy(mine()).await.unwrap());
    store.set_paused(queue, None, "ana").await.unwrap();
    assert!(store.is_busy(mine()).await.unwrap());
}

/// Only what the scope could take counts; what it would fail as unregistered does.
pub async fn only_what_is_in_scope(store: Subject) {
    store.put(of_type(OTHER)).await;
    assert!(!store.is_busy(mine()).await.unwrap());
    assert!(store.is_busy(Scope::of([OTHER])).await.unwrap());
    let strict = Scope { fail_unregistered: Queues::All, ..mine() };
    assert!(store.is_busy(strict).await.unwrap());
    let elsewhere = Scope { queues: Queues::Named([QueueName::new("elsewhere")].into()), ..Scope::of([OTHER]) };
    assert!(!store.is_busy(elsewhere.clone()).await.unwrap());
    store.put(TaskSpec { task_type: OTHER, ..in_queue("elsewhere") }).await;
    assert!(store.is_busy(elsewhere).await.unwrap());
    let nowhere = Scope { queues: Queues::none(), ..Scope::of([OTHER]) };
    assert!(!store.is_busy(nowhere).await.unwrap());
}
