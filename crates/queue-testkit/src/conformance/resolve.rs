//! What became of a claim whose acknowledgement was lost.

use queue_core::claim::Resolved;
use queue_core::{ClaimId, ClaimReply, ClaimRequest, ClaimedTask, SessionId, Settle, Settled, Status, TaskId};

use super::Subject;
use super::subject::{complete, persist, spec};

/// The tasks that are still held under the claim, by id. A claim of which nothing is held any more may be told as committed
/// or as void: it comes to the same.
async fn held(store: &Subject, session: SessionId, claim: ClaimId) -> Vec<ClaimedTask> {
    match persist(|| store.resolve_claim(session, claim)).await {
        Resolved::Committed(claimed) => {
            let mut tasks = claimed.tasks;
            tasks.sort_by_key(|task| task.id);
            tasks
        }
        Resolved::Void => Vec::new(),
    }
}

/// A claim that was committed is told with all that its reply told of its tasks, as often as it is asked.
pub async fn a_committed_claim_is_told_whole(store: Subject) {
    store.put_all((0..4).map(|_| spec())).await;
    let session = store.session().await;
    let request = store.request(session, 3);
    let mut tasks = store.ask(request.clone()).await.tasks;
    tasks.sort_by_key(|task| task.id);
    let before = store.now().await;
    for _ in 0..2 {
        let Resolved::Committed(claimed) = store.resolve_claim(session, request.claim).await.unwrap() else {
            panic!("a committed claim is void")
        };
        assert!(claimed.now >= before);
        assert_eq!(claimed.ended, []);
        assert_eq!(held(&store, session, request.claim).await, tasks);
    }
    store.end(&tasks[0], complete()).await;
}

/// Only what is still held is told: not what was settled since.
pub async fn tells_only_what_is_still_held(store: Subject) {
    store.put_all((0..3).map(|_| spec())).await;
    let session = store.session().await;
    let request = store.request(session, 3);
    let tasks = store.ask(request.clone()).await.tasks;
    assert_eq!(tasks.len(), 3);
    store.end(&tasks[1], complete()).await;
    let ids = |tasks: &[ClaimedTask]| tasks.iter().map(|task| task.id).collect::<Vec<_>>();
    assert_eq!(ids(&held(&store, session, request.claim).await), [tasks[0].id, tasks[2].id]);
    store.end(&tasks[0], complete()).await;
    store.end(&tasks[2], complete()).await;
    assert_eq!(held(&store, session, request.claim).await, []);
}

/// After a void answer a claim with that id takes nothing. How it is refused is open: nothing is taken, that is all.
async fn takes_nothing(store: &Subject, request: ClaimRequest, task: TaskId) {
    let (session, claim) = (request.session, request.claim);
    if let Ok(ClaimReply::Claimed(claimed)) = store.claim(request).await {
        assert_eq!(claimed.tasks, []);
    }
    assert_eq!(store.record(task).await.state.status, Status::Queued);
    assert_eq!(store.resolve_claim(session, claim).await.unwrap(), Resolved::Void);
}

/// "Decisive: after void the claim cannot be committed any more."
pub async fn a_void_claim_can_never_be_committed(store: Subject) {
    let id = store.put(spec()).await;
    let session = store.session().await;
    let request = store.request(session, 5);
    for _ in 0..2 {
        assert_eq!(store.resolve_claim(session, request.claim).await.unwrap(), Resolved::Void);
    }
    takes_nothing(&store, request, id).await;
    assert_eq!(store.grab_one(session).await.id, id, "the session may go on under another id");
}

/// So it is after the housekeeping of [`lost`](queue_core::TaskStore::lost) removed "claims without a current member", as long
/// as the session lives.
pub async fn housekeeping_revives_no_void_claim(store: Subject) {
    let id = store.put(spec()).await;
    let session = store.session().await;
    let request = store.request(session, 5);
    assert_eq!(store.resolve_claim(session, request.claim).await.unwrap(), Resolved::Void);
    for _ in 0..3 {
        store.lost(100).await.unwrap();
    }
    takes_nothing(&store, request, id).await;
}

