//! What tests of a queue need.

pub mod clock;
pub mod conformance;
pub mod entropy;
pub mod memory;

pub use clock::{ManualClock, SystemClock};
pub use entropy::SeededEntropy;
pub use memory::{MemoryStore, StoreClock};
