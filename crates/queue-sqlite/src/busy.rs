//! Whether a scope still has work.

use queue_core::{QueueName, Scope, Status};
use rusqlite::params;

use crate::claiming::payload;
use crate::lanes::{Lane, type_ids, waiting};
use crate::task::TaskRow;
use crate::work::{Result, Work, task_id};

/// The types and queues of what runs.
pub(crate) const RUNNING: &str = "SELECT DISTINCT t.type_id, t.queue_id \
     FROM queue_claim AS c CROSS JOIN json_each(c.members) AS m CROSS JOIN queue_task AS t \
     WHERE t.id = m.value AND t.claim_id = c.id AND t.status = 1";
/// The types of what is due in a lane, or waits there to be run again.
pub(crate) const WAITING: &str = "SELECT DISTINCT type_id FROM queue_ready \
     WHERE queue_id = ?1 AND suspect = ?2 AND rank = ?3 AND (run_at <= ?4 OR again = 1)";

/// What of a type is due in a lane, or waits there to be run again.
pub(crate) const OF_TYPE: &str = "SELECT task_id FROM queue_ready \
     WHERE queue_id = ?1 AND suspect = ?2 AND rank = ?3 AND (run_at <= ?4 OR again = 1) AND type_id = ?5 LIMIT ?6";
/// Tasks of a type that are looked at for one that is sound, at most.
const SOUND_LOOKS_MAX: usize = 100;

/// Whether anything of this scope runs in any process, is due, or waits to be run again.
pub(crate) fn is_busy(work: &mut Work<'_>, scope: &Scope) -> Result<bool> {
    let types = type_ids(work, &scope.types)?;
    let reaches = |queue: &QueueName, type_id: &i64| {
        scope.queues.contains(queue) && (types.contains_key(type_id) || scope.fail_unregistered.contains(queue))
    };
    for (type_id, queue_id) in work.all(RUNNING, [], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))? {
        let queue: Option<QueueName> = work.memory.names.name(work.conn, queue_id)?;
        if queue.is_some_and(|queue| reaches(&queue, &type_id)) {
            return Ok(true);
        }
    }
    for lanes in waiting(work, &scope.queues, false)? {
        for lane in &lanes.lanes {
            let now = work.now.as_micros();
            let found = work
                .all(WAITING, params![lane.queue_id, lane.suspect, lane.rank, now], |row| Ok(row.get::<_, i64>(0)?))?;
            for type_id in found.into_iter().filter(|type_id| reaches(&lanes.queue, type_id)) {
                if has_sound(work, lane, type_id)? {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

/// Whether one of these could be claimed: a row that cannot be is no work, and would keep a pool from ending for ever.
fn has_sound(work: &mut Work<'_>, lane: &Lane, type_id: i64) -> Result<bool> {
    let (now, most) = (work.now.as_micros(), SOUND_LOOKS_MAX as i64);
    let key = params![lane.queue_id, lane.suspect, lane.rank, now, type_id, most];
    let tasks = work.all(OF_TYPE, key, |row| Ok(row.get::<_, i64>(0)?))?;
    for &task in &tasks {
        let sound = is_sound(work, task);
        if work.pass_over_corrupt(sound)?.unwrap_or(false) {
            return Ok(true);
        }
    }
    Ok(tasks.len() == SOUND_LOOKS_MAX)
}

fn is_sound(work: &mut Work<'_>, task: i64) -> Result<bool> {
    let id = task_id(task)?;
    let Some(row) = TaskRow::load(work, id)? else { return Ok(false) };
    row.task_type(work)?;
    row.backoff(work)?;
    payload(work, id)?;
    Ok(row.state.status == Status::Queued)
}
