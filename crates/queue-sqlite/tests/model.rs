//! The SQLite store does what the reference store does, whatever the order of calls.

use queue_core::Migrate as _;
use queue_sqlite::SqliteStore;
use queue_testkit::conformance::Fixture;
use queue_testkit::model::{self, Clients};
use tempfile::TempDir;

/// Sequences in a regular run; `QUEUE_MODEL_CASES` sets another number.
const CASES: u32 = 60;

struct OnFile {
    // In this order: the file is closed before it is removed.
    store: SqliteStore,
    _directory: TempDir,
}

impl Fixture for OnFile {
    type Store = SqliteStore;

    fn store(&self) -> &SqliteStore {
        &self.store
    }
}

/// A file that two stores have open, as two processes do.
async fn clients() -> Clients<OnFile> {
    let directory = tempfile::tempdir().expect("a directory can be had");
    let file = directory.path().join("queue.db");
    let store = SqliteStore::open(&file).await.expect("it opens");
    store.migrate().await.expect("it migrates");
    let another = SqliteStore::open(&file).await.expect("it opens twice");
    Clients::of(OnFile { store, _directory: directory }).and(another)
}

#[test]
fn agrees_with_the_model() {
    model::run(clients, CASES);
}
