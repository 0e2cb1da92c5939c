//! What tests of a queue need.

pub mod clock;
pub mod memory;

pub use clock::{ManualClock, SystemClock};
pub use memory::{MemoryStore, StoreClock};
