//! What leaves for the store, and when.

use std::sync::Arc;
use std::time::Duration;

use queue_core::claim::Capacity;
use queue_core::progress::ProgressUpdate;
use queue_core::{ClaimId, ClaimReply, ClaimRequest, Settle, Settled, Settlement, StoreError, TaskResult};

use super::{Ask, Batch, Dispatcher, Event, Trip};
use crate::pool::call;
use crate::pool::config::{Config, WAITING_BYTES_MAX};
use crate::pool::held::{Held, Stage};

/// Trips under way at a time, at most; each takes a connection.
const TRIPS_MAX: usize = 4;
/// Two trips share what is held, where that is enough for two: the server works on one while this process works on the other.
const SHARERS: usize = 2;
/// What is worth a trip beside one that is under way, at least, where no other session is alive.
const TRIP_MIN: usize = 64;
/// What a trip may take before another shares with it.
const TRIP_FULL: usize = 128;
/// Both, where other sessions keep the server busy as well: small trips side by side then cost it more than they gain.
const TRIP_SHARED: usize = 1_000;
/// When none has left for so long, because the server is far away or something holds up the one under way, less is worth a trip.
const TRIP_SLOW: Duration = Duration::from_millis(200);
const TRIP_LEAST: usize = 8;

impl Dispatcher {
    /// How much must have gathered for a trip beside one that is under way.
    fn threshold(&self, now: Duration) -> usize {
        let (sharers, least) = match self.is_alone() {
            _ if now >= self.slow_at() => (TRIPS_MAX, TRIP_LEAST),
            true => (SHARERS, TRIP_MIN),
            false => (SHARERS, TRIP_SHARED),
        };
        // A store's batch may be smaller than what is worth a trip.
        (self.config.concurrency / sharers).max(least).min(self.batch_max)
    }

    /// Whether no other session was alive when this one was renewed last.
    fn is_alone(&self) -> bool {
        self.board.live_sessions() <= 1
    }

    /// From when on less is worth a trip beside those that are under way.
    fn slow_at(&self) -> Duration {
        self.left_at + TRIP_SLOW
    }

    /// When what has gathered beside a trip is worth one of its own, if nothing comes before.
    pub(super) fn gathered_at(&self) -> Option<Duration> {
        let waits = self.trips > 0 && self.trips < TRIPS_MAX && self.pending.len() >= self.threshold(self.slow_at());
        waits.then(|| self.slow_at())
    }

    /// How many tasks one trip settles and claims, at most.
    fn trip_max(&self) -> usize {
        let least = if self.is_alone() { TRIP_FULL } else { TRIP_SHARED };
        self.held_max().div_ceil(SHARERS).max(least).min(self.batch_max)
    }

    /// How many tasks this process may hold: those that run, and those that are claimed ahead.
    fn held_max(&self) -> usize {
        self.config.concurrency + self.config.prefetch.min(self.pace.ahead(self.config.concurrency))
    }

    /// Whether a claim may leave at all.
    pub(super) fn may_claim(&self) -> bool {
        self.stopping.is_none() && self.session.is_some() && self.failing == 0 && (self.asks == 0 || self.backlog)
    }

    /// How many tasks a claim may take whose trip settles the first `settling` of what is pending.
    pub(super) fn room(&self, settling: usize) -> usize {
        let used = self.slots.len() + self.reserved.tasks - self.freed(settling).count();
        let room = self.held_max().saturating_sub(used).min(self.trip_max());
        if self.waiting_bytes + self.reserved.bytes >= WAITING_BYTES_MAX {
            return 0;
        }
        // Where every type has a limit of its own, their sum is one as well.
        if self.all_limited { room.min(self.rooms(settling).iter().map(|(_, left)| left).sum()) } else { room }
    }

    /// How many tasks of each type that has a limit of its own a claim may take.
    fn rooms(&self, settling: usize) -> Vec<(usize, usize)> {
        let limited = self.config.handlers.iter().enumerate();
        let limited = limited.filter_map(|(place, registered)| Some((place, registered.limits.concurrency?)));
        let room = |(place, most): (usize, usize)| {
            let freed = self.freed(settling).filter(|held| held.place == Some(place)).count();
            (place, most.saturating_sub(self.slots.held_of(place) + self.reserved.of_type[place] - freed))
        };
        limited.map(room).collect()
    }

    /// Of the first `settling` runs that are pending, those whose slots are free once they are settled.
    fn freed(&self, settling: usize) -> impl Iterator<Item = &Held> {
        self.pending.iter().take(settling).filter_map(|slot| self.slots.get(*slot)).filter(|held| !held.occupied)
    }

