//! Whether an answer is one that the contract allows, and the model doing the same.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use queue_core::claim::{Ended, Resolved};
use queue_core::reap::{FencedSession, Lost, LostTask};
use queue_core::session::Renewal;
use queue_core::{
    ClaimReply, ClaimRequest, Claimed, ClaimedTask, FailureReason, Status, StoreError, TaskAdmin as _, TaskId,
    TaskStore as _,
};

use super::call::{Call, Reply, list};
use super::seen::Hours;
use crate::MemoryStore;
use crate::memory::Waiting;

/// What the contract forbids about an answer.
pub(super) type Objection = String;

/// Judges answers, and makes the model follow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judge {
    pub(super) hours: Hours,
    /// Whether nobody else was at work: then nothing can have been skipped because it was locked.
    pub(super) alone: bool,
}

impl Judge {
    /// Makes the call on the model, as the store did it.
    pub(super) async fn follow(self, model: &MemoryStore, call: &Call, reply: &Reply) -> Result<(), Objection> {
        match (call, reply) {
            (Call::Claim(request), Reply::Claim(reply)) => self.claim(model, request, reply),
            (Call::ClaimVoid(_), Reply::Refused(_)) => Ok(()),
            (Call::ClaimVoid(_), Reply::Claim(reply)) => Self::claim_void(model, reply),
            (Call::Trip(batch, request), Reply::Trip(both)) => {
                Box::pin(self.follow(model, &Call::Settle(batch.clone()), &both.0)).await?;
                Box::pin(self.follow(model, &Call::Claim(request.clone()), &both.1)).await
            }
            (Call::Resolve(..), Reply::Resolved(resolved)) => {
                let Reply::Resolved(ours) = call.make(model).await else { return Err("no answer".into()) };
                self.resolved(resolved, &ours)
            }
            (Call::Reopen(spec), Reply::Renewal(renewal)) => {
                // A fenced session that holds nothing goes at some time, here and below, and its id is a new one then.
                let sessions = model.sessions().await.map_err(told)?;
                let row = sessions.iter().find(|one| one.id == spec.id);
                match (renewal, row) {
                    (Renewal::Fenced, None) => return Ok(()),
                    (Renewal::Renewed(_), Some(row)) if row.fenced_at.is_some() => {
                        model.lost(0).await.map_err(told)?;
                    }
                    _ => {}
                }
                let Reply::Renewal(ours) = call.make(model).await else { return Err("no answer".into()) };
                self.renewal(renewal, &ours)
            }
            (Call::Drain(id), Reply::Told(found)) => {
                let sessions = model.sessions().await.map_err(told)?;
                match (found, sessions.iter().find(|one| one.id == *id)) {
                    (true, None) => return Ok(()),
                    (false, Some(row)) if row.fenced_at.is_some() => {
                        model.lost(0).await.map_err(told)?;
                    }
                    _ => {}
                }
                same("the answer", &plain(reply), &plain(&call.make(model).await))
            }
            (Call::Renew(..) | Call::Open(_), Reply::Renewal(renewal)) => {
                let Reply::Renewal(ours) = call.make(model).await else { return Err("no answer".into()) };
                self.renewal(renewal, &ours)
            }
            (Call::Fence(limit), Reply::Fenced(fenced)) => fence(model, *limit, fenced).await,
            (Call::Lost(limit), Reply::Lost(lost)) => self.lost(model, *limit, lost).await,
            (Call::Sweep(_), Reply::Swept(swept)) => sweep(model, swept),
            (Call::Prune(status, older_than, limit), Reply::Pruned(number, gone)) => {
                prune(model, (*status, *older_than, *limit), *number, gone)
            }
            (Call::List(filter, _), Reply::Listed(listed)) => {
                let ours = list(model, filter, 1_000).await.map_err(|error| error.to_string())?;
                let rows = |tasks: &[queue_core::TaskRecord]| {
                    tasks.iter().map(|task| (task.id, self.hours.row(task), task.payload.clone())).collect::<Vec<_>>()
                };
                same("the list", &rows(listed), &rows(&ours))
            }
            (_, reply) => same("the answer", &plain(reply), &plain(&call.make(model).await)),
        }
    }

