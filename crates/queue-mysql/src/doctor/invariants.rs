//! Whether each task is in exactly the tables that its status says.

use queue_core::Status;
use queue_core::diagnose::Finding;

use crate::connection::Conn;
use crate::error::Failure;
use crate::members::decode;
use crate::sql::value;

const CHECK: &str = "invariants";

/// Ids told of each violation.
const EXAMPLES: usize = 5;

/// What must not be, and the tasks that are so: `{tasks}` narrows what is looked at.
const VIOLATIONS: &[(&str, &str, &str)] = &[
    (
        "wait although they are not queued",
        "SELECT r.task_id FROM queue_ready AS r LEFT JOIN queue_task AS t ON t.id = r.task_id WHERE (t.id IS NULL OR t.status <> 0) \
         AND r.task_id > 0 AND {tasks:r.task_id}",
        "they are never claimed, and harmless; remove their rows of queue_ready and report it",
    ),
    (
        "are queued and do not wait, so nobody will ever claim them",
        "SELECT t.id FROM queue_task AS t LEFT JOIN (SELECT DISTINCT task_id FROM queue_ready) AS r ON r.task_id = t.id \
         WHERE t.status = 0 AND r.task_id IS NULL AND {tasks:t.id}",
        "`queue task cancel` and `queue task retry` make them wait again; report it",
    ),
    (
        "wait more than once",
        "SELECT r.task_id FROM queue_ready AS r WHERE r.task_id > 0 AND {tasks:r.task_id} GROUP BY r.task_id HAVING COUNT(*) > 1",
        "only one of the rows counts; remove the others from queue_ready and report it",
    ),
    (
        "run under a claim that is not there, so nobody will ever find them lost",
        "SELECT t.id FROM queue_task AS t LEFT JOIN queue_claim AS c ON c.id = t.claim_id WHERE t.status = 1 AND c.id IS NULL \
         AND {tasks:t.id}",
        "report it; nothing but an UPDATE by hand ends them",
    ),
    (
        "run under a claim whose session is not there",
        "SELECT t.id FROM queue_task AS t JOIN queue_claim AS c ON c.id = t.claim_id LEFT JOIN queue_session AS s \
         ON s.id = c.session_id WHERE t.status = 1 AND s.id IS NULL AND {tasks:t.id}",
        "report it; nothing but an UPDATE by hand ends them",
    ),
    (
        "have ended and are not in the list of ended tasks, so they are never pruned",
        "SELECT t.id FROM queue_task AS t LEFT JOIN queue_finished AS f ON f.status = t.status AND \
         f.completed_at = t.completed_at AND f.task_id = t.id WHERE t.status IN (2, 3) AND f.task_id IS NULL AND {tasks:t.id}",
        "`queue task delete` removes them; report it",
    ),
    (
        "are in the list of ended tasks and have not ended so",
        "SELECT f.task_id FROM queue_finished AS f LEFT JOIN queue_task AS t ON t.id = f.task_id AND t.status = f.status AND \
         t.completed_at = f.completed_at WHERE t.id IS NULL AND {tasks:f.task_id}",
        "remove their rows of queue_finished and report it",
    ),
    (
        "wait or run without a payload",
        "SELECT t.id FROM queue_task AS t LEFT JOIN queue_payload AS p ON p.task_id = t.id WHERE t.status IN (0, 1) AND \
         p.task_id IS NULL AND {tasks:t.id}",
        "restore queue_payload from a backup, or cancel them",
    ),
];

/// The condition that a task is among those that are looked at.
fn narrowed(sql: &str, from: u64) -> String {
    let Some((before, rest)) = sql.split_once("{tasks:") else { return sql.to_owned() };
    let (column, after) = rest.split_once('}').unwrap_or((rest, ""));
    format!("{before}{column} >= {from}{after}")
}

/// Looks at all tasks from this id on, in one snapshot.
pub(super) async fn check(conn: &mut Conn, tasks_max: Option<u64>) -> Result<Vec<Finding>, Failure> {
    conn.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ".to_owned()).await?;
    conn.begin("DO 0").await?;
    let found = in_snapshot(conn, tasks_max).await;
    conn.rollback().await?;
    found
}

