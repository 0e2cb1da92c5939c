//! Points in time, as the store's clock tells them.

use std::time::{Duration, SystemTime};

/// A point in time: microseconds since the Unix epoch, UTC.
///
/// Microseconds are what every supported database keeps exactly, so a round trip through a store changes nothing.
/// Arithmetic saturates: no clock, however wrong, makes it overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);
    /// The latest point in time that can be told: one microsecond before what an `i64` can hold, so that stores have a number for
    /// what comes after everything.
    pub const MAX: Self = Self(i64::MAX - 1);

    /// The point `micros` microseconds after the Unix epoch (before it when negative), at most [`Timestamp::MAX`].
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        if micros > Self::MAX.0 { Self::MAX } else { Self(micros) }
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// This point moved into the future, at most to [`Timestamp::MAX`]. Parts of a microsecond are cut off.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self::from_micros(self.0.saturating_add(micros(duration)))
    }

    /// This point moved into the past. Parts of a microsecond are cut off.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }

    /// How long after `earlier` this point is; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let micros = i128::from(self.0) - i128::from(earlier.0);
        u64::try_from(micros).map_or(Duration::ZERO, Duration::from_micros)
    }
}

/// Parts of a microsecond are cut off.
impl From<SystemTime> for Timestamp {
    fn from(at: SystemTime) -> Self {
        match at.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Self::EPOCH.after(after),
            Err(before) => Self::EPOCH.before(before.duration()),
        }
    }
}

/// For what tells times to people, such as `jiff` and `chrono`, which read a [`SystemTime`]. The Unix epoch where the platform
/// cannot tell a time that early or late.
impl From<Timestamp> for SystemTime {
    fn from(at: Timestamp) -> Self {
        let distance = Duration::from_micros(at.0.unsigned_abs());
        let told =
            if at.0 < 0 { Self::UNIX_EPOCH.checked_sub(distance) } else { Self::UNIX_EPOCH.checked_add(distance) };
        told.unwrap_or(Self::UNIX_EPOCH)
    }
}

/// A duration in whole microseconds, at most those from the epoch to [`Timestamp::MAX`]: how stores keep durations.
#[must_use]
pub fn micros(duration: Duration) -> i64 {
    let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    micros.min(Timestamp::MAX.as_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Timestamp::MAX.after(Duration::MAX), Timestamp::MAX);
        let first = Timestamp::from_micros(i64::MIN);
        assert_eq!(first.before(Duration::from_secs(1)), first);
        assert_eq!(Timestamp::MAX.since(first), Duration::from_micros(u64::MAX - 1));
        assert_eq!(Timestamp::from_micros(i64::MAX), Timestamp::MAX);
        assert_eq!(first.since(Timestamp::MAX), Duration::ZERO);
    }

    #[test]
    fn is_a_system_time_and_back() {
        for micros in [0, 1, -1, 1_769_850_000_000_001, -2_000_001] {
            let at = Timestamp::from_micros(micros);
            assert_eq!(Timestamp::from(SystemTime::from(at)), at);
        }
        assert_eq!(SystemTime::from(Timestamp::from_micros(3)), SystemTime::UNIX_EPOCH + Duration::from_micros(3));
    }

    #[test]
    fn keeps_whole_microseconds() {
        let at = Timestamp::EPOCH.after(Duration::from_nanos(1_999));
        assert_eq!(at.as_micros(), 1);
        assert_eq!(at.since(Timestamp::EPOCH), Duration::from_micros(1));
    }
}
