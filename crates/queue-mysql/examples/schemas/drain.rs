//! Draining the tables on several connections, each claiming a batch and settling it with the next claim.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlx::Row as _;
use sqlx::mysql::MySqlRow;
use tokio::task::JoinSet;

use crate::Result;
use crate::server::{Conn, Server};
use crate::sql::{CLOCK, LANE, delete_by_id, delete_ready, guard, guard_and, list, within};
use crate::tables::{FIXED, SMALL_BYTES, enqueue, make, names};
use crate::variant::{Claim, Finished, Place, Variant};

/// Tasks enqueued at once.
const ENQUEUED: usize = 500;
/// As in the store: rows this young are always looked at, and the head once a second.
const YOUNG_MICROS: i64 = 200_000;
const HEAD_MICROS: i64 = 1_000_000;
/// What a handler and the checks of the store get of a task.
const COLUMNS: &str = "t.type_id, t.queue_id, t.priority_rank, t.status, t.reason, t.attempt, t.max_attempts, t.losses, t.claims, \
     t.claim_id, t.started_at, t.completed_at";

const BEGIN: &str = "START TRANSACTION";
/// Holds the session's row, and says whether it is alive.
const ALIVE: &str = "SELECT fenced_at IS NULL FROM queue_session WHERE id = 1 LOCK IN SHARE MODE";

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) tasks: usize,
    pub(crate) payload: usize,
    pub(crate) connections: usize,
    pub(crate) batch: usize,
    /// Connections that enqueue half of the tasks while the rest is drained.
    pub(crate) producers: usize,
    /// A consistent snapshot is held all the time, as a backup does.
    pub(crate) snapshot: bool,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Tasks a second.
    pub(crate) filled: f64,
    pub(crate) drained: f64,
    /// Bytes of the binary log a task, from claim to settled.
    pub(crate) binlog: Option<f64>,
    pub(crate) megabytes: f64,
    /// Transactions run again because of a deadlock or a lock that was waited for too long.
    pub(crate) repeats: usize,
}

/// Fills fresh tables and drains them.
#[expect(clippy::disallowed_methods, reason = "it measures")]
pub(crate) async fn run(server: &Server, variant: &Variant, load: Load) -> Result<Outcome> {
    make(server, variant).await?;
    let next = Arc::new(AtomicU64::new(1));
    let before = if load.producers == 0 { load.tasks } else { load.tasks / 2 };
    let begun = Instant::now();
    produce(server, variant, load, 4, before, &next).await?.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    let filled = before as f64 / begun.elapsed().as_secs_f64();
    let mut snapshot = server.connect().await?;
    if load.snapshot {
        let level = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ";
        snapshot.run([level, "START TRANSACTION WITH CONSISTENT SNAPSHOT"]).await?;
    }
    let shared =
        Arc::new(Shared { mark: Mutex::default(), left: AtomicUsize::new(load.tasks), bytes: AtomicUsize::new(0) });
    let mut workers = JoinSet::new();
    let mut ready = Vec::new();
    for _ in 0..load.connections {
        let conn = server.connect().await?;
        let (variant, shared, is_mariadb) = (variant.clone(), Arc::clone(&shared), server.is_mariadb);
        ready.push(Worker { conn, variant, shared, is_mariadb, load, claims: 0, held: None, repeats: 0 });
    }
    let logged = server.binlog_bytes().await;
    let begun = Instant::now();
    let producers = produce(server, variant, load, load.producers, load.tasks - before, &next).await?;
    for worker in ready {
        workers.spawn(worker.drain());
    }
    let mut repeats = 0;
    for drained in workers.join_all().await {
        repeats += drained?;
    }
    let drained = load.tasks as f64 / begun.elapsed().as_secs_f64();
    producers.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    let binlog = server.binlog_bytes().await.zip(logged).filter(|_| load.producers == 0);
    let binlog = binlog.map(|(now, then)| now.saturating_sub(then) as f64 / load.tasks as f64);
    snapshot.run(["COMMIT"]).await?;
    check(server, variant, load, &shared).await?;
    Ok(Outcome { filled, drained, binlog, megabytes: server.megabytes().await?, repeats })
}

