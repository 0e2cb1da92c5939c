//! A task's row: read into the domain's state, and moved to the state that the domain says.

use std::time::Duration;

use queue_core::machine::FailureReason;
use queue_core::time::micros;
use queue_core::{
    Backoff, Budget, ClaimId, Fence, Percent, Priority, Progress, QueueName, Run, Status, StoreError, TaskId,
    TaskState, TaskType, Timestamp,
};
use rusqlite::{Row, params};

use crate::error::Fault;
use crate::work::{Id as _, Result, Work, task_id};

/// The columns that [`TaskRow::read`] reads, of `queue_task AS t`, but for the last one.
macro_rules! stored_columns {
    () => {
        "t.id, t.type_id, t.queue_id, t.rank, t.policy_id, t.bytes, t.status, t.reason, t.attempt, t.max_attempts, \
         t.losses, t.claims, t.claim_id, t.created_at, t.run_at, t.started_at, t.completed_at, t.deadline_at, \
         t.budget, t.percent, t.message"
    };
}

/// The columns that [`TaskRow::read`] reads, of `queue_task AS t`.
macro_rules! task_columns {
    () => {
        concat!(
            $crate::task::stored_columns!(),
            ", EXISTS (SELECT 1 FROM queue_signal s WHERE s.task_id = t.id AND s.claim_id = t.claim_id)"
        )
    };
}
pub(crate) use {stored_columns, task_columns};

/// Whether it shall be cancelled is looked up apart, because nearly always nothing shall.
const LOAD: &str = concat!("SELECT ", stored_columns!(), ", 0 FROM queue_task AS t WHERE t.id = ?1");
const LOAD_RUN: &str =
    concat!("SELECT ", stored_columns!(), ", 0 FROM queue_task AS t WHERE t.id BETWEEN ?1 AND ?2 ORDER BY t.id");
const IS_SIGNALLED: &str = "SELECT 1 FROM queue_signal WHERE task_id = ?1 AND claim_id = ?2";
/// A move of a task, or of several at once: only where status and claim are still what was read.
macro_rules! moving {
    ($update:literal, $set:literal, $ids:literal) => {
        concat!($update, " queue_task SET ", $set, " WHERE ", $ids, " AND status = ?2 AND claim_id IS ?3")
    };
}

/// What changes when a run starts. Its end has [so much](room) left.
macro_rules! start {
    ($update:literal, $ids:literal) => {
        $crate::task::moving!(
            $update,
            "status = ?4, attempt = ?5, claims = ?6, claim_id = ?7, started_at = ?8, room = zeroblob(9)",
            $ids
        )
    };
}

/// What changes when a task ends.
macro_rules! end {
    ($update:literal, $ids:literal) => {
        $crate::task::moving!($update, "status = ?4, reason = ?5, claim_id = ?6, completed_at = ?7, room = NULL", $ids)
    };
}

/// Puts a task, or several, on the list of what waits.
macro_rules! add_ready {
    ($insert:literal, $rows:literal) => {
        concat!(
            $insert,
            " INTO queue_ready (queue_id, suspect, rank, run_at, task_id, type_id, deadline_at, bytes, again) ",
            $rows
        )
    };
}

/// Takes a task, or several of one place, off the list of what waits.
macro_rules! drop_ready {
    ($ids:literal) => {
        concat!("DELETE FROM queue_ready WHERE queue_id = ?1 AND suspect = ?2 AND rank = ?3 AND run_at = ?4 AND ", $ids)
    };
}

/// Puts a task, or several, on the list of what ended.
macro_rules! add_finished {
    ($insert:literal, $rows:literal) => {
        concat!($insert, " INTO queue_finished (status, completed_at, task_id, type_id, queue_id, reason) ", $rows)
    };
}
pub(crate) use {add_finished, add_ready, drop_ready, end, moving, start};

