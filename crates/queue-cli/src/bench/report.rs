//! What was measured: JSON with names that stay, and a table for people.

use serde::Serialize;

use super::options::Bench;
use crate::failure::Outcome;
use crate::output::table::Columns;
use crate::output::{Output, grouped, tasks};

/// The figures. What was not measured, or cannot be known here, is null.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Figures {
    pub(super) engine: String,
    pub(super) tasks: u64,
    pub(super) payload_bytes: u32,
    pub(super) concurrency: u16,
    pub(super) types: u16,
    pub(super) priorities: u8,
    pub(super) queues: u16,
    pub(super) processes: u16,
    pub(super) backlog: u64,
    pub(super) scheduled: u64,
    pub(super) history: u64,
    pub(super) snapshot: bool,
    pub(super) retention: bool,
    pub(super) enqueue_per_second: Option<f64>,
    pub(super) enqueue_binlog_bytes_per_task: Option<f64>,
    pub(super) enqueue_single_per_second: Option<f64>,
    pub(super) enqueue_alone_per_second: Option<f64>,
    pub(super) drain_per_second: Option<f64>,
    pub(super) statements_per_task: Option<f64>,
    pub(super) commits_per_task: Option<f64>,
    pub(super) binlog_bytes_per_task: Option<f64>,
    pub(super) prune_per_second: Option<f64>,
    pub(super) retries: Option<u64>,
    pub(super) memory_peak_bytes: Option<u64>,
    pub(super) latency_rate_per_second: Option<f64>,
    pub(super) latency_p50_ms: Option<f64>,
    pub(super) latency_p95_ms: Option<f64>,
    pub(super) latency_p99_ms: Option<f64>,
    pub(super) pickup_p50_ms: Option<f64>,
    pub(super) pickup_p99_ms: Option<f64>,
    pub(super) pickup_across_p50_ms: Option<f64>,
    pub(super) pickup_across_p99_ms: Option<f64>,
    pub(super) idle_statements_per_second: Option<f64>,
    pub(super) idle_writes_per_second: Option<f64>,
    pub(super) idle_rows_per_claim: Option<f64>,
    pub(super) idle_claim_p50_ms: Option<f64>,
    pub(super) idle_claim_p99_ms: Option<f64>,
    pub(super) idle_claim_fresh_p50_ms: Option<f64>,
    pub(super) idle_claim_fresh_p99_ms: Option<f64>,
}

impl Figures {
    pub(super) fn new(options: &Bench, engine: String) -> Self {
        Self {
            engine,
            tasks: options.tasks,
            payload_bytes: options.payload,
            concurrency: options.concurrency,
            types: options.types,
            priorities: options.priorities,
            queues: options.queues,
            processes: options.processes,
            backlog: options.backlog,
            scheduled: options.scheduled,
            history: options.history(),
            snapshot: options.snapshot,
            retention: options.retention,
            ..Self::default()
        }
    }

    pub(super) fn print(&self, output: &mut Output) -> Outcome {
        if output.is_json() {
            return output.value(self);
        }
        output.line(format!(
            "{} · {} of {} bytes · {} at once · {}",
            self.engine,
            tasks(self.tasks),
            grouped(self.payload_bytes.into()),
            grouped(self.concurrency.into()),
            match self.processes {
                1 => "1 process".to_owned(),
                processes => format!("{processes} processes"),
            }
        ))?;
        let mut columns = Columns::new(&["WHAT", ">FIGURE", "UNIT"]);
        for (name, figure, unit) in self.rows() {
            if let Some(figure) = figure {
                columns.row([name.to_owned(), shown(figure), unit.to_owned()]);
            }
        }
        for line in columns.lines() {
            output.line(line)?;
        }
        Ok(())
    }

    fn rows(&self) -> [(&'static str, Option<f64>, &'static str); 26] {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        [
            ("enqueue, in bulk", self.enqueue_per_second, "tasks/s"),
            ("  binlog", self.enqueue_binlog_bytes_per_task, "bytes/task"),
            ("enqueue singly, 64 callers", self.enqueue_single_per_second, "tasks/s"),
            ("enqueue singly, one caller", self.enqueue_alone_per_second, "tasks/s"),
            ("drain", self.drain_per_second, "tasks/s"),
            ("  statements", self.statements_per_task, "per task"),
            ("  commits", self.commits_per_task, "per task"),
            ("  binlog", self.binlog_bytes_per_task, "bytes/task"),
            ("  history removed beside it", self.prune_per_second, "tasks/s"),
            ("  transactions repeated", self.retries.map(|count| count as f64), ""),
            ("  peak memory of a process", self.memory_peak_bytes.map(mib), "MiB"),
            ("enqueued to started, at a rate of", self.latency_rate_per_second, "tasks/s"),
            ("  p50", self.latency_p50_ms, "ms"),
            ("  p95", self.latency_p95_ms, "ms"),
            ("  p99", self.latency_p99_ms, "ms"),
            ("picked up when idle, p50", self.pickup_p50_ms, "ms"),
            ("  p99", self.pickup_p99_ms, "ms"),
            ("picked up by another process, p50", self.pickup_across_p50_ms, "ms"),
            ("  p99", self.pickup_across_p99_ms, "ms"),
            ("an idle pool's statements", self.idle_statements_per_second, "per s"),
            ("an idle pool's writes", self.idle_writes_per_second, "per s"),
            ("an idle claim reads", self.idle_rows_per_claim, "rows"),
            ("an idle claim takes, p50", self.idle_claim_p50_ms, "ms"),
            ("  p99", self.idle_claim_p99_ms, "ms"),
            ("  of a pool that has just connected, p50", self.idle_claim_fresh_p50_ms, "ms"),
            ("  p99", self.idle_claim_fresh_p99_ms, "ms"),
        ]
    }
}

fn shown(figure: f64) -> String {
    if figure >= 100.0 {
        return grouped(figure.round() as u64);
    }
    format!(
        "{figure:.digits$}",
        digits = if figure >= 10.0 {
            1
        } else if figure >= 0.1 || figure == 0.0 {
            2
        } else {
            4
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_as_long_as_they_are_worth() {
        assert_eq!([12_345.6, 99.94, 1.236, 0.012_34, 0.0].map(shown), ["12,346", "99.9", "1.24", "0.0123", "0.00"]);
    }
}
