//! Writing new tasks, in a transaction of our own or in the user's.

use std::collections::HashMap;
use std::sync::Arc;

use queue_core::ids::IdBlock;
use queue_core::payload::PayloadDigest;
use queue_core::time::micros;
use queue_core::{Enqueued, NewTask, Nonce, StoreError, TaskId, Timestamp};
use sqlx::mysql::MySqlArguments;
use sqlx::{Arguments, MySqlConnection};

use crate::connection::{Conn, PACKET_BYTES, Reply, bound_on, run_on};
use crate::error::{Class, Failure, classify};
use crate::inner::{Inner, missing};
use crate::lanes::Lane;
use crate::names::Numbers;
use crate::operation::Operation;
use crate::row::{READY_COLUMNS, ready_row};
use crate::sql::{CLOCK, add, chunk, list, opt_time, placeholders, time, value};

/// What a payload's row takes in a packet beside the body, at most.
const PAYLOAD_ROW_BYTES: usize = 72;
/// A body of which few fit into a packet.
const LARGE_BODY_BYTES: usize = 1_500;
/// What is sent at once of large bodies.
pub(crate) const LARGE_PACKET_BYTES: usize = 4 << 20;
/// Tasks whose rows without a body fit into a packet.
const PACKET_TASKS: usize = 200;
/// Keys looked up by one statement.
const KEYS_CHUNK: usize = 100;

/// Reserves ids: one statement that commits itself.
pub(crate) struct ReserveIds {
    pub(crate) count: u32,
}

impl Operation for ReserveIds {
    type Output = IdBlock;
    const REPEATABLE: bool = true;

    async fn attempt(&mut self, _: &Inner, conn: &mut Conn) -> Result<IdBlock, Failure> {
        // LAST_INSERT_ID(expression) comes back with the answer, so it takes no second look.
        let count = self.count;
        let sql = format!("UPDATE queue_id_block SET next_id = LAST_INSERT_ID(next_id) + {count} WHERE one = 1");
        let reply = conn.run_committing(sql).await?.pop().unwrap_or_default();
        let first = TaskId::new(reply.last_insert_id).filter(|_| reply.affected == 1);
        let first = first.ok_or_else(|| missing("the row of queue_id_block"))?;
        Ok(IdBlock::new(first, u64::from(count)))
    }
}

/// A key's row: whose it is, and what its payload was.
type Keys = HashMap<(u32, Vec<u8>), (TaskId, PayloadDigest)>;

/// Writes a batch, of which every name has its number.
pub(crate) struct Enqueue {
    pub(crate) batch: Arc<[NewTask]>,
    /// An id was there already: look which, and with which nonce.
    pub(crate) repeated: bool,
}

impl Operation for Enqueue {
    type Output = Vec<Enqueued>;

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<Vec<Enqueued>, Failure> {
        let rows = numbered(inner, &self.batch)?;
        let reply = conn.begin(&format!("SELECT {CLOCK}")).await?;
        let now = clock(&reply)?;
        let tables = Tables { prefix: "", lock: "" };
        let keys = tables.keys(conn.raw(), &rows).await?;
        self.repeated |=
            rows.iter().any(|row| row.key().and_then(|key| keys.get(&key)).is_some_and(|(id, _)| *id == row.task.id));
        let written = if self.repeated { tables.nonces(conn.raw(), &rows).await? } else { HashMap::new() };
        let plan = Plan::make(&rows, &written, &keys)?;
        if plan.write.is_empty() {
            conn.rollback().await?;
            return Ok(plan.answers);
        }
        if let Err(error) = tables.insert_payloads(conn.raw(), &plan.write, now).await {
            if classify(&error) == Class::Duplicate && !self.repeated {
                self.repeated = true;
                return Err(Failure::Again("repeated_enqueue"));
            }
            return Err(error.into());
        }
        if let Err(error) = tables.insert_keys(conn.raw(), &plan.write, now).await {
            return Err(match classify(&error) {
                Class::Duplicate => Failure::Again("key_raced"),
                _ => error.into(),
            });
        }
        conn.run_all_and_commit(tables.insert_tasks(&plan.write, now)).await?;
        let due = plan.write.iter().filter(|row| row.task.state(now).run_at <= now).map(Numbered::lane);
        inner.lanes.expect(due);
        Ok(plan.answers)
    }
}

