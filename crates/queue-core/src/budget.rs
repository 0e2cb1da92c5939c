//! The wall-clock budget of a task.

use std::time::Duration;

use crate::time::Timestamp;

/// How long a task may take from creation to its end, retries and waiting included.
///
/// The budget starts when the task is created or, for a delayed task, when it is first due. It is kept on the row, so that an
/// operator's retry can grant it afresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget(Option<Duration>);

impl Budget {
    /// One hour.
    pub const DEFAULT: Self = Self::of(Duration::from_secs(3600));
    /// No budget: the task may take for ever.
    pub const NONE: Self = Self(None);

    /// A budget of this length.
    #[must_use]
    pub const fn of(length: Duration) -> Self {
        Self(Some(length))
    }

    /// The budget's length; `None` when there is no budget.
    #[must_use]
    pub const fn length(self) -> Option<Duration> {
        self.0
    }

    /// The point at which the budget of a task is spent.
    #[must_use]
    pub fn deadline(self, created_at: Timestamp, first_run_at: Timestamp) -> Option<Timestamp> {
        self.0.map(|length| created_at.max(first_run_at).after(length))
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl From<Duration> for Budget {
    fn from(length: Duration) -> Self {
        Self::of(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_at_the_first_due_time() {
        let (early, late) = (Timestamp::from_micros(5), Timestamp::from_micros(9));
        let budget = Budget::from(Duration::from_micros(10));
        assert_eq!(budget.deadline(early, late), Some(Timestamp::from_micros(19)));
        assert_eq!(budget.deadline(late, early), Some(Timestamp::from_micros(19)));
        assert_eq!(Budget::NONE.deadline(early, late), None);
        assert_eq!(Budget::default().length(), Some(Duration::from_secs(3600)));
    }
}
