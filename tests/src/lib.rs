//! What the workspace's end-to-end tests share: databases of their own, worker processes, and the checker of their histories.
//!
//! A worker process is the test's own executable, started again for one ignored test; so there is no binary to be found
//! or built first.

pub mod chaos;
mod database;
mod group;
pub mod history;
pub mod proxy;
pub mod simulation;
mod work;
mod worker;

pub use database::{Backend, Database};
pub use group::Group;
pub use history::{History, Journal, Starts};
pub use work::Job;
pub use worker::{Worker, serve};
