//! What operators do.

use std::time::Duration;

use queue_core::admin::{Acted, Action, Effect, Pause};
use queue_core::spec::KEY_KEPT;
use queue_core::text::cut;
use queue_core::{QueueName, SessionId, Status, TaskId};
use rusqlite::params;

use crate::task::TaskRow;
use crate::work::{Id as _, Result, Work, clamped};

const AUDIT: &str = "INSERT INTO queue_audit (at, actor, action, target, changed) VALUES (?1, ?2, ?3, ?4, ?5)";
const AUDIT_MORE: &str = "UPDATE queue_audit SET changed = changed + ?2 WHERE id = ?1";
const PAUSE: &str = "UPDATE queue_queue SET paused_at = ?2, paused_by = ?3, paused_why = ?4 WHERE id = ?1";
const DRAIN: &str = "UPDATE queue_session SET drain = 1 WHERE id = ?1";
/// Every place but the lists in which a task leaves a trace.
const TRACES: [&str; 4] = [
    "DELETE FROM queue_payload WHERE task_id = ?1",
    "DELETE FROM queue_attempt WHERE task_id = ?1",
    "DELETE FROM queue_result WHERE task_id = ?1",
    "DELETE FROM queue_signal WHERE task_id = ?1",
];
const DROP_TASK: &str = "DELETE FROM queue_task WHERE id = ?1";
const DROP_KEYS: &str = "DELETE FROM queue_idempotency WHERE task_id = ?1";

/// Ended tasks that ended before a point, of one status, the oldest first.
pub(crate) const OLD: &str = "SELECT completed_at, task_id FROM queue_finished WHERE status = ?1 AND completed_at < ?2 \
                              ORDER BY completed_at, task_id LIMIT ?3";
const DROP_FINISHED: &str = "DELETE FROM queue_finished WHERE status = ?1 AND completed_at = ?2 AND task_id = ?3";
const DROP_ENDED: &str = "DELETE FROM queue_task WHERE id = ?1 AND status = ?2";
const DROP_OLD_KEYS: &str = "DELETE FROM queue_idempotency WHERE task_id = ?1 AND created_at <= ?2";
const ORPHAN_KEYS: &str = "UPDATE queue_idempotency SET orphan = 1 WHERE task_id = ?1";
pub(crate) const OLD_ORPHANS: &str =
    "SELECT type_id, key FROM queue_idempotency WHERE orphan = 1 AND created_at <= ?1 LIMIT ?2";
const DROP_KEY: &str = "DELETE FROM queue_idempotency WHERE type_id = ?1 AND key = ?2";

const ACTOR_BYTES_MAX: usize = 64;

/// Where an action is written down: the first batch makes the entry, later ones add to it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) action: Action,
    pub(crate) actor: String,
    /// The entry's id, once there is one.
    pub(crate) id: Option<i64>,
}

/// Acts on a batch and says under which id it was written down.
pub(crate) fn act(work: &Work<'_>, ids: &[TaskId], entry: &Entry) -> Result<(Vec<(TaskId, Acted)>, i64)> {
    let mut acted = Vec::with_capacity(ids.len());
    for &id in ids {
        acted.push((id, act_on(work, id, entry.action)?));
    }
    let changed = acted.iter().filter(|(_, acted)| acted.is_change()).count();
    let audit = match entry.id {
        None => note(work, &entry.actor, entry.action.as_str(), "tasks", changed)?,
        Some(audit) => {
            work.execute(AUDIT_MORE, [audit, clamped(changed)])?;
            audit
        }
    };
    Ok((acted, audit))
}

fn act_on(work: &Work<'_>, id: TaskId, action: Action) -> Result<Acted> {
    let Some(row) = TaskRow::load(work, id)? else { return Ok(Acted::NotFound) };
    let effect = match action.on(&row.state, work.now) {
        Ok(effect) => effect,
        Err(error) => return Ok(Acted::Refused(error)),
    };
    match &effect {
        Effect::Move(to) | Effect::Signal(to) => row.advance(work, to)?,
        Effect::Delete => {
            row.leave(work, &row.state)?;
            work.execute(DROP_TASK, [id.number()])?;
            work.execute(DROP_KEYS, [id.number()])?;
            drop_traces(work, id)?;
        }
    }
    Ok(effect.acted())
}

