//! How runs end, and how far they have come.

use std::collections::BTreeMap;

use queue_core::progress::ProgressUpdate;
use queue_core::record::ATTEMPTS_MAX;
use queue_core::{
    ClaimId, ErrorText, Event, Settle, Settled, Settlement, StoreError, StoreLimits, TaskId, TaskResult,
    TransitionError, transition,
};
use rusqlite::params;

use crate::runs::{self, Move, follows};
use crate::task::TaskRow;
use crate::work::{Id as _, Result, Work, clamped};

const ADD_RESULT: &str = "INSERT OR REPLACE INTO queue_result (task_id, body, dropped) VALUES (?1, ?2, ?3)";
const ADD_ATTEMPT: &str = "INSERT OR REPLACE INTO queue_attempt \
                           (task_id, fence, attempt, started_at, ended_at, outcome, error) \
                           VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const DROP_OLD_ATTEMPTS: &str = "DELETE FROM queue_attempt WHERE task_id = ?1 AND fence <= \
                                 (SELECT fence FROM queue_attempt WHERE task_id = ?1 ORDER BY fence DESC LIMIT 1 OFFSET ?2)";
const LEAVE_CLAIM: &str = "UPDATE queue_claim SET open = open - ?2 WHERE id = ?1 RETURNING open";
/// The count is a shortcut: what decides is whether a member is held still.
pub(crate) const DROP_CLAIM: &str = "DELETE FROM queue_claim WHERE id = ?1 AND NOT EXISTS \
                          (SELECT 1 FROM json_each(queue_claim.members) AS m CROSS JOIN queue_task AS t \
                           WHERE t.id = m.value AND t.claim_id = queue_claim.id AND t.status = 1)";
const PROGRESS: &str =
    "UPDATE queue_task SET percent = ?3, message = ?4 WHERE id = ?1 AND claim_id = ?2 AND status = 1";

pub(crate) fn settle(work: &mut Work<'_>, batch: &[Settle], limits: &StoreLimits) -> Result<Vec<Settled>> {
    let mut settled = settle_runs(work, batch, limits)?;
    let mut left: BTreeMap<ClaimId, i64> = BTreeMap::new();
    for (item, one) in batch.iter().zip(&mut settled) {
        let one = match one {
            Some(one) => *one,
            None => *one.insert(settle_one(work, item, limits)?),
        };
        if one == Settled::Applied {
            *left.entry(item.claim).or_default() += 1;
        }
    }
    for (claim, count) in left {
        leave_claim(work, claim, count)?;
    }
    Ok(settled.into_iter().flatten().collect())
}

/// Settles tasks whose rows are known, those together whose ids follow on one another. What is left is `None`: nothing is known of it,
/// or something else than what the file says, or there is nothing to do.
fn settle_runs(work: &mut Work<'_>, batch: &[Settle], limits: &StoreLimits) -> Result<Vec<Option<Settled>>> {
    let mut settled = vec![None; batch.len()];
    let mut moving = Vec::with_capacity(batch.len());
    for (index, row) in rows(work, batch)? {
        if let Ok(to) = transition(&row.state, &event(&batch[index]), work.now) {
            moving.push((index, Move { row, to }));
        }
    }
    // Of two ends of one task, the first one counts.
    moving.sort_unstable_by_key(|(index, one)| (one.row.id, *index));
    let (indices, moves): (Vec<usize>, Vec<Move>) = moving.into_iter().unzip();
    let mut rest = indices.as_slice();
    for run in runs::runs(&moves) {
        let (indices, others) = rest.split_at(run.len());
        rest = others;
        if runs::try_advance(work, run)? {
            for (&index, Move { row, .. }) in indices.iter().zip(run) {
                keep(work, row, &batch[index], limits)?;
                settled[index] = Some(Settled::Applied);
            }
        } else if run.len() > 1 {
            // Some of it is written. Nothing is known any more once this job is undone, and when it is repeated, all is looked up.
            // A savepoint would have kept a copy of each page, for what no file has ever been like.
            return Err(
                StoreError::unavailable("a run of this process is not as it left it; it is looked up again").into()
            );
        }
    }
    Ok(settled)
}

