//! Every metric: its name, unit, help text and, for histograms, its buckets.

use metrics::{Recorder, SharedString, Unit};

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts observations in buckets up to these bounds.
    Histogram(&'static [Bound]),
}

/// The upper bound of a bucket, in thousandths of the metric's unit, so that a catalogue can be compared.
pub type Bound = u64;

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// What it counts in, seconds or a number of things.
    pub seconds: bool,
    /// What it tells.
    pub help: &'static str,
}

/// From 1 ms to an hour: how long tasks run and wait.
const TASK_SECONDS: &[Bound] =
    &[1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000];
/// From 1 ms to 10 s: how long a trip to the store takes.
const STORE_SECONDS: &[Bound] = &[1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000];
/// From 1 to 1,000, the largest batch.
const BATCH_SIZES: &[Bound] = &[1_000, 2_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000];

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, seconds: false, help }
}

const fn gauge(name: &'static str, seconds: bool, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, seconds, help }
}

const fn histogram(name: &'static str, seconds: bool, bounds: &'static [Bound], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram(bounds), seconds, help }
}

/// `tasks_claimed_total{type}`
pub const TASKS_CLAIMED: Metric = counter("tasks_claimed_total", "Tasks claimed by this process.");
/// `tasks_processed_total{type,outcome}`
pub const TASKS_PROCESSED: Metric = counter(
    "tasks_processed_total",
    "Runs that ended, and tasks that ended without a run, by outcome: completed, retried, snoozed, released or why it failed.",
);
/// `task_duration_seconds{type}`
pub const TASK_DURATION: Metric =
    histogram("task_duration_seconds", true, TASK_SECONDS, "How long handlers ran, whatever they came to.");
/// `tasks_in_flight`
pub const TASKS_IN_FLIGHT: Metric = gauge("tasks_in_flight", false, "Handlers that run in this process right now.");
/// `tasks_enqueued_total{type}`
pub const TASKS_ENQUEUED: Metric = counter("tasks_enqueued_total", "Tasks enqueued by this process.");
/// `task_schedule_to_start_seconds{type}`
pub const SCHEDULE_TO_START: Metric = histogram(
    "task_schedule_to_start_seconds",
    true,
    TASK_SECONDS,
    "How long tasks waited from the time they were due until they were claimed.",
);
/// `task_overruns_total{type}`
pub const TASK_OVERRUNS: Metric = counter("task_overruns_total", "Handlers that did not end when their time was over.");
/// `queue_depth{queue,status}`
pub const QUEUE_DEPTH: Metric =
    gauge("queue_depth", false, "Tasks in a queue by status when it was last looked at, counted up to 10,000.");
/// `queue_oldest_ready_seconds{queue}`
pub const OLDEST_READY: Metric = gauge(
    "queue_oldest_ready_seconds",
    true,
    "How long the oldest due task of a queue had waited when it was last looked at.",
);
/// `sessions_fenced_total`
pub const SESSIONS_FENCED: Metric =
    counter("sessions_fenced_total", "Times this process lost its session, because it could not renew it in time.");
/// `stale_settlements_total`
pub const STALE_SETTLEMENTS: Metric = counter(
    "stale_settlements_total",
    "Ends of runs that came too late and were refused, because the task had been given to another worker.",
);
/// `claim_duration_seconds`
pub const CLAIM_DURATION: Metric =
    histogram("claim_duration_seconds", true, STORE_SECONDS, "How long a claim took to come back from the store.");
/// `settle_batch_size`
pub const SETTLE_BATCH: Metric =
    histogram("settle_batch_size", false, BATCH_SIZES, "Ends of runs that were written in one batch.");
/// `store_errors_total{kind}`
pub const STORE_ERRORS: Metric = counter("store_errors_total", "Calls to the store that failed, by kind of error.");
/// `store_retries_total{kind}`
pub const STORE_RETRIES: Metric =
    counter("store_retries_total", "Transactions that the store repeated by itself, by cause.");
/// `tasks_pruned_total{status}`
pub const TASKS_PRUNED: Metric = counter(
    "tasks_pruned_total",
    "Tasks that this process removed, because they had ended longer ago than its retention says.",
);

/// All of them.
pub const ALL: &[Metric] = &[
    TASKS_CLAIMED,
    TASKS_PROCESSED,
    TASK_DURATION,
    TASKS_IN_FLIGHT,
    TASKS_ENQUEUED,
    SCHEDULE_TO_START,
    TASK_OVERRUNS,
    QUEUE_DEPTH,
    OLDEST_READY,
    SESSIONS_FENCED,
    STALE_SETTLEMENTS,
    CLAIM_DURATION,
    SETTLE_BATCH,
    STORE_ERRORS,
    STORE_RETRIES,
    TASKS_PRUNED,
];

impl Metric {
    /// The buckets' upper bounds in the metric's unit; none unless it is a histogram.
    #[must_use]
    pub fn buckets(&self) -> Vec<f64> {
        match self.kind {
            // Exact: every bound is far below 2⁵³.
            Kind::Histogram(bounds) => bounds.iter().map(|bound| *bound as f64 / 1_000.0).collect(),
            Kind::Counter | Kind::Gauge => Vec::new(),
        }
    }

    pub(crate) fn describe(&self, recorder: &dyn Recorder) {
        let unit = Some(if self.seconds { Unit::Seconds } else { Unit::Count });
        let help = SharedString::const_str(self.help);
        match self.kind {
            Kind::Counter => recorder.describe_counter(self.name.into(), unit, help),
            Kind::Gauge => recorder.describe_gauge(self.name.into(), unit, help),
            Kind::Histogram(_) => recorder.describe_histogram(self.name.into(), unit, help),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for metric in ALL {
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert_eq!(metric.name.ends_with("_seconds"), metric.seconds, "{}", metric.name);
            let buckets = metric.buckets();
            assert!(buckets.is_sorted_by(|a, b| a < b), "{}", metric.name);
            assert_eq!(buckets.is_empty(), !matches!(metric.kind, Kind::Histogram(_)), "{}", metric.name);
        }
        let mut names = ALL.iter().map(|metric| metric.name).collect::<Vec<_>>();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
