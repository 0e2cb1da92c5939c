//! How the queues stand, as people and programs read it.

use queue_runtime::queue_core::admin::{Count, QueueStats, Stats};
use serde::Serialize;

use super::escape::escaped;
use super::grouped;
use super::table::Columns;
use crate::duration;
use crate::time::{brief, rfc3339};

/// Everything as JSON. These names are stable.
#[derive(Serialize)]
pub(crate) struct StatsJson<'a> {
    now: String,
    workers: u64,
    queues: Vec<QueueJson<'a>>,
}

#[derive(Serialize)]
struct QueueJson<'a> {
    queue: &'a str,
    ready: u64,
    later: u64,
    running: u64,
    oldest_ready_seconds: Option<f64>,
    completed_last_minute: u64,
    failed_last_day: u64,
    /// The counts that stopped at their bound: there are more.
    more_than: Vec<&'static str>,
    paused: Option<PauseJson<'a>>,
}

#[derive(Serialize)]
struct PauseJson<'a> {
    by: &'a str,
    why: &'a str,
    at: String,
}

impl<'a> StatsJson<'a> {
    pub(crate) fn new(stats: &'a Stats) -> Self {
        Self {
            now: rfc3339(stats.now),
            workers: stats.sessions,
            queues: stats.queues.iter().map(QueueJson::new).collect(),
        }
    }
}

impl<'a> QueueJson<'a> {
    fn new(queue: &'a QueueStats) -> Self {
        let counts = [
            ("ready", queue.ready),
            ("later", queue.later),
            ("running", queue.running),
            ("completed_last_minute", queue.completed_last_minute),
            ("failed_last_day", queue.failed_last_day),
        ];
        Self {
            queue: queue.queue.as_str(),
            ready: queue.ready.number,
            later: queue.later.number,
            running: queue.running.number,
            oldest_ready_seconds: queue.oldest_ready.map(|age| age.as_secs_f64()),
            completed_last_minute: queue.completed_last_minute.number,
            failed_last_day: queue.failed_last_day.number,
            more_than: counts.iter().filter(|(_, count)| count.more).map(|(name, _)| *name).collect(),
            paused: queue.paused.as_ref().map(|pause| PauseJson {
                by: &pause.by,
                why: &pause.why,
                at: rfc3339(pause.at),
            }),
        }
    }
}

/// Everything as lines of text.
pub(crate) fn lines(stats: &Stats) -> Vec<String> {
    let workers = format!("{} worker{}", grouped(stats.sessions), if stats.sessions == 1 { "" } else { "s" });
    if stats.queues.is_empty() {
        return vec![format!("no task was ever enqueued here; {workers}")];
    }
    let mut columns =
        Columns::new(&["QUEUE", ">READY", ">LATER", ">RUNNING", ">OLDEST", ">DONE/MIN", ">FAILED 24H", "NOTE"]);
    for queue in &stats.queues {
        let paused = queue.paused.as_ref().map(|pause| {
            format!("paused by {} {} \"{}\"", escaped(&pause.by), brief(pause.at, stats.now), escaped(&pause.why))
        });
        columns.row([
            queue.queue.to_string(),
            bounded(queue.ready),
            bounded(queue.later),
            bounded(queue.running),
            queue.oldest_ready.map_or_else(|| "-".to_owned(), duration::short),
            bounded(queue.completed_last_minute),
            bounded(queue.failed_last_day),
            paused.unwrap_or_default(),
        ]);
    }
    let mut lines = columns.lines();
    lines.push(workers);
    lines
}

fn bounded(count: Count) -> String {
    format!("{}{}", if count.more { ">" } else { "" }, grouped(count.number))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use queue_runtime::queue_core::admin::Pause;
    use queue_runtime::{QueueName, Timestamp};

    use super::*;

    fn stats() -> Stats {
        let count = Count::bounded;
        let now = Timestamp::from_micros(1_769_850_000_000_000);
        let queue = |name, ready, paused| QueueStats {
            queue: QueueName::new(name),
            ready: count(ready),
            later: count(210),
            running: count(48),
            oldest_ready: (ready > 0).then_some(Duration::from_secs(252)),
            completed_last_minute: count(2_310),
            failed_last_day: count(0),
            paused,
        };
        let pause = Pause { by: "ana".into(), why: "PSP\noutage".into(), at: now.before(Duration::from_secs(60)) };
        Stats { now, queues: vec![queue("mail", 10_001, None), queue("billing", 0, Some(pause))], sessions: 3 }
    }

    #[test]
    fn people_read_a_table() {
        assert_eq!(
            lines(&stats()),
            [
                "QUEUE      READY  LATER  RUNNING  OLDEST  DONE/MIN  FAILED 24H  NOTE",
                "mail     >10,000    210       48   4m12s     2,310           0",
                "billing        0    210       48       -     2,310           0  paused by ana 08:59 \"PSP\\noutage\"",
                "3 workers",
            ]
        );
        let nothing = Stats { queues: Vec::new(), sessions: 1, ..stats() };
        assert_eq!(lines(&nothing), ["no task was ever enqueued here; 1 worker"]);
    }

    #[test]
    fn programs_read_json() {
        let json = serde_json::to_value(StatsJson::new(&stats())).unwrap();
        assert_eq!(json["now"], "2026-01-31T09:00:00.000000Z");
        assert_eq!(json["queues"][0]["more_than"], serde_json::json!(["ready"]));
        assert_eq!(json["queues"][0]["oldest_ready_seconds"], 252.0);
        assert_eq!(json["queues"][1]["paused"]["why"], "PSP\noutage");
        assert_eq!(json["queues"][1]["oldest_ready_seconds"], serde_json::Value::Null);
    }
}
