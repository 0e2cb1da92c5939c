//! Sessions: one row each, whose renewal is an update of that row alone.

use std::sync::atomic::Ordering;
use std::time::Duration;

use queue_core::reap::StoreTime;
use queue_core::session::{Renewal, SessionSpec, Signals};
use queue_core::text::cut;
use queue_core::time::micros;
use queue_core::{ClaimId, QueueName, SessionId, TaskId};
use sqlx::mysql::MySqlArguments;

use crate::connection::{Conn, rows_of};
use crate::error::Failure;
use crate::inner::{Inner, missing};
use crate::operation::Operation;
use crate::settle::delete_signals;
use crate::sql::{CLOCK, add, list, time, value};

/// When a lease that runs from `@queue_now` ends, as an expression that cannot overflow.
fn lease_end(lease: Duration) -> String {
    let (length, max) = (micros(lease), i64::MAX);
    format!("IF({length} > {max} - @queue_now, {max}, @queue_now + {length})")
}

/// Opens a session, or renews the one that is there.
pub(crate) struct OpenSession {
    pub(crate) spec: SessionSpec,
}

impl Operation for OpenSession {
    type Output = Renewal;
    const REPEATABLE: bool = true;
    const URGENT: bool = true;

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<Renewal, Failure> {
        let SessionSpec { id, name, host, version, lease } = &self.spec;
        let mut arguments = MySqlArguments::default();
        add(&mut arguments, cut(name, 64).to_owned())?;
        add(&mut arguments, cut(host, 64).to_owned())?;
        add(&mut arguments, cut(version, 32).to_owned())?;
        let sql = format!(
            "INSERT INTO queue_session (id, name, host, version, opened_at, lease_until, fenced_at, drain) \
             VALUES ({id}, ?, ?, ?, @queue_now, {}, NULL, 0) ON DUPLICATE KEY UPDATE drain = drain",
            lease_end(*lease)
        );
        conn.run(format!("SET @queue_now = {CLOCK}")).await?;
        conn.bound_committing(sql, arguments).await?;
        renew(inner, conn, *id, *lease, "@queue_now").await
    }
}

/// Renews a session.
pub(crate) struct RenewSession {
    pub(crate) session: SessionId,
    pub(crate) lease: Duration,
}

impl Operation for RenewSession {
    type Output = Renewal;
    const REPEATABLE: bool = true;
    const URGENT: bool = true;

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<Renewal, Failure> {
        renew(inner, conn, self.session, self.lease, CLOCK).await
    }
}

/// Renews from `clock` on, an expression.
async fn renew(
    inner: &Inner,
    conn: &mut Conn,
    session: SessionId,
    lease: Duration,
    clock: &str,
) -> Result<Renewal, Failure> {
    let sql = format!(
        "SET @queue_now = {clock}; \
         UPDATE queue_session SET lease_until = {} WHERE id = {session} AND fenced_at IS NULL; \
         SELECT @queue_now, drain, (SELECT COUNT(*) FROM queue_session WHERE fenced_at IS NULL) FROM queue_session \
         WHERE id = {session} AND fenced_at IS NULL; \
         SELECT g.task_id, g.claim_id, COALESCE(t.status = 1 AND t.claim_id = g.claim_id, 0) FROM queue_signal AS g \
         LEFT JOIN queue_task AS t ON t.id = g.task_id WHERE g.session_id = {session} ORDER BY g.task_id; \
         SELECT name FROM queue_queue WHERE paused_at IS NOT NULL ORDER BY name",
        lease_end(lease)
    );
    let replies = conn.run_committing(sql).await?;
    let rows = |index: usize| rows_of(&replies, index);
    let (renewed, row) = (replies.get(1).is_some_and(|reply| reply.affected > 0), rows(2).first());
    let (true, Some(row)) = (renewed, row) else {
        inner.held.forget(session);
        return Ok(Renewal::Fenced);
    };
    let mut signals = Signals {
        now: time(row, 0)?,
        drain: value::<u8>(row, 1)? != 0,
        live_sessions: u32::try_from(value::<i64>(row, 2)?).unwrap_or_default(),
        ..Signals::default()
    };
    let mut over = Vec::new();
    for row in rows(3) {
        let ids = TaskId::new(value(row, 0)?).zip(ClaimId::new(value(row, 1)?));
        let Some(pair) = ids else { continue };
        if value::<i64>(row, 2)? == 1 { signals.cancels.push(pair) } else { over.push(pair) }
    }
    for row in rows(4) {
        let name: Vec<u8> = value(row, 0)?;
        signals.paused.extend(QueueName::parse(String::from_utf8_lossy(&name)));
    }
    inner.held.signal(session, &signals.cancels);
    if !over.is_empty() {
        let keys = list(over.iter().map(|(task, claim)| format!("({session},{task},{claim})")));
        conn.run_committing(delete_signals(inner.server.flavor, &keys)).await?;
    }
    Ok(Renewal::Renewed(signals))
}

/// Ends a session.
pub(crate) struct CloseSession {
    pub(crate) session: SessionId,
}

impl Operation for CloseSession {
    type Output = ();
    const REPEATABLE: bool = true;

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<(), Failure> {
        let session = self.session;
        // The update waits for claims under way, which hold the row for sharing; after it there are no new ones.
        conn.run_committing(format!(
            "START TRANSACTION; UPDATE queue_session SET fenced_at = {CLOCK} WHERE id = {session} AND fenced_at IS NULL; \
             DELETE FROM queue_claim WHERE session_id = {session} AND LENGTH(members) = 0; {}; COMMIT",
            remove_idle(&format!("s.id = {session}"))
        ))
        .await?;
        inner.held.forget(session);
        Ok(())
    }
}

/// Removes fenced sessions without a claim, with what was signalled to them.
pub(crate) fn remove_idle(condition: &str) -> String {
    let idle = "s.fenced_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM queue_claim AS c WHERE c.session_id = s.id)";
    format!(
        "DELETE g FROM queue_signal AS g JOIN queue_session AS s ON s.id = g.session_id WHERE {condition} AND {idle}; \
         DELETE s FROM queue_session AS s WHERE {condition} AND {idle}"
    )
}

/// Reads the server's clock and which server it is.
pub(crate) struct Clock;

impl Operation for Clock {
    type Output = StoreTime;
    const REPEATABLE: bool = true;

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<StoreTime, Failure> {
        let server = inner.server.flavor.identity();
        let replies = conn.run(format!("SELECT {CLOCK}, {server}")).await?;
        let row = replies.first().and_then(|reply| reply.rows.first()).ok_or_else(|| missing("the clock's answer"))?;
        let server: Vec<u8> = value(row, 1)?;
        inner.judged.store(conn.seat().server, Ordering::Relaxed);
        Ok(StoreTime { now: time(row, 0)?, server: String::from_utf8_lossy(&server).into_owned() })
    }
}
