//! What the store holds, and the one place where a task moves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use queue_core::admin::Pause;
use queue_core::payload::PayloadDigest;
use queue_core::{
    AttemptRecord, Backoff, ClaimId, ErrorText, Event, IdempotencyKey, Nonce, Payload, Priority, Progress, QueueName,
    SessionId, Status, StoreError, TaskId, TaskResult, TaskState, TaskType, Timestamp, TransitionError, transition,
};

use super::looking::AuditEntry;
use super::ready::{Ready, Waiting};

/// A task's row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) nonce: Nonce,
    pub(super) task_type: TaskType,
    pub(super) queue: QueueName,
    pub(super) priority: Priority,
    pub(super) state: TaskState,
    pub(super) backoff: Backoff,
    pub(super) progress: Option<Progress>,
    pub(super) last_error: Option<ErrorText>,
    pub(super) payload: Payload,
    pub(super) result: TaskResult,
    pub(super) key: Option<IdempotencyKey>,
}

impl Row {
    fn waiting(&self, id: TaskId) -> Waiting<'_> {
        Waiting {
            queue: &self.queue,
            rank: self.priority.rank(),
            task_type: &self.task_type,
            suspect: self.state.is_suspect(),
            run_at: self.state.run_at,
            id,
        }
    }

    /// A task that was claimed before and waits again, for a retry, a snooze or a release.
    fn waits_again(&self) -> bool {
        self.state.status == Status::Queued && self.state.fence.get() > 0
    }
}

/// An idempotency key in use.
#[derive(Clone, Debug)]
pub(super) struct KeyRow {
    pub(super) task: TaskId,
    pub(super) digest: PayloadDigest,
    pub(super) at: Timestamp,
}

/// A claim with the tasks that are still held under it.
#[derive(Clone, Debug)]
pub(super) struct ClaimRow {
    pub(super) session: SessionId,
    pub(super) members: BTreeSet<TaskId>,
    /// It was resolved as void: it must never be committed, so its id stays as long as its session.
    pub(super) void: bool,
}

/// A session's row.
#[derive(Clone, Debug)]
pub(super) struct SessionRow {
    pub(super) name: String,
    pub(super) host: String,
    pub(super) version: String,
    pub(super) opened_at: Timestamp,
    pub(super) lease_until: Timestamp,
    pub(super) fenced_at: Option<Timestamp>,
    pub(super) drain: bool,
    pub(super) claims: BTreeSet<ClaimId>,
}

/// How many of a kind there are in each queue, by type.
pub(super) type Tally = BTreeMap<QueueName, BTreeMap<TaskType, u64>>;

#[derive(Clone, Debug)]
pub(super) struct Database {
    pub(super) server: String,
    pub(super) migrated: bool,
    pub(super) next_id: u64,
    pub(super) rows: BTreeMap<TaskId, Row>,
    pub(super) keys: BTreeMap<TaskType, BTreeMap<IdempotencyKey, KeyRow>>,
    /// Keys whose task was pruned, by the time they were taken.
    pub(super) orphans: BTreeSet<(Timestamp, TaskType, IdempotencyKey)>,
    pub(super) attempts: BTreeMap<TaskId, VecDeque<AttemptRecord>>,
    pub(super) claims: BTreeMap<ClaimId, ClaimRow>,
    pub(super) sessions: BTreeMap<SessionId, SessionRow>,
    pub(super) queues: BTreeMap<QueueName, Option<Pause>>,
    pub(super) audit: VecDeque<AuditEntry>,
    /// Every queued task, in the order of claiming.
    pub(super) ready: Ready,
    /// Every queued task with a budget, by its deadline.
    pub(super) deadlines: BTreeSet<(Timestamp, TaskId)>,
    /// Every ended task, by its end.
    pub(super) finished: BTreeSet<(Status, Timestamp, TaskId)>,
    /// Every running task that shall be cancelled.
    pub(super) signalled: BTreeSet<TaskId>,
    pub(super) running: Tally,
    /// Queued tasks that were claimed before.
    pub(super) again: Tally,
    /// The queue that was served last: the next claim begins after it.
    pub(super) turn: Option<QueueName>,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            server: "memory".to_owned(),
            migrated: true,
            next_id: 1,
            rows: BTreeMap::new(),
            keys: BTreeMap::new(),
            orphans: BTreeSet::new(),
            attempts: BTreeMap::new(),
            claims: BTreeMap::new(),
            sessions: BTreeMap::new(),
            queues: BTreeMap::new(),
            audit: VecDeque::new(),
            ready: Ready::default(),
            deadlines: BTreeSet::new(),
            finished: BTreeSet::new(),
            signalled: BTreeSet::new(),
            running: Tally::new(),
            again: Tally::new(),
            turn: None,
        }
    }
}

