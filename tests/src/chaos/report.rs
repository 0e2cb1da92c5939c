//! What came of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::plan::Fault;
use crate::history::{Tally, Violation};

/// Violations that are shown, at most.
const SHOWN_MAX: usize = 30;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The server.
    pub server: String,
    /// The plan's seed.
    pub seed: u64,
    /// How long it took in all.
    pub took: Duration,
    /// How often each fault was done. Of lost COMMITs, how many there were.
    pub faults: BTreeMap<Fault, u64>,
    /// Faults that could not be had here, and why.
    pub left_out: Vec<(Fault, String)>,
    /// Faults of the plan that could not be done, because the server was away just then or another fault was in the way.
    pub missed: u64,
    /// The numbers of the history.
    pub tally: Tally,
    /// Tasks that there are, acknowledged or not.
    pub tasks: u64,
    /// Attempts that failed because their worker was lost.
    pub lost_attempts: u64,
    /// Attempts that failed with an error.
    pub failed_attempts: u64,
    /// Attempts that were given back.
    pub refunds: u64,
    /// Effects in the transactions of handlers.
    pub effects: u64,
    /// Promises that were broken.
    pub violations: Vec<Violation>,
    /// What else is wrong: ends and effects of tasks, and processes that did not behave.
    pub complaints: Vec<String>,
    /// What the history says of the tasks of the first violations.
    pub evidence: String,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.complaints.is_empty()
    }

    fn count(&self, of: impl Fn(&Violation) -> bool) -> usize {
        self.violations.iter().filter(|violation| of(violation)).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, seed, tally, .. } = self;
        writeln!(f, "chaos on {server}, seed {seed}, {} s", self.took.as_secs())?;
        let faults: u64 = self.faults.values().sum();
        writeln!(f, "\n{:<42}{faults:>7}", "FAULTS")?;
        for (fault, count) in &self.faults {
            writeln!(f, "  {fault:<40}{count:>7}")?;
        }
        for (fault, why) in &self.left_out {
            writeln!(f, "  {fault:<40} left out: {why}")?;
        }
        if self.missed > 0 {
            writeln!(f, "  {:<40}{:>7}", "(not done: the server was away)", self.missed)?;
        }
        let reruns = self.lost_attempts + self.failed_attempts + self.refunds;
        let unexplained = self.count(|violation| matches!(violation, Violation::UnexplainedRerun { .. }));
        let lost = self.count(|violation| matches!(violation, Violation::Lost { .. }));
        let duplicated =
            self.count(|violation| matches!(violation, Violation::Duplicated { .. } | Violation::EnqueuedTwice { .. }));
        let others = self.violations.len() + self.complaints.len() - unexplained - lost - duplicated;
        let rows = [
            ("TASKS", self.tasks),
            ("  acknowledged", tally.acknowledged),
            ("  completed", tally.completed),
            ("  failed", tally.failed),
            ("  effects in handlers' transactions", self.effects),
            ("STARTS OF HANDLERS", tally.starts),
            ("  again, and explained", tally.reruns),
            ("CLAIMS THAT DID NOT END THEIR TASK", reruns),
            ("  worker lost", self.lost_attempts),
            ("  failed with an error", self.failed_attempts),
            ("  snoozed or given back", self.refunds),
            ("SETTLEMENTS REFUSED AS STALE", tally.stale),
        ];
        writeln!(f)?;
        for (name, count) in rows {
            writeln!(f, "{name:<42}{count:>7}")?;
        }
        writeln!(
            f,
            "\nlost {lost} · duplicated {duplicated} · unexplained reruns {unexplained} · other violations {others}"
        )?;
        for violation in self.violations.iter().take(SHOWN_MAX) {
            writeln!(f, "  {violation:?}")?;
        }
        for complaint in self.complaints.iter().take(SHOWN_MAX) {
            writeln!(f, "  {complaint}")?;
        }
        f.write_str(&self.evidence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_found() {
        let mut report = Report { server: "MySQL 9".to_owned(), ..Report::default() };
        assert!(report.is_good());
        assert!(report.to_string().contains("lost 0 · duplicated 0 · unexplained reruns 0 · other violations 0"));
        report.violations.push(Violation::Lost { task: 7, status: None });
        report.complaints.push("worker 1 ended by itself".to_owned());
        report.faults.insert(Fault::KillServer, 3);
        report.left_out.push((Fault::Clock, "no libfaketime".to_owned()));
        let text = report.to_string();
        assert!(!report.is_good());
        assert!(text.contains("lost 1 · duplicated 0 · unexplained reruns 0 · other violations 1"), "{text}");
        assert!(text.contains("worker 1 ended by itself") && text.contains("left out: no libfaketime"), "{text}");
    }
}
