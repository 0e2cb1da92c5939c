//! Taking due tasks.

use std::time::Duration;

use queue_core::budget::Budget;
use queue_core::claim::Ended;
use queue_core::{
    ClaimReply, Enqueued, FailureReason, Fence, Priority, QueueName, Queues, Retry, Scope, Start, Status, TaskId,
    TaskSpec, Timestamp,
};

use super::Subject;
use super::subject::{OTHER, TYPE, in_queue, of_type, spec};

const LATER: Duration = Duration::from_secs(3600);

fn named(queues: &[&'static str]) -> Queues {
    Queues::Named(queues.iter().map(|name| QueueName::new(name)).collect())
}

/// A claim tells all that a run needs, and "has its attempt and its fence raised and its claim set before this returns".
pub async fn takes_a_task_and_marks_it(store: Subject) {
    let wanted = TaskSpec { priority: Priority::new(3), retry: Retry::NEVER.attempts(4), ..in_queue("reports") };
    let id = store.put(wanted.clone()).await;
    let queued = store.record(id).await;
    let session = store.session().await;
    let request = store.request(session, 10);
    let claimed = store.ask(request.clone()).await;
    assert_eq!((claimed.tasks.len(), claimed.ended), (1, vec![]));
    let task = &claimed.tasks[0];
    assert_eq!((task.id, task.claim, &task.task_type, &task.queue), (id, request.claim, &TYPE, &wanted.queue));
    assert_eq!((task.priority, task.attempt, task.max_attempts), (wanted.priority, 1, 4));
    assert_eq!((&task.backoff, task.fence, task.losses), (wanted.retry.backoff(), Fence::new(1), 0));
    assert_eq!((task.created_at, task.run_at), (queued.state.created_at, queued.state.run_at));
    assert_eq!((task.started_at, task.deadline_at), (claimed.now, queued.state.deadline_at));
    assert_eq!(task.payload, wanted.payload);
    assert!(claimed.now >= queued.state.run_at && claimed.now <= store.now().await);
    let record = store.record(id).await;
    let event = queue_core::Event::Claim(request.claim);
    assert_eq!(record.state, queue_core::transition(&queued.state, &event, claimed.now).unwrap());
    assert_eq!((record.state.status, record.worker.as_deref()), (Status::Running, Some("worker")));
}

/// Nothing is due: an empty claim, and no next due time.
pub async fn of_nothing_is_empty(store: Subject) {
    let session = store.session().await;
    let before = store.now().await;
    let claimed = store.ask(store.request(session, 10)).await;
    assert_eq!((claimed.tasks, claimed.ended, claimed.next_due), (vec![], vec![], None));
    assert!(before <= claimed.now);
}

/// A task is not taken before it is due, and its due time is told.
pub async fn leaves_what_is_not_due(store: Subject) {
    let ids = store.put_all([LATER * 2, LATER].map(|delay| TaskSpec { start: Start::After(delay), ..spec() })).await;
    let session = store.session().await;
    let claimed = store.ask(store.request(session, 10)).await;
    assert_eq!(claimed.tasks, []);
    assert_eq!(claimed.next_due, Some(store.record(ids[1]).await.state.run_at));
}

/// A task that becomes due is taken then.
pub async fn takes_what_becomes_due(store: Subject) {
    let id = store.put(TaskSpec { start: Start::After(Duration::from_millis(40)), ..spec() }).await;
    let session = store.session().await;
    let task = store.grab_one(session).await;
    assert_eq!(task.id, id);
    assert!(task.started_at >= task.run_at);
}

/// The next due time is "not after now when there is more right away", and none when nothing is left.
pub async fn says_whether_there_is_more(store: Subject) {
    store.put_all((0..3).map(|_| spec())).await;
    let session = store.session().await;
    for wanted in [true, true, false] {
        let claimed = store.ask(store.request(session, 1)).await;
        assert_eq!(claimed.tasks.len(), 1);
        assert_eq!(claimed.next_due.is_some_and(|due| due <= claimed.now), wanted, "{claimed:?}");
    }
    assert_eq!(store.ask(store.request(session, 1)).await.next_due, None);
}

/// The next due time is that of tasks "that this scope could take": not of other types, other queues or paused queues.
pub async fn the_next_due_time_is_that_of_its_scope(store: Subject) {
    store.put_all([of_type(OTHER), in_queue("elsewhere"), in_queue("paused")]).await;
    let pause = queue_core::admin::Pause { by: "suite".into(), why: String::new(), at: Timestamp::EPOCH };
    store.set_paused(QueueName::new("paused"), Some(pause), "suite").await.unwrap();
    let session = store.session().await;
    let mut request = store.request(session, 10);
    request.scope.queues = named(&["default", "paused", "unknown"]);
    let claimed = store.ask(request.clone()).await;
    assert_eq!((claimed.tasks, claimed.next_due), (vec![], None));
    let mine = store.put(TaskSpec { start: Start::After(LATER), ..spec() }).await;
    request.claim = store.claim_id();
    assert_eq!(store.ask(request).await.next_due, Some(store.record(mine).await.state.run_at));
}

/// "Within a queue the higher priority first … then the lower id", within one claim and from claim to claim.
pub async fn takes_the_higher_priority_first(store: Subject) {
    let priorities = [0, 100, -100, 1, 0, 100, -1, 50];
    let ids = store.put_all(priorities.map(|number| TaskSpec { priority: Priority::new(number), ..spec() })).await;
    let mut order: Vec<_> =
        priorities.into_iter().zip(ids).map(|(number, id)| (Priority::new(number).rank(), id)).collect();
    order.sort_unstable();
    let order: Vec<TaskId> = order.into_iter().map(|(_, id)| id).collect();
    let session = store.session().await;
    let mut taken = Vec::new();
    for tasks in [1, 3, 2, 2] {
        taken.extend(store.grab(session, tasks).await.into_iter().map(|task| task.id));
    }
    assert_eq!(taken, order);
}

/// "… then the earlier due time": a task enqueued later, but due earlier, comes first.
pub async fn takes_the_earlier_due_time_first(store: Subject) {
    let slow = store.put(TaskSpec { start: Start::After(Duration::from_millis(60)), ..spec() }).await;
    let middle = store.put(TaskSpec { start: Start::After(Duration::from_millis(20)), ..spec() }).await;
    let quick = store.put(spec()).await;
    let late = store.record(slow).await.state.run_at;
    let wanted = {
        let mut due = Vec::new();
        for id in [slow, middle, quick] {
            due.push((store.record(id).await.state.run_at, id));
        }
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).collect::<Vec<_>>()
    };
    store.past(late).await;
    let session = store.session().await;
    let taken: Vec<_> = store.grab_all(session, 3).await.into_iter().map(|task| task.id).collect();
    assert_eq!(taken, wanted);
}