/// Enqueues so many tasks on so many connections.
async fn produce(
    server: &Server,
    variant: &Variant,
    load: Load,
    connections: usize,
    tasks: usize,
    next: &Arc<AtomicU64>,
) -> Result<JoinSet<Result<()>>> {
    let end = next.load(Ordering::Relaxed) + tasks as u64;
    let mut producers = JoinSet::new();
    for _ in 0..connections {
        let (mut conn, variant, next) = (server.connect().await?, variant.clone(), Arc::clone(next));
        producers.spawn(async move {
            loop {
                let taken = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |first| {
                    (first < end).then_some((first + ENQUEUED as u64).min(end))
                });
                let Ok(first) = taken else { return Ok(()) };
                let count = (end - first).min(ENQUEUED as u64) as usize;
                enqueue(&mut conn, &variant, first, count, load.payload).await?;
            }
        });
    }
    Ok(producers)
}

/// That nothing was lost and nothing is left.
async fn check(server: &Server, variant: &Variant, load: Load, shared: &Shared) -> Result<()> {
    let ended = match variant.finished {
        Finished::Select | Finished::Values => "(SELECT COUNT(*) FROM queue_finished)",
        Finished::Batch => "(SELECT CAST(SUM(LENGTH(members)) / 8 AS SIGNED) FROM queue_ended)",
        Finished::None | Finished::Delete => "-1",
    };
    let sql = format!(
        "SELECT (SELECT COUNT(*) FROM queue_task WHERE status = 2), {ended}, (SELECT COUNT(*) FROM queue_ready WHERE task_id > 0), \
         (SELECT COUNT(*) FROM queue_claim)"
    );
    let row = server.connect().await?.run([sql]).await?.remove(0).remove(0);
    let tasks = load.tasks as i64;
    let (done, ended): (i64, i64) = (row.try_get_unchecked(0)?, row.try_get_unchecked(1)?);
    let (ready, claims): (i64, i64) = (row.try_get_unchecked(2)?, row.try_get_unchecked(3)?);
    let bytes = shared.bytes.load(Ordering::Relaxed);
    let is_right = done == if variant.finished == Finished::Delete { 0 } else { tasks }
        && (ended == tasks || ended == -1)
        && ready == 0
        && (claims == 0 || variant.keeps_claims)
        && bytes == load.tasks * load.payload;
    if is_right {
        Ok(())
    } else {
        Err(format!("{done} done, {ended} listed, {ready} ready, {claims} claims, {bytes} bytes read").into())
    }
}

/// What the connections of a process share.
#[derive(Debug)]
struct Shared {
    mark: Mutex<Mark>,
    /// Tasks that nobody claimed yet.
    left: AtomicUsize,
    bytes: AtomicUsize,
}

/// Up to where the lane was taken, and when its head was looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    passed: Option<(i64, u64)>,
    head_at: i64,
}

struct Worker {
    conn: Conn,
    variant: Variant,
    shared: Arc<Shared>,
    is_mariadb: bool,
    load: Load,
    claims: u64,
    /// The claim that is to be settled, when it was made, and its tasks.
    held: Option<(u64, i64, Vec<u64>)>,
    repeats: usize,
}