const MOVE: &str = moving!(
    "UPDATE",
    "status = ?4, reason = ?5, attempt = ?6, losses = ?7, claims = ?8, claim_id = ?9, run_at = ?10, started_at = ?11, \
     completed_at = ?12, deadline_at = ?13, room = zeroblob(?14)",
    "id = ?1"
);
const START: &str = start!("UPDATE", "id = ?1");
const END: &str = end!("UPDATE", "id = ?1");
const ADD_READY: &str = add_ready!("INSERT", "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)");
const DROP_READY: &str = drop_ready!("task_id = ?5");
const ADD_FINISHED: &str = add_finished!("INSERT", "VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
const DROP_FINISHED: &str = "DELETE FROM queue_finished WHERE status = ?1 AND completed_at = ?2 AND task_id = ?3";
const SIGNAL: &str = "INSERT OR REPLACE INTO queue_signal (task_id, claim_id, created_at) VALUES (?1, ?2, ?3)";
const DROP_SIGNAL: &str = "DELETE FROM queue_signal WHERE task_id = ?1";

/// A task's row, checked.
#[derive(Clone, Debug)]
pub(crate) struct TaskRow {
    pub(crate) id: TaskId,
    pub(crate) type_id: i64,
    pub(crate) queue_id: i64,
    pub(crate) priority: Priority,
    pub(crate) policy_id: i64,
    pub(crate) bytes: i64,
    pub(crate) state: TaskState,
    pub(crate) progress: Option<Progress>,
}

impl TaskRow {
    /// The task's row; `None` when there is no such task.
    pub(crate) fn load(work: &Work<'_>, id: TaskId) -> Result<Option<Self>> {
        let mut found = work.first(LOAD, [id.number()], Self::read)?;
        if let Some(row) = &mut found {
            row.load_signal(work)?;
        }
        Ok(found)
    }

    /// The rows of the tasks from `first` to `last`, each under its stored number, whatever it is like.
    pub(crate) fn load_run(work: &Work<'_>, first: i64, last: i64) -> Result<Vec<(i64, Result<Self>)>> {
        let mut found = work.all(LOAD_RUN, [first, last], |row| Ok((row.get(0)?, Self::read(row))))?;
        for row in found.iter_mut().filter_map(|(_, row)| row.as_mut().ok()) {
            row.load_signal(work)?;
        }
        Ok(found)
    }

    /// Whether its run shall be cancelled.
    fn load_signal(&mut self, work: &Work<'_>) -> Result<()> {
        if let Some(claim) = self.state.claim
            && work.has_signals()?
        {
            self.state.cancel_requested = work.exists(IS_SIGNALLED, [self.id.number(), claim.number()])?;
        }
        Ok(())
    }

    /// The run of this task under this claim, when this process began it: to be moved with [`try_advance`](Self::try_advance).
    pub(crate) fn held(work: &mut Work<'_>, id: TaskId, claim: ClaimId) -> Result<Option<Self>> {
        let mut found = work.held()?.take(id, claim);
        if let Some(row) = &mut found {
            row.load_signal(work)?;
        }
        Ok(found)
    }

    /// Reads a row of the task columns; one that cannot be is a corrupt error that names the task.
    pub(crate) fn read(row: &Row<'_>) -> Result<Self> {
        let id = task_id(row.get(0)?)?;
        Self::checked(id, row).map_err(|error| match error {
            Fault::Store(StoreError::Corrupt { defect, .. }) => StoreError::corrupt(Some(id), defect).into(),
            other => other,
        })
    }

    fn checked(id: TaskId, row: &Row<'_>) -> Result<Self> {
        let claim = row
            .get::<_, Option<i64>>(12)?
            .map(|claim| ClaimId::new(claim.cast_unsigned()).ok_or_else(|| corrupt("a claim has no id")));
        let state = TaskState {
            status: Status::from_code(small(row, 6)?).ok_or_else(|| corrupt("there is no such status"))?,
            reason: match row.get::<_, Option<i64>>(7)? {
                None => None,
                Some(_) => Some(
                    FailureReason::from_code(small(row, 7)?)
                        .ok_or_else(|| corrupt("there is no such failure reason"))?,
                ),
            },
            attempt: small(row, 8)?,
            max_attempts: small(row, 9)?,
            losses: small(row, 10)?,
            fence: Fence::new(small(row, 11)?),
            claim: claim.transpose()?,
            cancel_requested: row.get(21)?,
            created_at: Timestamp::from_micros(row.get(13)?),
            run_at: Timestamp::from_micros(row.get(14)?),
            started_at: time(row, 15)?,
            completed_at: time(row, 16)?,
            deadline_at: time(row, 17)?,
            budget: match row.get::<_, Option<i64>>(18)? {
                None => Budget::NONE,
                Some(length) => Budget::of(Duration::from_micros(
                    u64::try_from(length).map_err(|_| corrupt("a budget is negative"))?,
                )),
            },
        };
        if let Some(defect) = state.defect() {
            return Err(corrupt(defect));
        }
        let percent: Option<u8> = row.get::<_, Option<i64>>(19)?.map(|_| small(row, 19)).transpose()?;
        Ok(Self {
            id,
            type_id: row.get(1)?,
            queue_id: row.get(2)?,
            priority: Priority::from_rank(row.get(3)?).map_err(|error| corrupt(error.to_string()))?,
            policy_id: row.get(4)?,
            bytes: row.get(5)?,
            state,
            progress: match percent {
                None => None,
                Some(percent) => {
                    Some(Progress::new(Percent::new(percent), row.get::<_, Option<String>>(20)?.unwrap_or_default()))
                }
            },
        })
    }

    /// The place among those that wait that a queued task of this row has.
    pub(crate) fn add_to_ready(&self, work: &Work<'_>, state: &TaskState) -> Result<()> {
        let deadline_at = state.deadline_at.map(Timestamp::as_micros);
        let (suspect, again) = (state.is_suspect(), state.fence > Fence::default());
        work.execute(
            ADD_READY,
            params![
                self.queue_id,
                suspect,
                self.priority.rank(),
                state.run_at.as_micros(),
                self.id.number(),
                self.type_id,
                deadline_at,
                self.bytes,
                again,
            ],
        )?;
        Ok(())
    }

    /// Moves the task, whose row was read in this transaction, to the state that a transition led to.
    pub(crate) fn advance(&self, work: &Work<'_>, to: &TaskState) -> Result<()> {
        if self.try_advance(work, to)? {
            return Ok(());
        }
        Err(StoreError::corrupt(Some(self.id), "its row is not what was read of it").into())
    }

    /// Moves the task to the state that a transition led to, with its places in the lists of what waits and what ended:
    /// the one exit through which a status changes, but for [runs](crate::runs::try_advance), which write the same for several tasks at
    /// once. `false`, and nothing is written, when the row has gone on since it was read.
    pub(crate) fn try_advance(&self, work: &Work<'_>, to: &TaskState) -> Result<bool> {
        if let Some(defect) = to.defect() {
            return Err(StoreError::corrupt(Some(self.id), defect).into());
        }
        let from = &self.state;
        let id = self.id.number();
        // A run is in no list, so nothing is written before its row is known to be as it was.
        self.leave(work, from)?;
        if self.write(work, to)? == 0 {
            return Ok(false);
        }
        match (to.status, to.completed_at) {
            (Status::Queued, _) => self.add_to_ready(work, to)?,
            (Status::Completed | Status::Failed, Some(completed_at)) => {
                let reason = to.reason.map(FailureReason::code);
                work.execute(
                    ADD_FINISHED,
                    params![to.status.code(), completed_at.as_micros(), id, self.type_id, self.queue_id, reason],
                )?;
            }
            (Status::Running | Status::Completed | Status::Failed, _) => {}
        }
        match (from.cancel_requested, to.cancel_requested) {
            (true, false) => {
                work.execute(DROP_SIGNAL, [id])?;
            }
            (_, true) => {
                let claim = to.claim.map(|claim| claim.number());
                work.execute(SIGNAL, params![id, claim, work.now.as_micros()])?;
                work.expect_signals();
            }
            (false, false) => {}
        }
        Ok(true)
    }

    /// Writes what of the row changes, and says how many rows that were.
    fn write(&self, work: &Work<'_>, to: &TaskState) -> Result<usize> {
        let from = &self.state;
        let (id, status, claim) = (self.id.number(), from.status.code(), from.claim.map(|claim| claim.number()));
        let (to_status, to_claim) = (to.status.code(), to.claim.map(|claim| claim.number()));
        let reason = to.reason.map(FailureReason::code);
        let started_at = to.started_at.map(Timestamp::as_micros);
        let completed_at = to.completed_at.map(Timestamp::as_micros);
        match Change::of(from, to) {
            Change::Start => {
                let params = params![id, status, claim, to_status, to.attempt, to.fence.get(), to_claim, started_at];
                return work.execute(START, params);
            }
            Change::End => {
                return work.execute(END, params![id, status, claim, to_status, reason, to_claim, completed_at]);
            }
            Change::Any => {}
        }
        let deadline_at = to.deadline_at.map(Timestamp::as_micros);
        work.execute(
            MOVE,
            params![
                id,
                status,
                claim,
                to_status,
                reason,
                to.attempt,
                to.losses,
                to.fence.get(),
                to_claim,
                to.run_at.as_micros(),
                started_at,
                completed_at,
                deadline_at,
                room(to),
            ],
        )
    }

    /// Takes the task out of the list that its status puts it in.
    pub(crate) fn leave(&self, work: &Work<'_>, from: &TaskState) -> Result<()> {
        let id = self.id.number();
        let left = match (from.status, from.completed_at) {
            (Status::Queued, _) => {
                let (suspect, run_at) = (from.is_suspect(), from.run_at.as_micros());
                work.execute(DROP_READY, params![self.queue_id, suspect, self.priority.rank(), run_at, id])?
            }
            (Status::Completed | Status::Failed, Some(completed_at)) => {
                work.execute(DROP_FINISHED, params![from.status.code(), completed_at.as_micros(), id])?
            }
            (Status::Running | Status::Completed | Status::Failed, _) => 1,
        };
        if left == 0 {
            return Err(StoreError::corrupt(Some(self.id), "the task is not in the list that its status says").into());
        }
        Ok(())
    }

    /// What the decision about the end of a run depends on.
    pub(crate) fn run(&self, work: &mut Work<'_>) -> Result<Run> {
        Ok(Run {
            attempt: self.state.attempt,
            max_attempts: self.state.max_attempts,
            backoff: self.backoff(work)?,
            deadline_at: self.state.deadline_at,
            cancel_requested: self.state.cancel_requested,
        })
    }

    pub(crate) fn task_type(&self, work: &mut Work<'_>) -> Result<TaskType> {
        let name = work.memory.names.name(work.conn, self.type_id)?;
        name.ok_or_else(|| StoreError::corrupt(Some(self.id), "its type is not known").into())
    }

    pub(crate) fn queue(&self, work: &mut Work<'_>) -> Result<QueueName> {
        let name = work.memory.names.name(work.conn, self.queue_id)?;
        name.ok_or_else(|| StoreError::corrupt(Some(self.id), "its queue is not known").into())
    }

    pub(crate) fn backoff(&self, work: &mut Work<'_>) -> Result<Backoff> {
        let backoff = work.memory.names.name(work.conn, self.policy_id)?;
        backoff.ok_or_else(|| StoreError::corrupt(Some(self.id), "its retry policy is not known").into())
    }
}

/// What of a row a move changes: most change little, and each value costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Of [`start`].
    Start,
    /// Of [`end`].
    End,
    /// More than either.
    Any,
}

