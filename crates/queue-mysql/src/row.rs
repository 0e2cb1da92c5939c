//! Rows of tasks, checked as they are read.

use std::collections::{BTreeMap, HashSet};

use queue_core::{
    Backoff, Budget, ClaimId, FailureReason, Fence, Priority, QueueName, Status, StoreError, TaskId, TaskState,
    TaskType, Timestamp,
};
use sqlx::mysql::MySqlRow;

use crate::connection::Conn;
use crate::inner::Inner;
use crate::lanes::Lane;
use crate::server::{Deletion, Flavor};
use crate::sql::{are_few, list, maybe_time, opt_time, time, time_unless_0, timed_runs, value};

/// The columns that [`TaskRow::read`] reads, of `queue_task t` joined to `queue_payload p`. The body is not among them.
pub(crate) const COLUMNS: &str = "t.id, t.type_id, t.queue_id, t.priority_rank, t.status, t.reason, t.attempt, \
     t.max_attempts, t.losses, t.claims, t.claim_id, t.run_at, t.started_at, t.completed_at, t.deadline_at, \
     p.created_at, p.budget, p.policy_id, p.body_bytes";
/// How many they are.
pub(crate) const COLUMNS_LEN: usize = 19;

/// A task's row without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TaskRow {
    pub(crate) id: TaskId,
    pub(crate) type_id: u32,
    pub(crate) queue_id: u32,
    pub(crate) rank: i8,
    pub(crate) policy_id: u32,
    pub(crate) body_bytes: u64,
    pub(crate) state: TaskState,
}

/// What a task's row refers to by number.
#[derive(Clone, Debug)]
pub(crate) struct Referred {
    pub(crate) task_type: TaskType,
    pub(crate) queue: QueueName,
    pub(crate) priority: Priority,
    pub(crate) backoff: Backoff,
}

/// A row that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Defect {
    pub(crate) task: TaskId,
    pub(crate) what: &'static str,
}

impl From<Defect> for StoreError {
    fn from(defect: Defect) -> Self {
        Self::corrupt(Some(defect.task), defect.what)
    }
}

impl TaskRow {
    /// Reads [`COLUMNS`]. The outer error is the driver's, the inner one the row's.
    pub(crate) fn read(row: &MySqlRow) -> Result<Result<Self, Defect>, sqlx::Error> {
        let id: u64 = value(row, 0)?;
        let Some(id) = TaskId::new(id) else {
            return Err(sqlx::Error::Decode("task id 0".into()));
        };
        let defect = |what| Ok(Err(Defect { task: id, what }));
        let Some(status) = Status::from_code(value(row, 4)?) else { return defect("its status is unknown") };
        let reason = match value::<Option<u8>>(row, 5)? {
            Some(code) => match FailureReason::from_code(code) {
                Some(reason) => Some(reason),
                None => return defect("its failure reason is unknown"),
            },
            None => None,
        };
        let (Some(created_at), Some(policy_id), Some(body_bytes)) =
            (maybe_time(row, 15)?, value::<Option<u32>>(row, 17)?, value::<Option<u32>>(row, 18)?)
        else {
            return defect("its payload is missing");
        };
        let budget = match value::<Option<i64>>(row, 16)?.map(u64::try_from) {
            None => Budget::NONE,
            Some(Ok(micros)) => Budget::of(std::time::Duration::from_micros(micros)),
            Some(Err(_)) => return defect("its budget is negative"),
        };
        let state = TaskState {
            status,
            reason,
            attempt: value(row, 6)?,
            max_attempts: value(row, 7)?,
            losses: value(row, 8)?,
            fence: Fence::new(value(row, 9)?),
            claim: ClaimId::new(value(row, 10)?),
            cancel_requested: false,
            created_at,
            run_at: time(row, 11)?,
            started_at: time_unless_0(row, 12)?,
            completed_at: time_unless_0(row, 13)?,
            deadline_at: maybe_time(row, 14)?,
            budget,
        };
        if let Some(what) = state.defect() {
            return defect(what);
        }
        let (type_id, queue_id, rank) = (value(row, 1)?, value(row, 2)?, value(row, 3)?);
        Ok(Ok(Self { id, type_id, queue_id, rank, policy_id, body_bytes: body_bytes.into(), state }))
    }

