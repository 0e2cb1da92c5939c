//! When a failed attempt is tried again.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::StoreError;

/// The longest stored form of a [`Backoff`], in bytes: room for over a hundred steps of days.
pub const BACKOFF_BYTES_MAX: usize = 2048;

/// A uniformly random fraction in `[0, 1)`, handed in by the caller: the core has no randomness of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jitter(u32);

impl Jitter {
    /// No jitter: the fraction 0.
    pub const ZERO: Self = Self(0);

    /// A fraction out of random bits.
    #[must_use]
    pub const fn from_random(bits: u64) -> Self {
        Self((bits >> 32) as u32)
    }

    /// This fraction of a duration.
    #[must_use]
    pub fn of(self, duration: Duration) -> Duration {
        let nanos = duration.as_nanos().min(u128::from(u64::MAX)) * u128::from(self.0);
        Duration::from_nanos(u64::try_from(nanos >> 32).unwrap_or(u64::MAX))
    }
}

/// The delay between attempts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backoff {
    /// The k-th delay after the k-th failed attempt; the last one repeats. No steps means no delay.
    Steps(Cow<'static, [Duration]>),
    /// The same delay after each failed attempt.
    Fixed(Duration),
    /// A random delay between zero and `base` × 2ᵏ⁻¹, at most `max` (full jitter).
    Exponential {
        /// The bound after the first failed attempt.
        base: Duration,
        /// The bound that is never passed.
        max: Duration,
    },
}

impl Backoff {
    /// 0 s, 30 s, then 5 min.
    pub const DEFAULT: Self =
        Self::Steps(Cow::Borrowed(&[Duration::ZERO, Duration::from_secs(30), Duration::from_secs(300)]));

