//! Time and randomness, as ports.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::time::Timestamp;

/// Time as a process sees it. The store's clock decides everything that other processes see; this one measures how much
/// time has gone by since the store was heard last.
#[async_trait]
pub trait Clock: Send + Sync + Debug {
    /// Time since some fixed point of this process's own. It never goes back.
    fn monotonic(&self) -> Duration;

    /// The wall clock of this machine. It may be minutes off and may jump; nothing is decided by it.
    fn wall(&self) -> Timestamp;

    /// Waits this long, monotonically. Dropping the future ends the wait and has no other effect.
    async fn sleep(&self, duration: Duration);
}

/// A source of random bits for ids and jitter.
pub trait Entropy: Send + Sync + Debug {
    /// 64 random bits.
    fn next_u64(&self) -> u64;
}