    /// The names behind the numbers.
    pub(crate) fn refer(&self, inner: &Inner) -> Result<Referred, Defect> {
        let defect = |what| Defect { task: self.id, what };
        Ok(Referred {
            task_type: inner.names.task_type(self.type_id).ok_or(defect("its type is unknown"))?,
            queue: inner.names.queue(self.queue_id).ok_or(defect("its queue is unknown"))?,
            priority: Priority::from_rank(self.rank.into()).map_err(|_| defect("its priority is out of range"))?,
            backoff: inner.names.policy(self.policy_id).ok_or(defect("its retry policy is unknown"))?,
        })
    }

    /// Whether all its names are known already.
    pub(crate) fn is_known(&self, inner: &Inner) -> bool {
        inner.names.task_type(self.type_id).is_some()
            && inner.names.queue(self.queue_id).is_some()
            && inner.names.policy(self.policy_id).is_some()
    }
}

/// Locks these tasks' rows (ids with commas between them), in their order. By itself and not with the payloads: on a small
/// table a join is answered by a scan, which would lock, and wait for, the rows of others.
pub(crate) fn lock_sql(ids: &str, ending: &str) -> String {
    // The status is asked for because MySQL walks over a small table, and waits for each lock in it, when the index alone has
    // all that is asked for.
    format!(
        "SELECT id, status FROM queue_task FORCE INDEX (PRIMARY) WHERE id IN ({ids}) ORDER BY id FOR UPDATE{ending}"
    )
}

/// Reads these tasks' rows, for [`TaskRow::read`].
pub(crate) fn read_sql(ids: &str) -> String {
    format!(
        "SELECT {COLUMNS} FROM queue_task AS t FORCE INDEX (PRIMARY) LEFT JOIN queue_payload AS p ON p.task_id = t.id \
         WHERE t.id IN ({ids}) ORDER BY t.id"
    )
}

/// Locks those of the rows that nobody else has locked, and reads them.
pub(crate) async fn lock_free(conn: &mut Conn, ids: &[TaskId]) -> Result<Vec<Result<TaskRow, Defect>>, sqlx::Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let ids = list(ids);
    let mut replies = conn.run(format!("{}; {}", lock_sql(&ids, " SKIP LOCKED"), read_sql(&ids))).await?;
    let (rows, locked) = (replies.pop().unwrap_or_default().rows, replies.pop().unwrap_or_default().rows);
    let mut free: HashSet<u64> = HashSet::with_capacity(locked.len());
    for row in &locked {
        free.insert(value(row, 0)?);
    }
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        if free.contains(&value::<u64>(row, 0)?) {
            found.push(TaskRow::read(row)?);
        }
    }
    Ok(found)
}

/// A task that moves from one state to another.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    pub(crate) before: TaskRow,
    pub(crate) after: TaskState,
}

/// Tasks of which each statement that moves them fits into a packet.
const PACKET_MOVES: usize = 125;
/// Keys of which a statement that deletes by them fits into a packet.
const PACKET_KEYS: usize = 400;

/// The statements that move tasks whose rows are locked: the row itself, what waits and what has ended.
pub(crate) fn moves(flavor: Flavor, moves: &[Move]) -> Vec<String> {
    moves.chunks(PACKET_MOVES).flat_map(|moves| moves_of(flavor, moves)).collect()
}

