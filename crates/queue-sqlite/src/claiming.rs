//! Taking tasks under a claim, and finding out what became of a claim.

use queue_core::claim::{Ended, Resolved};
use queue_core::payload::ContentType;
use queue_core::{
    ClaimId, ClaimReply, ClaimRequest, Claimed, ClaimedTask, FailureReason, Payload, QueueName, SessionId, Status,
    StoreError, TaskId, TaskState, TaskType,
};
use rusqlite::params;

use crate::session::is_live;
use crate::survey::{Depth, Survey, Taking, survey};
use crate::task::{TaskRow, task_columns};
use crate::work::{Id as _, Result, Work, clamped, id_list};

const ADD_CLAIM: &str =
    "INSERT INTO queue_claim (id, session_id, created_at, open, members) VALUES (?1, ?2, ?3, ?4, ?5)";
const CLAIM: &str = "SELECT members = '[]' FROM queue_claim WHERE id = ?1";
const PAYLOAD: &str = "SELECT content_type, body FROM queue_payload WHERE task_id = ?1";
/// The tasks that a claim still holds.
pub(crate) const HELD: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM queue_claim AS c CROSS JOIN json_each(c.members) AS m CROSS JOIN queue_task AS t \
     WHERE c.id = ?1 AND t.id = m.value AND t.claim_id = c.id AND t.status = 1 ORDER BY m.key"
);

/// Looks whether a claim would do anything, without a lock and without a write. `None`: it would.
pub(crate) fn look(work: &mut Work<'_>, request: &ClaimRequest) -> Result<Option<ClaimReply>> {
    if !is_live(work, request.session)? {
        return Ok(Some(ClaimReply::Fenced));
    }
    let Survey { takings, next_due, .. } = survey(work, request, None, Depth::First)?;
    let nothing = Claimed { now: work.now, tasks: Vec::new(), ended: Vec::new(), next_due };
    Ok(takings.is_empty().then_some(ClaimReply::Claimed(nothing)))
}

/// Claims what may be taken.
pub(crate) fn claim(work: &mut Work<'_>, request: &ClaimRequest) -> Result<ClaimReply> {
    if !is_live(work, request.session)? {
        return Ok(ClaimReply::Fenced);
    }
    match work.first(CLAIM, [request.claim.number()], |row| Ok(row.get(0)?))? {
        None => {}
        Some(true) => {
            let void = "the claim was resolved as void before it was committed";
            return Err(StoreError::unavailable(void).into());
        }
        Some(false) => return Err(StoreError::other("the claim's id was used before").into()),
    }
    let last = work.memory.last_queue;
    let Survey { takings, next_due, last_queue } = survey(work, request, last, Depth::Full)?;
    work.memory.last_queue = last_queue.or(last);
    let mut claimed = Claimed { now: work.now, tasks: Vec::new(), ended: Vec::new(), next_due };
    for Taking { row, to, task_type, queue } in takings {
        match (to.status, to.reason) {
            (Status::Running, _) => {
                let task = claimed_task(work, &row, &to, request.claim, task_type, queue);
                let Some(task) = work.pass_over_corrupt(task)? else { continue };
                row.advance(work, &to)?;
                claimed.tasks.push(task);
                work.held()?.keep(TaskRow { state: to, ..row });
            }
            (_, reason) => {
                row.advance(work, &to)?;
                let reason = reason.unwrap_or(FailureReason::BudgetExceeded);
                claimed.ended.push(Ended { id: row.id, task_type, reason });
            }
        }
    }
    if !claimed.tasks.is_empty() {
        add_claim(work, request.session, request.claim, claimed.tasks.iter().map(|task| task.id))?;
    }
    Ok(ClaimReply::Claimed(claimed))
}

/// Says what became of a claim; one that is not there is made void for ever.
pub(crate) fn resolve(work: &mut Work<'_>, session: SessionId, claim: ClaimId) -> Result<Resolved> {
    match work.first(CLAIM, [claim.number()], |row| Ok(row.get(0)?))? {
        Some(true) => Ok(Resolved::Void),
        Some(false) => {
            let mut tasks = Vec::new();
            for row in work.all(HELD, [claim.number()], |row| Ok(TaskRow::read(row)))? {
                let task = row.and_then(|row| {
                    let (task_type, queue) = (row.task_type(work)?, row.queue(work)?);
                    claimed_task(work, &row, &row.state, claim, task_type, queue)
                });
                tasks.extend(work.pass_over_corrupt(task)?);
            }
            // Nobody has looked whether there is more: there may be.
            let next_due = Some(work.now);
            Ok(Resolved::Committed(Claimed { now: work.now, tasks, ended: Vec::new(), next_due }))
        }
        // Whatever is claimed under a session that is fenced or gone is refused anyway.
        None if !is_live(work, session)? => Ok(Resolved::Void),
        None => {
            add_claim(work, session, claim, [])?;
            Ok(Resolved::Void)
        }
    }
}

/// The payload of a task; one that is missing is corrupt.
pub(crate) fn payload(work: &Work<'_>, task: TaskId) -> Result<Payload> {
    let found = work.first(PAYLOAD, [task.number()], |row| {
        let body = work.memory.buffers.copy(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?);
        Ok((row.get::<_, i64>(0)?, body))
    })?;
    let (code, body) = found.ok_or_else(|| StoreError::corrupt(Some(task), "it has no payload"))?;
    let content_type = u8::try_from(code).ok().and_then(ContentType::from_code);
    let content_type = content_type.ok_or_else(|| StoreError::corrupt(Some(task), "its content type is not known"))?;
    Ok(Payload::new(content_type, body))
}

fn add_claim(
    work: &Work<'_>,
    session: SessionId,
    claim: ClaimId,
    members: impl IntoIterator<Item = TaskId>,
) -> Result<()> {
    let mut open = 0_usize;
    let members = id_list(members.into_iter().inspect(|_| open += 1));
    let now = work.now.as_micros();
    work.execute(ADD_CLAIM, params![claim.number(), session.number(), now, clamped(open), members])?;
    Ok(())
}

fn claimed_task(
    work: &mut Work<'_>,
    row: &TaskRow,
    state: &TaskState,
    claim: ClaimId,
    task_type: TaskType,
    queue: QueueName,
) -> Result<ClaimedTask> {
    Ok(ClaimedTask {
        id: row.id,
        claim,
        task_type,
        queue,
        priority: row.priority,
        attempt: state.attempt,
        max_attempts: state.max_attempts,
        backoff: row.backoff(work)?,
        fence: state.fence,
        losses: state.losses,
        created_at: state.created_at,
        run_at: state.run_at,
        started_at: state.started_at.unwrap_or(work.now),
        deadline_at: state.deadline_at,
        payload: payload(work, row.id)?,
    })
}
