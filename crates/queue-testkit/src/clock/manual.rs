use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use queue_core::{Clock, Timestamp};
use tokio::sync::oneshot;

use crate::memory::StoreClock;

/// A clock that stands until it is moved: a process's [`Clock`] and a store's [`StoreClock`] in one. Clones are the same
/// clock.
///
/// Sleepers wake in the order of their deadlines, and of falling asleep where those are equal. Nothing in here waits for
/// real time, so it works in any runtime, a current-thread one included.
#[derive(Clone, Debug)]
pub struct ManualClock {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    monotonic: Duration,
    wall: Timestamp,
    /// By deadline, then by the order of falling asleep.
    sleepers: BTreeMap<(Duration, u64), oneshot::Sender<()>>,
    ticket: u64,
}

impl ManualClock {
    /// A clock whose wall time is `wall` and whose monotonic time is zero.
    #[must_use]
    pub fn new(wall: Timestamp) -> Self {
        let shared = Shared { monotonic: Duration::ZERO, wall, sleepers: BTreeMap::new(), ticket: 0 };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Moves time on and wakes every sleeper whose deadline comes with it.
    pub fn advance(&self, by: Duration) {
        let mut shared = self.lock();
        shared.monotonic = shared.monotonic.saturating_add(by);
        shared.wall = shared.wall.after(by);
        let now = shared.monotonic;
        while let Some(entry) = shared.sleepers.first_entry()
            && entry.key().0 <= now
        {
            // A sleeper that was dropped is not there to hear it.
            let _ = entry.remove().send(());
        }
    }

    /// Moves time on to the first sleeper's deadline and wakes it, and whoever shares the deadline. `false` when nobody
    /// sleeps.
    pub fn advance_to_next(&self) -> bool {
        let Some(by) = self.next_wake() else { return false };
        self.advance(by);
        true
    }

    /// How long until the first sleeper wakes.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        let mut shared = self.lock();
        shared.sleepers.retain(|_, wake| !wake.is_closed());
        let now = shared.monotonic;
        shared.sleepers.keys().next().map(|&(deadline, _)| deadline.saturating_sub(now))
    }

    /// How many sleep.
    #[must_use]
    pub fn sleepers(&self) -> usize {
        self.lock().sleepers.values().filter(|wake| !wake.is_closed()).count()
    }

    /// Sets the wall clock alone, forwards or back, as an administrator or a bad server does. The monotonic clock and the
    /// sleepers do not notice.
    pub fn set_wall(&self, wall: Timestamp) {
        self.lock().wall = wall;
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ManualClock {
    /// Begins in November 2023, at a round number of seconds.
    fn default() -> Self {
        Self::new(Timestamp::from_micros(1_700_000_000_000_000))
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        self.lock().monotonic
    }

    fn wall(&self) -> Timestamp {
        self.lock().wall
    }

    async fn sleep(&self, duration: Duration) {
        let (wake, woken) = oneshot::channel();
        {
            let mut shared = self.lock();
            if duration.is_zero() {
                return;
            }
            let ticket = shared.ticket;
            shared.ticket += 1;
            let deadline = shared.monotonic.saturating_add(duration);
            shared.sleepers.insert((deadline, ticket), wake);
        }
        // The clock holds the sender for as long as it is not woken: an error cannot be.
        let _ = woken.await;
    }
}

impl StoreClock for ManualClock {
    fn now(&self) -> Timestamp {
        self.lock().wall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[tokio::test]
    async fn sleepers_wake_in_the_order_of_their_deadlines() {
        let clock = ManualClock::default();
        let woken = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for (name, length) in [("c", 30), ("a", 10), ("b", 20), ("b2", 20)] {
            let (clock, woken) = (clock.clone(), woken.clone());
            tasks.spawn(async move {
                clock.sleep(ms(length)).await;
                woken.lock().unwrap().push(name);
            });
        }
        while clock.sleepers() < 4 {
            tokio::task::yield_now().await;
        }
        assert_eq!(clock.next_wake(), Some(ms(10)));
        clock.advance(ms(25));
        tokio::task::yield_now().await;
        assert_eq!(*woken.lock().unwrap(), ["a", "b", "b2"]);
        assert_eq!((clock.next_wake(), clock.sleepers()), (Some(ms(5)), 1));
        assert!(clock.advance_to_next());
        while tasks.join_next().await.is_some() {}
        assert_eq!(*woken.lock().unwrap(), ["a", "b", "b2", "c"]);
        assert!(!clock.advance_to_next());
        assert_eq!(clock.monotonic(), ms(30));
    }

    #[tokio::test]
    async fn a_dropped_sleeper_is_forgotten_and_no_time_is_no_sleep() {
        let clock = ManualClock::default();
        clock.sleep(Duration::ZERO).await;
        let sleeping = clock.sleep(ms(5));
        tokio::select! {
            biased;
            () = sleeping => unreachable!("nobody moved the clock"),
            () = async {} => {}
        }
        assert_eq!((clock.next_wake(), clock.sleepers()), (None, 0));
    }

    #[test]
    fn the_wall_jumps_alone() {
        let clock = ManualClock::new(Timestamp::from_micros(50));
        clock.advance(Duration::from_micros(5));
        clock.set_wall(Timestamp::from_micros(7));
        assert_eq!((clock.wall(), StoreClock::now(&clock)), (Timestamp::from_micros(7), Timestamp::from_micros(7)));
        assert_eq!(clock.monotonic(), Duration::from_micros(5));
    }
}