fn moves_of(flavor: Flavor, moves: &[Move]) -> Vec<String> {
    let tasks = list(moves.iter().map(|one| {
        let (row, state) = (&one.before, &one.after);
        format!(
            "({},{},{},{},{},{},{},{},{},{},{},{},{},{},{})",
            row.id,
            row.type_id,
            row.queue_id,
            row.rank,
            state.status.code(),
            crate::sql::Opt(state.reason.map(FailureReason::code)),
            state.attempt,
            state.max_attempts,
            state.losses,
            state.fence,
            state.claim.map_or(0, ClaimId::get),
            state.run_at.as_micros(),
            state.started_at.map_or(0, Timestamp::as_micros),
            state.completed_at.map_or(0, Timestamp::as_micros),
            opt_time(state.deadline_at),
        )
    }));
    // An insert whose every row is there already: an update by primary key that no optimizer can turn into a scan.
    let mut sql = vec![format!(
        "INSERT INTO queue_task (id, type_id, queue_id, priority_rank, status, reason, attempt, max_attempts, losses, \
         claims, claim_id, run_at, started_at, completed_at, deadline_at) VALUES {tasks} ON DUPLICATE KEY UPDATE \
         status = VALUES(status), reason = VALUES(reason), attempt = VALUES(attempt), losses = VALUES(losses), \
         claim_id = VALUES(claim_id), run_at = VALUES(run_at), started_at = VALUES(started_at), \
         completed_at = VALUES(completed_at), deadline_at = VALUES(deadline_at)"
    )];
    let left: Vec<_> = moves.iter().filter(|one| one.before.state.status == Status::Queued).collect();
    if !left.is_empty() {
        sql.extend(delete_ready(flavor, left.iter().map(|one| ReadyKey::of(&one.before, &one.before.state))));
    }
    let reopened: Vec<_> = moves.iter().filter(|one| one.before.state.status.is_terminal()).collect();
    if !reopened.is_empty() {
        let keys = list(reopened.iter().map(|one| {
            let state = &one.before.state;
            format!(
                "({},{},{})",
                state.status.code(),
                state.completed_at.unwrap_or_default().as_micros(),
                one.before.id
            )
        }));
        sql.push(delete_finished(flavor, &keys));
    }
    let waiting = list(moves.iter().filter(|one| one.after.status == Status::Queued).map(|one| {
        let (row, state) = (&one.before, &one.after);
        ready_row(row.queue_id, row.rank, row.id, row.type_id, row.body_bytes, state)
    }));
    if !waiting.is_empty() {
        sql.push(format!("INSERT INTO queue_ready {READY_COLUMNS} VALUES {waiting}"));
    }
    let ended = list(moves.iter().filter(|one| one.after.status.is_terminal()).map(|one| {
        let (row, state) = (&one.before, &one.after);
        format!(
            "({},{},{},{},{},{})",
            state.status.code(),
            state.completed_at.unwrap_or_default().as_micros(),
            row.id,
            row.type_id,
            row.queue_id,
            crate::sql::Opt(state.reason.map(FailureReason::code)),
        )
    }));
    if !ended.is_empty() {
        sql.push(format!("{INSERT_FINISHED_COLUMNS} VALUES {ended}"));
    }
    sql
}

/// The columns of rows made by [`ready_row`].
pub(crate) const READY_COLUMNS: &str =
    "(queue_id, suspect, priority_rank, run_at, task_id, type_id, deadline_at, body_bytes, again)";
/// When the row at the end of a lane is due: after everything that can be told. A server that looks for the first row from some
/// place on passes over all that was removed and cannot be purged until it meets a row that is there, and where a lane is empty goes
/// on so through those behind it. The row stands for no task: its number is 0.
pub(crate) const NEVER: i64 = i64::MAX;

/// The statement that puts their rows at the ends of these lanes, unless they are there.
pub(crate) fn insert_ends(lanes: &[(u32, i8)]) -> String {
    let ends = list(lanes.iter().map(|(queue, rank)| format!("({queue},0,{rank},{NEVER},0,0,NULL,0,0)")));
    format!("INSERT IGNORE INTO queue_ready {READY_COLUMNS} VALUES {ends}")
}

/// Goes before rows of (status, end, task, type, queue, reason), or before a SELECT of them.
pub(crate) const INSERT_FINISHED_COLUMNS: &str =
    "INSERT INTO queue_finished (status, completed_at, task_id, type_id, queue_id, reason)";

