//! The model-based test: random sequences of calls, made on a store and on [`MemoryStore`](crate::MemoryStore) alike, and after
//! each of them the same must be seen in both: the answer, every task's row, the lists, the counts, the sessions. Feature
//! `proptest`.
//!
//! ```no_run
//! use queue_testkit::MemoryStore as MyStore;
//! use queue_testkit::model::{self, Clients};
//!
//! // In a test:
//! model::run(async || Clients::of(MyStore::new()), 60);
//! ```
//!
//! - The store's clock runs by itself, so every length in a sequence is either nothing or hours, and points in time are compared
//!   in hours. Where the model has seen what the store did, it takes over the store's points in time.
//! - Where the contract leaves a choice (which of the due tasks a claim takes, in which order queues take turns), the answer is
//!   judged by the contract, and the model does what the store did.
//! - [`Step::AtOnce`] makes calls of two clients at the same time. Then some order of these calls must explain every answer
//!   and all that is seen afterwards.
//!
//! A failing sequence is shrunk and printed. `QUEUE_MODEL_CASES` is the number of sequences, `QUEUE_MODEL_SEED` what they are
//! made from: the same seed, the same sequences.

mod at_once;
mod book;
mod call;
mod clients;
mod judge;
mod play;
mod seen;
mod step;
mod strategy;

pub use clients::Clients;
pub use play::run;
pub use step::{Draft, End, Ending, Lease, Length, Pick, Reach, Step, Who, Wish};
pub use strategy::{Life, Steps};
