//! How calls between a process and the store go wrong.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use queue_testkit::SeededEntropy;
use queue_testkit::faulty::{Call, Fault, Faults, Strike};

use super::plan::{Blockade, Rates};

#[derive(Clone, Copy, Debug, Default)]
struct State {
    calm: bool,
    /// Of this process alone.
    partition: Option<Blockade>,
    /// Of everybody.
    outage: Option<Blockade>,
}

/// The faults of one worker's calls, over all its lives. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    entropy: Arc<SeededEntropy>,
    rates: Rates,
    /// Whether a call may be left without any answer. A producer would wait for ever.
    may_hang: bool,
    state: Arc<Mutex<State>>,
}

impl Weather {
    pub(super) fn new(seed: u64, rates: Rates, may_hang: bool) -> Self {
        Self { entropy: Arc::new(SeededEntropy::new(seed)), rates, may_hang, state: Arc::default() }
    }

    /// From now on nothing goes wrong.
    pub(super) fn calm(&self) {
        *self.lock() = State { calm: true, ..State::default() };
    }

    pub(super) fn partition(&self, how: Option<Blockade>) {
        self.lock().partition = how;
    }

    pub(super) fn outage(&self, how: Option<Blockade>) {
        self.lock().outage = how;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn some_delay(&self) -> Duration {
        let most = u64::try_from(self.rates.delay_max.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.entropy.below(most.saturating_add(1)))
    }

    fn fault(&self) -> Option<Fault> {
        let Rates { unavailable, request_lost, answer_lost, late, refused, hang, .. } = self.rates;
        let mut drawn = self.entropy.below(1_000);
        let faults = [
            (unavailable, Fault::Unavailable),
            (request_lost, Fault::RequestLost),
            (answer_lost, Fault::AnswerLost),
            (late, Fault::Late(self.some_delay())),
            (refused, Fault::Refused),
            (if self.may_hang { hang } else { 0 }, Fault::Hang),
        ];
        for (rate, fault) in faults {
            if drawn < rate {
                return Some(fault);
            }
            drawn -= rate;
        }
        None
    }
}

impl Faults for Weather {
    fn strike(&self, _: Call, _: u64) -> Strike {
        let State { calm, partition, outage } = *self.lock();
        if calm {
            return Strike::default();
        }
        let blocked = match partition.or(outage) {
            Some(Blockade::Hangs) if self.may_hang => Some(Fault::Hang),
            Some(Blockade::Refuses | Blockade::Hangs) => Some(Fault::Unavailable),
            Some(Blockade::LosesRequests) => Some(Fault::RequestLost),
            Some(Blockade::LosesAnswers) => Some(Fault::AnswerLost),
            None => None,
        };
        let fault = blocked.or_else(|| self.fault());
        let delayed = self.entropy.per_mille(self.rates.delayed);
        let (before, after) =
            if delayed { (self.some_delay(), self.some_delay()) } else { (Duration::ZERO, Duration::ZERO) };
        Strike { before, fault, after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weather_is_bad_until_it_is_calm() {
        let rates = Rates { unavailable: 500, delayed: 1_000, delay_max: Duration::from_millis(5), ..Rates::default() };
        let strikes = |weather: &Weather| (0..40).map(|_| weather.strike(Call::Claim, 1).fault).collect::<Vec<_>>();
        let weather = Weather::new(1, rates, false);
        let bad = strikes(&weather);
        assert!(bad.contains(&None) && bad.contains(&Some(Fault::Unavailable)));
        assert_eq!(bad, strikes(&Weather::new(1, rates, false)));
        weather.outage(Some(Blockade::LosesAnswers));
        assert_eq!(strikes(&weather), [Some(Fault::AnswerLost); 40]);
        weather.partition(Some(Blockade::Hangs));
        assert_eq!(strikes(&weather), [Some(Fault::Unavailable); 40]);
        weather.calm();
        assert_eq!(weather.strike(Call::Settle, 1), Strike::default());

        let hanging = Weather::new(1, Rates { hang: 1_000, ..Rates::default() }, true);
        hanging.partition(Some(Blockade::LosesRequests));
        assert_eq!(strikes(&hanging), [Some(Fault::RequestLost); 40]);
        hanging.partition(None);
        assert_eq!(strikes(&hanging), [Some(Fault::Hang); 40]);
    }
}
