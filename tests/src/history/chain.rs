//! The claims of one task, one after the other, and what ended each of them.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{Answer, Event, Fact, How, Operation, To};
use super::final_state::FinalTask;
use super::sessions::Sessions;
use super::verdict::{Tally, Violation};

/// One run of a handler.
#[derive(Clone, Copy, Debug)]
struct Run {
    process: u32,
    from: u64,
    until: Option<u64>,
    how: Option<How>,
}

/// A settlement under one claim: when it was sent, and what was answered to each try that was answered.
#[derive(Debug, Default)]
struct Letter {
    sent: Vec<u64>,
    answers: Vec<(u64, Answer)>,
}

impl Letter {
    fn is_accepted(&self) -> bool {
        self.answers.iter().any(|(_, answer)| answer.is_accepted())
    }

    /// Whether it may have been written: it was, or of a try of it that is not known.
    fn may_be_written(&self) -> bool {
        let unclear = || self.answers.iter().any(|(_, answer)| *answer == Answer::Unclear);
        self.is_accepted() || self.sent.len() > self.answers.len() || unclear()
    }

    fn first_sent(&self) -> u64 {
        self.sent.iter().copied().min().unwrap_or(u64::MAX)
    }
}

/// A task held by a claim.
#[derive(Debug)]
struct Hold {
    /// The latest time at which it can have begun, and where it was.
    known_at: u64,
    process: u32,
    claims: BTreeSet<u64>,
    session: Option<u64>,
    attempt: u16,
    max_attempts: u16,
    runs: Vec<Run>,
    letters: BTreeMap<(To, bool), Letter>,
}

/// What may have come between a hold and the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Between {
    /// The attempt was spent.
    charged: bool,
    /// The attempt was given back.
    refunded: bool,
    /// An operator granted fresh attempts.
    reset: bool,
    /// The worker was taken for lost, and nothing else can have happened.
    only_lost: bool,
}

/// All that is known of one task.
#[derive(Debug, Default)]
pub(super) struct Chain {
    acknowledged: bool,
    jobs: BTreeSet<u64>,
    holds: BTreeMap<u32, Hold>,
    operations: Vec<(u64, Operation)>,
}

/// What the checker knows besides one task.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) sessions: Sessions,
    /// Whether the history has settlements at all.
    pub(super) settlements: bool,
    /// Whether it has the ends of handlers.
    pub(super) ends: bool,
    pub(super) over_at: u64,
}

impl Chain {
    pub(super) fn take(&mut self, event: &Event) {
        let Event { at, process, ref fact } = *event;
        match *fact {
            Fact::Enqueuing { job, .. } => self.jobs.extend(job),
            Fact::Enqueued { .. } => self.acknowledged = true,
            Fact::Acting { operation, .. } => self.operations.push((at, operation)),
            Fact::Claimed { claim, session, fence, attempt, max_attempts, .. } => {
                let hold = self.hold(fence, at, process, attempt, max_attempts);
                hold.claims.insert(claim);
                hold.session = Some(session);
            }
            Fact::Started { fence, attempt, max_attempts, .. } => {
                let hold = self.hold(fence, at, process, attempt, max_attempts);
                hold.runs.push(Run { process, from: at, until: None, how: None });
            }
            Fact::Ended { fence, how, .. } => {
                let runs = self.holds.get_mut(&fence).map(|hold| &mut hold.runs);
                let open =
                    runs.and_then(|runs| runs.iter_mut().find(|run| run.process == process && run.until.is_none()));
                if let Some(run) = open {
                    (run.until, run.how) = (Some(at), Some(how));
                }
            }
            Fact::Settling { claim, to, by_reaper, .. } => {
                if let Some(letter) = self.letter(claim, to, by_reaper) {
                    letter.sent.push(at);
                }
            }
            Fact::Settled { claim, to, by_reaper, since, answer, .. } => {
                if let Some(letter) = self.letter(claim, to, by_reaper) {
                    letter.answers.push((since, answer));
                }
            }
            _ => {}
        }
    }

    pub(super) fn jobs(&self) -> impl Iterator<Item = u64> {
        self.jobs.iter().copied()
    }

    pub(super) fn count(&self, tally: &mut Tally) {
        tally.acknowledged += u64::from(self.acknowledged);
        let starts = self.holds.values().map(|hold| hold.runs.len() as u64).sum::<u64>();
        tally.starts += starts;
        tally.reruns += starts.saturating_sub(1);
        for ((to, by_reaper), letter) in self.holds.values().flat_map(|hold| &hold.letters) {
            let stale = letter.answers.iter().filter(|(_, answer)| !answer.is_accepted()).count() as u64;
            tally.stale += stale;
            // The last allowed attempt of a lost worker is failed by the reaper.
            let lost = *to == To::Recovered || *by_reaper;
            tally.recovered += u64::from(lost && letter.is_accepted());
        }
    }

