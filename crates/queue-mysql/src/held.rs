//! What this process holds: which tasks of which claims are not settled yet.
//!
//! Only a help. When it is lost with the process, the reaper finds claims without a current member.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

use queue_core::{ClaimId, SessionId, TaskId};

use crate::inner::lock;

/// A claim and its tasks.
#[derive(Debug)]
struct Holding {
    session: SessionId,
    members: HashSet<TaskId>,
}

#[derive(Debug, Default)]
struct Books {
    claims: HashMap<ClaimId, Holding>,
    /// Claims without a member whose rows are still there, because two settles ended their last members at once.
    emptied: HashSet<ClaimId>,
    /// Tasks that this process was told to cancel, with their sessions: their signals go when they are settled.
    signalled: HashMap<(TaskId, ClaimId), SessionId>,
}

/// The books of what is held.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<Books>);

/// What a settle can clean up along the way.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Leftovers {
    /// Claims that have no member once this settle is committed.
    pub(crate) claims: Vec<ClaimId>,
    /// Signals to tasks that this settle ends.
    pub(crate) signals: Vec<(SessionId, TaskId, ClaimId)>,
}

impl Held {
    /// A claim was committed.
    pub(crate) fn take(&self, claim: ClaimId, session: SessionId, members: impl IntoIterator<Item = TaskId>) {
        let members: HashSet<_> = members.into_iter().collect();
        if !members.is_empty() {
            self.books().claims.insert(claim, Holding { session, members });
        }
    }

    /// Whether a task under this claim is one of ours.
    pub(crate) fn holds(&self, claim: ClaimId, task: TaskId) -> bool {
        self.books().claims.get(&claim).is_some_and(|holding| holding.members.contains(&task))
    }

    /// What a settle of these tasks may remove with it. Claims that others have emptied are taken by one settle at a time: two that
    /// delete the same row wait for one another.
    pub(crate) fn cleaning(&self, items: &[(TaskId, ClaimId)]) -> Cleaning<'_> {
        let mut books = self.books();
        let mut ended: HashMap<ClaimId, HashSet<TaskId>> = HashMap::new();
        for (task, claim) in items {
            ended.entry(*claim).or_default().insert(*task);
        }
        let emptied: Vec<_> = books.emptied.drain().collect();
        let mut claims: Vec<_> = ended
            .iter()
            .filter(|(claim, tasks)| {
                books.claims.get(claim).is_some_and(|holding| holding.members.iter().all(|task| tasks.contains(task)))
            })
            .map(|(claim, _)| *claim)
            .chain(emptied.iter().copied())
            .collect();
        claims.sort_unstable();
        claims.dedup();
        let mut signals: Vec<_> = items
            .iter()
            .filter_map(|(task, claim)| books.signalled.get(&(*task, *claim)).map(|session| (*session, *task, *claim)))
            .collect();
        signals.sort_unstable();
        signals.dedup();
        Cleaning { held: self, leftovers: Leftovers { claims, signals }, emptied }
    }

    /// The session was told to cancel these.
    pub(crate) fn signal(&self, session: SessionId, tasks: &[(TaskId, ClaimId)]) {
        let mut books = self.books();
        for task in tasks {
            books.signalled.insert(*task, session);
        }
    }

    /// The session is over: nothing of it is held any more.
    pub(crate) fn forget(&self, session: SessionId) {
        let mut books = self.books();
        books.claims.retain(|_, holding| holding.session != session);
        books.signalled.retain(|_, of| *of != session);
    }

    #[cfg(test)]
    fn emptied(&self) -> Vec<ClaimId> {
        self.books().emptied.iter().copied().collect()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.0)
    }
}

/// What a settle removes beside what it settles. Dropped without [`done`](Self::done), a later settle gets it.
#[derive(Debug)]
pub(crate) struct Cleaning<'a> {
    held: &'a Held,
    leftovers: Leftovers,
    emptied: Vec<ClaimId>,
}

impl Cleaning<'_> {
    /// What is to be removed.
    pub(crate) const fn leftovers(&self) -> &Leftovers {
        &self.leftovers
    }

    /// The settle of these tasks is committed: they are no longer held, and the leftovers are gone.
    pub(crate) fn done(mut self, items: &[(TaskId, ClaimId)]) {
        self.emptied.clear();
        let mut books = self.held.books();
        for (task, claim) in items {
            books.signalled.remove(&(*task, *claim));
            let Some(holding) = books.claims.get_mut(claim) else { continue };
            holding.members.remove(task);
            if holding.members.is_empty() {
                books.claims.remove(claim);
                if !self.leftovers.claims.contains(claim) {
                    books.emptied.insert(*claim);
                }
            }
        }
    }
}

impl Drop for Cleaning<'_> {
    fn drop(&mut self) {
        if !self.emptied.is_empty() {
            self.held.books().emptied.extend(self.emptied.drain(..));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> (ClaimId, SessionId, TaskId, TaskId) {
        (ClaimId::new(9).unwrap(), SessionId::new(8).unwrap(), TaskId::new(1).unwrap(), TaskId::new(2).unwrap())
    }

    #[test]
    fn a_claim_goes_with_its_last_member() {
        let (claim, session, one, two) = ids();
        let held = Held::default();
        held.take(claim, session, [one, two]);
        assert!(held.holds(claim, one));
        let first = held.cleaning(&[(one, claim)]);
        assert_eq!(first.leftovers(), &Leftovers::default());
        first.done(&[(one, claim)]);
        let last = held.cleaning(&[(two, claim), (one, claim)]);
        assert_eq!(last.leftovers().claims, [claim]);
        last.done(&[(two, claim)]);
        assert_eq!((held.holds(claim, two), held.emptied()), (false, vec![]));
    }

    #[test]
    fn two_settles_at_once_leave_the_claim_to_one_later() {
        let (claim, session, one, two) = ids();
        let held = Held::default();
        held.take(claim, session, [one, two]);
        let (first, second) = (held.cleaning(&[(one, claim)]), held.cleaning(&[(two, claim)]));
        first.done(&[(one, claim)]);
        second.done(&[(two, claim)]);
        assert_eq!(held.emptied(), [claim]);
        let later = held.cleaning(&[]);
        assert_eq!(later.leftovers().claims, [claim]);
        assert_eq!(held.cleaning(&[]).leftovers(), &Leftovers::default());
        // It failed.
        drop(later);
        let again = held.cleaning(&[]);
        assert_eq!(again.leftovers().claims, [claim]);
        again.done(&[]);
        assert_eq!(held.emptied(), []);
    }

    #[test]
    fn a_signal_goes_when_its_task_is_settled() {
        let (claim, session, one, _) = ids();
        let held = Held::default();
        held.take(claim, session, [one]);
        held.signal(session, &[(one, claim)]);
        let left = held.cleaning(&[(one, claim)]);
        assert_eq!(left.leftovers().signals, [(session, one, claim)]);
        left.done(&[(one, claim)]);
        assert_eq!(held.cleaning(&[(one, claim)]).leftovers().signals, []);
        held.signal(session, &[(one, claim)]);
        held.forget(session);
        assert_eq!(held.cleaning(&[(one, claim)]).leftovers().signals, []);
    }
}
