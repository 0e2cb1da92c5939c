//! From claimed to running to an outcome.

use std::sync::Arc;
use std::time::Duration;

use queue_core::progress::ProgressUpdate;
use queue_core::{Claimed, ClaimedTask, Jitter, Observation, Outcome, Payload, Run, Settlement};
use tokio_util::sync::CancellationToken;

use super::{Dispatcher, Event, TICK};
use crate::erased::{RunHandle, TaskHead};
use crate::pool::board::Stops;
use crate::pool::call;
use crate::pool::ending::Ending;
use crate::pool::executor::{Finished, Job, Limit};
use crate::pool::held::{Held, Stage};

/// How long a task that was claimed ahead may wait before it is given back for others to run.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How long a write of progress may take; settlements wait for it.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// A task that was claimed and waits for a slot.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) slot: usize,
    head: TaskHead,
    payload: Payload,
}

impl Dispatcher {
    /// Takes over what was claimed.
    pub(super) fn hold(&mut self, session: queue_core::SessionId, claimed: Claimed, now: Duration) {
        for ended in &claimed.ended {
            self.report.failure(ended.reason);
            let task_type = self.config.handlers.known(&ended.task_type);
            let outcome = ended.reason.as_str();
            self.config.observe(&Observation::Processed { task_type, outcome, ran_for: None });
        }
        for task in claimed.tasks {
            let place = self.config.handlers.place(&task.task_type);
            let task_type = place.map(|_| &task.task_type);
            let schedule_to_start = task.schedule_to_start();
            self.config.observe(&Observation::Claimed { task_type, schedule_to_start });
            let suspect = task.is_suspect();
            let (held, head, payload) = self.divide(session, task, place, now);
            let slot = self.slots.insert(held);
            if suspect {
                self.suspect = Some(slot);
            }
            if place.is_none() || self.stopping.is_some() || self.session != Some(session) {
                self.decide(slot, Some(Outcome::Released), Stops::NONE, now);
                continue;
            }
            self.waiting_bytes += payload.body().len() as u64;
            self.waiting.push_back(Waiting { slot, head, payload });
        }
    }

    /// What the slot keeps, and what goes to the handler. A worker may allow less than the task does.
    fn divide(
        &self,
        session: queue_core::SessionId,
        task: ClaimedTask,
        place: Option<usize>,
        now: Duration,
    ) -> (Held, TaskHead, Payload) {
        let limits = place.map(|place| self.config.handlers.at(place).limits).unwrap_or_default();
        let suspect = task.is_suspect();
        let max_attempts = limits.max_attempts.map_or(task.max_attempts, |most| most.min(task.max_attempts));
        let own_deadline = limits.budget.map(|budget| task.created_at.after(budget));
        let deadline_at = [task.deadline_at, own_deadline].into_iter().flatten().min();
        let head = TaskHead {
            id: task.id,
            claim: task.claim,
            task_type: task.task_type,
            queue: task.queue,
            priority: task.priority,
            attempt: task.attempt,
            max_attempts,
            fence: task.fence,
            created_at: task.created_at,
            deadline_at,
        };
        let run =
            Run { attempt: task.attempt, max_attempts, backoff: task.backoff, deadline_at, cancel_requested: false };
        let held = Held {
            id: task.id,
            claim: task.claim,
            session,
            place,
            run,
            suspect,
            stage: Stage::Waiting,
            claimed_at: now,
            started_at: None,
            ran_for: None,
            limit: None,
            stopping_since: None,
            settlement: None,
            progress: None,
            occupied: false,
            completing: false,
            flushing: false,
        };
        (held, head, task.payload)
    }

    /// Starts what waits, as far as slots are free.
    pub(super) fn start_waiting(&mut self, now: Duration) {
        let mut index = 0;
        while self.slots.occupied() < self.config.concurrency && index < self.waiting.len() {
            if self.is_type_full(self.waiting[index].slot) {
                index += 1;
            } else if let Some(waiting) = self.take_waiting(index) {
                self.start(waiting, now);
            }
        }
    }

    fn is_type_full(&self, slot: usize) -> bool {
        let Some(place) = self.slots.get(slot).and_then(|held| held.place) else { return false };
        let most = self.config.handlers.at(place).limits.concurrency;
        most.is_some_and(|most| self.slots.occupied_of(place) >= most)
    }

