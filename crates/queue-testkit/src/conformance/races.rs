//! Many at once: no task is taken twice, settled twice or left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use queue_core::settlement::Requeue;
use queue_core::{ClaimReply, ClaimedTask, Settle, Settled, Settlement, Status};

use super::Subject;
use super::subject::{at_once, complete, in_queue, persist, spec};

/// Claims without settling until all of `left` is taken.
async fn take_all(store: Subject, tasks: usize, left: Arc<AtomicUsize>) -> Vec<ClaimedTask> {
    let session = store.session().await;
    let mut taken = Vec::new();
    while left.load(Ordering::SeqCst) > 0 {
        let request = store.request(session, tasks);
        let ClaimReply::Claimed(claimed) = persist(|| store.claim(request.clone())).await else {
            panic!("a live session is fenced")
        };
        left.fetch_sub(claimed.tasks.len(), Ordering::SeqCst);
        taken.extend(claimed.tasks);
        tokio::task::yield_now().await;
    }
    taken
}

/// "Two concurrent claims never take one task", and together they take every one.
pub async fn concurrent_claims_share_no_task(store: Subject) {
    const TASKS: usize = 240;
    store.put_all((0..TASKS).map(|number| in_queue(["a", "b", "c"][number % 3]))).await;
    let left = Arc::new(AtomicUsize::new(TASKS));
    let claimers = (0..6).map(|number| take_all(store.clone(), 5 + number, left.clone()));
    let taken: Vec<_> = at_once(claimers).await.into_iter().flatten().collect();
    assert_eq!(taken.len(), TASKS);
    assert_eq!(taken.iter().map(|task| task.id).collect::<BTreeSet<_>>().len(), TASKS);
    for task in taken {
        let state = store.record(task.id).await.state;
        assert_eq!((state.status, state.claim, state.attempt), (Status::Running, Some(task.claim), 1));
    }
}

/// Claimers that settle as they go, while producers enqueue: each task completes once.
pub async fn producers_and_workers_finish_everything_once(store: Subject) {
    const EACH: usize = 40;
    let done = Arc::new(AtomicUsize::new(0));
    let producers = (0..3).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..EACH / 4 {
                let batch: Arc<[_]> = store.named((0..4).map(|_| in_queue(["a", "b", "c"][number]))).await.into();
                persist(|| store.enqueue(batch.clone())).await;
            }
        })
    });
    let producers: Vec<_> = producers.collect();
    let workers = (0..4).map(|_| {
        let (store, done) = (store.clone(), done.clone());
        async move {
            let session = store.session().await;
            let mut completed = Vec::new();
            let mut batch: Arc<[Settle]> = Arc::from([]);
            while done.load(Ordering::SeqCst) < 3 * EACH {
                let answers = persist(|| store.settle(batch.clone())).await;
                assert!(answers.iter().all(|answer| answer.is_applied()), "{answers:?}");
                done.fetch_add(answers.len(), Ordering::SeqCst);
                completed.extend(batch.iter().map(|settle| settle.task));
                let request = store.request(session, 7);
                let ClaimReply::Claimed(claimed) = persist(|| store.claim(request.clone())).await else {
                    panic!("a live session is fenced")
                };
                let settles = claimed.tasks.iter().map(|task| Settle::by_holder(task.id, task.claim, complete()));
                batch = settles.collect();
                tokio::task::yield_now().await;
            }
            completed
        }
    });
    let completed: Vec<_> = at_once(workers).await.into_iter().flatten().collect();
    for producer in producers {
        producer.await.unwrap();
    }
    assert_eq!(completed.len(), 3 * EACH);
    assert_eq!(completed.iter().collect::<BTreeSet<_>>().len(), 3 * EACH);
}

/// "A late worker and the reaper race safely: one is applied, the other is stale."
pub async fn a_holder_and_a_reaper_race(store: Subject) {
    let session = store.session().await;
    let mut won = BTreeMap::new();
    for _ in 0..20 {
        store.put(spec()).await;
        let task = store.grab_one(session).await;
        let kind = Requeue::Recover { error: "lost".into() };
        let recover = Settlement::Requeue { delay: Duration::from_secs(60), kind };
        let holder = Settle::by_holder(task.id, task.claim, complete());
        let reaper = Settle::by_reaper(task.id, task.claim, store.claim_id(), recover);
        let settles = [holder, reaper].map(|settle| {
            let (store, batch): (_, Arc<[_]>) = (store.clone(), Arc::from([settle]));
            async move { persist(|| store.settle(batch.clone())).await }
        });
        let answers: Vec<_> = at_once(settles).await.into_iter().flatten().collect();
        let status = store.record(task.id).await.state.status;
        match answers[..] {
            [Settled::Applied, Settled::Stale] => assert_eq!(status, Status::Completed),
            [Settled::Stale, Settled::Applied] => assert_eq!(status, Status::Queued),
            _ => panic!("{answers:?}"),
        }
        *won.entry(status).or_insert(0) += 1;
    }
    assert_eq!(won.values().sum::<i32>(), 20);
}

