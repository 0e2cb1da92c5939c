//! Tasks as operators see them.

use crate::ids::{Fence, TaskId};
use crate::machine::TaskState;
use crate::names::{QueueName, TaskType};
use crate::payload::{Payload, TaskResult};
use crate::priority::Priority;
use crate::progress::Progress;
use crate::retry::Backoff;
use crate::text::ErrorText;
use crate::time::Timestamp;

/// All that is known of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    /// Its id.
    pub id: TaskId,
    /// Its type.
    pub task_type: TaskType,
    /// Its queue.
    pub queue: QueueName,
    /// Its priority.
    pub priority: Priority,
    /// Where it stands.
    pub state: TaskState,
    /// The delay between attempts.
    pub backoff: Backoff,
    /// How far its last run had come.
    pub progress: Option<Progress>,
    /// The error of the last attempt that failed.
    pub last_error: Option<ErrorText>,
    /// The name of the session that holds it, while it runs.
    pub worker: Option<String>,
    /// What it works on.
    pub payload: Payload,
    /// What it left behind.
    pub result: TaskResult,
}

/// How many of a task's failed attempts are kept: the latest. Runs that ended otherwise do not count.
pub const ATTEMPTS_MAX: usize = 100;

/// One attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRecord {
    /// The task.
    pub task: TaskId,
    /// The claim count of that run, which tells attempts apart even after refunds and an operator's retry.
    pub fence: Fence,
    /// Which attempt it was.
    pub attempt: u16,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was settled.
    pub ended_at: Timestamp,
    /// What it came to: `retried` or a failure reason (see [`Settlement::label`](crate::Settlement::label)).
    pub outcome: String,
    /// Its error.
    pub error: ErrorText,
}
