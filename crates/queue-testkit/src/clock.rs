//! Time for tests: the system's, as a store reads it, and one that is moved by hand.

mod manual;
mod system;

pub use manual::ManualClock;
pub use system::SystemClock;