    fn claim(self, model: &MemoryStore, request: &ClaimRequest, reply: &ClaimReply) -> Result<(), Objection> {
        let waiting = model.waiting(&request.scope);
        let ClaimReply::Claimed(claimed) = reply else {
            return match model.claim_these(request, &[], &[]) {
                Ok(ClaimReply::Fenced) => Ok(()),
                other => Err(format!("the claim is answered as fenced, and the model says {other:?}")),
            };
        };
        let account = Account { model, request, waiting: &waiting, claimed };
        account.is_allowed()?;
        if self.alone {
            account.is_in_order()?;
            account.is_all()?;
        }
        let taken: Vec<_> = claimed.tasks.iter().map(|task| task.id).collect();
        let ended: Vec<_> = claimed.ended.iter().map(|ended| (ended.id, ended.reason)).collect();
        match model.claim_these(request, &taken, &ended) {
            Ok(ClaimReply::Claimed(ours)) => {
                same("the tasks", &self.tasks(&claimed.tasks), &self.tasks(&ours.tasks))?;
                same("what ended", &sorted(&claimed.ended), &sorted(&ours.ended))?;
            }
            other => return Err(format!("the store claimed, and the model says {other:?}")),
        }
        if self.alone { self.next_due(model, request, claimed) } else { Ok(()) }
    }

    /// Nothing may be committed under a void id; what is past its budget may be failed all the same.
    fn claim_void(model: &MemoryStore, reply: &ClaimReply) -> Result<(), Objection> {
        let ClaimReply::Claimed(claimed) = reply else { return Ok(()) };
        if !claimed.tasks.is_empty() {
            return Err(format!("{} tasks were claimed under a void id", claimed.tasks.len()));
        }
        model.end_these(&claimed.ended.iter().map(|ended| (ended.id, ended.reason)).collect::<Vec<_>>()).map_err(told)
    }

    /// When there is more right away, the answer is not after now; else it is when the next one is due.
    fn next_due(self, model: &MemoryStore, request: &ClaimRequest, claimed: &Claimed) -> Result<(), Objection> {
        let now = model.now();
        let left = model.waiting(&request.scope).into_iter();
        let next = left.filter(|one| request.scope.reaches(&one.queue, &one.task_type)).map(|one| one.run_at).min();
        let is_right = match (claimed.next_due, next) {
            (None, None) => true,
            (Some(told), Some(next)) if next <= now => told <= claimed.now,
            (Some(told), Some(next)) => self.hours.of(told) == self.hours.of(next),
            _ => false,
        };
        let told = self.hours.maybe(claimed.next_due);
        if is_right { Ok(()) } else { Err(format!("the next one is due {}, not {told}", self.hours.maybe(next))) }
    }

    fn tasks(self, tasks: &[ClaimedTask]) -> Vec<(TaskId, String)> {
        let tell = |task: &ClaimedTask| {
            let times = [task.created_at, task.run_at, task.started_at].map(|at| self.hours.of(at));
            let deadline = self.hours.maybe(task.deadline_at);
            let names = (&task.task_type, &task.queue, task.priority, task.claim);
            let counts = (task.attempt, task.max_attempts, task.fence, task.losses);
            let payload = (task.payload.digest(), task.payload.content_type());
            format!("{names:?} {counts:?} {} {times:?} {deadline} {payload:?}", task.backoff)
        };
        let mut told: Vec<_> = tasks.iter().map(|task| (task.id, tell(task))).collect();
        told.sort();
        told
    }