    /// What is wrong with it.
    pub(super) fn check(&self, task: u64, end: Option<&FinalTask>, known: &Known, wrong: &mut Vec<Violation>) {
        self.check_end(task, end, wrong);
        for (fence, hold) in &self.holds {
            self.check_hold(task, *fence, hold, known, wrong);
        }
        for ((fence, hold), (next_fence, next)) in self.holds.iter().zip(self.holds.iter().skip(1)) {
            let fences = (*fence, *next_fence);
            let gap = u16::try_from(next_fence - fence - 1).unwrap_or(u16::MAX);
            let between = self.between(*fence, hold, next, end, known);
            if gap == 0 && between == Between::default() {
                wrong.push(if hold.runs.is_empty() || next.runs.is_empty() {
                    Violation::TwoClaims { task, fences }
                } else {
                    Violation::UnexplainedRerun { task, fences }
                });
                continue;
            }
            if !between.allows(hold.attempt, next.attempt, gap) {
                let (attempt, before) = (next.attempt, hold.attempt);
                wrong.push(Violation::WrongAttempt { task, fence: *next_fence, attempt, before });
            }
            if gap == 0 && between.only_lost {
                check_lost(task, fences, hold, next, known, wrong);
            }
        }
    }

    fn check_end(&self, task: u64, end: Option<&FinalTask>, wrong: &mut Vec<Violation>) {
        let completed = self.holds.iter().filter(|(_, hold)| hold.is_completed()).map(|(fence, _)| *fence);
        let completed = completed.collect::<Vec<_>>();
        let deleted = self.operations.iter().any(|(_, operation)| *operation == Operation::Delete);
        let status = end.map(|end| end.status.clone());
        if !deleted {
            if self.acknowledged && end.is_none_or(|end| !end.is_terminal()) {
                wrong.push(Violation::Lost { task, status: status.clone() });
            }
            if !completed.is_empty() && status.as_deref() != Some("completed") {
                wrong.push(Violation::Undone { task, status });
            }
        }
        if completed.len() > 1 {
            wrong.push(Violation::Duplicated { task, fences: completed });
        }
        if let Some(&FinalTask { attempt, max_attempts, .. }) = end {
            use queue_core::FailureReason::{Crashed, Exhausted};

            if attempt > max_attempts {
                wrong.push(Violation::OverLimit { task, attempt, max_attempts });
            }
            if attempt < max_attempts && matches!(end.and_then(FinalTask::reason), Some(Exhausted | Crashed)) {
                wrong.push(Violation::GivenUpEarly { task, attempt, max_attempts });
            }
        }
    }

    fn check_hold(&self, task: u64, fence: u32, hold: &Hold, known: &Known, wrong: &mut Vec<Violation>) {
        let &Hold { attempt, max_attempts, .. } = hold;
        if attempt > max_attempts {
            wrong.push(Violation::OverLimit { task, attempt, max_attempts });
        }
        if hold.claims.len() > 1 {
            wrong.push(Violation::TwoClaims { task, fences: (fence, fence) });
        }
        if hold.runs.len() > 1 {
            wrong.push(Violation::UnexplainedRerun { task, fences: (fence, fence) });
        }
        let taken_at = self.holds.range(fence + 1..).map(|(_, next)| next.known_at).min().unwrap_or(u64::MAX);
        let applied = hold.letters.values().flat_map(|letter| &letter.answers);
        let applied = applied.filter(|(_, answer)| *answer == Answer::Applied);
        let late = applied.clone().any(|(since, _)| *since > taken_at);
        let ways = hold.letters.values().filter(|letter| letter.is_accepted()).count();
        if late || applied.count() > 1 || ways > 1 {
            wrong.push(Violation::StaleAccepted { task, fence });
        }
        if let Some(letter) = hold.letters.get(&(To::Completed, false)).filter(|_| known.ends) {
            let sent = letter.first_sent();
            let succeeded = |run: &Run| run.how == Some(How::Succeeded) && run.until.is_some_and(|until| until <= sent);
            if !hold.runs.iter().any(succeeded) {
                wrong.push(Violation::Unearned { task, fence });
            }
        }
        let limit = hold.session.and_then(|session| Some((session, known.sessions.must_stop_by(session)?)));
        if let Some((session, by)) = limit {
            let late = |run: &Run| run.until(known) > by && !known.sessions.slept(run.process, run.from, by);
            if hold.runs.iter().any(late) {
                wrong.push(Violation::RanOn { task, fence, session });
            }
        }
    }

