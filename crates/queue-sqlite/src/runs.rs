//! Runs of tasks: their ids follow on one another, as of those that were enqueued together, and they go the same way. One statement
//! moves them all, for less than half of what one for each of them costs.

use std::mem;

use queue_core::{ClaimId, FailureReason, Fence, Status, StoreError, TaskId, TaskState, Timestamp};
use rusqlite::params;

use crate::task::{Change, TaskRow, add_finished, drop_ready, end, start};
use crate::work::{Id as _, Result, Work};

// `OR FAIL`: what a statement has done when it meets a row that the table refuses is undone with the whole job, so SQLite need not
// keep a copy of each page for undoing the statement alone.
const START: &str = start!("UPDATE OR FAIL", "id BETWEEN ?1 AND ?9");
const END: &str = end!("UPDATE OR FAIL", "id BETWEEN ?1 AND ?8");
const DROP_READY: &str = drop_ready!("task_id BETWEEN ?5 AND ?6");
const ADD_FINISHED: &str = add_finished!(
    "INSERT OR FAIL",
    "SELECT ?3, ?4, id, type_id, queue_id, ?5 FROM queue_task WHERE id BETWEEN ?1 AND ?2"
);

/// A task's row, as it was read, and the state that a transition led to.
#[derive(Debug)]
pub(crate) struct Move {
    pub(crate) row: TaskRow,
    pub(crate) to: TaskState,
}

/// What the tasks of a run have in common: everything that is written of them but their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Start {
        lane: (i64, bool, i8),
        run_at: Timestamp,
        claim: Option<ClaimId>,
        attempt: u16,
        fence: Fence,
        to: (Option<ClaimId>, Option<Timestamp>),
    },
    End {
        claim: Option<ClaimId>,
        status: Status,
        leaves: Option<ClaimId>,
        reason: Option<FailureReason>,
        at: Timestamp,
    },
}

impl Move {
    /// `None`: it goes alone.
    fn way(&self) -> Option<Way> {
        let (row, from, to) = (&self.row, &self.row.state, &self.to);
        if from.cancel_requested || to.cancel_requested || to.defect().is_some() {
            return None;
        }
        match (from.status, to.status, Change::of(from, to), to.completed_at) {
            (Status::Queued, Status::Running, Change::Start, None) => Some(Way::Start {
                lane: (row.queue_id, from.is_suspect(), row.priority.rank()),
                run_at: from.run_at,
                claim: from.claim,
                attempt: to.attempt,
                fence: to.fence,
                to: (to.claim, to.started_at),
            }),
            (Status::Running, status, Change::End, Some(at)) => {
                Some(Way::End { claim: from.claim, status, leaves: to.claim, reason: to.reason, at })
            }
            _ => None,
        }
    }
}

/// The moves, in the order in which they are given, as runs; one that goes alone is a run of one.
pub(crate) fn runs(moves: &[Move]) -> impl Iterator<Item = &[Move]> {
    let mut rest = moves;
    std::iter::from_fn(move || {
        let (first, others) = rest.split_first()?;
        let way = first.way();
        let mut before = first.row.id;
        let joins = |next: &&Move| follows(mem::replace(&mut before, next.row.id), next.row.id) && next.way() == way;
        let more = if way.is_some() { others.iter().take_while(joins).count() } else { 0 };
        let (run, left) = rest.split_at(1 + more);
        rest = left;
        Some(run)
    })
}

/// Whether no id is between the two.
pub(crate) fn follows(one: TaskId, next: TaskId) -> bool {
    one.number().checked_add(1) == Some(next.number())
}

/// Moves the tasks, whose rows were read in this transaction.
pub(crate) fn advance(work: &Work<'_>, moves: &[Move]) -> Result<()> {
    for run in runs(moves) {
        if !try_advance(work, run)? {
            let id = run.first().map(|one| one.row.id);
            return Err(StoreError::corrupt(id, "its row, or one after it, is not what was read of it").into());
        }
    }
    Ok(())
}

/// Moves a run. `false` when a row of it has gone on since it was read: nothing is written then where the run is one task, and of a
/// longer one the caller has to undo what is.
pub(crate) fn try_advance(work: &Work<'_>, run: &[Move]) -> Result<bool> {
    let (first, last) = match run {
        [] => return Ok(true),
        [one] => return one.row.try_advance(work, &one.to),
        [first, .., last] => (first, last.row.id.number()),
    };
    let (id, from) = (first.row.id.number(), first.row.state.status.code());
    match first.way() {
        Some(Way::Start { lane: (queue_id, suspect, rank), run_at, claim, attempt, fence, to: (to, started_at) }) => {
            let left = work.execute(DROP_READY, params![queue_id, suspect, rank, run_at.as_micros(), id, last])?;
            if left != run.len() {
                let defect = "the task, or one after it, is not in the list that its status says";
                return Err(StoreError::corrupt(Some(first.row.id), defect).into());
            }
            let (claim, to) = (claim.map(|id| id.number()), to.map(|id| id.number()));
            let (status, started_at) = (Status::Running.code(), started_at.map(Timestamp::as_micros));
            let params = params![id, from, claim, status, attempt, fence.get(), to, started_at, last];
            Ok(work.execute(START, params)? == run.len())
        }
        Some(Way::End { claim, status, leaves, reason, at }) => {
            let (claim, leaves) = (claim.map(|id| id.number()), leaves.map(|id| id.number()));
            let (status, reason, at) = (status.code(), reason.map(FailureReason::code), at.as_micros());
            let ended = work.execute(END, params![id, from, claim, status, reason, leaves, at, last])?;
            Ok(ended == run.len() && work.execute(ADD_FINISHED, params![id, last, status, at, reason])? == run.len())
        }
        None => Err(StoreError::other("tasks that go alone were moved together").into()),
    }
}
