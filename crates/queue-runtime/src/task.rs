//! Task types: what producer and worker share.

use std::mem;
use std::time::Duration;

use queue_core::{Budget, Payload, Priority, QueueName, Retry, TaskSpec, TaskType};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, EncodeError};

/// A kind of task, with what it works on.
///
/// ```
/// use std::time::Duration;
///
/// use queue_runtime::{Options, Priority, Retry, Task, TaskType};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Export {
///     account: u64,
/// }
///
/// impl Task for Export {
///     const TYPE: TaskType = TaskType::new("report.export");
///     type Output = String;
///     const OPTIONS: Options = Options::DEFAULT
///         .queue("reports")
///         .priority(Priority::LOW)
///         .retry(Retry::exponential(Duration::from_secs(5), Duration::from_mins(10)).attempts(8))
///         .budget(Duration::from_hours(6));
/// }
/// ```
///
/// The payload is kept as JSON. A worker may be older or newer than the producer: add fields with `#[serde(default)]`, and
/// take a new type for a new meaning.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a task",
    label = "not a task",
    note = "a handler takes the task first and its `Ctx` second: `async fn(T, Ctx<S>) -> queue_runtime::Result<T::Output>`",
    note = "implement `Task` for `{Self}`: it needs `Serialize`, `Deserialize` and a `const TYPE`"
)]
pub trait Task: Serialize + DeserializeOwned + Send + 'static {
    /// The type's name in the store. It is written by hand, so that renaming the Rust type cannot orphan stored tasks. One that is
    /// not a name does not compile:
    ///
    /// ```compile_fail,E0080
    /// # use queue_runtime::{Task, TaskType};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Welcome;
    /// impl Task for Welcome {
    ///     const TYPE: TaskType = TaskType::new("mail welcome");
    ///     type Output = ();
    /// }
    /// # let _ = Welcome::TYPE;
    /// ```
    const TYPE: TaskType;

    /// What the task leaves behind when it completes; kept as JSON, when it is small enough. `()` (as JSON, `null`)
    /// leaves nothing behind.
    type Output: Serialize + Send + 'static;

    /// What holds for tasks of this type unless the producer says otherwise for one of them.
    const OPTIONS: Options = Options::DEFAULT;
}

/// What holds for each task of a type, checked when compiled: every producer agrees on it, and it freezes on the
/// task when it is enqueued.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Options {
    queue: &'static str,
    priority: Priority,
    retry: Retry,
    budget: Budget,
}

impl Options {
    /// Queue `default`, priority 0, three attempts with 0 s and 30 s in between, a budget of one hour.
    pub const DEFAULT: Self =
        Self { queue: "default", priority: Priority::NORMAL, retry: Retry::DEFAULT, budget: Budget::DEFAULT };

    /// The queue that the tasks wait in.
    ///
    /// # Panics
    ///
    /// When the name is not 1 to 64 of `A-Z a-z 0-9 . _ -`; in a `const` that is a compile error:
    ///
    /// ```compile_fail,E0080
    /// # use queue_runtime::Options;
    /// const OPTIONS: Options = Options::DEFAULT.queue("");
    /// ```
    pub const fn queue(mut self, queue: &'static str) -> Self {
        // Checked here and built when needed: a `QueueName` could not be replaced in a `const`, because it may own memory.
        mem::forget(QueueName::new(queue));
        self.queue = queue;
        self
    }

    /// The priority within the queue.
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// How often the tasks are tried, and when.
    pub const fn retry(mut self, retry: Retry) -> Self {
        // A destructor cannot run in a `const`; the policy that is replaced is a constant and owns nothing.
        mem::forget(mem::replace(&mut self.retry, retry));
        self
    }

    /// How long the tasks may take in all, waiting and retries included.
    pub const fn budget(mut self, length: Duration) -> Self {
        self.budget = Budget::of(length);
        self
    }

    /// The tasks may take for ever.
    pub const fn no_budget(mut self) -> Self {
        self.budget = Budget::NONE;
        self
    }

    /// A task with these options.
    #[must_use]
    pub fn spec(&self, task_type: TaskType, payload: Payload) -> TaskSpec {
        TaskSpec {
            queue: QueueName::new(self.queue),
            priority: self.priority,
            retry: self.retry.clone(),
            budget: self.budget,
            ..TaskSpec::new(task_type, payload)
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What is written for this task unless the producer says more.
pub(crate) fn spec_of<T: Task>(task: &T) -> Result<TaskSpec, EncodeError> {
    Ok(T::OPTIONS.spec(T::TYPE, codec::encode(task)?))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Export {
        account: u64,
    }

    impl Task for Export {
        const TYPE: TaskType = TaskType::new("report.export");
        type Output = String;
        const OPTIONS: Options = Options::DEFAULT
            .queue("reports")
            .priority(Priority::LOW)
            .retry(Retry::exponential(Duration::from_secs(5), Duration::from_mins(10)).attempts(8))
            .budget(Duration::from_hours(6));
    }

    #[test]
    fn constants_become_a_spec() {
        let spec = spec_of(&Export { account: 7 }).unwrap();
        assert_eq!((spec.task_type.as_str(), spec.queue.as_str()), ("report.export", "reports"));
        assert_eq!((spec.priority, spec.retry.max_attempts()), (Priority::LOW, 8));
        assert_eq!(spec.budget.length(), Some(Duration::from_hours(6)));
        assert_eq!(spec.payload.body().as_ref(), br#"{"account":7}"#);
        assert_eq!((spec.start, spec.key), (queue_core::Start::Now, None));
    }

    #[test]
    fn the_defaults_are_those_of_the_core() {
        let (task_type, payload) = (TaskType::new("a"), Payload::json("1"));
        let spec = Options::default().spec(task_type.clone(), payload.clone());
        assert_eq!(spec, TaskSpec::new(task_type.clone(), payload.clone()));
        assert_eq!(Options::DEFAULT.no_budget().spec(task_type, payload).budget, Budget::NONE);
    }

    #[test]
    #[should_panic(expected = "1 to 64")]
    fn a_bad_queue_is_refused() {
        let _ = Options::DEFAULT.queue("no spaces");
    }
}
