//! Lanes: what waits, by queue, suspicion and rank. Found by hopping along the primary key of `queue_ready`, one row read
//! for each lane, however many tasks wait in it.

use std::collections::HashMap;

use queue_core::{QueueName, Queues, StoreError, TaskType, Timestamp};
use rusqlite::params;

use crate::work::{Result, Work};

/// The first row of the first lane from a point on. Not `>`: SQLite would seek the point and then walk over every row of it.
pub(crate) const HOP: &str = "SELECT queue_id, suspect, rank, run_at FROM queue_ready \
                              WHERE (queue_id, suspect, rank) >= (?1, ?2, ?3) \
                              ORDER BY queue_id, suspect, rank, run_at LIMIT 1";
const QUEUE: &str = "SELECT name, paused_at IS NOT NULL FROM queue_queue WHERE id = ?1";

/// A lane in which something waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) queue_id: i64,
    pub(crate) suspect: bool,
    pub(crate) rank: i64,
    /// When the first of it is due.
    pub(crate) first: Timestamp,
}

/// The lanes of one queue, in the order in which they are served: suspects, then the higher priority.
#[derive(Clone, Debug)]
pub(crate) struct QueueLanes {
    pub(crate) id: i64,
    pub(crate) queue: QueueName,
    pub(crate) lanes: Vec<Lane>,
}

/// What waits in the queues that are chosen and, unless `paused` are wanted as well, not paused.
pub(crate) fn waiting(work: &mut Work<'_>, queues: &Queues, paused: bool) -> Result<Vec<QueueLanes>> {
    match queues {
        Queues::All => {
            let mut found = Vec::new();
            let mut from = 0;
            while let Some(lane) = hop(work, from, 0, i64::MIN)? {
                from = lane.queue_id + 1;
                found.extend(queue_lanes(work, lane, paused)?);
            }
            Ok(found)
        }
        Queues::Named(names) => {
            let mut ids = Vec::with_capacity(names.len());
            for name in names.iter() {
                ids.extend(work.memory.names.find(work.conn, name)?);
            }
            ids.sort_unstable();
            ids.dedup();
            let mut found = Vec::new();
            for id in ids {
                if let Some(lane) = hop(work, id, 0, i64::MIN)?.filter(|lane| lane.queue_id == id) {
                    found.extend(queue_lanes(work, lane, paused)?);
                }
            }
            Ok(found)
        }
    }
}

/// The ids of the types that are named and known, with their names.
pub(crate) fn type_ids(work: &mut Work<'_>, types: &[TaskType]) -> Result<HashMap<i64, TaskType>> {
    let mut ids = HashMap::with_capacity(types.len());
    for task_type in types {
        if let Some(id) = work.memory.names.find(work.conn, task_type)? {
            ids.insert(id, task_type.clone());
        }
    }
    Ok(ids)
}

/// The lanes of the queue of its first lane.
fn queue_lanes(work: &mut Work<'_>, first: Lane, paused: bool) -> Result<Option<QueueLanes>> {
    let queue = work.first(QUEUE, [first.queue_id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (name, is_paused): (Option<String>, bool) = queue.unwrap_or_default();
    if is_paused && !paused {
        return Ok(None);
    }
    let queue = name.and_then(|name| QueueName::parse(name).ok());
    let queue = queue.ok_or_else(|| StoreError::corrupt(None, format!("queue {} has no name", first.queue_id)).into());
    let Some(queue) = work.pass_over_corrupt(queue)? else { return Ok(None) };
    let mut lanes = vec![first];
    while let Some(lane) = lanes.last() {
        match hop(work, lane.queue_id, i64::from(lane.suspect), lane.rank + 1)? {
            Some(next) if next.queue_id == first.queue_id => lanes.push(next),
            _ => break,
        }
    }
    lanes.sort_by_key(|lane| (!lane.suspect, lane.rank));
    Ok(Some(QueueLanes { id: first.queue_id, queue, lanes }))
}

/// The first lane from this point on.
fn hop(work: &Work<'_>, queue_id: i64, suspect: i64, rank: i64) -> Result<Option<Lane>> {
    work.first(HOP, params![queue_id, suspect, rank], |row| {
        Ok(Lane {
            queue_id: row.get(0)?,
            suspect: row.get(1)?,
            rank: row.get(2)?,
            first: Timestamp::from_micros(row.get(3)?),
        })
    })
}
