//! Sessions: leases, fencing, closing, signals to a pool.

use std::time::Duration;

use queue_core::session::{Renewal, SessionRecord, SessionSpec};
use queue_core::{ClaimReply, SessionId, Status};

use super::Subject;
use super::subject::{LEASE, at_once, complete, persist, spec};

/// A lease that ends at once.
const SHORT: Duration = Duration::from_micros(1);

async fn find(store: &Subject, id: SessionId) -> Option<SessionRecord> {
    store.sessions().await.unwrap().into_iter().find(|session| session.id == id)
}

fn session_spec(id: SessionId, lease: Duration) -> SessionSpec {
    SessionSpec { id, name: "worker".into(), host: "host".into(), version: "1.0.0".into(), lease }
}

/// A session is listed as it was opened, with its lease from the store's now.
pub async fn a_session_is_listed_as_it_was_opened(store: Subject) {
    let id = store.session_id();
    let spec = SessionSpec { id, name: "w é 1".into(), host: "db-9".into(), version: "0.1.0".into(), lease: LEASE };
    let Renewal::Renewed(signals) = store.open_session(spec).await.unwrap() else { panic!("a new session is fenced") };
    assert_eq!((signals.cancels, signals.paused, signals.drain), (vec![], vec![], false));
    let record = find(&store, id).await.unwrap();
    assert_eq!((record.name.as_str(), record.host.as_str(), record.version.as_str()), ("w é 1", "db-9", "0.1.0"));
    assert_eq!((record.opened_at, record.lease_until), (signals.now, signals.now.after(LEASE)));
    assert_eq!((record.fenced_at, record.running), (None, 0));
}

/// A renewal tells how many sessions are not fenced, itself included.
pub async fn live_sessions_are_counted(store: Subject) {
    let (first, second) = (store.session().await, store.session().await);
    assert_eq!(store.signals(first).await.live_sessions, 2);
    store.close_session(second).await.unwrap();
    assert_eq!(store.signals(first).await.live_sessions, 1);
}

/// "At most 64 bytes are kept" of name and host, 32 of the version; they are cut between characters.
pub async fn long_names_are_cut(store: Subject) {
    let id = store.session_id();
    let long = "é".repeat(100);
    let spec = SessionSpec { id, name: long.clone(), host: long.clone(), version: long.clone(), lease: LEASE };
    store.open_session(spec).await.unwrap();
    let record = find(&store, id).await.unwrap();
    assert_eq!([record.name.len(), record.host.len(), record.version.len()], [64, 64, 32]);
    assert!([record.name, record.host, record.version].iter().all(|kept| long.starts_with(kept)));
}

/// "Opening the same id again renews it."
pub async fn opening_again_renews(store: Subject) {
    let id = store.session_id();
    for lease in [LEASE, LEASE * 2, SHORT] {
        let Renewal::Renewed(signals) = store.open_session(session_spec(id, lease)).await.unwrap() else {
            panic!("a session is fenced by being opened again")
        };
        assert_eq!(find(&store, id).await.unwrap().lease_until, signals.now.after(lease));
    }
    assert_eq!(store.sessions().await.unwrap().len(), 1);
}

/// A renewal's lease runs from its now, whatever was left of the old one, up to the end of time.
pub async fn a_renewal_runs_from_now(store: Subject) {
    let id = store.session().await;
    let opened_at = find(&store, id).await.unwrap().opened_at;
    for lease in [LEASE * 3, LEASE, Duration::MAX] {
        let Renewal::Renewed(signals) = store.renew_session(id, lease).await.unwrap() else { panic!("fenced") };
        let record = find(&store, id).await.unwrap();
        assert_eq!((record.lease_until, record.opened_at), (signals.now.after(lease), opened_at));
    }
    assert_eq!(store.fence_expired(10).await.unwrap(), []);
}

