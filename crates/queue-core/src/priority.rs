//! Priority within a queue.

use std::fmt;

/// A task's priority, −100 to 100: the higher runs first, strictly, within its queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(i8);

/// A priority outside −100 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a priority of {0} is out of range; use -100 to 100, the higher first")]
pub struct PriorityError(i64);

impl Priority {
    /// Runs after everything else.
    pub const LOWEST: Self = Self(-100);
    /// Runs after ordinary tasks.
    pub const LOW: Self = Self(-50);
    /// The default, 0.
    pub const NORMAL: Self = Self(0);
    /// Runs before ordinary tasks.
    pub const HIGH: Self = Self(50);
    /// Runs before everything else.
    pub const HIGHEST: Self = Self(100);

    /// The priority of this number; in a `const` it is checked when compiled.
    ///
    /// # Panics
    ///
    /// When it is not in −100 to 100.
    #[must_use]
    pub const fn new(priority: i8) -> Self {
        assert!(priority >= -100 && priority <= 100, "a priority is -100 to 100");
        Self(priority)
    }

    /// The priority of this number.
    ///
    /// # Errors
    ///
    /// When it is not in −100 to 100.
    pub fn parse(priority: i64) -> Result<Self, PriorityError> {
        match i8::try_from(priority) {
            Ok(number @ -100..=100) => Ok(Self(number)),
            _ => Err(PriorityError(priority)),
        }
    }

    /// The priority as a number.
    #[must_use]
    pub const fn get(self) -> i8 {
        self.0
    }

    /// The number to sort by in ascending order, so that the highest priority comes first in an index.
    #[must_use]
    pub const fn rank(self) -> i8 {
        -self.0
    }

    /// The priority of a [`rank`](Self::rank).
    ///
    /// # Errors
    ///
    /// When the rank is not in −100 to 100.
    pub fn from_rank(rank: i64) -> Result<Self, PriorityError> {
        Self::parse(rank.saturating_neg())
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_bounded_and_ranks_the_highest_first() {
        assert_eq!(Priority::parse(100), Ok(Priority::HIGHEST));
        assert_eq!(Priority::parse(-101), Err(PriorityError(-101)));
        assert_eq!(
            Priority::parse(1_000).unwrap_err().to_string(),
            "a priority of 1000 is out of range; use -100 to 100, the higher first"
        );
        assert!(Priority::HIGH.rank() < Priority::LOW.rank());
        assert_eq!(Priority::from_rank(-100), Ok(Priority::HIGHEST));
        assert!(Priority::from_rank(i64::MIN).is_err());
        assert_eq!((Priority::new(-7).get(), Priority::new(3).to_string()), (-7, "3".to_owned()));
    }

    #[test]
    #[should_panic(expected = "-100 to 100")]
    fn a_bad_constant_panics() {
        let _ = Priority::new(101);
    }
}
