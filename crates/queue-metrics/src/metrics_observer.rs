//! The observer that records.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use queue_core::{Observation, Observer, QueueName, Status, TaskType};

use crate::catalog::{self, Metric};
use crate::labels::{Series, UNKNOWN};

/// Queues beyond the cap of labels of which the latest figure is kept, so that `other` can be their sum.
const OTHER_QUEUES_MAX: usize = 10_000;
const METADATA: Metadata<'static> = Metadata::new("queue", Level::INFO, Some(module_path!()));

/// Records what pools and clients report. Cheap to share; one for a process is enough.
pub struct Metrics {
    sink: Sink,
    once: OnceLock<Plain>,
    /// Types registered with a pool: the first hundred have series of their own.
    types: Series<TaskType, TypeSeries>,
    /// Types that were enqueued, apart, because a producer may name any: it must not use up the labels of the registered.
    enqueued: Series<TaskType, Counter>,
    unknown: OnceLock<TypeSeries>,
    queues: Series<QueueName, QueueSeries>,
    others: Mutex<HashMap<QueueName, OtherQueue>>,
    kinds: Mutex<HashMap<(&'static str, &'static str), Counter>>,
}

enum Sink {
    /// Whatever recorder the process has installed.
    Global,
    Own(Arc<dyn Recorder + Send + Sync>),
}

/// The series without labels.
struct Plain {
    in_flight: Gauge,
    fenced: Counter,
    stale: Counter,
    claim: Histogram,
    batch: Histogram,
}

/// The series of one task type.
struct TypeSeries {
    label: String,
    claimed: Counter,
    waited: Histogram,
    ran: Histogram,
    overruns: Counter,
    outcomes: Mutex<HashMap<&'static str, Counter>>,
}

/// The series of one queue.
struct QueueSeries {
    label: String,
    depth: Mutex<HashMap<Status, Gauge>>,
    oldest: Gauge,
}

#[derive(Default)]
struct OtherQueue {
    depth: HashMap<Status, u64>,
    oldest: Duration,
}

impl Metrics {
    /// Records into the process's global recorder. Install it before the first task is seen: what was recorded before has
    /// gone nowhere, and series made then stay there.
    #[must_use]
    pub fn global() -> Self {
        Self::of(Sink::Global)
    }

    /// Records into this recorder alone.
    #[must_use]
    pub fn recording_to(recorder: Arc<dyn Recorder + Send + Sync>) -> Self {
        Self::of(Sink::Own(recorder))
    }

    fn of(sink: Sink) -> Self {
        Self {
            sink,
            once: OnceLock::new(),
            types: Series::default(),
            enqueued: Series::default(),
            unknown: OnceLock::new(),
            queues: Series::default(),
            others: Mutex::default(),
            kinds: Mutex::default(),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&dyn Recorder) -> T) -> T {
        match &self.sink {
            Sink::Global => metrics::with_recorder(act),
            Sink::Own(recorder) => act(recorder.as_ref()),
        }
    }

