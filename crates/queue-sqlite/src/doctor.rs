//! The doctor: whether the file, the schema and what is in it are as the store needs them. It writes nothing.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use queue_core::diagnose::{Diagnose, Examination, Finding};
use queue_core::{ErrorKind, Migrate as _, Status, StoreError};
use rusqlite::Connection;

use crate::store::SqliteStore;
use crate::work::{Result, Work};
use crate::{migrate, plans};

/// A write-ahead log that is larger than this is kept from being emptied by somebody.
const LOG_BYTES_MAX: u64 = 256 << 20;
/// Up to this size the whole file is checked.
const CHECKED_BYTES_MAX: u64 = 1 << 30;

/// What must not be, as a query for the tasks that are so; `?1` is the first task that is looked at.
const VIOLATIONS: &[(&str, &str)] = &[
    (
        "wait although they are not queued",
        "SELECT r.task_id FROM queue_ready AS r LEFT JOIN queue_task AS t ON t.id = r.task_id \
         WHERE r.task_id >= ?1 AND (t.id IS NULL OR t.status <> 0)",
    ),
    (
        "are queued and do not wait, so nobody will ever claim them",
        "SELECT id FROM queue_task WHERE id >= ?1 AND status = 0 AND id NOT IN (SELECT task_id FROM queue_ready)",
    ),
    ("wait more than once", "SELECT task_id FROM queue_ready WHERE task_id >= ?1 GROUP BY task_id HAVING COUNT(*) > 1"),
    (
        "run under a claim that is not there or does not list them, so nobody will ever find them lost",
        "SELECT t.id FROM queue_task AS t WHERE t.id >= ?1 AND t.status = 1 AND NOT EXISTS (SELECT 1 FROM queue_claim AS c, \
         json_each(c.members) AS m WHERE c.id = t.claim_id AND m.value = t.id)",
    ),
    (
        "run under a claim whose session is not there",
        "SELECT t.id FROM queue_task AS t JOIN queue_claim AS c ON c.id = t.claim_id LEFT JOIN queue_session AS s \
         ON s.id = c.session_id WHERE t.id >= ?1 AND t.status = 1 AND s.id IS NULL",
    ),
    (
        "have ended and are not in the list of ended tasks, so they are never pruned",
        "SELECT t.id FROM queue_task AS t LEFT JOIN queue_finished AS f ON f.status = t.status AND \
         f.completed_at = t.completed_at AND f.task_id = t.id WHERE t.id >= ?1 AND t.status IN (2, 3) AND f.task_id IS NULL",
    ),
    (
        "are in the list of ended tasks and have not ended so",
        "SELECT f.task_id FROM queue_finished AS f LEFT JOIN queue_task AS t ON t.id = f.task_id AND t.status = f.status AND \
         t.completed_at = f.completed_at WHERE f.task_id >= ?1 AND t.id IS NULL",
    ),
    (
        "wait or run without a payload",
        "SELECT t.id FROM queue_task AS t LEFT JOIN queue_payload AS p ON p.task_id = t.id \
         WHERE t.id >= ?1 AND t.status IN (0, 1) AND p.task_id IS NULL",
    ),
];
/// Ids told of each violation.
const EXAMPLES: usize = 5;

#[async_trait]
impl Diagnose for SqliteStore {
    async fn diagnose(&self, examination: Examination) -> Vec<Finding> {
        let place = self.path().unwrap_or("memory").to_owned();
        let mut findings = vec![Finding::ok("server", format!("SQLite {} at {place}", rusqlite::version()))];
        findings.extend(self.writing().await);
        let is_usable = match self.schema().await {
            Ok(status) => {
                findings.push(Finding::of_schema(&status));
                status.found.is_some()
            }
            Err(error) => {
                findings.push(cut_short(&error));
                false
            }
        };
        let (path, busy_timeout) = (self.path().map(str::to_owned), self.busy_timeout);
        findings.push(configuration(busy_timeout, examination.lease));
        let read = self.read(move |work| examine(work, path.as_deref(), examination, is_usable)).await;
        match read {
            Ok(more) => findings.extend(more),
            Err(error) => findings.push(cut_short(&error)),
        }
        findings
    }
}

fn cut_short(error: &StoreError) -> Finding {
    Finding::fail("connection", format!("the examination was cut short: {error}"), "see to the file and run it again")
}