async fn in_snapshot(conn: &mut Conn, tasks_max: Option<u64>) -> Result<Vec<Finding>, Failure> {
    let next: u64 = one(conn, "SELECT next_id FROM queue_id_block").await?.unwrap_or(1);
    let from = tasks_max.map_or(0, |max| next.saturating_sub(max));
    let mut findings = Vec::new();
    for (what, sql, advice) in VIOLATIONS {
        let sql = narrowed(sql, from);
        let count: u64 = one(conn, &format!("SELECT COUNT(*) FROM ({sql}) AS violation")).await?.unwrap_or(0);
        if count > 0 {
            let rows = conn.run(format!("{sql} LIMIT {EXAMPLES}")).await?.pop().unwrap_or_default().rows;
            let ids = rows.iter().map(|row| value::<u64>(row, 0)).collect::<Result<Vec<_>, _>>()?;
            findings.push(violation(count, what, &ids, advice));
        }
    }
    findings.extend(not_members(conn, from).await?);
    if findings.is_empty() {
        let sql = format!("SELECT status, COUNT(*) FROM queue_task WHERE id >= {from} GROUP BY status ORDER BY status");
        let mut counts = Vec::new();
        for row in &conn.run(sql).await?.pop().unwrap_or_default().rows {
            let (status, count): (u8, u64) = (value(row, 0)?, value(row, 1)?);
            let name = Status::from_code(status).map_or("of unknown status", Status::as_str);
            counts.push(format!("{count} {name}"));
        }
        let counts = if counts.is_empty() { "there is none".to_owned() } else { counts.join(", ") };
        let which = match tasks_max {
            Some(max) if from > 0 => format!(" of the latest {max}"),
            _ => String::new(),
        };
        findings.push(Finding::ok(CHECK, format!("each task{which} is in the tables that its status says: {counts}")));
    }
    Ok(findings)
}

/// Running tasks that their claim does not list among its members.
async fn not_members(conn: &mut Conn, from: u64) -> Result<Option<Finding>, Failure> {
    let rows = conn.run("SELECT id, members FROM queue_claim".to_owned()).await?.pop().unwrap_or_default().rows;
    let mut listed: Vec<(u64, u64)> = Vec::new();
    for row in &rows {
        let (claim, members): (u64, Vec<u8>) = (value(row, 0)?, value(row, 1)?);
        listed.extend(decode(&members).map(|task| (task.get(), claim)));
    }
    listed.sort_unstable();
    let sql = format!(
        "SELECT t.id, t.claim_id FROM queue_task AS t JOIN queue_claim AS c ON c.id = t.claim_id WHERE t.status = 1 AND \
         t.id >= {from}"
    );
    let mut strays = Vec::new();
    for row in &conn.run(sql).await?.pop().unwrap_or_default().rows {
        let pair: (u64, u64) = (value(row, 0)?, value(row, 1)?);
        if listed.binary_search(&pair).is_err() {
            strays.push(pair.0);
        }
    }
    let shown = &strays[..strays.len().min(EXAMPLES)];
    let what = "run under a claim that does not list them, so nobody will ever find them lost";
    let advice = "report it; nothing but an UPDATE by hand ends them";
    Ok((!strays.is_empty()).then(|| violation(strays.len() as u64, what, shown, advice)))
}

fn violation(count: u64, what: &str, ids: &[u64], advice: &str) -> Finding {
    let more = if count > ids.len() as u64 { ", …" } else { "" };
    let ids: Vec<_> = ids.iter().map(u64::to_string).collect();
    Finding::fail(CHECK, format!("tasks that {what}: {count} ({}{more})", ids.join(", ")), advice)
}

pub(super) async fn one(conn: &mut Conn, sql: &str) -> Result<Option<u64>, sqlx::Error> {
    let rows = conn.run(sql.to_owned()).await?.pop().unwrap_or_default().rows;
    rows.first().map(|row| value(row, 0)).transpose()
}
