//! A deterministic simulation: the real pool code of `queue-runtime`, several processes of it, on one store in memory, in virtual
//! time. **One seed is one history**, byte by byte.
//!
//! | module | what it holds |
//! |---|---|
//! | [`plan`] | all that a seed decides before anything runs, so that a failing run can be shrunk |
//! | `world` | runs a plan: starts, kills, freezes and restarts processes, and disturbs everybody |
//! | `process`, `performance` | what stands for a process: its futures, its clock; its handlers |
//! | `weather`, `bent` | calls that fail or are answered late; reads that are stale, and stores that are broken on purpose |
//! | [`campaign`] | many seeds on several threads; what is told of one that failed |
//!
//! What is deliberately absent: a thread, a real clock, randomness that is not out of the seed, and any copy of what the pool does.

mod bent;
pub mod campaign;
mod performance;
pub mod plan;
mod process;
mod weather;
mod world;

pub use bent::Broken;
pub use campaign::{Campaign, Failure};
pub use plan::Plan;
pub use world::{Outcome, run};
