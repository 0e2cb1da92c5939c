//! Writing new tasks, and reserving their ids.

use std::collections::HashMap;

use queue_core::ids::IdBlock;
use queue_core::payload::PayloadDigest;
use queue_core::{Enqueued, IdempotencyKey, NewTask, StoreError, TaskId, TaskType};
use rusqlite::params;

use crate::jobs::Weight;
use crate::runs::follows;
use crate::task::{TaskRow, add_ready, budget_micros, room};
use crate::work::{Id as _, Result, Work, clamped, task_id};

const RESERVE: &str = "UPDATE queue_id_block SET next = next + ?1 WHERE id = 1 RETURNING next - ?1";
const ADD: &str = "INSERT INTO queue_task (id, nonce, type_id, queue_id, rank, policy_id, bytes, status, attempt, \
                   max_attempts, losses, claims, created_at, run_at, deadline_at, budget, room) VALUES \
                   (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, zeroblob(?17)) \
                   ON CONFLICT DO NOTHING";
// Tasks that are new are no suspects and were never claimed.
const ADD_READY: &str = add_ready!(
    "INSERT OR FAIL",
    "SELECT queue_id, 0, rank, run_at, id, type_id, deadline_at, bytes, 0 FROM queue_task WHERE id BETWEEN ?1 AND ?2"
);
const NONCE: &str = "SELECT nonce FROM queue_task WHERE id = ?1";
const ADD_PAYLOAD: &str = "INSERT INTO queue_payload (task_id, content_type, body) VALUES (?1, ?2, ?3)";
const KEY: &str = "SELECT task_id, digest FROM queue_idempotency WHERE type_id = ?1 AND key = ?2";
const ADD_KEY: &str = "INSERT INTO queue_idempotency (type_id, key, task_id, digest, created_at, orphan) \
                       VALUES (?1, ?2, ?3, ?4, ?5, 0)";

/// How many of those who enqueue share a transaction with a batch as large as can be, where more of them wait.
const SHARERS: usize = 4;
/// Payload that weighs as much as a task.
const TASK_BYTES: usize = 1_024;

/// What a batch weighs in its transaction: less than it writes. Tasks of many lanes change a page of each, or a few pages, and those of
/// several batches change the same ones.
pub(crate) fn weight(batch: &[NewTask]) -> Weight {
    let bytes: usize = batch.iter().map(|task| task.spec.payload.body().len()).sum();
    batch.len().max(bytes / TASK_BYTES).div_ceil(SHARERS)
}

pub(crate) fn reserve_ids(work: &Work<'_>, count: u32) -> Result<IdBlock> {
    let first = work.first(RESERVE, [count], |row| task_id(row.get(0)?))?;
    let first = first.ok_or_else(|| StoreError::corrupt(None, "the row that ids are reserved from is gone"))?;
    Ok(IdBlock::new(first, count.into()))
}

pub(crate) fn enqueue(work: &mut Work<'_>, batch: &[NewTask]) -> Result<Vec<Enqueued>> {
    let mut answers = Vec::with_capacity(batch.len());
    let mut created = Vec::with_capacity(batch.len());
    let mut taken = HashMap::new();
    // Of two tasks with one key, the first of the batch counts. Nothing is written before all of them are judged.
    for (index, task) in batch.iter().enumerate() {
        let key = match &task.spec.key {
            None => None,
            Some(key) => match judge(work, index, task, key, &mut taken)? {
                Judged::Answered(answer) => {
                    answers.push(answer);
                    continue;
                }
                Judged::New(digest) => Some((key, digest)),
            },
        };
        answers.push(Enqueued::Created(task.id));
        created.push((task, key));
    }
    // Rows are kept by id. Written in another order, they would leave their pages half empty.
    created.sort_by_key(|(task, _)| task.id);
    let mut added = Vec::with_capacity(created.len());
    let written = created.into_iter().try_for_each(|(task, key)| {
        if create(work, task, key)? {
            added.push(task.id);
        }
        Ok(())
    });
    // Also after a failure: whoever's transaction it is may commit what was written before.
    let waits = add_to_ready(work, &added);
    written.and(waits).map(|()| answers)
}

/// Puts new tasks, in the order of their ids, on the list of what waits.
fn add_to_ready(work: &Work<'_>, tasks: &[TaskId]) -> Result<()> {
    for run in tasks.chunk_by(|one, next| follows(*one, *next)) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        if work.execute(ADD_READY, [first.number(), last.number()])? != run.len() {
            return Err(StoreError::corrupt(Some(*first), "it, or one after it, is not what was written").into());
        }
    }
    Ok(())
}

