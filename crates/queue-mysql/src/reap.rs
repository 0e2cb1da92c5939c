//! What is left behind: sessions past their lease, tasks whose session is fenced, budgets spent while waiting.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use queue_core::claim::Ended;
use queue_core::reap::{FencedSession, Lost, LostTask, Swept};
use queue_core::{ClaimId, Event, FailureReason, Run, SessionId, StoreError, TaskId, transition};

use crate::connection::{Conn, Reply};
use crate::error::Failure;
use crate::inner::{Inner, missing};
use crate::members::decode;
use crate::operation::Operation;
use crate::row::{COLUMNS, Move, TaskRow, moves};
use crate::session::remove_idle;
use crate::sql::{CLOCK, list, time, value};

/// Rows of what waits that one call to expire looks at.
const WINDOW: usize = 10_000;

/// Fences sessions past their lease.
pub(crate) struct FenceExpired {
    pub(crate) limit: usize,
}

impl Operation for FenceExpired {
    type Output = Vec<FencedSession>;

    async fn attempt(&mut self, _: &Inner, conn: &mut Conn) -> Result<Vec<FencedSession>, Failure> {
        // Without locks first: an idle tick writes nothing and waits for nobody.
        let expired = format!("fenced_at IS NULL AND lease_until < {CLOCK}");
        let look = format!("SELECT id FROM queue_session WHERE {expired} ORDER BY id LIMIT {}", self.limit);
        let rows = conn.run(look).await?.pop().unwrap_or_default().rows;
        let mut ids: Vec<u64> = Vec::new();
        for row in &rows {
            ids.push(value(row, 0)?);
        }
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT id, name FROM queue_session WHERE id IN ({}) AND {expired} ORDER BY id FOR UPDATE SKIP LOCKED",
            list(&ids)
        );
        let rows = conn.begin(&sql).await?.pop().unwrap_or_default().rows;
        let mut fenced = Vec::new();
        for row in &rows {
            let (id, name): (u64, Vec<u8>) = (value(row, 0)?, value(row, 1)?);
            let name = String::from_utf8_lossy(&name).into_owned();
            fenced.extend(SessionId::new(id).map(|id| FencedSession { id, name }));
        }
        if fenced.is_empty() {
            conn.rollback().await?;
            return Ok(fenced);
        }
        let ids = list(fenced.iter().map(|session| session.id));
        conn.run_and_commit(&format!("UPDATE queue_session SET fenced_at = {CLOCK} WHERE id IN ({ids})")).await?;
        Ok(fenced)
    }
}

/// Finds tasks held by fenced sessions, and removes what is left over.
pub(crate) struct FindLost {
    pub(crate) limit: usize,
}

impl Operation for FindLost {
    type Output = Lost;
    const REPEATABLE: bool = true;

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<Lost, Failure> {
        let replies = conn
            .run(format!(
                "SELECT {CLOCK}; SELECT c.id, c.members FROM queue_claim AS c JOIN queue_session AS s \
                 ON s.id = c.session_id WHERE s.fenced_at IS NOT NULL ORDER BY c.id; \
                 SELECT 1 FROM queue_session WHERE fenced_at IS NOT NULL LIMIT 1"
            ))
            .await?;
        let rows = |index: usize| replies.get(index).map_or(&[][..], |reply: &Reply| reply.rows.as_slice());
        let now = time(rows(0).first().ok_or_else(|| missing("the clock's answer"))?, 0)?;
        if rows(2).is_empty() {
            return Ok(Lost { now, tasks: Vec::new() });
        }
        let mut empty = Vec::new();
        let mut held: BTreeMap<TaskId, ClaimId> = BTreeMap::new();
        for row in rows(1) {
            let (claim, members): (u64, Vec<u8>) = (value(row, 0)?, value(row, 1)?);
            let Some(claim) = ClaimId::new(claim) else { continue };
            let current = current_members(conn, claim, &members).await?;
            if current.is_empty() {
                empty.push(claim);
            }
            held.extend(current.into_iter().map(|task| (task, claim)));
            if held.len() >= self.limit {
                break;
            }
        }
        let mut cleaning = Vec::new();
        if !empty.is_empty() {
            cleaning.push(format!("DELETE FROM queue_claim WHERE id IN ({})", list(&empty)));
        }
        cleaning.push(remove_idle("TRUE"));
        conn.run_committing(format!("START TRANSACTION; {}; COMMIT", cleaning.join("; "))).await?;
        let tasks = lost_tasks(inner, conn, &held, self.limit).await?;
        Ok(Lost { now, tasks })
    }
}

