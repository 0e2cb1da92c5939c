//! What the checker found.

use std::fmt;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
#[expect(missing_docs, reason = "fields are named after what they hold in `queue_core`")]
pub enum Violation {
    /// Acknowledged, and not ended (or not there at all) when all was over.
    Lost { task: u64, status: Option<String> },
    /// Completed more than once.
    Duplicated { task: u64, fences: Vec<u32> },
    /// One job became several tasks.
    EnqueuedTwice { job: u64, tasks: Vec<u64> },
    /// Started again, and nothing between the two starts explains it.
    UnexplainedRerun { task: u64, fences: (u32, u32) },
    /// Held by two claims at once.
    TwoClaims { task: u64, fences: (u32, u32) },
    /// Run by two handlers at once, though nobody was frozen and no clock moved.
    Overlap { task: u64, fences: (u32, u32) },
    /// More attempts than allowed.
    OverLimit { task: u64, attempt: u16, max_attempts: u16 },
    /// An attempt was not counted, not refunded, or counted twice.
    WrongAttempt { task: u64, fence: u32, attempt: u16, before: u16 },
    /// A settlement was written though its claim was not current.
    StaleAccepted { task: u64, fence: u32 },
    /// A completion without a handler that succeeded.
    Unearned { task: u64, fence: u32 },
    /// Completed, as was acknowledged, and later not any more.
    Undone { task: u64, status: Option<String> },
    /// Failed as used up though attempts were left.
    GivenUpEarly { task: u64, attempt: u16, max_attempts: u16 },
    /// A session was fenced, or a task of it taken for lost, though it was alive.
    LiveWorkStolen { session: u64, task: Option<u64> },
    /// A handler ran on for more than a lease after its session had been fenced.
    RanOn { task: u64, fence: u32, session: u64 },
    /// A pool did not end by its deadline.
    Overdue(String),
    /// A task is not where its status says.
    Ghost(String),
}

impl Violation {
    /// Its name alone.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Lost { .. } => "Lost",
            Self::Duplicated { .. } => "Duplicated",
            Self::EnqueuedTwice { .. } => "EnqueuedTwice",
            Self::UnexplainedRerun { .. } => "UnexplainedRerun",
            Self::TwoClaims { .. } => "TwoClaims",
            Self::Overlap { .. } => "Overlap",
            Self::OverLimit { .. } => "OverLimit",
            Self::WrongAttempt { .. } => "WrongAttempt",
            Self::StaleAccepted { .. } => "StaleAccepted",
            Self::Unearned { .. } => "Unearned",
            Self::Undone { .. } => "Undone",
            Self::GivenUpEarly { .. } => "GivenUpEarly",
            Self::LiveWorkStolen { .. } => "LiveWorkStolen",
            Self::RanOn { .. } => "RanOn",
            Self::Overdue(_) => "Overdue",
            Self::Ghost(_) => "Ghost",
        }
    }

    /// The tasks that it is about; none when it is about all of them, or none.
    #[must_use]
    pub fn tasks(&self) -> Vec<u64> {
        match self {
            Self::Lost { task, .. }
            | Self::Duplicated { task, .. }
            | Self::UnexplainedRerun { task, .. }
            | Self::TwoClaims { task, .. }
            | Self::Overlap { task, .. }
            | Self::OverLimit { task, .. }
            | Self::WrongAttempt { task, .. }
            | Self::StaleAccepted { task, .. }
            | Self::Unearned { task, .. }
            | Self::Undone { task, .. }
            | Self::GivenUpEarly { task, .. }
            | Self::RanOn { task, .. } => vec![*task],
            Self::EnqueuedTwice { tasks, .. } => tasks.clone(),
            Self::LiveWorkStolen { task, .. } => task.iter().copied().collect(),
            Self::Overdue(_) | Self::Ghost(_) => Vec::new(),
        }
    }
}

/// What a history comes to in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tasks whose enqueue was acknowledged.
    pub acknowledged: u64,
    /// Handlers that started.
    pub starts: u64,
    /// Starts of a task that had been started before, each explained.
    pub reruns: u64,
    /// Runs taken for lost, and recovered.
    pub recovered: u64,
    /// Settlements that came too late.
    pub stale: u64,
    /// Tasks that completed.
    pub completed: u64,
    /// Tasks that failed.
    pub failed: u64,
}

impl Tally {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            acknowledged: self.acknowledged + other.acknowledged,
            starts: self.starts + other.starts,
            reruns: self.reruns + other.reruns,
            recovered: self.recovered + other.recovered,
            stale: self.stale + other.stale,
            completed: self.completed + other.completed,
            failed: self.failed + other.failed,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, starts, reruns, recovered, stale, completed, failed } = self;
        write!(
            f,
            "{acknowledged} tasks acknowledged, {completed} completed, {failed} failed; {starts} starts, {reruns} reruns explained, \
             {recovered} runs recovered, {stale} settlements stale"
        )
    }
}

/// What the checker found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// Promises that were broken, each once, in an order that depends on nothing else.
    pub violations: Vec<Violation>,
    /// The numbers.
    pub tally: Tally,
}

impl Verdict {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations.is_empty()
    }
}
