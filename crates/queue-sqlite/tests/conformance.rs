//! The SQLite store against the suite that every store passes, in a file and in memory.

mod support;

mod on_file {
    use super::support::OnFile;

    queue_testkit::conformance!(OnFile::fresh);
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
