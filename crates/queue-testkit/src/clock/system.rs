use std::time::{SystemTime, UNIX_EPOCH};

use queue_core::Timestamp;

use crate::memory::StoreClock;

/// The system's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The system's wall clock.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl StoreClock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the memory store is its own server, and this is that server's clock"
    )]
    fn now(&self) -> Timestamp {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Timestamp::EPOCH.after(since),
            Err(before) => Timestamp::EPOCH.before(before.duration()),
        }
    }
}
