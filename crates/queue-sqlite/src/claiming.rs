//! Taking tasks under a claim, and finding out what became of a claim.

use queue_core::claim::{Ended, Resolved};
use queue_core::payload::ContentType;
use queue_core::{
    ClaimId, ClaimReply, ClaimRequest, Claimed, ClaimedTask, FailureReason, Payload, QueueName, SessionId, Status,
    StoreError, TaskId, TaskState, TaskType,
};
use rusqlite::{Row, params};

use crate::error::Fault;
use crate::runs::{self, Move, follows};
use crate::session::is_live;
use crate::survey::{Depth, Survey, Taking, survey};
use crate::task::{TaskRow, task_columns};
use crate::work::{Id as _, Result, Work, clamped, id_list, task_id};

const ADD_CLAIM: &str =
    "INSERT INTO queue_claim (id, session_id, created_at, open, members) VALUES (?1, ?2, ?3, ?4, ?5)";
const CLAIM: &str = "SELECT members = '[]' FROM queue_claim WHERE id = ?1";
const PAYLOAD: &str = "SELECT content_type, body, task_id FROM queue_payload WHERE task_id = ?1";
const PAYLOADS: &str =
    "SELECT content_type, body, task_id FROM queue_payload WHERE task_id BETWEEN ?1 AND ?2 ORDER BY task_id";
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
    let running = |taking: &&Taking| taking.moving.to.status == Status::Running;
    let ids = takings.iter().filter(running).map(|taking| taking.moving.row.id).collect::<Vec<_>>();
    let mut payloads = payloads(work, &ids)?.into_iter();
    let mut moves = Vec::with_capacity(takings.len());
    for Taking { moving, task_type, queue } in takings {
        let Move { row, to } = &moving;
        if to.status == Status::Running {
            let payload = payloads.next().unwrap_or_else(|| Err(no_payload(row.id)));
            let task =
                payload.and_then(|payload| claimed_task(work, row, to, request.claim, task_type, queue, payload));
            let Some(task) = work.pass_over_corrupt(task)? else {
                work.memory.avoid(row.id, work.now);
                continue;
            };
            claimed.tasks.push(task);
        } else {
            let reason = to.reason.unwrap_or(FailureReason::BudgetExceeded);
            claimed.ended.push(Ended { id: row.id, task_type, reason });
        }
        moves.push(moving);
    }
    runs::advance(work, &moves)?;
    let held = work.held()?;
    for Move { row, to } in moves.into_iter().filter(|moving| moving.to.status == Status::Running) {
        held.keep(TaskRow { state: to, ..row });
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
                    let payload = payload(work, row.id)?;
                    claimed_task(work, &row, &row.state, claim, task_type, queue, payload)
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
    let found = work.first(PAYLOAD, [task.number()], |row| stored_payload(work, row))?;
    found.unwrap_or_else(|| Err(no_payload(task)))
}

/// The payloads of tasks, in their order; ids that follow on one another are read at once.
fn payloads(work: &Work<'_>, tasks: &[TaskId]) -> Result<Vec<Result<Payload>>> {
    let mut found = Vec::with_capacity(tasks.len());
    for run in tasks.chunk_by(|one, next| follows(*one, *next)) {
        let [first, .., last] = run else {
            found.extend(run.iter().map(|&task| payload(work, task)));
            continue;
        };
        let mut wanted = run.iter();
        work.each(PAYLOADS, [first.number(), last.number()], |row| {
            let id = task_id(row.get(2)?)?;
            found.extend(wanted.by_ref().take_while(|task| **task != id).map(|&task| Err(no_payload(task))));
            found.push(stored_payload(work, row)?);
            Ok(true)
        })?;
        found.extend(wanted.map(|&task| Err(no_payload(task))));
    }
    Ok(found)
}

fn no_payload(task: TaskId) -> Fault {
    StoreError::corrupt(Some(task), "it has no payload").into()
}

/// Reads a payload; one that cannot be is an error of its own, and stops nothing.
fn stored_payload(work: &Work<'_>, row: &Row<'_>) -> Result<Result<Payload>> {
    let code: i64 = row.get(0)?;
    let Some(content_type) = u8::try_from(code).ok().and_then(ContentType::from_code) else {
        return Ok(Err(StoreError::corrupt(Some(task_id(row.get(2)?)?), "its content type is not known").into()));
    };
    let body = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
    Ok(Ok(Payload::new(content_type, work.memory.buffers.copy(body))))
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
    payload: Payload,
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
        payload,
    })
}
