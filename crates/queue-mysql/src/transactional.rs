//! Completing a task in the user's own transaction.

use queue_core::{ClaimId, Settled, Status, StoreError, TaskId, TaskResult};
use sqlx::MySqlConnection;
use sqlx::mysql::MySqlArguments;

use crate::connection::{bound_on, run_on};
use crate::error::to_store_error;
use crate::inner::Inner;
use crate::settle::kept;
use crate::sql::{CLOCK, add, value};

/// Completes a running task in the transaction that the connection is in: its row, the list of ended tasks, its result.
pub(crate) async fn complete_in(
    inner: &Inner,
    conn: &mut MySqlConnection,
    task: TaskId,
    claim: ClaimId,
    result: TaskResult,
) -> Result<Settled, StoreError> {
    let completed = complete(inner, conn, task, claim, &result).await;
    completed.map_err(|error| to_store_error(&error, false, "in the transaction of the caller"))
}

async fn complete(
    inner: &Inner,
    conn: &mut MySqlConnection,
    task: TaskId,
    claim: ClaimId,
    result: &TaskResult,
) -> Result<Settled, sqlx::Error> {
    let database = &inner.server.database;
    // The end's time is read back from the row, so that the list has the very same one.
    let replies = run_on(
        conn,
        inner.server.flavor.say(format!(
            "UPDATE {database}.queue_task FORCE INDEX (PRIMARY) SET status = 2, completed_at = {CLOCK} WHERE id = {task} AND \
             status = 1 AND claim_id = {claim}; SELECT status, claim_id FROM {database}.queue_task WHERE id = {task} \
             LOCK IN SHARE MODE"
        )),
    )
    .await?;
    if replies.first().is_none_or(|reply| reply.affected == 0) {
        let Some(row) = replies.get(1).and_then(|reply| reply.rows.first()) else { return Ok(Settled::Stale) };
        let (status, holder): (u8, Option<u64>) = (value(row, 0)?, value(row, 1)?);
        return Ok(match Status::from_code(status) {
            Some(status) if status != Status::Running && holder == Some(claim.get()) => Settled::Already(status),
            _ => Settled::Stale,
        });
    }
    run_on(
        conn,
        format!(
            "INSERT INTO {database}.queue_finished (status, completed_at, task_id, type_id, queue_id, reason) \
             SELECT status, completed_at, id, type_id, queue_id, NULL FROM {database}.queue_task WHERE id = {task}"
        ),
    )
    .await?;
    if *result == TaskResult::None {
        return Ok(Settled::Applied);
    }
    let (dropped, body) = kept(result, inner.options.limits.result_bytes_max);
    let mut arguments = MySqlArguments::default();
    add(&mut arguments, dropped)?;
    add(&mut arguments, body)?;
    let sql = format!("REPLACE INTO {database}.queue_result (task_id, dropped_bytes, body) VALUES ({task}, ?, ?)");
    bound_on(conn, sql, arguments).await?;
    Ok(Settled::Applied)
}