impl Change {
    pub(crate) fn of(from: &TaskState, to: &TaskState) -> Self {
        let same_run = (from.attempt, from.fence, from.started_at) == (to.attempt, to.fence, to.started_at);
        let same_end = (from.reason, from.completed_at) == (to.reason, to.completed_at);
        let same_rest = (from.losses, from.run_at, from.deadline_at) == (to.losses, to.run_at, to.deadline_at);
        match (same_rest, same_run, same_end) {
            (true, _, true) => Self::Start,
            (true, true, false) => Self::End,
            _ => Self::Any,
        }
    }
}

/// How many bytes a row has to keep free for what is written to it until its task has ended: of a claim and of each time eight,
/// and one of a status that is neither 0 nor 1, which take none.
pub(crate) fn room(state: &TaskState) -> i64 {
    let missing = [state.claim.is_none(), state.started_at.is_none(), state.completed_at.is_none()];
    match state.status {
        Status::Queued | Status::Running => 1 + 8 * missing.into_iter().map(i64::from).sum::<i64>(),
        Status::Completed | Status::Failed => 0,
    }
}

/// A budget as SQLite keeps it.
pub(crate) fn budget_micros(budget: Budget) -> Option<i64> {
    budget.length().map(micros)
}

fn corrupt(defect: impl Into<String>) -> Fault {
    StoreError::corrupt(None, defect).into()
}

fn small<N: TryFrom<i64>>(row: &Row<'_>, column: usize) -> Result<N> {
    let number: i64 = row.get(column)?;
    N::try_from(number).map_err(|_| corrupt(format!("{number} is out of range in column {column}")))
}

fn time(row: &Row<'_>, column: usize) -> Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_micros))
}