/// The rows of the tasks, by the place in the batch: as this process left them or, where ids follow on one another, read together.
fn rows(work: &mut Work<'_>, batch: &[Settle]) -> Result<Vec<(usize, TaskRow)>> {
    let mut rows = Vec::with_capacity(batch.len());
    let mut unknown = Vec::new();
    for (index, item) in batch.iter().enumerate() {
        match TaskRow::held(work, item.task, item.claim)? {
            Some(row) => rows.push((index, row)),
            None => unknown.push((item.task, index)),
        }
    }
    unknown.sort_unstable();
    unknown.dedup_by_key(|(task, _)| *task);
    for run in unknown.chunk_by(|(one, _), (next, _)| follows(*one, *next)) {
        let [(first, _), .., (last, _)] = run else { continue };
        let mut wanted = run.iter();
        for (id, row) in TaskRow::load_run(work, first.number(), last.number())? {
            let place = wanted.find(|(task, _)| task.number() == id);
            // One that cannot be is told of when it is looked up by itself.
            if let (Some((_, index)), Ok(row)) = (place, row) {
                rows.push((*index, row));
            }
        }
    }
    Ok(rows)
}

const fn event(item: &Settle) -> Event<'_> {
    Event::Settle { claim: item.claim, leaves: item.leaves, settlement: &item.settlement }
}

/// Completes one task, in whatever transaction `work` is in.
pub(crate) fn settle_one(work: &mut Work<'_>, item: &Settle, limits: &StoreLimits) -> Result<Settled> {
    let row = TaskRow::load(work, item.task);
    // A row that cannot be is left alone, and whoever holds it cannot do anything about it.
    let Some(Some(row)) = work.pass_over_corrupt(row)? else { return Ok(Settled::Stale) };
    let to = match transition(&row.state, &event(item), work.now) {
        Ok(to) => to,
        Err(TransitionError::AlreadySettled) => return Ok(Settled::Already(row.state.status)),
        Err(_) => return Ok(Settled::Stale),
    };
    row.advance(work, &to)?;
    keep(work, &row, item, limits)?;
    Ok(Settled::Applied)
}

/// Keeps what a run leaves behind.
fn keep(work: &Work<'_>, row: &TaskRow, item: &Settle, limits: &StoreLimits) -> Result<()> {
    if let Settlement::Complete { result } = &item.settlement {
        keep_result(work, item.task, result, limits.result_bytes_max)?;
    }
    if let Some(error) = item.settlement.error() {
        keep_attempt(work, row, item.settlement.label(), error)?;
    }
    Ok(())
}

/// Records progress where the claim is current.
pub(crate) fn progress(work: &Work<'_>, batch: &[ProgressUpdate]) -> Result<()> {
    for ProgressUpdate { task, claim, progress } in batch {
        work.execute(PROGRESS, params![task.number(), claim.number(), progress.percent().get(), progress.message()])?;
    }
    Ok(())
}

/// So many tasks of a claim are settled; the claim goes with its last one.
pub(crate) fn leave_claim(work: &Work<'_>, claim: ClaimId, count: i64) -> Result<()> {
    let open = work.first(LEAVE_CLAIM, [claim.number(), count], |row| Ok(row.get::<_, i64>(0)?))?;
    if open.is_some_and(|open| open <= 0) {
        work.execute(DROP_CLAIM, [claim.number()])?;
    }
    Ok(())
}

fn keep_result(work: &Work<'_>, task: TaskId, result: &TaskResult, bytes_max: u64) -> Result<()> {
    let value = match result {
        TaskResult::None => return Ok(()),
        TaskResult::Value(value) => TaskResult::bounded(value.clone(), bytes_max),
        TaskResult::Dropped { .. } => result.clone(),
    };
    let (body, dropped) = match &value {
        TaskResult::Value(value) => (Some(value.as_ref()), None),
        TaskResult::Dropped { bytes } => (None, Some(clamped(*bytes))),
        TaskResult::None => return Ok(()),
    };
    work.execute(ADD_RESULT, params![task.number(), body, dropped])?;
    Ok(())
}

