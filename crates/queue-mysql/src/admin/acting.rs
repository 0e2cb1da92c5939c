//! What operators do to tasks, queues and sessions.

use std::collections::HashMap;

use queue_core::admin::{Acted, Action, Effect, Pause};
use queue_core::text::cut;
use queue_core::{ClaimId, QueueName, SessionId, Status, StoreError, TaskId, Timestamp};
use sqlx::mysql::MySqlArguments;

use super::stats::clock;
use crate::connection::Conn;
use crate::error::Failure;
use crate::inner::Inner;
use crate::operation::Operation;
use crate::row::{Move, ReadyKey, TaskRow, delete_finished, delete_ready, lock_free, moves, read_sql};
use crate::server::{Deletion, Flavor};
use crate::sql::{add, list};

const NAME_BYTES_MAX: usize = 64;
const WHY_BYTES_MAX: usize = 200;

/// Acts on a batch of tasks.
pub(super) struct Act {
    pub(super) ids: Vec<TaskId>,
    pub(super) action: Action,
    pub(super) actor: String,
    /// The entry of the audit to add to; the first batch makes it.
    pub(super) audit: Option<u64>,
}

/// What a batch comes to before it is written.
#[derive(Default)]
struct Plan {
    acted: HashMap<TaskId, Acted>,
    moves: Vec<Move>,
    deletes: Vec<TaskRow>,
    signals: Vec<(TaskId, ClaimId)>,
}

impl Operation for Act {
    type Output = (Vec<(TaskId, Acted)>, u64);

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<Self::Output, Failure> {
        let now = clock(conn).await?;
        conn.begin("DO 0").await?;
        let mut plan = Plan::default();
        // Without locks first: a running task is never waited for, as a user's transaction may hold its row for long.
        let (running, resting) = read(conn, &self.ids).await?;
        for row in running {
            plan.consider(row, self.action, now);
        }
        let resting: Vec<_> = resting.into_iter().map(|row| row.id).collect();
        for row in lock_free(conn, &resting).await? {
            plan.consider(row.map_err(StoreError::from)?, self.action, now);
        }
        // Those that were not free have been claimed meanwhile, or are being so right now.
        let missed: Vec<_> = resting.into_iter().filter(|id| !plan.acted.contains_key(id)).collect();
        let (running, resting) = read(conn, &missed).await?;
        if !resting.is_empty() {
            return Err(Failure::Again("row_locked"));
        }
        for row in running {
            plan.consider(row, self.action, now);
        }
        conn.run_all(plan.statements(inner.server.flavor, now)).await?;
        let answers: Vec<_> =
            self.ids.iter().map(|id| (*id, plan.acted.get(id).copied().unwrap_or(Acted::NotFound))).collect();
        let changed = answers.iter().filter(|(_, acted)| acted.is_change()).count();
        let audit = match self.audit {
            Some(entry) => {
                conn.run(format!("UPDATE queue_audit SET changed = changed + {changed} WHERE id = {entry}")).await?;
                entry
            }
            None => note(conn, now, &self.actor, self.action.as_str(), None, changed).await?,
        };
        conn.run_and_commit("").await?;
        Ok((answers, audit))
    }
}

impl Plan {
    fn consider(&mut self, row: TaskRow, action: Action, now: Timestamp) {
        let id = row.id;
        let acted = match action.on(&row.state, now) {
            Err(error) => Acted::Refused(error),
            Ok(effect) => {
                let acted = effect.acted();
                match effect {
                    Effect::Move(after) => self.moves.push(Move { before: row, after }),
                    Effect::Signal(after) => self.signals.extend(after.claim.map(|claim| (id, claim))),
                    Effect::Delete => self.deletes.push(row),
                }
                acted
            }
        };
        self.acted.insert(id, acted);
    }

    fn statements(&self, flavor: Flavor, now: Timestamp) -> Vec<String> {
        let mut sql = moves(flavor, &self.moves);
        for (task, claim) in &self.signals {
            sql.push(format!(
                "INSERT INTO queue_signal (session_id, task_id, claim_id, requested_at) SELECT c.session_id, {task}, c.id, \
                 {} FROM queue_claim AS c WHERE c.id = {claim} ON DUPLICATE KEY UPDATE claim_id = VALUES(claim_id)",
                now.as_micros()
            ));
        }
        if !self.deletes.is_empty() {
            sql.extend(deletes(flavor, &self.deletes));
        }
        sql
    }
}

