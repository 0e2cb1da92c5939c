//! How much one claim takes.

use std::collections::BTreeMap;
use std::time::Duration;

use queue_core::settlement::Requeue;
use queue_core::{ClaimedTask, Payload, Priority, Scope, SessionId, Settlement, TaskId, TaskSpec};

use super::Subject;
use super::subject::{OTHER, TYPE, of_type, spec};

/// How often a case asks again, where a store may take a part of what fits in one claim.
const TRIES: usize = 20;

/// Never more tasks than there is room for, and none when there is none.
pub async fn bounds_the_tasks(store: Subject) {
    store.put_all((0..30).map(|_| spec())).await;
    let session = store.session().await;
    let claimed = store.ask(store.request(session, 0)).await;
    assert_eq!(claimed.tasks, []);
    assert!(claimed.next_due.is_some_and(|due| due <= claimed.now));
    assert_eq!(store.grab(session, 7).await.len(), 7);
    assert_eq!(store.grab(session, 23).await.len(), 23);
}

/// Any number is a capacity, however absurd; a claim is still no larger than a batch.
pub async fn may_be_without_bound(store: Subject) {
    store.put_all((0..5).map(|_| spec())).await;
    let session = store.session().await;
    let mut request = store.request(session, usize::MAX);
    request.capacity.per_type = vec![(TYPE, usize::MAX)];
    assert_eq!(store.ask(request).await.tasks.len(), 5);
    let limit = store.limits().batch_max;
    for _ in 0..2 {
        store.put_all((0..limit).map(|_| spec())).await;
    }
    let taken = store.grab(session, usize::MAX).await.len();
    assert!(0 < taken && taken <= limit, "{taken}");
}

/// Never more payload bytes than there is room for.
pub async fn bounds_the_bytes(store: Subject) {
    let sized = |bytes| TaskSpec { payload: Payload::json(vec![b'1'; bytes]), ..spec() };
    store.put_all([100, 60, 90, 20, 100, 30].map(sized)).await;
    let session = store.session().await;
    let mut left = 6;
    for _ in 0..TRIES {
        let mut request = store.request(session, 10);
        request.capacity.bytes = 170;
        let tasks = store.ask(request).await.tasks;
        let bytes: usize = tasks.iter().map(|task| task.payload.body().len()).sum();
        assert!(bytes <= 170, "{bytes}");
        left -= tasks.len();
    }
    assert_eq!(left, 0);
}

/// "A single larger task is taken alone."
pub async fn a_task_larger_than_the_bytes_is_taken_alone(store: Subject) {
    let sized = |bytes| TaskSpec { payload: Payload::json(vec![b'1'; bytes]), ..spec() };
    let ids = store.put_all([5_000, 10, 10].map(sized)).await;
    let session = store.session().await;
    let mut request = store.request(session, 10);
    request.capacity.bytes = 100;
    let tasks = store.ask(request).await.tasks;
    assert_eq!(tasks.iter().map(|task| task.id).collect::<Vec<_>>(), ids[..1]);
    let mut request = store.request(session, 10);
    request.capacity.bytes = 0;
    assert_eq!(store.ask(request).await.tasks.len(), 1, "no room for bytes is room for one task");
}

/// A type with a limit of its own does not take more; the others are limited by the whole.
pub async fn bounds_each_type(store: Subject) {
    store.put_all((0..12).map(|number| if number % 2 == 0 { spec() } else { of_type(OTHER) })).await;
    let session = store.session().await;
    let mut request = store.request(session, 7);
    request.scope = Scope::of([TYPE, OTHER]);
    request.capacity.per_type = vec![(TYPE, 2)];
    let mut taken = BTreeMap::new();
    for task in store.ask(request).await.tasks {
        *taken.entry(task.task_type).or_insert(0) += 1;
    }
    assert!(taken.get(&TYPE).is_none_or(|&number| number <= 2), "{taken:?}");
    assert!(taken.values().sum::<usize>() <= 7, "{taken:?}");
    assert!(taken.contains_key(&OTHER), "{taken:?}");
}

/// Tasks of a type that has no room do not hide those of another, however many there are in front.
pub async fn a_full_type_hides_no_other(store: Subject) {
    store.put_all((0..500).map(|_| TaskSpec { priority: Priority::HIGH, ..spec() })).await;
    let wanted = store.put_all((0..3).map(|_| of_type(OTHER))).await;
    let session = store.session().await;
    let mut taken = Vec::new();
    for _ in 0..TRIES {
        let mut request = store.request(session, 10);
        request.scope = Scope::of([TYPE, OTHER]);
        request.capacity.per_type = vec![(TYPE, 0)];
        taken.extend(store.ask(request).await.tasks.into_iter().map(|task| task.id));
    }
    assert_eq!(taken, wanted);
}