impl SqliteStore {
    /// Whether the file can be written to, found out by taking its lock and giving it back; and whether what is written stays.
    async fn writing(&self) -> Vec<Finding> {
        let synchronous =
            self.write(1, |work| Ok((work.conn.is_readonly("main")?, pragma(work.conn, "synchronous")?))).await;
        match synchronous {
            Ok((true, _)) => vec![Finding::fail(
                "read_only",
                "the file cannot be written to",
                "give the account the right to write to the file and to its directory; a URL with mode=ro only looks",
            )],
            Ok((false, 2..)) => vec![
                Finding::ok("read_only", "the file takes writes"),
                Finding::ok("durability", "what was acknowledged survives a crash of the machine"),
            ],
            Ok((false, level)) => vec![
                Finding::ok("read_only", "the file takes writes"),
                Finding::warn(
                    "durability",
                    format!("synchronous is {level}: a crash of the machine loses acknowledged tasks and outcomes"),
                    "PRAGMA synchronous = FULL on every connection",
                ),
            ],
            Err(error) if error.kind() == ErrorKind::Denied => vec![Finding::fail(
                "read_only",
                format!("nothing can be written: {error}"),
                "give the account the right to write to the file and to its directory; a URL with mode=ro only looks",
            )],
            Err(error) => vec![Finding::warn(
                "read_only",
                format!("the lock for writing cannot be had: {error}"),
                "find the process that keeps a transaction open on the file",
            )],
        }
    }
}

fn pragma(conn: &Connection, name: &str) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, name, |row| row.get(0))
}

fn examine(work: &Work<'_>, path: Option<&str>, examination: Examination, is_usable: bool) -> Result<Vec<Finding>> {
    let conn = work.conn;
    let mut findings = vec![journal(conn, path)?, size(conn)?, log(path)];
    findings.push(integrity(conn)?);
    if is_usable {
        let tables = tables(conn)?;
        let complete = tables.iter().all(|finding| finding.advice.is_none());
        findings.extend(tables);
        if complete {
            findings.extend(statements(conn)?);
            findings.extend(invariants(conn, examination.tasks_max)?);
        }
    }
    Ok(findings)
}

fn journal(conn: &Connection, path: Option<&str>) -> Result<Finding> {
    let mode: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if path.is_none() {
        let advice = "name a file in the URL where tasks must survive the process";
        return Ok(Finding::warn("journal", "the database is in memory: it ends with the process", advice));
    }
    Ok(if mode == "wal" {
        Finding::ok("journal", "a write-ahead log: reading and writing do not wait for each other")
    } else {
        let told = format!("the journal is {mode:?}: every look waits for every write");
        Finding::warn("journal", told, "open the file once with the right to write to it")
    })
}

fn size(conn: &Connection) -> Result<Finding> {
    let (page, count, max) = (pragma(conn, "page_size")?, pragma(conn, "page_count")?, pragma(conn, "max_page_count")?);
    let (used, most) = (count.saturating_mul(page) >> 20, max.saturating_mul(page) >> 20);
    Ok(if count > max / 10 * 9 {
        let told = format!("{used} MiB of the {most} that the file may have are used");
        Finding::warn("size", told, "queue prune; PRAGMA max_page_count raises the limit")
    } else {
        Finding::ok("size", format!("{used} MiB, of {most} that it may have"))
    })
}

/// The log grows as long as somebody reads an old state of the file.
fn log(path: Option<&str>) -> Finding {
    let bytes =
        path.and_then(|path| std::fs::metadata(Path::new(&format!("{path}-wal"))).ok()).map_or(0, |log| log.len());
    log_finding(bytes)
}

fn log_finding(bytes: u64) -> Finding {
    let told = format!("the write-ahead log has {} MiB", bytes >> 20);
    if bytes > LOG_BYTES_MAX {
        let advice =
            "end the program that keeps a read transaction open on the file; then PRAGMA wal_checkpoint(TRUNCATE)";
        return Finding::warn("snapshots", told, advice);
    }
    Finding::ok("snapshots", told)
}

fn configuration(busy_timeout: Duration, lease: Duration) -> Finding {
    let longest = busy_timeout * crate::threads::BEGIN_TRIES_MAX;
    if longest >= lease {
        let told = format!(
            "a write may wait {longest:?} for another process, the lease is {lease:?}: one wait costs the lease"
        );
        return Finding::warn("configuration", told, "set a shorter busy_timeout, or a longer lease");
    }
    Finding::ok("configuration", format!("lease {lease:?}, a write waits {longest:?} for another process at most"))
}