impl Database {
    pub(super) fn insert(&mut self, id: TaskId, row: Row) {
        self.place(id, &row);
        self.rows.insert(id, row);
    }

    pub(super) fn remove(&mut self, id: TaskId) -> Option<Row> {
        let row = self.rows.remove(&id)?;
        self.displace(id, &row);
        self.attempts.remove(&id);
        Some(row)
    }

    /// Moves a task by the core's transition; nothing changes when it does not apply.
    pub(super) fn apply(&mut self, id: TaskId, event: &Event<'_>, now: Timestamp) -> Result<(), TransitionError> {
        let Some(row) = self.rows.get(&id) else { return Err(TransitionError::Stale) };
        let state = transition(&row.state, event, now)?;
        self.change(id, state);
        Ok(())
    }

    /// Moves a task to this state, in every index.
    pub(super) fn change(&mut self, id: TaskId, state: TaskState) {
        // Out of the map, so that the indexes can be changed beside it.
        if let Some(mut row) = self.rows.remove(&id) {
            self.displace(id, &row);
            row.state = state;
            self.place(id, &row);
            self.rows.insert(id, row);
        }
    }

    /// As [`apply`](Self::apply), where the caller knows that the event applies.
    pub(super) fn must_apply(&mut self, id: TaskId, event: &Event<'_>, now: Timestamp) -> Result<(), StoreError> {
        self.apply(id, event, now).map_err(|error| StoreError::corrupt(Some(id), error.to_string()))
    }

    /// Forgets that a claim holds this task, and the claim with its last one.
    pub(super) fn leave_claim(&mut self, claim: ClaimId, task: TaskId) {
        let Some(row) = self.claims.get_mut(&claim) else { return };
        row.members.remove(&task);
        if row.members.is_empty() && !row.void {
            let session = row.session;
            self.claims.remove(&claim);
            if let Some(session) = self.sessions.get_mut(&session) {
                session.claims.remove(&claim);
            }
        }
    }

    fn place(&mut self, id: TaskId, row: &Row) {
        match row.state.status {
            Status::Queued => {
                self.ready.insert(&row.waiting(id));
                self.deadlines.extend(row.state.deadline_at.map(|deadline| (deadline, id)));
                if row.waits_again() {
                    count(&mut self.again, row, 1);
                }
            }
            Status::Running => {
                count(&mut self.running, row, 1);
                self.signalled.extend(row.state.cancel_requested.then_some(id));
            }
            status @ (Status::Completed | Status::Failed) => {
                self.finished.insert((status, row.state.completed_at.unwrap_or_default(), id));
            }
        }
    }

    fn displace(&mut self, id: TaskId, row: &Row) {
        match row.state.status {
            Status::Queued => {
                self.ready.remove(&row.waiting(id));
                if let Some(deadline) = row.state.deadline_at {
                    self.deadlines.remove(&(deadline, id));
                }
                if row.waits_again() {
                    count(&mut self.again, row, -1);
                }
            }
            Status::Running => {
                count(&mut self.running, row, -1);
                self.signalled.remove(&id);
            }
            status @ (Status::Completed | Status::Failed) => {
                self.finished.remove(&(status, row.state.completed_at.unwrap_or_default(), id));
            }
        }
    }

    pub(super) fn ghosts(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut rebuilt = Self::default();
        for (&id, row) in &self.rows {
            rebuilt.place(id, row);
            if let Some(defect) = row.state.defect() {
                found.push(format!("task {id}: {defect}"));
            }
            let held = row
                .state
                .claim
                .is_some_and(|claim| self.claims.get(&claim).is_some_and(|claim| claim.members.contains(&id)));
            if held != (row.state.status == Status::Running) {
                found.push(format!("task {id} is {} and held: {held}", row.state.status));
            }
        }
        if rebuilt.ready != self.ready || rebuilt.deadlines != self.deadlines || rebuilt.again != self.again {
            found.push("what waits and what is queued differ".to_owned());
        }
        if rebuilt.finished != self.finished || rebuilt.running != self.running || rebuilt.signalled != self.signalled {
            found.push("what runs or has ended and the books of it differ".to_owned());
        }
        found
    }
}

fn count(tally: &mut Tally, row: &Row, change: i64) {
    if !tally.contains_key(&row.queue) {
        tally.insert(row.queue.clone(), BTreeMap::new());
    }
    let Some(types) = tally.get_mut(&row.queue) else { return };
    if !types.contains_key(&row.task_type) {
        types.insert(row.task_type.clone(), 0);
    }
    let Some(number) = types.get_mut(&row.task_type) else { return };
    *number = number.saturating_add_signed(change);
    if *number == 0 {
        types.remove(&row.task_type);
        if types.is_empty() {
            tally.remove(&row.queue);
        }
    }
}
