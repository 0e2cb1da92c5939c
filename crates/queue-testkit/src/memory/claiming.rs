//! Sessions, and the claims that they hold.

use std::time::Duration;

use queue_core::admission::{Admission, Candidate, Verdict};
use queue_core::claim::{Ended, Resolved};
use queue_core::session::{Renewal, SessionSpec, Signals};
use queue_core::text::cut;
use queue_core::{
    ClaimId, ClaimReply, ClaimRequest, Claimed, ClaimedTask, Event, FailureReason, QueueName, Scope, SessionId,
    StoreError, TaskId, Timestamp,
};

use super::database::{ClaimRow, Database, SessionRow};

impl Database {
    pub(super) fn open_session(&mut self, spec: SessionSpec, now: Timestamp) -> Renewal {
        self.sessions.entry(spec.id).or_insert_with(|| SessionRow {
            name: cut(&spec.name, 64).to_owned(),
            host: cut(&spec.host, 64).to_owned(),
            version: cut(&spec.version, 32).to_owned(),
            opened_at: now,
            lease_until: now,
            fenced_at: None,
            drain: false,
            claims: Default::default(),
        });
        self.renew_session(spec.id, spec.lease, now)
    }

    pub(super) fn renew_session(&mut self, id: SessionId, lease: Duration, now: Timestamp) -> Renewal {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.fenced_at.is_none()) else {
            return Renewal::Fenced;
        };
        session.lease_until = now.after(lease);
        let drain = session.drain;
        let cancels = self.signalled.iter().filter_map(|&task| {
            let claim = self.rows.get(&task)?.state.claim?;
            (self.claims.get(&claim)?.session == id).then_some((task, claim))
        });
        let paused = self.queues.iter().filter(|(_, pause)| pause.is_some()).map(|(queue, _)| queue.clone());
        let live = self.sessions.values().filter(|session| session.fenced_at.is_none()).count();
        let live_sessions = u32::try_from(live).unwrap_or(u32::MAX);
        Renewal::Renewed(Signals { now, cancels: cancels.collect(), paused: paused.collect(), drain, live_sessions })
    }

    pub(super) fn close_session(&mut self, id: SessionId, now: Timestamp) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.fenced_at.get_or_insert(now);
            self.forget_session(id);
        }
    }

    /// Removes a fenced session that holds nothing, and with it the ids of its void claims: whatever comes under them now is
    /// fenced.
    pub(super) fn forget_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        let void = |claim: &ClaimId| self.claims.get(claim).is_none_or(|claim| claim.void);
        if session.fenced_at.is_some() && session.claims.iter().all(void) {
            for claim in self.sessions.remove(&id).map(|session| session.claims).unwrap_or_default() {
                self.claims.remove(&claim);
            }
        }
    }

    pub(super) fn claim(
        &mut self,
        request: &ClaimRequest,
        batch_max: usize,
        now: Timestamp,
    ) -> Result<ClaimReply, StoreError> {
        if let Some(reply) = self.refuse(request)? {
            return Ok(reply);
        }
        let (verdicts, turn) = self.judge(request, batch_max, now);
        self.turn = turn.or(self.turn.take());
        self.take(request, verdicts, now)
    }

    /// The answer where nothing may be claimed at all.
    pub(super) fn refuse(&self, request: &ClaimRequest) -> Result<Option<ClaimReply>, StoreError> {
        if self.sessions.get(&request.session).is_none_or(|session| session.fenced_at.is_some()) {
            return Ok(Some(ClaimReply::Fenced));
        }
        match self.claims.get(&request.claim) {
            Some(claim) if claim.void => {
                Err(StoreError::unavailable("the claim was resolved as void before it was committed"))
            }
            Some(_) => Err(StoreError::other("the claim's id was used before")),
            None => Ok(None),
        }
    }

    /// Does what was said of each task.
    pub(super) fn take(
        &mut self,
        request: &ClaimRequest,
        verdicts: Vec<(TaskId, Verdict)>,
        now: Timestamp,
    ) -> Result<ClaimReply, StoreError> {
        let mut tasks = Vec::new();
        let mut ended = Vec::new();
        for (id, verdict) in verdicts {
            match verdict {
                Verdict::Run => {
                    self.must_apply(id, &Event::Claim(request.claim), now)?;
                    tasks.push(id);
                }
                Verdict::Expire => ended.extend(self.end(id, &Event::Expire, now)?),
                Verdict::Unregister => ended.extend(self.end(id, &Event::Unregister, now)?),
                Verdict::Skip | Verdict::Full => {}
            }
        }
        if !tasks.is_empty() {
            let members = tasks.iter().copied().collect();
            self.claims.insert(request.claim, ClaimRow { session: request.session, members, void: false });
            if let Some(session) = self.sessions.get_mut(&request.session) {
                session.claims.insert(request.claim);
            }
        }
        let tasks = tasks.into_iter().filter_map(|id| self.claimed_task(id, request.claim)).collect();
        let next_due = self.ready.next_due(&request.scope, now, |queue| self.is_open(&request.scope, queue));
        Ok(ClaimReply::Claimed(Claimed { now, tasks, ended, next_due }))
    }

    /// What the core says of the due tasks, in the order in which they are met.
    fn judge(
        &self,
        request: &ClaimRequest,
        batch_max: usize,
        now: Timestamp,
    ) -> (Vec<(TaskId, Verdict)>, Option<QueueName>) {
        let mut request = request.clone();
        request.capacity.tasks = request.capacity.tasks.min(batch_max);
        let mut admission = Admission::new(&request, now);
        let mut verdicts = Vec::new();
        let open = |queue: &QueueName| self.is_open(&request.scope, queue);
        let turn = self.ready.offer(now, self.turn.as_ref(), open, |id| {
            let Some(row) = self.rows.get(&id) else { return Verdict::Skip };
            let verdict = admission.admit(&Candidate {
                queue: &row.queue,
                task_type: &row.task_type,
                deadline_at: row.state.deadline_at,
                suspect: row.state.is_suspect(),
                bytes: row.payload.body().len() as u64,
            });
            verdicts.push((id, verdict));
            verdict
        });
        (verdicts, turn)
    }

    /// Fails a waiting task without a run, and tells of it.
    pub(super) fn end(&mut self, id: TaskId, event: &Event<'_>, now: Timestamp) -> Result<Option<Ended>, StoreError> {
        self.must_apply(id, event, now)?;
        Ok(self.rows.get(&id).map(|row| Ended {
            id,
            task_type: row.task_type.clone(),
            reason: row.state.reason.unwrap_or(FailureReason::BudgetExceeded),
        }))
    }

    pub(super) fn resolve_claim(&mut self, session: SessionId, claim: ClaimId, now: Timestamp) -> Resolved {
        match self.claims.get(&claim) {
            Some(row) if row.void => Resolved::Void,
            Some(row) => {
                let tasks = row.members.iter().filter_map(|&id| self.claimed_task(id, claim)).collect();
                // A resolve has no scope: there may be more right away.
                Resolved::Committed(Claimed { now, tasks, ended: Vec::new(), next_due: Some(now) })
            }
            None => {
                if let Some(row) = self.sessions.get_mut(&session).filter(|session| session.fenced_at.is_none()) {
                    row.claims.insert(claim);
                    self.claims.insert(claim, ClaimRow { session, members: Default::default(), void: true });
                }
                Resolved::Void
            }
        }
    }

    pub(super) fn is_busy(&self, scope: &Scope, now: Timestamp) -> bool {
        let running = self.running.iter().map(|of| (of, true));
        let again = self.again.iter().map(|of| (of, false));
        running.chain(again).any(|((queue, types), runs)| {
            (runs || !self.is_paused(queue)) && types.keys().any(|task_type| scope.reaches(queue, task_type))
        }) || self.ready.next_due(scope, now, |queue| self.is_open(scope, queue)).is_some_and(|due| due <= now)
    }

    fn is_open(&self, scope: &Scope, queue: &QueueName) -> bool {
        scope.queues.contains(queue) && !self.is_paused(queue)
    }

    pub(super) fn is_paused(&self, queue: &QueueName) -> bool {
        self.queues.get(queue).is_some_and(Option::is_some)
    }

    fn claimed_task(&self, id: TaskId, claim: ClaimId) -> Option<ClaimedTask> {
        let row = self.rows.get(&id)?;
        Some(ClaimedTask {
            id,
            claim,
            task_type: row.task_type.clone(),
            queue: row.queue.clone(),
            priority: row.priority,
            attempt: row.state.attempt,
            max_attempts: row.state.max_attempts,
            backoff: row.backoff.clone(),
            fence: row.state.fence,
            losses: row.state.losses,
            created_at: row.state.created_at,
            run_at: row.state.run_at,
            started_at: row.state.started_at.unwrap_or_default(),
            deadline_at: row.state.deadline_at,
            payload: row.payload.clone(),
        })
    }
}