/// Writes a batch in the transaction that the connection is in, with nothing but plain SELECT and INSERT.
pub(crate) async fn enqueue_in(
    inner: &Inner,
    conn: &mut MySqlConnection,
    batch: &[NewTask],
) -> Result<Vec<Enqueued>, Failure> {
    let rows = numbered(inner, batch)?;
    let prefix = format!("{}.", inner.server.database);
    let now = clock(&run_on(conn, inner.server.flavor.say(format!("SELECT {CLOCK}"))).await?)?;
    let mut tables = Tables { prefix: &prefix, lock: "" };
    let mut repeated = false;
    for _ in 0..3 {
        let keys = tables.keys(conn, &rows).await?;
        let written = if repeated { tables.nonces(conn, &rows).await? } else { HashMap::new() };
        let plan = Plan::make(&rows, &written, &keys)?;
        if plan.write.is_empty() {
            return Ok(plan.answers);
        }
        // The keys first: when one is double, nothing else was written yet.
        let inserted = match tables.insert_keys(conn, &plan.write, now).await {
            Ok(()) => tables.insert_payloads(conn, &plan.write, now).await.map_err(|error| (error, true)),
            Err(error) => Err((error, false)),
        };
        match inserted {
            Ok(()) => {
                for sql in tables.insert_tasks(&plan.write, now) {
                    run_on(conn, sql).await?;
                }
                return Ok(plan.answers);
            }
            Err((error, after_keys)) if classify(&error) == Class::Duplicate => {
                // Somebody was faster. Only a locking read sees what was committed after the user's snapshot.
                if after_keys && plan.write.iter().any(|row| row.task.spec.key.is_some()) {
                    return Err(error.into());
                }
                tables.lock = " LOCK IN SHARE MODE";
                repeated = true;
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
    Err(Failure::Store(StoreError::unavailable("the batch's keys keep changing; roll back and try again")))
}

/// A task with the numbers of its names.
#[derive(Clone, Copy)]
struct Numbered<'a> {
    task: &'a NewTask,
    numbers: Numbers,
}

impl Numbered<'_> {
    fn lane(&self) -> Lane {
        Lane { queue_id: self.numbers.queue_id, suspect: false, rank: self.task.spec.priority.rank() }
    }

    fn key(&self) -> Option<(u32, Vec<u8>)> {
        self.task.spec.key.as_ref().map(|key| (self.numbers.type_id, key.as_str().as_bytes().to_vec()))
    }
}

fn numbered<'a>(inner: &Inner, batch: &'a [NewTask]) -> Result<Vec<Numbered<'a>>, StoreError> {
    let number = |task| inner.names.numbers(task).map(|numbers| Numbered { task, numbers });
    let rows: Option<Vec<_>> = batch.iter().map(number).collect();
    rows.ok_or_else(|| StoreError::other("the batch names a type, a queue or a policy that was not prepared"))
}

fn clock(replies: &[Reply]) -> Result<Timestamp, Failure> {
    match replies.first().and_then(|reply| reply.rows.first()) {
        Some(row) => Ok(time(row, 0)?),
        None => Err(missing("the clock's answer").into()),
    }
}

/// What a batch will do, decided before anything is written.
struct Plan<'a> {
    answers: Vec<Enqueued>,
    write: Vec<Numbered<'a>>,
}

impl<'a> Plan<'a> {
    fn make(rows: &[Numbered<'a>], written: &HashMap<TaskId, Nonce>, keys: &Keys) -> Result<Self, StoreError> {
        let mut planned: HashMap<TaskId, Nonce> = HashMap::new();
        let mut taken: Keys = HashMap::new();
        let mut plan = Self { answers: Vec::with_capacity(rows.len()), write: Vec::new() };
        for (index, row) in rows.iter().enumerate() {
            let task = row.task;
            if let Some(nonce) = written.get(&task.id).or_else(|| planned.get(&task.id)) {
                if *nonce != task.nonce {
                    return Err(StoreError::corrupt(Some(task.id), "its id was enqueued before with another nonce"));
                }
                plan.answers.push(Enqueued::Created(task.id));
                continue;
            }
            if let Some(key) = row.key() {
                let digest = task.spec.payload.digest();
                match keys.get(&key).or_else(|| taken.get(&key)) {
                    // Written by an earlier try, and pruned since.
                    Some((existing, _)) if *existing == task.id => {
                        plan.answers.push(Enqueued::Created(task.id));
                        continue;
                    }
                    Some((existing, before)) if *before != digest => {
                        return Err(StoreError::KeyConflict { index, existing: *existing });
                    }
                    Some((existing, _)) => {
                        plan.answers.push(Enqueued::Existing(*existing));
                        continue;
                    }
                    None => taken.insert(key, (task.id, digest)),
                };
            }
            planned.insert(task.id, task.nonce);
            plan.answers.push(Enqueued::Created(task.id));
            plan.write.push(*row);
        }
        // Rows are written in the order of their keys, whatever the order of the batch.
        plan.write.sort_unstable_by_key(|row| row.task.id);
        Ok(plan)
    }
}

/// The tables, as one connection sees them.
struct Tables<'a> {
    /// The database before each name, where the connection may be in another one.
    prefix: &'a str,
    /// What makes a read see what was committed last.
    lock: &'static str,
}

