//! The one place that reads the clock. SQLite runs inside this process, so the machine's clock is the store's clock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use queue_core::Timestamp;

/// A step back of up to this many microseconds is held: time stands still until the clock has caught up. A larger one is a
/// clock that was set, and is followed; standing still for its length would stop every delay and lease.
const HELD_MICROS_MAX: i64 = 5_000_000;

/// Where a store's now comes from. Read once for each call of the store.
#[derive(Clone)]
pub(crate) struct Now(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Now {
    pub(crate) fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The machine's clock.
    pub(crate) fn machine() -> Self {
        Self::new(|| hold(&LATEST, machine_micros()))
    }

    pub(crate) fn read(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Now")
    }
}

/// The latest time that anybody in this process was told.
static LATEST: AtomicI64 = AtomicI64::new(i64::MIN);

#[expect(clippy::disallowed_methods, reason = "this is the clock file: the machine's clock is the store's clock")]
fn machine_micros() -> i64 {
    let micros = |duration: std::time::Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => micros(since),
        Err(before) => -micros(before.duration()),
    }
}

fn hold(latest: &AtomicI64, micros: i64) -> Timestamp {
    let before = latest.fetch_max(micros, Ordering::Relaxed);
    if before <= micros {
        return Timestamp::from_micros(micros);
    }
    if before.saturating_sub(micros) <= HELD_MICROS_MAX {
        return Timestamp::from_micros(before);
    }
    latest.store(micros, Ordering::Relaxed);
    Timestamp::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_step_back_is_held_and_a_large_one_is_followed() {
        let latest = AtomicI64::new(i64::MIN);
        let told = [100, 90, 101, 10_000_000, 9_000_000, 1_000, 999].map(|at| hold(&latest, at).as_micros());
        assert_eq!(told, [100, 100, 101, 10_000_000, 10_000_000, 1_000, 1_000]);
    }

    #[test]
    fn the_machine_clock_is_past_2020_and_does_not_go_back() {
        let now = Now::machine();
        let first = now.read();
        assert!(first > Timestamp::from_micros(1_577_836_800_000_000) && now.read() >= first);
        assert_eq!(format!("{now:?}"), "Now");
    }
}
