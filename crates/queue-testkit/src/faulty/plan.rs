//! When things go wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Call, Fault, Faults, Strike};
use crate::SeededEntropy;

/// Faults at calls that are named one by one; every other call goes well.
#[derive(Clone, Debug, Default)]
pub struct Script {
    strikes: BTreeMap<(Call, u64), Strike>,
}

impl Script {
    /// Nothing goes wrong.
    #[must_use]
    pub const fn new() -> Self {
        Self { strikes: BTreeMap::new() }
    }

    /// The `nth` call of this kind, counted from 1, goes like this.
    #[must_use]
    pub fn at(mut self, call: Call, nth: u64, strike: impl Into<Strike>) -> Self {
        self.strikes.insert((call, nth), strike.into());
        self
    }

    /// So do the first `count` calls of this kind.
    #[must_use]
    pub fn first(mut self, call: Call, count: u64, strike: impl Into<Strike>) -> Self {
        let strike = strike.into();
        self.strikes.extend((1..=count).map(|nth| ((call, nth), strike)));
        self
    }
}

impl Faults for Script {
    fn strike(&self, call: Call, nth: u64) -> Strike {
        self.strikes.get(&(call, nth)).copied().unwrap_or_default()
    }
}

/// How often things go wrong, in a thousand calls, and how long calls take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// [`Fault::Unavailable`].
    pub unavailable: u64,
    /// [`Fault::RequestLost`].
    pub request_lost: u64,
    /// [`Fault::AnswerLost`].
    pub answer_lost: u64,
    /// [`Fault::Late`], by [`delay_max`](Self::delay_max) at most.
    pub late: u64,
    /// A delay before the store sees the call, and another one for its answer.
    pub delayed: u64,
    /// The longest delay.
    pub delay_max: Duration,
}

/// Faults at random, out of a seed: the same calls in the same order go wrong in the same way.
#[derive(Debug)]
pub struct Seeded {
    entropy: SeededEntropy,
    rates: Rates,
}

impl Seeded {
    /// Faults of this seed, so often.
    #[must_use]
    pub const fn new(seed: u64, rates: Rates) -> Self {
        Self { entropy: SeededEntropy::new(seed), rates }
    }

    fn some_delay(&self) -> Duration {
        let micros = u64::try_from(self.rates.delay_max.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.entropy.below(micros.saturating_add(1)))
    }

    fn fault(&self) -> Option<Fault> {
        let Rates { unavailable, request_lost, answer_lost, late, .. } = self.rates;
        let mut drawn = self.entropy.below(1_000);
        for (rate, fault) in [
            (unavailable, Fault::Unavailable),
            (request_lost, Fault::RequestLost),
            (answer_lost, Fault::AnswerLost),
            (late, Fault::Late(Duration::ZERO)),
        ] {
            if drawn < rate {
                return Some(if matches!(fault, Fault::Late(_)) { Fault::Late(self.some_delay()) } else { fault });
            }
            drawn -= rate;
        }
        None
    }
}

impl Faults for Seeded {
    fn strike(&self, _: Call, _: u64) -> Strike {
        let fault = self.fault();
        let (mut before, mut after) = (Duration::ZERO, Duration::ZERO);
        if self.entropy.per_mille(self.rates.delayed) {
            (before, after) = (self.some_delay(), self.some_delay());
        }
        Strike { before, fault, after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_strikes_where_it_says() {
        let slow = Strike { before: Duration::from_secs(1), ..Strike::default() };
        let script = Script::new().at(Call::Claim, 2, Fault::Hang).first(Call::Settle, 2, slow);
        let struck = |call, nth| script.strike(call, nth);
        assert_eq!([struck(Call::Claim, 1), struck(Call::Claim, 3), struck(Call::Get, 2)], [Strike::default(); 3]);
        assert_eq!(struck(Call::Claim, 2), Fault::Hang.into());
        assert_eq!([1, 2, 3].map(|nth| struck(Call::Settle, nth)), [slow, slow, Strike::default()]);
    }

    #[test]
    fn a_seed_strikes_as_often_as_it_should_and_the_same_again() {
        let delay_max = Duration::from_millis(7);
        let rates = Rates { unavailable: 100, request_lost: 100, answer_lost: 100, late: 100, delayed: 500, delay_max };
        let strikes = |seed| {
            let seeded = Seeded::new(seed, rates);
            (0..2_000).map(|nth| seeded.strike(Call::Claim, nth)).collect::<Vec<_>>()
        };
        let some = strikes(4);
        assert_eq!(some, strikes(4));
        assert_ne!(some, strikes(5));
        for wanted in [Fault::Unavailable, Fault::RequestLost, Fault::AnswerLost] {
            let count = some.iter().filter(|strike| strike.fault == Some(wanted)).count();
            assert!((140..260).contains(&count), "{wanted:?} {count} times in 2,000");
        }
        let late = |strike: &&Strike| matches!(strike.fault, Some(Fault::Late(later)) if later <= delay_max);
        assert!((140..260).contains(&some.iter().filter(late).count()));
        assert!(some.iter().all(|strike| strike.before <= delay_max && strike.after <= delay_max));
        assert!((850..1_150).contains(&some.iter().filter(|strike| !strike.before.is_zero()).count()));
    }
}
