//! The MySQL and MariaDB adapter of the queue: MySQL 8.0.20 or later, MariaDB 10.6 or later, OceanBase 4.3.5 or later.
//!
//! [`MySqlStore`] implements the ports of `queue-core`, and [`Transactional`](queue_core::Transactional) on
//! `sqlx::MySqlConnection`, so that tasks can be enqueued and completed inside a transaction of yours. The schema, in
//! `migrations/mysql`, lives in your own database; its tables begin with `queue_`.
//!
//! Every transaction of the store is short, on a connection of its own, at READ COMMITTED. None is open while a handler runs.
//! Dropping a call's future never cuts a connection in two: the call runs to its end in a task of its own.

/// What is shared with the integration tests knows the crate by its name.
#[cfg(test)]
extern crate self as queue_mysql;

mod admin;
mod busy;
mod claim;
mod connection;
mod doctor;
mod enqueue;
mod error;
mod held;
mod hosts;
mod inner;
mod lanes;
mod members;
mod migrate;
mod names;
mod operation;
mod options;
mod policy;
mod progress;
mod reap;
mod row;
mod server;
mod session;
mod settle;
mod sql;
mod standing;
mod store;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;
mod sweep;
mod transactional;
mod url;
mod wake;

pub use options::MySqlOptions;
/// The driver, in the version whose transactions [`Transactional`](queue_core::Transactional) takes.
pub use sqlx;
pub use store::MySqlStore;
