//! Programs of any language as workers.
//!
//! A run of a task is a run of a program, in a process group of its own. Three processes take part:
//!
//! ```text
//! queue work ──▶ queue __guard ──▶ queue __exec ═▶ PROGRAM
//! ```
//!
//! The guard stays while the program runs. The kernel tells it when the worker dies, even by SIGKILL, and it then kills the
//! whole group, what the program started included. `__exec` asks the kernel to kill the program when the guard dies and becomes the
//! program. Both are this very binary, because a parent-death signal must be set between fork and exec, where only
//! unsafe code could do it in the worker itself.

mod assignment;
pub(crate) mod guard;
mod launcher;
mod run;
mod streams;

pub(crate) use assignment::Assignment;
pub(crate) use launcher::Launcher;
pub(crate) use run::{Runner, run};
