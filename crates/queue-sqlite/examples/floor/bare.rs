//! By hand: one connection, prepared statements, the rows that the store writes and nothing else. No session, no check of what
//! is read, no retry, no thread beside it; a payload is read and dropped.

use std::path::Path;

use queue_sqlite::rusqlite::{Connection, Result, params};

use crate::{Load, Rates, Watch};

const ADD_TASK: &str = "INSERT INTO queue_task (id, nonce, type_id, queue_id, rank, policy_id, bytes, status, attempt, \
                        max_attempts, losses, claims, created_at, run_at, deadline_at, budget, room) \
                        VALUES (?1, 7, 1, 1, 0, 1, ?2, 0, 0, 3, 0, 0, ?3, ?3, ?3 + 3600000000, 3600000000, zeroblob(25))";
const ADD_PAYLOAD: &str = "INSERT INTO queue_payload (task_id, content_type, body) VALUES (?1, 0, ?2)";
const ADD_READY: &str = "INSERT INTO queue_ready (queue_id, suspect, rank, run_at, task_id, type_id, deadline_at, bytes, again) \
                         VALUES (1, 0, 0, ?3, ?1, 1, ?3 + 3600000000, ?2, 0)";

const DUE: &str = "SELECT run_at, task_id FROM queue_ready WHERE queue_id = 1 AND suspect = 0 AND rank = 0 AND run_at <= ?1 \
                   ORDER BY run_at, task_id LIMIT ?2";
const START: &str = "UPDATE queue_task SET status = 1, attempt = attempt + 1, claims = claims + 1, claim_id = ?2, started_at = ?3, \
                     room = zeroblob(9) \
                     WHERE id = ?1 AND status = 0";
const DROP_READY: &str =
    "DELETE FROM queue_ready WHERE queue_id = 1 AND suspect = 0 AND rank = 0 AND run_at = ?1 AND task_id = ?2";
const PAYLOAD: &str = "SELECT body FROM queue_payload WHERE task_id = ?1";
const ADD_CLAIM: &str =
    "INSERT INTO queue_claim (id, session_id, created_at, open, members) VALUES (?1, 1, ?2, ?3, ?4)";

const END: &str =
    "UPDATE queue_task SET status = 2, completed_at = ?3, room = NULL WHERE id = ?1 AND claim_id = ?2 AND status = 1";
const ADD_FINISHED: &str = "INSERT INTO queue_finished (status, completed_at, task_id, type_id, queue_id, reason) \
                            VALUES (2, ?2, ?1, 1, 1, NULL)";
const DROP_CLAIM: &str = "DELETE FROM queue_claim WHERE id = ?1";

/// When the first batch is enqueued; a later one is, and a run ends, some microseconds after.
const BEGAN: i64 = 1_700_000_000_000_000;

pub(crate) fn run(path: &Path, load: Load) -> Result<Rates> {
    let conn = Connection::open(path)?;
    conn.execute_batch("PRAGMA synchronous = FULL")?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(Rates { enqueue: enqueue(&conn, load)?, drain: drain(&conn, load)? })
}

fn enqueue(conn: &Connection, load: Load) -> Result<f64> {
    let payload = load.payload();
    let bytes = payload.len() as i64;
    let watch = Watch::start();
    for batch in 0..load.tasks / load.batch {
        conn.execute_batch("BEGIN IMMEDIATE")?;
        let mut add_task = conn.prepare_cached(ADD_TASK)?;
        let mut add_payload = conn.prepare_cached(ADD_PAYLOAD)?;
        let mut add_ready = conn.prepare_cached(ADD_READY)?;
        for index in 0..load.batch {
            let id = (batch * load.batch + index + 1) as i64;
            let at = BEGAN + batch as i64;
            add_task.execute(params![id, bytes, at])?;
            add_payload.execute(params![id, payload.as_bytes()])?;
            add_ready.execute(params![id, bytes, at])?;
        }
        conn.execute_batch("COMMIT")?;
    }
    Ok(watch.rate(load.tasks))
}

fn drain(conn: &Connection, load: Load) -> Result<f64> {
    let mut held = Vec::new();
    let (mut claim, mut done) = (1, 0);
    let watch = Watch::start();
    while done < load.tasks {
        conn.execute_batch("BEGIN IMMEDIATE")?;
        done += settle(conn, &held, claim)?;
        claim += 1;
        held = take(conn, claim, load.batch)?;
        conn.execute_batch("COMMIT")?;
    }
    Ok(watch.rate(load.tasks))
}

fn settle(conn: &Connection, held: &[i64], claim: i64) -> Result<usize> {
    let at = BEGAN + claim;
    let mut end = conn.prepare_cached(END)?;
    let mut add_finished = conn.prepare_cached(ADD_FINISHED)?;
    for id in held {
        assert_eq!(end.execute(params![id, claim, at])?, 1);
        add_finished.execute(params![id, at])?;
    }
    conn.prepare_cached(DROP_CLAIM)?.execute([claim])?;
    Ok(held.len())
}

fn take(conn: &Connection, claim: i64, batch: usize) -> Result<Vec<i64>> {
    let now = BEGAN + 1_000_000_000;
    let due = conn
        .prepare_cached(DUE)?
        .query_map(params![now, batch as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<(i64, i64)>>>()?;
    let mut start = conn.prepare_cached(START)?;
    let mut drop_ready = conn.prepare_cached(DROP_READY)?;
    let mut payload = conn.prepare_cached(PAYLOAD)?;
    for (run_at, id) in &due {
        assert_eq!(start.execute(params![id, claim, now])?, 1);
        drop_ready.execute(params![run_at, id])?;
        let body: Vec<u8> = payload.query_row([id], |row| row.get(0))?;
        std::hint::black_box(body);
    }
    let ids = due.into_iter().map(|(_, id)| id).collect::<Vec<_>>();
    let members = format!("[{}]", ids.iter().map(i64::to_string).collect::<Vec<_>>().join(","));
    conn.prepare_cached(ADD_CLAIM)?.execute(params![claim, now, ids.len() as i64, members])?;
    Ok(ids)
}
