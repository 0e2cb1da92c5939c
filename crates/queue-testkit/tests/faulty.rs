//! The store with injected faults: each fault does what it says, and no fault changes nothing.

use std::time::Duration;

use queue_core::claim::Resolved;
use queue_core::session::SessionSpec;
use queue_core::{ClaimId, ClaimReply, ClaimRequest, ErrorKind, Scope, SessionId, TaskAdmin as _, TaskStore as _};
use queue_testkit::faulty::{Call, Fault, FaultyStore, Rates, Script, Seeded, Strike};
use queue_testkit::{ManualClock, MemoryStore};

/// The whole suite passes through a store on which nothing goes wrong.
mod without_faults {
    use super::{FaultyStore, MemoryStore, Script};

    async fn fresh() -> FaultyStore<MemoryStore> {
        FaultyStore::new(MemoryStore::new(), Script::new())
    }

    queue_testkit::conformance!(fresh);
}

fn spec(id: u64) -> SessionSpec {
    let id = SessionId::new(id).unwrap();
    SessionSpec { id, name: "w".into(), host: "h".into(), version: "1".into(), lease: Duration::from_secs(60) }
}

fn request() -> ClaimRequest {
    let scope = Scope::of([queue_core::TaskType::new("t")]);
    let (session, claim) = (SessionId::new(1).unwrap(), ClaimId::new(1).unwrap());
    ClaimRequest { session, claim, scope, capacity: queue_core::claim::Capacity::of(1) }
}

#[tokio::test(start_paused = true)]
async fn each_fault_does_what_it_says() {
    let script = Script::new()
        .at(Call::OpenSession, 1, Fault::Unavailable)
        .at(Call::OpenSession, 2, Fault::RequestLost)
        .at(Call::OpenSession, 3, Fault::Refused)
        .at(Call::OpenSession, 4, Fault::AnswerLost);
    let store = FaultyStore::new(MemoryStore::with_clock(std::sync::Arc::new(ManualClock::default())), script);
    let wanted = [ErrorKind::Unavailable, ErrorKind::UnknownOutcome, ErrorKind::Other, ErrorKind::UnknownOutcome];
    for (number, (kind, there)) in (1..).zip(wanted.into_iter().zip([false, false, false, true])) {
        let error = store.open_session(spec(number)).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains("a fault was injected into OpenSession"), "{error}");
        assert_eq!(store.inner().sessions().await.unwrap().iter().any(|one| one.id.get() == number), there);
    }
    store.open_session(spec(5)).await.unwrap();
    assert_eq!((store.calls(Call::OpenSession), store.calls(Call::Claim)), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn a_late_claim_is_what_resolving_must_decide() {
    let script = Script::new().at(Call::Claim, 1, Fault::Late(Duration::from_secs(3)));
    let store = FaultyStore::new(MemoryStore::new(), script);
    store.open_session(spec(1)).await.unwrap();
    let id = store.reserve_ids(1).await.unwrap().next().unwrap();
    let task = queue_core::TaskSpec::new(queue_core::TaskType::new("t"), queue_core::Payload::json("1"));
    store.enqueue([queue_core::NewTask { id, nonce: queue_core::Nonce::new(1), spec: task }].into()).await.unwrap();
    assert_eq!(store.claim(request()).await.unwrap_err().kind(), ErrorKind::UnknownOutcome);
    let (session, claim) = (request().session, request().claim);
    assert_eq!(store.resolve_claim(session, claim).await.unwrap(), Resolved::Void);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let state = store.get(id).await.unwrap().unwrap().state;
    assert_eq!(state.status, queue_core::Status::Queued, "the claim came late and must find that it is void");
}

#[tokio::test(start_paused = true)]
async fn a_late_write_is_written_though_nobody_waits() {
    let script = Script::new().at(Call::OpenSession, 1, Fault::Late(Duration::from_secs(3)));
    let store = FaultyStore::new(MemoryStore::new(), script);
    assert!(store.open_session(spec(1)).await.is_err());
    assert_eq!(store.sessions().await.unwrap(), []);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(store.sessions().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_has_written_or_not() {
    let second = Duration::from_secs(1);
    let script = Script::new()
        .at(Call::OpenSession, 1, Strike { before: second * 5, ..Strike::default() })
        .at(Call::OpenSession, 2, Strike { after: second * 5, ..Strike::default() })
        .at(Call::OpenSession, 3, Fault::Hang);
    let store = FaultyStore::new(MemoryStore::new(), script);
    for (number, written) in [(1, 0), (2, 1), (3, 1)] {
        assert!(tokio::time::timeout(second, store.open_session(spec(number))).await.is_err());
        assert_eq!(store.sessions().await.unwrap().len(), written);
    }
}

#[tokio::test(start_paused = true)]
async fn a_seed_replays_over_a_store_of_any_kind() {
    let histories = [7, 7, 8].map(async |seed| {
        let rates = Rates {
            unavailable: 200,
            answer_lost: 200,
            delayed: 300,
            delay_max: Duration::from_secs(1),
            ..Rates::default()
        };
        let inner: std::sync::Arc<dyn queue_core::Store> = std::sync::Arc::new(MemoryStore::new());
        let store = FaultyStore::over(inner, Seeded::new(seed, rates)).clone();
        #[expect(clippy::disallowed_methods, reason = "the time of a paused runtime is virtual")]
        let begun = tokio::time::Instant::now();
        let mut history = Vec::new();
        for number in 1..60 {
            let opened = store.open_session(spec(number)).await.map_err(|error| error.kind());
            history.push((opened.err(), begun.elapsed()));
        }
        assert!(matches!(store.claim(request()).await, Ok(ClaimReply::Claimed(_)) | Err(_)));
        history
    });
    let [one, again, other] = histories;
    let (one, again, other) = (one.await, again.await, other.await);
    assert_eq!(one, again);
    assert_ne!(one, other);
}