    /// What may have happened between the end of a hold and the next one.
    fn between(&self, fence: u32, hold: &Hold, next: &Hold, end: Option<&FinalTask>, known: &Known) -> Between {
        let mut between = Between::default();
        let (mut lost, mut other) = (false, false);
        let mut failed = false;
        for ((to, by_reaper), letter) in &hold.letters {
            if !letter.may_be_written() || letter.first_sent() > next.known_at {
                continue;
            }
            failed |= *to == To::Failed;
            if to.requeues() {
                // A dying process is an attempt, whatever the reaper makes of it.
                between.charged |= *by_reaper || !to.refunds();
                between.refunded |= !by_reaper && to.refunds();
                lost |= *by_reaper;
                other |= !by_reaper;
            }
        }
        if !known.settlements {
            // Nobody took notes of settlements: what is known of handlers, processes and failed attempts must do.
            for run in &hold.runs {
                failed |= run.how == Some(How::Errored) || run.how == Some(How::Panicked);
                between.charged |= run.how == Some(How::Errored) || run.how == Some(How::Dropped);
                between.refunded |= run.how == Some(How::Snoozed) || run.how == Some(How::Dropped);
            }
            between.charged |= known.sessions.gone_at(hold.process).is_some_and(|gone| gone <= next.known_at);
            between.charged |= known.sessions.slept(hold.process, hold.known_at, next.known_at);
            between.charged |= end.is_some_and(|end| {
                end.attempts.iter().any(|(failed, outcome)| *failed == fence && outcome == "retried")
            });
            other = true;
        }
        let ended = failed || between.charged || between.refunded;
        let retried = |(at, operation): &(u64, Operation)| {
            *operation == Operation::Retry && (hold.known_at..=next.known_at).contains(at)
        };
        between.reset = ended && self.operations.iter().any(retried);
        between.only_lost = lost && !other && !between.reset;
        between
    }

    fn hold(&mut self, fence: u32, at: u64, process: u32, attempt: u16, max_attempts: u16) -> &mut Hold {
        self.holds.entry(fence).or_insert_with(|| Hold {
            known_at: at,
            process,
            claims: BTreeSet::new(),
            session: None,
            attempt,
            max_attempts,
            runs: Vec::new(),
            letters: BTreeMap::new(),
        })
    }

    fn letter(&mut self, claim: u64, to: To, by_reaper: bool) -> Option<&mut Letter> {
        let hold = self.holds.values_mut().find(|hold| hold.claims.contains(&claim))?;
        Some(hold.letters.entry((to, by_reaper)).or_default())
    }
}

impl Run {
    /// When it was over for sure, or the history was.
    fn until(&self, known: &Known) -> u64 {
        self.until.or(known.sessions.gone_at(self.process)).unwrap_or(known.over_at)
    }
}

impl Hold {
    fn is_completed(&self) -> bool {
        self.letters.iter().any(|((to, _), letter)| *to == To::Completed && letter.is_accepted())
    }
}

impl Between {
    /// Whether the next attempt may be this one. In a gap there are holds that nobody knows of; each may have spent an
    /// attempt or not.
    fn allows(self, before: u16, next: u16, gap: u16) -> bool {
        if gap > 0 {
            // Any of them may have been ended in any way, an operator's retry included.
            return next <= before.saturating_add(gap).saturating_add(1);
        }
        (self.charged && next == before + 1) || (self.refunded && next == before) || (self.reset && next == 1)
    }
}

/// A task was taken from a worker that was said to be lost: it must have been, and its handler must have stopped.
fn check_lost(task: u64, fences: (u32, u32), hold: &Hold, next: &Hold, known: &Known, wrong: &mut Vec<Violation>) {
    let Some(session) = hold.session else { return };
    let taken_at = hold.letters.iter().filter(|((_, by_reaper), _)| *by_reaper).map(|(_, letter)| letter.first_sent());
    if taken_at.min().is_some_and(|at| known.sessions.renewed_after(session, at)) {
        wrong.push(Violation::LiveWorkStolen { session, task: Some(task) });
    }
    let Some(from) = next.runs.first().map(|run| run.from) else { return };
    let excused =
        |run: &Run| known.sessions.slept(run.process, run.from, from) || known.sessions.clock_moved(run.from, from);
    if hold.runs.iter().any(|run| run.until(known) > from && !excused(run)) {
        wrong.push(Violation::Overlap { task, fences });
    }
}
