//! How runs end.

use std::sync::Arc;
use std::time::Duration;

use queue_core::settlement::Requeue;
use queue_core::{
    ClaimId, ClaimedTask, Event, FailureReason, Retry, Settle, Settled, Settlement, Status, TaskId, TaskResult,
    TaskSpec, Timestamp, transition,
};

use super::Subject;
use super::subject::{complete, spec};

const MINUTE: Duration = Duration::from_secs(60);

fn requeue(delay: Duration, kind: Requeue) -> Settlement {
    Settlement::Requeue { delay, kind }
}

/// Every way in which a run can end.
fn all_settlements() -> Vec<Settlement> {
    let mut settlements = vec![
        complete(),
        Settlement::Complete { result: TaskResult::Value(b"[1]".as_slice().into()) },
        requeue(MINUTE, Requeue::Retry { error: "again".into() }),
        requeue(Duration::ZERO, Requeue::Retry { error: "at once".into() }),
        requeue(MINUTE, Requeue::Snooze),
        requeue(Duration::ZERO, Requeue::Release),
        requeue(Duration::from_millis(300), Requeue::Recover { error: "lost".into() }),
    ];
    for &reason in FailureReason::ALL {
        settlements.push(Settlement::Fail { reason, error: Some("failed".into()) });
        settlements.push(Settlement::Fail { reason, error: None });
    }
    settlements
}

/// The state that the core wants after this settle; the store's now is read off the state that came of it.
fn wanted(before: &queue_core::TaskState, after: &queue_core::TaskState, settle: &Settle) -> queue_core::TaskState {
    let now = match &settle.settlement {
        Settlement::Requeue { delay, .. } => after.run_at.before(*delay),
        Settlement::Complete { .. } | Settlement::Fail { .. } => after.completed_at.unwrap(),
    };
    let event = Event::Settle { claim: settle.claim, leaves: settle.leaves, settlement: &settle.settlement };
    transition(before, &event, now).unwrap()
}

/// A suspect on its second attempt, running: the state in which every field matters.
async fn second_run(store: &Subject) -> ClaimedTask {
    let (session, task) = store.running(TaskSpec { retry: Retry::DEFAULT.attempts(5), ..spec() }).await;
    store.end(&task, requeue(Duration::ZERO, Requeue::Recover { error: "lost".into() })).await;
    store.grab_one(session).await
}

/// Each settlement, by the holder and by the reaper, leaves the very state that the core says, at the store's now.
pub async fn every_settlement_is_applied_as_the_core_says(store: Subject) {
    for settlement in all_settlements() {
        for reaped in [false, true] {
            let task = second_run(&store).await;
            let leaves = if reaped { store.claim_id() } else { task.claim };
            let settle = Settle { task: task.id, claim: task.claim, leaves, settlement: settlement.clone() };
            let before = store.record(task.id).await.state;
            let earliest = store.now().await;
            assert_eq!(store.settle_one(settle.clone()).await, Settled::Applied);
            let latest = store.now().await;
            let record = store.record(task.id).await;
            assert_eq!(record.state, wanted(&before, &record.state, &settle), "{settlement:?}");
            let (first, last) = match &settlement {
                Settlement::Requeue { delay, .. } => (earliest.after(*delay), latest.after(*delay)),
                Settlement::Complete { .. } | Settlement::Fail { .. } => (earliest, latest),
            };
            let at = record.state.completed_at.unwrap_or(record.state.run_at);
            assert!(first <= at && at <= last, "{settlement:?} at {at:?}, not from {first:?} to {last:?}");
            assert_eq!(record.worker, None);
            assert_eq!(store.act_one(task.id, queue_core::admin::Action::Delete).await, queue_core::admin::Acted::Done);
        }
    }
}

