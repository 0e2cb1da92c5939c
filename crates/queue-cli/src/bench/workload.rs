//! The tasks of the bench, and the pool that works on them.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use queue_runtime::queue_core::{Observation, Observer};
use queue_runtime::{
    Budget, Ctx, Limits, Payload, Pool, Priority, Queue, QueueName, Result, Retention, Start, TaskResult, TaskSpec,
    TaskType,
};
use tokio::sync::Notify;

use super::options::Bench;
use crate::failure::{Failure, Outcome};

/// How long a pool of the bench may take to stop: its handlers end at once.
pub(super) const STOP: Duration = Duration::from_secs(10);
/// Whatever has ended goes, the oldest first.
pub(super) const PRUNED: Retention = Retention::FOREVER.completed(Duration::ZERO);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Digits at the front of a payload that tell tasks apart.
const TOKEN_DIGITS: usize = 20;

/// What the tasks are spread over.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) types: Vec<TaskType>,
    queues: Vec<QueueName>,
    priorities: Vec<Priority>,
    payload: Payload,
    payload_bytes: usize,
}

impl Workload {
    pub(super) fn new(options: &Bench) -> Outcome<Self> {
        let priorities = (0..i64::from(options.priorities))
            .map(|number| Priority::parse(number).map_err(|error| failed("a priority of the bench", error)));
        let payload_bytes = options.payload as usize;
        Ok(Self {
            types: types(options.types)?,
            queues: queues(options.queues)?,
            priorities: priorities.collect::<Outcome<_>>()?,
            payload: Payload::json(format!("\"{}\"", "p".repeat(payload_bytes.saturating_sub(2)))),
            payload_bytes,
        })
    }

    /// The task of this number, due at once.
    pub(super) fn task(&self, number: u64) -> TaskSpec {
        let mut spec = TaskSpec::new(pick(&self.types, number), self.payload.clone());
        spec.queue = pick(&self.queues, number);
        spec.priority = pick(&self.priorities, number);
        spec.budget = Budget::NONE;
        spec
    }

    /// The same, due in a day.
    pub(super) fn later(&self, number: u64) -> TaskSpec {
        let mut spec = self.task(number);
        spec.start = Start::After(DAY);
        spec
    }

    /// A task in a queue of its own, whose handler can tell what it was given.
    pub(super) fn told(&self, queue: &QueueName, token: u64) -> TaskSpec {
        let mut spec = self.task(token);
        let filler = "p".repeat(self.payload_bytes.saturating_sub(TOKEN_DIGITS + 2));
        spec.payload = Payload::json(format!("\"{token:0TOKEN_DIGITS$}{filler}\""));
        spec.queue = queue.clone();
        spec
    }
}

fn pick<T: Clone>(from: &[T], number: u64) -> T {
    from[(number % from.len() as u64) as usize].clone()
}

/// The types of the tasks.
pub(super) fn types(count: u16) -> Outcome<Vec<TaskType>> {
    (0..count)
        .map(|number| TaskType::parse(format!("bench.{number}")).map_err(|error| failed("a type of the bench", error)))
        .collect()
}

/// The queues that are drained.
pub(super) fn queues(count: u16) -> Outcome<Vec<QueueName>> {
    (0..count).map(|number| queue(&format!("bench-{number}"))).collect()
}

/// A queue of this name.
pub(super) fn queue(name: &str) -> Outcome<QueueName> {
    QueueName::parse(name.to_owned()).map_err(|error| failed("a queue of the bench", error))
}

/// The token of a payload made by [`Workload::told`].
pub(super) fn token(payload: &Payload) -> u64 {
    let digits = payload.body().get(1..=TOKEN_DIGITS).and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_default()
}

/// A pool whose handlers do nothing but this.
pub(super) fn pool(
    queue: &Queue,
    types: &[TaskType],
    queues: Vec<QueueName>,
    concurrency: u16,
    on_start: impl Fn(&Payload) + Send + Sync + 'static,
) -> Pool {
    let on_start = Arc::new(on_start);
    let mut pool = Pool::new(queue).queues(queues).concurrency(concurrency.into()).name("bench").grace(STOP / 4);
    for task_type in types {
        let on_start = Arc::clone(&on_start);
        let handler = move |payload: Payload, _: Ctx| {
            on_start(&payload);
            async { Result::Ok(TaskResult::None) }
        };
        pool = pool.handle_raw(task_type.clone(), handler, Limits::DEFAULT);
    }
    pool
}

/// Counts tasks whose end the store has acknowledged, and those whose history it has removed.
#[derive(Debug, Default)]
pub(super) struct Ended {
    count: AtomicU64,
    pruned: AtomicU64,
    goal: AtomicU64,
    reached: Notify,
}

impl Ended {
    /// A count that is waited for.
    pub(super) fn up_to(goal: u64) -> Arc<Self> {
        Arc::new(Self { goal: goal.into(), ..Self::default() })
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn pruned(&self) -> u64 {
        self.pruned.load(Ordering::Relaxed)
    }

    /// Waits until as many as wanted have ended.
    pub(super) async fn reached(&self) {
        self.reached.notified().await;
    }
}

impl Observer for Ended {
    fn observe(&self, observation: &Observation<'_>) {
        if let Observation::Pruned { count, .. } = observation {
            self.pruned.fetch_add(*count, Ordering::Relaxed);
        }
        if matches!(observation, Observation::Processed { .. })
            && self.count.fetch_add(1, Ordering::Relaxed) + 1 == self.goal.load(Ordering::Relaxed)
        {
            self.reached.notify_one();
        }
    }
}

/// A failure that says what was being done.
pub(super) fn failed(what: &str, error: impl Display) -> Failure {
    Failure::failed(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use queue_runtime::Status;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: Bench,
    }

    fn workload(line: &str) -> Workload {
        Workload::new(&Line::parse_from(line.split(' ')).bench).unwrap()
    }

    #[test]
    fn tasks_are_spread_and_as_large_as_wanted() {
        let work = workload("bench --payload 57 --types 3 --queues 2 --priorities 2");
        let names: Vec<_> = (0..4).map(|number| work.task(number).task_type.to_string()).collect();
        assert_eq!(names, ["bench.0", "bench.1", "bench.2", "bench.0"]);
        assert_eq!(work.task(3).queue.as_str(), "bench-1");
        assert_eq!(work.task(3).priority.get(), 1);
        assert_eq!(work.task(0).payload.body().len(), 57);
        assert_eq!(work.later(0).start, Start::After(DAY));
    }

    #[test]
    fn a_payload_carries_its_token() {
        let work = workload("bench --payload 40");
        let spec = work.told(&queue("q").unwrap(), u64::MAX);
        assert_eq!((token(&spec.payload), spec.payload.body().len()), (u64::MAX, 40));
        assert_eq!(token(&Payload::json("1")), 0);
    }

    #[tokio::test]
    async fn the_count_says_when_it_is_reached() {
        let ended = Ended::up_to(2);
        let one = Observation::Processed { task_type: None, outcome: "completed", ran_for: None };
        ended.observe(&one);
        ended.observe(&Observation::InFlight(1));
        ended.observe(&Observation::Pruned { status: Status::Completed, count: 5 });
        ended.observe(&one);
        ended.reached().await;
        assert_eq!((ended.count(), ended.pruned()), (2, 5));
    }
}
