use std::time::Duration;

use queue_runtime::{Task, TaskType};
use serde::{Deserialize, Serialize};

/// A task that sleeps for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// How long it sleeps, in milliseconds.
    pub sleep_ms: u64,
}

impl Job {
    /// How long it sleeps.
    #[must_use]
    pub const fn sleep(self) -> Duration {
        Duration::from_millis(self.sleep_ms)
    }
}

impl Task for Job {
    const TYPE: TaskType = TaskType::new("e2e.job");
    type Output = ();
}
