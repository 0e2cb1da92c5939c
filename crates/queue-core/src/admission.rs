//! Which of the due rows that a claim has looked at may run.

use crate::claim::{Capacity, ClaimRequest, Scope};
use crate::names::{QueueName, TaskType};
use crate::time::Timestamp;

/// Tasks that one claim fails without a run, at most; the rest is left to the next claim or the sweeper.
pub const ENDED_MAX: usize = 1_000;

/// A due row, as a claim sees it before it takes anything.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its queue.
    pub queue: &'a QueueName,
    /// Its type.
    pub task_type: &'a TaskType,
    /// When its budget is spent.
    pub deadline_at: Option<Timestamp>,
    /// Whether its last worker was lost.
    pub suspect: bool,
    /// Its payload's size.
    pub bytes: u64,
}

/// What to do with a [`Candidate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Claim it.
    Run,
    /// Fail it: its budget is spent.
    Expire,
    /// Fail it: its type has no handler here, and this worker was told to fail such tasks.
    Unregister,
    /// Leave it to others.
    Skip,
    /// Leave it and look no further: nothing more fits.
    Full,
}

/// The running account of one claim.
#[derive(Clone, Debug)]
pub struct Admission<'a> {
    scope: &'a Scope,
    left: Capacity,
    now: Timestamp,
    admitted: usize,
    ended: usize,
}

impl<'a> Admission<'a> {
    /// Starts the account of a claim; `now` is the store's clock.
    #[must_use]
    pub fn new(request: &'a ClaimRequest, now: Timestamp) -> Self {
        Self { scope: &request.scope, left: request.capacity.clone(), now, admitted: 0, ended: 0 }
    }

    /// How many more rows could be admitted.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.left.tasks
    }

    /// How many more suspects could be admitted.
    #[must_use]
    pub fn suspect_room(&self) -> usize {
        self.left.suspects.min(self.left.tasks)
    }

    /// Judges one due row and takes it off the account.
    pub fn admit(&mut self, candidate: &Candidate<'_>) -> Verdict {
        let of_type = self.of_type(candidate);
        let verdict = self.weigh(candidate, of_type);
        self.charge(candidate, of_type, verdict);
        verdict
    }

    /// Judges one due row, for those who find out only then whether it can be taken at all: what can takes [room](Self::take).
    pub fn judge(&self, candidate: &Candidate<'_>) -> Verdict {
        self.weigh(candidate, self.of_type(candidate))
    }

    /// Takes a row off the account that was [judged](Self::judge) last.
    pub fn take(&mut self, candidate: &Candidate<'_>, verdict: Verdict) {
        self.charge(candidate, self.of_type(candidate), verdict);
    }

    /// Which of the types that have a limit of their own it is of.
    #[inline(always)]
    fn of_type(&self, candidate: &Candidate<'_>) -> Option<usize> {
        self.left.per_type.iter().position(|(name, _)| name == candidate.task_type)
    }

    #[inline(always)]
    fn weigh(&self, candidate: &Candidate<'_>, of_type: Option<usize>) -> Verdict {
        let served = self.scope.serves(candidate.queue, candidate.task_type);
        if !served && !self.scope.reaches(candidate.queue, candidate.task_type) {
            return Verdict::Skip;
        }
        let may_end = |verdict| if self.ended < ENDED_MAX { verdict } else { Verdict::Skip };
        if candidate.deadline_at.is_some_and(|deadline| deadline <= self.now) {
            return may_end(Verdict::Expire);
        }
        if !served {
            return may_end(Verdict::Unregister);
        }
        if self.left.tasks == 0 {
            return Verdict::Full;
        }
        let is_spent = of_type.is_some_and(|of_type| self.left.per_type[of_type].1 == 0);
        if is_spent || (candidate.suspect && self.left.suspects == 0) {
            return Verdict::Skip;
        }
        // Last: what would not run however small it were must hide nothing because of its size.
        if self.admitted > 0 && candidate.bytes > self.left.bytes {
            return Verdict::Full;
        }
        Verdict::Run
    }

    #[inline(always)]
    fn charge(&mut self, candidate: &Candidate<'_>, of_type: Option<usize>, verdict: Verdict) {
        match verdict {
            Verdict::Run => {
                if let Some(of_type) = of_type {
                    let left = &mut self.left.per_type[of_type].1;
                    *left = left.saturating_sub(1);
                }
                self.left.suspects = self.left.suspects.saturating_sub(usize::from(candidate.suspect));
                self.left.tasks = self.left.tasks.saturating_sub(1);
                self.left.bytes = self.left.bytes.saturating_sub(candidate.bytes);
                self.admitted += 1;
            }
            Verdict::Expire | Verdict::Unregister => self.ended += 1,
            Verdict::Skip | Verdict::Full => {}
        }
    }
}