fn keep_attempt(work: &Work<'_>, run: &TaskRow, outcome: &str, error: &ErrorText) -> Result<()> {
    let (id, fence) = (run.id.number(), run.state.fence.get());
    let started_at = run.state.started_at.unwrap_or(work.now).as_micros();
    work.execute(
        ADD_ATTEMPT,
        params![id, fence, run.state.attempt, started_at, work.now.as_micros(), outcome, error.as_str()],
    )?;
    if fence as usize > ATTEMPTS_MAX {
        work.execute(DROP_OLD_ATTEMPTS, params![id, clamped(ATTEMPTS_MAX)])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use queue_core::claim::Capacity;
    use queue_core::{
        ClaimReply, ClaimRequest, NewTask, Nonce, Payload, Scope, SessionId, Status, TaskSpec, TaskType, Timestamp,
    };
    use rusqlite::Connection;

    use super::*;
    use crate::error::Fault;
    use crate::work::Memory;
    use crate::{claiming, enqueue};

    /// What is known of runs is right as long as every write of this connection goes the one way. If one ever did not, no neighbour
    /// may be ended twice or not at all.
    #[test]
    fn a_run_that_is_not_as_it_is_known_is_looked_up() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("../../../migrations/sqlite/0001_queue.sql")).unwrap();
        conn.execute_batch(
            "INSERT INTO queue_session (id, name, host, version, opened_at, lease_until, drain) VALUES (1, '', '', '', 1, 999, 0);
             BEGIN IMMEDIATE",
        )
        .unwrap();
        let mut memory = Memory::default();
        let mut work = Work::new(&conn, Timestamp::from_micros(100), &mut memory);
        let limits = StoreLimits::default();
        let task_type = TaskType::new("test");
        let batch = (1..=6).map(|id| NewTask {
            id: TaskId::new(id).unwrap(),
            nonce: Nonce::new(1),
            spec: TaskSpec::new(task_type.clone(), Payload::json("1")),
        });
        enqueue::enqueue(&mut work, &batch.collect::<Vec<_>>()).unwrap();
        let (session, claim) = (SessionId::new(1).unwrap(), ClaimId::new(5).unwrap());
        let scope = Scope::of([task_type]);
        let request = ClaimRequest { session, claim, scope, capacity: Capacity::of(6) };
        let ClaimReply::Claimed(claimed) = claiming::claim(&mut work, &request).unwrap() else {
            panic!("it is fenced")
        };
        assert_eq!(claimed.tasks.len(), 6);
        conn.execute("UPDATE queue_task SET claim_id = 9 WHERE id = 3", []).unwrap();
        let settles = claimed
            .tasks
            .iter()
            .map(|task| Settle::by_holder(task.id, task.claim, Settlement::Complete { result: TaskResult::None }))
            .collect::<Vec<_>>();
        conn.execute("SAVEPOINT job", []).unwrap();
        let Err(Fault::Store(error)) = settle(&mut work, &settles, &limits) else { panic!("it was taken for known") };
        assert!(error.is_transient());
        // As the thread does with a job that fails; its caller repeats it.
        conn.execute("ROLLBACK TO job", []).unwrap();
        drop(work);
        memory.forget();
        let mut work = Work::new(&conn, Timestamp::from_micros(100), &mut memory);
        let settled = settle(&mut work, &settles, &limits).unwrap();
        let mut expected = [Settled::Applied; 6];
        expected[2] = Settled::Stale;
        assert_eq!(settled, expected);
        let count = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(count("SELECT count(*) FROM queue_finished WHERE task_id <> 3"), 5);
        assert_eq!(count("SELECT status FROM queue_task WHERE id = 3"), i64::from(Status::Running.code()));
        assert_eq!(count("SELECT count(*) FROM queue_task WHERE status = 2 AND completed_at = 100"), 5);
        assert_eq!(count("SELECT open FROM queue_claim"), 1);
    }
}