    /// A claim of which nothing is held any more may be told as committed or as void.
    fn resolved(self, store: &Resolved, model: &Resolved) -> Result<(), Objection> {
        let held = |resolved: &Resolved| match resolved {
            Resolved::Committed(claimed) => self.tasks(&claimed.tasks),
            Resolved::Void => Vec::new(),
        };
        same("what is held", &held(store), &held(model))
    }

    fn renewal(self, store: &Renewal, model: &Renewal) -> Result<(), Objection> {
        let tell = |renewal: &Renewal| match renewal {
            Renewal::Renewed(signals) if self.alone => {
                let (cancels, paused) = (sorted(&signals.cancels), sorted(&signals.paused));
                format!("renewed, cancels {cancels:?}, paused {paused:?}, drain {}", signals.drain)
            }
            Renewal::Renewed(_) => "renewed".to_owned(),
            Renewal::Fenced => "fenced".to_owned(),
        };
        same("the renewal", &tell(store), &tell(model))
    }

    async fn lost(self, model: &MemoryStore, limit: usize, store: &Lost) -> Result<(), Objection> {
        let all = model.lost(usize::MAX).await.map_err(told)?;
        let tell = |task: &LostTask| {
            let run = &task.run;
            let counts = (run.attempt, run.max_attempts, run.cancel_requested);
            let deadline = self.hours.maybe(run.deadline_at);
            (task.id, format!("{:?} {} {counts:?} {} {deadline}", task.claim, task.task_type, run.backoff))
        };
        let (lost, all): (Vec<_>, Vec<_>) =
            (store.tasks.iter().map(tell).collect(), all.tasks.iter().map(tell).collect());
        if lost.len() != limit.min(all.len()) || lost.iter().any(|task| !all.contains(task)) || !lost.is_sorted() {
            return Err(format!("{lost:?} are told as lost, out of {all:?}"));
        }
        Ok(())
    }
}

/// A claim's answer beside what it may take.
#[derive(Debug)]
struct Account<'a> {
    model: &'a MemoryStore,
    request: &'a ClaimRequest,
    waiting: &'a [Waiting],
    claimed: &'a Claimed,
}

