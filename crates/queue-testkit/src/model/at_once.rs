//! Calls that two clients made at the same time: some order of them must explain what came of it.

use std::collections::BTreeSet;

use queue_core::TaskId;

use super::call::{Call, Reply};
use super::judge::{Judge, Objection};
use super::seen::Seen;
use crate::MemoryStore;

/// A call with its answer.
pub(super) type Made = (Call, Reply);

/// What is to be explained.
#[derive(Clone, Copy, Debug)]
pub(super) struct AtOnce<'a> {
    pub(super) judge: Judge,
    /// What each client did, in its order.
    pub(super) sides: [&'a [Made]; 2],
    /// All that is seen afterwards.
    pub(super) seen: &'a Seen,
    /// The tasks that were looked at closely.
    pub(super) closely: &'a BTreeSet<TaskId>,
}

impl AtOnce<'_> {
    /// The model after an order of the calls that explains everything.
    pub(super) async fn explain(self, model: &MemoryStore) -> Result<MemoryStore, Objection> {
        let mut objections = Vec::new();
        match self.search(model.fork(), [0, 0], &mut objections).await {
            Some(model) => Ok(model),
            None => Err(format!("no order of the calls explains what came of them: {}", objections.join("\n- "))),
        }
    }

    async fn search(
        self,
        model: MemoryStore,
        made: [usize; 2],
        objections: &mut Vec<Objection>,
    ) -> Option<MemoryStore> {
        if made == self.sides.map(<[Made]>::len) {
            return self.compare(model, objections).await;
        }
        for side in 0..2 {
            let Some((call, reply)) = self.sides[side].get(made[side]) else { continue };
            let next = model.fork();
            match self.judge.follow(&next, call, reply).await {
                Ok(()) => {
                    let mut further = made;
                    further[side] += 1;
                    if let Some(found) = Box::pin(self.search(next, further, objections)).await {
                        return Some(found);
                    }
                }
                Err(objection) => objections.push(format!("after {made:?}, client {side}: {objection}")),
            }
        }
        None
    }

    async fn compare(self, model: MemoryStore, objections: &mut Vec<Objection>) -> Option<MemoryStore> {
        let hours = self.judge.hours;
        let mut seen = hours.look(&model).await.ok()?;
        hours.look_closely(&model, &mut seen, self.closely).await.ok()?;
        let differences = self.seen.differences(&seen);
        if differences.is_empty() {
            return Some(model);
        }
        objections.push(format!("in the end:{differences}"));
        None
    }
}