/// "A session that is fenced or gone stays so."
pub async fn an_unknown_session_is_fenced(store: Subject) {
    let id = store.session_id();
    assert_eq!(store.renew_session(id, LEASE).await.unwrap(), Renewal::Fenced);
    assert_eq!(find(&store, id).await, None, "a renewal opens nothing");
}

/// "A session past its lease that nobody has fenced yet is renewed", and may claim.
pub async fn a_late_session_that_nobody_fenced_goes_on(store: Subject) {
    let id = store.put(spec()).await;
    let session = store.open(SHORT).await;
    store.past(find(&store, session).await.unwrap().lease_until).await;
    assert_eq!(store.grab_one(session).await.id, id);
    assert!(matches!(store.renew_session(session, LEASE).await.unwrap(), Renewal::Renewed(_)));
    assert_eq!(store.fence_expired(10).await.unwrap(), []);
    assert_eq!(find(&store, session).await.unwrap().running, 1);
}

/// Sessions past their lease are fenced once, no more than the limit at a time, and only they.
pub async fn what_is_past_its_lease_is_fenced(store: Subject) {
    let alive = store.session().await;
    let mut late = Vec::new();
    for _ in 0..5 {
        let (session, id) = (store.open(SHORT).await, store.put(spec()).await);
        assert_eq!(store.grab_one(session).await.id, id);
        late.push(session);
        store.past(find(&store, session).await.unwrap().lease_until).await;
    }
    let mut fenced = Vec::new();
    for _ in 0..5 {
        let some = store.fence_expired(2).await.unwrap();
        assert!(some.len() <= 2, "{some:?}");
        assert!(some.iter().all(|session| session.name == "worker"), "{some:?}");
        fenced.extend(some.into_iter().map(|session| session.id));
    }
    fenced.sort_unstable();
    late.sort_unstable();
    assert_eq!(fenced, late);
    assert!(matches!(store.renew_session(alive, LEASE).await.unwrap(), Renewal::Renewed(_)));
    for session in late {
        assert!(find(&store, session).await.unwrap().fenced_at.is_some());
        assert_eq!(store.renew_session(session, LEASE).await.unwrap(), Renewal::Fenced);
        assert_eq!(store.open_session(session_spec(session, LEASE)).await.unwrap(), Renewal::Fenced);
        assert_eq!(store.claim(store.request(session, 1)).await.unwrap(), ClaimReply::Fenced);
    }
}

/// "Either it is renewed and stays, or it is fenced and can never be renewed."
pub async fn fencing_races_renewing(store: Subject) {
    for _ in 0..10 {
        let session = store.open(SHORT).await;
        store.past(find(&store, session).await.unwrap().lease_until).await;
        let (one, other) = (store.clone(), store.clone());
        let renewing = tokio::spawn(async move { persist(|| one.renew_session(session, LEASE)).await });
        let fencing = tokio::spawn(async move { persist(|| other.fence_expired(10)).await });
        let (renewed, fenced) = (renewing.await.unwrap(), fencing.await.unwrap());
        let fenced = fenced.iter().any(|one| one.id == session);
        let last = store.renew_session(session, LEASE).await.unwrap();
        match (renewed, fenced) {
            (Renewal::Renewed(_), false) => assert!(matches!(last, Renewal::Renewed(_))),
            (Renewal::Fenced, true) => assert_eq!(last, Renewal::Fenced),
            other => panic!("{other:?}"),
        }
    }
}

/// Closing fences at once; the row goes when no claim of the session is left, and its task may be settled until somebody else
/// does it.
pub async fn closing_fences_at_once(store: Subject) {
    let (session, task) = store.running(spec()).await;
    let waiting = store.put(spec()).await;
    store.close_session(session).await.unwrap();
    assert!(find(&store, session).await.unwrap().fenced_at.is_some());
    assert_eq!(store.renew_session(session, LEASE).await.unwrap(), Renewal::Fenced);
    assert_eq!(store.claim(store.request(session, 1)).await.unwrap(), ClaimReply::Fenced);
    assert_eq!(store.record(waiting).await.state.status, Status::Queued);
    assert_eq!(store.record(task.id).await.state.status, Status::Running);
    store.end(&task, complete()).await;
    store.close_session(session).await.unwrap();
    gone(&store, session).await;
}