/// Removes every trace of these tasks.
fn deletes(flavor: Flavor, rows: &[TaskRow]) -> Vec<String> {
    let ids = list(rows.iter().map(|row| row.id));
    let waiting = rows.iter().filter(|row| row.state.status == Status::Queued);
    let mut sql = delete_ready(flavor, waiting.map(|row| ReadyKey::of(row, &row.state)));
    let ended = list(rows.iter().filter_map(|row| {
        let at = row.state.completed_at?;
        Some(format!("({},{},{})", row.state.status.code(), at.as_micros(), row.id))
    }));
    if !ended.is_empty() {
        sql.push(delete_finished(flavor, &ended));
    }
    sql.extend(traces(flavor, &ids));
    let keys = format!("({})", ids.replace(',', "),("));
    let (table, index, columns) = ("queue_idempotency", "queue_idempotency_task", &["task_id"]);
    sql.push(Deletion { table, index, fixed: "", columns, rows: &keys }.sql(flavor));
    sql
}

/// Removes these tasks' rows and what hangs on them, but for their keys.
fn traces(flavor: Flavor, ids: &str) -> Vec<String> {
    let tables =
        [("queue_task", "id"), ("queue_payload", "task_id"), ("queue_attempt", "task_id"), ("queue_result", "task_id")];
    tables.into_iter().map(|(table, column)| flavor.delete_by_id(table, column, ids)).collect()
}

/// The rows of these tasks, as far as they are there: the running ones and the others.
async fn read(conn: &mut Conn, ids: &[TaskId]) -> Result<(Vec<TaskRow>, Vec<TaskRow>), Failure> {
    if ids.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let rows = conn.run(read_sql(&list(ids))).await?.pop().unwrap_or_default().rows;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        found.push(TaskRow::read(row)?.map_err(StoreError::from)?);
    }
    Ok(found.into_iter().partition(|row| row.state.status == Status::Running))
}

/// Writes down who did what, and says under which number.
async fn note(
    conn: &mut Conn,
    now: Timestamp,
    actor: &str,
    action: &str,
    subject: Option<&str>,
    changed: usize,
) -> Result<u64, Failure> {
    let mut arguments = MySqlArguments::default();
    add(&mut arguments, cut(actor, NAME_BYTES_MAX).to_owned())?;
    add(&mut arguments, action.to_owned())?;
    add(&mut arguments, subject.map(str::to_owned))?;
    let sql = format!(
        "INSERT INTO queue_audit (at, actor, action, subject, changed) VALUES ({}, ?, ?, ?, {changed})",
        now.as_micros()
    );
    Ok(conn.bound(sql, arguments).await?.last_insert_id)
}

/// Pauses a queue, or resumes it.
pub(super) struct SetPaused {
    pub(super) queue: QueueName,
    pub(super) pause: Option<Pause>,
    pub(super) actor: String,
}

impl Operation for SetPaused {
    type Output = ();
    const REPEATABLE: bool = true;

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<(), Failure> {
        let queue = inner.names.intern_queue(conn, &self.queue).await?;
        let now = clock(conn).await?;
        conn.begin("DO 0").await?;
        let mut arguments = MySqlArguments::default();
        add(&mut arguments, self.pause.as_ref().map(|_| now.as_micros()))?;
        add(&mut arguments, self.pause.as_ref().map(|pause| cut(&pause.by, NAME_BYTES_MAX).to_owned()))?;
        add(&mut arguments, self.pause.as_ref().map(|pause| cut(&pause.why, WHY_BYTES_MAX).to_owned()))?;
        let sql = format!("UPDATE queue_queue SET paused_at = ?, paused_by = ?, paused_why = ? WHERE id = {queue}");
        conn.bound(sql, arguments).await?;
        let action = if self.pause.is_some() { "pause" } else { "resume" };
        note(conn, now, &self.actor, action, Some(self.queue.as_str()), 1).await?;
        conn.run_and_commit("").await?;
        Ok(())
    }
}

/// Tells a session to drain.
pub(super) struct RequestDrain {
    pub(super) session: SessionId,
    pub(super) actor: String,
}

impl Operation for RequestDrain {
    type Output = bool;
    const REPEATABLE: bool = true;

    async fn attempt(&mut self, _: &Inner, conn: &mut Conn) -> Result<bool, Failure> {
        let now = clock(conn).await?;
        let replies = conn.begin(&format!("UPDATE queue_session SET drain = 1 WHERE id = {}", self.session)).await?;
        // The driver asks for rows matched, so one that drains already counts as well.
        if replies.first().is_none_or(|reply| reply.affected == 0) {
            conn.rollback().await?;
            return Ok(false);
        }
        note(conn, now, &self.actor, "drain", Some(&self.session.to_string()), 1).await?;
        conn.run_and_commit("").await?;
        Ok(true)
    }
}
