//! Whether a scope still has work.

use queue_core::{QueueName, Scope};
use rusqlite::params;

use crate::lanes::{type_ids, waiting};
use crate::work::{Result, Work};

/// The types and queues of what runs.
pub(crate) const RUNNING: &str = "SELECT DISTINCT t.type_id, t.queue_id \
     FROM queue_claim AS c CROSS JOIN json_each(c.members) AS m CROSS JOIN queue_task AS t \
     WHERE t.id = m.value AND t.claim_id = c.id AND t.status = 1";
/// The types of what is due in a lane, or waits there to be run again.
pub(crate) const WAITING: &str = "SELECT DISTINCT type_id FROM queue_ready \
     WHERE queue_id = ?1 AND suspect = ?2 AND rank = ?3 AND (run_at <= ?4 OR again = 1)";

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
            if found.iter().any(|type_id| reaches(&lanes.queue, type_id)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
