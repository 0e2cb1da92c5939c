//! How runs end, and how far they have come.

use std::collections::{HashMap, VecDeque};

use queue_core::progress::ProgressUpdate;
use queue_core::record::ATTEMPTS_MAX;
use queue_core::{
    AttemptRecord, Event, Settle, Settled, Settlement, Status, StoreError, StoreLimits, TaskResult, TaskState,
    Timestamp, TransitionError, transition,
};

use super::database::Database;

impl Database {
    pub(super) fn settle(
        &mut self,
        batch: &[Settle],
        limits: &StoreLimits,
        now: Timestamp,
    ) -> Result<Vec<Settled>, StoreError> {
        limits.check_settle(batch.len())?;
        self.check_settle(batch, now)?;
        Ok(batch.iter().map(|item| self.settle_one(item, limits, now)).collect())
    }

    /// What [`settle`](Self::settle) would answer now.
    pub(super) fn would_settle(&self, item: &Settle, now: Timestamp) -> Settled {
        self.outcome(item, now).err().unwrap_or(Settled::Applied)
    }

    /// The state that it leads to, or the answer where it leads to none.
    fn outcome(&self, item: &Settle, now: Timestamp) -> Result<TaskState, Settled> {
        let row = self.rows.get(&item.task).ok_or(Settled::Stale)?;
        outcome(&row.state, item, now)
    }

    /// A settlement that would leave a row that cannot be is refused with the whole batch: nothing may write such a row. Each is
    /// judged by what those before it have come to.
    fn check_settle(&self, batch: &[Settle], now: Timestamp) -> Result<(), StoreError> {
        let mut states = HashMap::new();
        for item in batch {
            let Some(row) = self.rows.get(&item.task) else { continue };
            let state = states.get(&item.task).unwrap_or(&row.state);
            let Ok(next) = outcome(state, item, now) else { continue };
            if let Some(defect) = next.defect() {
                return Err(StoreError::corrupt(Some(item.task), defect));
            }
            states.insert(item.task, next);
        }
        Ok(())
    }

    fn settle_one(&mut self, item: &Settle, limits: &StoreLimits, now: Timestamp) -> Settled {
        let Some(before) = self.rows.get(&item.task).map(|row| row.state.clone()) else { return Settled::Stale };
        let state = match self.outcome(item, now) {
            Ok(state) => state,
            Err(answer) => return answer,
        };
        self.change(item.task, state);
        self.leave_claim(item.claim, item.task);
        let Some(row) = self.rows.get_mut(&item.task) else { return Settled::Stale };
        if let Settlement::Complete { result } = &item.settlement {
            row.result = match result {
                TaskResult::Value(value) => TaskResult::bounded(value.clone(), limits.result_bytes_max),
                TaskResult::None | TaskResult::Dropped { .. } => result.clone(),
            };
        }
        if let Some(error) = item.settlement.error() {
            row.last_error = Some(error.clone());
            let attempts: &mut VecDeque<_> = self.attempts.entry(item.task).or_default();
            attempts.truncate(ATTEMPTS_MAX - 1);
            attempts.push_front(AttemptRecord {
                task: item.task,
                fence: before.fence,
                attempt: before.attempt,
                started_at: before.started_at.unwrap_or(now),
                ended_at: now,
                outcome: item.settlement.label().to_owned(),
                error: error.clone(),
            });
        }
        Settled::Applied
    }

    pub(super) fn progress(&mut self, batch: Vec<ProgressUpdate>) {
        for update in batch {
            if let Some(row) = self.rows.get_mut(&update.task)
                && row.state.status == Status::Running
                && row.state.claim == Some(update.claim)
            {
                row.progress = Some(update.progress);
            }
        }
    }
}

/// The state that it leads to from this one, or the answer where it leads to none.
fn outcome(state: &TaskState, item: &Settle, now: Timestamp) -> Result<TaskState, Settled> {
    transition(state, &event(item), now).map_err(|error| match error {
        TransitionError::AlreadySettled => Settled::Already(state.status),
        _ => Settled::Stale,
    })
}

const fn event(item: &Settle) -> Event<'_> {
    Event::Settle { claim: item.claim, leaves: item.leaves, settlement: &item.settlement }
}
