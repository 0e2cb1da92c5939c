//! How far a running task has come.

use std::fmt;

use crate::ids::{ClaimId, TaskId};

/// A percentage, 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u8);

impl Percent {
    /// This percentage; more than 100 is 100.
    #[must_use]
    pub const fn new(percent: u8) -> Self {
        Self(if percent > 100 { 100 } else { percent })
    }

    /// How much `done` of `total` is, rounded down; all of it when the total is zero.
    #[must_use]
    pub fn of(done: u64, total: u64) -> Self {
        if done >= total {
            return Self(100);
        }
        let percent = u128::from(done) * 100 / u128::from(total);
        Self::new(u8::try_from(percent).unwrap_or(100))
    }

    /// The percentage as a number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The longest progress message kept, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 200;

/// A percentage and an optional short message, cut to [`MESSAGE_BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Progress {
    percent: Percent,
    message: Option<String>,
}

impl Progress {
    /// Progress as a handler reports it; an empty message is none.
    #[must_use]
    pub fn new(percent: Percent, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        Self { percent, message: (!message.is_empty()).then_some(message) }
    }

    /// How far.
    #[must_use]
    pub const fn percent(&self) -> Percent {
        self.percent
    }

    /// The message, when there is one.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Progress({} %, {} bytes)", self.percent, self.message.as_ref().map_or(0, String::len))
    }
}

/// Progress of one running task, on its way to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressUpdate {
    /// The task.
    pub task: TaskId,
    /// The claim under which it runs; the update is dropped where that is no longer current.
    pub claim: ClaimId,
    /// How far it has come.
    pub progress: Progress,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_bounded() {
        assert_eq!(Percent::new(200).get(), 100);
        assert_eq!(Percent::of(1, 3).to_string(), "33");
        assert_eq!(Percent::of(0, 0).get(), 100);
        assert_eq!(Percent::of(u64::MAX - 1, u64::MAX).get(), 99);
    }

    #[test]
    fn messages_are_short_and_hidden_in_debug() {
        let progress = Progress::new(Percent::new(4), "é".repeat(101));
        assert_eq!((progress.message().map(str::len), progress.percent().get()), (Some(200), 4));
        assert_eq!(format!("{progress:?}"), "Progress(4 %, 200 bytes)");
        assert_eq!(Progress::new(Percent::new(4), "").message(), None);
    }
}
