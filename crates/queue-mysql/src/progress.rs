//! Progress of running tasks, as far as nobody else holds their rows.

use std::collections::BTreeMap;

use queue_core::Progress;
use queue_core::progress::ProgressUpdate;
use sqlx::mysql::MySqlArguments;

use crate::connection::Conn;
use crate::error::Failure;
use crate::inner::Inner;
use crate::operation::Operation;
use crate::sql::{add, list, value};

/// Tasks that one transaction updates.
const CHUNK: usize = 250;

/// Records a batch of progress.
pub(crate) struct Record {
    pub(crate) batch: Vec<ProgressUpdate>,
}

impl Operation for Record {
    type Output = ();
    const REPEATABLE: bool = true;

    async fn attempt(&mut self, _: &Inner, conn: &mut Conn) -> Result<(), Failure> {
        // The latest word under each claim counts; which claim is current, the row says.
        let latest: BTreeMap<_, _> = self.batch.iter().map(|update| ((update.task, update.claim), update)).collect();
        let latest: Vec<_> = latest.into_values().collect();
        for updates in latest.chunks(CHUNK) {
            let sql = format!(
                "SELECT id, claim_id FROM queue_task FORCE INDEX (PRIMARY) WHERE id IN ({}) AND status = 1 \
                 ORDER BY id FOR UPDATE SKIP LOCKED",
                list(updates.iter().map(|update| update.task))
            );
            let rows = conn.begin(&sql).await?.pop().unwrap_or_default().rows;
            let mut free: Vec<(u64, &Progress)> = Vec::new();
            for row in &rows {
                let (id, claim): (u64, Option<u64>) = (value(row, 0)?, value(row, 1)?);
                let current =
                    updates.iter().find(|update| update.task.get() == id && Some(update.claim.get()) == claim);
                free.extend(current.map(|update| (id, &update.progress)));
            }
            if free.is_empty() {
                conn.rollback().await?;
                continue;
            }
            let percents = free.iter().map(|(id, progress)| format!("WHEN {id} THEN {}", progress.percent()));
            let percents: Vec<_> = percents.collect();
            let messages: Vec<_> = free.iter().map(|(id, _)| format!("WHEN {id} THEN ?")).collect();
            let mut arguments = MySqlArguments::default();
            for (_, progress) in &free {
                add(&mut arguments, progress.message().map(str::to_owned))?;
            }
            let sql = format!(
                "UPDATE queue_task FORCE INDEX (PRIMARY) SET progress = CASE id {} END, progress_message = CASE id {} END \
                 WHERE id IN ({})",
                percents.join(" "),
                messages.join(" "),
                list(free.iter().map(|(id, _)| id))
            );
            conn.bound(sql, arguments).await?;
            conn.run_and_commit("").await?;
        }
        Ok(())
    }
}