pub(crate) fn set_paused(work: &mut Work<'_>, queue: &QueueName, pause: Option<&Pause>, actor: &str) -> Result<()> {
    let id = work.memory.names.intern(work.conn, queue)?;
    let by = pause.map(|pause| cut(&pause.by, 64));
    let why = pause.map(|pause| cut(&pause.why, 200));
    work.execute(PAUSE, params![id, pause.map(|_| work.now.as_micros()), by, why])?;
    note(work, actor, if pause.is_some() { "pause" } else { "resume" }, queue.as_str(), 1)?;
    Ok(())
}

pub(crate) fn request_drain(work: &Work<'_>, session: SessionId, actor: &str) -> Result<bool> {
    if work.execute(DRAIN, [session.number()])? == 0 {
        return Ok(false);
    }
    note(work, actor, "drain", &session.to_string(), 1)?;
    Ok(true)
}

/// What a call to prune wants, in the terms of each of its batches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pruning {
    pub(crate) status: Option<Status>,
    pub(crate) older_than: Duration,
}

impl Pruning {
    /// The keys of what goes, the oldest first.
    fn find(self, work: &Work<'_>, limit: usize) -> Result<Vec<(i64, Status, i64)>> {
        let before = work.now.before(self.older_than).as_micros();
        let mut found = Vec::new();
        for status in [Status::Completed, Status::Failed] {
            if self.status.is_none_or(|wanted| wanted == status) {
                let old = work.all(OLD, params![status.code(), before, clamped(limit)], |row| {
                    Ok((row.get(0)?, status, row.get(1)?))
                })?;
                found.extend(old);
            }
        }
        found.sort_unstable();
        found.truncate(limit);
        Ok(found)
    }

    /// Whether there is anything to do.
    pub(crate) fn has_work(self, work: &Work<'_>) -> Result<bool> {
        let keys_before = work.now.before(KEY_KEPT).as_micros();
        Ok(!self.find(work, 1)?.is_empty() || work.exists(OLD_ORPHANS, [keys_before, 1])?)
    }

    /// Removes up to `limit` ended tasks, and keys that nobody needs any more.
    pub(crate) fn batch(self, work: &Work<'_>, limit: usize) -> Result<usize> {
        let keys_before = work.now.before(KEY_KEPT).as_micros();
        let old = self.find(work, limit)?;
        for &(completed_at, status, id) in &old {
            work.execute(DROP_FINISHED, params![status.code(), completed_at, id])?;
            if work.execute(DROP_ENDED, params![id, status.code()])? == 0 {
                tracing::error!(task = id, "a corrupt row is removed: it says that the task ended, and it did not");
                continue;
            }
            work.execute(DROP_OLD_KEYS, [id, keys_before])?;
            work.execute(ORPHAN_KEYS, [id])?;
            drop_traces(work, crate::work::task_id(id)?)?;
        }
        for (type_id, key) in work.all(OLD_ORPHANS, [keys_before, clamped(limit)], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })? {
            work.execute(DROP_KEY, params![type_id, key])?;
        }
        Ok(old.len())
    }
}

fn drop_traces(work: &Work<'_>, id: TaskId) -> Result<()> {
    for sql in TRACES {
        work.execute(sql, [id.number()])?;
    }
    Ok(())
}

fn note(work: &Work<'_>, actor: &str, action: &str, target: &str, changed: usize) -> Result<i64> {
    let actor = cut(actor, ACTOR_BYTES_MAX);
    work.execute(AUDIT, params![work.now.as_micros(), actor, action, target, clamped(changed)])?;
    Ok(work.conn.last_insert_rowid())
}
