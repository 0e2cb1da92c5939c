//! What the server is doing right now: its clock, old snapshots, replicas, and whether SKIP LOCKED skips.

use std::time::Duration;

use queue_core::diagnose::Finding;
use queue_core::{StoreError, Timestamp};

use crate::connection::{Conn, rows_of};
use crate::error::{number, plain};
use crate::inner::Inner;
use crate::server::Flavor;
use crate::sql::{CLOCK, time, value};

/// A clock that is further off than this is told.
const OFFSET_MAX: Duration = Duration::from_secs(2);
/// A snapshot older than this holds up the server's purge for long enough to be felt.
const SNAPSHOT_MAX_S: i64 = 600;
/// Versions of rows that wait to be purged: more than this slows reads down.
const HISTORY_MAX: i64 = 1_000_000;

/// How far this machine's clock is from the server's.
pub(super) async fn clock(conn: &mut Conn, wall: Timestamp) -> Result<(Finding, Timestamp), sqlx::Error> {
    let rows = conn.run(format!("SELECT {CLOCK}")).await?.pop().unwrap_or_default().rows;
    let server = rows.first().map_or(Ok(wall), |row| time(row, 0))?;
    Ok((clock_finding(wall, server), server))
}

fn clock_finding(wall: Timestamp, server: Timestamp) -> Finding {
    let (offset, where_) =
        if server >= wall { (server.since(wall), "behind") } else { (wall.since(server), "ahead of") };
    if offset <= OFFSET_MAX {
        return Finding::ok("clock", "this machine and the server agree about the time");
    }
    Finding::warn(
        "clock",
        format!("this machine's clock is {} s {where_} the server's", offset.as_secs()),
        "the server's clock decides, so nothing breaks; correct the clock for the sake of logs and of times given by hand",
    )
}

/// Open snapshots, and what they keep from being purged.
pub(super) async fn snapshots(conn: &mut Conn, flavor: Flavor) -> Result<Vec<Finding>, sqlx::Error> {
    // Our own transaction is the youngest, so that ages need no clock: these times are in the server's zone.
    conn.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ".to_owned()).await?;
    let ages = "START TRANSACTION WITH CONSISTENT SNAPSHOT; SELECT COUNT(*), \
                TIMESTAMPDIFF(SECOND, MIN(trx_started), MAX(trx_started)) FROM information_schema.innodb_trx";
    let asked = conn.run(ages.to_owned()).await;
    let ended = conn.run("ROLLBACK".to_owned()).await;
    let age = match asked {
        Ok(replies) => {
            let row = replies.last().and_then(|reply| reply.rows.first());
            row.map_or(Ok(None), |row| value::<Option<i64>>(row, 1))?.unwrap_or(0)
        }
        Err(error) if number(&error).is_some() => {
            let told = format!("the oldest open snapshot cannot be looked at: {}", plain(&error));
            return Ok(vec![Finding::warn(
                "snapshots",
                told,
                "GRANT PROCESS ON *.* to this account, if it may see that",
            )]);
        }
        Err(error) => return Err(error),
    };
    ended?;
    Ok(vec![snapshot_finding(age, history(conn, flavor).await?)])
}

fn snapshot_finding(age_s: i64, history: Option<i64>) -> Finding {
    let length = history.map_or(String::new(), |length| format!(", {length} versions of rows wait to be purged"));
    let told = format!("the oldest open transaction is {age_s} s old{length}");
    if age_s > SNAPSHOT_MAX_S || history.is_some_and(|length| length > HISTORY_MAX) {
        let advice =
            "claims slow down while the purge waits: find the transaction in information_schema.innodb_trx and end it";
        return Finding::warn("snapshots", told, advice);
    }
    Finding::ok("snapshots", told)
}

