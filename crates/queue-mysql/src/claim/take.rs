//! Taking what was judged: out of what waits, into the hands of the claim.

use std::collections::HashMap;

use queue_core::claim::Ended;
use queue_core::{
    ClaimId, ClaimRequest, ClaimedTask, Event, FailureReason, Payload, StoreError, TaskId, Timestamp, transition,
};

use super::found::Usable;
use crate::connection::Reply;
use crate::error::Failure;
use crate::members::encode;
use crate::row::{Defect, Move, ReadyKey, Referred, TaskRow, delete_ready, moves};
use crate::server::Flavor;
use crate::sql::{guard, guard_and, list, value, within};

/// What the core said of the rows that were looked at.
#[derive(Default)]
pub(super) struct Judged {
    /// To be taken, in the order of their start.
    runs: Vec<Taken>,
    /// To be failed without a run.
    ends: Vec<Move>,
    ended: Vec<Ended>,
}

/// What writes a claim.
pub(super) struct Statements {
    pub(super) sql: Vec<String>,
    /// The statement that reads the payloads which are still to be read.
    pub(super) bodies: Option<usize>,
    /// The statement that answers what was asked, and its first column that does.
    pub(super) answer: Option<(usize, usize)>,
}

/// A task that is taken.
struct Taken {
    key: ReadyKey,
    task: ClaimedTask,
    /// Whether the payload's bytes are still to be read.
    is_bare: bool,
}

impl Judged {
    /// Whether nothing is to be written.
    pub(super) const fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.ends.is_empty()
    }

    /// It is to be taken.
    pub(super) fn run(&mut self, key: ReadyKey, found: Usable, claim: ClaimId, now: Timestamp) -> Result<(), Defect> {
        let Usable { row, names, payload, is_bare } = found;
        let defect = Defect { task: row.id, what: "it waits and cannot be claimed" };
        let state = transition(&row.state, &Event::Claim(claim), now).map_err(|_| defect)?;
        let task = claimed(names, &TaskRow { state, ..row }, payload)?;
        self.runs.push(Taken { key, task, is_bare });
        Ok(())
    }

    /// It is to be failed without a run.
    pub(super) fn end(&mut self, found: Usable, reason: FailureReason, now: Timestamp) -> Result<(), Defect> {
        let Usable { row: before, names, .. } = found;
        let event = if reason == FailureReason::Unregistered { Event::Unregister } else { Event::Expire };
        let defect = Defect { task: before.id, what: "it waits and cannot be ended" };
        let after = transition(&before.state, &event, now).map_err(|_| defect)?;
        self.ended.push(Ended { id: before.id, task_type: names.task_type, reason });
        self.ends.push(Move { before, after });
        Ok(())
    }

    /// The members of the claim.
    pub(super) fn members(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.runs.iter().map(|taken| taken.key.task)
    }

    /// The statements that write it, in the open transaction, and ask for these columns as well.
    pub(super) fn statements(
        &self,
        flavor: Flavor,
        request: &ClaimRequest,
        now: Timestamp,
        asked: &[String],
    ) -> Statements {
        let (mut sql, mut bodies, mut answer) = (Vec::new(), None, None);
        if !self.runs.is_empty() {
            let mut keys: Vec<_> = self.runs.iter().map(|taken| taken.key).collect();
            keys.sort_unstable_by_key(|key| key.task);
            let ids: Vec<_> = keys.iter().map(|key| key.task.get()).collect();
            let (claim, started) = (request.claim, now.as_micros());
            sql.extend(delete_ready(flavor, keys.iter().copied()));
            // What the core's transition changes, for all of them at once.
            sql.push(format!(
                "UPDATE queue_task FORCE INDEX (PRIMARY) SET status = 1, attempt = attempt + 1, \
                 claims = LEAST(claims, 4294967294) + 1, claim_id = {claim}, started_at = {started} \
                 WHERE {} AND status = 0",
                within("id", &ids)
            ));
            // The count of rows changed must be the count of rows taken.
            // Not where something ends, which still waits here.
            if flavor.counts_beside_reads() && self.ends.is_empty() && !asked.is_empty() {
                answer = Some((sql.len(), 1));
                sql.push(guard_and(keys.len(), asked));
            } else {
                sql.push(guard(keys.len()));
            }
            sql.push(format!(
                "INSERT INTO queue_claim (id, session_id, created_at, members) VALUES ({claim}, {}, {started}, {})",
                request.session,
                encode(keys.iter().map(|key| key.task))
            ));
            let bare = list(self.runs.iter().filter(|taken| taken.is_bare).map(|taken| taken.key.task));
            if !bare.is_empty() {
                bodies = Some(sql.len());
                sql.push(format!(
                    "SELECT task_id, body FROM queue_payload FORCE INDEX (PRIMARY) WHERE task_id IN ({bare})"
                ));
            }
        }
        sql.extend(moves(flavor, &self.ends));
        if answer.is_none() && !asked.is_empty() {
            answer = Some((sql.len(), 0));
            sql.push(format!("SELECT {}", asked.join(",")));
        }
        Statements { sql, bodies, answer }
    }

    /// What was taken, once it is committed; with the answer about the payloads that were still to be read.
    pub(super) fn taken(self, bodies: &Reply) -> Result<(Vec<ClaimedTask>, Vec<Ended>), Failure> {
        let mut read: HashMap<u64, Vec<u8>> = HashMap::with_capacity(bodies.rows.len());
        for row in &bodies.rows {
            read.insert(value(row, 0)?, value(row, 1)?);
        }
        let mut tasks = Vec::with_capacity(self.runs.len());
        for Taken { mut task, is_bare, .. } in self.runs {
            if is_bare {
                let body = read.remove(&task.id.get());
                let body = body.ok_or_else(|| StoreError::corrupt(Some(task.id), "its payload is missing"))?;
                task.payload = Payload::new(task.payload.content_type(), body);
            }
            tasks.push(task);
        }
        Ok((tasks, self.ended))
    }
}

/// A claimed task with its names.
pub(super) fn claimed(names: Referred, task: &TaskRow, payload: Payload) -> Result<ClaimedTask, Defect> {
    let defect = |what| Defect { task: task.id, what };
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
