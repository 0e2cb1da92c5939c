//! What comes back from the store.

use std::time::Duration;

use queue_core::claim::Resolved;
use queue_core::store::Reckoning;
use queue_core::{ClaimReply, Claimed, Due, ErrorKind, Observation, Settled, Settlement, StoreError};

use super::{Ask, Batch, Dispatcher, Trip};
use crate::pool::board::Stops;
use crate::pool::heartbeat::Orders;
use crate::pool::held::Stage;

/// Refusals after which a settlement that cannot be written no longer keeps the pool from claiming.
const REFUSALS_MAX: u32 = 3;

impl Dispatcher {
    pub(super) fn trip_returned(&mut self, trip: Trip, now: Duration) {
        let Trip { settled, claimed, took } = trip;
        if claimed.is_some() || settled.as_ref().is_some_and(|(batch, _)| !batch.goes_alone()) {
            self.trips -= 1;
        } else {
            self.calls -= 1;
        }
        if let Some((batch, answer)) = settled {
            self.settle_answered(batch, answer, now);
        }
        if let Some((mut ask, answer)) = claimed {
            // Its settlements are back, one way or the other: what it replaces is not held any more, or is held for longer.
            self.reserved.tasks += std::mem::take(&mut ask.replaces);
            if answer.is_ok() {
                self.config.observe(&Observation::ClaimReturned(took));
            }
            self.claim_answered(ask, answer, now);
        }
    }

    fn settle_answered(&mut self, batch: Batch, answer: Result<Vec<Settled>, StoreError>, now: Duration) {
        match answer {
            Ok(answers) => {
                self.trouble.over();
                self.stop_failing(&batch);
                self.acknowledged(&batch, &answers);
            }
            Err(error) => {
                self.config.failed("runs were not settled; they will be again", &error);
                self.trouble.failed(&self.config, now);
                self.settle_again(batch, &error);
            }
        }
    }