    /// The claim that leaves with a trip that settles the first `settling` of what is pending.
    fn ask(&mut self, settling: usize) -> Option<Ask> {
        let session = self.session.filter(|_| self.may_claim())?;
        let tasks = self.room(settling);
        if tasks == 0 {
            return None;
        }
        let left = WAITING_BYTES_MAX.saturating_sub(self.waiting_bytes + self.reserved.bytes);
        Some(Ask {
            session,
            claim: ClaimId::from_random(self.config.entropy.next_u64()),
            tasks,
            replaces: self.freed(settling).count().min(tasks),
            bytes: left.min(WAITING_BYTES_MAX / TRIPS_MAX as u64),
            suspects: usize::from(self.takes_suspects()),
            per_type: self.rooms(settling),
            wakes: self.wakes,
        })
    }

    /// One suspect at a time, until it has run for one lease without harm.
    fn takes_suspects(&self) -> bool {
        let now = self.config.clock.monotonic();
        let harmless = self.suspect.and_then(|slot| self.slots.get(slot)).is_none_or(|held| {
            !held.suspect || held.started_at.is_some_and(|started_at| started_at + self.config.lease <= now)
        });
        harmless && self.reserved.suspects == 0
    }

    pub(super) fn reserve(&mut self, ask: &Ask) {
        self.asks += 1;
        self.reserved.tasks += ask.tasks - ask.replaces;
        self.reserved.bytes += ask.bytes;
        self.reserved.suspects += ask.suspects;
        for (place, tasks) in &ask.per_type {
            self.reserved.of_type[*place] += tasks;
        }
    }

    pub(super) fn unreserve(&mut self, ask: &Ask) {
        self.asks -= 1;
        self.reserved.tasks -= ask.tasks - ask.replaces;
        self.reserved.bytes -= ask.bytes;
        self.reserved.suspects -= ask.suspects;
        for (place, tasks) in &ask.per_type {
            self.reserved.of_type[*place] -= tasks;
        }
    }

    /// A settlement is there: it goes with the next trip or, when it may have to wait for a transaction of the handler's, on
    /// its own.
    pub(super) fn enqueue_settlement(&mut self, slot: usize) {
        let apart = self.slots.get(slot).is_some_and(|held| held.completing);
        if !apart {
            self.pending.push_back(slot);
        } else if let Some(batch) = self.batch_of([slot]) {
            self.again.push_back(Batch { apart: true, ..batch });
        }
    }

    /// Sends what goes on its own, and what failed before.
    pub(super) fn repeat(&mut self) {
        for batch in std::mem::take(&mut self.again) {
            self.calls += 1;
            self.leave(Some(batch), None);
        }
    }

    /// Sends trips, as far as they are worth it.
    pub(super) fn launch_trips(&mut self, now: Duration) {
        while self.trips < TRIPS_MAX {
            let settling = self.pending.len().min(self.trip_max());
            let threshold = self.threshold(now);
            let may_claim = self.may_claim();
            let worth = if self.trips == 0 {
                settling > 0 || (may_claim && now >= self.claim_at && self.room(0) > 0)
            } else {
                settling >= threshold || (may_claim && self.backlog && self.room(settling) >= threshold)
            };
            if !worth {
                return;
            }
            let settling = self.batch_len();
            let ask = self.ask(settling);
            let batch = self.next_batch(settling);
            if ask.is_none() && batch.is_none() {
                return;
            }
            if let Some(ask) = &ask {
                self.reserve(ask);
            }
            self.trips += 1;
            self.left_at = now;
            self.leave(batch, ask);
        }
    }

    /// How many of the settlements that are pending one batch takes.
    fn batch_len(&self) -> usize {
        let (mut count, mut bytes) = (0, 0);
        for slot in self.pending.iter().take(self.trip_max()) {
            bytes += self.slots.get(*slot).and_then(|held| held.settlement.as_ref()).map_or(0, size);
            if count > 0 && bytes > self.batch_bytes_max {
                break;
            }
            count += 1;
        }
        count
    }

    fn next_batch(&mut self, count: usize) -> Option<Batch> {
        let slots = self.pending.drain(..count).collect::<Vec<_>>();
        self.batch_of(slots)
    }

    fn batch_of(&mut self, slots: impl IntoIterator<Item = usize>) -> Option<Batch> {
        let (mut items, mut held_in, mut progress) = (Vec::new(), Vec::new(), Vec::new());
        for slot in slots {
            let Some(held) = self.slots.get_mut(slot) else { continue };
            debug_assert_eq!(held.stage, Stage::Settling);
            let Some(settlement) = held.settlement.take() else { continue };
            items.push(Settle::by_holder(held.id, held.claim, settlement));
            held_in.push(slot);
            if let Some(last) = held.progress.take() {
                progress.push(ProgressUpdate { task: held.id, claim: held.claim, progress: last });
            }
        }
        (!items.is_empty()).then(|| Batch {
            items: items.into(),
            slots: held_in,
            progress,
            apart: false,
            tries: 0,
            refusals: 0,
        })
    }