/// "When the task is not running and that id is on its row already, this very settle was written before", and is not again.
pub async fn a_repeated_settle_is_already_there(store: Subject) {
    for settlement in all_settlements() {
        let task = second_run(&store).await;
        let settle = Settle::by_holder(task.id, task.claim, settlement);
        assert_eq!(store.settle_one(settle.clone()).await, Settled::Applied);
        let (before, attempts) = (store.record(task.id).await, store.attempts(task.id).await.unwrap());
        for _ in 0..2 {
            let answer = store.settle_one(settle.clone()).await;
            assert_eq!(answer, Settled::Already(settle.settlement.status()), "{settle:?}");
        }
        assert_eq!(store.record(task.id).await, before);
        assert_eq!(store.attempts(task.id).await.unwrap(), attempts);
        assert_eq!(store.act_one(task.id, queue_core::admin::Action::Delete).await, queue_core::admin::Acted::Done);
    }
}

/// A claim that does not hold the task settles nothing, wherever the task stands.
pub async fn a_claim_that_is_not_current_is_stale(store: Subject) {
    let waiting = store.put(TaskSpec { start: queue_core::Start::After(MINUTE), ..spec() }).await;
    let (session, first) = store.running(TaskSpec { retry: Retry::DEFAULT.attempts(9), ..spec() }).await;
    let foreign = store.claim_id();
    let stale = async |task: TaskId, claim: ClaimId| {
        for settlement in all_settlements() {
            let before = store.get(task).await.unwrap();
            let answer = store.settle_one(Settle::by_holder(task, claim, settlement)).await;
            assert_eq!(answer, Settled::Stale);
            assert_eq!(store.get(task).await.unwrap(), before);
        }
    };
    stale(waiting, foreign).await;
    stale(first.id, foreign).await;
    store.end(&first, requeue(Duration::ZERO, Requeue::Snooze)).await;
    stale(first.id, foreign).await;
    let second = store.grab_one(session).await;
    stale(second.id, first.claim).await;
    store.end(&second, complete()).await;
    stale(second.id, first.claim).await;
    stale(second.id, foreign).await;
    assert_eq!(store.attempts(second.id).await.unwrap(), []);
}

/// "The reaper's settle overwrites the id": the late holder is stale, the reaper's repeat is not.
pub async fn a_reaped_task_is_stale_for_its_holder(store: Subject) {
    for settlement in [requeue(MINUTE, Requeue::Recover { error: "lost".into() }), complete()] {
        let (_, task) = store.running(spec()).await;
        let reap = Settle::by_reaper(task.id, task.claim, store.claim_id(), settlement.clone());
        assert_eq!(store.settle_one(reap.clone()).await, Settled::Applied);
        assert_eq!(store.record(task.id).await.state.claim, Some(reap.leaves));
        let late = Settle::by_holder(task.id, task.claim, complete());
        assert_eq!(store.settle_one(late).await, Settled::Stale);
        assert_eq!(store.settle_one(reap).await, Settled::Already(settlement.status()));
        let other = Settle::by_reaper(task.id, task.claim, store.claim_id(), settlement);
        assert_eq!(store.settle_one(other).await, Settled::Stale, "another reaper came too late");
    }
}

/// A holder that settles first makes the reaper stale.
pub async fn a_settled_task_is_stale_for_the_reaper(store: Subject) {
    let (_, task) = store.running(spec()).await;
    store.end(&task, complete()).await;
    let recover = requeue(Duration::ZERO, Requeue::Recover { error: "lost".into() });
    let reap = Settle::by_reaper(task.id, task.claim, store.claim_id(), recover);
    assert_eq!(store.settle_one(reap).await, Settled::Stale);
    assert_eq!(store.record(task.id).await.state.status, Status::Completed);
}

