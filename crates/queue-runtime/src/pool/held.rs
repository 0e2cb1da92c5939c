//! The tasks that this process holds, each in a slot until its settlement is acknowledged and its handler has ended.

use std::time::Duration;

use queue_core::{ClaimId, Progress, Run, SessionId, Settlement, TaskId};

use super::executor::Limit;

/// How far a held task has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Claimed, and waiting for a slot to run in.
    Waiting,
    /// Its handler runs.
    Running,
    /// Its outcome is fixed; the settlement waits for a trip, or is on one.
    Settling,
    /// Its settlement was acknowledged, or is of no use any more.
    Settled,
}

/// A task that this process holds.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) id: TaskId,
    pub(crate) claim: ClaimId,
    pub(crate) session: SessionId,
    /// The place of its handler; `None` when the store handed out what was not asked for.
    pub(crate) place: Option<usize>,
    pub(crate) run: Run,
    pub(crate) suspect: bool,
    pub(crate) stage: Stage,
    /// On the monotonic clock.
    pub(crate) claimed_at: Duration,
    pub(crate) started_at: Option<Duration>,
    pub(crate) ran_for: Option<Duration>,
    pub(crate) limit: Option<Limit>,
    /// When it was first seen that the handler was told to stop.
    pub(crate) stopping_since: Option<Duration>,
    pub(crate) settlement: Option<Settlement>,
    /// The last progress, to be written before the settlement.
    pub(crate) progress: Option<Progress>,
    /// Whether its handler still runs, whatever became of the task.
    pub(crate) occupied: bool,
    /// Whether its handler says to have completed it in a transaction of its own.
    pub(crate) completing: bool,
    /// Whether its progress is on its way to the store; its settlement waits for that.
    pub(crate) flushing: bool,
}

/// What runs and is held of one type.
#[derive(Clone, Copy, Debug, Default)]
struct OfType {
    held: usize,
    occupied: usize,
}

/// The slots.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Option<Held>>,
    free: Vec<usize>,
    occupied: usize,
    of_type: Vec<OfType>,
}

impl Slots {
    pub(crate) fn new(types: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), occupied: 0, of_type: vec![OfType::default(); types] }
    }

    /// How many tasks are held, handlers that outlived their settlement included.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How many handlers run.
    pub(crate) fn occupied(&self) -> usize {
        self.occupied
    }

    pub(crate) fn held_of(&self, place: usize) -> usize {
        self.of_type[place].held
    }

    pub(crate) fn occupied_of(&self, place: usize) -> usize {
        self.of_type[place].occupied
    }

    pub(crate) fn insert(&mut self, held: Held) -> usize {
        if let Some(place) = held.place {
            self.of_type[place].held += 1;
        }
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(held);
                slot
            }
            None => {
                self.slots.push(Some(held));
                self.slots.len() - 1
            }
        }
    }

    pub(crate) fn get(&self, slot: usize) -> Option<&Held> {
        self.slots.get(slot).and_then(Option::as_ref)
    }

    pub(crate) fn get_mut(&mut self, slot: usize) -> Option<&mut Held> {
        self.slots.get_mut(slot).and_then(Option::as_mut)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Held)> {
        self.slots.iter().enumerate().filter_map(|(slot, held)| held.as_ref().map(|held| (slot, held)))
    }

    /// A handler starts.
    pub(crate) fn occupy(&mut self, slot: usize, now: Duration, limit: Option<Limit>) {
        let Some(held) = self.slots[slot].as_mut() else { return };
        held.stage = Stage::Running;
        held.started_at = Some(now);
        held.limit = limit;
        held.occupied = true;
        self.occupied += 1;
        if let Some(place) = held.place {
            self.of_type[place].occupied += 1;
        }
    }

    /// A handler has ended.
    pub(crate) fn vacate(&mut self, slot: usize) {
        let Some(held) = self.get_mut(slot) else { return };
        if !std::mem::take(&mut held.occupied) {
            return;
        }
        let place = held.place;
        self.occupied -= 1;
        if let Some(place) = place {
            self.of_type[place].occupied -= 1;
        }
        self.release_if_over(slot);
    }

    /// A settlement was acknowledged, or is of no use any more.
    pub(crate) fn settled(&mut self, slot: usize) {
        if let Some(held) = self.get_mut(slot) {
            held.stage = Stage::Settled;
            self.release_if_over(slot);
        }
    }

    fn release_if_over(&mut self, slot: usize) {
        let over = self.get(slot).is_some_and(|held| held.stage == Stage::Settled && !held.occupied);
        if over && let Some(held) = self.slots[slot].take() {
            if let Some(place) = held.place {
                self.of_type[place].held -= 1;
            }
            self.free.push(slot);
        }
    }
}
