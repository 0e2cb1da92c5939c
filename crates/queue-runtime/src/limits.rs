//! What a worker decides about the tasks of a type.

use std::time::Duration;

/// What this worker decides about the tasks of one type. It may allow less than the task's own options, never more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Limits {
    pub(crate) concurrency: Option<usize>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_attempts: Option<u16>,
    pub(crate) budget: Option<Duration>,
}

impl Limits {
    /// No limit but the pool's own concurrency.
    pub const DEFAULT: Self = Self { concurrency: None, timeout: None, max_attempts: None, budget: None };

    /// At most this many tasks of the type at a time in this process.
    pub const fn concurrency(mut self, tasks: usize) -> Self {
        self.concurrency = Some(tasks);
        self
    }

    /// How long one attempt may take; the next attempt follows when it took longer.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Allows at most this many attempts, when the task itself allows more; zero counts as one.
    pub const fn max_attempts(mut self, attempts: u16) -> Self {
        self.max_attempts = Some(if attempts == 0 { 1 } else { attempts });
        self
    }

    /// Allows a task this long from its creation, when its own budget is longer.
    pub const fn budget(mut self, length: Duration) -> Self {
        self.budget = Some(length);
        self
    }
}
