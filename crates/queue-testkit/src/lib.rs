//! What tests of a queue need: a store in memory that is the model of the contract, the conformance suite that holds any store to
//! it, and time, randomness and faults that obey.
//!
//! | module | what it holds |
//! |---|---|
//! | [`memory`] | [`MemoryStore`], the reference store; deterministic, with transactions |
//! | [`mod@conformance`] | the suite: one master list of cases, one test a case |
//! | [`around`] | a store around another one that changes some calls |
//! | [`faulty`] | [`FaultyStore`], any store with errors, delays and lost answers in between |
//! | [`clock`], [`entropy`] | a clock that is moved by hand, random bits out of a seed |
//! | [`recorder`] | an observer that remembers |
//! | `model` | random sequences of calls on any store, compared with the reference store; feature `proptest` |
//! | `strategies` | proptest strategies; feature `proptest` |
//!
//! # A store of your own
//!
//! Implement [`TaskStore`](queue_core::TaskStore), [`TaskAdmin`](queue_core::TaskAdmin) and [`Migrate`](queue_core::Migrate), and
//! write this into `tests/conformance.rs`:
//!
//! ```
//! use queue_testkit::MemoryStore as MyStore;
//!
//! async fn fresh() -> MyStore {
//!     MyStore::new() // empty, migrated, shared with nobody
//! }
//!
//! queue_testkit::conformance!(fresh);
//! ```
//!
//! That is all: `cargo test` runs every case as a test of its own, so each fails alone and none can be left out. Nothing else is
//! needed in `[dev-dependencies]`. A store in a database that must be dropped afterwards comes as a
//! [`Fixture`](conformance::Fixture), whose end is called whether the case passed or failed. A single case can be run by hand as
//! well:
//!
//! ```
//! use queue_testkit::{MemoryStore, conformance};
//!
//! conformance::run(async || MemoryStore::new(), conformance::claim::takes_a_task_and_marks_it);
//! assert!(conformance::CASES.contains(&("claim", "takes_a_task_and_marks_it")));
//! ```

pub mod around;
pub mod clock;
pub mod conformance;
pub mod entropy;
pub mod faulty;
pub mod memory;
#[cfg(feature = "proptest")]
pub mod model;
pub mod recorder;
#[cfg(feature = "proptest")]
pub mod strategies;

pub use clock::{ManualClock, SystemClock};
pub use entropy::SeededEntropy;
pub use faulty::FaultyStore;
pub use memory::{MemoryStore, StoreClock};
pub use recorder::Recorder;
