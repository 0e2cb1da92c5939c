//! What is left behind: sessions past their lease, and tasks whose session is fenced.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;

use queue_core::reap::{FencedSession, Lost, LostTask};
use queue_core::{ClaimId, Run, SessionId, StoreError, TaskId};

use crate::connection::{Conn, rows_of};
use crate::error::{Failure, Told};
use crate::inner::{Inner, missing};
use crate::members::decode;
use crate::operation::Operation;
use crate::row::{Defect, TaskRow, read_sql};
use crate::session::remove_idle;
use crate::sql::{CLOCK, list, time, value};

/// Fences sessions past their lease.
pub(crate) struct FenceExpired {
    pub(crate) limit: usize,
}

impl Operation for FenceExpired {
    type Output = Vec<FencedSession>;

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<Vec<FencedSession>, Failure> {
        // The caller trusts the clock that it read; after a move, leases must first have had the time to be renewed.
        if inner.judged.load(Ordering::Relaxed) != conn.seat().server {
            let told = "another server answers now; leases are judged once its clock was read";
            return Err(StoreError::unavailable(Told(told.to_owned())).into());
        }
        // Without locks first: an idle tick writes nothing and waits for nobody.
        let expired = format!("fenced_at IS NULL AND lease_until <= {CLOCK}");
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
        let rows = |index: usize| rows_of(&replies, index);
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
            cleaning.push(inner.server.flavor.delete_by_id("queue_claim", "id", &list(&empty)));
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
             SELECT id FROM queue_task FORCE INDEX (PRIMARY) WHERE id IN ({ids}) AND status = 1 ORDER BY id \
             FOR UPDATE SKIP LOCKED"
        ))
        .await?;
    let mut cancelled: HashSet<(u64, u64)> = HashSet::new();
    for row in rows_of(&replies, 0) {
        cancelled.insert((value(row, 0)?, value(row, 1)?));
    }
    let mut free: Vec<u64> = Vec::new();
    for row in rows_of(&replies, 1) {
        free.push(value(row, 0)?);
    }
    // Not by the statement: not every server skips before it limits.
    free.truncate(limit);
    let rows = read(conn, &list(&free)).await?;
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
async fn read(conn: &mut Conn, ids: &str) -> Result<Vec<TaskRow>, Failure> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = conn.run(read_sql(ids)).await?.pop().unwrap_or_default().rows;
    let mut tasks = Vec::with_capacity(rows.len());
    for row in &rows {
        tasks.extend(good(TaskRow::read(row)?));
    }
    Ok(tasks)
}

/// A row, unless it cannot be: that is told in the log.
pub(crate) fn good(row: Result<TaskRow, Defect>) -> Option<TaskRow> {
    row.inspect_err(|defect| {
        tracing::error!(task = defect.task.get(), defect = defect.what, "a row that cannot be is left alone");
    })
    .ok()
}