impl Tables<'_> {
    async fn keys(&self, conn: &mut MySqlConnection, rows: &[Numbered<'_>]) -> Result<Keys, sqlx::Error> {
        let mut found = HashMap::new();
        let mut keys: Vec<_> = rows.iter().filter_map(Numbered::key).collect();
        keys.sort_unstable();
        keys.dedup();
        for keys in keys.chunks(KEYS_CHUNK) {
            let mut arguments = MySqlArguments::default();
            for (type_id, key) in keys {
                add(&mut arguments, *type_id)?;
                add(&mut arguments, key.as_slice())?;
            }
            let sql = format!(
                "SELECT type_id, idempotency_key, task_id, digest FROM {}queue_idempotency FORCE INDEX (PRIMARY) \
                 WHERE (type_id, idempotency_key) IN ({}){}",
                self.prefix,
                placeholders(keys.len(), 2),
                self.lock,
            );
            for row in bound_on(conn, sql, arguments).await?.rows {
                let digest: Vec<u8> = value(&row, 3)?;
                let digest = <[u8; 32]>::try_from(digest).map_err(|_| decode("a digest of another length"))?;
                let task = TaskId::new(value(&row, 2)?).ok_or_else(|| decode("task id 0"))?;
                found.insert((value(&row, 0)?, value(&row, 1)?), (task, PayloadDigest::from_bytes(digest)));
            }
        }
        Ok(found)
    }

    async fn nonces(
        &self,
        conn: &mut MySqlConnection,
        rows: &[Numbered<'_>],
    ) -> Result<HashMap<TaskId, Nonce>, sqlx::Error> {
        let ids = list(rows.iter().map(|row| row.task.id));
        let sql = format!(
            "SELECT task_id, nonce FROM {}queue_payload FORCE INDEX (PRIMARY) WHERE task_id IN ({ids}){}",
            self.prefix, self.lock
        );
        let mut found = HashMap::new();
        for row in run_on(conn, sql).await?.pop().unwrap_or_default().rows {
            if let Some(id) = TaskId::new(value(&row, 0)?) {
                found.insert(id, Nonce::new(value(&row, 1)?));
            }
        }
        Ok(found)
    }

    async fn insert_payloads(
        &self,
        conn: &mut MySqlConnection,
        mut rows: &[Numbered<'_>],
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        while !rows.is_empty() {
            let mut bytes = 0;
            let fits = rows.iter().take_while(|row| {
                let body = row.task.spec.payload.body().len();
                bytes += body + PAYLOAD_ROW_BYTES;
                // Large bodies do not fit whatever is done, and then few large packets are better than many.
                bytes <= if body > LARGE_BODY_BYTES { LARGE_PACKET_BYTES } else { PACKET_BYTES }
            });
            let (these, left) = rows.split_at(chunk(fits.count().max(1)));
            rows = left;
            let mut arguments = MySqlArguments::default();
            arguments.reserve(these.len() * 8, bytes.min(LARGE_PACKET_BYTES));
            for row in these {
                let spec = &row.task.spec;
                let body = spec.payload.body();
                add(&mut arguments, row.task.id.get())?;
                add(&mut arguments, row.task.nonce.get())?;
                add(&mut arguments, row.numbers.policy_id)?;
                add(&mut arguments, now.as_micros())?;
                add(&mut arguments, spec.budget.length().map(micros))?;
                add(&mut arguments, spec.payload.content_type().code())?;
                add(&mut arguments, u32::try_from(body.len()).unwrap_or(u32::MAX))?;
                add(&mut arguments, body.as_ref())?;
            }
            let sql = format!(
                "INSERT INTO {}queue_payload (task_id, nonce, policy_id, created_at, budget, content_type, body_bytes, \
                 body) VALUES {}",
                self.prefix,
                placeholders(these.len(), 8)
            );
            bound_on(conn, sql, arguments).await?;
        }
        Ok(())
    }

    async fn insert_keys(
        &self,
        conn: &mut MySqlConnection,
        rows: &[Numbered<'_>],
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        let mut rows: Vec<_> = rows.iter().filter_map(|row| Some((row.key()?, row.task))).collect();
        // In the order of the key, so that two batches with the same keys wait for each other and do not lock up.
        rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut rows = rows.as_slice();
        while !rows.is_empty() {
            let (these, left) = rows.split_at(chunk(rows.len()));
            rows = left;
            let mut arguments = MySqlArguments::default();
            for ((type_id, key), task) in these {
                add(&mut arguments, *type_id)?;
                add(&mut arguments, key.as_slice())?;
                add(&mut arguments, task.id.get())?;
                add(&mut arguments, task.spec.payload.digest().as_bytes().as_slice())?;
                add(&mut arguments, now.as_micros())?;
            }
            let sql = format!(
                "INSERT INTO {}queue_idempotency (type_id, idempotency_key, task_id, digest, created_at) VALUES {}",
                self.prefix,
                placeholders(these.len(), 5)
            );
            bound_on(conn, sql, arguments).await?;
        }
        Ok(())
    }

    /// The rows that hold nothing but integers of ours, in statements that each fit into a packet.
    fn insert_tasks(&self, rows: &[Numbered<'_>], now: Timestamp) -> Vec<String> {
        rows.chunks(PACKET_TASKS).flat_map(|rows| self.insert_some(rows, now)).collect()
    }

    fn insert_some(&self, rows: &[Numbered<'_>], now: Timestamp) -> [String; 2] {
        let states: Vec<_> = rows.iter().map(|row| (row, row.task.state(now))).collect();
        let tasks = list(states.iter().map(|(Numbered { task, numbers }, state)| {
            format!(
                "({},{},{},{},{},{},{},0,0,{},{})",
                task.id,
                numbers.type_id,
                numbers.queue_id,
                task.spec.priority.rank(),
                state.status.code(),
                state.attempt,
                state.max_attempts,
                state.run_at.as_micros(),
                opt_time(state.deadline_at),
            )
        }));
        let ready = list(states.iter().map(|(Numbered { task, numbers }, state)| {
            let rank = task.spec.priority.rank();
            let bytes = task.spec.payload.body().len() as u64;
            ready_row(numbers.queue_id, rank, task.id, numbers.type_id, bytes, state)
        }));
        let prefix = self.prefix;
        [
            format!(
                "INSERT INTO {prefix}queue_task (id, type_id, queue_id, priority_rank, status, attempt, max_attempts, \
                 losses, claims, run_at, deadline_at) VALUES {tasks}"
            ),
            format!("INSERT INTO {prefix}queue_ready {READY_COLUMNS} VALUES {ready}"),
        ]
    }
}

fn decode(what: &'static str) -> sqlx::Error {
    sqlx::Error::Decode(what.into())
}

#[cfg(test)]
mod tests {
    use queue_core::{IdempotencyKey, Payload, TaskSpec, TaskType};

    use super::*;

    const NUMBERS: Numbers = Numbers { type_id: 1, queue_id: 1, policy_id: 1 };

    fn task(id: u64, key: Option<&str>, body: &'static str) -> NewTask {
        let mut spec = TaskSpec::new(TaskType::new("a"), Payload::json(body));
        spec.key = key.map(|key| IdempotencyKey::parse(key).unwrap());
        NewTask { id: TaskId::new(id).unwrap(), nonce: Nonce::new(7), spec }
    }

    fn plan(tasks: &[NewTask], written: &[(u64, u32)], keys: &Keys) -> Result<(Vec<Enqueued>, usize), StoreError> {
        let rows: Vec<_> = tasks.iter().map(|task| Numbered { task, numbers: NUMBERS }).collect();
        let written = written.iter().map(|(id, nonce)| (TaskId::new(*id).unwrap(), Nonce::new(*nonce))).collect();
        Plan::make(&rows, &written, keys).map(|plan| (plan.answers, plan.write.len()))
    }

    #[test]
    fn repeats_are_recognised() {
        let ids: Vec<_> = (1..=3).map(|id| TaskId::new(id).unwrap()).collect();
        let tasks = [task(1, None, "1"), task(2, Some("k"), "2"), task(3, Some("k"), "2")];
        let answers = vec![Enqueued::Created(ids[0]), Enqueued::Created(ids[1]), Enqueued::Existing(ids[1])];
        assert_eq!(plan(&tasks, &[], &Keys::new()).unwrap(), (answers.clone(), 2));
        assert_eq!(plan(&tasks[..2], &[(1, 7), (2, 7)], &Keys::new()).unwrap(), (answers[..2].to_vec(), 0));
        let digest = tasks[1].spec.payload.digest();
        let keys = Keys::from([((1, b"k".to_vec()), (ids[1], digest))]);
        assert_eq!(plan(&tasks, &[(1, 7)], &keys).unwrap(), (answers, 0));
        assert!(matches!(plan(&tasks, &[(1, 8)], &keys), Err(StoreError::Corrupt { .. })));
    }

    #[test]
    fn a_key_with_another_payload_is_a_conflict() {
        let tasks = [task(1, Some("k"), "1"), task(2, Some("k"), "2")];
        let error = plan(&tasks, &[], &Keys::new()).unwrap_err();
        assert!(matches!(error, StoreError::KeyConflict { index: 1, existing } if existing.get() == 1));
    }
}
