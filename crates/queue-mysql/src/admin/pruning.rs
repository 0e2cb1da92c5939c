//! Removing what ended long ago, in small batches.

use std::time::Duration;

use queue_core::Status;
use queue_core::spec::KEY_KEPT;
use queue_core::time::micros;

use super::acting::traces;
use super::stats::clock;
use crate::connection::Conn;
use crate::error::Failure;
use crate::inner::Inner;
use crate::operation::Operation;
use crate::row::delete_finished;
use crate::sql::{list, value};

/// Keys without a task that one batch removes.
const KEYS_MAX: usize = 1_000;

/// Removes a batch of ended tasks, the oldest first.
pub(super) struct Prune {
    pub(super) status: Option<Status>,
    pub(super) older_than: Duration,
    pub(super) limit: usize,
}

impl Operation for Prune {
    type Output = usize;

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<usize, Failure> {
        let flavor = inner.server.flavor;
        let now = clock(conn).await?;
        let before = now.before(self.older_than).as_micros();
        conn.begin("DO 0").await?;
        let mut old: Vec<(i64, u8, u64)> = Vec::new();
        for status in [Status::Completed, Status::Failed] {
            if self.status.is_some_and(|wanted| wanted != status) {
                continue;
            }
            let sql = format!(
                "SELECT completed_at, task_id, type_id FROM queue_finished FORCE INDEX (PRIMARY) WHERE status = {} AND \
                 completed_at < {before} ORDER BY completed_at, task_id LIMIT {} FOR UPDATE SKIP LOCKED",
                status.code(),
                self.limit
            );
            for row in &conn.run(sql).await?.pop().unwrap_or_default().rows {
                old.push((value(row, 0)?, status.code(), value(row, 1)?));
            }
        }
        old.sort_unstable();
        old.truncate(self.limit);
        let now = now.as_micros();
        let mut sql = Vec::new();
        if !old.is_empty() {
            let ids = list(old.iter().map(|(_, _, id)| id));
            let keys = list(old.iter().map(|(at, status, id)| format!("({status},{at},{id})")));
            sql.push(delete_finished(flavor, &keys));
            sql.extend(traces(flavor, &ids));
            sql.push(format!(
                "UPDATE queue_idempotency FORCE INDEX (queue_idempotency_task) SET expires_at = created_at + {} WHERE task_id IN ({ids})",
                micros(KEY_KEPT)
            ));
        }
        sql.push(format!(
            "DELETE /*+ INDEX(queue_idempotency queue_idempotency_expiry) */ FROM queue_idempotency \
             WHERE expires_at <= {now} ORDER BY expires_at LIMIT {KEYS_MAX}"
        ));
        conn.run_all_and_commit(sql).await?;
        Ok(old.len())
    }
}