    fn counter(&self, metric: &Metric, labels: &[(&'static str, &str)]) -> Counter {
        self.with(|recorder| recorder.register_counter(&key(metric, labels), &METADATA))
    }

    fn gauge(&self, metric: &Metric, labels: &[(&'static str, &str)]) -> Gauge {
        self.with(|recorder| recorder.register_gauge(&key(metric, labels), &METADATA))
    }

    fn histogram(&self, metric: &Metric, labels: &[(&'static str, &str)]) -> Histogram {
        self.with(|recorder| recorder.register_histogram(&key(metric, labels), &METADATA))
    }

    /// The series without labels; made, and everything described, when first used.
    fn plain(&self) -> &Plain {
        self.once.get_or_init(|| {
            self.with(|recorder| catalog::ALL.iter().for_each(|metric| metric.describe(recorder)));
            Plain {
                in_flight: self.gauge(&catalog::TASKS_IN_FLIGHT, &[]),
                fenced: self.counter(&catalog::SESSIONS_FENCED, &[]),
                stale: self.counter(&catalog::STALE_SETTLEMENTS, &[]),
                claim: self.histogram(&catalog::CLAIM_DURATION, &[]),
                batch: self.histogram(&catalog::SETTLE_BATCH, &[]),
            }
        })
    }

    fn with_type(&self, task_type: Option<&TaskType>, act: impl FnOnce(&TypeSeries)) {
        match task_type {
            Some(task_type) => act(&self.types.of(task_type, |label| self.type_series(label)).0),
            None => act(self.unknown.get_or_init(|| self.type_series(UNKNOWN))),
        }
    }

    fn type_series(&self, label: &str) -> TypeSeries {
        let labels = [("type", label)];
        TypeSeries {
            label: label.to_owned(),
            claimed: self.counter(&catalog::TASKS_CLAIMED, &labels),
            waited: self.histogram(&catalog::SCHEDULE_TO_START, &labels),
            ran: self.histogram(&catalog::TASK_DURATION, &labels),
            overruns: self.counter(&catalog::TASK_OVERRUNS, &labels),
            outcomes: Mutex::default(),
        }
    }

    fn processed(&self, series: &TypeSeries, outcome: &'static str) {
        let mut outcomes = series.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes
            .entry(outcome)
            .or_insert_with(|| {
                self.counter(&catalog::TASKS_PROCESSED, &[("type", &series.label), ("outcome", outcome)])
            })
            .increment(1);
    }

    fn queue_series(&self, label: &str) -> QueueSeries {
        QueueSeries {
            label: label.to_owned(),
            depth: Mutex::default(),
            oldest: self.gauge(&catalog::OLDEST_READY, &[("queue", label)]),
        }
    }

    fn queue_depth(&self, queue: &QueueName, status: Status, count: u64) {
        let (series, shared) = self.queues.of(queue, |label| self.queue_series(label));
        let count = if shared { self.other_depth(queue, status, count) } else { count };
        let mut depth = series.depth.lock().unwrap_or_else(PoisonError::into_inner);
        depth
            .entry(status)
            .or_insert_with(|| {
                self.gauge(&catalog::QUEUE_DEPTH, &[("queue", &series.label), ("status", status.as_str())])
            })
            .set(to_f64(count));
    }

    /// The sum over all queues that share a label.
    fn other_depth(&self, queue: &QueueName, status: Status, count: u64) -> u64 {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if others.len() < OTHER_QUEUES_MAX || others.contains_key(queue) {
            others.entry(queue.clone()).or_default().depth.insert(status, count);
        }
        others.values().filter_map(|other| other.depth.get(&status)).sum()
    }

    fn oldest_ready(&self, queue: &QueueName, age: Duration) {
        let (series, shared) = self.queues.of(queue, |label| self.queue_series(label));
        let age = if shared { self.other_oldest(queue, age) } else { age };
        series.oldest.set(age.as_secs_f64());
    }

    /// The oldest of all queues that share a label.
    fn other_oldest(&self, queue: &QueueName, age: Duration) -> Duration {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if others.len() < OTHER_QUEUES_MAX || others.contains_key(queue) {
            others.entry(queue.clone()).or_default().oldest = age;
        }
        others.values().map(|other| other.oldest).max().unwrap_or(age)
    }

    /// A counter by kind; kinds are closed sets of the code.
    fn count_kind(&self, metric: &Metric, label: &'static str, kind: &'static str, count: u64) {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.entry((metric.name, kind)).or_insert_with(|| self.counter(metric, &[(label, kind)])).increment(count);
    }
}

impl Observer for Metrics {
    fn observe(&self, observation: &Observation<'_>) {
        let plain = self.plain();
        match observation {
            Observation::Claimed { task_type, schedule_to_start } => self.with_type(*task_type, |series| {
                series.claimed.increment(1);
                series.waited.record(schedule_to_start.as_secs_f64());
            }),
            Observation::Processed { task_type, outcome, ran_for } => self.with_type(*task_type, |series| {
                self.processed(series, outcome);
                if let Some(ran_for) = ran_for {
                    series.ran.record(ran_for.as_secs_f64());
                }
            }),
            Observation::Enqueued { task_type, count } => {
                let make = |label: &str| self.counter(&catalog::TASKS_ENQUEUED, &[("type", label)]);
                self.enqueued.of(task_type, make).0.increment(*count);
            }
            Observation::InFlight(count) => plain.in_flight.set(to_f64(*count as u64)),
            Observation::QueueDepth { queue, status, count } => self.queue_depth(queue, *status, *count),
            Observation::OldestReady { queue, age } => self.oldest_ready(queue, *age),
            Observation::SessionFenced => plain.fenced.increment(1),
            Observation::Stale { count } => plain.stale.increment(*count),
            Observation::ClaimReturned(took) => plain.claim.record(took.as_secs_f64()),
            Observation::SettleBatch(size) => plain.batch.record(to_f64(*size as u64)),
            Observation::StoreFailed(kind) => self.count_kind(&catalog::STORE_ERRORS, "kind", kind.as_str(), 1),
            Observation::StoreRetried { kind, count } => self.count_kind(&catalog::STORE_RETRIES, "kind", kind, *count),
            Observation::Pruned { status, count } => {
                self.count_kind(&catalog::TASKS_PRUNED, "status", status.as_str(), *count);
            }
            Observation::Overrun { task_type } => self.with_type(*task_type, |series| series.overruns.increment(1)),
            _ => {}
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sink = match self.sink {
            Sink::Global => "global",
            Sink::Own(_) => "own",
        };
        f.debug_struct("Metrics").field("sink", &sink).finish_non_exhaustive()
    }
}

fn key(metric: &Metric, labels: &[(&'static str, &str)]) -> Key {
    let labels = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect::<Vec<_>>();
    Key::from_parts(metric.name, labels)
}

/// Exact up to 2⁵³, which no count here reaches.
fn to_f64(count: u64) -> f64 {
    count as f64
}