async fn history(conn: &mut Conn, flavor: Flavor) -> Result<Option<i64>, sqlx::Error> {
    let (sql, column) = match flavor {
        Flavor::MySql => (
            "SELECT count FROM information_schema.innodb_metrics WHERE name = 'trx_rseg_history_len' AND status = 'enabled'",
            0,
        ),
        Flavor::OceanBase => return Ok(None),
        Flavor::MariaDb => ("SHOW GLOBAL STATUS LIKE 'Innodb_history_list_length'", 1),
    };
    match conn.run(sql.to_owned()).await {
        Ok(mut replies) => match replies.pop().unwrap_or_default().rows.first() {
            Some(row) => Ok(value::<String>(row, column)?.parse().ok()),
            None => Ok(None),
        },
        Err(error) if number(&error).is_some() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replicas that may lack what was acknowledged.
pub(super) async fn replicas(conn: &mut Conn) -> Result<Finding, sqlx::Error> {
    const CHECK: &str = "replicas";
    let semisync = conn
        .run(
            "SHOW GLOBAL STATUS WHERE Variable_name IN ('Rpl_semi_sync_source_clients', 'Rpl_semi_sync_master_clients')"
                .to_owned(),
        )
        .await?;
    let rows = rows_of(&semisync, 0);
    let acknowledging: i64 =
        rows.first().map_or(Ok(None), |row| value::<String>(row, 1).map(|text| text.parse().ok()))?.unwrap_or(0);
    // Without the right, the list of connections is that of one's own, without an error.
    if let Err(error) = conn.run("SELECT COUNT(*) FROM information_schema.innodb_trx".to_owned()).await {
        if number(&error).is_none() {
            return Err(error);
        }
        return Ok(Finding::warn(
            CHECK,
            "replicas cannot be seen without the right PROCESS",
            "GRANT PROCESS ON *.* to this account, if it may see that",
        ));
    }
    let sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'";
    let rows = conn.run(sql.to_owned()).await?.pop().unwrap_or_default().rows;
    let dumps: i64 = rows.first().map_or(Ok(0), |row| value(row, 0))?;
    Ok(replica_finding(dumps, acknowledging))
}

fn replica_finding(dumps: i64, acknowledging: i64) -> Finding {
    const CHECK: &str = "replicas";
    match (dumps, acknowledging) {
        (0, _) => Finding::ok(CHECK, "no replica reads from this server"),
        (dumps, 0) => Finding::warn(
            CHECK,
            format!(
                "{dumps} replicas follow asynchronously: a failover to one may lose acknowledged tasks and run others again"
            ),
            "use semi-synchronous replication or Group Replication where that must not be",
        ),
        (dumps, some) => Finding::ok(CHECK, format!("{dumps} replicas, of which {some} acknowledge each commit")),
    }
}

/// Whether a locked row is really skipped: two connections and one row, which is held for two round trips.
pub(super) async fn skip_locked(inner: &Inner, conn: &mut Conn) -> Result<Finding, StoreError> {
    // One of those kept for renewals, so that a store with one connection can be probed as well.
    let mut other = inner.connections.acquire(true).await?;
    let probed = probe(conn, &mut other).await;
    // Whatever came of it, nothing stays locked: the other connection is closed, this one ends its transaction.
    drop(other);
    let ended = conn.rollback().await;
    Ok(match probed.and_then(|found| ended.map(|()| found)) {
        Ok((while_locked, after)) => skip_finding(while_locked, after),
        Err(error) if number(&error) == Some(1205) => skip_finding(1, 1),
        Err(error) => {
            let told = format!("whether SKIP LOCKED skips could not be tried: {}", plain(&error));
            Finding::warn("skip_locked", told, "see `tables` and `privileges`")
        }
    })
}

/// How many rows the other connection gets while the row is locked, and after.
async fn probe(conn: &mut Conn, other: &mut Conn) -> Result<(usize, usize), sqlx::Error> {
    const LOCK: &str = "SELECT one FROM queue_id_block WHERE one = 1 FOR UPDATE";
    let skip = format!("START TRANSACTION; {LOCK} SKIP LOCKED; ROLLBACK");
    let rows = |replies: &[crate::connection::Reply]| replies.get(1).map_or(0, |reply| reply.rows.len());
    conn.begin(LOCK).await?;
    let while_locked = rows(&other.run(skip.clone()).await?);
    conn.rollback().await?;
    Ok((while_locked, rows(&other.run(skip).await?)))
}

fn skip_finding(while_locked: usize, after: usize) -> Finding {
    const CHECK: &str = "skip_locked";
    match (while_locked, after) {
        (0, 1..) => Finding::ok(CHECK, "a second connection passes over a locked row"),
        // Some claim of ids may have had the row the second time.
        (0, _) => Finding::warn(CHECK, "the row of the probe was locked by somebody else", "run the doctor again"),
        _ => Finding::fail(
            CHECK,
            "a second connection does not pass over a locked row: two workers would be given the same task, or wait for each other",
            "use MySQL 8.0.20 or later or MariaDB 10.6 or later, without a proxy that changes statements",
        ),
    }
}

#[cfg(test)]
mod tests {
    use queue_core::diagnose::Level;

    use super::*;

    #[test]
    fn findings_follow_what_was_seen() {
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        assert_eq!(clock_finding(at(100), at(101)).level, Level::Ok);
        assert_eq!(clock_finding(at(100), at(400)).detail, "this machine's clock is 300 s behind the server's");
        assert_eq!(clock_finding(at(400), at(100)).detail, "this machine's clock is 300 s ahead of the server's");
        assert_eq!(snapshot_finding(3, Some(7)).level, Level::Ok);
        assert_eq!(snapshot_finding(601, None).level, Level::Warn);
        assert_eq!(snapshot_finding(0, Some(2_000_000)).level, Level::Warn);
        assert_eq!(replica_finding(0, 0).level, Level::Ok);
        assert_eq!(replica_finding(2, 0).level, Level::Warn);
        assert_eq!(replica_finding(2, 1).detail, "2 replicas, of which 1 acknowledge each commit");
        assert_eq!(skip_finding(0, 1).level, Level::Ok);
        assert_eq!(skip_finding(0, 0).level, Level::Warn);
        assert_eq!(skip_finding(1, 1).level, Level::Fail);
    }
}