/// What a task's key says of it.
enum Judged {
    /// There is nothing to create.
    Answered(Enqueued),
    /// The key is free. With the digest of the payload, which it is kept with.
    New(PayloadDigest),
}

/// Keys of tasks that a batch will create, and their payloads.
type Taken<'a> = HashMap<(&'a TaskType, &'a IdempotencyKey), (TaskId, PayloadDigest)>;

/// Looks whether the key of a task is taken, by a task that is there or by one before it in the batch.
fn judge<'a>(
    work: &mut Work<'_>,
    index: usize,
    task: &'a NewTask,
    key: &'a IdempotencyKey,
    taken: &mut Taken<'a>,
) -> Result<Judged> {
    let (id, spec) = (task.id, &task.spec);
    if is_written(work, task)? {
        return Ok(Judged::Answered(Enqueued::Created(id)));
    }
    let type_id = work.memory.names.intern(work.conn, &spec.task_type)?;
    let kept = work.first(KEY, params![type_id, key.as_str()], |row| {
        Ok((task_id(row.get(0)?)?, PayloadDigest::from_bytes(row.get(1)?)))
    })?;
    let digest = spec.payload.digest();
    match kept.or_else(|| taken.get(&(&spec.task_type, key)).copied()) {
        // Written by an earlier try, and pruned since.
        Some((existing, _)) if existing == id && kept.is_some() => Ok(Judged::Answered(Enqueued::Created(id))),
        // Twice in the batch: whether it is the same task, its row will tell.
        Some((existing, _)) if existing == id => Ok(Judged::New(digest)),
        Some((existing, before)) if before != digest => Err(StoreError::KeyConflict { index, existing }.into()),
        Some((existing, _)) => Ok(Judged::Answered(Enqueued::Existing(existing))),
        None => {
            taken.insert((&spec.task_type, key), (id, digest));
            Ok(Judged::New(digest))
        }
    }
}

/// Writes a task and its key, but not its place among those that wait; `false` when an earlier try of this very task has written it.
fn create(work: &mut Work<'_>, task: &NewTask, key: Option<(&IdempotencyKey, PayloadDigest)>) -> Result<bool> {
    let (id, spec) = (task.id, &task.spec);
    let state = task.state(work.now);
    let row = TaskRow {
        id,
        type_id: work.memory.names.intern(work.conn, &spec.task_type)?,
        queue_id: work.memory.names.intern(work.conn, &spec.queue)?,
        priority: spec.priority,
        policy_id: work.memory.names.intern(work.conn, &spec.retry.backoff().kept())?,
        bytes: clamped(spec.payload.body().len()),
        state,
        progress: None,
    };
    let is_new = add_task(work, task, &row)?;
    if is_new {
        let payload = &spec.payload;
        let body: &[u8] = payload.body();
        work.execute(ADD_PAYLOAD, params![id.number(), payload.content_type().code(), body])?;
        if let Some((key, digest)) = key {
            let now = work.now.as_micros();
            work.execute(ADD_KEY, params![row.type_id, key.as_str(), id.number(), digest.as_bytes(), now])?;
        }
    }
    Ok(is_new)
}

/// Writes the task's row; `false` when an earlier try of this very task has written it.
fn add_task(work: &Work<'_>, task: &NewTask, row: &TaskRow) -> Result<bool> {
    let state = &row.state;
    if let Some(defect) = state.defect() {
        return Err(StoreError::corrupt(Some(row.id), defect).into());
    }
    let added = work.execute(
        ADD,
        params![
            row.id.number(),
            task.nonce.get(),
            row.type_id,
            row.queue_id,
            row.priority.rank(),
            row.policy_id,
            row.bytes,
            state.status.code(),
            state.attempt,
            state.max_attempts,
            state.losses,
            state.fence.get(),
            state.created_at.as_micros(),
            state.run_at.as_micros(),
            state.deadline_at.map(queue_core::Timestamp::as_micros),
            budget_micros(state.budget),
            room(state),
        ],
    )?;
    if added == 1 {
        return Ok(true);
    }
    // An earlier try of this very task wrote it, or it is another one.
    is_written(work, task).map(|_| false)
}

/// Whether an earlier try of this very task, known by its nonce, wrote it.
fn is_written(work: &Work<'_>, task: &NewTask) -> Result<bool> {
    match work.first(NONCE, [task.id.number()], |row| Ok(row.get::<_, i64>(0)?))? {
        None => Ok(false),
        Some(nonce) if nonce == i64::from(task.nonce.get()) => Ok(true),
        Some(_) => Err(StoreError::corrupt(Some(task.id), "its id was enqueued before with another nonce").into()),
    }
}
