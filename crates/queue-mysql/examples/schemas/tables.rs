//! The tables, as our migration makes them and as variants change them, and filling them.

use std::fmt::Write as _;

use crate::Result;
use crate::server::{Conn, Server};
use crate::sql::{CLOCK, NEVER};
use crate::variant::{Finished, Place, Variant};

/// The migration of the store: the baseline cannot part from it.
const MIGRATION: &str = include_str!("../../../../migrations/mysql/0001_queue.sql");
/// Payloads up to here may stand elsewhere.
pub(crate) const SMALL_BYTES: usize = 256;
/// Rows of integers that fit into a packet.
const ROWS: usize = 150;

/// What does not change of a task, where it stands in another row than the payload's.
pub(crate) const FIXED: &[(&str, &str)] = &[
    ("nonce", "INT UNSIGNED NULL"),
    ("policy_id", "INT UNSIGNED NULL"),
    ("created_at", "BIGINT NULL"),
    ("budget", "BIGINT NULL"),
    ("content_type", "TINYINT UNSIGNED NULL"),
    ("small_body", "VARBINARY(256) NULL"),
];
/// What changes of a task, where what waits has all that a handler gets.
const STATE: &[(&str, &str)] = &[
    ("attempt", "SMALLINT UNSIGNED NOT NULL"),
    ("max_attempts", "SMALLINT UNSIGNED NOT NULL"),
    ("losses", "SMALLINT UNSIGNED NOT NULL"),
    ("claims", "INT UNSIGNED NOT NULL"),
];

/// Makes a database with the tables of a variant and a session.
pub(crate) async fn make(server: &Server, variant: &Variant) -> Result<()> {
    server.make_database().await?;
    let mut conn = server.connect().await?;
    let lines = MIGRATION.lines().filter(|line| !line.trim_start().starts_with("--"));
    let statements = lines.collect::<Vec<_>>().join("\n");
    conn.run(statements.split(';').map(str::trim).filter(|statement| !statement.is_empty())).await?;
    // The end of the lane. Later it would be in want of what a variant adds.
    conn.run([format!("INSERT INTO queue_ready VALUES (1, 0, 0, {NEVER}, 0, 0, NULL, 0, 0)")]).await?;
    let added = |columns: &[(&str, &str)]| {
        let columns: Vec<_> = columns.iter().map(|(name, kind)| format!("ADD COLUMN {name} {kind}")).collect();
        columns.join(", ")
    };
    match variant.place {
        Place::Apart => {}
        Place::Task => {
            let sql = format!("ALTER TABLE queue_task {}, ADD COLUMN body_bytes INT UNSIGNED NULL", added(FIXED));
            conn.run([sql]).await?;
        }
        Place::Ready => {
            conn.run([format!("ALTER TABLE queue_ready {}, {}", added(STATE), added(FIXED))]).await?;
        }
    }
    if variant.finished == Finished::Batch {
        conn.run([
            "CREATE TABLE queue_ended (status TINYINT UNSIGNED NOT NULL, completed_at BIGINT NOT NULL, claim_id BIGINT \
                   UNSIGNED NOT NULL, members MEDIUMBLOB NOT NULL, PRIMARY KEY (status, completed_at, claim_id))",
        ])
        .await?;
    }
    for sql in &variant.alter {
        conn.run([sql[usize::from(server.is_mariadb)]]).await?;
    }
    conn.run([
        "INSERT INTO queue_type (name) VALUES ('bench')",
        "INSERT INTO queue_queue (name) VALUES ('default')",
        "INSERT INTO queue_lane VALUES (1, 0)",
        "INSERT INTO queue_session VALUES (1, 'bench', 'here', '0', 0, 0, NULL, 0)",
    ])
    .await?;
    Ok(())
}

/// Enqueues tasks with ids that follow on one another, in a transaction as the store's.
pub(crate) async fn enqueue(
    conn: &mut Conn,
    variant: &Variant,
    first: u64,
    count: usize,
    payload: usize,
) -> Result<()> {
    let clock = conn.run(["START TRANSACTION".to_owned(), format!("SELECT {CLOCK}")]).await?;
    let now: i64 = sqlx::Row::try_get_unchecked(&clock[1][0], 0)?;
    let ids: Vec<u64> = (first..).take(count).collect();
    let is_small = payload <= SMALL_BYTES;
    let fixed = |id: u64| match is_small {
        true => format!(",7,1,{now},3600000000,1,'{}'", body(id, payload)),
        false => format!(",7,1,{now},3600000000,1,NULL"),
    };
    let mut sql = Vec::new();
    if variant.place != Place::Task || !is_small {
        let row = |id: u64| format!("({id},7,1,{now},3600000000,1,{payload},'{}')", body(id, payload));
        // Large bodies fit into no packet, and then few large ones are best.
        let rows = if payload > 1_500 { (4 << 20) / payload } else { 16_000 / (payload + 60) };
        let into = "queue_payload (task_id, nonce, policy_id, created_at, budget, content_type, body_bytes, body)";
        insert(&mut sql, into, &ids, rows.max(1), row);
    }
    let deadline = now + 3_600_000_000;
    let state =
        "id, type_id, queue_id, priority_rank, status, attempt, max_attempts, losses, claims, run_at, deadline_at";
    if variant.place == Place::Task {
        let row = |id: u64| {
            let bytes = if is_small { payload.to_string() } else { "NULL".to_owned() };
            format!("({id},1,1,0,0,0,3,0,0,{now},{deadline}{},{bytes})", fixed(id))
        };
        let into = format!("queue_task ({state}, {}, body_bytes)", names(FIXED));
        insert(&mut sql, &into, &ids, ROWS / 2, row);
    } else {
        let row = |id: u64| format!("({id},1,1,0,0,0,3,0,0,{now},{deadline})");
        insert(&mut sql, &format!("queue_task ({state})"), &ids, ROWS, row);
    }
    let key = "queue_id, suspect, priority_rank, run_at, task_id, type_id, deadline_at, body_bytes, again";
    if variant.place == Place::Ready {
        let row = |id: u64| format!("(1,0,0,{now},{id},1,{deadline},{payload},0,0,3,0,0{})", fixed(id));
        let into = format!("queue_ready ({key}, {}, {})", names(STATE), names(FIXED));
        insert(&mut sql, &into, &ids, ROWS / 2, row);
    } else {
        let row = |id: u64| format!("(1,0,0,{now},{id},1,{deadline},{payload},0)");
        insert(&mut sql, &format!("queue_ready ({key})"), &ids, ROWS, row);
    }
    sql.push("COMMIT".to_owned());
    conn.run(sql).await?;
    Ok(())
}

fn insert(sql: &mut Vec<String>, into: &str, ids: &[u64], rows: usize, row: impl Fn(u64) -> String) {
    for ids in ids.chunks(rows) {
        let rows: Vec<_> = ids.iter().map(|id| row(*id)).collect();
        sql.push(format!("INSERT INTO {into} VALUES {}", rows.join(",")));
    }
}

pub(crate) fn names(columns: &[(&str, &str)]) -> String {
    columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// JSON of so many bytes, about as repetitive as payloads are: names that come again, and values that do not.
fn body(id: u64, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 64);
    let mut seed = id;
    text.push('{');
    while text.len() < bytes {
        seed = seed.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        let _ = write!(text, "\"customer\": {}, \"reference\": \"{:016x}\", \"kind\": \"invoice\", ", seed >> 40, seed);
    }
    text.truncate(bytes.saturating_sub(1));
    text.push('}');
    text
}
