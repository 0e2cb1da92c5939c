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

/// Whether the database was locked by somebody else for longer than we wait, so that the same may succeed now.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// An error of a transaction that was rolled back: nothing was written.
pub(crate) fn before_commit(error: &rusqlite::Error) -> StoreError {
    use ErrorCode::{
        AuthorizationForStatementDenied, CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OperationInterrupted,
        OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure,
    };

    let Some(code) = error.sqlite_error_code() else {
        return match error {
            rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..) => StoreError::corrupt(None, error.to_string()),
            _ => StoreError::other(Said(error.to_string())),
        };
    };
    let said = Said(error.to_string());
    match code {
        DatabaseBusy | DatabaseLocked => {
            StoreError::unavailable(Said("another process or transaction keeps the SQLite file locked".into()))
        }
        DiskFull => {
            StoreError::unavailable(Said("the disk is full, or the database has reached its size limit".into()))
        }
        SystemIoFailure | CannotOpen | OutOfMemory | OperationInterrupted => StoreError::unavailable(said),
        ReadOnly => StoreError::denied(Said("the SQLite file is read-only".into())),
        PermissionDenied | AuthorizationForStatementDenied => StoreError::denied(said),
        _ if said.0.starts_with("no such table: queue_") => SchemaProblem::Missing.into(),
        _ => StoreError::other(said),
    }
}

/// An error of COMMIT itself. After a failed write to the disk it is not known whether the commit mark reached it; in
/// every other case nothing was written.
pub(crate) fn at_commit(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::SystemIoFailure) => StoreError::unknown_outcome(Said(error.to_string())),
        _ => before_commit(error),
    }
}

#[cfg(test)]
mod tests {
    use queue_core::ErrorKind;
    use rusqlite::ffi;

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

    #[test]
    fn only_a_failed_disk_leaves_the_commit_unknown() {
        let error = |code| at_commit(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)).kind();
        assert_eq!(error(ffi::SQLITE_IOERR_FSYNC), ErrorKind::UnknownOutcome);
        assert_eq!(error(ffi::SQLITE_FULL), ErrorKind::Unavailable);
    }
}
