//! The SQLite adapter, the embedded default: **what was acknowledged is on the disk**, and any number of processes may share
//! one file.
//!
//! ```
//! # async fn example() -> Result<(), queue_core::StoreError> {
//! use queue_core::Migrate as _;
//! use queue_sqlite::SqliteStore;
//!
//! let store = SqliteStore::connect("sqlite://queue.db").await?;
//! store.migrate().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! - **One thread writes** and owns its connection; two more read. A call becomes a job on one of them, so that no lock is
//!   held across an await and a dropped future leaves nothing in disorder: its job runs to its end.
//! - **Group commit**: jobs that come while another is under way share its transaction and its wait for the disk. One that fails
//!   is undone alone.
//! - **An idle poll takes no lock and writes nothing**: it looks on a reader. Only when something is due does a claim go to
//!   the writer, which looks again.
//! - **Several processes**: write-ahead log, `synchronous = FULL`, `BEGIN IMMEDIATE`. Whoever finds the file locked waits, three times the
//!   [busy timeout](SqliteOptions::busy_timeout), before the store says that it is unavailable.
//! - **The clock** is the machine's. It is read once for each job, and a step back of up to five seconds is held.
//! - **Rules** live in `queue-core`: rows are read into its state, moved by its transition and written back.
//!
//! # In your own transaction
//!
//! ```
//! # async fn example(store: &queue_sqlite::SqliteStore, batch: &[queue_core::NewTask]) -> Result<(), Box<dyn std::error::Error>> {
//! use queue_core::Transactional as _;
//! use queue_sqlite::rusqlite::Connection;
//!
//! let mut conn = Connection::open("queue.db")?; // yours, to the same file
//! store.begin(&mut conn).await?;
//! conn.execute("INSERT INTO users (email) VALUES (?1)", ["ada@example.com"])?;
//! store.enqueue_in(&mut conn, batch).await?;
//! conn.execute_batch("COMMIT")?;
//! # Ok(())
//! # }
//! ```
//!
//! SQLite locks the whole file: while such a transaction is open, every write of the queue waits for it, the renewal of leases
//! included. Keep it short.

mod acting;
mod admin;
mod buffers;
mod busy;
mod claiming;
mod clock;
mod connection;
mod doctor;
mod enqueue;
mod error;
#[cfg(test)]
mod faults;
mod held;
mod jobs;
mod lanes;
mod looking;
mod marks;
mod migrate;
mod names;
mod options;
mod plans;
mod reaping;
mod runs;
mod session;
mod settling;
mod stats;
mod store;
mod survey;
mod task;
mod threads;
mod transaction;
mod work;

pub use options::SqliteOptions;
/// The crate whose connections [`SqliteStore::begin`] takes.
pub use rusqlite;
pub use store::SqliteStore;