impl Worker {
    /// Until nothing is left. How many transactions were repeated.
    async fn drain(mut self) -> Result<usize> {
        loop {
            match self.trip().await {
                Ok(true) => {}
                Ok(false) if self.shared.left.load(Ordering::Relaxed) == 0 => return Ok(self.repeats),
                Ok(false) => tokio::time::sleep(Duration::from_millis(2)).await,
                Err(sqlx::Error::Database(error)) if error.message().contains("try restarting transaction") => {
                    self.conn.run(["ROLLBACK"]).await?;
                    self.repeats += 1;
                    lock(&self.shared.mark).head_at = 0;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Settles what is held and claims the next batch. Whether anything was done.
    async fn trip(&mut self) -> sqlx::Result<bool> {
        let looks_apart = self.variant.claim == Claim::FourTrips;
        let did = self.held.is_some();
        let mut first = self.settle();
        if self.variant.apart && did {
            first.push("COMMIT".to_owned());
            self.conn.run(first.drain(..)).await?;
            self.held = None;
        }
        let is_open = !first.is_empty() || !looks_apart;
        if is_open && first.is_empty() {
            first.push(BEGIN.to_owned());
        }
        first.extend(self.look(is_open));
        if !looks_apart {
            first.push(self.lock());
            let mut replies = self.conn.run(first).await?;
            let rows = replies.pop().unwrap_or_default();
            let (now, _) = looked(&replies.pop().unwrap_or_default())?;
            return Ok(self.take(rows, now).await? || did);
        }
        let (now, due) = looked(&self.conn.run(first).await?.pop().unwrap_or_default())?;
        if due > now {
            if is_open {
                self.conn.run(["COMMIT"]).await?;
                self.held = None;
            }
            return Ok(did);
        }
        let lock = self.lock();
        let locked = if is_open { vec![lock] } else { vec![BEGIN.to_owned(), ALIVE.to_owned(), lock] };
        let rows = self.conn.run(locked).await?.pop().unwrap_or_default();
        Ok(self.take(rows, now).await? || did)
    }

    /// Takes these rows and commits.
    async fn take(&mut self, mut rows: Vec<MySqlRow>, now: i64) -> sqlx::Result<bool> {
        let reads_apart = self.reads_apart();
        if rows.is_empty() {
            self.conn.run(["COMMIT"]).await?;
            self.held = None;
            let mut mark = lock(&self.shared.mark);
            mark.head_at = 0;
            return Ok(false);
        }
        let keys: Vec<(i64, u64)> = rows.iter().map(key).collect::<sqlx::Result<_>>()?;
        if self.variant.eager_mark {
            self.pass(&keys);
        }
        let mut ids: Vec<u64> = keys.iter().map(|(_, id)| *id).collect();
        ids.sort_unstable();
        self.claims += 1;
        // As random as the store's.
        let id = (self.conn.number << 32 | self.claims).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let next = format!(
            "(SELECT run_at FROM queue_ready FORCE INDEX (PRIMARY) WHERE {LANE}{} ORDER BY run_at, task_id LIMIT 1)",
            after("", keys.last().copied())
        );
        let commits_apart = matches!(self.variant.claim, Claim::FourTrips | Claim::ThreeTrips);
        let mut sql = self.taking(id, now, &keys, &ids, (!commits_apart).then_some(&*next));
        if reads_apart {
            sql.push(format!(
                "SELECT t.run_at, t.id, {COLUMNS}, t.deadline_at{} FROM queue_task AS t FORCE INDEX (PRIMARY){} WHERE {}",
                self.fixed_columns(),
                self.join_payload("t.id"),
                within("t.id", &ids)
            ));
        }
        if !commits_apart {
            sql.push("COMMIT".to_owned());
        }
        let mut replies = self.conn.run(sql).await?;
        if commits_apart {
            self.conn.run([format!("SELECT {next}"), "COMMIT".to_owned()]).await?;
        } else {
            replies.pop();
        }
        if reads_apart {
            rows = replies.pop().unwrap_or_default();
        }
        self.took(&rows)?;
        self.pass(&keys);
        self.held = Some((id, now, ids));
        Ok(true)
    }

    /// Whether tasks and payloads are read by a statement of their own.
    fn reads_apart(&self) -> bool {
        !matches!(self.variant.claim, Claim::Ours | Claim::OfReady) && self.variant.place != Place::Ready
    }

    /// The statements that make the claim, and ask for this as well.
    fn taking(&self, id: u64, now: i64, keys: &[(i64, u64)], ids: &[u64], asked: Option<&str>) -> Vec<String> {
        let mut sql = vec![delete_ready(self.is_mariadb, keys)];
        if !self.variant.ticket {
            sql.push(format!(
                "UPDATE queue_task FORCE INDEX (PRIMARY) SET status = 1, attempt = attempt + 1, \
                 claims = LEAST(claims, 4294967294) + 1, claim_id = {id}, started_at = {now} \
                 WHERE {} AND status = 0",
                within("id", ids)
            ));
        }
        sql.push(asked.map_or_else(|| guard(ids.len()), |asked| guard_and(ids.len(), asked)));
        let member = |task: &u64| match self.variant.ticket {
            // A ticket must also say which claim of the task it is: the task's row does not.
            true => format!("{task:016x}{:08x}", 1),
            false => format!("{task:016x}"),
        };
        let members = match self.variant.names_members {
            true => format!("0x{}", ids.iter().map(member).collect::<String>()),
            false => "''".to_owned(),
        };
        sql.push(format!(
            "INSERT INTO queue_claim (id, session_id, created_at, members) VALUES ({id}, 1, {now}, {members})"
        ));
        sql
    }

    /// The statements that settle what is held, in a transaction that they begin.
    fn settle(&self) -> Vec<String> {
        let Some((claim, started_at, ids)) = &self.held else { return Vec::new() };
        let mut sql = vec![BEGIN.to_owned(), format!("SET @queue_now = {CLOCK}")];
        let within_ids = within("id", ids);
        let and = format!(" AND status = 1 AND claim_id = {claim}");
        if self.variant.finished == Finished::Delete {
            sql.push(delete_by_id(self.is_mariadb, "queue_task", "id", ids, &and));
            sql.push(guard(ids.len()));
            sql.push(delete_by_id(self.is_mariadb, "queue_payload", "task_id", ids, ""));
        } else if self.variant.ticket {
            sql.push(format!(
                "UPDATE queue_task FORCE INDEX (PRIMARY) SET status = 2, attempt = attempt + 1, \
                 claims = 1, claim_id = {claim}, started_at = {started_at}, completed_at = @queue_now WHERE {within_ids} \
                 AND status = 0 AND claims = 0"
            ));
            sql.push(guard(ids.len()));
        } else {
            sql.push(format!(
                "UPDATE queue_task FORCE INDEX (PRIMARY) SET status = 2, completed_at = @queue_now WHERE {within_ids}{and}"
            ));
            sql.push(guard(ids.len()));
        }
        let into = "INSERT INTO queue_finished (status, completed_at, task_id, type_id, queue_id, reason)";
        match self.variant.finished {
            Finished::Select => sql.push(format!(
                "{into} SELECT 2, @queue_now, id, type_id, queue_id, NULL FROM queue_task FORCE INDEX (PRIMARY) \
                 WHERE {within_ids}"
            )),
            Finished::Values => {
                let rows = list(ids.iter().map(|id| format!("(2,@queue_now,{id},1,1,NULL)")));
                sql.push(format!("{into} VALUES {rows}"));
            }
            Finished::Batch => {
                let members: String = ids.iter().map(|id| format!("{id:016x}")).collect();
                sql.push(format!("INSERT INTO queue_ended VALUES (2, @queue_now, {claim}, 0x{members})"));
            }
            Finished::None | Finished::Delete => {}
        }
        if !self.variant.keeps_claims {
            sql.push(delete_by_id(self.is_mariadb, "queue_claim", "id", &[*claim], ""));
        }
        sql
    }

    /// A look at the lanes: the clock, the session, and when the first of each is due. In a transaction it holds the session's row.
    fn look(&self, is_open: bool) -> Vec<String> {
        let first = |suspect: u8| {
            format!(
                "(SELECT r.run_at FROM queue_ready AS r FORCE INDEX (PRIMARY) WHERE r.queue_id = l.queue_id AND r.suspect = {suspect} \
                 AND r.priority_rank = l.priority_rank ORDER BY r.queue_id, r.suspect, r.priority_rank, r.run_at LIMIT 1)"
            )
        };
        let mark = *lock(&self.shared.mark);
        // Where all before was taken, for a second after a look at the head.
        let begins_later = !self.variant.head && micros() - mark.head_at < HEAD_MICROS;
        let ordinary = match mark.passed.filter(|_| begins_later) {
            Some((passed_at, _)) => format!(
                "CASE WHEN l.queue_id = 1 AND l.priority_rank = 0 THEN (SELECT MIN(run_at) FROM queue_ready WHERE {LANE} \
                 AND run_at >= {}) ELSE {} END",
                passed_at.min(micros() - YOUNG_MICROS),
                first(0)
            ),
            None => first(0),
        };
        let look = format!(
            "SELECT {CLOCK}, (SELECT MAX(id) FROM queue_type), s.fenced_at IS NULL, l.queue_id, l.priority_rank, {ordinary}, {} \
             FROM queue_session AS s LEFT JOIN queue_queue AS q ON q.paused_at IS NULL LEFT JOIN queue_lane AS l \
             FORCE INDEX (PRIMARY) ON l.queue_id = q.id WHERE s.id = 1",
            first(1)
        );
        match is_open {
            true if self.is_mariadb => vec![ALIVE.to_owned(), look],
            true => vec![format!("{look} FOR SHARE OF s")],
            false => vec![look],
        }
    }

    /// The statement that locks what is due: (due, task) and, if it reads all, the task and its payload.
    fn lock(&self) -> String {
        let mut mark = lock(&self.shared.mark);
        let now = micros();
        let from = if self.variant.head || mark.passed.is_none() || now - mark.head_at >= HEAD_MICROS {
            mark.head_at = now;
            String::new()
        } else {
            match mark.passed.filter(|passed| passed.0 < now - YOUNG_MICROS) {
                Some(passed) => after("r.", Some(passed)),
                None => format!(" AND r.run_at >= {}", now - YOUNG_MICROS),
            }
        };
        let order = format!(
            "WHERE r.queue_id = 1 AND r.suspect = 0 AND r.priority_rank = 0{from} AND r.run_at <= {CLOCK} \
             ORDER BY r.run_at, r.task_id LIMIT {} FOR UPDATE",
            self.load.batch
        );
        let ready = "r.run_at, r.task_id, r.type_id, r.deadline_at, r.body_bytes";
        let of = if self.variant.claim == Claim::OfReady { " OF r" } else { "" };
        if self.variant.place == Place::Ready {
            let join = self.join_payload("r.task_id");
            return format!(
                "SELECT {ready}, r.attempt, r.max_attempts, r.losses, r.claims{} FROM queue_ready AS r FORCE INDEX (PRIMARY){join} \
                 {order}{of} SKIP LOCKED",
                self.fixed_columns()
            );
        }
        if self.reads_apart() {
            return format!("SELECT {ready} FROM queue_ready AS r FORCE INDEX (PRIMARY) {order} SKIP LOCKED");
        }
        format!(
            "SELECT {ready}, {COLUMNS}{} FROM queue_ready AS r FORCE INDEX (PRIMARY) LEFT JOIN queue_task AS t \
             FORCE INDEX (PRIMARY) ON t.id = r.task_id{} {order}{of} SKIP LOCKED",
            self.fixed_columns(),
            self.join_payload("r.task_id")
        )
    }

    /// The columns of what does not change, the body last, for [`body_bytes`].
    fn fixed_columns(&self) -> String {
        let apart = ", p.created_at, p.budget, p.policy_id, p.body_bytes, p.content_type, p.body";
        let is_small = self.load.payload <= SMALL_BYTES;
        match self.variant.place {
            Place::Apart => apart.to_owned(),
            _ if !is_small => apart.to_owned(),
            Place::Task => format!(", t.{}", names(FIXED).replace(", ", ", t.")),
            Place::Ready => format!(", r.{}", names(FIXED).replace(", ", ", r.")),
        }
    }

    /// The join to payloads, which is asked for nothing where the body stands in the row.
    fn join_payload(&self, id: &str) -> String {
        let and = match self.variant.place {
            Place::Apart => "",
            Place::Task => " AND t.small_body IS NULL",
            Place::Ready => " AND r.small_body IS NULL",
        };
        format!(" LEFT JOIN queue_payload AS p FORCE INDEX (PRIMARY) ON p.task_id = {id}{and}")
    }

    /// Reads the rows as a store does, and notes how many.
    fn took(&self, rows: &[MySqlRow]) -> sqlx::Result<()> {
        let mut bytes = 0;
        for row in rows {
            bytes += row.try_get_unchecked::<Vec<u8>, _>(row.len() - 1)?.len();
        }
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shared.left.fetch_sub(rows.len(), Ordering::Relaxed);
        Ok(())
    }

    /// Moves the low-water mark behind these.
    fn pass(&self, keys: &[(i64, u64)]) {
        let mut mark = lock(&self.shared.mark);
        mark.passed = mark.passed.max(keys.last().copied());
    }
}

/// The condition that a row of the lane stands behind this place; before each column goes `of`.
fn after(of: &str, place: Option<(i64, u64)>) -> String {
    place.map_or(String::new(), |(run_at, id)| {
        format!(" AND ({of}run_at > {run_at} OR ({of}run_at = {run_at} AND {of}task_id > {id}))")
    })
}

fn key(row: &MySqlRow) -> sqlx::Result<(i64, u64)> {
    Ok((row.try_get_unchecked(0)?, row.try_get_unchecked(1)?))
}

/// The clock, and when the first task of the lane is due.
fn looked(rows: &[MySqlRow]) -> sqlx::Result<(i64, i64)> {
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    Ok((row.try_get_unchecked(0)?, row.try_get_unchecked(5)?))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the server is on this machine, and the store's clock is no part of this"
)]
fn micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as i64)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