fn integrity(conn: &Connection) -> Result<Finding> {
    const CHECK: &str = "integrity";
    let bytes = pragma(conn, "page_size")?.saturating_mul(pragma(conn, "page_count")?).unsigned_abs();
    if bytes > CHECKED_BYTES_MAX {
        let told = format!("the file of {} MiB is too large to be checked each time", bytes >> 20);
        return Ok(Finding::ok(CHECK, format!("{told}; PRAGMA integrity_check does it")));
    }
    let said: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok(if said == "ok" {
        Finding::ok(CHECK, "the file is well formed")
    } else {
        Finding::fail(CHECK, format!("the file is damaged: {said}"), "restore it from a backup, or sqlite3's .recover")
    })
}

/// The schema's objects as they are and as they must be.
fn tables(conn: &Connection) -> Result<Vec<Finding>> {
    const CHECK: &str = "tables";
    let fresh = Connection::open_in_memory()?;
    for sql in migrate::statements() {
        fresh.execute_batch(sql)?;
    }
    let (wanted, found) = (objects(&fresh)?, objects(conn)?);
    let mut findings = Vec::new();
    for (name, kind, sql) in &wanted {
        match found.iter().find(|(one, _, _)| one == name) {
            Some((_, _, there)) if there == sql => {}
            Some(_) => findings.push(Finding::fail(
                CHECK,
                format!("the {kind} {name} is not as the migrations made it"),
                "restore it from a backup",
            )),
            None if kind == "index" => {
                findings.push(Finding::fail(CHECK, format!("the index {name} is missing"), one_line(sql)));
            }
            None => {
                findings.push(Finding::fail(
                    CHECK,
                    format!("the {kind} {name} is missing"),
                    "restore it from a backup",
                ));
            }
        }
    }
    if findings.is_empty() {
        findings
            .push(Finding::ok(CHECK, format!("{} tables and indexes are as the migrations made them", wanted.len())));
    }
    Ok(findings)
}