/// "In any other case, a deleted task included, it is stale."
pub async fn a_deleted_task_is_stale(store: Subject) {
    let (_, task) = store.running(spec()).await;
    let settle = Settle::by_holder(task.id, task.claim, complete());
    assert_eq!(store.settle_one(settle.clone()).await, Settled::Applied);
    assert_eq!(store.act_one(task.id, queue_core::admin::Action::Delete).await, queue_core::admin::Acted::Done);
    assert_eq!(store.settle_one(settle).await, Settled::Stale);
    assert_eq!(store.get(task.id).await.unwrap(), None);
}

/// "One answer per item, in order"; a stale item does not affect the others, and every kind goes in one batch.
pub async fn a_stale_item_leaves_the_others_applied(store: Subject) {
    let settlements = all_settlements();
    store.put_all(settlements.iter().map(|_| TaskSpec { retry: Retry::DEFAULT.attempts(5), ..spec() })).await;
    let session = store.session().await;
    let tasks = store.grab_all(session, settlements.len()).await;
    let before = store.record(tasks[0].id).await;
    let unknown = store.named([spec()]).await.remove(0).id;
    let mut batch = Vec::new();
    let mut answers = Vec::new();
    for (task, settlement) in tasks.iter().zip(&settlements).skip(1) {
        batch.push(Settle::by_holder(task.id, task.claim, settlement.clone()));
        answers.push(Settled::Applied);
        batch.push(Settle::by_holder(tasks[0].id, store.claim_id(), settlement.clone()));
        answers.push(Settled::Stale);
        batch.push(Settle::by_holder(unknown, task.claim, settlement.clone()));
        answers.push(Settled::Stale);
    }
    assert_eq!(store.settle(batch.clone().into()).await.unwrap(), answers);
    assert_eq!(store.record(tasks[0].id).await, before);
    for (task, settlement) in tasks.iter().zip(&settlements).skip(1) {
        assert_eq!(store.record(task.id).await.state.status, settlement.status(), "{settlement:?}");
    }
    let again = store.settle(batch.into()).await.unwrap();
    for (answer, (first, settlement)) in again.iter().step_by(3).zip(answers.iter().step_by(3).zip(&settlements[1..])) {
        assert_eq!((*first, *answer), (Settled::Applied, Settled::Already(settlement.status())));
    }
}

/// The same settle twice in one batch is applied once.
pub async fn a_settle_twice_in_a_batch_is_applied_once(store: Subject) {
    let (_, task) = store.running(spec()).await;
    let retry = requeue(MINUTE, Requeue::Retry { error: "once".into() });
    let settle = Settle::by_holder(task.id, task.claim, retry);
    let answers = store.settle(Arc::from([settle.clone(), settle])).await.unwrap();
    assert_eq!(answers, [Settled::Applied, Settled::Already(Status::Queued)]);
    assert_eq!(store.attempts(task.id).await.unwrap().len(), 1);
}

/// Two ends of one run in one batch: the second is judged by what the first has come to.
pub async fn two_ends_in_a_batch_are_judged_in_order(store: Subject) {
    let (_, task) = store.running(TaskSpec { retry: Retry::DEFAULT.attempts(1), ..spec() }).await;
    // By itself this would be refused: no attempt is left.
    let retry = requeue(MINUTE, Requeue::Retry { error: "again".into() });
    let ends = [complete(), retry].map(|end| Settle::by_holder(task.id, task.claim, end));
    assert_eq!(store.settle(Arc::from(ends)).await.unwrap(), [Settled::Applied, Settled::Already(Status::Completed)]);
}

/// An empty batch is a batch.
pub async fn an_empty_batch_is_fine(store: Subject) {
    assert_eq!(store.settle(Arc::from([])).await.unwrap(), []);
}

