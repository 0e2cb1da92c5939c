//! How the queues stand, and which sessions there are. Counts are bounded.

use std::collections::BTreeMap;
use std::time::Duration;

use queue_core::admin::{Count, Pause, QueueStats, Stats};
use queue_core::session::SessionRecord;
use queue_core::{QueueName, Queues, SessionId, Status, StoreError, Timestamp};
use rusqlite::params;

use crate::lanes::waiting;
use crate::work::{Result, Work, clamped};

const QUEUES: &str = "SELECT id, name, paused_at, paused_by, paused_why FROM queue_queue ORDER BY name";
pub(crate) const DUE_COUNT: &str = "SELECT count(*) FROM (SELECT 1 FROM queue_ready \
     WHERE queue_id = ?1 AND suspect = ?2 AND rank = ?3 AND run_at <= ?4 LIMIT ?5)";
pub(crate) const LATER_COUNT: &str = "SELECT count(*) FROM (SELECT 1 FROM queue_ready \
     WHERE queue_id = ?1 AND suspect = ?2 AND rank = ?3 AND run_at > ?4 LIMIT ?5)";
pub(crate) const RUNNING_COUNT: &str = "SELECT t.queue_id, count(*) \
     FROM queue_claim AS c CROSS JOIN json_each(c.members) AS m CROSS JOIN queue_task AS t \
     WHERE t.id = m.value AND t.claim_id = c.id AND t.status = 1 GROUP BY t.queue_id";
pub(crate) const ENDED_SINCE: &str = "SELECT queue_id FROM queue_finished WHERE status = ?1 AND completed_at > ?2 \
                                      ORDER BY completed_at DESC LIMIT ?3";
const ALIVE: &str = "SELECT count(*) FROM queue_session WHERE fenced_at IS NULL AND lease_until > ?1";
const SESSIONS: &str = "SELECT s.id, s.name, s.host, s.version, s.opened_at, s.lease_until, s.fenced_at, \
     (SELECT count(*) FROM queue_claim AS c CROSS JOIN json_each(c.members) AS m CROSS JOIN queue_task AS t \
      WHERE c.session_id = s.id AND t.id = m.value AND t.claim_id = c.id AND t.status = 1) \
     FROM queue_session AS s ORDER BY s.opened_at DESC, s.id DESC LIMIT 1000";

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Ended tasks that one look counts, over all queues.
const ENDED_MAX: usize = 100_000;

pub(crate) fn stats(work: &mut Work<'_>) -> Result<Stats> {
    let waits = waits(work)?;
    let running: BTreeMap<i64, i64> =
        work.all(RUNNING_COUNT, [], |row| Ok((row.get(0)?, row.get(1)?)))?.into_iter().collect();
    let completed = Ended::since(work, Status::Completed, MINUTE)?;
    let failed = Ended::since(work, Status::Failed, DAY)?;
    let mut queues = Vec::new();
    for (id, name, paused) in work.all(QUEUES, [], |row| {
        let paused = match (row.get(2)?, row.get(3)?, row.get(4)?) {
            (Some(at), Some(by), Some(why)) => Some(Pause { by, why, at: Timestamp::from_micros(at) }),
            _ => None,
        };
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, paused))
    })? {
        let name = QueueName::parse(name).map_err(|error| StoreError::corrupt(None, error.to_string()).into());
        let Some(queue) = work.pass_over_corrupt(name)? else { continue };
        let waits = waits.get(&id).copied().unwrap_or_default();
        queues.push(QueueStats {
            queue,
            ready: Count::bounded(waits.ready),
            later: Count::bounded(waits.later),
            running: Count::bounded(running.get(&id).map_or(0, |count| count.unsigned_abs())),
            oldest_ready: waits.oldest.map(|oldest| work.now.since(oldest)),
            completed_last_minute: completed.of(id),
            failed_last_day: failed.of(id),
            paused,
        });
    }
    let sessions = work.first(ALIVE, [work.now.as_micros()], |row| Ok(row.get::<_, i64>(0)?))?.unwrap_or(0);
    Ok(Stats { now: work.now, queues, sessions: sessions.unsigned_abs() })
}

pub(crate) fn sessions(work: &Work<'_>) -> Result<Vec<SessionRecord>> {
    work.all(SESSIONS, [], |row| {
        let id = SessionId::new(row.get::<_, i64>(0)?.cast_unsigned());
        Ok(SessionRecord {
            id: id.ok_or_else(|| StoreError::corrupt(None, "a session has no id"))?,
            name: row.get(1)?,
            host: row.get(2)?,
            version: row.get(3)?,
            opened_at: Timestamp::from_micros(row.get(4)?),
            lease_until: Timestamp::from_micros(row.get(5)?),
            fenced_at: row.get::<_, Option<i64>>(6)?.map(Timestamp::from_micros),
            running: row.get::<_, i64>(7)?.unsigned_abs(),
        })
    })
}

/// What waits in one queue.
#[derive(Clone, Copy, Default)]
struct Waits {
    ready: u64,
    later: u64,
    oldest: Option<Timestamp>,
}

fn waits(work: &mut Work<'_>) -> Result<BTreeMap<i64, Waits>> {
    let mut queues: BTreeMap<i64, Waits> = BTreeMap::new();
    for lane in waiting(work, &Queues::All, true)?.into_iter().flat_map(|queue| queue.lanes) {
        let waits = queues.entry(lane.queue_id).or_default();
        for (sql, count) in [(DUE_COUNT, &mut waits.ready), (LATER_COUNT, &mut waits.later)] {
            let params =
                params![lane.queue_id, lane.suspect, lane.rank, work.now.as_micros(), clamped(Count::BOUND + 1)];
            *count += work.first(sql, params, |row| Ok(row.get::<_, i64>(0)?))?.unwrap_or(0).unsigned_abs();
        }
        if lane.first <= work.now {
            waits.oldest = [waits.oldest, Some(lane.first)].into_iter().flatten().min();
        }
    }
    Ok(queues)
}

/// Ended tasks by queue, as far as they were counted.
struct Ended {
    counts: BTreeMap<i64, u64>,
    cut: bool,
}

impl Ended {
    fn since(work: &Work<'_>, status: Status, window: Duration) -> Result<Self> {
        let since = work.now.before(window).as_micros();
        let mut counts: BTreeMap<i64, u64> = BTreeMap::new();
        let mut seen = 0;
        work.each(ENDED_SINCE, params![status.code(), since, clamped(ENDED_MAX)], |row| {
            *counts.entry(row.get(0)?).or_default() += 1;
            seen += 1;
            Ok(true)
        })?;
        Ok(Self { counts, cut: seen == ENDED_MAX })
    }

    fn of(&self, queue_id: i64) -> Count {
        let mut count = Count::bounded(self.counts.get(&queue_id).copied().unwrap_or(0));
        count.more |= self.cut;
        count
    }
}