    /// The delay after the `failed`-th failed attempt, counted from 1.
    #[must_use]
    pub fn delay(&self, failed: u16, jitter: Jitter) -> Duration {
        let index = failed.saturating_sub(1);
        match self {
            Self::Steps(steps) => steps.get(usize::from(index)).or(steps.last()).copied().unwrap_or_default(),
            Self::Fixed(delay) => *delay,
            Self::Exponential { base, max } => {
                let factor = 1_u32.checked_shl(index.into()).unwrap_or(u32::MAX);
                jitter.of(base.saturating_mul(factor).min(*max))
            }
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Backoff {
    /// As stores keep it: in whole microseconds.
    #[must_use]
    pub fn kept(&self) -> Self {
        let micros = |delay: &Duration| Duration::new(delay.as_secs(), delay.subsec_micros() * 1_000);
        match self {
            Self::Steps(Cow::Borrowed(steps)) if steps.iter().all(|step| micros(step) == *step) => self.clone(),
            Self::Steps(steps) => Self::Steps(steps.iter().map(micros).collect()),
            Self::Fixed(delay) => Self::Fixed(micros(delay)),
            Self::Exponential { base, max } => Self::Exponential { base: micros(base), max: micros(max) },
        }
    }

    /// The text that stores keep, which reads back as [`kept`](Self::kept).
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`] when it is longer than [`BACKOFF_BYTES_MAX`].
    pub fn stored(&self) -> Result<String, StoreError> {
        let text = self.to_string();
        if text.len() > BACKOFF_BYTES_MAX {
            let (size, limit) = (text.len() as u64, BACKOFF_BYTES_MAX as u64);
            return Err(StoreError::TooLarge { what: "a backoff's stored form in bytes", size, limit });
        }
        Ok(text)
    }

    /// Whether [`stored`](Self::stored) refuses it. Cheap: the text is only made where it may be too long.
    pub(crate) fn check_stored(&self) -> Result<(), StoreError> {
        // A delay has 26 digits at most, and a comma.
        match self {
            Self::Steps(steps) if "steps:".len() + steps.len() * 27 > BACKOFF_BYTES_MAX => self.stored().map(drop),
            Self::Steps(_) | Self::Fixed(_) | Self::Exponential { .. } => Ok(()),
        }
    }
}

/// The one textual form in which stores keep a backoff: `steps:0,30000000`, `fixed:5000000` or
/// `exponential:5000000,600000000`, in microseconds.
impl fmt::Display for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(steps) => {
                f.write_str("steps:")?;
                for (index, step) in steps.iter().enumerate() {
                    write!(f, "{}{}", if index == 0 { "" } else { "," }, step.as_micros())?;
                }
                Ok(())
            }
            Self::Fixed(delay) => write!(f, "fixed:{}", delay.as_micros()),
            Self::Exponential { base, max } => write!(f, "exponential:{},{}", base.as_micros(), max.as_micros()),
        }
    }
}

/// A stored backoff that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a backoff; it reads steps:…, fixed:… or exponential:…, in microseconds")]
pub struct ParseBackoffError;

impl FromStr for Backoff {
    type Err = ParseBackoffError;

    fn from_str(text: &str) -> Result<Self, ParseBackoffError> {
        let (kind, numbers) = text.split_once(':').ok_or(ParseBackoffError)?;
        let delays = numbers.split(',').filter(|_| !numbers.is_empty()).map(micros).collect::<Result<Vec<_>, _>>()?;
        match (kind, delays.as_slice()) {
            ("steps", _) => Ok(Self::Steps(delays.into())),
            ("fixed", [delay]) => Ok(Self::Fixed(*delay)),
            ("exponential", [base, max]) => Ok(Self::Exponential { base: *base, max: *max }),
            _ => Err(ParseBackoffError),
        }
    }
}

/// A duration of this many microseconds. [`Duration::MAX`] has more than 64 bits of them.
fn micros(number: &str) -> Result<Duration, ParseBackoffError> {
    let micros: u128 = number.parse().map_err(|_| ParseBackoffError)?;
    let secs = u64::try_from(micros / 1_000_000).map_err(|_| ParseBackoffError)?;
    let below = u32::try_from(micros % 1_000_000).map_err(|_| ParseBackoffError)?;
    Ok(Duration::new(secs, below * 1_000))
}

/// How often a task is tried, and how long it waits in between.
///
/// The default is three attempts with 0 s and 30 s in between, so that an outage of over 30 s exhausts a task: allow
/// more attempts where that matters (the third delay, 5 min, is reached by tasks that allow more than three).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Retry {
    backoff: Backoff,
    max_attempts: u16,
}

impl Retry {
    /// Three attempts with [`Backoff::DEFAULT`].
    pub const DEFAULT: Self = Self { backoff: Backoff::DEFAULT, max_attempts: 3 };
    /// One attempt: an error is final.
    pub const NEVER: Self = Self { backoff: Backoff::DEFAULT, max_attempts: 1 };

    /// Three attempts with this backoff.
    #[must_use]
    pub const fn new(backoff: Backoff) -> Self {
        Self { backoff, max_attempts: 3 }
    }

    /// Exponential backoff with full jitter, three attempts.
    #[must_use]
    pub const fn exponential(base: Duration, max: Duration) -> Self {
        Self::new(Backoff::Exponential { base, max })
    }

    /// The same delay each time, three attempts.
    #[must_use]
    pub const fn fixed(delay: Duration) -> Self {
        Self::new(Backoff::Fixed(delay))
    }

    /// These delays in turn, the last one repeating, three attempts.
    #[must_use]
    pub const fn steps(delays: &'static [Duration]) -> Self {
        Self::new(Backoff::Steps(Cow::Borrowed(delays)))
    }

    /// With this many attempts in all, the first one included; zero counts as one.
    #[must_use]
    pub const fn attempts(mut self, max_attempts: u16) -> Self {
        self.max_attempts = if max_attempts == 0 { 1 } else { max_attempts };
        self
    }

    /// The delay between attempts.
    #[must_use]
    pub const fn backoff(&self) -> &Backoff {
        &self.backoff
    }

    /// The number of attempts in all, at least 1.
    #[must_use]
    pub const fn max_attempts(&self) -> u16 {
        self.max_attempts
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Jitter = Jitter(1 << 31);

    #[test]
    fn the_default_is_0_s_30_s_5_min() {
        let seconds = |failed| Retry::default().backoff().delay(failed, HALF).as_secs();
        assert_eq!([1, 2, 3, 4, u16::MAX].map(seconds), [0, 30, 300, 300, 300]);
        assert_eq!(Backoff::default(), Backoff::DEFAULT);
        assert_eq!(Retry::default().max_attempts(), 3);
    }

    #[test]
    fn exponential_doubles_up_to_its_bound() {
        let retry = Retry::exponential(Duration::from_secs(2), Duration::from_secs(10)).attempts(9);
        let seconds = |failed| retry.backoff().delay(failed, HALF).as_secs();
        assert_eq!([1, 2, 3, 4, u16::MAX].map(seconds), [1, 2, 4, 5, 5]);
        assert_eq!(retry.backoff().delay(3, Jitter::ZERO), Duration::ZERO);
    }

    #[test]
    fn odd_policies_are_still_policies() {
        assert_eq!(Retry::steps(&[]).backoff().delay(1, HALF), Duration::ZERO);
        assert_eq!(Retry::fixed(Duration::MAX).backoff().delay(7, HALF), Duration::MAX);
        assert_eq!(Retry::NEVER.attempts(0).max_attempts(), 1);
        assert!(Jitter::from_random(u64::MAX).of(Duration::MAX) < Duration::MAX);
    }

    #[test]
    fn the_stored_form_round_trips() {
        let longest = Backoff::Fixed(Duration::MAX).to_string();
        for text in ["steps:0,30000000,300000000", "steps:", "fixed:5", "exponential:1,2", &longest] {
            assert_eq!(text.parse::<Backoff>().unwrap().to_string(), text);
        }
        let too_long = format!("fixed:{}", u128::MAX);
        for text in ["", "fixed", "fixed:", "fixed:1,2", "exponential:1", "steps:x", "other:1", &too_long] {
            assert_eq!(text.parse::<Backoff>(), Err(ParseBackoffError), "{text}");
        }
    }

    #[test]
    fn stores_keep_whole_microseconds_of_what_is_not_too_long() {
        let odd = Duration::from_nanos(1_999);
        for backoff in [
            Backoff::DEFAULT,
            Backoff::Steps(vec![odd, Duration::MAX].into()),
            Backoff::Fixed(odd),
            Backoff::Exponential { base: odd, max: Duration::MAX },
        ] {
            assert_eq!(backoff.stored().unwrap().parse(), Ok(backoff.kept()));
            assert_eq!(backoff.kept().kept(), backoff.kept());
        }
        let steps = |number| Backoff::Steps(vec![Duration::from_secs(1); number].into()).stored();
        assert!(steps(200).is_ok());
        assert!(matches!(steps(1_000), Err(StoreError::TooLarge { limit: 2_048, .. })));
    }
}
