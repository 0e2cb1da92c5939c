//! What the tests of the adapter share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use queue_core::claim::{Capacity, Claimed};
use queue_core::session::SessionSpec;
use queue_core::{
    ClaimId, ClaimReply, ClaimRequest, Migrate as _, NewTask, Nonce, Payload, Scope, SessionId, TaskId, TaskSpec,
    TaskStore as _, TaskType,
};
use queue_sqlite::SqliteStore;
use tempfile::TempDir;

pub(crate) const TYPE: TaskType = TaskType::new("test");

/// A file in a directory of its own.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    _directory: TempDir,
}

impl File {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory can be had");
        Self { path: directory.path().join("queue.db"), _directory: directory }
    }

    /// A migrated store on it.
    pub(crate) async fn store(&self) -> SqliteStore {
        open(&self.path).await
    }

    /// A connection that is not the store's.
    pub(crate) fn foreign(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(&self.path).expect("it opens")
    }
}

pub(crate) async fn open(path: &Path) -> SqliteStore {
    let store = SqliteStore::open(path).await.expect("it opens");
    store.migrate().await.expect("it migrates");
    store
}

pub(crate) fn spec() -> TaskSpec {
    TaskSpec::new(TYPE, Payload::json("{}"))
}

/// Enqueues so many tasks.
pub(crate) async fn put(store: &SqliteStore, count: usize) -> Vec<TaskId> {
    let ids = store.reserve_ids(count as u32).await.expect("ids can be had");
    let batch: Arc<[NewTask]> = ids.map(|id| NewTask { id, nonce: Nonce::new(1), spec: spec() }).collect();
    let answers = store.enqueue(batch).await.expect("it enqueues");
    answers.into_iter().map(queue_core::Enqueued::id).collect()
}

pub(crate) async fn session(store: &SqliteStore, number: u64) -> SessionId {
    let id = SessionId::new(number).expect("it is not zero");
    let text = String::new;
    let lease = Duration::from_secs(600);
    let spec = SessionSpec { id, name: text(), host: text(), version: text(), lease };
    store.open_session(spec).await.expect("it opens");
    id
}

pub(crate) fn request(session: SessionId, claim: u64, tasks: usize) -> ClaimRequest {
    let claim = ClaimId::new(claim).expect("it is not zero");
    ClaimRequest { session, claim, scope: Scope::of([TYPE]), capacity: Capacity::of(tasks) }
}

/// Claims under a live session.
pub(crate) async fn claim(store: &SqliteStore, request: ClaimRequest) -> Claimed {
    match store.claim(request).await.expect("it claims") {
        ClaimReply::Claimed(claimed) => claimed,
        ClaimReply::Fenced => panic!("the session is fenced"),
    }
}