impl Account<'_> {
    fn due(&self) -> impl Iterator<Item = &Waiting> {
        let now = self.model.now();
        self.waiting.iter().filter(move |one| one.run_at <= now)
    }

    /// What may run.
    fn may_run(&self) -> Vec<&Waiting> {
        let now = self.model.now();
        let serves = |one: &Waiting| self.request.scope.serves(&one.queue, &one.task_type);
        self.due().filter(|one| serves(one) && one.deadline_at.is_none_or(|at| at > now)).collect()
    }

    /// What may be failed without a run, and why; and whether a claim may pass it by, as there was no room for its like.
    fn may_end(&self) -> Vec<(TaskId, FailureReason, bool)> {
        let now = self.model.now();
        let scope = &self.request.scope;
        let reached = self.due().filter(|one| scope.reaches(&one.queue, &one.task_type));
        let judged = reached.filter_map(|one| {
            let reason = if one.deadline_at.is_some_and(|at| at <= now) {
                FailureReason::BudgetExceeded
            } else if scope.serves(&one.queue, &one.task_type) {
                return None;
            } else {
                FailureReason::Unregistered
            };
            Some((one.id, reason, self.is_blocked(one)))
        });
        judged.collect()
    }

    fn taken(&self) -> BTreeSet<TaskId> {
        self.claimed.tasks.iter().map(|task| task.id).collect()
    }

    fn number_of(&self, is_it: impl Fn(&ClaimedTask) -> bool) -> usize {
        self.claimed.tasks.iter().filter(|task| is_it(task)).count()
    }

    /// Nothing was taken or failed that may not be, and no more than there is room for.
    fn is_allowed(&self) -> Result<(), Objection> {
        let (taken, may_run, may_end) = (self.taken(), self.may_run(), self.may_end());
        let capacity = &self.request.capacity;
        let mut objections = Vec::new();
        if taken.len() != self.claimed.tasks.len() {
            objections.push("a task was taken twice".to_owned());
        }
        objections.extend(
            taken.iter().filter(|id| may_run.iter().all(|one| one.id != **id)).map(|id| format!("{id} may not run")),
        );
        let wrong = self
            .claimed
            .ended
            .iter()
            .filter(|ended| !may_end.iter().any(|(id, reason, _)| (*id, *reason) == (ended.id, ended.reason)));
        objections.extend(wrong.map(|ended| format!("{} may not fail as {}", ended.id, ended.reason)));
        let bytes: u64 = self.claimed.tasks.iter().map(|task| task.payload.body().len() as u64).sum();
        let over = taken.len() > capacity.tasks
            || (taken.len() > 1 && bytes > capacity.bytes)
            || self.number_of(ClaimedTask::is_suspect) > capacity.suspects
            || capacity.per_type.iter().any(|(of, most)| self.number_of(|task| task.task_type == *of) > *most);
        if over {
            objections.push(format!("{taken:?} are over {capacity:?}"));
        }
        if objections.is_empty() { Ok(()) } else { Err(objections.join("; ")) }
    }

    /// Within a queue the higher priority first, then the earlier due time, then the lower id; suspects apart.
    fn is_in_order(&self) -> Result<(), Objection> {
        let taken = self.taken();
        let key = |one: &Waiting| (one.rank, one.run_at, one.id);
        let may_run = self.may_run();
        for first in may_run.iter().filter(|one| !taken.contains(&one.id) && !self.is_blocked(one)) {
            let passed = |one: &&&Waiting| {
                one.queue == first.queue
                    && one.suspect == first.suspect
                    && key(one) > key(first)
                    && taken.contains(&one.id)
            };
            if let Some(taken) = may_run.iter().find(passed) {
                return Err(format!("{} was taken, and {} comes before it", taken.id, first.id));
            }
        }
        let told: Vec<_> =
            self.claimed.tasks.iter().filter_map(|task| may_run.iter().find(|one| one.id == task.id)).collect();
        for (at, one) in told.iter().enumerate() {
            let later = told[at..]
                .iter()
                .find(|next| next.queue == one.queue && next.suspect == one.suspect && key(next) < key(one));
            if let Some(next) = later {
                return Err(format!("{} is to start before {}", one.id, next.id));
            }
        }
        Ok(())
    }

    /// Whether there was no room for a task of its type, or for a suspect.
    fn is_blocked(&self, one: &Waiting) -> bool {
        let capacity = &self.request.capacity;
        let of_type = capacity.per_type.iter().find(|(of, _)| *of == one.task_type);
        of_type.is_some_and(|(of, most)| self.number_of(|task| task.task_type == *of) >= *most)
            || (one.suspect && self.number_of(ClaimedTask::is_suspect) >= capacity.suspects)
    }

    /// As much as there was room for.
    fn is_all(&self) -> Result<(), Objection> {
        let capacity = &self.request.capacity;
        let taken = self.taken();
        if taken.len() >= capacity.tasks.min(self.model.limits().batch_max) {
            return Ok(());
        }
        let bytes: u64 = self.claimed.tasks.iter().map(|task| task.payload.body().len() as u64).sum();
        let may_run = self.may_run();
        let left: Vec<_> = may_run.iter().filter(|one| !taken.contains(&one.id) && !self.is_blocked(one)).collect();
        if !taken.is_empty() && left.iter().any(|one| bytes.saturating_add(one.bytes) > capacity.bytes) {
            return Ok(());
        }
        if let Some(one) = left.first() {
            return Err(format!("there was room for {}, and it was not taken", one.id));
        }
        let may_end = self.may_end();
        let missed = |id: TaskId| self.claimed.ended.iter().all(|ended| ended.id != id);
        match may_end.iter().find(|(id, _, may_pass)| !may_pass && missed(*id)) {
            Some((id, reason, _)) => Err(format!("{id} was met and is to fail as {reason}")),
            None => Ok(()),
        }
    }
}

