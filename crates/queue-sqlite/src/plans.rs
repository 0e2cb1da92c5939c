//! How SQLite runs the statements whose cost must not grow with what is kept: the doctor looks, and the tests do.

use rusqlite::Connection;

use crate::{acting, busy, claiming, lanes, looking, reaping, session, settling, stats, survey};

/// Each statement, and the small tables that it may read as a whole: sessions, the claims that are open, their members and
/// signals. Their size is bounded by what runs.
const STATEMENTS: &[(&str, &[&str])] = &[
    (lanes::HOP, &[]),
    (survey::DUE, &[]),
    (survey::LATER, &[]),
    (claiming::HELD, &["m"]),
    (settling::DROP_CLAIM, &["m"]),
    (session::CANCELS, &["s"]),
    (session::EMPTY_CLAIMS, &["c", "m"]),
    (session::EMPTY_SESSIONS, &["s"]),
    (reaping::EXPIRED, &["queue_session"]),
    (reaping::LOST, &["s", "m"]),
    (reaping::PART, &[]),
    (busy::RUNNING, &["c", "m"]),
    (busy::WAITING, &[]),
    (busy::OF_TYPE, &[]),
    (acting::OLD, &[]),
    (acting::OLD_ORPHANS, &[]),
    (looking::BY_ID, &[]),
    (looking::RUNNING, &["c", "m"]),
    (looking::ENDED, &[]),
    (looking::QUEUED, &[]),
    (stats::DUE_COUNT, &[]),
    (stats::LATER_COUNT, &[]),
    (stats::RUNNING_COUNT, &["c", "m"]),
    (stats::ENDED_SINCE, &[]),
];

/// Statements that sort what they found: it is small.
const SORTED: &[&str] = &[
    claiming::HELD,
    reaping::EXPIRED,
    reaping::LOST,
    looking::RUNNING,
    session::CANCELS,
    stats::RUNNING_COUNT,
    busy::RUNNING,
    busy::WAITING,
];

fn plan(conn: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
    for index in 1..=statement.parameter_count() {
        statement.raw_bind_parameter(index, 1)?;
    }
    let mut rows = statement.raw_query();
    let mut steps = Vec::new();
    while let Some(row) = rows.next()? {
        steps.push(row.get(3)?);
    }
    Ok(steps)
}

/// How many statements there are, and the steps in which one of them walks over what is kept, or sorts it.
pub(crate) fn faults(conn: &Connection) -> rusqlite::Result<(usize, Vec<String>)> {
    let mut faults = Vec::new();
    for (sql, scanned) in STATEMENTS {
        for step in plan(conn, sql)? {
            let scan = step.strip_prefix("SCAN ").and_then(|rest| rest.split(' ').next());
            let walks =
                scan.is_some_and(|table| !scanned.contains(&table) && table != "CONSTANT" && !table.starts_with('('));
            let sorts = step.contains("TEMP B-TREE") && !SORTED.contains(sql);
            if walks || sorts {
                let beginning: String = sql.chars().take(80).collect();
                faults.push(format!("{step}, in: {beginning}…"));
            }
        }
    }
    Ok((STATEMENTS.len(), faults))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILL: &str = "
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
        INSERT INTO queue_ready (queue_id, suspect, rank, run_at, task_id, type_id, deadline_at, bytes, again)
            SELECT 1, 0, 0, i, i, i % 3, NULL, 9, 0 FROM n;
        INSERT INTO queue_finished (status, completed_at, task_id, type_id, queue_id, reason)
            SELECT 2, run_at, task_id + 20000, 1, 1, NULL FROM queue_ready;
        INSERT INTO queue_task (id, nonce, type_id, queue_id, rank, policy_id, bytes, status, attempt, max_attempts, losses, claims,
                                created_at, run_at)
            SELECT task_id, 1, 1, 1, 0, 1, 9, 0, 0, 3, 0, 0, 1, run_at FROM queue_ready;
        INSERT INTO queue_session (id, name, host, version, opened_at, lease_until, drain)
            SELECT task_id, '', '', '', 1, task_id, 0 FROM queue_ready WHERE task_id < 50;
        INSERT INTO queue_claim (id, session_id, created_at, open, members)
            SELECT task_id, task_id % 50, 1, 2, '[1,2]' FROM queue_ready WHERE task_id < 500;
        ANALYZE;
    ";

    #[test]
    fn no_statement_walks_over_what_is_kept() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("../../../migrations/sqlite/0001_queue.sql")).unwrap();
        assert_eq!(faults(&conn).unwrap().1, [] as [String; 0]);
        // On few rows, and with the statistics of a large file, should its owner ever gather them.
        conn.execute_batch(FILL).unwrap();
        assert_eq!(faults(&conn).unwrap().1, [] as [String; 0]);
    }

    /// The plan alone does not say it: `>` on a row value seeks with `>=` and walks from there.
    #[test]
    fn a_hop_reads_one_row_of_a_lane() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("../../../migrations/sqlite/0001_queue.sql")).unwrap();
        conn.execute_batch(FILL).unwrap();
        for (sql, params) in [
            (lanes::HOP, vec![1, 0, 0]),
            (lanes::HOP, vec![1, 0, 1]),
            (survey::DUE, vec![1, 0, 0, 10_000, 10_000, 30_000, 2]),
            (survey::LATER, vec![1, 0, 0, 19_999, 2]),
            (reaping::PART, vec![1, 0, 0, 10_000, 10_000, 2]),
            (acting::OLD, vec![2, 5, 2]),
        ] {
            let mut statement = conn.prepare(sql).unwrap();
            let rows = statement.query_map(rusqlite::params_from_iter(&params), |_| Ok(())).unwrap().count();
            let steps = statement.get_status(rusqlite::StatementStatus::VmStep);
            assert!(steps < 100, "{sql} with {params:?} took {steps} steps for {rows} rows");
        }
    }
}