/// A task written under an id reserved long ago is found, though many were claimed past it.
pub async fn finds_what_comes_in_behind(store: Subject) {
    let session = store.session().await;
    let early = store.named([spec(), TaskSpec { priority: Priority::HIGH, ..spec() }]).await;
    for _ in 0..3 {
        store.put_all((0..20).map(|_| spec())).await;
        assert_eq!(store.grab_all(session, 20).await.len(), 20);
    }
    for task in early {
        assert_eq!(store.write(std::slice::from_ref(&task)).await.unwrap(), [Enqueued::Created(task.id)]);
        assert_eq!(store.grab_one(session).await.id, task.id);
    }
}

/// "It claims no other" type, so that a rolling deploy loses nothing.
pub async fn takes_only_its_types(store: Subject) {
    let ids = store.put_all([of_type(OTHER), spec(), of_type(OTHER)]).await;
    let session = store.session().await;
    let taken: Vec<_> = store.grab(session, 10).await.into_iter().map(|task| task.id).collect();
    assert_eq!(taken, [ids[1]]);
    let mut none = store.request(session, 10);
    none.scope = Scope::of([]);
    assert_eq!(store.ask(none).await.tasks, []);
    let mut both = store.request(session, 10);
    both.scope = Scope::of([TYPE, OTHER]);
    assert_eq!(store.ask(both).await.tasks.len(), 2);
}

/// A rare type is found behind many tasks of another.
pub async fn finds_a_rare_type_behind_many(store: Subject) {
    store.put_all((0..400).map(|_| of_type(OTHER))).await;
    let rare = store.put(spec()).await;
    let session = store.session().await;
    assert_eq!(store.grab_one(session).await.id, rare);
}

