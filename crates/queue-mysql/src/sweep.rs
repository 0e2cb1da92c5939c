//! Budgets that are spent while a task waits.
//!
//! What waits is ordered by when something is to be done with it, its deadline included, so only what is due must be looked
//! at: lane by lane, a bounded part with each call.

use std::sync::Mutex;

use queue_core::claim::Ended;
use queue_core::reap::Swept;
use queue_core::{Event, FailureReason, TaskId, Timestamp, transition};

use crate::admin::clock;
use crate::connection::{Conn, Reply};
use crate::error::Failure;
use crate::inner::{Inner, lock};
use crate::lanes::{Lane, Origin, Position, waiting};
use crate::operation::Operation;
use crate::reap::good;
use crate::row::{Move, lock_free, moves};
use crate::sql::{list, value};

/// Rows that one call looks at, over all its lanes.
const WINDOW: usize = 5_000;
/// Lanes that one call looks at.
const LANES_MAX: usize = 16;

/// The lanes that are still to be looked at, and where to go on in each. They are looked for once and not with each call: that passes
/// over all that was removed at their heads and is not purged yet.
type Pass = Vec<(Lane, Origin)>;

/// What is left of the pass; the next one begins when nothing is.
#[derive(Debug, Default)]
pub(crate) struct Sweep(Mutex<Pass>);

impl Sweep {
    fn pass(&self) -> Pass {
        lock(&self.0).clone()
    }

    fn go_on(&self, pass: Pass) {
        *lock(&self.0) = pass;
    }
}

/// Fails waiting tasks whose budget is spent.
pub(crate) struct Expire {
    pub(crate) limit: usize,
}

impl Operation for Expire {
    type Output = Swept;
    const REPEATABLE: bool = true;

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<Swept, Failure> {
        let now = clock(conn).await?;
        let mut pass = inner.sweep.pass();
        if pass.is_empty() {
            pass = begin(conn, now).await?;
        }
        let (spent, rest) = spent(conn, pass, now, self.limit).await?;
        let ended = expire(inner, conn, &spent, now).await?;
        let finished = rest.is_empty();
        inner.sweep.go_on(rest);
        Ok(Swept { ended, finished })
    }
}

/// A pass over all lanes in which something is due.
async fn begin(conn: &mut Conn, now: Timestamp) -> Result<Pass, Failure> {
    let lanes = waiting(conn).await?.into_iter().filter(|(_, first)| *first <= now.as_micros());
    Ok(lanes.map(|(lane, _)| (lane, Origin::Head)).collect())
}

/// Rows of lanes whose budget is spent.
type Spent = Vec<(Lane, Vec<Position>)>;

/// The rows of the next part of the pass whose budget is spent, `limit` at most, and what is left of the pass.
async fn spent(conn: &mut Conn, mut pass: Pass, now: Timestamp, limit: usize) -> Result<(Spent, Pass), Failure> {
    let later = pass.split_off(pass.len().min(LANES_MAX));
    if pass.is_empty() {
        return Ok((Vec::new(), later));
    }
    let (window, now) = (WINDOW / pass.len(), now.as_micros());
    let parts = pass.iter().map(|(lane, origin)| {
        format!(
            "SELECT run_at, task_id FROM queue_ready FORCE INDEX (PRIMARY) WHERE {}{} AND run_at <= {now}",
            lane.condition(""),
            origin.condition("")
        )
    });
    let parts: Vec<_> = parts.collect();
    let ends = parts.iter().map(|part| format!("{part} ORDER BY run_at, task_id LIMIT 1 OFFSET {}", window - 1));
    let ends = conn.run(ends.collect::<Vec<_>>().join("; ")).await?;
    let ends = ends.iter().map(|end| Ok(positions(end)?.pop())).collect::<Result<Vec<_>, sqlx::Error>>()?;
    let until =
        |(run_at, task): Position| format!(" AND run_at <= {run_at} AND NOT (run_at = {run_at} AND task_id > {task})");
    let asked = parts.iter().zip(&ends).map(|(part, end)| {
        let until = end.map(until).unwrap_or_default();
        format!("{part}{until} AND deadline_at <= {now} ORDER BY run_at, task_id LIMIT {limit}")
    });
    let replies = conn.run(asked.collect::<Vec<_>>().join("; ")).await?;
    // The lanes take turns, so that a long one holds up no other.
    let (mut spent, mut rest, mut room) = (Vec::new(), later, limit);
    for (((lane, origin), end), reply) in pass.into_iter().zip(ends).zip(&replies) {
        let mut rows = positions(reply)?;
        rows.truncate(room);
        room -= rows.len();
        let end = match rows.last() {
            _ if room > 0 => end.map(Origin::After),
            Some(last) => Some(Origin::After(*last)),
            None => Some(origin),
        };
        rest.extend(end.map(|end| (lane, end)));
        spent.push((lane, rows));
    }
    Ok((spent, rest))
}

fn positions(reply: &Reply) -> Result<Vec<Position>, sqlx::Error> {
    reply.rows.iter().map(|row| Ok((value(row, 0)?, value(row, 1)?))).collect()
}

async fn expire(
    inner: &Inner,
    conn: &mut Conn,
    spent: &[(Lane, Vec<Position>)],
    now: Timestamp,
) -> Result<Vec<Ended>, Failure> {
    // What waits first and the tasks then, as a claim does it. What a claim or a user holds is left to the next sweep.
    let locks = spent.iter().filter(|(_, rows)| !rows.is_empty()).map(|(lane, rows)| {
        format!(
            "SELECT task_id, type_id FROM queue_ready FORCE INDEX (PRIMARY) WHERE {} AND (run_at, task_id) IN ({}) \
             ORDER BY run_at, task_id FOR UPDATE SKIP LOCKED",
            lane.condition(""),
            list(rows.iter().map(|(run_at, task)| format!("({run_at},{task})")))
        )
    });
    let locks: Vec<_> = locks.collect();
    if locks.is_empty() {
        return Ok(Vec::new());
    }
    let mut ids = Vec::new();
    for row in conn.begin(&locks.join("; ")).await?.iter().flat_map(|reply| &reply.rows) {
        ids.extend(TaskId::new(value(row, 0)?));
    }
    ids.sort_unstable();
    let mut moved = Vec::new();
    for before in lock_free(conn, &ids).await?.into_iter().filter_map(good) {
        if let Ok(after) = transition(&before.state, &Event::Expire, now) {
            moved.push(Move { before, after });
        }
    }
    if moved.iter().any(|one| !one.before.is_known(inner)) {
        inner.names.refresh(conn).await?;
    }
    moved.retain(|one| inner.names.task_type(one.before.type_id).is_some());
    let ended = moved.iter().filter_map(|one| {
        let task_type = inner.names.task_type(one.before.type_id)?;
        Some(Ended { id: one.before.id, task_type, reason: FailureReason::BudgetExceeded })
    });
    let ended = ended.collect();
    conn.run_all_and_commit(moves(inner.server.flavor, &moved)).await?;
    Ok(ended)
}
