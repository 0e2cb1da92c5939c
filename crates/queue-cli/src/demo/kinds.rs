//! The six kinds of task of the demonstration: what they do, and what must become of them.

use std::time::Duration;

use queue_runtime::queue_core::FailureReason;
use queue_runtime::{
    Ctx, Limits, Options, Payload, Pool, Result, Retry, Status, Task, TaskRecord, TaskSpec, TaskType, percent,
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

/// Attempts that every kind needs, and one more each, so that the worker that is killed changes no outcome.
const FLAKY_ATTEMPTS: u16 = 3;
const FRAMES: usize = 10;
const FRAME: Duration = Duration::from_millis(40);
const SLOW_BUDGET: Duration = Duration::from_millis(1_500);

/// Kinds that take long do not take all places.
const SLOTS: Limits = Limits::DEFAULT.concurrency(6);

macro_rules! kind {
    ($name:ident, $type:literal, $options:expr) => {
        #[derive(Debug, Serialize, Deserialize)]
        struct $name {
            number: u64,
        }

        impl Task for $name {
            const TYPE: TaskType = TaskType::new($type);
            type Output = ();
            const OPTIONS: Options = $options;
        }
    };
}

const QUICK: Retry = Retry::steps(&[Duration::from_millis(100), Duration::from_millis(300)]);

kind!(Hello, "demo.hello", Options::DEFAULT.retry(QUICK.attempts(2)));
kind!(Flaky, "demo.flaky", Options::DEFAULT.retry(QUICK.attempts(FLAKY_ATTEMPTS + 1)));
kind!(Resize, "demo.resize", Options::DEFAULT.retry(QUICK.attempts(2)));
kind!(Bad, "demo.bad", Options::DEFAULT.retry(QUICK.attempts(2)));
kind!(Panic, "demo.panic", Options::DEFAULT.retry(QUICK.attempts(2)));
kind!(Slow, "demo.slow", Options::DEFAULT.retry(QUICK.attempts(2)).budget(SLOW_BUDGET));

async fn hello(_: Hello, _: Ctx) -> Result {
    Ok(())
}

async fn flaky(_: Flaky, cx: Ctx) -> Result {
    if cx.attempt() < FLAKY_ATTEMPTS {
        return Err(format!("attempt {} was not good enough", cx.attempt()).into());
    }
    Ok(())
}

async fn resize(_: Resize, cx: Ctx) -> Result {
    for frame in 1..=FRAMES {
        sleep(FRAME).await;
        cx.progress(percent(frame, FRAMES), format!("frame {frame} of {FRAMES}"));
    }
    Ok(())
}

async fn bad(task: Bad, cx: Ctx) -> Result {
    cx.reject(format!("picture {} is not a picture", task.number))
}

async fn panic(task: Panic, _: Ctx) -> Result {
    panic!("picture {} is upside down", task.number)
}

async fn slow(_: Slow, _: Ctx) -> Result {
    sleep(Duration::from_hours(1)).await;
    Ok(())
}

/// The pool that handles every kind.
pub(super) fn handled(pool: Pool) -> Pool {
    pool.handle(hello).handle(flaky).handle_with(resize, SLOTS).handle(bad).handle(panic).handle_with(slow, SLOTS)
}

/// One kind, as the table shows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) does: &'static str,
    pub(super) expected: &'static str,
    status: Status,
    reason: Option<FailureReason>,
    /// Tasks of this kind among 60.
    share: u32,
    options: fn() -> Options,
}

/// The kind that reports progress, which the live view follows.
pub(super) const RESIZE: TaskType = Resize::TYPE;

const fn completes(
    name: &'static str,
    does: &'static str,
    expected: &'static str,
    share: u32,
    options: fn() -> Options,
) -> Kind {
    Kind { name, does, expected, status: Status::Completed, reason: None, share, options }
}

const fn fails(
    name: &'static str,
    does: &'static str,
    expected: &'static str,
    reason: FailureReason,
    share: u32,
    options: fn() -> Options,
) -> Kind {
    Kind { name, does, expected, status: Status::Failed, reason: Some(reason), share, options }
}

/// All of them, in the order of the table.
pub(super) static KINDS: [Kind; 6] = [
    completes("demo.hello", "succeeds", "completed", 48, || Hello::OPTIONS),
    completes("demo.flaky", "fails twice, then succeeds", "completed, attempt 3", 6, || Flaky::OPTIONS),
    completes("demo.resize", "reports progress", "completed at 100 %", 2, || Resize::OPTIONS),
    fails("demo.bad", "says \"do not retry\"", "failed(rejected)", FailureReason::Rejected, 2, || Bad::OPTIONS),
    fails("demo.panic", "panics", "failed(panicked)", FailureReason::Panicked, 1, || Panic::OPTIONS),
    fails("demo.slow", "outlives its budget", "failed(budget_exceeded)", FailureReason::BudgetExceeded, 1, || {
        Slow::OPTIONS
    }),
];

impl Kind {
    /// Whether what became of a task is what was expected. The killed run may have cost an attempt, which is counted apart.
    pub(super) fn as_expected(&self, task: &TaskRecord) -> bool {
        let whole = self.name != RESIZE.as_str()
            || task.progress.as_ref().is_some_and(|progress| progress.percent().get() == 100);
        task.state.status == self.status && task.state.reason == self.reason && whole
    }
}

/// Tasks of all kinds, well mixed; as many of each as [`KINDS`] says.
pub(super) fn tasks(total: u32, queue: &queue_runtime::QueueName) -> Vec<TaskSpec> {
    let mut pattern = Vec::new();
    for (kind, place) in KINDS.iter().zip(0_u32..) {
        // Spread evenly: the n-th of its kind stands at n/share of the way.
        pattern.extend((0..kind.share).map(|n| ((2 * n + 1) * 1_000 / kind.share + place, kind)));
    }
    pattern.sort_by_key(|(position, _)| *position);
    let kinds = pattern.iter().map(|(_, kind)| *kind).cycle();
    kinds
        .zip(1..=total)
        .map(|(kind, number)| {
            let payload = Payload::json(format!("{{\"number\":{number}}}"));
            TaskSpec { queue: queue.clone(), ..(kind.options)().spec(TaskType::new(kind.name), payload) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use queue_runtime::QueueName;

    use super::*;

    #[test]
    fn the_kinds_are_mixed_as_the_table_says() {
        let tasks = tasks(3_000, &QueueName::DEFAULT);
        let counts = KINDS.map(|kind| tasks.iter().filter(|task| task.task_type.as_str() == kind.name).count());
        assert_eq!(counts, [2_400, 300, 100, 100, 50, 50]);
        let first = &tasks[..30];
        assert!(first.iter().any(|task| task.task_type == RESIZE), "early enough to be watched");
    }

    #[test]
    fn each_kind_may_lose_one_run() {
        for kind in &KINDS {
            let spec = (kind.options)().spec(TaskType::new(kind.name), Payload::default());
            let needed = if kind.name == "demo.flaky" { FLAKY_ATTEMPTS } else { 1 };
            assert_eq!(spec.retry.max_attempts(), needed + 1, "{}", kind.name);
        }
    }
}