/// A queued task as it waits.
pub(crate) fn ready_row(
    queue_id: u32,
    rank: i8,
    id: TaskId,
    type_id: u32,
    body_bytes: u64,
    state: &TaskState,
) -> String {
    format!(
        "({queue_id},{},{rank},{},{id},{type_id},{},{body_bytes},{})",
        u8::from(state.is_suspect()),
        acts_at(state),
        opt_time(state.deadline_at),
        u8::from(state.fence.get() > 0),
    )
}

/// When something is to be done with a queued task: it is due or, where a settlement came so late that this comes first, its
/// budget is spent. So whoever looks at what is due sees all that can be spent.
fn acts_at(state: &TaskState) -> i64 {
    state.deadline_at.map_or(state.run_at, |deadline| deadline.min(state.run_at)).as_micros()
}

/// Where a queued task waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ReadyKey {
    pub(crate) queue_id: u32,
    pub(crate) suspect: bool,
    pub(crate) rank: i8,
    pub(crate) run_at: i64,
    pub(crate) task: TaskId,
}

impl ReadyKey {
    pub(crate) fn of(row: &TaskRow, state: &TaskState) -> Self {
        Self {
            queue_id: row.queue_id,
            suspect: state.is_suspect(),
            rank: row.rank,
            run_at: acts_at(state),
            task: row.id,
        }
    }
}

/// Removes rows of what waits, by primary key: a statement for each lane.
pub(crate) fn delete_ready(flavor: Flavor, keys: impl IntoIterator<Item = ReadyKey>) -> Vec<String> {
    let mut lanes: BTreeMap<Lane, Vec<ReadyKey>> = BTreeMap::new();
    for key in keys {
        let lane = Lane { queue_id: key.queue_id, suspect: key.suspect, rank: key.rank };
        lanes.entry(lane).or_default().push(key);
    }
    let mut sql = Vec::new();
    for (lane, mut keys) in lanes {
        keys.sort_unstable_by_key(|key| (key.run_at, key.task));
        let delete = |conditions: &[String]| {
            let condition = format!("{} AND ({})", lane.condition(""), conditions.join(" OR "));
            flavor.delete_where("queue_ready", &condition)
        };
        let pairs: Vec<_> = keys.iter().map(|key| (key.run_at, key.task.get())).collect();
        let runs = timed_runs("run_at", &pairs);
        if flavor.deletes_runs() && are_few(runs.len(), pairs.len()) {
            sql.push(delete(&runs));
            continue;
        }
        sql.extend(pairs.chunks(PACKET_KEYS).map(|pairs| {
            // Lists by time the server reads faster than pairs.
            let times = timed_lists(pairs);
            if flavor.deletes_runs() && are_few(times.len(), pairs.len()) {
                return delete(&times);
            }
            let rows = list(pairs.iter().map(|(run_at, task)| format!("({run_at},{task})")));
            let (fixed, columns) = (lane.condition(""), &["run_at", "task_id"]);
            Deletion { table: "queue_ready", index: "PRIMARY", fixed: &fixed, columns, rows: &rows }.sql(flavor)
        }));
    }
    sql
}

/// Conditions that name these pairs of time and task, which rise, by a list for each time.
fn timed_lists(pairs: &[(i64, u64)]) -> Vec<String> {
    let times = pairs.chunk_by(|a, b| a.0 == b.0);
    times
        .map(|pairs| format!("run_at = {} AND task_id IN ({})", pairs[0].0, list(pairs.iter().map(|(_, id)| id))))
        .collect()
}

/// Removes rows of what has ended: (status, end, task).
pub(crate) fn delete_finished(flavor: Flavor, rows: &str) -> String {
    let columns = &["status", "completed_at", "task_id"];
    Deletion { table: "queue_finished", index: "PRIMARY", fixed: "", columns, rows }.sql(flavor)
}
