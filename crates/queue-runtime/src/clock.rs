//! The machine's clocks and its randomness: the one file of this crate that may read them.
#![expect(clippy::disallowed_methods, reason = "the clock file: everything else takes time through `Clock`")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use queue_core::{Clock, Entropy, Timestamp};

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts at zero now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    fn wall(&self) -> Timestamp {
        wall()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Tokio's clock: on a runtime whose time is paused it moves when everything waits, and elsewhere like the machine's.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    origin: tokio::time::Instant,
    wall: Timestamp,
}

impl TokioClock {
    /// A clock whose monotonic time starts at zero now, and whose wall clock starts at the machine's.
    #[must_use]
    pub fn new() -> Self {
        Self::starting_at(wall())
    }

    /// A clock whose monotonic time starts at zero now, and whose wall clock starts at this point.
    #[must_use]
    pub fn starting_at(wall: Timestamp) -> Self {
        Self { origin: tokio::time::Instant::now(), wall }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for TokioClock {
    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    fn wall(&self) -> Timestamp {
        self.wall.after(self.monotonic())
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

fn wall() -> Timestamp {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp::EPOCH.after(after),
        Err(error) => Timestamp::EPOCH.before(error.duration()),
    }
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    /// # Panics
    ///
    /// When the operating system has no randomness to give, which no supported one does after boot.
    fn next_u64(&self) -> u64 {
        getrandom::u64().expect("the operating system gives random bits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_machines_clock_moves() {
        let clock = SystemClock::default();
        let before = clock.monotonic();
        clock.sleep(Duration::from_millis(2)).await;
        assert!(clock.monotonic() >= before + Duration::from_millis(2));
        assert!(clock.wall() > Timestamp::from_micros(1_700_000_000_000_000));
    }

    #[tokio::test(start_paused = true)]
    async fn tokios_clock_stands_still_while_it_is_paused() {
        let clock = TokioClock::starting_at(Timestamp::from_micros(7));
        clock.sleep(Duration::from_hours(5)).await;
        assert_eq!(clock.monotonic(), Duration::from_hours(5));
        assert_eq!(clock.wall(), Timestamp::from_micros(7).after(Duration::from_hours(5)));
        assert!(TokioClock::default().wall() > Timestamp::from_micros(1_700_000_000_000_000));
    }

    #[test]
    fn random_bits_differ() {
        assert_ne!(OsEntropy.next_u64(), OsEntropy.next_u64());
    }
}