    fn take_waiting(&mut self, index: usize) -> Option<Waiting> {
        let waiting = self.waiting.remove(index)?;
        self.waiting_bytes -= waiting.payload.body().len() as u64;
        Some(waiting)
    }

    fn start(&mut self, waiting: Waiting, now: Duration) {
        let Waiting { slot, head, payload } = waiting;
        let Some(held) = self.slots.get(slot) else { return };
        let (session, deadline_at) = (held.session, held.run.deadline_at);
        let Some(place) = held.place else { return };
        let left = deadline_at.map(|deadline| deadline.since(self.reckoning.at(now)));
        if left.is_some_and(|left| left.is_zero()) {
            self.decide(slot, Some(Outcome::OutOfBudget), Stops::NONE, now);
            return;
        }
        let budget = left.map(|left| Limit { at: now.saturating_add(left), why: Stops::OUT_OF_BUDGET });
        let timeout = self.config.handlers.at(place).limits.timeout;
        let timeout = timeout.map(|timeout| Limit { at: now.saturating_add(timeout), why: Stops::TIMED_OUT });
        let limit = [budget, timeout].into_iter().flatten().min_by_key(|limit| limit.at);
        let handle =
            RunHandle::new(head, CancellationToken::new(), Arc::clone(&self.config.clock), limit.map(|limit| limit.at));
        let handle = Arc::new(handle);
        if !self.board.post(slot, session, &handle) {
            self.decide(slot, Some(Outcome::Released), Stops::NONE, now);
            return;
        }
        self.slots.occupy(slot, now, limit);
        self.runners.start(Job { slot, place, payload, handle, limit });
    }

    /// A handler has ended, or is given up by its runner.
    pub(super) fn finished(&mut self, finished: Finished) {
        let Finished { slot, ending, stops, at, completing, progress, occupied } = finished;
        let told = if occupied { self.board.stops(slot) } else { self.board.withdraw(slot) };
        // A wish to cancel counts even if it came after the handler's end, as long as nothing is settled.
        let stops = if told.has(Stops::CANCELLED) { stops.with(Stops::CANCELLED) } else { stops };
        let Some(held) = self.slots.get_mut(slot) else { return };
        let ran_for = at.saturating_sub(held.started_at.unwrap_or(at));
        self.pace.ran(ran_for);
        if held.stage == Stage::Running {
            held.ran_for = Some(ran_for);
            held.completing = completing;
            held.progress = progress;
            self.conclude(slot, ending, stops, at);
            if occupied {
                self.overran(slot);
            }
        }
        if !occupied {
            self.vacate(slot);
        }
    }

    /// A handler that outlived its run has ended.
    pub(super) fn vacated(&mut self, slot: usize) {
        self.board.withdraw(slot);
        self.vacate(slot);
    }

    fn vacate(&mut self, slot: usize) {
        self.runners.release(slot);
        self.slots.vacate(slot);
    }

    /// A run that will not end in time is given up: its outcome is fixed, what it comes to later is refused.
    pub(super) fn give_up(&mut self, slot: usize, now: Duration) {
        let stops = self.board.stops(slot);
        let Some(held) = self.slots.get_mut(slot) else { return };
        held.ran_for = held.started_at.map(|started_at| now.saturating_sub(started_at));
        self.conclude(slot, Ending::Dropped, stops, now);
        self.overran(slot);
    }

    fn overran(&self, slot: usize) {
        let Some(held) = self.slots.get(slot) else { return };
        let task_type = held.place.map(|place| self.config.handlers.at(place).handler.task_type());
        tracing::warn!(
            task = held.id.get(),
            r#type = task_type.map_or("unknown", queue_core::TaskType::as_str),
            "the handler runs on although it was to stop; its slot stays taken until it ends"
        );
        self.config.observe(&Observation::Overrun { task_type });
    }

    fn conclude(&mut self, slot: usize, ending: Ending, stops: Stops, at: Duration) {
        let Some(held) = self.slots.get(slot) else { return };
        let timeout = held.place.and_then(|place| self.config.handlers.at(place).limits.timeout);
        let outcome = ending.outcome(stops, timeout, held.completing);
        self.decide(slot, outcome, stops, at);
    }