/// And after the session is gone, when the claim finds it fenced.
pub async fn a_void_claim_outlives_its_session(store: Subject) {
    let id = store.put(spec()).await;
    let session = store.session().await;
    let request = store.request(session, 5);
    assert_eq!(store.resolve_claim(session, request.claim).await.unwrap(), Resolved::Void);
    store.close_session(session).await.unwrap();
    for _ in 0..3 {
        store.lost(100).await.unwrap();
    }
    assert_eq!(store.claim(request.clone()).await.unwrap(), ClaimReply::Fenced);
    takes_nothing(&store, request, id).await;
    let unknown = store.request(store.session_id(), 5);
    assert_eq!(store.resolve_claim(unknown.session, unknown.claim).await.unwrap(), Resolved::Void);
}

/// A claim of a fenced session is told as far as nobody else has settled its tasks.
pub async fn a_fenced_sessions_claim_is_told(store: Subject) {
    let ids = store.put_all([spec(), spec()]).await;
    let session = store.session().await;
    let request = store.request(session, 2);
    store.ask(request.clone()).await;
    store.close_session(session).await.unwrap();
    let tasks = held(&store, session, request.claim).await;
    assert_eq!(tasks.iter().map(|task| task.id).collect::<Vec<_>>(), ids);
    let reap = Settle::by_reaper(ids[0], request.claim, store.claim_id(), complete());
    assert_eq!(store.settle_one(reap).await, Settled::Applied);
    let tasks = held(&store, session, request.claim).await;
    assert_eq!(tasks.iter().map(|task| task.id).collect::<Vec<_>>(), ids[1..]);
}

/// A claim and its resolving at the same time: whatever is answered is what holds from then on.
pub async fn resolving_races_claiming(store: Subject) {
    let session = store.session().await;
    let mut left = 60;
    store.put_all((0..left).map(|_| spec())).await;
    for round in 0..12 {
        let request = store.request(session, 5);
        let (one, other, claim) = (store.clone(), store.clone(), request.claim);
        let claiming = tokio::spawn(async move { one.claim(request).await });
        let resolving = tokio::spawn(async move {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            persist(|| other.resolve_claim(session, claim)).await
        });
        let (claimed, resolved) = (claiming.await.unwrap(), resolving.await.unwrap());
        let mut running = held(&store, session, claim).await;
        if let Ok(ClaimReply::Claimed(claimed)) = &claimed {
            let mut tasks = claimed.tasks.clone();
            tasks.sort_by_key(|task| task.id);
            assert_eq!(tasks, running, "what the claim says is not what is held");
        }
        match resolved {
            Resolved::Void => assert_eq!(running, [], "a void claim was committed; it said {claimed:?}"),
            Resolved::Committed(told) => {
                let mut tasks = told.tasks;
                tasks.sort_by_key(|task| task.id);
                assert_eq!(tasks, running);
            }
        }
        left -= running.len();
        for task in running.drain(..) {
            assert_eq!(store.record(task.id).await.state.claim, Some(claim));
            store.end(&task, complete()).await;
        }
    }
    assert_eq!(store.grab_all(session, left).await.len(), left);
}

/// Dropping a claim's future is a lost acknowledgement: it is resolved, and nothing is in disorder.
pub async fn a_dropped_claim_can_be_resolved(store: Subject) {
    const TASKS: usize = 40;
    store.put_all((0..TASKS).map(|_| spec())).await;
    let session = store.session().await;
    let mut completed = 0;
    for round in 0..16_u64 {
        let request = store.request(session, 2);
        let claim = request.claim;
        let patience = std::time::Duration::from_micros(round * round * 25);
        // Whether it answered in time does not matter: the resolving decides.
        let _ = tokio::time::timeout(patience, store.claim(request)).await;
        for task in held(&store, session, claim).await {
            store.end(&task, complete()).await;
            completed += 1;
        }
    }
    for task in store.grab_all(session, TASKS - completed).await {
        store.end(&task, complete()).await;
    }
    assert_eq!(store.grab(session, 10).await, []);
}
