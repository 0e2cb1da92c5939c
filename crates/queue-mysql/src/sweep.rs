//! Budgets that are spent while a task waits.
//!
//! What waits is ordered by when something is to be done with it, its deadline included, so only what is due must be looked
//! at: lane by lane, a bounded part with each call.

use std::sync::Mutex;

use queue_core::claim::Ended;
use queue_core::reap::Swept;
use queue_core::{Event, FailureReason, TaskId, Timestamp, transition};

use crate::admin::clock;
use crate::connection::Conn;
use crate::error::Failure;
use crate::inner::{Inner, lock};
use crate::lanes::{Lane, Origin, Position, waiting};
use crate::operation::Operation;
use crate::reap::good;
use crate::row::{Move, lock_free, moves};
use crate::sql::{list, value};

/// Rows of one lane that one call looks at.
const WINDOW: usize = 5_000;
/// Lanes that one call looks at.
const LANES_MAX: usize = 16;

/// Where a sweep goes on: in this lane, after this row or from its head.
type Place = (Lane, Option<Position>);

/// Where the sweep goes on; at the beginning when `None`.
#[derive(Debug, Default)]
pub(crate) struct Sweep(Mutex<Option<Place>>);

impl Sweep {
    fn place(&self) -> Option<Place> {
        *lock(&self.0)
    }

    fn go_on(&self, place: Option<Place>) {
        *lock(&self.0) = place;
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
        let place = inner.sweep.place();
        let mut lanes = waiting(conn).await?;
        lanes.retain(|(lane, first)| *first <= now.as_micros() && place.is_none_or(|(at, _)| *lane >= at));
        let mut spent: Vec<(Lane, Vec<Position>)> = Vec::new();
        let mut room = self.limit;
        let mut next = None;
        for (index, (lane, _)) in lanes.iter().enumerate() {
            if index == LANES_MAX || room == 0 {
                next = Some((*lane, None));
                break;
            }
            let after = place.filter(|(at, _)| at == lane).and_then(|(_, after)| after);
            let (found, end) = spent_in(conn, *lane, after, now, room).await?;
            room -= found.len();
            spent.push((*lane, found));
            if end.is_some() {
                next = Some((*lane, end));
                break;
            }
        }
        let ended = expire(inner, conn, &spent, now).await?;
        inner.sweep.go_on(next);
        Ok(Swept { ended, finished: next.is_none() })
    }
}

/// The rows of a lane's next part whose budget is spent, and where the part ends; `None` at the lane's end.
async fn spent_in(
    conn: &mut Conn,
    lane: Lane,
    after: Option<Position>,
    now: Timestamp,
    limit: usize,
) -> Result<(Vec<Position>, Option<Position>), Failure> {
    let now = now.as_micros();
    let part = format!(
        "SELECT run_at, task_id FROM queue_ready FORCE INDEX (PRIMARY) WHERE {}{} AND run_at <= {now}",
        lane.condition(""),
        after.map_or(Origin::Head, Origin::After).condition("")
    );
    let rows = conn.run(format!("{part} ORDER BY run_at, task_id LIMIT 1 OFFSET {}", WINDOW - 1)).await?;
    let end = positions(&rows.into_iter().next().unwrap_or_default().rows)?.pop();
    let until =
        end.map(|(run_at, task)| format!(" AND run_at <= {run_at} AND NOT (run_at = {run_at} AND task_id > {task})"));
    let sql =
        format!("{part}{} AND deadline_at <= {now} ORDER BY run_at, task_id LIMIT {limit}", until.unwrap_or_default());
    let spent = positions(&conn.run(sql).await?.pop().unwrap_or_default().rows)?;
    let end = if spent.len() < limit { end } else { spent.last().copied() };
    Ok((spent, end))
}

fn positions(rows: &[sqlx::mysql::MySqlRow]) -> Result<Vec<Position>, sqlx::Error> {
    rows.iter().map(|row| Ok((value(row, 0)?, value(row, 1)?))).collect()
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