    /// The same batch again. One that cannot be written is taken apart, so that the one task that is the cause stands alone.
    fn settle_again(&mut self, batch: Batch, error: &StoreError) {
        self.stop_failing(&batch);
        let hopeless = matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::Corrupt | ErrorKind::Other);
        if hopeless && batch.slots.len() > 1 {
            for (item, slot) in batch.items.iter().zip(&batch.slots) {
                self.fail(Batch {
                    items: [item.clone()].into(),
                    slots: vec![*slot],
                    progress: Vec::new(),
                    apart: batch.apart,
                    tries: 1,
                    refusals: 1,
                });
            }
        } else {
            let refusals = batch.refusals + u32::from(hopeless);
            let apart = batch.apart || refusals > REFUSALS_MAX;
            self.fail(Batch { apart, refusals, tries: batch.tries + 1, ..batch });
        }
    }

    fn fail(&mut self, batch: Batch) {
        self.failing += usize::from(!batch.apart);
        self.again.push_back(batch);
    }

    fn stop_failing(&mut self, batch: &Batch) {
        if batch.tries > 0 && !batch.apart {
            self.failing -= 1;
        }
    }

    fn acknowledged(&mut self, batch: &Batch, answers: &[Settled]) {
        let (mut stale, mut ended) = (0, 0);
        for ((item, slot), answer) in batch.items.iter().zip(&batch.slots).zip(answers) {
            let label = self.report.count(&item.settlement, *answer);
            if let (Some(outcome), Some(held)) = (label, self.slots.get(*slot)) {
                let task_type = held.place.map(|place| self.config.handlers.at(place).handler.task_type());
                self.config.observe(&Observation::Processed { task_type, outcome, ran_for: held.ran_for });
                if self.config.drain.is_some() {
                    self.report.error(item, outcome, task_type);
                }
            }
            stale += u64::from(*answer == Settled::Stale);
            ended += u64::from(match answer {
                Settled::Applied => !matches!(item.settlement, Settlement::Requeue { .. }),
                // Also by a transaction of the handler's, whatever the settlement says.
                Settled::Already(status) => status.is_terminal(),
                Settled::Stale => false,
            });
            self.settled(*slot);
        }
        if ended > 0 {
            self.workload.send_modify(|workload| workload.ended += ended);
        }
        self.config.observe(&Observation::SettleBatch(batch.items.len()));
        if stale > 0 {
            self.config.observe(&Observation::Stale { count: stale });
        }
    }

    /// A task is off this process's hands.
    pub(super) fn settled(&mut self, slot: usize) {
        if self.suspect == Some(slot) {
            self.suspect = None;
        }
        self.slots.settled(slot);
    }

    fn claim_answered(&mut self, ask: Ask, answer: Result<ClaimReply, StoreError>, now: Duration) {
        match answer {
            Ok(ClaimReply::Claimed(claimed)) => {
                self.unreserve(&ask);
                self.trouble.over();
                self.schedule_claim(&ask, &claimed, now);
                self.reckoning = Reckoning::new(claimed.now, now);
                self.hold(ask.session, claimed, now);
                self.pass_on(&ask);
            }
            Ok(ClaimReply::Fenced) => {
                self.unreserve(&ask);
                if self.session == Some(ask.session) {
                    self.session = None;
                    self.orders.send_modify(|orders| orders.fenced = Some(ask.session));
                }
            }
            Err(error) => {
                self.config.failed("nothing was claimed", &error);
                self.trouble.failed(&self.config, now);
                if error.kind() == ErrorKind::UnknownOutcome {
                    self.doubts.push_back(ask);
                } else {
                    self.unreserve(&ask);
                }
            }
        }
    }

    /// What woke this pool may be for others as well, when there was more than it could take.
    fn pass_on(&mut self, ask: &Ask) {
        let claims_again = ask.wakes != self.wakes || (self.backlog && !self.is_full());
        if !claims_again && self.afar.claimed(self.backlog) {
            self.config.herald.announce(Due::anything());
        }
    }

    /// When to claim next.
    fn schedule_claim(&mut self, ask: &Ask, claimed: &Claimed, now: Duration) {
        let found = !(claimed.tasks.is_empty() && claimed.ended.is_empty());
        let more = claimed.next_due.is_some_and(|due| due <= claimed.now);
        self.backlog = found && more;
        self.workload.send_if_modified(|told| std::mem::replace(&mut told.backlog, self.backlog) != self.backlog);
        self.next_due = claimed.next_due;
        if found {
            self.poll.reset(&self.config);
        }
        self.ask_busy = self.config.drain.is_some() && !found;
        // A wake-up that came while the claim was under way may be about what it just missed.
        if self.backlog || ask.wakes != self.wakes {
            self.claim_at = now;
            return;
        }
        let poll_at = now + self.poll.next(&self.config);
        self.claim_at = match claimed.next_due {
            Some(due) if !more => poll_at.min(now.saturating_add(due.since(claimed.now))),
            _ => poll_at,
        };
    }

    pub(super) fn resolved(&mut self, ask: Ask, answer: Result<Resolved, StoreError>, now: Duration) {
        self.calls -= 1;
        match answer {
            Ok(resolved) => {
                self.unreserve(&ask);
                self.trouble.over();
                self.claim_at = now;
                if let Resolved::Committed(claimed) = resolved {
                    self.reckoning = Reckoning::new(claimed.now, now);
                    self.hold(ask.session, claimed, now);
                }
            }
            Err(error) => {
                self.config.failed("a claim is still in doubt", &error);
                self.trouble.failed(&self.config, now);
                self.doubts.push_back(ask);
            }
        }
    }

    pub(super) fn flushed(&mut self, slots: &[usize], error: Option<StoreError>) {
        self.calls -= 1;
        self.flushing = false;
        if let Some(error) = error {
            self.config.failed("progress was not written", &error);
        }
        for slot in slots {
            let Some(held) = self.slots.get_mut(*slot) else { continue };
            held.flushing = false;
            if held.stage == Stage::Settling && held.settlement.is_some() {
                self.enqueue_settlement(*slot);
            }
        }
    }

    pub(super) fn busy(&mut self, answer: Result<bool, StoreError>, now: Duration) {
        self.calls -= 1;
        match answer {
            Ok(busy) => {
                let later = self.config.drain.is_some_and(|drain| drain.later) && self.next_due.is_some();
                if !busy && !later && self.is_idle() {
                    self.stop_within(self.stop_limit(), now);
                }
            }
            Err(error) => {
                self.config.failed("it is not known whether anything is left to do", &error);
                self.trouble.failed(&self.config, now);
                self.ask_busy = true;
            }
        }
    }

    /// What the heartbeat has to say.
    pub(super) fn news(&mut self, now: Duration) {
        let news = self.board.news();
        if self.session != news.session {
            self.session = news.session;
            self.claim_at = now;
        }
        if let Some(reckoning) = news.reckoning {
            self.reckoning = reckoning;
        }
        self.poll.share(news.live_sessions);
        for (session, _) in &news.ended {
            self.release_waiting(|held| held.session == *session, now);
        }
        for (task, claim) in news.cancels {
            let slot = self.slots.iter().find(|(_, held)| held.id == task && held.claim == claim).map(|(slot, _)| slot);
            if let Some(slot) = slot {
                self.cancel(slot, now);
            }
        }
        if news.drain && self.stopping.is_none() {
            tracing::info!("an operator wants this pool to drain and stop");
            self.stop_within(self.stop_limit(), now);
        }
    }

    /// Tells every handler to stop.
    pub(super) fn cancel_all(&self) {
        self.board.stop_all(Stops::SHUTDOWN);
    }

    /// Lets the heartbeat end the session.
    pub(super) fn close(&self) {
        self.orders.send_modify(|orders: &mut Orders| orders.close = true);
    }
}
