//! What happened in a run of many processes, and whether it kept the promises.
//!
//! A [`Journal`] takes notes: of handlers, of what a process asked of its store (through a [`RecordingStore`]) and of what a test did
//! to it. Several journals make a [`History`]; with the [`FinalState`] of the store it is [`check`]ed. The simulation and the
//! chaos test share this, so a history may be exact (one clock, taken where the store commits) or made of the files of
//! several processes, each of which knows only what was answered to it. The checker accuses nobody on the ground of what it
//! cannot know: it takes a question's time for the earliest and its answer's for the latest at which something happened.

mod chain;
mod checker;
mod event;
mod final_state;
mod ghosts;
mod journal;
mod recording;
mod sessions;
mod verdict;

pub use checker::check;
pub use event::{Answer, Event, Fact, How, Operation, To};
pub use final_state::{FinalState, FinalTask};
pub use ghosts::ghosts;
pub use journal::{History, Journal, Sink, Starts};
pub use recording::RecordingStore;
pub use verdict::{Tally, Verdict, Violation};
