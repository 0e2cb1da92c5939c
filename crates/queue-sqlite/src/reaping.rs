//! Finding what was lost, and what waited too long.

use queue_core::claim::Ended;
use queue_core::reap::{FencedSession, Lost, LostTask};
use queue_core::{Event, FailureReason, SessionId, StoreError, TaskId};
use rusqlite::params;

use crate::task::{TaskRow, task_columns};
use crate::work::{Id as _, Result, Work, clamped, task_id};

/// Sessions whose lease has ended.
pub(crate) const EXPIRED: &str = "SELECT id, name FROM queue_session WHERE fenced_at IS NULL AND lease_until <= ?1 \
                                  ORDER BY lease_until, id LIMIT ?2";
const FENCE: &str = "UPDATE queue_session SET fenced_at = ?2 WHERE id = ?1";
/// Running tasks under the claims of fenced sessions.
pub(crate) const LOST: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM queue_session AS s CROSS JOIN queue_claim AS c CROSS JOIN json_each(c.members) AS m \
     CROSS JOIN queue_task AS t WHERE s.fenced_at IS NOT NULL AND c.session_id = s.id \
     AND t.id = m.value AND t.claim_id = c.id AND t.status = 1 ORDER BY t.id LIMIT ?1"
);
/// A part of what waits, in the order of the primary key.
pub(crate) const PART: &str = "SELECT queue_id, suspect, rank, run_at, task_id, deadline_at FROM queue_ready \
                               WHERE (queue_id, suspect, rank, run_at, task_id) > (?1, ?2, ?3, ?4, ?5) \
                               ORDER BY queue_id, suspect, rank, run_at, task_id LIMIT ?6";

/// Rows that one sweep looks at.
const SWEEP_ROWS_MAX: usize = 10_000;

/// A position among what waits: the primary key of a row of `queue_ready`.
pub(crate) type Position = [i64; 5];

/// Before everything that waits.
pub(crate) const BEGINNING: Position = [i64::MIN; 5];

/// What a look over a part of what waits found.
#[derive(Debug)]
pub(crate) struct Spent {
    /// Tasks whose budget is spent.
    pub(crate) tasks: Vec<TaskId>,
    /// Where to go on; at the beginning when the end was reached.
    pub(crate) next: Position,
    /// Whether the end was reached.
    pub(crate) finished: bool,
}

/// Whether a session is past its lease.
pub(crate) fn has_expired(work: &Work<'_>) -> Result<bool> {
    work.exists(EXPIRED, [work.now.as_micros(), 1])
}

pub(crate) fn fence_expired(work: &Work<'_>, limit: usize) -> Result<Vec<FencedSession>> {
    let fenced = work.all(EXPIRED, [work.now.as_micros(), clamped(limit)], |row| {
        let id = SessionId::new(row.get::<_, i64>(0)?.cast_unsigned());
        let id = id.ok_or_else(|| StoreError::corrupt(None, "a session has no id"))?;
        Ok(FencedSession { id, name: row.get(1)? })
    })?;
    for session in &fenced {
        work.execute(FENCE, [session.id.number(), work.now.as_micros()])?;
    }
    Ok(fenced)
}

/// Running tasks of fenced sessions.
pub(crate) fn lost(work: &mut Work<'_>, limit: usize) -> Result<Lost> {
    let mut tasks = Vec::new();
    for row in work.all(LOST, [clamped(limit)], |row| Ok(TaskRow::read(row)))? {
        let task = row.and_then(|row| {
            let claim = row.state.claim.ok_or_else(|| StoreError::corrupt(Some(row.id), "no claim holds it"))?;
            Ok(LostTask { id: row.id, claim, task_type: row.task_type(work)?, run: row.run(work)? })
        });
        tasks.extend(work.pass_over_corrupt(task)?);
    }
    Ok(Lost { now: work.now, tasks })
}

/// Looks over a part of what waits for tasks whose budget is spent.
pub(crate) fn spent(work: &Work<'_>, after: Position, limit: usize) -> Result<Spent> {
    let mut found = Spent { tasks: Vec::new(), next: BEGINNING, finished: true };
    let [queue_id, suspect, rank, run_at, task] = after;
    let mut seen = 0;
    work.each(PART, params![queue_id, suspect, rank, run_at, task, clamped(SWEEP_ROWS_MAX)], |row| {
        let position = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?];
        seen += 1;
        if row.get::<_, Option<i64>>(5)?.is_some_and(|deadline| deadline <= work.now.as_micros()) {
            found.tasks.push(task_id(position[4])?);
        }
        if seen == SWEEP_ROWS_MAX || found.tasks.len() >= limit {
            (found.next, found.finished) = (position, false);
        }
        Ok(found.finished)
    })?;
    Ok(found)
}

/// Fails those of the tasks that wait still and whose budget is spent.
pub(crate) fn expire(work: &mut Work<'_>, tasks: &[TaskId]) -> Result<Vec<Ended>> {
    let mut ended = Vec::with_capacity(tasks.len());
    for &task in tasks {
        let Some((row, to)) = still_spent(work, task)? else { continue };
        let task_type = row.task_type(work);
        let Some(task_type) = work.pass_over_corrupt(task_type)? else { continue };
        // It may be in no list, or in another one than its status says.
        let advanced = row.advance(work, &to);
        if work.pass_over_corrupt(advanced)?.is_none() {
            continue;
        }
        ended.push(Ended { id: task, task_type, reason: to.reason.unwrap_or(FailureReason::BudgetExceeded) });
    }
    Ok(ended)
}

/// Somebody may have taken the task since it was seen: then there is nothing to do, and nothing is wrong.
fn still_spent(work: &mut Work<'_>, task: TaskId) -> Result<Option<(TaskRow, queue_core::TaskState)>> {
    let row = TaskRow::load(work, task);
    let Some(Some(row)) = work.pass_over_corrupt(row)? else { return Ok(None) };
    Ok(queue_core::transition(&row.state, &Event::Expire, work.now).ok().map(|to| (row, to)))
}
