//! Taking what was judged: out of what waits, into the hands of the claim.

use std::collections::HashMap;

use queue_core::claim::Ended;
use queue_core::payload::ContentType;
use queue_core::{
    ClaimRequest, ClaimedTask, Event, FailureReason, Payload, Status, StoreError, TaskId, Timestamp, transition,
};

use crate::connection::Conn;
use crate::error::Failure;
use crate::inner::Inner;
use crate::members::encode;
use crate::row::{COLUMNS, COLUMNS_LEN, Defect, Move, ReadyKey, TaskRow, delete_ready, lock_sql, moves, read_sql};
use crate::sql::{guard, list, value, within};

/// What the core said of the rows that were looked at.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// To be taken, in the order of their start.
    pub(super) runs: Vec<ReadyKey>,
    /// To be failed without a run.
    pub(super) ends: Vec<(TaskId, FailureReason)>,
}

impl Judged {
    /// Whether nothing is to be written.
    pub(super) const fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.ends.is_empty()
    }

    /// The members of the claim.
    pub(super) fn members(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.runs.iter().map(|key| key.task)
    }

    /// Writes it, in the open transaction.
    pub(super) async fn take(
        &self,
        inner: &Inner,
        conn: &mut Conn,
        request: &ClaimRequest,
        now: Timestamp,
    ) -> Result<(Vec<ClaimedTask>, Vec<Ended>), Failure> {
        let tasks = self.run(inner, conn, request, now).await?;
        let ended = self.end(inner, conn, now).await?;
        Ok((tasks, ended))
    }

    async fn run(
        &self,
        inner: &Inner,
        conn: &mut Conn,
        request: &ClaimRequest,
        now: Timestamp,
    ) -> Result<Vec<ClaimedTask>, Failure> {
        if self.runs.is_empty() {
            return Ok(Vec::new());
        }
        let mut keys = self.runs.clone();
        keys.sort_unstable_by_key(|key| key.task);
        let ids: Vec<_> = keys.iter().map(|key| key.task.get()).collect();
        let (claim, started) = (request.claim, now.as_micros());
        let mut sql = delete_ready(inner.server.flavor, keys.iter().copied());
        sql.push(format!(
            "UPDATE queue_task FORCE INDEX (PRIMARY) SET status = 1, attempt = LEAST(attempt, 65534) + 1, \
             claims = LEAST(claims, 4294967294) + 1, claim_id = {claim}, started_at = {started}, progress = NULL, \
             progress_message = NULL WHERE {} AND status = 0",
            within("id", &ids)
        ));
        // The count of rows changed must be the count of rows taken.
        sql.push(guard(keys.len()));
        sql.push(format!(
            "INSERT INTO queue_claim (id, session_id, created_at, members) VALUES ({claim}, {}, {started}, {})",
            request.session,
            encode(keys.iter().map(|key| key.task))
        ));
        sql.push(format!(
            "SELECT {COLUMNS}, p.content_type, p.body FROM queue_task AS t FORCE INDEX (PRIMARY) \
             LEFT JOIN queue_payload AS p ON p.task_id = t.id WHERE {}",
            within("t.id", &ids)
        ));
        let rows = conn.run_all(sql).await?.pop().unwrap_or_default().rows;
        let mut tasks: HashMap<TaskId, ClaimedTask> = HashMap::with_capacity(rows.len());
        let mut is_refreshed = false;
        // All of those that cannot be are found in one try, so that many of them do not use up the tries.
        let mut left = None;
        for row in &rows {
            let task = match TaskRow::read(row)? {
                Ok(task) => task,
                Err(defect) => {
                    left = Some(self.leave(inner, &defect, now));
                    continue;
                }
            };
            if !task.is_known(inner) && !is_refreshed {
                inner.names.refresh(conn).await?;
                is_refreshed = true;
            }
            let payload = match value::<Option<u8>>(row, COLUMNS_LEN)?.and_then(ContentType::from_code) {
                Some(content_type) => Payload::new(content_type, value::<Vec<u8>>(row, COLUMNS_LEN + 1)?),
                None => {
                    left = Some(self.leave(inner, &Defect { task: task.id, what: "its content type is unknown" }, now));
                    continue;
                }
            };
            match claimed(inner, &task, payload) {
                Ok(claimed) => {
                    tasks.insert(task.id, claimed);
                }
                Err(defect) => left = Some(self.leave(inner, &defect, now)),
            }
        }
        if let Some(failure) = left {
            return Err(failure);
        }
        Ok(self.runs.iter().filter_map(|key| tasks.remove(&key.task)).collect())
    }

    /// A row that cannot be is left alone for a while, and the others are claimed without it.
    fn leave(&self, inner: &Inner, defect: &Defect, now: Timestamp) -> Failure {
        inner.lanes.avoid(defect.task, now);
        tracing::error!(task = defect.task.get(), defect = defect.what, "a row that cannot be is left alone");
        Failure::Again("corrupt")
    }

    async fn end(&self, inner: &Inner, conn: &mut Conn, now: Timestamp) -> Result<Vec<Ended>, Failure> {
        if self.ends.is_empty() {
            return Ok(Vec::new());
        }
        let reasons: HashMap<TaskId, FailureReason> = self.ends.iter().copied().collect();
        let mut ids: Vec<_> = reasons.keys().copied().collect();
        ids.sort_unstable();
        let ids = list(&ids);
        let sql = format!("{}; {}", lock_sql(&ids, ""), read_sql(&ids));
        let rows = conn.run(sql).await?.pop().unwrap_or_default().rows;
        let mut moved = Vec::new();
        let mut ended = Vec::new();
        for row in &rows {
            let before = match TaskRow::read(row)? {
                Ok(task) => task,
                Err(defect) => return Err(self.leave(inner, &defect, now)),
            };
            let reason = reasons.get(&before.id).copied().unwrap_or(FailureReason::BudgetExceeded);
            let event = if reason == FailureReason::Unregistered { Event::Unregister } else { Event::Expire };
            let Ok(after) = transition(&before.state, &event, now) else {
                return Err(self.leave(inner, &Defect { task: before.id, what: "it waits and is not queued" }, now));
            };
            let task_type = inner.names.task_type(before.type_id);
            let task_type = task_type.ok_or_else(|| StoreError::corrupt(Some(before.id), "its type is unknown"))?;
            ended.push(Ended { id: before.id, task_type, reason });
            moved.push(Move { before, after });
        }
        conn.run_all(moves(inner.server.flavor, &moved)).await?;
        Ok(ended)
    }

    /// Those of the rows that somebody else has locked right now.
    pub(super) async fn locked_by_others(&self, conn: &mut Conn) -> Result<Vec<TaskId>, Failure> {
        let ids: Vec<_> = self.all_ids();
        let rows = conn.begin(&lock_sql(&list(&ids), " SKIP LOCKED")).await?.pop().unwrap_or_default().rows;
        let mut free = Vec::with_capacity(rows.len());
        for row in &rows {
            free.push(value::<u64>(row, 0)?);
        }
        conn.rollback().await?;
        Ok(ids.into_iter().filter(|id| !free.contains(&id.get())).collect())
    }

    /// Those of the rows whose task is not queued.
    pub(super) async fn ghosts(&self, conn: &mut Conn) -> Result<Vec<TaskId>, Failure> {
        let ids: Vec<_> = self.all_ids();
        let sql = format!(
            "SELECT id FROM queue_task FORCE INDEX (PRIMARY) WHERE id IN ({}) AND status = {}",
            list(&ids),
            Status::Queued.code()
        );
        let rows = conn.run(sql).await?.pop().unwrap_or_default().rows;
        let mut queued = Vec::with_capacity(rows.len());
        for row in &rows {
            queued.push(value::<u64>(row, 0)?);
        }
        Ok(ids.into_iter().filter(|id| !queued.contains(&id.get())).collect())
    }

    fn all_ids(&self) -> Vec<TaskId> {
        let mut ids: Vec<_> = self.runs.iter().map(|key| key.task).chain(self.ends.iter().map(|(id, _)| *id)).collect();
        ids.sort_unstable();
        ids
    }
}

/// A claimed task with its names.
pub(super) fn claimed(inner: &Inner, task: &TaskRow, payload: Payload) -> Result<ClaimedTask, Defect> {
    let defect = |what| Defect { task: task.id, what };
    let names = task.refer(inner)?;
    let state = &task.state;
    Ok(ClaimedTask {
        id: task.id,
        claim: state.claim.ok_or(defect("it runs without a claim"))?,
        task_type: names.task_type,
        queue: names.queue,
        priority: names.priority,
        attempt: state.attempt,
        max_attempts: state.max_attempts,
        backoff: names.backoff,
        fence: state.fence,
        losses: state.losses,
        created_at: state.created_at,
        run_at: state.run_at,
        started_at: state.started_at.ok_or(defect("it runs without a start"))?,
        deadline_at: state.deadline_at,
        payload,
    })
}
