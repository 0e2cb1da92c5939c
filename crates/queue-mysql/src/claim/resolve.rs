//! Finding out what became of a claim whose acknowledgement was lost.

use queue_core::claim::Resolved;
use queue_core::payload::ContentType;
use queue_core::{ClaimId, Claimed, Payload, SessionId};

use super::take::claimed;
use crate::connection::Conn;
use crate::error::{Class, Failure, classify};
use crate::inner::{Inner, missing};
use crate::members::decode;
use crate::operation::Operation;
use crate::row::{COLUMNS, COLUMNS_LEN, TaskRow};
use crate::sql::{CLOCK, list, time, value};

/// Resolves a claim by its id.
pub(crate) struct ResolveClaim {
    pub(crate) session: SessionId,
    pub(crate) claim: ClaimId,
}

impl Operation for ResolveClaim {
    type Output = Resolved;
    const REPEATABLE: bool = true;

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<Resolved, Failure> {
        let (session, claim) = (self.session, self.claim);
        // While the claim's own transaction is under way, this waits for it; once this is there, the claim's insert fails. A
        // session that is fenced or gone needs none: a claim holds the session's row, so none can be under way.
        let tombstone = format!(
            "INSERT INTO queue_claim (id, session_id, created_at, members) SELECT {claim}, id, {CLOCK}, '' \
             FROM queue_session WHERE id = {session} AND fenced_at IS NULL LOCK IN SHARE MODE"
        );
        match conn.run_committing(tombstone).await {
            Ok(replies) if replies.first().is_some_and(|reply| reply.affected > 0) => return Ok(Resolved::Void),
            Ok(_) => {}
            Err(error) if classify(&error) == Class::Duplicate => conn.rollback().await?,
            Err(error) => return Err(error.into()),
        }
        let replies = conn.run(format!("SELECT {CLOCK}; SELECT members FROM queue_claim WHERE id = {claim}")).await?;
        let now = replies.first().and_then(|reply| reply.rows.first()).ok_or_else(|| missing("the clock's answer"))?;
        let now = time(now, 0)?;
        let members: Option<Vec<u8>> =
            replies.get(1).and_then(|reply| reply.rows.first()).map(|row| value(row, 0)).transpose()?;
        let Some(members) = members else { return Ok(Resolved::Void) };
        let ids = list(decode(&members));
        if ids.is_empty() {
            return Ok(Resolved::Void);
        }
        let sql = format!(
            "SELECT {COLUMNS}, p.content_type, p.body FROM queue_task AS t FORCE INDEX (PRIMARY) LEFT JOIN queue_payload \
             AS p ON p.task_id = t.id WHERE t.id IN ({ids}) AND t.status = 1 AND t.claim_id = {claim} ORDER BY t.id"
        );
        let rows = conn.run(sql).await?.pop().unwrap_or_default().rows;
        let mut tasks = Vec::new();
        let mut held = Vec::new();
        for row in &rows {
            let Ok(task) = TaskRow::read(row)? else { continue };
            if !task.is_known(inner) {
                inner.names.refresh(conn).await?;
            }
            let content_type = value::<Option<u8>>(row, COLUMNS_LEN)?.and_then(ContentType::from_code);
            let Some(content_type) = content_type else { continue };
            let payload = Payload::new(content_type, value::<Vec<u8>>(row, COLUMNS_LEN + 1)?);
            if let Ok(claimed) = task.refer(inner).and_then(|names| claimed(names, &task, payload)) {
                held.push(task.id);
                tasks.push(claimed);
            }
        }
        inner.held.take(claim, session, held);
        // A resolve has no scope: there may be more right away.
        Ok(Resolved::Committed(Claimed { now, tasks, ended: Vec::new(), next_due: Some(now) }))
    }
}
