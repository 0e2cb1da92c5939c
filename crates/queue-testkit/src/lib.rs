//! What tests of a queue need.

pub mod clock;
pub mod conformance;
pub mod entropy;
pub mod faulty;
pub mod memory;
pub mod recorder;

pub use clock::{ManualClock, SystemClock};
pub use entropy::SeededEntropy;
pub use faulty::FaultyStore;
pub use memory::{MemoryStore, StoreClock};
pub use recorder::Recorder;
