//! An observer that remembers.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use queue_core::{Observation, Observer};

/// Remembers every [`Observation`], in order: as one line each, in its `Debug` form, and the outcomes of tasks by their
/// label.
#[derive(Debug, Default)]
pub struct Recorder {
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    lines: Vec<String>,
    outcomes: BTreeMap<&'static str, u64>,
}

impl Recorder {
    /// One that has heard nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything, in order.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// How often something of this name was heard: `Claimed`, `Processed`, ….
    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        let of_name = |line: &&String| line.split(|c: char| !c.is_alphanumeric()).next() == Some(name);
        self.lock().lines.iter().filter(of_name).count()
    }

    /// How many tasks came to each outcome.
    #[must_use]
    pub fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        self.lock().outcomes.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Recorder {
    fn observe(&self, observation: &Observation<'_>) {
        let mut heard = self.lock();
        if let Observation::Processed { outcome, .. } = observation {
            *heard.outcomes.entry(outcome).or_default() += 1;
        }
        heard.lines.push(format!("{observation:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_in_order() {
        let recorder = Recorder::new();
        recorder.observe(&Observation::InFlight(2));
        for outcome in ["completed", "retried", "completed"] {
            recorder.observe(&Observation::Processed { task_type: None, outcome, ran_for: None });
        }
        recorder.observe(&Observation::SessionFenced);
        assert_eq!(recorder.lines()[0], "InFlight(2)");
        assert_eq!(recorder.lines().len(), 5);
        assert_eq!([recorder.count("Processed"), recorder.count("In"), recorder.count("SessionFenced")], [3, 0, 1]);
        assert_eq!(recorder.outcomes(), BTreeMap::from([("completed", 2), ("retried", 1)]));
    }
}
