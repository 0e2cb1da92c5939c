//! How the queues stand, and which sessions there are. Counts are bounded.

use std::collections::BTreeMap;
use std::time::Duration;

use queue_core::admin::{Count, Pause, QueueStats, Stats};
use queue_core::session::SessionRecord;
use queue_core::{QueueName, SessionId, Status, StoreError, TaskId, Timestamp};

use crate::connection::{Conn, rows_of};
use crate::error::Failure;
use crate::inner::{Inner, missing};
use crate::lanes::waiting;
use crate::members::{claimed_ids, decode};
use crate::operation::Operation;
use crate::sql::{CLOCK, list, maybe_time, text, time, value};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Ended tasks that one look counts, over all queues.
const ENDED_MAX: u64 = 100_000;
const CHUNK: usize = 1_000;

/// Counts what the queues hold.
pub(super) struct TakeStats;

impl Operation for TakeStats {
    type Output = Stats;
    const REPEATABLE: bool = true;

    async fn attempt(&mut self, _: &Inner, conn: &mut Conn) -> Result<Stats, Failure> {
        let now = clock(conn).await?;
        let waits = waits(conn, now).await?;
        let running = running(conn).await?;
        let (completed, failed) = (
            Ended::since(conn, Status::Completed, now, MINUTE).await?,
            Ended::since(conn, Status::Failed, now, DAY).await?,
        );
        let replies = conn
            .run(format!(
                "SELECT id, name, paused_at, paused_by, paused_why FROM queue_queue ORDER BY name; \
                 SELECT COUNT(*) FROM queue_session WHERE fenced_at IS NULL AND lease_until > {}",
                now.as_micros()
            ))
            .await?;
        let mut queues = Vec::new();
        for row in rows_of(&replies, 0) {
            let id: u32 = value(row, 0)?;
            let Ok(queue) = QueueName::parse(text(row, 1)?.unwrap_or_default()) else {
                tracing::error!(queue = id, "a queue whose name cannot be is left out");
                continue;
            };
            let paused = maybe_time(row, 2)?.map(|at| -> Result<Pause, sqlx::Error> {
                Ok(Pause { at, by: text(row, 3)?.unwrap_or_default(), why: text(row, 4)?.unwrap_or_default() })
            });
            let waits = waits.get(&id).copied().unwrap_or_default();
            queues.push(QueueStats {
                queue,
                ready: Count::bounded(waits.ready),
                later: Count::bounded(waits.later),
                running: Count::bounded(running.get(&id).copied().unwrap_or(0)),
                oldest_ready: waits.oldest.map(|oldest| now.since(oldest)),
                completed_last_minute: completed.of(id),
                failed_last_day: failed.of(id),
                paused: paused.transpose()?,
            });
        }
        let sessions = match rows_of(&replies, 1).first() {
            Some(row) => count(row, 0)?,
            None => 0,
        };
        Ok(Stats { now, queues, sessions })
    }
}

/// The server's clock.
pub(crate) async fn clock(conn: &mut Conn) -> Result<Timestamp, Failure> {
    let replies = conn.run(format!("SELECT {CLOCK}")).await?;
    match rows_of(&replies, 0).first() {
        Some(row) => Ok(time(row, 0)?),
        None => Err(missing("the clock's answer").into()),
    }
}

fn count(row: &sqlx::mysql::MySqlRow, index: usize) -> Result<u64, sqlx::Error> {
    Ok(value::<i64>(row, index)?.unsigned_abs())
}

/// What waits in one queue.
#[derive(Clone, Copy, Default)]
struct Waits {
    ready: u64,
    later: u64,
    oldest: Option<Timestamp>,
}

async fn waits(conn: &mut Conn, now: Timestamp) -> Result<BTreeMap<u32, Waits>, Failure> {
    let mut queues: BTreeMap<u32, Waits> = BTreeMap::new();
    for (lane, first) in waiting(conn).await? {
        let counted = |comparison: &str| {
            format!(
                "SELECT COUNT(*) FROM (SELECT 1 FROM queue_ready AS r FORCE INDEX (PRIMARY) WHERE r.queue_id = {} AND \
                 r.suspect = {} AND r.priority_rank = {} AND r.run_at {comparison} {} AND r.task_id > 0 LIMIT {}) AS bounded",
                lane.queue_id,
                u8::from(lane.suspect),
                lane.rank,
                now.as_micros(),
                Count::BOUND + 1
            )
        };
        let replies = conn.run(format!("{}; {}", counted("<="), counted(">"))).await?;
        let waits = queues.entry(lane.queue_id).or_default();
        for (index, total) in [(0, &mut waits.ready), (1, &mut waits.later)] {
            if let Some(row) = rows_of(&replies, index).first() {
                *total += count(row, 0)?;
            }
        }
        let first = Timestamp::from_micros(first);
        if first <= now {
            waits.oldest = [waits.oldest, Some(first)].into_iter().flatten().min();
        }
    }
    Ok(queues)
}