/// The members that still run under their claim.
async fn current_members(conn: &mut Conn, claim: ClaimId, members: &[u8]) -> Result<Vec<TaskId>, Failure> {
    let ids = list(decode(members));
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT id FROM queue_task FORCE INDEX (PRIMARY) WHERE id IN ({ids}) AND status = 1 AND claim_id = {claim} \
         ORDER BY id"
    );
    let rows = conn.run(sql).await?.pop().unwrap_or_default().rows;
    let mut current = Vec::with_capacity(rows.len());
    for row in &rows {
        current.extend(TaskId::new(value(row, 0)?));
    }
    Ok(current)
}

/// Those of them whose rows nobody holds: one may be completing in a user's transaction right now.
async fn lost_tasks(
    inner: &Inner,
    conn: &mut Conn,
    held: &BTreeMap<TaskId, ClaimId>,
    limit: usize,
) -> Result<Vec<LostTask>, Failure> {
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let ids = list(held.keys());
    let replies = conn
        .begin(&format!(
            "SELECT task_id, claim_id FROM queue_signal WHERE task_id IN ({ids}); \
             SELECT id FROM queue_task FORCE INDEX (PRIMARY) WHERE id IN ({ids}) AND status = 1 ORDER BY id LIMIT {limit} \
             FOR UPDATE SKIP LOCKED"
        ))
        .await?;
    let mut cancelled: HashSet<(u64, u64)> = HashSet::new();
    for row in replies.first().map_or(&[][..], |reply| reply.rows.as_slice()) {
        cancelled.insert((value(row, 0)?, value(row, 1)?));
    }
    let mut free: Vec<u64> = Vec::new();
    for row in replies.get(1).map_or(&[][..], |reply| reply.rows.as_slice()) {
        free.push(value(row, 0)?);
    }
    let rows = read(conn, &list(&free), "").await?;
    conn.rollback().await?;
    if rows.iter().any(|row| !row.is_known(inner)) {
        inner.names.refresh(conn).await?;
    }
    let mut lost = Vec::new();
    for row in rows {
        let Some(claim) = row.state.claim.filter(|claim| held.get(&row.id) == Some(claim)) else { continue };
        match row.refer(inner) {
            Ok(names) => lost.push(LostTask {
                id: row.id,
                claim,
                task_type: names.task_type,
                run: Run {
                    attempt: row.state.attempt,
                    max_attempts: row.state.max_attempts,
                    backoff: names.backoff,
                    deadline_at: row.state.deadline_at,
                    cancel_requested: cancelled.contains(&(row.id.get(), claim.get())),
                },
            }),
            Err(defect) => {
                tracing::error!(task = defect.task.get(), defect = defect.what, "a row that cannot be is left alone");
            }
        }
    }
    Ok(lost)
}

/// Rows of these tasks, without those that cannot be.
async fn read(conn: &mut Conn, ids: &str, ending: &str) -> Result<Vec<TaskRow>, Failure> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT {COLUMNS} FROM queue_task AS t FORCE INDEX (PRIMARY) LEFT JOIN queue_payload AS p ON p.task_id = t.id \
         WHERE t.id IN ({ids}) ORDER BY t.id{ending}"
    );
    let mut tasks = Vec::new();
    for row in &conn.run(sql).await?.pop().unwrap_or_default().rows {
        match TaskRow::read(row)? {
            Ok(task) => tasks.push(task),
            Err(defect) => {
                tracing::error!(task = defect.task.get(), defect = defect.what, "a row that cannot be is left alone");
            }
        }
    }
    Ok(tasks)
}

/// A place in the table of what waits: queue, suspect, rank, due time, task.
type Place = (u32, u8, i8, i64, u64);

/// Where the sweep goes on.
#[derive(Debug, Default)]
pub(crate) struct Sweep(Mutex<Option<Place>>);