async fn fence(model: &MemoryStore, limit: usize, fenced: &[FencedSession]) -> Result<(), Objection> {
    let now = model.now();
    let sessions = model.sessions().await.map_err(told)?;
    let over: Vec<_> = sessions.iter().filter(|one| one.fenced_at.is_none() && one.lease_until <= now).collect();
    let unknown = fenced.iter().find(|one| over.iter().all(|over| (over.id, &over.name) != (one.id, &one.name)));
    if unknown.is_some() || fenced.len() != limit.min(over.len()) {
        return Err(format!("{fenced:?} were fenced, and {over:?} are over"));
    }
    model.fence_these(&fenced.iter().map(|one| one.id).collect::<Vec<_>>());
    Ok(())
}

fn sweep(model: &MemoryStore, swept: &[Ended]) -> Result<(), Objection> {
    let now = model.now();
    // The sweeper looks at paused queues as well, so not by what is open.
    let spent = model.spent(now);
    let told_ids: BTreeSet<_> = swept.iter().map(|ended| ended.id).collect();
    let right = swept.iter().all(|ended| ended.reason == FailureReason::BudgetExceeded);
    if !right || told_ids != spent || told_ids.len() != swept.len() {
        return Err(format!("{swept:?} were swept, and the budgets of {spent:?} are spent"));
    }
    model.end_these(&spent.into_iter().map(|id| (id, FailureReason::BudgetExceeded)).collect::<Vec<_>>()).map_err(told)
}

fn prune(
    model: &MemoryStore,
    (status, older_than, limit): (Option<Status>, Duration, usize),
    number: u64,
    gone: &[TaskId],
) -> Result<(), Objection> {
    let prunable = model.prunable(status, older_than);
    let wanted = limit.min(prunable.len());
    let wrong =
        |what: &str| Err(format!("{number} were pruned, {what}: {gone:?} out of {prunable:?}, {limit} at most"));
    if gone.len() != wanted || number != wanted as u64 {
        return wrong("and it should be as many as there are");
    }
    if gone.iter().any(|id| prunable.iter().all(|(_, one)| one != id)) {
        return wrong("not all of them for good");
    }
    let kept = prunable.iter().filter(|(_, id)| !gone.contains(id)).map(|(at, _)| at).min();
    let last = prunable.iter().filter(|(_, id)| gone.contains(id)).map(|(at, _)| at).max();
    if kept.zip(last).is_some_and(|(kept, last)| last > kept) {
        return wrong("and not the oldest first");
    }
    model.prune_these(gone);
    Ok(())
}

/// An answer without what may differ: the text of an error, the order of what has none.
fn plain(reply: &Reply) -> String {
    match reply {
        Reply::Refused(StoreError::KeyConflict { index, existing }) => format!("key conflict {index} {existing}"),
        Reply::Refused(error) => format!("refused as {:?}", error.kind()),
        Reply::Enqueued(enqueued) => format!("{enqueued:?}"),
        Reply::Settled(settled) => format!("{settled:?}"),
        Reply::Acted(acted) => format!("{acted:?}"),
        Reply::Told(told) => told.to_string(),
        other => format!("{other:?}"),
    }
}

fn sorted<T: Clone + Debug>(items: &[T]) -> Vec<String> {
    let mut told: Vec<_> = items.iter().map(|item| format!("{item:?}")).collect();
    told.sort();
    told
}

fn same<T: PartialEq + Debug>(what: &str, store: &T, model: &T) -> Result<(), Objection> {
    if store == model { Ok(()) } else { Err(format!("{what}:\n  store: {store:?}\n  model: {model:?}")) }
}

fn told(error: StoreError) -> Objection {
    format!("the model fails: {error}")
}