/// Running tasks by queue.
async fn running(conn: &mut Conn) -> Result<BTreeMap<u32, u64>, Failure> {
    let mut queues: BTreeMap<u32, u64> = BTreeMap::new();
    for chunk in claimed_ids(conn).await?.chunks(CHUNK) {
        let sql = format!(
            "SELECT queue_id, COUNT(*) FROM queue_task FORCE INDEX (PRIMARY) WHERE id IN ({}) AND status = 1 \
             GROUP BY queue_id",
            list(chunk)
        );
        for row in rows_of(&conn.run(sql).await?, 0) {
            *queues.entry(value(row, 0)?).or_default() += count(row, 1)?;
        }
    }
    Ok(queues)
}

/// Ended tasks by queue, as far as they were counted.
struct Ended {
    counts: BTreeMap<u32, u64>,
    cut: bool,
}

impl Ended {
    async fn since(conn: &mut Conn, status: Status, now: Timestamp, window: Duration) -> Result<Self, Failure> {
        let sql = format!(
            "SELECT queue_id, COUNT(*) FROM (SELECT queue_id FROM queue_finished FORCE INDEX (PRIMARY) \
             WHERE status = {} AND completed_at > {} ORDER BY completed_at DESC LIMIT {ENDED_MAX}) AS bounded \
             GROUP BY queue_id",
            status.code(),
            now.before(window).as_micros()
        );
        let mut counts = BTreeMap::new();
        for row in rows_of(&conn.run(sql).await?, 0) {
            counts.insert(value(row, 0)?, count(row, 1)?);
        }
        let cut = counts.values().sum::<u64>() >= ENDED_MAX;
        Ok(Self { counts, cut })
    }

    fn of(&self, queue: u32) -> Count {
        let mut count = Count::bounded(self.counts.get(&queue).copied().unwrap_or(0));
        count.more |= self.cut;
        count
    }
}

/// Lists the sessions.
pub(super) struct ListSessions;

impl Operation for ListSessions {
    type Output = Vec<SessionRecord>;
    const REPEATABLE: bool = true;

    async fn attempt(&mut self, _: &Inner, conn: &mut Conn) -> Result<Vec<SessionRecord>, Failure> {
        let replies = conn
            .run(
                "SELECT id, name, host, version, opened_at, lease_until, fenced_at FROM queue_session \
                 ORDER BY opened_at DESC, id DESC LIMIT 1000; SELECT session_id, id, members FROM queue_claim"
                    .to_owned(),
            )
            .await?;
        let mut members: BTreeMap<u64, Vec<(u64, TaskId)>> = BTreeMap::new();
        for row in rows_of(&replies, 1) {
            let (session, claim, bytes): (u64, u64, Vec<u8>) = (value(row, 0)?, value(row, 1)?, value(row, 2)?);
            members.entry(session).or_default().extend(decode(&bytes).map(|id| (claim, id)));
        }
        let mut sessions = Vec::new();
        for row in rows_of(&replies, 0) {
            let id: u64 = value(row, 0)?;
            sessions.push(SessionRecord {
                id: SessionId::new(id).ok_or_else(|| StoreError::corrupt(None, "a session has no id"))?,
                name: text(row, 1)?.unwrap_or_default(),
                host: text(row, 2)?.unwrap_or_default(),
                version: text(row, 3)?.unwrap_or_default(),
                opened_at: time(row, 4)?,
                lease_until: time(row, 5)?,
                fenced_at: maybe_time(row, 6)?,
                running: held(conn, members.get(&id).map_or(&[], Vec::as_slice)).await?,
            });
        }
        Ok(sessions)
    }
}

/// How many of these members run under their claims.
async fn held(conn: &mut Conn, members: &[(u64, TaskId)]) -> Result<u64, Failure> {
    let mut running = 0;
    for chunk in members.chunks(CHUNK) {
        let pairs = list(chunk.iter().map(|(claim, id)| format!("({id},{claim})")));
        let ids = list(chunk.iter().map(|(_, id)| id));
        let sql = format!(
            "SELECT COUNT(*) FROM queue_task FORCE INDEX (PRIMARY) WHERE id IN ({ids}) AND status = 1 \
             AND (id, claim_id) IN ({pairs})"
        );
        if let Some(row) = rows_of(&conn.run(sql).await?, 0).first() {
            running += count(row, 0)?;
        }
    }
    Ok(running)
}
