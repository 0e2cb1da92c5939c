//! What SQLite says, by what the caller does next.

use std::fmt;

use queue_core::StoreError;
use queue_core::error::SchemaProblem;
use rusqlite::ErrorCode;

/// What stops a job: SQLite's own error, or a finding of ours.
#[derive(Debug)]
pub(crate) enum Fault {
    /// SQLite's.
    Sqlite(rusqlite::Error),
    /// Ours.
    Store(StoreError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Sqlite(error) => before_commit(&error),
            Fault::Store(error) => error,
        }
    }
}

/// SQLite's message. It names tables, columns and files; bound values are never part of it.
#[derive(Debug)]
struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Said {}

/// What is done about an error before the caller hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    /// Nothing was written: the transaction is begun again, a bounded number of times. Then the store is unavailable.
    RetryTransaction,
    /// Nothing was written, and it may go well later: the store is unavailable.
    Later,
    /// As `Later` before COMMIT. At it, the commit's mark may have reached the disk: the outcome is unknown.
    UnknownAtCommit,
    /// A person must help: access is denied.
    Denied,
    /// Repeating it would not help.
    Permanent,
}

/// The one table: each of SQLite's codes that is not [`Policy::Permanent`], and our words where SQLite's do not help.
const TABLE: &[(ErrorCode, Policy, Option<&str>)] = &[
    (ErrorCode::DatabaseBusy, Policy::RetryTransaction, Some(LOCKED)),
    (ErrorCode::DatabaseLocked, Policy::RetryTransaction, Some(LOCKED)),
    (ErrorCode::DiskFull, Policy::Later, Some("the disk is full, or the database has reached its size limit")),
    (ErrorCode::CannotOpen, Policy::Later, None),
    (ErrorCode::OutOfMemory, Policy::Later, None),
    (ErrorCode::OperationInterrupted, Policy::Later, None),
    (ErrorCode::SystemIoFailure, Policy::UnknownAtCommit, None),
    (ErrorCode::ReadOnly, Policy::Denied, Some("the SQLite file is read-only")),
    (ErrorCode::PermissionDenied, Policy::Denied, None),
    (ErrorCode::AuthorizationForStatementDenied, Policy::Denied, None),
];

const LOCKED: &str = "another process or transaction keeps the SQLite file locked";

/// What is done about a code, and our words for it.
fn policy(code: ErrorCode) -> (Policy, Option<&'static str>) {
    let row = TABLE.iter().find(|(one, _, _)| *one == code);
    row.map_or((Policy::Permanent, None), |(_, policy, words)| (*policy, *words))
}

/// Whether the database was locked by somebody else for longer than we wait, so that the same may succeed now.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code().is_some_and(|code| policy(code).0 == Policy::RetryTransaction)
}

/// An error of a transaction that was rolled back: nothing was written.
pub(crate) fn before_commit(error: &rusqlite::Error) -> StoreError {
    told(error, false)
}

/// An error of COMMIT itself. After a failed write to the disk it is not known whether the commit mark reached it; in
/// every other case nothing was written.
pub(crate) fn at_commit(error: &rusqlite::Error) -> StoreError {
    told(error, true)
}

fn told(error: &rusqlite::Error, committing: bool) -> StoreError {
    let Some(code) = error.sqlite_error_code() else {
        return match error {
            rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..) => StoreError::corrupt(None, error.to_string()),
            _ => StoreError::other(Said(error.to_string())),
        };
    };
    let (policy, words) = policy(code);
    let said = Said(words.map_or_else(|| error.to_string(), str::to_owned));
    match policy {
        Policy::UnknownAtCommit if committing => StoreError::unknown_outcome(said),
        Policy::RetryTransaction | Policy::Later | Policy::UnknownAtCommit => StoreError::unavailable(said),
        Policy::Denied => StoreError::denied(said),
        Policy::Permanent if said.0.starts_with("no such table: queue_") => SchemaProblem::Missing.into(),
        Policy::Permanent => StoreError::other(said),
    }
}

#[cfg(test)]
mod tests {
    use queue_core::ErrorKind;
    use rusqlite::{Connection, ffi};

    use super::*;