    /// Fixes what a task's run comes to. `at` is when that was, on the monotonic clock.
    pub(super) fn decide(&mut self, slot: usize, outcome: Option<Outcome>, stops: Stops, at: Duration) {
        let Some(outcome) = outcome else {
            self.report.stale += 1;
            self.config.observe(&Observation::Stale { count: 1 });
            self.settled(slot);
            return;
        };
        let jitter = if matches!(outcome, Outcome::Errored { .. }) { self.config.jitter() } else { Jitter::ZERO };
        let now = self.reckoning.at(at);
        let Some(held) = self.slots.get_mut(slot) else { return };
        held.run.cancel_requested |= stops.has(Stops::CANCELLED);
        if let Outcome::Panicked(_) = outcome {
            let task_type = held.place.map(|place| self.config.handlers.at(place).handler.task_type().as_str());
            tracing::error!(task = held.id.get(), r#type = task_type, "the handler panicked; the task failed");
        }
        let settlement = Settlement::decide(&held.run, outcome, now, jitter);
        held.settlement = Some(settlement);
        held.stage = Stage::Settling;
        if !held.flushing {
            self.enqueue_settlement(slot);
        }
    }

    /// Looks after what runs, once a second.
    pub(super) fn tick(&mut self, now: Duration) {
        self.next_tick = now + TICK;
        self.flush_progress();
        self.watch(now);
        let stuck = self.waiting.front().and_then(|waiting| self.slots.get(waiting.slot));
        if stuck.is_some_and(|held| held.claimed_at + WAIT_MAX <= now) {
            self.pace.stalled();
            self.release_waiting(|_| true, now);
        }
    }

    /// Gives back what waits and matches; it never started.
    pub(super) fn release_waiting(&mut self, matches: impl Fn(&Held) -> bool, now: Duration) {
        let mut index = 0;
        while index < self.waiting.len() {
            if self.slots.get(self.waiting[index].slot).is_some_and(&matches) {
                if let Some(waiting) = self.take_waiting(index) {
                    self.decide(waiting.slot, Some(Outcome::Released), Stops::NONE, now);
                }
            } else {
                index += 1;
            }
        }
    }

    /// Cancels a task that this process holds, wherever it stands.
    pub(super) fn cancel(&mut self, slot: usize, now: Duration) {
        match self.slots.get(slot).map(|held| held.stage) {
            Some(Stage::Running) => self.board.stop(slot, Stops::CANCELLED),
            Some(Stage::Waiting) => {
                if let Some(index) = self.waiting.iter().position(|waiting| waiting.slot == slot)
                    && self.take_waiting(index).is_some()
                {
                    self.decide(slot, Some(Outcome::Cancelled), Stops::CANCELLED, now);
                }
            }
            Some(Stage::Settling | Stage::Settled) | None => {}
        }
    }

    /// Sees to handlers that nobody can stop from inside: those that never yield, so that their own timers never fire.
    fn watch(&mut self, now: Duration) {
        let (mut late, mut stopping) = (Vec::new(), Vec::new());
        self.board.each_run(|slot, handle| {
            if handle.cancel.is_cancelled() {
                stopping.push(slot);
            } else if handle.ends_at.is_some_and(|ends_at| ends_at + TICK <= now) {
                late.push(slot);
            }
        });
        for slot in late {
            if let Some(limit) = self.slots.get(slot).and_then(|held| held.limit) {
                self.board.stop(slot, limit.why);
            }
        }
        for slot in stopping {
            let Some(held) = self.slots.get_mut(slot).filter(|held| held.stage == Stage::Running) else { continue };
            let since = *held.stopping_since.get_or_insert(now);
            if since + self.config.cancel_grace + TICK <= now {
                self.give_up(slot, now);
            }
        }
    }

    fn flush_progress(&mut self) {
        if self.flushing {
            return;
        }
        let (mut slots, mut updates) = (Vec::new(), Vec::new());
        self.board.each_run(|slot, handle| {
            if let Some(progress) = handle.take_progress() {
                slots.push(slot);
                updates.push(ProgressUpdate { task: handle.task.id, claim: handle.task.claim, progress });
            }
        });
        if updates.is_empty() {
            return;
        }
        for slot in &slots {
            if let Some(held) = self.slots.get_mut(*slot) {
                held.flushing = true;
            }
        }
        self.flushing = true;
        self.calls += 1;
        let (config, events) = (Arc::clone(&self.config), self.events.clone());
        self.config.spawn.spawn(
            "progress",
            Box::pin(async move {
                let limit = FLUSH_MAX.min(config.call_limit());
                let written = call::bounded(&*config.clock, limit, config.store.progress(updates)).await;
                let _ = events.send(Event::Flushed(slots, written.err())).await;
            }),
        );
    }
}