/// Makes suspects: tasks whose worker was lost.
async fn suspects(store: &Subject, session: SessionId, count: usize) -> Vec<TaskId> {
    let ids = store.put_all((0..count).map(|_| spec())).await;
    for task in store.grab_all(session, count).await {
        let kind = Requeue::Recover { error: "lost".into() };
        store.end(&task, Settlement::Requeue { delay: Duration::ZERO, kind }).await;
    }
    ids
}

/// Suspects are bounded by themselves: none without room for them, and those that find no room hide no other task.
pub async fn bounds_the_suspects(store: Subject) {
    let session = store.session().await;
    let lost = suspects(&store, session, 5).await;
    let plain = store.put_all((0..5).map(|_| spec())).await;
    let suspicious = |tasks: &[ClaimedTask]| tasks.iter().filter(|task| task.is_suspect()).count();
    let mut taken = Vec::new();
    for _ in 0..TRIES {
        let mut request = store.request(session, 3);
        request.capacity.suspects = 0;
        let tasks = store.ask(request).await.tasks;
        assert_eq!(suspicious(&tasks), 0, "{tasks:?}");
        taken.extend(tasks.into_iter().map(|task| task.id));
    }
    taken.sort_unstable();
    assert_eq!(taken, plain);
    let mut taken = Vec::new();
    for _ in 0..TRIES {
        let mut request = store.request(session, 3);
        request.capacity.suspects = 1;
        let tasks = store.ask(request).await.tasks;
        assert!(tasks.len() <= 1 && suspicious(&tasks) == tasks.len(), "{tasks:?}");
        taken.extend(tasks.into_iter().map(|task| task.id));
    }
    taken.sort_unstable();
    assert_eq!(taken, lost);
}

/// A suspect is told by its losses, and taken beside ordinary tasks.
pub async fn suspects_go_beside_ordinary_tasks(store: Subject) {
    let session = store.session().await;
    let lost = suspects(&store, session, 2).await;
    let plain = store.put_all((0..2).map(|_| spec())).await;
    let mut tasks = store.grab_all(session, 4).await;
    tasks.sort_by_key(|task| task.id);
    let told: Vec<_> = tasks.iter().map(|task| (task.id, task.losses, task.attempt)).collect();
    assert_eq!(told, [(lost[0], 1, 2), (lost[1], 1, 2), (plain[0], 0, 1), (plain[1], 0, 1)]);
}

/// Many suspects in front hide no ordinary task.
pub async fn many_suspects_hide_no_ordinary_task(store: Subject) {
    let session = store.session().await;
    suspects(&store, session, 300).await;
    let plain = store.put(spec()).await;
    let mut taken = Vec::new();
    for _ in 0..TRIES {
        let mut request = store.request(session, 10);
        request.capacity.suspects = 0;
        taken.extend(store.ask(request).await.tasks.into_iter().map(|task| task.id));
    }
    assert_eq!(taken, [plain]);
}

/// What a claim had no room for is due all the same: it is within the scope, and there is more right away.
pub async fn what_has_no_room_is_still_due(store: Subject) {
    let session = store.session().await;
    suspects(&store, session, 1).await;
    let mut no_suspects = store.request(session, 5);
    no_suspects.capacity.suspects = 0;
    let mut none_of_the_type = store.request(session, 5);
    none_of_the_type.capacity.per_type = vec![(TYPE, 0)];
    for request in [no_suspects, none_of_the_type] {
        let claimed = store.ask(request).await;
        assert_eq!(claimed.tasks, []);
        assert!(claimed.next_due.is_some_and(|due| due <= claimed.now), "{claimed:?}");
    }
    assert_eq!(store.grab(session, 5).await.len(), 1);
}

/// What did not fit because of its bytes is due as well, behind what was taken; whether or not there are tasks of other types.
pub async fn what_does_not_fit_is_still_due(store: Subject) {
    let session = store.session().await;
    for others in 0..2 {
        let ids = store.put_all((0..4).map(|_| TaskSpec { payload: Payload::json(vec![b'1'; 100]), ..spec() })).await;
        store.put_all((0..others).map(|_| of_type(OTHER))).await;
        for (place, id) in ids.iter().enumerate() {
            let mut request = store.request(session, 10);
            request.capacity.bytes = 150;
            let claimed = store.ask(request).await;
            assert_eq!(claimed.tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [*id]);
            let more = claimed.next_due.is_some_and(|due| due <= claimed.now);
            assert_eq!(more, place + 1 < ids.len(), "{place}: {claimed:?}");
        }
    }
}