/// It serves the queues it names, and none when it names none.
pub async fn takes_only_from_its_queues(store: Subject) {
    let ids = store.put_all(["a", "b", "c", "b"].map(in_queue)).await;
    let session = store.session().await;
    let mut taken = Vec::new();
    for queues in [Queues::none(), named(&["unknown"]), named(&["b", "c"]), Queues::All] {
        let mut request = store.request(session, 10);
        request.scope.queues = queues;
        let mut some: Vec<_> = store.ask(request).await.tasks.into_iter().map(|task| task.id).collect();
        some.sort_unstable();
        taken.push(some);
    }
    assert_eq!(taken, [vec![], vec![], vec![ids[1], ids[2], ids[3]], vec![ids[0]]]);
}

/// Tasks of unregistered types are failed only where the worker was told to, in queues it serves, and when they are due.
pub async fn fails_unregistered_types_where_told(store: Subject) {
    let other = |queue| TaskSpec { task_type: OTHER, ..in_queue(queue) };
    let later = TaskSpec { start: Start::After(LATER), ..other("strict") };
    let ids = store.put_all([other("strict"), other("lenient"), in_queue("strict"), other("unserved"), later]).await;
    let session = store.session().await;
    let mut request = store.request(session, 10);
    request.scope.queues = named(&["strict", "lenient"]);
    request.scope.fail_unregistered = named(&["strict", "unserved"]);
    let claimed = store.ask(request).await;
    assert_eq!(claimed.tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [ids[2]]);
    let ended = Ended { id: ids[0], task_type: OTHER, reason: FailureReason::Unregistered };
    assert_eq!(claimed.ended, [ended]);
    let state = store.record(ids[0]).await.state;
    assert_eq!((state.status, state.reason), (Status::Failed, Some(FailureReason::Unregistered)));
    assert_eq!((state.attempt, state.fence, state.completed_at), (0, Fence::default(), Some(claimed.now)));
    for id in [ids[1], ids[3], ids[4]] {
        assert_eq!(store.record(id).await.state.status, Status::Queued);
    }
}

/// "Spent before dispatch ⇒ failed, without a run, without an attempt."
pub async fn expires_what_has_no_budget_left(store: Subject) {
    let id = store.put(TaskSpec { budget: Budget::of(Duration::from_millis(1)), ..spec() }).await;
    store.past(store.record(id).await.state.deadline_at.unwrap()).await;
    let alive = store.put(spec()).await;
    let session = store.session().await;
    let claimed = store.ask(store.request(session, 10)).await;
    assert_eq!(claimed.tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [alive]);
    assert_eq!(claimed.ended, [Ended { id, task_type: TYPE, reason: FailureReason::BudgetExceeded }]);
    let state = store.record(id).await.state;
    assert_eq!((state.status, state.reason), (Status::Failed, Some(FailureReason::BudgetExceeded)));
    assert_eq!((state.attempt, state.fence), (0, Fence::default()));
    assert_eq!(store.grab(session, 10).await, []);
}

/// A claim of a session that is not there takes nothing.
pub async fn of_an_unknown_session_is_fenced(store: Subject) {
    let id = store.put(spec()).await;
    let request = store.request(store.session_id(), 10);
    assert_eq!(store.claim(request).await.unwrap(), ClaimReply::Fenced);
    assert_eq!(store.record(id).await.state.status, Status::Queued);
}

/// Attempt and fence rise with each claim; a fence never falls, an attempt does when it is given back.
pub async fn raises_attempt_and_fence(store: Subject) {
    use queue_core::settlement::Requeue;
    let (session, mut task) = store.running(TaskSpec { retry: Retry::DEFAULT.attempts(5), ..spec() }).await;
    let kinds = [
        (Requeue::Retry { error: "one".into() }, 2),
        (Requeue::Snooze, 2),
        (Requeue::Release, 2),
        (Requeue::Retry { error: "two".into() }, 3),
    ];
    for (fence, (kind, attempt)) in (2..).zip(kinds) {
        store.end(&task, queue_core::Settlement::Requeue { delay: Duration::ZERO, kind }).await;
        task = store.grab_one(session).await;
        assert_eq!((task.attempt, task.fence), (attempt, Fence::new(fence)));
    }
}
