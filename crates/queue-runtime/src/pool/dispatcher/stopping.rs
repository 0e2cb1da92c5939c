//! Shutting down: claiming stops at once, handlers get a grace period, then a cancel; what did not finish is given back, and
//! the end comes by the deadline whatever handlers and store do.

use std::time::Duration;

use super::{Control, Dispatcher};
use crate::pool::held::Stage;
use crate::pool::pace::Trouble;
use crate::pool::report::Report;

/// Time kept for the last settlements and for closing the session.
const RESERVE_MAX: Duration = Duration::from_secs(2);
/// How long closing the session may take; it ends by itself otherwise.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// A shutdown under way; all on the monotonic clock.
#[derive(Debug)]
pub(super) struct Stopping {
    /// When handlers are told to stop.
    cancel_at: Duration,
    cancelled: bool,
    /// When those that did not stop are given up.
    give_up_at: Duration,
    given_up: bool,
    /// When nothing is waited for any more but the end of the session.
    settle_by: Duration,
    /// When it is over.
    deadline: Duration,
}

/// The end of a dispatcher.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) report: Report,
    /// Until when the end of the session may be waited for, on the monotonic clock.
    pub(crate) close_by: Duration,
}

impl Stopping {
    fn within(limit: Duration, grace: Duration, cancel_grace: Duration, now: Duration) -> Self {
        let reserve = (limit / 4).min(RESERVE_MAX);
        let cancel_grace = cancel_grace.min((limit - reserve) / 2);
        let cancel_at = now.saturating_add(grace.min(limit - reserve - cancel_grace));
        Self {
            cancel_at,
            cancelled: false,
            // A little after the runners drop their futures by themselves.
            give_up_at: cancel_at.saturating_add(cancel_grace + reserve / 4),
            given_up: false,
            settle_by: now.saturating_add(limit - reserve / 4),
            deadline: now.saturating_add(limit),
        }
    }

    /// The next point at which something is to be done.
    pub(super) fn next(&self, now: Duration) -> Duration {
        [(self.cancel_at, self.cancelled), (self.give_up_at, self.given_up)]
            .into_iter()
            .find_map(|(at, done)| (!done).then_some(at))
            .unwrap_or(self.settle_by)
            .min(self.settle_by)
            .max(now)
    }
}

impl Dispatcher {
    /// How long a shutdown takes at most when nobody says otherwise.
    pub(super) fn stop_limit(&self) -> Duration {
        self.config.grace.saturating_add(self.config.cancel_grace).saturating_add(RESERVE_MAX)
    }

    pub(super) fn controlled(&mut self, control: Control, now: Duration) {
        match control {
            Control::Work => {}
            Control::Stop(limit) => self.stop_within(limit, now),
            Control::StopNow => {
                let deadline = self.stopping.as_ref().map(|stopping| stopping.deadline);
                let limit = deadline.map_or(RESERVE_MAX, |deadline| deadline.saturating_sub(now).min(RESERVE_MAX));
                self.begin(
                    Stopping { give_up_at: now, ..Stopping::within(limit, Duration::ZERO, Duration::ZERO, now) },
                    now,
                );
            }
        }
    }

    /// Begins to stop; a later deadline than the one there is does not count.
    pub(super) fn stop_within(&mut self, limit: Duration, now: Duration) {
        let stopping = Stopping::within(limit, self.config.grace, self.config.cancel_grace, now);
        if self.stopping.as_ref().is_none_or(|current| stopping.deadline < current.deadline) {
            self.begin(stopping, now);
        }
    }

    fn begin(&mut self, stopping: Stopping, now: Duration) {
        tracing::info!(held = self.slots.len(), running = self.slots.occupied(), "the pool stops");
        self.stopping = Some(stopping);
        self.afar.stop();
        // What failed before is tried once more at once; there may be no time for another wait.
        self.trouble = Trouble::default();
        self.release_waiting(|_| true, now);
    }

    /// Does what the shutdown wants done by now.
    pub(super) fn advance_stop(&mut self, now: Duration) {
        let Some(stopping) = &mut self.stopping else { return };
        let cancel =
            now >= stopping.cancel_at && !std::mem::replace(&mut stopping.cancelled, now >= stopping.cancel_at);
        let give_up =
            now >= stopping.give_up_at && !std::mem::replace(&mut stopping.given_up, now >= stopping.give_up_at);
        if cancel {
            self.cancel_all();
        }
        if give_up {
            let running = self.slots.iter().filter(|(_, held)| held.stage == Stage::Running);
            for slot in running.map(|(slot, _)| slot).collect::<Vec<_>>() {
                self.give_up(slot, now);
            }
        }
    }

    /// Whether nothing is left to be waited for.
    pub(super) fn is_over(&self, now: Duration) -> bool {
        let Some(stopping) = &self.stopping else { return false };
        let given_up = stopping.given_up || self.slots.occupied() == 0;
        let settled = self.slots.iter().all(|(_, held)| held.stage == Stage::Settled);
        now >= stopping.settle_by || (given_up && settled && self.trips == 0 && self.asks == 0)
    }

    /// The end of the dispatcher: the session is closed last.
    pub(super) fn end(mut self, now: Duration) -> Ended {
        let unsettled = self.slots.iter().filter(|(_, held)| held.stage != Stage::Settled).count();
        self.report.unsettled = u64::try_from(unsettled).unwrap_or(u64::MAX);
        self.report.still_running = u64::try_from(self.slots.occupied()).unwrap_or(u64::MAX);
        if unsettled > 0 || self.report.still_running > 0 {
            tracing::warn!(unsettled, still_running = self.report.still_running, "the pool ends before its tasks do");
        }
        self.close();
        let deadline = self.stopping.as_ref().map_or(now, |stopping| stopping.deadline);
        Ended { report: self.report, close_by: deadline.min(now.saturating_add(CLOSE_MAX)) }
    }
}
