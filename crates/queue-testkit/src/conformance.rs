//! The conformance suite: what the ports of `queue-core` promise, as cases that any store can be run against.
//!
//! [`conformance!`](crate::conformance!) makes one test of each case, from one master list, so that no adapter can leave one out. A case
//! gets a store of its own, empty and migrated; it never asks which backend it has, never reads an error's text, and
//! measures no time but the store's own. The store's clock must run by itself.
//!
//! Where the ports leave something open, a case accepts every answer that they allow and its documentation says so.

mod fixture;
mod list;
mod subject;

pub mod act;
pub mod attempts;
pub mod budgets;
pub mod busy;
pub mod cancel;
pub mod capacity;
pub mod claim;
pub mod enqueue;
pub mod histories;
pub mod keys;
pub mod listing;
pub mod migrate;
pub mod pause;
pub mod progress;
pub mod prune;
pub mod races;
pub mod reaper;
pub mod resolve;
pub mod roundtrip;
pub mod sessions;
pub mod settle;
pub mod stats;
pub mod turns;

pub use fixture::{Fixture, run};
pub use list::CASES;
pub use subject::Subject;