/// Settlements carry durations: the longest leads to the last point that can be told, and disturbs no other item.
pub async fn the_longest_delays_are_kept(store: Subject) {
    let delays = [Duration::MAX, Duration::from_micros(i64::MAX as u64), Duration::from_nanos(1_999), MINUTE];
    store.put_all(delays.map(|_| spec())).await;
    let session = store.session().await;
    let tasks = store.grab_all(session, delays.len()).await;
    let batch: Vec<_> = tasks
        .iter()
        .zip(delays)
        .map(|(task, delay)| Settle::by_holder(task.id, task.claim, requeue(delay, Requeue::Snooze)))
        .collect();
    let earliest = store.now().await;
    assert_eq!(store.settle(batch.into()).await.unwrap(), [Settled::Applied; 4]);
    let latest = store.now().await;
    for (task, delay) in tasks.iter().zip(delays) {
        let at = store.record(task.id).await.state.run_at;
        assert!(earliest.after(delay) <= at && at <= latest.after(delay), "{delay:?}: {at:?}");
    }
    assert_eq!(store.record(tasks[0].id).await.state.run_at, Timestamp::MAX);
}

/// A batch as large as a claim's.
pub async fn a_full_batch_is_applied(store: Subject) {
    let count = store.limits().batch_max;
    store.put_all((0..count).map(|_| spec())).await;
    let session = store.session().await;
    let tasks = store.grab_all(session, count).await;
    let batch: Arc<[_]> = tasks.iter().map(|task| Settle::by_holder(task.id, task.claim, complete())).collect();
    let answers = store.settle(batch.clone()).await.unwrap();
    assert!(answers.len() == count && answers.iter().all(|answer| *answer == Settled::Applied));
    let answers = store.settle(batch).await.unwrap();
    assert!(answers.len() == count && answers.iter().all(|answer| *answer == Settled::Already(Status::Completed)));
}

/// Settling and claiming in one trip does both: what is settled to be due at once may be claimed by the same trip or the
/// next.
pub async fn settles_and_claims_in_one_trip(store: Subject) {
    let ids = store.put_all([spec(), spec()]).await;
    let session = store.session().await;
    let mut task = store.grab_one(session).await;
    for answer in [Settled::Applied, Settled::Stale] {
        let claim = if answer == Settled::Stale { store.claim_id() } else { task.claim };
        let batch = Arc::from([Settle::by_holder(task.id, claim, complete())]);
        let trip = store.settle_and_claim(batch, store.request(session, 1)).await;
        assert_eq!(trip.settled.unwrap(), [answer]);
        let queue_core::ClaimReply::Claimed(claimed) = trip.claim.unwrap() else { panic!("fenced") };
        if answer == Settled::Applied {
            assert_eq!(claimed.tasks.iter().map(|task| task.id).collect::<Vec<_>>(), ids[1..]);
            task = claimed.tasks[0].clone();
        } else {
            assert_eq!(claimed.tasks, []);
        }
    }
}

/// In one trip, a fenced session still settles, as long as nobody else has, and claims nothing.
pub async fn a_trip_of_a_fenced_session_settles(store: Subject) {
    let (session, task) = store.running(spec()).await;
    store.put(spec()).await;
    store.close_session(session).await.unwrap();
    let batch = Arc::from([Settle::by_holder(task.id, task.claim, complete())]);
    let trip = store.settle_and_claim(batch, store.request(session, 1)).await;
    assert_eq!(trip.settled.unwrap(), [Settled::Applied]);
    assert_eq!(trip.claim.unwrap(), queue_core::ClaimReply::Fenced);
}

/// A claim of several tasks is settled task by task, in any order, over several batches.
pub async fn a_claim_is_settled_in_parts(store: Subject) {
    store.put_all((0..9).map(|_| spec())).await;
    let session = store.session().await;
    let mut tasks = store.grab_all(session, 9).await;
    tasks.reverse();
    for part in tasks.chunks(4) {
        let batch = part.iter().map(|task| Settle::by_holder(task.id, task.claim, complete())).collect();
        assert_eq!(store.settle(batch).await.unwrap(), vec![Settled::Applied; part.len()]);
    }
    let held = store.sessions().await.unwrap().into_iter().find(|one| one.id == session).unwrap().running;
    assert_eq!(held, 0);
}
