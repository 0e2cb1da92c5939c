//! Reserving ids and writing new tasks.

use std::collections::BTreeMap;

use queue_core::ids::IdBlock;
use queue_core::{Budget, Enqueued, NewTask, StoreError, TaskId, Timestamp};

use super::database::{Database, KeyRow, Row};

/// What a batch will do, decided before anything is written.
#[derive(Clone, Copy, Debug)]
enum Plan {
    /// It is there already, under its own id.
    Repeat,
    /// Its key is taken by this task.
    Existing(TaskId),
    Write,
}

impl Plan {
    const fn answer(self, id: TaskId) -> Enqueued {
        match self {
            Self::Repeat | Self::Write => Enqueued::Created(id),
            Self::Existing(existing) => Enqueued::Existing(existing),
        }
    }
}

impl Database {
    pub(super) fn reserve(&mut self, count: u32) -> Result<IdBlock, StoreError> {
        let first = TaskId::new(self.next_id).ok_or_else(|| StoreError::corrupt(None, "the next id is zero"))?;
        self.next_id = self.next_id.saturating_add(u64::from(count));
        Ok(IdBlock::new(first, u64::from(count)))
    }

    pub(super) fn enqueue(&mut self, batch: &[NewTask], now: Timestamp) -> Result<Vec<Enqueued>, StoreError> {
        let plans = self.plan(batch)?;
        let mut answers = Vec::with_capacity(batch.len());
        for (task, plan) in batch.iter().zip(plans) {
            if matches!(plan, Plan::Write) {
                self.write(task, now);
            }
            answers.push(plan.answer(task.id));
        }
        Ok(answers)
    }

    /// What [`enqueue`](Self::enqueue) would answer now.
    pub(super) fn answers(&self, batch: &[NewTask]) -> Result<Vec<Enqueued>, StoreError> {
        let plans = self.plan(batch)?;
        Ok(batch.iter().zip(plans).map(|(task, plan)| plan.answer(task.id)).collect())
    }

    fn plan(&self, batch: &[NewTask]) -> Result<Vec<Plan>, StoreError> {
        let mut planned = BTreeMap::new();
        let mut keys = BTreeMap::new();
        let mut plans = Vec::with_capacity(batch.len());
        for (index, task) in batch.iter().enumerate() {
            let written = self.rows.get(&task.id).map(|row| row.nonce).or_else(|| planned.get(&task.id).copied());
            if let Some(nonce) = written {
                if nonce != task.nonce {
                    return Err(StoreError::corrupt(Some(task.id), "its id was enqueued before with another nonce"));
                }
                plans.push(Plan::Repeat);
                continue;
            }
            if let Some(key) = &task.spec.key {
                let digest = task.spec.payload.digest();
                let kept = self.keys.get(&task.spec.task_type).and_then(|keys| keys.get(key));
                let taken =
                    kept.map(|row| (row.task, row.digest)).or_else(|| keys.get(&(&task.spec.task_type, key)).copied());
                match taken {
                    // Written by an earlier try, and pruned since.
                    Some((existing, _)) if existing == task.id => {
                        plans.push(Plan::Repeat);
                        continue;
                    }
                    Some((existing, before)) if before != digest => {
                        return Err(StoreError::KeyConflict { index, existing });
                    }
                    Some((existing, _)) => {
                        plans.push(Plan::Existing(existing));
                        continue;
                    }
                    None => keys.insert((&task.spec.task_type, key), (task.id, digest)),
                };
            }
            planned.insert(task.id, task.nonce);
            plans.push(Plan::Write);
        }
        Ok(plans)
    }

    fn write(&mut self, task: &NewTask, now: Timestamp) {
        let spec = &task.spec;
        let mut state = task.state(now);
        // As a row keeps it: in whole microseconds.
        state.budget = match state.budget.length() {
            Some(length) => Budget::of(Timestamp::EPOCH.after(length).since(Timestamp::EPOCH)),
            None => Budget::NONE,
        };
        if let Some(key) = &spec.key {
            let row = KeyRow { task: task.id, digest: spec.payload.digest(), at: now };
            self.keys.entry(spec.task_type.clone()).or_default().insert(key.clone(), row);
        }
        if !self.queues.contains_key(&spec.queue) {
            self.queues.insert(spec.queue.clone(), None);
        }
        let row = Row {
            nonce: task.nonce,
            task_type: spec.task_type.clone(),
            queue: spec.queue.clone(),
            priority: spec.priority,
            state,
            backoff: spec.retry.backoff().kept(),
            progress: None,
            last_error: None,
            payload: spec.payload.clone(),
            result: Default::default(),
            key: spec.key.clone(),
        };
        self.insert(task.id, row);
    }
}
