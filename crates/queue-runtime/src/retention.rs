//! How long tasks that have ended are kept.

use std::fmt;
use std::time::Duration;

use queue_core::Status;

/// How long a database keeps tasks that have ended; see [`Pool::retention`](crate::Pool::retention).
///
/// ```
/// use std::time::Duration;
/// use queue_runtime::Retention;
///
/// const DAY: Duration = Duration::from_secs(24 * 3600);
/// let retention = Retention::FOREVER.completed(DAY * 7).failed(DAY * 90);
/// # assert_ne!(retention, Retention::FOREVER);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Retention {
    completed: Option<Duration>,
    failed: Option<Duration>,
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = |keep: Option<Duration>| keep.map_or_else(|| "for good".to_owned(), |keep| format!("for {keep:?}"));
        write!(f, "completed {}, failed {}", kept(self.completed), kept(self.failed))
    }
}

impl Retention {
    /// Everything is kept for good.
    pub const FOREVER: Self = Self { completed: None, failed: None };

    /// Keeps completed tasks this long from their end.
    pub const fn completed(mut self, keep: Duration) -> Self {
        self.completed = Some(keep);
        self
    }

    /// Keeps failed tasks this long from their end. They are what an operator looks for, and can retry: keep them longer.
    pub const fn failed(mut self, keep: Duration) -> Self {
        self.failed = Some(keep);
        self
    }

    /// The statuses whose tasks go, and how long each is kept.
    pub(crate) fn rules(self) -> Vec<(Status, Duration)> {
        let rules = [(Status::Completed, self.completed), (Status::Failed, self.failed)];
        rules.into_iter().filter_map(|(status, keep)| Some((status, keep?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_long_what_is_kept() {
        let week = Retention::FOREVER.completed(Duration::from_secs(7 * 86_400));
        assert_eq!(week.to_string(), "completed for 604800s, failed for good");
    }
}
