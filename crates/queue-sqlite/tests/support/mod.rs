//! A store in a file of its own.

use queue_core::Migrate as _;
use queue_sqlite::SqliteStore;
use queue_testkit::conformance::Fixture;
use tempfile::TempDir;

pub(crate) struct OnFile {
    // In this order: the file is closed before it is removed.
    store: SqliteStore,
    directory: TempDir,
}

impl OnFile {
    /// An empty, migrated one.
    pub(crate) async fn fresh() -> Self {
        let directory = tempfile::tempdir().expect("a directory can be had");
        let store = open(&directory).await;
        store.migrate().await.expect("it migrates");
        Self { store, directory }
    }

    /// Another store on the same file, as another process has it.
    #[allow(dead_code, reason = "not every test program has two")]
    pub(crate) async fn another(&self) -> SqliteStore {
        open(&self.directory).await
    }
}

async fn open(directory: &TempDir) -> SqliteStore {
    SqliteStore::open(directory.path().join("queue.db")).await.expect("it opens")
}

impl Fixture for OnFile {
    type Store = SqliteStore;

    fn store(&self) -> &SqliteStore {
        &self.store
    }
}
