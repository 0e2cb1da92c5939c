//! The worker pool. Promise: **a task is run at least once and settled at most once**, whatever handlers, the store and other
//! workers do; and the pool ends when it is told to.
//!
//! | part | what it does |
//! |---|---|
//! | `builder`, `running`, `engine` | what users hold; starts the parts and ends them together |
//! | `dispatcher` | owns what is held: claims, starts handlers, settles, stops; one trip to the store a batch |
//! | `runners` | futures that stay and run one job after the other, as many as handlers run at once |
//! | `executor`, `ending` | one run of one handler: panics, time limits, cancelling in two steps |
//! | `held`, `pace`, `call` | the slots; how fast to poll and to repeat; one bounded call to the store |
//! | `heartbeat`, `board` | renews the session on a thread of its own and stops handlers without the dispatcher's help |
//! | `reaper`, `sampler`, `pruner` | recovers tasks of workers that are gone; tells the observer how the queues stand; removes old history |
//!
//! What is deliberately absent: no part but the dispatcher changes what is held, no rule of the state machine is here (they are
//! in `queue_core`), no adapter is named, and nothing depends on the order of a hash map.

mod board;
mod builder;
mod call;
mod config;
mod dispatcher;
mod ending;
mod engine;
mod error;
mod executor;
mod heartbeat;
mod held;
mod listener;
mod pace;
mod pruner;
mod reaper;
mod report;
mod runners;
mod running;
mod sampler;
mod signals;

pub use self::builder::{Draining, Pool};
pub use self::error::{BuildError, StartError};
pub use self::report::{HandlerError, Report};
pub use self::running::RunningPool;