/// Name, kind and definition of the queue's own.
fn objects(conn: &Connection) -> Result<Vec<(String, String, String)>> {
    let sql = "SELECT name, type, sql FROM sqlite_schema WHERE name LIKE 'queue\\_%' ESCAPE '\\' AND sql IS NOT NULL ORDER BY name";
    let mut statement = conn.prepare(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, one_line(&row.get::<_, String>(2)?))))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn one_line(sql: &str) -> String {
    sql.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn statements(conn: &Connection) -> Result<Vec<Finding>> {
    let (count, faults) = plans::faults(conn)?;
    if faults.is_empty() {
        let told = format!("{count} statements find their rows by the right index, unsorted");
        return Ok(vec![Finding::ok("plans", told)]);
    }
    let warn = |fault: String| {
        Finding::warn("plans", format!("a statement does too much: {fault}"), "ANALYZE; else report it")
    };
    Ok(faults.into_iter().map(warn).collect())
}

fn invariants(conn: &Connection, tasks_max: Option<u64>) -> Result<Vec<Finding>> {
    const CHECK: &str = "invariants";
    let next: i64 = conn.query_row("SELECT next FROM queue_id_block", [], |row| row.get(0))?;
    let from = tasks_max.map_or(0, |max| next.saturating_sub_unsigned(max).max(0));
    let mut findings = Vec::new();
    for (what, sql) in VIOLATIONS {
        let mut statement = conn.prepare(sql)?;
        let ids = statement.query_map([from], |row| row.get::<_, i64>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
        if !ids.is_empty() {
            let shown: Vec<_> = ids.iter().take(EXAMPLES).map(i64::to_string).collect();
            let more = if ids.len() > shown.len() { ", …" } else { "" };
            let told = format!("tasks that {what}: {} ({}{more})", ids.len(), shown.join(", "));
            findings.push(Finding::fail(CHECK, told, "report it: the library never writes that"));
        }
    }
    if findings.is_empty() {
        let mut statement =
            conn.prepare("SELECT status, COUNT(*) FROM queue_task WHERE id >= ?1 GROUP BY status ORDER BY status")?;
        let counts = statement.query_map([from], |row| {
            let (status, count): (u8, i64) = (row.get(0)?, row.get(1)?);
            Ok(format!("{count} {}", Status::from_code(status).map_or("of unknown status", Status::as_str)))
        })?;
        let counts = counts.collect::<rusqlite::Result<Vec<_>>>()?;
        let counts = if counts.is_empty() { "there is none".to_owned() } else { counts.join(", ") };
        let which = if from > 0 { format!(" of the latest {}", next - from) } else { String::new() };
        findings.push(Finding::ok(CHECK, format!("each task{which} is in the tables that its status says: {counts}")));
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use queue_core::diagnose::{Level, worst};
    use queue_core::{NewTask, Nonce, Payload, TaskSpec, TaskStore as _, TaskType, Timestamp};

    use super::*;
    use crate::SqliteOptions;

    const NOW: Examination = Examination::at(Timestamp::from_micros(0));

    fn told(findings: &[Finding]) -> String {
        let bad = findings.iter().filter(|finding| finding.level != Level::Ok);
        bad.map(|finding| {
            format!(
                "{} {}: {} -> {}\n",
                finding.level,
                finding.check,
                finding.detail,
                finding.advice.as_deref().unwrap_or("")
            )
        })
        .collect()
    }

    #[tokio::test]
    async fn a_healthy_file_and_then_what_can_be_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let text = told(&store.diagnose(NOW).await);
        assert!(text.contains("fail schema: the database has no queue schema yet"), "{text}");
        store.migrate().await.unwrap();
        let ids = store.reserve_ids(3).await.unwrap();
        let spec = || TaskSpec::new(TaskType::new("a"), Payload::json("1"));
        store.enqueue(ids.map(|id| NewTask { id, nonce: Nonce::new(1), spec: spec() }).collect()).await.unwrap();
        let findings = store.diagnose(NOW).await;
        assert_eq!(worst(&findings), Level::Ok, "{findings:#?}");
        assert!(findings.iter().any(|finding| finding.detail.ends_with("3 queued")), "{findings:#?}");
        let few = store.diagnose(Examination { tasks_max: Some(1), lease: Duration::from_secs(10), ..NOW }).await;
        assert!(few.iter().any(|finding| finding.detail.contains("of the latest 1 is")), "{few:#?}");
        assert!(told(&few).contains("one wait costs the lease"), "{few:#?}");

        let other = Connection::open(&path).unwrap();
        let break_it = "DELETE FROM queue_ready WHERE task_id = 1; DELETE FROM queue_payload WHERE task_id = 2; \
             INSERT INTO queue_ready SELECT queue_id, suspect, rank, run_at + 1, task_id, type_id, NULL, 1, 0 FROM queue_ready \
                 WHERE task_id = 2; \
             UPDATE queue_task SET status = 1, claim_id = 7, started_at = 1, attempt = 1 WHERE id = 3; \
             INSERT INTO queue_finished VALUES (2, 1, 9, 1, 1, NULL)";
        other.execute_batch(break_it).unwrap();
        let text = told(&store.diagnose(NOW).await);
        for expected in [
            "tasks that wait although they are not queued: 1 (3)",
            "tasks that are queued and do not wait, so nobody will ever claim them: 1 (1)",
            "tasks that wait more than once: 1 (2)",
            "tasks that run under a claim that is not there or does not list them, so nobody will ever find them lost: 1 (3)",
            "tasks that are in the list of ended tasks and have not ended so: 1 (9)",
            "tasks that wait or run without a payload: 1 (2)",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        other
            .execute_batch(
                "DROP INDEX queue_claim_session; ALTER TABLE queue_audit ADD COLUMN x INTEGER; DROP TABLE queue_result",
            )
            .unwrap();
        let text = told(&store.diagnose(NOW).await);
        for expected in [
            "the index queue_claim_session is missing -> CREATE INDEX queue_claim_session ON queue_claim (session_id)",
            "the table queue_audit is not as the migrations made it",
            "the table queue_result is missing",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.db");
        let store = SqliteStore::open(&path).await.unwrap();
        store.migrate().await.unwrap();
        let reading = SqliteStore::with_options(SqliteOptions::file(&path).read_only()).await.unwrap();
        let text = told(&reading.diagnose(NOW).await);
        assert!(text.starts_with("fail read_only: "), "{text}");
        let quick = SqliteOptions::file(&path).busy_timeout(Duration::from_millis(1));
        let impatient = SqliteStore::with_options(quick).await.unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let text = told(&impatient.diagnose(NOW).await);
        assert!(text.starts_with("warn read_only: the lock for writing cannot be had"), "{text}");
        let memory = SqliteStore::with_options(SqliteOptions::memory()).await.unwrap();
        assert!(told(&memory.diagnose(NOW).await).contains("warn journal: the database is in memory"));
        assert_eq!(log_finding(LOG_BYTES_MAX + 1).level, Level::Warn);
    }
}
