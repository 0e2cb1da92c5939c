//! What a claim locks together with its look at the lanes, before it knows what the look shows.
//!
//! A round trip less where work is plenty: the lane that the last claim did not come to the end of, or that this process has just
//! enqueued into, most likely has more. The look, in the same round trip and before it, says whether the guess was right;
//! where another lane comes first, or the queue was paused meanwhile, what was locked is not taken.

use queue_core::ClaimRequest;
use queue_core::admission::Admission;

use super::lane::LaneWork;
use super::offer::Offer;
use crate::inner::Inner;
use crate::lanes::Survey;
use crate::sql::CLOCK;

/// Lanes, each begun, with the rows that are asked of it, and the statements that lock them.
pub(crate) struct Guess {
    lanes: Vec<(LaneWork, usize)>,
    sql: Vec<String>,
}

impl Guess {
    /// What is likely there for this request; `None` when nothing is known to be.
    pub(crate) fn of(inner: &Inner, request: &ClaimRequest, turn: Option<u32>) -> Option<Self> {
        let flavor = inner.server.flavor;
        // Few rows would not say that no more are free.
        if flavor.limits_before_skipping() {
            return None;
        }
        let (now, expected) = inner.lanes.expected()?;
        let lanes = expected.into_iter().map(|lane| (lane, now.as_micros())).collect();
        let survey = Survey { now, type_id_max: 0, lanes, heads: Vec::new() };
        let mut offer = Offer::new(inner, request, &survey, turn);
        let mut plans = offer.plan(&Admission::new(request, now));
        plans.retain(|(queue, ..)| offer.wanted(*queue).is_none());
        if plans.is_empty() {
            return None;
        }
        let begun = offer.begin(inner, &plans);
        // Claims that leave meanwhile go on with the queue after it.
        if let Some(last) = begun.last() {
            inner.lanes.set_turn(last.lane.queue_id);
        }
        let sql = offer.lock_sql(flavor, &plans, CLOCK);
        let rows = plans.iter().map(|(_, _, ask)| ask.rows());
        Some(Self { lanes: begun.into_iter().zip(rows).collect(), sql })
    }

    /// A statement for each of the lanes.
    pub(crate) fn sql(&self) -> &[String] {
        &self.sql
    }

    /// The lanes, each begun, and how many rows were asked of it.
    pub(super) fn lanes(&self) -> impl Iterator<Item = &(LaneWork, usize)> {
        self.lanes.iter()
    }
}
