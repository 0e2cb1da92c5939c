//! What the bench is told.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::args::parse_positive;

/// The options of `queue bench`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
It makes a database of its own beside the one that the URL names (an SQLite file in a new directory beside the URL's file) and \
removes it at the end, also after Ctrl-C. Counts of statements and bytes are those of the whole server: on one that others \
use as well they say little. Figures of two sittings are hard to compare; run what you compare in turn, three times.")]
pub(crate) struct Bench {
    /// Tasks to enqueue and to drain
    #[arg(long, value_name = "N", default_value = "100000", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) tasks: u64,
    /// The size of each task's payload
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = clap::value_parser!(u32).range(2..=1_048_576))]
    pub(crate) payload: u32,
    /// Handlers that run at once, in each process
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) concurrency: u16,
    /// Task types that the tasks are spread over
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(crate) types: u16,
    /// Priorities that the tasks are spread over
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) priorities: u8,
    /// Queues that the tasks are spread over
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) queues: u16,
    /// Processes that drain together
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) processes: u16,
    /// Due tasks that lie there beside those that are measured
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) backlog: u64,
    /// Tasks that are due in a day
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) scheduled: u64,
    /// Completed tasks that lie there from before
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) history: u64,
    /// Let the pool that drains remove history beside it, as pools with a retention do. Without --history there is
    /// as much history as there are tasks
    #[arg(long)]
    pub(crate) retention: bool,
    /// Hold a consistent snapshot open during the drain, and while a pool is idle after it, as a backup does (not with SQLite)
    #[arg(long)]
    pub(crate) snapshot: bool,
    /// Measure only this; what it needs is done unmeasured [default: everything]
    #[arg(long, value_name = "PART,…", value_delimiter = ',')]
    pub(crate) only: Vec<Part>,
    /// Tasks enqueued a second while the latency under load is measured [default: half of what the drain makes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: Option<u32>,
    /// How long the cost of an idle pool is watched, and how long the latency under load
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = parse_positive)]
    pub(crate) watch: Duration,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Bulk enqueue
    Enqueue,
    /// The drain, and what it costs the server
    Drain,
    /// Single enqueues, from one caller and from 64
    Singles,
    /// From due to started, at half of the drain's rate or at --rate
    Latency,
    /// From enqueued to started, on an idle pool
    Pickup,
    /// What an idle pool costs the server
    Idle,
}

impl Bench {
    /// Completed tasks that lie there from before.
    pub(crate) const fn history(&self) -> u64 {
        if self.retention && self.history == 0 { self.tasks } else { self.history }
    }

    /// Whether anything lies there before it is measured.
    pub(crate) const fn fills(&self) -> bool {
        self.history() > 0 || self.scheduled > 0 || self.backlog > 0
    }

    pub(crate) fn measures(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// Whether anything is measured that takes tasks enqueued in bulk.
    pub(crate) fn needs_tasks(&self) -> bool {
        self.measures(Part::Enqueue) || self.needs_drain()
    }

    /// Whether anything is measured that takes a drain: an idle pool does where a snapshot keeps what was drained.
    pub(crate) fn needs_drain(&self) -> bool {
        self.measures(Part::Drain)
            || (self.measures(Part::Latency) && self.rate.is_none())
            || (self.snapshot && self.measures(Part::Idle))
    }
}
