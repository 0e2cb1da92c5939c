//! How fast the pool polls, repeats what failed, and works.

use std::time::Duration;

use super::config::Config;

/// The first wait after the store failed, and the longest.
const TROUBLE_MIN: Duration = Duration::from_millis(100);
const TROUBLE_MAX: Duration = Duration::from_secs(5);

/// Handlers that take longer than this are not worth a prefetch: what waits for them is better left to others.
const BRISK_MAX: Duration = Duration::from_millis(100);

/// What is claimed ahead of handlers that are faster is worked off in so long: enough for a trip to a store that is not next door,
/// and a wait that nobody notices.
const AHEAD: Duration = Duration::from_millis(50);

/// Sessions that may poll as often as they like; where more are alive, each polls more rarely, so that together they ask no more of
/// the store than so many.
const SHARERS: u32 = 4;

/// The wait between polls that find nothing: it doubles from the least to the most.
#[derive(Debug)]
pub(crate) struct Poll {
    wait: Duration,
    /// Sessions that are alive, and as many as may poll freely at least.
    sharers: u32,
}

impl Poll {
    pub(crate) fn new(config: &Config) -> Self {
        Self { wait: config.poll_min, sharers: SHARERS }
    }

    /// Something was found, or is said to be there.
    pub(crate) fn reset(&mut self, config: &Config) {
        self.wait = config.poll_min;
    }

    /// So many sessions are alive.
    pub(crate) fn share(&mut self, live_sessions: u32) {
        self.sharers = live_sessions.max(SHARERS);
    }

    /// The wait after another poll in vain.
    pub(crate) fn next(&mut self, config: &Config) -> Duration {
        let wait = self.wait;
        self.wait = wait.saturating_mul(2).min(shared(config.poll_max, self.sharers));
        config.jittered(wait)
    }
}

/// A wait where so many sessions are alive: with each more than a few it grows, so that together they ask no more.
pub(crate) fn shared(wait: Duration, live_sessions: u32) -> Duration {
    wait.saturating_mul(live_sessions.max(SHARERS)) / SHARERS
}

/// The wait after failures of the store.
#[derive(Debug)]
pub(crate) struct Trouble {
    min: Duration,
    max: Duration,
    failures: u32,
    /// When to try again, on the monotonic clock.
    until: Duration,
}

impl Default for Trouble {
    fn default() -> Self {
        Self::between(TROUBLE_MIN, TROUBLE_MAX)
    }
}

impl Trouble {
    /// With this first wait, and this longest; it doubles in between.
    pub(crate) const fn between(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: 0, until: Duration::ZERO }
    }

    /// The store failed.
    pub(crate) fn failed(&mut self, config: &Config, now: Duration) {
        // Failures of calls that were under way together count once.
        if now < self.until {
            return;
        }
        let wait = self.min.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        self.until = now + config.jittered(wait);
    }

    /// The store answered.
    pub(crate) const fn over(&mut self) {
        self.failures = 0;
    }

    /// When to try again.
    pub(crate) const fn until(&self) -> Duration {
        self.until
    }
}

/// How long handlers take, as a moving average.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    average: Option<Duration>,
}

impl Pace {
    pub(crate) fn ran(&mut self, took: Duration) {
        self.average = Some(match self.average {
            None => took,
            Some(average) => average - average / 16 + took / 16,
        });
    }

    /// Nothing ends for a while: what was fast is not any more.
    pub(crate) fn stalled(&mut self) {
        self.average = Some(BRISK_MAX.saturating_mul(4));
    }

    /// How many tasks so many handlers work off while a task that was claimed ahead may wait; none unless they are known to be fast.
    pub(crate) fn ahead(&self, concurrency: usize) -> usize {
        let Some(average) = self.average.filter(|average| *average < BRISK_MAX) else { return 0 };
        let concurrency = u64::try_from(concurrency).unwrap_or(u64::MAX);
        // Both are parts of a second.
        let (ahead, average) = (u64::from(AHEAD.subsec_nanos()), u64::from(average.subsec_nanos()));
        usize::try_from(ahead.saturating_mul(concurrency) / average.max(1)).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_pools_poll_more_rarely_each() {
        let most = Duration::from_millis(50);
        assert_eq!([4, 8, 50].map(|sessions| shared(most, sessions).as_millis()), [50, 100, 625]);
    }

    #[test]
    fn a_prefetch_is_for_handlers_known_to_be_fast() {
        let mut pace = Pace::default();
        assert_eq!(pace.ahead(16), 0);
        pace.ran(Duration::from_millis(1));
        assert_eq!(pace.ahead(16), 800);
        pace.stalled();
        assert_eq!(pace.ahead(16), 0);
        for _ in 0..40 {
            pace.ran(Duration::from_millis(1));
        }
        assert!(pace.ahead(16) > 0);
        for _ in 0..20 {
            pace.ran(Duration::from_secs(1));
        }
        assert_eq!(pace.ahead(16), 0);
    }

    #[test]
    fn what_is_claimed_ahead_is_worked_off_in_a_twentieth_of_a_second() {
        let ahead = |micros, concurrency| {
            let mut pace = Pace::default();
            pace.ran(Duration::from_micros(micros));
            pace.ahead(concurrency)
        };
        assert_eq!(
            [(50_000, 4), (10_000, 4), (99_999, 4), (100_000, 4)].map(|(took, many)| ahead(took, many)),
            [4, 20, 2, 0]
        );
        assert_eq!(ahead(0, usize::MAX), usize::MAX);
    }
}