impl Sweep {
    fn place(&self) -> Option<Place> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn go_on(&self, place: Option<Place>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = place;
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
        // In pieces that the range optimizer understands: it does not take a comparison of rows for a range.
        let after = inner.sweep.place().map(|(queue, suspect, rank, run_at, task)| {
            format!(
                "WHERE queue_id > {queue} OR (queue_id = {queue} AND suspect > {suspect}) OR (queue_id = {queue} AND \
                 suspect = {suspect} AND priority_rank > {rank}) OR (queue_id = {queue} AND suspect = {suspect} AND \
                 priority_rank = {rank} AND run_at > {run_at}) OR (queue_id = {queue} AND suspect = {suspect} AND \
                 priority_rank = {rank} AND run_at = {run_at} AND task_id > {task})"
            )
        });
        let window = format!(
            "SELECT queue_id, suspect, priority_rank, run_at, task_id, deadline_at FROM queue_ready FORCE INDEX (PRIMARY) \
             {} ORDER BY queue_id, suspect, priority_rank, run_at, task_id LIMIT {WINDOW}",
            after.unwrap_or_default()
        );
        let order = "queue_id, suspect, priority_rank, run_at, task_id";
        let replies = conn
            .run(format!(
                "SELECT COUNT(*) FROM ({window}) AS w; \
                 SELECT {order} FROM ({window}) AS w WHERE deadline_at <= {CLOCK} ORDER BY {order} LIMIT {}; \
                 SELECT {order} FROM ({window}) AS w ORDER BY queue_id DESC, suspect DESC, priority_rank DESC, run_at DESC, \
                 task_id DESC LIMIT 1",
                self.limit
            ))
            .await?;
        let rows = |index: usize| replies.get(index).map_or(&[][..], |reply: &Reply| reply.rows.as_slice());
        let looked: i64 = rows(0).first().map_or(Ok(0), |row| value(row, 0))?;
        let places = |rows: &[sqlx::mysql::MySqlRow]| -> Result<Vec<Place>, sqlx::Error> {
            let place = |row| Ok((value(row, 0)?, value(row, 1)?, value(row, 2)?, value(row, 3)?, value(row, 4)?));
            rows.iter().map(place).collect()
        };
        let (spent, last) = (places(rows(1))?, places(rows(2))?.pop());
        let is_full = spent.len() >= self.limit;
        let is_end = usize::try_from(looked).is_ok_and(|looked| looked < WINDOW);
        let next = if is_full { spent.last().copied() } else { last.filter(|_| !is_end) };
        let ended = expire(inner, conn, &spent).await?;
        inner.sweep.go_on(next);
        Ok(Swept { ended, finished: next.is_none() })
    }
}

async fn expire(inner: &Inner, conn: &mut Conn, spent: &[Place]) -> Result<Vec<Ended>, Failure> {
    if spent.is_empty() {
        return Ok(Vec::new());
    }
    let mut ids: Vec<_> = spent.iter().map(|place| place.4).collect();
    ids.sort_unstable();
    let now = conn.begin(&format!("SELECT {CLOCK}")).await?.pop().unwrap_or_default().rows;
    let now = time(now.first().ok_or_else(|| missing("the clock's answer"))?, 0)?;
    // Those that a claim or a user's transaction holds are left to the next sweep.
    let rows = read(conn, &list(&ids), " FOR UPDATE SKIP LOCKED").await?;
    let mut moved = Vec::new();
    for row in rows {
        if let Ok(after) = transition(&row.state, &Event::Expire, now) {
            moved.push(Move { before: row, after });
        }
    }
    conn.run_and_commit(&moves(&moved).join("; ")).await?;
    if moved.iter().any(|one| !one.before.is_known(inner)) {
        inner.names.refresh(conn).await?;
    }
    let mut types: HashMap<u32, _> = HashMap::new();
    let mut ended = Vec::new();
    for one in &moved {
        let type_id = one.before.type_id;
        let name = types.entry(type_id).or_insert_with(|| inner.names.task_type(type_id)).clone();
        let task_type = name.ok_or_else(|| StoreError::corrupt(Some(one.before.id), "its type is unknown"))?;
        ended.push(Ended { id: one.before.id, task_type, reason: FailureReason::BudgetExceeded });
    }
    Ok(ended)
}