/// One settle, sent several times at once: applied once, and never stale.
pub async fn a_settle_races_its_own_repeat(store: Subject) {
    let session = store.session().await;
    for _ in 0..10 {
        store.put(spec()).await;
        let task = store.grab_one(session).await;
        let kind = Requeue::Retry { error: "once".into() };
        let retry = Settlement::Requeue { delay: Duration::from_secs(60), kind };
        let batch: Arc<[_]> = Arc::from([Settle::by_holder(task.id, task.claim, retry)]);
        let settles = (0..3).map(|_| {
            let (store, batch) = (store.clone(), batch.clone());
            async move { persist(|| store.settle(batch.clone())).await }
        });
        let answers: Vec<_> = at_once(settles).await.into_iter().flatten().collect();
        let applied = answers.iter().filter(|answer| **answer == Settled::Applied).count();
        let already = answers.iter().filter(|answer| **answer == Settled::Already(Status::Queued)).count();
        assert_eq!((applied, already), (1, 2), "{answers:?}");
        assert_eq!(store.attempts(task.id).await.unwrap().len(), 1);
    }
}

/// Batches that name the same tasks in opposite orders come through, and each task is settled once.
pub async fn settles_in_opposite_orders_do_not_deadlock(store: Subject) {
    store.put_all((0..50).map(|_| spec())).await;
    let session = store.session().await;
    let tasks = store.grab_all(session, 50).await;
    let settles = (0..4).map(|number| {
        let mut batch: Vec<_> = tasks.iter().map(|task| Settle::by_holder(task.id, task.claim, complete())).collect();
        if number % 2 == 0 {
            batch.reverse();
        }
        let (store, batch): (_, Arc<[_]>) = (store.clone(), batch.into());
        async move { persist(|| store.settle(batch.clone())).await }
    });
    let answers: Vec<_> = at_once(settles).await.into_iter().flatten().collect();
    assert!(answers.iter().all(|answer| answer.is_applied()), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| **answer == Settled::Applied).count(), 50);
}

/// Claims never take what an operator has cancelled or deleted at the same time, and leave nothing half done.
pub async fn operators_race_claims(store: Subject) {
    use queue_core::admin::{Acted, Action, Selection};
    let ids = store.put_all((0..60).map(|_| spec())).await;
    let (one, other, targets) = (store.clone(), store.clone(), ids.clone());
    let acting = tokio::spawn(async move {
        let mut acted = Vec::new();
        for (number, part) in targets.chunks(6).enumerate() {
            let action = if number % 2 == 0 { Action::Cancel } else { Action::Delete };
            let selection = Selection::Ids(part.to_vec());
            acted.extend(persist(|| one.act(selection.clone(), action, "ana")).await);
        }
        acted
    });
    let claiming = tokio::spawn(async move {
        let session = other.session().await;
        let mut taken = Vec::new();
        for _ in 0..15 {
            let request = other.request(session, 4);
            let ClaimReply::Claimed(claimed) = persist(|| other.claim(request.clone())).await else {
                panic!("a live session is fenced")
            };
            taken.extend(claimed.tasks.into_iter().map(|task| task.id));
        }
        taken
    });
    let (acted, taken) = (acting.await.unwrap(), claiming.await.unwrap());
    assert_eq!(acted.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), taken.len());
    for (id, acted) in acted {
        let status = store.get(id).await.unwrap().map(|record| record.state.status);
        if taken.contains(&id) {
            assert_eq!(status, Some(Status::Running), "{acted:?}");
            assert!(matches!(acted, Acted::Signalled | Acted::Refused(_)), "{acted:?}");
        } else {
            assert_eq!(acted, Acted::Done);
            assert!(matches!(status, None | Some(Status::Failed)), "{status:?}");
        }
    }
}
