//! Whether a scope still has work.

use queue_core::Scope;

use crate::admin::clock;
use crate::connection::Conn;
use crate::error::Failure;
use crate::inner::Inner;
use crate::members::claimed_ids;
use crate::operation::Operation;
use crate::sql::{CLOCK, list, value};

/// Running tasks that one statement looks at.
const CHUNK: usize = 1_000;

/// Finds out whether anything of a scope runs in any process, is due, or waits to be run again.
pub(crate) struct IsBusy {
    pub(crate) scope: Scope,
}

impl Operation for IsBusy {
    type Output = bool;
    const REPEATABLE: bool = true;

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<bool, Failure> {
        // One snapshot for all of it: a task that moves from one table to another in between would be seen in neither.
        conn.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ".to_owned()).await?;
        conn.begin("DO 0").await?;
        inner.names.refresh(conn).await?;
        let is_busy = self.look(inner, conn).await?;
        conn.rollback().await?;
        Ok(is_busy)
    }
}

impl IsBusy {
    async fn look(&self, inner: &Inner, conn: &mut Conn) -> Result<bool, Failure> {
        // A row that cannot be claimed is no work: it would keep a pool from ending for ever.
        let avoided = list(inner.lanes.avoided(clock(conn).await?));
        let but = if avoided.is_empty() { String::new() } else { format!(" AND r.task_id NOT IN ({avoided})") };
        let waiting = format!(
            "SELECT DISTINCT r.type_id, r.queue_id FROM queue_ready AS r JOIN queue_queue AS q ON q.id = r.queue_id \
             WHERE q.paused_at IS NULL AND (r.run_at <= {CLOCK} OR r.again = 1){but}"
        );
        if self.reaches_any(inner, conn, waiting).await? {
            return Ok(true);
        }
        for chunk in claimed_ids(conn).await?.chunks(CHUNK) {
            let running = format!(
                "SELECT DISTINCT type_id, queue_id FROM queue_task FORCE INDEX (PRIMARY) WHERE id IN ({}) AND status = 1",
                list(chunk)
            );
            if self.reaches_any(inner, conn, running).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether one of these types and queues is in the scope.
    async fn reaches_any(&self, inner: &Inner, conn: &mut Conn, sql: String) -> Result<bool, Failure> {
        let rows = conn.run(sql).await?.pop().unwrap_or_default().rows;
        for row in &rows {
            let names = inner.names.task_type(value(row, 0)?).zip(inner.names.queue(value(row, 1)?));
            let Some((task_type, queue)) = names else { continue };
            if self.scope.reaches(&queue, &task_type) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
