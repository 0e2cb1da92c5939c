//! Rows of the MySQL store that contradict each other. Not the doctor's list: a judge is not the code under test.

use anyhow::{Context as _, Result};
use sqlx::{AssertSqlSafe, MySqlConnection, Row as _};

/// Each finds tasks that are not where their status says.
const GHOSTS: &[(&str, &str)] = &[
    (
        "waits in queue_ready and is not queued",
        "SELECT r.task_id FROM queue_ready r LEFT JOIN queue_task t ON t.id = r.task_id WHERE r.task_id > 0 AND (t.id IS NULL OR t.status <> 0)",
    ),
    (
        "waits in queue_ready more than once",
        "SELECT task_id FROM queue_ready WHERE task_id > 0 GROUP BY task_id HAVING COUNT(*) > 1",
    ),
    (
        "is queued and not in queue_ready",
        "SELECT t.id FROM queue_task t LEFT JOIN queue_ready r ON r.task_id = t.id WHERE t.status = 0 AND r.task_id IS NULL",
    ),
    (
        "is running under no claim",
        "SELECT t.id FROM queue_task t LEFT JOIN queue_claim c ON c.id = t.claim_id WHERE t.status = 1 AND c.id IS NULL",
    ),
    (
        "has ended and is not in queue_finished, as that, then",
        "SELECT t.id FROM queue_task t LEFT JOIN queue_finished f ON f.task_id = t.id AND f.status = t.status \
         AND f.completed_at = t.completed_at AND f.reason <=> t.reason WHERE t.status IN (2, 3) AND f.task_id IS NULL",
    ),
    (
        "is in queue_finished and has not ended",
        "SELECT f.task_id FROM queue_finished f LEFT JOIN queue_task t ON t.id = f.task_id \
         WHERE t.id IS NULL OR t.status NOT IN (2, 3)",
    ),
    ("is in queue_finished more than once", "SELECT task_id FROM queue_finished GROUP BY task_id HAVING COUNT(*) > 1"),
    (
        "has a payload and no state, or the other way round",
        "SELECT p.task_id FROM queue_payload p LEFT JOIN queue_task t ON t.id = p.task_id WHERE t.id IS NULL \
         UNION ALL SELECT t.id FROM queue_task t LEFT JOIN queue_payload p ON p.task_id = t.id WHERE p.task_id IS NULL",
    ),
];

/// Tasks that are not where their status says, each in words.
///
/// # Errors
///
/// When the tables cannot be read.
pub async fn ghosts(db: &mut MySqlConnection) -> Result<Vec<String>> {
    let mut ghosts = Vec::new();
    for (what, sql) in GHOSTS {
        for row in sqlx::query(AssertSqlSafe(*sql)).fetch_all(&mut *db).await.context(*what)? {
            ghosts.push(format!("task {} {what}", row.try_get::<u64, _>(0)?));
        }
    }
    Ok(ghosts)
}