    fn kind(code: i32, message: Option<&str>) -> ErrorKind {
        before_commit(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), message.map(str::to_owned))).kind()
    }

    #[test]
    fn each_code_has_its_kind() {
        assert_eq!(kind(ffi::SQLITE_BUSY, None), ErrorKind::Unavailable);
        assert_eq!(kind(ffi::SQLITE_FULL, None), ErrorKind::Unavailable);
        assert_eq!(kind(ffi::SQLITE_IOERR_WRITE, None), ErrorKind::Unavailable);
        assert_eq!(kind(ffi::SQLITE_READONLY, None), ErrorKind::Denied);
        assert_eq!(kind(ffi::SQLITE_AUTH, None), ErrorKind::Denied);
        assert_eq!(kind(ffi::SQLITE_NOTADB, None), ErrorKind::Other);
        assert_eq!(kind(ffi::SQLITE_ERROR, Some("no such table: queue_task")), ErrorKind::Schema);
        assert_eq!(kind(ffi::SQLITE_ERROR, Some("no such table: users")), ErrorKind::Other);
        assert_eq!(before_commit(&rusqlite::Error::InvalidQuery).kind(), ErrorKind::Other);
        assert_eq!(before_commit(&rusqlite::Error::IntegralValueOutOfRange(0, -1)).kind(), ErrorKind::Corrupt);
    }

    /// Errors of a real database: what is done, and what the caller hears.
    #[test]
    fn real_errors_meet_their_policy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db");
        let open = || {
            let conn = Connection::open(&path).unwrap();
            conn.busy_timeout(std::time::Duration::ZERO).unwrap();
            conn
        };
        let (conn, other) = (open(), open());
        conn.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB)").unwrap();
        let meets = |conn: &Connection, sql: &str, expected: Policy, kind: ErrorKind| {
            let error = conn.execute_batch(sql).unwrap_err();
            let found = error.sqlite_error_code().map_or(Policy::Permanent, |code| policy(code).0);
            assert_eq!((found, before_commit(&error).kind()), (expected, kind), "{sql}: {error}");
        };
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        meets(&conn, "BEGIN IMMEDIATE", Policy::RetryTransaction, ErrorKind::Unavailable);
        // A snapshot that is older than somebody's commit cannot become a write any more.
        conn.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
        other.execute_batch("INSERT INTO t (x) VALUES (1); COMMIT").unwrap();
        meets(&conn, "INSERT INTO t (x) VALUES (2)", Policy::RetryTransaction, ErrorKind::Unavailable);
        conn.execute_batch("ROLLBACK").unwrap();
        meets(&conn, "INSERT INTO t (id) VALUES (1)", Policy::Permanent, ErrorKind::Other);
        meets(&conn, "SELECT 1 FROM queue_task", Policy::Permanent, ErrorKind::Schema);
        meets(&conn, "SELEC 1", Policy::Permanent, ErrorKind::Other); // wrong on purpose
        conn.pragma_update(None, "max_page_count", 3).unwrap();
        meets(&conn, "INSERT INTO t (x) VALUES (zeroblob(100000))", Policy::Later, ErrorKind::Unavailable);
        conn.pragma_update(None, "query_only", true).unwrap();
        meets(&conn, "INSERT INTO t (x) VALUES (3)", Policy::Denied, ErrorKind::Denied);
        let read_only = Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        meets(&read_only, "INSERT INTO t (x) VALUES (3)", Policy::Denied, ErrorKind::Denied);
        let missing = Connection::open(directory.path().join("no/such.db")).unwrap_err();
        assert_eq!(policy(missing.sqlite_error_code().unwrap()).0, Policy::Later);
        let text = directory.path().join("text.db");
        std::fs::write(&text, "this is no database, and long enough to be told from one".repeat(20)).unwrap();
        meets(&Connection::open(&text).unwrap(), "SELECT 1 FROM t", Policy::Permanent, ErrorKind::Other);
    }

    #[test]
    fn only_a_failed_disk_leaves_the_commit_unknown() {
        let error = |code| at_commit(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)).kind();
        assert_eq!(error(ffi::SQLITE_IOERR_FSYNC), ErrorKind::UnknownOutcome);
        assert_eq!(error(ffi::SQLITE_FULL), ErrorKind::Unavailable);
    }
}
