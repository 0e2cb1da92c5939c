//! Opening: every way in which it fails says what is wrong.

use std::fs;

use crate::support::{File, put};
use queue_core::error::SchemaProblem;
use queue_core::{ErrorKind, Migrate as _, StoreError, TaskAdmin as _, TaskStore as _};
use queue_sqlite::{SqliteOptions, SqliteStore};

async fn refused(url: &str) -> (ErrorKind, String) {
    let error = SqliteStore::connect(url).await.expect_err("it does not open");
    (error.kind(), error.to_string())
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    let file = File::new();
    let directory = file.path.with_file_name("missing");
    let (kind, told) = refused(&format!("sqlite://{}/queue.db", directory.display())).await;
    assert_eq!(kind, ErrorKind::Other);
    assert!(told.contains(&format!("the directory {} does not exist", directory.display())), "{told}");
    assert!(!directory.exists());
}

#[tokio::test]
async fn a_directory_is_no_database() {
    let file = File::new();
    fs::create_dir(&file.path).unwrap();
    let (kind, told) = refused(&format!("sqlite://{}", file.path.display())).await;
    assert!(kind == ErrorKind::Other && told.contains("is a directory"), "{told}");
}

#[tokio::test]
async fn another_kind_of_file_is_refused_and_left_alone() {
    let file = File::new();
    let text = "this is a letter, and it is long enough not to be taken for an empty file".repeat(20);
    fs::write(&file.path, &text).unwrap();
    for mode in ["rwc", "rw", "ro"] {
        let (kind, told) = refused(&format!("sqlite://{}?mode={mode}", file.path.display())).await;
        assert!(kind == ErrorKind::Other && told.contains("is not a SQLite database"), "{mode}: {told}");
    }
    assert_eq!(fs::read_to_string(&file.path).unwrap(), text);
}

#[tokio::test]
async fn what_must_exist_is_not_made() {
    let file = File::new();
    for mode in ["rw", "ro"] {
        let (kind, told) = refused(&format!("sqlite://{}?mode={mode}", file.path.display())).await;
        assert!(kind == ErrorKind::Other && told.contains("does not exist"), "{mode}: {told}");
    }
    assert!(SqliteStore::with_options(SqliteOptions::file(&file.path).existing()).await.is_err());
    assert!(!file.path.exists());
}

#[tokio::test]
async fn an_unknown_parameter_opens_nothing() {
    let file = File::new();
    let (kind, told) = refused(&format!("sqlite://{}?journal=off", file.path.display())).await;
    assert!(kind == ErrorKind::Unsupported && told.contains("\"journal\""), "{told}");
    assert!(!file.path.exists());
}

/// Looking works; writing is denied, whatever it is.
async fn only_looks(store: &SqliteStore) {
    assert_eq!(store.schema().await.unwrap().check(), Ok(()));
    assert_eq!(store.migrate().await.unwrap(), Vec::<u32>::new());
    assert_eq!(store.stats().await.unwrap().queues[0].ready.number, 3);
    let error = store.reserve_ids(1).await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    assert_eq!(error.to_string(), "access denied: the SQLite file is read-only");
}

#[tokio::test]
async fn a_read_only_store_only_looks() {
    let file = File::new();
    let store = file.store().await;
    put(&store, 3).await;
    let url = format!("sqlite://{}?mode=ro", file.path.display());
    // Beside a store that writes, and alone.
    only_looks(&SqliteStore::connect(&url).await.unwrap()).await;
    drop(store);
    only_looks(&SqliteStore::with_options(SqliteOptions::file(&file.path).read_only()).await.unwrap()).await;
}

/// Also by an account that could write to it all the same, as root can.
#[tokio::test]
async fn a_file_without_write_permission_is_only_looked_at() {
    let file = File::new();
    put(&file.store().await, 3).await;
    let mut permissions = fs::metadata(&file.path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&file.path, permissions).unwrap();
    only_looks(&SqliteStore::open(&file.path).await.unwrap()).await;
}

#[tokio::test]
async fn a_new_file_has_no_schema() {
    let file = File::new();
    let store = SqliteStore::open(&file.path).await.unwrap();
    assert_eq!(store.schema().await.unwrap().check(), Err(SchemaProblem::Missing));
    for error in [store.stats().await.unwrap_err(), store.reserve_ids(1).await.unwrap_err()] {
        assert!(matches!(error, StoreError::Schema { problem: SchemaProblem::Missing }), "{error}");
    }
}

#[tokio::test]
async fn a_schema_of_a_newer_library_is_not_touched() {
    let file = File::new();
    drop(file.store().await);
    file.foreign().execute("UPDATE queue_schema SET version = 9, min_compatible = 8", []).unwrap();
    let store = SqliteStore::open(&file.path).await.unwrap();
    let error = store.migrate().await.unwrap_err();
    assert!(
        matches!(error, StoreError::Schema { problem: SchemaProblem::TooNew { min_compatible: 8, .. } }),
        "{error}"
    );
    // Newer, but this library may use it.
    file.foreign().execute("UPDATE queue_schema SET min_compatible = 1", []).unwrap();
    assert_eq!(store.migrate().await.unwrap(), Vec::<u32>::new());
    assert_eq!(store.schema().await.unwrap().found, Some(9));
}

#[tokio::test]
async fn odd_names_are_files_like_others() {
    let file = File::new();
    for name in ["a b?c#d.db", "file:e.db", "%41.db"] {
        let path = file.path.with_file_name(name);
        drop(crate::support::open(&path).await);
        assert!(path.exists(), "{name}");
    }
    let url = format!("sqlite://{}/my%20queue.db", file.path.parent().unwrap().display());
    SqliteStore::connect(&url).await.unwrap();
    assert!(file.path.with_file_name("my queue.db").exists());
}

#[tokio::test]
async fn each_store_in_memory_is_its_own() {
    let (one, other) = (
        SqliteStore::connect("sqlite::memory:").await.unwrap(),
        SqliteStore::connect("sqlite::memory:").await.unwrap(),
    );
    one.migrate().await.unwrap();
    assert_eq!(put(&one, 2).await.len(), 2);
    assert_eq!(other.schema().await.unwrap().found, None);
}

#[tokio::test]
async fn commits_are_durable_and_the_log_is_emptied_at_the_end() {
    let file = File::new();
    let store = file.store().await;
    put(&store, 1).await;
    let wal = file.path.with_file_name("queue.db-wal");
    assert!(wal.exists());
    drop(store);
    assert!(!wal.exists());
    let count: i64 = file.foreign().query_row("SELECT count(*) FROM queue_task", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1);
}