    fn leave(&mut self, batch: Option<Batch>, ask: Option<Ask>) {
        let request = ask.as_ref().map(|ask| ClaimRequest {
            session: ask.session,
            claim: ask.claim,
            scope: self.scope.clone(),
            capacity: self.capacity_of(ask),
        });
        let (config, events) = (Arc::clone(&self.config), self.events.clone());
        self.config.spawn.spawn(
            "trip",
            Box::pin(async move {
                let trip = travel(&config, batch, ask, request).await;
                // When nobody listens any more the pool is gone, and its session with it.
                let _ = events.send(Event::Trip(Box::new(trip))).await;
            }),
        );
    }

    fn capacity_of(&self, ask: &Ask) -> Capacity {
        let named =
            |(place, left): &(usize, usize)| (self.config.handlers.at(*place).handler.task_type().clone(), *left);
        Capacity {
            tasks: ask.tasks,
            bytes: ask.bytes,
            suspects: ask.suspects,
            per_type: ask.per_type.iter().map(named).collect(),
        }
    }

    /// Asks about claims whose acknowledgement was lost.
    pub(super) fn resolve_doubts(&mut self) {
        for ask in std::mem::take(&mut self.doubts) {
            self.calls += 1;
            let (config, events) = (Arc::clone(&self.config), self.events.clone());
            self.config.spawn.spawn(
                "resolve",
                Box::pin(async move {
                    let call = config.store.resolve_claim(ask.session, ask.claim);
                    let answer = call::bounded(&*config.clock, config.call_limit(), call).await;
                    let _ = events.send(Event::Resolved(Box::new(ask), answer)).await;
                }),
            );
        }
    }

    /// Asks whether anything is left to do.
    pub(super) fn ask_whether_busy(&mut self) {
        if !self.ask_busy || self.stopping.is_some() || !self.is_idle() {
            return;
        }
        self.ask_busy = false;
        self.calls += 1;
        let (config, events, scope) = (Arc::clone(&self.config), self.events.clone(), self.scope.clone());
        self.config.spawn.spawn(
            "busy",
            Box::pin(async move {
                let call = config.store.is_busy(scope);
                let answer = call::bounded(&*config.clock, config.call_limit(), call).await;
                let _ = events.send(Event::Busy(answer)).await;
            }),
        );
    }
}

/// The bytes that a settlement puts on the wire, roughly.
fn size(settlement: &Settlement) -> u64 {
    let result = match settlement {
        Settlement::Complete { result: TaskResult::Value(value) } => value.len(),
        _ => 0,
    };
    let error = settlement.error().map_or(0, |error| error.as_str().len());
    u64::try_from(result + error).unwrap_or(u64::MAX)
}

async fn travel(config: &Config, batch: Option<Batch>, ask: Option<Ask>, request: Option<ClaimRequest>) -> Trip {
    let (clock, limit, left_at) = (&*config.clock, config.call_limit(), config.clock.monotonic());
    let mut batch = batch;
    let progress = batch.as_mut().map(|batch| std::mem::take(&mut batch.progress)).unwrap_or_default();
    if !progress.is_empty()
        && let Err(error) = call::bounded(clock, limit, config.store.progress(progress)).await
    {
        config.failed("the last progress of tasks was not written", &error);
    }
    let items = batch.as_ref().map(|batch| Arc::clone(&batch.items));
    let (settled, claim) = match (items, request) {
        (Some(items), Some(request)) => {
            let expected = items.len();
            let call = async { Ok(config.store.settle_and_claim(items, request).await) };
            match call::bounded(clock, limit, call).await {
                Ok(trip) => (Some(checked(trip.settled, expected)), Some(trip.claim)),
                Err(error) => {
                    let again = StoreError::unknown_outcome(error.to_string());
                    (Some(Err(error)), Some(Err::<ClaimReply, _>(again)))
                }
            }
        }
        (Some(items), None) => {
            let expected = items.len();
            let answer = call::bounded(clock, limit, config.store.settle(items)).await;
            (Some(checked(answer, expected)), None)
        }
        (None, Some(request)) => (None, Some(call::bounded(clock, limit, config.store.claim(request)).await)),
        (None, None) => (None, None),
    };
    Trip {
        settled: batch.zip(settled),
        claimed: ask.zip(claim),
        took: config.clock.monotonic().saturating_sub(left_at),
    }
}

/// One answer per item, or none that can be used.
fn checked(answer: Result<Vec<Settled>, StoreError>, expected: usize) -> Result<Vec<Settled>, StoreError> {
    match answer {
        Ok(answers) if answers.len() != expected => {
            Err(StoreError::other(format!("the store gave {} answers to {expected} settlements", answers.len())))
        }
        answer => answer,
    }
}
