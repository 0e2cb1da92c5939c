//! The schema, as numbered SQL, and the runner that applies it.
//!
//! DDL commits by itself, so a crash may come between any two statements: each of them can be run again, and the version is
//! written after the last. Of several processes one applies a step while the others wait for its lock, for a time and not
//! for ever, and look whether they got it.

use queue_core::StoreError;
use queue_core::store::SchemaStatus;

use crate::connection::Conn;
use crate::error::{Class, Failure, Told, classify};
use crate::inner::Inner;
use crate::operation::Operation;
use crate::sql::value;

/// A step of the schema.
#[derive(Debug)]
struct Step {
    version: u32,
    /// The oldest library that may use the schema after this step.
    min_compatible: u32,
    sql: &'static str,
}

const STEPS: &[Step] =
    &[Step { version: 1, min_compatible: 1, sql: include_str!("../../../migrations/mysql/0001_queue.sql") }];

const SUPPORTED: u32 = STEPS[STEPS.len() - 1].version;

/// How long to wait for another process that migrates, in seconds: less than a call may take.
const LOCK_WAIT_S: u32 = 15;

/// The table that holds the version.
pub(crate) const MAKE: &str = "CREATE TABLE IF NOT EXISTS queue_schema (
    one TINYINT UNSIGNED NOT NULL,
    version INT UNSIGNED NOT NULL,
    min_compatible INT UNSIGNED NOT NULL,
    PRIMARY KEY (one),
    CONSTRAINT queue_schema_one CHECK (one = 1)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

/// The SQL of each step.
pub(crate) fn steps() -> impl Iterator<Item = &'static str> {
    STEPS.iter().map(|step| step.sql)
}

/// Finds out how the schema stands.
pub(crate) struct Status;

impl Operation for Status {
    type Output = SchemaStatus;
    const REPEATABLE: bool = true;

    async fn attempt(&mut self, _: &Inner, conn: &mut Conn) -> Result<SchemaStatus, Failure> {
        status(conn).await
    }
}

pub(crate) async fn status(conn: &mut Conn) -> Result<SchemaStatus, Failure> {
    let replies = match conn.run("SELECT version, min_compatible FROM queue_schema WHERE one = 1".to_owned()).await {
        Ok(replies) => replies,
        Err(error) if classify(&error) == Class::NoTable => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let row = replies.first().and_then(|reply| reply.rows.first());
    let (found, min_compatible) = match row {
        Some(row) => (Some(value(row, 0)?), Some(value(row, 1)?)),
        None => (None, None),
    };
    Ok(SchemaStatus { found, supported: SUPPORTED, min_compatible })
}

/// Applies what is missing.
pub(crate) struct Apply;

impl Operation for Apply {
    type Output = Vec<u32>;
    const REPEATABLE: bool = true;

    async fn attempt(&mut self, _: &Inner, conn: &mut Conn) -> Result<Vec<u32>, Failure> {
        // The lock's name holds for the whole server, so it tells the database. A digest keeps it within 64 characters.
        let name = "CONCAT('queue_migrate_', LEFT(SHA2(DATABASE(), 256), 32))";
        let reply = conn.run(format!("SELECT GET_LOCK({name}, {LOCK_WAIT_S})")).await?;
        let got: Option<i64> =
            reply.first().and_then(|reply| reply.rows.first()).map(|row| value(row, 0)).transpose()?.flatten();
        if got != Some(1) {
            let told = "another process has been migrating this database for long; try again when it is done";
            return Err(StoreError::unavailable(Told(told.to_owned())).into());
        }
        let applied = apply(conn).await;
        // When the connection is lost, so is its lock.
        let released = conn.run(format!("DO RELEASE_LOCK({name})")).await;
        let applied = applied?;
        released?;
        Ok(applied)
    }
}

async fn apply(conn: &mut Conn) -> Result<Vec<u32>, Failure> {
    conn.run_committing(MAKE.to_owned()).await?;
    let status = status(conn).await?;
    if let Err(problem @ queue_core::error::SchemaProblem::TooNew { .. }) = status.check() {
        return Err(StoreError::from(problem).into());
    }
    let mut applied = Vec::new();
    for step in STEPS.iter().filter(|step| step.version > status.found.unwrap_or(0)) {
        for statement in statements(step.sql) {
            conn.run_committing(statement.to_owned()).await?;
        }
        if record(conn, step).await? {
            applied.push(step.version);
        }
    }
    Ok(applied)
}

/// Writes down that a step is done. `false` when somebody else did so: on a busy OceanBase two were seen within the lock at once.
/// A step does no harm when it is run twice; but one alone may say that it was theirs.
async fn record(conn: &mut Conn, step: &Step) -> Result<bool, Failure> {
    let Step { version, min_compatible, .. } = step;
    let raise = format!(
        "UPDATE queue_schema SET version = {version}, min_compatible = {min_compatible} WHERE one = 1 AND version < {version}"
    );
    let first = format!(
        "INSERT IGNORE INTO queue_schema (one, version, min_compatible) VALUES (1, {version}, {min_compatible})"
    );
    for sql in [raise, first] {
        if conn.run_committing(sql).await?.iter().any(|reply| reply.affected > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The statements of a step: each ends with a semicolon at the end of its line.
fn statements(sql: &str) -> impl Iterator<Item = &str> {
    sql.split(";\n").map(str::trim).filter(|statement| {
        statement.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with("--"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_rise_and_each_is_usable_by_itself() {
        assert!(STEPS.is_sorted_by_key(|step| step.version));
        assert!(STEPS.iter().all(|step| step.min_compatible <= step.version && step.version <= SUPPORTED));
    }

    #[test]
    fn a_step_is_cut_into_its_statements() {
        let sql = "-- why;\n-- more\nCREATE TABLE a (\n  x INT\n);\n\nINSERT INTO a VALUES (1);\n-- the end\n";
        let found: Vec<_> = statements(sql).collect();
        assert_eq!(found.len(), 2);
        assert!(found[0].ends_with(')') && found[1].starts_with("INSERT"));
        for step in STEPS {
            for statement in statements(step.sql) {
                let code = statement.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("--"));
                let code = code.unwrap_or_default();
                let again = code.starts_with("CREATE TABLE IF NOT EXISTS") || code.starts_with("INSERT IGNORE");
                assert!(again, "this cannot be run again: {code}");
            }
        }
    }
}
