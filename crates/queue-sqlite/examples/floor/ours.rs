//! Through the port, one call after the other.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use queue_core::claim::Capacity;
use queue_core::session::SessionSpec;
use queue_core::{
    ClaimId, ClaimReply, ClaimRequest, NewTask, Nonce, Payload, Scope, SessionId, Settle, Settled, Settlement,
    StoreError, TaskResult, TaskSpec, TaskStore as _, TaskType,
};
use queue_sqlite::SqliteStore;

use crate::{Load, Rates, Watch};

const TYPE: TaskType = TaskType::new("floor");

pub(crate) async fn run(path: &Path, load: Load) -> Result<Rates, StoreError> {
    let store = SqliteStore::open(path).await?;
    Ok(Rates { enqueue: enqueue(&store, load).await?, drain: drain(&store, load).await? })
}

async fn enqueue(store: &SqliteStore, load: Load) -> Result<f64, StoreError> {
    let payload = bytes::Bytes::from(load.payload());
    let watch = Watch::start();
    let ids = store.reserve_ids(load.tasks.try_into().expect("not so many")).await?;
    let mut tasks =
        ids.map(|id| NewTask { id, nonce: Nonce::new(7), spec: TaskSpec::new(TYPE, Payload::json(payload.clone())) });
    for _ in 0..load.tasks / load.batch {
        store.enqueue(tasks.by_ref().take(load.batch).collect()).await?;
    }
    Ok(watch.rate(load.tasks))
}

async fn drain(store: &SqliteStore, load: Load) -> Result<f64, StoreError> {
    let session = SessionId::from_random(1);
    let (name, host, version) = ("floor".to_owned(), String::new(), String::new());
    store.open_session(SessionSpec { id: session, name, host, version, lease: Duration::from_secs(3600) }).await?;
    let mut settles: Arc<[Settle]> = Arc::from([]);
    let (mut claim, mut done) = (1, 0);
    let watch = Watch::start();
    while done < load.tasks {
        claim += 1;
        let claim = ClaimId::from_random(claim);
        let request = ClaimRequest { session, claim, scope: Scope::of([TYPE]), capacity: Capacity::of(load.batch) };
        let trip = store.settle_and_claim(settles, request).await;
        done += trip.settled?.iter().filter(|one| **one == Settled::Applied).count();
        let ClaimReply::Claimed(claimed) = trip.claim? else { return Err(StoreError::other("the session was fenced")) };
        settles = claimed
            .tasks
            .iter()
            .map(|task| Settle::by_holder(task.id, task.claim, Settlement::Complete { result: TaskResult::None }))
            .collect();
    }
    Ok(watch.rate(load.tasks))
}
