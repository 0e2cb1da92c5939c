//! Sessions: one row each, renewed by an update of that row alone.

use std::time::Duration;

use queue_core::session::{Renewal, SessionSpec, Signals};
use queue_core::text::cut;
use queue_core::{ClaimId, QueueName, SessionId, StoreError};
use rusqlite::params;

use crate::work::{Id as _, Result, Work, task_id};

const OPEN: &str = "INSERT INTO queue_session (id, name, host, version, opened_at, lease_until, fenced_at, drain) \
                    VALUES (?1, ?2, ?3, ?4, ?5, ?5, NULL, 0) ON CONFLICT DO NOTHING";
const RENEW: &str = "UPDATE queue_session SET lease_until = ?2 WHERE id = ?1 AND fenced_at IS NULL RETURNING drain";
const FENCE: &str = "UPDATE queue_session SET fenced_at = ?2 WHERE id = ?1 AND fenced_at IS NULL";
const IS_LIVE: &str = "SELECT 1 FROM queue_session WHERE id = ?1 AND fenced_at IS NULL";
const COUNT_LIVE: &str = "SELECT COUNT(*) FROM queue_session WHERE fenced_at IS NULL";
const PAUSED: &str = "SELECT name FROM queue_queue WHERE paused_at IS NOT NULL ORDER BY name";
/// The claim of the signal must hold the task still: a signal to a run that is over is no signal.
pub(crate) const CANCELS: &str = "SELECT s.task_id, s.claim_id FROM queue_signal AS s \
                                  JOIN queue_claim AS c ON c.id = s.claim_id \
                                  WHERE c.session_id = ?1 ORDER BY s.task_id";
/// Claims of fenced or vanished sessions that hold nothing any more, tombstones included, and claims of live ones that are
/// no tombstones and hold nothing.
pub(crate) const EMPTY_CLAIMS: &str = "SELECT c.id FROM queue_claim AS c \
     WHERE NOT EXISTS (SELECT 1 FROM json_each(c.members) AS m CROSS JOIN queue_task AS t \
                       WHERE t.id = m.value AND t.claim_id = c.id AND t.status = 1) \
     AND (c.members <> '[]' OR NOT EXISTS \
          (SELECT 1 FROM queue_session AS s WHERE s.id = c.session_id AND s.fenced_at IS NULL))";
const DROP_CLAIM: &str = "DELETE FROM queue_claim WHERE id = ?1";
/// Fenced sessions without a claim.
pub(crate) const EMPTY_SESSIONS: &str = "SELECT id FROM queue_session AS s WHERE fenced_at IS NOT NULL \
     AND NOT EXISTS (SELECT 1 FROM queue_claim AS c WHERE c.session_id = s.id)";
const DROP_SESSION: &str = "DELETE FROM queue_session WHERE id = ?1";

pub(crate) fn is_live(work: &Work<'_>, session: SessionId) -> Result<bool> {
    work.exists(IS_LIVE, [session.number()])
}

pub(crate) fn open(work: &mut Work<'_>, spec: &SessionSpec) -> Result<Renewal> {
    let (name, host, version) = (cut(&spec.name, 64), cut(&spec.host, 64), cut(&spec.version, 32));
    work.execute(OPEN, params![spec.id.number(), name, host, version, work.now.as_micros()])?;
    renew(work, spec.id, spec.lease)
}

pub(crate) fn renew(work: &mut Work<'_>, session: SessionId, lease: Duration) -> Result<Renewal> {
    let lease_until = work.now.after(lease).as_micros();
    let renewed = work.first(RENEW, [session.number(), lease_until], |row| Ok(row.get(0)?))?;
    let Some(drain) = renewed else { return Ok(Renewal::Fenced) };
    let cancels = work.all(CANCELS, [session.number()], |row| {
        let claim = ClaimId::new(row.get::<_, i64>(1)?.cast_unsigned());
        let claim = claim.ok_or_else(|| StoreError::corrupt(None, "a signal names no claim"))?;
        Ok((task_id(row.get(0)?)?, claim))
    })?;
    let mut paused = Vec::new();
    for name in work.all(PAUSED, [], |row| Ok(row.get::<_, String>(0)?))? {
        let name = QueueName::parse(name).map_err(|error| StoreError::corrupt(None, error.to_string()).into());
        paused.extend(work.pass_over_corrupt(name)?);
    }
    let live_sessions = work.first(COUNT_LIVE, [], |row| Ok(row.get(0)?))?.unwrap_or_default();
    Ok(Renewal::Renewed(Signals { now: work.now, cancels, paused, drain, live_sessions }))
}

pub(crate) fn close(work: &mut Work<'_>, session: SessionId) -> Result<()> {
    work.execute(FENCE, params![session.number(), work.now.as_micros()])?;
    forget_empty(work)
}

/// Whether there is something to [forget](forget_empty).
pub(crate) fn has_empty(work: &Work<'_>) -> Result<bool> {
    Ok(work.exists(EMPTY_CLAIMS, [])? || work.exists(EMPTY_SESSIONS, [])?)
}

/// Removes claims that hold nothing, and fenced sessions without a claim.
pub(crate) fn forget_empty(work: &Work<'_>) -> Result<()> {
    for (find, drop) in [(EMPTY_CLAIMS, DROP_CLAIM), (EMPTY_SESSIONS, DROP_SESSION)] {
        for id in work.all(find, [], |row| Ok(row.get::<_, i64>(0)?))? {
            work.execute(drop, [id])?;
        }
    }
    Ok(())
}
