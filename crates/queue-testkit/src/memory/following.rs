//! The store as a model that follows another one: where the contract leaves a choice (which of the due tasks a claim takes,
//! which of the ended ones go first), it does what the other did instead of choosing by itself.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use queue_core::admission::Verdict;
use queue_core::{
    ClaimReply, ClaimRequest, Event, FailureReason, QueueName, Scope, SessionId, Status, StoreError, TaskId, TaskState,
    TaskType, Timestamp,
};

use super::MemoryStore;

/// A queued task in a queue that is not paused, by what a claim looks at.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) id: TaskId,
    pub(crate) queue: QueueName,
    pub(crate) task_type: TaskType,
    pub(crate) rank: i8,
    pub(crate) run_at: Timestamp,
    pub(crate) deadline_at: Option<Timestamp>,
    pub(crate) suspect: bool,
    pub(crate) bytes: u64,
}

impl MemoryStore {
    /// A store of its own with the same content, on the same clock.
    pub(crate) fn fork(&self) -> Self {
        let content = self.lock().clone();
        Self { clock: self.clock.clone(), limits: self.limits, shared: Arc::new(Mutex::new(content)) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What waits in the queues of this scope that are not paused, due or later, whatever its type.
    pub(crate) fn waiting(&self, scope: &Scope) -> Vec<Waiting> {
        let database = self.lock();
        let open = |queue: &QueueName| scope.queues.contains(queue) && !database.is_paused(queue);
        let queued = database.rows.iter().filter(|(_, row)| row.state.status == Status::Queued && open(&row.queue));
        let waiting = queued.map(|(&id, row)| Waiting {
            id,
            queue: row.queue.clone(),
            task_type: row.task_type.clone(),
            rank: row.priority.rank(),
            run_at: row.state.run_at,
            deadline_at: row.state.deadline_at,
            suspect: row.state.is_suspect(),
            bytes: row.payload.body().len() as u64,
        });
        waiting.collect()
    }

    /// Claims just these tasks and fails just those; whether the request admits them is for the caller to judge.
    pub(crate) fn claim_these(
        &self,
        request: &ClaimRequest,
        tasks: &[TaskId],
        ended: &[(TaskId, FailureReason)],
    ) -> Result<ClaimReply, StoreError> {
        let mut database = self.lock();
        if let Some(reply) = database.refuse(request)? {
            return Ok(reply);
        }
        let verdict = |reason| match reason {
            FailureReason::Unregistered => Verdict::Unregister,
            _ => Verdict::Expire,
        };
        let runs = tasks.iter().map(|&id| (id, Verdict::Run));
        let verdicts = runs.chain(ended.iter().map(|&(id, reason)| (id, verdict(reason)))).collect();
        database.take(request, verdicts, self.clock.now())
    }

    /// Fences just these sessions.
    pub(crate) fn fence_these(&self, sessions: &[SessionId]) {
        let mut database = self.lock();
        let now = self.clock.now();
        for id in sessions {
            if let Some(session) = database.sessions.get_mut(id) {
                session.fenced_at.get_or_insert(now);
            }
        }
    }

    /// What pruning may remove, the oldest first.
    pub(crate) fn prunable(&self, status: Option<Status>, older_than: Duration) -> Vec<(Timestamp, TaskId)> {
        self.lock().prunable(status, older_than, usize::MAX, self.clock.now())
    }

    /// Prunes just these.
    pub(crate) fn prune_these(&self, tasks: &[TaskId]) {
        self.lock().prune_these(tasks, self.clock.now());
    }

    /// Everything that waits past its budget.
    pub(crate) fn spent(&self, now: Timestamp) -> BTreeSet<TaskId> {
        self.lock().deadlines.iter().take_while(|(deadline, _)| *deadline <= now).map(|&(_, id)| id).collect()
    }

    /// Fails just these waiting tasks, without a run.
    pub(crate) fn end_these(&self, tasks: &[(TaskId, FailureReason)]) -> Result<(), StoreError> {
        let mut database = self.lock();
        let now = self.clock.now();
        for &(id, reason) in tasks {
            let event = if reason == FailureReason::Unregistered { Event::Unregister } else { Event::Expire };
            database.end(id, &event, now)?;
        }
        Ok(())
    }

    /// Takes over the points in time at which another store did the same.
    pub(crate) fn retime(&self, id: TaskId, other: &TaskState) {
        let mut database = self.lock();
        let Some(row) = database.rows.get(&id) else { return };
        let state = TaskState {
            created_at: other.created_at,
            run_at: other.run_at,
            started_at: other.started_at,
            completed_at: other.completed_at,
            deadline_at: other.deadline_at,
            ..row.state.clone()
        };
        database.change(id, state);
    }
}