/// Waits until the housekeeping of [`lost`](queue_core::TaskStore::lost) has removed the session's row.
async fn gone(store: &Subject, session: SessionId) {
    store
        .until("the session's row to go", async |store| {
            store.lost(100).await.unwrap();
            find(store, session).await.is_none()
        })
        .await;
}

/// A session that holds nothing goes when it is closed. "Ending one that is gone is fine."
pub async fn closing_is_repeatable(store: Subject) {
    let session = store.session().await;
    let other = store.session().await;
    for _ in 0..3 {
        store.close_session(session).await.unwrap();
    }
    store.close_session(store.session_id()).await.unwrap();
    gone(&store, session).await;
    store.close_session(session).await.unwrap();
    assert_eq!(store.renew_session(session, LEASE).await.unwrap(), Renewal::Fenced);
    assert_eq!(find(&store, other).await.unwrap().fenced_at, None);
}

/// "Sessions, the latest first", each with how many tasks it holds.
pub async fn are_listed_with_what_they_hold(store: Subject) {
    store.put_all((0..6).map(|_| spec())).await;
    let mut opened = Vec::new();
    for held in [0, 1, 3] {
        let session = store.session().await;
        store.past(find(&store, session).await.unwrap().opened_at).await;
        // Two claims, so that they are added up.
        let tasks = store.grab_all(session, held).await;
        if held == 3 {
            store.end(&tasks[0], complete()).await;
            store.grab_all(session, 2).await;
        }
        opened.insert(0, (session, [0, 1, 4][opened.len()]));
    }
    let listed: Vec<_> = store.sessions().await.unwrap().iter().map(|one| (one.id, one.running)).collect();
    assert_eq!(listed, opened);
}

/// A drain that an operator asked for is told at each renewal of that session, and at no other's.
pub async fn a_drain_is_told(store: Subject) {
    let (session, other) = (store.session().await, store.session().await);
    assert!(store.request_drain(session, "ana").await.unwrap());
    for _ in 0..2 {
        assert!(store.signals(session).await.drain);
    }
    assert!(!store.signals(other).await.drain);
    assert!(!store.request_drain(store.session_id(), "ana").await.unwrap());
}

/// A renewal tells what is paused now.
pub async fn a_renewal_tells_what_is_paused(store: Subject) {
    use queue_core::{QueueName, Timestamp, admin::Pause};
    let session = store.session().await;
    let names = ["b", "a", "c"].map(QueueName::new);
    for name in &names {
        let pause = Pause { by: "ana".into(), why: String::new(), at: Timestamp::EPOCH };
        store.set_paused(name.clone(), Some(pause), "ana").await.unwrap();
    }
    store.set_paused(names[2].clone(), None, "ana").await.unwrap();
    let mut paused = store.signals(session).await.paused;
    paused.sort();
    assert_eq!(paused, ["a", "b"].map(QueueName::new));
}

/// Renewals of many sessions at once, while they claim: none is fenced.
pub async fn many_renew_while_they_claim(store: Subject) {
    store.put_all((0..40).map(|_| spec())).await;
    let pools = (0..6).map(|_| {
        let store = store.clone();
        async move {
            let session = store.session().await;
            let mut held = 0;
            for _ in 0..4 {
                let request = store.request(session, 2);
                let reply = persist(|| store.claim(request.clone())).await;
                let ClaimReply::Claimed(claimed) = reply else { panic!("a live session is fenced") };
                held += claimed.tasks.len() as u64;
                let renewal = persist(|| store.renew_session(session, LEASE)).await;
                assert!(matches!(renewal, Renewal::Renewed(_)));
            }
            (session, held)
        }
    });
    for (session, held) in at_once(pools).await {
        assert_eq!(find(&store, session).await.unwrap().running, held);
    }
}
