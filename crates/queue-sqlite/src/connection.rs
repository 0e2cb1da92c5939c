//! Opening the file, with errors that say what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use queue_core::StoreError;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::error::{before_commit, is_busy};
use crate::options::{Mode, Place, SqliteOptions};

/// Threads that read: one for idle polls while another serves an operator's long list.
const READERS: usize = 2;
/// How often switching a file to its write-ahead log is tried, while other processes do the same.
const WAL_TRIES_MAX: u32 = 500;
/// Prepared statements that a connection keeps: more than there are.
const STATEMENTS_MAX: usize = 128;

/// The connections of a store.
#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) writer: Connection,
    /// None for a database in memory: nobody but its own connection sees it.
    pub(crate) readers: Vec<Connection>,
}

/// Opens the database and its connections. It blocks.
pub(crate) fn open(options: &SqliteOptions) -> Result<Connections, StoreError> {
    let path = match &options.place {
        Place::Memory => {
            let writer = Connection::open_in_memory().map_err(|error| before_commit(&error))?;
            keep_statements(&writer).map_err(|error| before_commit(&error))?;
            return Ok(Connections { writer, readers: Vec::new() });
        }
        Place::File(path) => path,
    };
    let mode = check_path(path, options.mode)?;
    let explain = |error: rusqlite::Error| explained(path, &error);
    let writer = connect(path, mode, options.busy_timeout).map_err(explain)?;
    let read_only = mode == Mode::ReadOnly || writer.is_readonly("main").map_err(explain)?;
    if read_only {
        // The first look at the file, which says whether it is a database at all.
        writer.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0)).map_err(explain)?;
    } else {
        let journal = use_wal(&writer).map_err(explain)?;
        if journal != "wal" {
            let reason = format!(
                "{} cannot have a write-ahead log (its journal is {journal:?}); put it on a local file system",
                path.display()
            );
            return Err(StoreError::Unsupported { reason });
        }
        // A commit is on the disk when it is acknowledged.
        writer.execute_batch("PRAGMA synchronous = FULL").map_err(explain)?;
        // Jobs that share a transaction are each undone alone. The pages for that are few; by default they go to a temporary file.
        writer.execute_batch("PRAGMA temp_store = MEMORY").map_err(explain)?;
    }
    let reader = || -> rusqlite::Result<Connection> {
        let mode = if read_only { Mode::ReadOnly } else { Mode::ReadWrite };
        let reader = connect(path, mode, options.busy_timeout)?;
        reader.execute_batch("PRAGMA query_only = ON")?;
        Ok(reader)
    };
    let readers = (0..READERS).map(|_| reader().map_err(explain)).collect::<Result<Vec<_>, _>>()?;
    Ok(Connections { writer, readers })
}

/// What can be said of the path before SQLite is asked. A file without any write permission is only read, even by an account
/// that could write to it all the same.
fn check_path(path: &Path, mode: Mode) -> Result<Mode, StoreError> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(StoreError::other(format!("{} is a directory", path.display()))),
        Ok(found) if found.permissions().readonly() => Ok(Mode::ReadOnly),
        Ok(_) => Ok(mode),
        Err(error) if error.kind() == io::ErrorKind::NotFound && mode != Mode::Create => {
            Err(StoreError::other(format!("the SQLite file {} does not exist", path.display())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => match missing_directory(path) {
            Some(directory) => {
                let (path, directory) = (path.display(), directory.display());
                Err(StoreError::other(format!("cannot make {path}: the directory {directory} does not exist")))
            }
            None => Ok(mode),
        },
        Err(error) => {
            let what = format!("cannot open {}: {error}", path.display());
            let denied = error.kind() == io::ErrorKind::PermissionDenied;
            Err(if denied { StoreError::denied(what) } else { StoreError::other(what) })
        }
    }
}

fn missing_directory(path: &Path) -> Option<PathBuf> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty())?;
    (!parent.is_dir()).then(|| parent.to_owned())
}

fn connect(path: &Path, mode: Mode, busy_timeout: Duration) -> rusqlite::Result<Connection> {
    let access = match mode {
        Mode::ReadOnly => OpenFlags::SQLITE_OPEN_READ_ONLY,
        Mode::ReadWrite => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Mode::Create => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    };
    // SQLite takes a name that begins with `file:` for a URI of its own.
    let path = if path.is_relative() { Path::new(".").join(path) } else { path.to_owned() };
    let mut conn = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    keep_statements(&conn)?;
    let mut waited = Duration::ZERO;
    conn.busy_handler(Some(move |tries: i32| {
        if tries == 0 {
            waited = Duration::ZERO;
        }
        if waited >= busy_timeout {
            return false;
        }
        let pause = busy_pause(tries);
        waited += pause;
        std::thread::sleep(pause);
        true
    }))?;
    Ok(conn)
}

/// Statements are prepared once, and their plans do not depend on what is bound. Otherwise SQLite prepares those that are bounded by
/// a parameter anew whenever that changes, in the hope of a better plan: a tenth of what a small batch cost.
fn keep_statements(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(|_| ())
}

/// The pause before the lock is tried again: short and uneven, because SQLite has no queue and its own pauses of up to 100 ms
/// would starve whoever waits longest.
fn busy_pause(tries: i32) -> Duration {
    let tries = u64::from(tries.unsigned_abs());
    let uneven = tries.wrapping_mul(2_654_435_761) % 1_000;
    Duration::from_micros(if tries < 8 { 200 + uneven / 4 } else { 1_000 + 2 * uneven })
}

/// Switches the file to its write-ahead log, unless it has one. SQLite does not wait for a lock here by itself.
fn use_wal(conn: &Connection) -> rusqlite::Result<String> {
    let mut tries = 0;
    loop {
        match conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)) {
            Err(error) if is_busy(&error) && tries < WAL_TRIES_MAX => {
                tries += 1;
                std::thread::sleep(busy_pause(i32::MAX));
            }
            journal => return journal,
        }
    }
}

fn explained(path: &Path, error: &rusqlite::Error) -> StoreError {
    let path = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => StoreError::other(format!("{path} is not a SQLite database")),
        Some(ErrorCode::DatabaseCorrupt) => StoreError::other(format!("{path} is damaged: {error}")),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            StoreError::denied(format!("cannot open {path}, or the files beside it (-wal, -shm): {error}"))
        }
        _ => before_commit(error),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn a_statement_is_prepared_once_whatever_is_bound() {
        let directory = tempfile::tempdir().unwrap();
        let file = open(&SqliteOptions::file(directory.path().join("a.db"))).unwrap();
        let memory = open(&SqliteOptions::memory()).unwrap();
        file.writer.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY)").unwrap();
        memory.writer.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY)").unwrap();
        for conn in file.readers.iter().chain([&file.writer, &memory.writer]) {
            let mut statement = conn.prepare("SELECT id FROM t WHERE id BETWEEN ?1 AND ?2 LIMIT ?3").unwrap();
            for bound in 1..=9 {
                assert!(!statement.exists([bound, 10 * bound, 100 * bound]).unwrap());
            }
            assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
        }
    }
}
