//! Chaos: real worker processes, producers and a server of their own, and everything that can go wrong with them; then the history
//! of all of them is checked.
//!
//! | module | what it holds |
//! |---|---|
//! | `plan` | which fault when, out of a seed |
//! | `server` | the server: started, killed, frozen, its clock moved |
//! | `process` | the processes: killed, frozen, stopped, started again |
//! | `work` | what the processes do |
//! | `cast` | who plays in a run, and on which lines |
//! | `storm` | the run: everything started, the faults of the plan, the calm after them |
//! | `tables` | what the tables hold at the end |
//! | `witness` | settlements that only the tables tell of |
//! | `judgement` | the notes of all processes and the tables, checked |
//! | `report` | what came of it |
//!
//! The network is [`crate::proxy`], the checker is [`crate::history`]. The program is `queue_chaos`, which `cargo xtask chaos`
//! builds and starts; it starts itself again for the processes of a run.

mod cast;
mod judgement;
mod plan;
mod process;
mod report;
mod server;
mod storm;
mod tables;
mod witness;
mod work;

pub use plan::{Fault, Plan, Step};
pub use process::NOT_STARTED;
pub use report::Report;
pub use server::ServerRecipe;
pub use storm::{Storm, run};
pub use work::{Ended, exec, produce, work};
