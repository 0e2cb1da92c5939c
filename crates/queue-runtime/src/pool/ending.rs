//! How a run ended, and what outcome that is.

use std::time::Duration;

use queue_core::{ErrorText, Outcome};

use super::board::Stops;

/// What the store answers to when the transaction that was to complete the task is gone.
pub(crate) const NOT_COMMITTED: &str = "the completing transaction was not committed";

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By itself.
    Returned(Outcome),
    /// It was told to stop, did not, and was dropped (or, when it cannot be dropped, given up).
    Dropped,
}

impl Ending {
    /// The outcome, given why the run was told to stop before it ended. `None`: there is nothing to say about it, the task is
    /// another worker's.
    ///
    /// What a handler returned by itself counts, but for an error out of being stopped: that costs no attempt where the pool
    /// is to blame.
    pub(crate) fn outcome(self, stops: Stops, timeout: Option<Duration>, completing: bool) -> Option<Outcome> {
        let timed_out = || format!("timed out after {:?}", timeout.unwrap_or_default());
        let blameless = stops.has(Stops::SHUTDOWN.with(Stops::LAPSED));
        let own_time = stops.has(Stops::TIMED_OUT.with(Stops::OUT_OF_BUDGET));
        match self {
            Self::Returned(Outcome::Succeeded(_)) if completing => {
                Some(Outcome::Errored { error: ErrorText::from(NOT_COMMITTED), delay: None })
            }
            Self::Returned(Outcome::Errored { .. }) if stops.has(Stops::FENCED) => None,
            Self::Returned(Outcome::Errored { error, delay }) if stops.has(Stops::TIMED_OUT) => {
                Some(Outcome::Errored { error: format!("{}: {}", timed_out(), error.as_str()).into(), delay })
            }
            Self::Returned(Outcome::Errored { .. }) if blameless && !own_time => Some(Outcome::Released),
            Self::Returned(outcome) => Some(outcome),
            Self::Dropped if stops.has(Stops::FENCED) => None,
            Self::Dropped if stops.has(Stops::CANCELLED) => Some(Outcome::Cancelled),
            Self::Dropped if stops.has(Stops::OUT_OF_BUDGET) => Some(Outcome::OutOfBudget),
            Self::Dropped if stops.has(Stops::TIMED_OUT) => {
                Some(Outcome::Errored { error: timed_out().into(), delay: None })
            }
            Self::Dropped => Some(Outcome::Released),
        }
    }
}

#[cfg(test)]
mod tests {
    use queue_core::TaskResult;

    use super::*;

    fn errored(text: &str) -> Outcome {
        Outcome::Errored { error: text.into(), delay: None }
    }

    fn dropped(stops: Stops) -> Option<Outcome> {
        Ending::Dropped.outcome(stops, Some(Duration::from_secs(20)), false)
    }

    #[test]
    fn what_is_dropped_says_why() {
        assert_eq!(dropped(Stops::CANCELLED.with(Stops::OUT_OF_BUDGET)), Some(Outcome::Cancelled));
        assert_eq!(dropped(Stops::OUT_OF_BUDGET.with(Stops::SHUTDOWN)), Some(Outcome::OutOfBudget));
        assert_eq!(dropped(Stops::TIMED_OUT.with(Stops::LAPSED)), Some(errored("timed out after 20s")));
        assert_eq!(dropped(Stops::SHUTDOWN), Some(Outcome::Released));
        assert_eq!(dropped(Stops::LAPSED), Some(Outcome::Released));
        assert_eq!(dropped(Stops::FENCED.with(Stops::CANCELLED)), None);
    }

    #[test]
    fn what_a_handler_returns_counts() {
        let returned = |outcome, stops| Ending::Returned(outcome).outcome(stops, Some(Duration::from_secs(20)), false);
        let succeeded = || Outcome::Succeeded(TaskResult::None);
        for stops in [Stops::NONE, Stops::CANCELLED, Stops::TIMED_OUT, Stops::SHUTDOWN, Stops::FENCED] {
            assert_eq!(returned(succeeded(), stops), Some(succeeded()));
        }
        assert_eq!(returned(errored("no"), Stops::NONE), Some(errored("no")));
        assert_eq!(returned(errored("no"), Stops::TIMED_OUT), Some(errored("timed out after 20s: no")));
        assert_eq!(returned(errored("no"), Stops::SHUTDOWN), Some(Outcome::Released));
        assert_eq!(returned(errored("no"), Stops::SHUTDOWN.with(Stops::OUT_OF_BUDGET)), Some(errored("no")));
        assert_eq!(returned(errored("no"), Stops::FENCED), None);
    }

    #[test]
    fn a_success_whose_transaction_must_have_done_it_is_no_success_by_itself() {
        let outcome = Ending::Returned(Outcome::Succeeded(TaskResult::None)).outcome(Stops::NONE, None, true);
        assert_eq!(outcome, Some(errored(NOT_COMMITTED)));
    }
}
