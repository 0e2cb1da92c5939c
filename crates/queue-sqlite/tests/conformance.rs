//! The SQLite store against the suite that every store passes, in a file and in memory.

mod on_file {
    use queue_core::Migrate as _;
    use queue_sqlite::SqliteStore;
    use queue_testkit::conformance::Fixture;
    use tempfile::TempDir;

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

    async fn fresh() -> OnFile {
        let directory = tempfile::tempdir().expect("a directory can be had");
        let store = SqliteStore::open(directory.path().join("queue.db")).await.expect("it opens");
        store.migrate().await.expect("it migrates");
        OnFile { store, _directory: directory }
    }

    queue_testkit::conformance!(fresh);
}

mod in_memory {
    use queue_core::Migrate as _;
    use queue_sqlite::SqliteStore;

    async fn fresh() -> SqliteStore {
        let store = SqliteStore::connect("sqlite::memory:").await.expect("it opens");
        store.migrate().await.expect("it migrates");
        store
    }

    queue_testkit::conformance!(fresh);
}
