//! The schema, as numbered SQL, and the runner that applies it.

use queue_core::StoreError;
use queue_core::error::SchemaProblem;
use queue_core::store::SchemaStatus;

use crate::work::{Result, Work};

/// A step of the schema.
#[derive(Debug)]
struct Step {
    version: u32,
    /// The oldest library that may use the schema after this step.
    min_compatible: u32,
    sql: &'static str,
}

const STEPS: &[Step] =
    &[Step { version: 1, min_compatible: 1, sql: include_str!("../../../migrations/sqlite/0001_queue.sql") }];

const SUPPORTED: u32 = STEPS[STEPS.len() - 1].version;

const EXISTS: &str = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'queue_schema'";
const MAKE: &str = "CREATE TABLE queue_schema (
    id             INTEGER PRIMARY KEY CHECK (id = 1),
    version        INTEGER NOT NULL,
    min_compatible INTEGER NOT NULL
) STRICT";
const FIND: &str = "SELECT version, min_compatible FROM queue_schema WHERE id = 1";
const SET: &str = "INSERT OR REPLACE INTO queue_schema (id, version, min_compatible) VALUES (1, ?1, ?2)";

/// The whole schema, as an empty database gets it.
pub(crate) fn statements() -> impl Iterator<Item = &'static str> {
    std::iter::once(MAKE).chain(STEPS.iter().map(|step| step.sql))
}

pub(crate) fn status(work: &Work<'_>) -> Result<SchemaStatus> {
    let found: Option<(u32, u32)> =
        if work.exists(EXISTS, [])? { work.first(FIND, [], |row| Ok((row.get(0)?, row.get(1)?)))? } else { None };
    Ok(SchemaStatus {
        found: found.map(|(version, _)| version),
        supported: SUPPORTED,
        min_compatible: found.map(|(_, min_compatible)| min_compatible),
    })
}

/// Whether there is nothing to apply; refuses a schema that is too new.
pub(crate) fn is_current(work: &Work<'_>) -> Result<bool> {
    match status(work)?.check() {
        Ok(()) => Ok(true),
        Err(problem @ SchemaProblem::TooNew { .. }) => Err(StoreError::from(problem).into()),
        Err(_) => Ok(false),
    }
}

/// Applies what is missing. The whole of it is in the transaction of this job, so that of many processes one does it, and a
/// crash leaves nothing behind.
pub(crate) fn migrate(work: &Work<'_>) -> Result<Vec<u32>> {
    if is_current(work)? {
        return Ok(Vec::new());
    }
    if !work.exists(EXISTS, [])? {
        work.conn.execute_batch(MAKE)?;
    }
    let found = status(work)?.found.unwrap_or(0);
    let mut applied = Vec::new();
    for step in STEPS.iter().filter(|step| step.version > found) {
        work.conn.execute_batch(step.sql)?;
        work.execute(SET, [step.version, step.min_compatible])?;
        applied.push(step.version);
    }
    Ok(applied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_rise_and_each_is_usable_by_itself() {
        assert!(STEPS.is_sorted_by_key(|step| step.version));
        assert!(STEPS.iter().all(|step| step.min_compatible <= step.version && step.version <= SUPPORTED));
    }

    /// Times come from the one clock file; what a database makes up by itself is not that clock.
    #[test]
    fn no_step_lets_the_database_tell_the_time() {
        for step in STEPS {
            let sql: String =
                step.sql.lines().filter(|line| !line.starts_with("--")).collect::<String>().to_uppercase();
            let told = ["CURRENT_", "DATETIME", "STRFTIME", "UNIXEPOCH", "JULIANDAY", "DEFAULT"];
            assert_eq!(told.into_iter().find(|word| sql.contains(word)), None, "in version {}", step.version);
        }
    }
}
