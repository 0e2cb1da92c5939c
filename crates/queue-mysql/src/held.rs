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

    /// What a settle of these tasks may remove with it.
    pub(crate) fn leftovers(&self, items: &[(TaskId, ClaimId)]) -> Leftovers {
        let books = self.books();
        let mut ended: HashMap<ClaimId, HashSet<TaskId>> = HashMap::new();
        for (task, claim) in items {
            ended.entry(*claim).or_default().insert(*task);
        }
        let mut claims: Vec<_> = ended
            .iter()
            .filter(|(claim, tasks)| {
                books.claims.get(claim).is_some_and(|holding| holding.members.iter().all(|task| tasks.contains(task)))
            })
            .map(|(claim, _)| *claim)
            .chain(books.emptied.iter().copied())
            .collect();
        claims.sort_unstable();
        claims.dedup();
        let mut signals: Vec<_> = items
            .iter()
            .filter_map(|(task, claim)| books.signalled.get(&(*task, *claim)).map(|session| (*session, *task, *claim)))
            .collect();
        signals.sort_unstable();
        signals.dedup();
        Leftovers { claims, signals }
    }

    /// These tasks are no longer held, and these leftovers are gone: the settle is committed.
    pub(crate) fn release(&self, items: &[(TaskId, ClaimId)], gone: &Leftovers) {
        let mut books = self.books();
        for (task, claim) in items {
            books.signalled.remove(&(*task, *claim));
            let Some(holding) = books.claims.get_mut(claim) else { continue };
            holding.members.remove(task);
            if holding.members.is_empty() {
                books.claims.remove(claim);
                books.emptied.insert(*claim);
            }
        }
        for claim in &gone.claims {
            books.emptied.remove(claim);
        }
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
        assert_eq!(held.leftovers(&[(one, claim)]), Leftovers::default());
        held.release(&[(one, claim)], &Leftovers::default());
        let last = held.leftovers(&[(two, claim), (one, claim)]);
        assert_eq!(last.claims, [claim]);
        held.release(&[(two, claim)], &last);
        assert_eq!((held.holds(claim, two), held.emptied()), (false, vec![]));
    }

    #[test]
    fn two_settles_at_once_leave_the_claim_to_a_later_one() {
        let (claim, session, one, two) = ids();
        let held = Held::default();
        held.take(claim, session, [one, two]);
        let (first, second) = (held.leftovers(&[(one, claim)]), held.leftovers(&[(two, claim)]));
        held.release(&[(one, claim)], &first);
        held.release(&[(two, claim)], &second);
        assert_eq!(held.emptied(), [claim]);
        assert_eq!(held.leftovers(&[]).claims, [claim]);
        held.release(&[], &held.leftovers(&[]));
        assert_eq!(held.leftovers(&[]), Leftovers::default());
    }

    #[test]
    fn a_signal_goes_when_its_task_is_settled() {
        let (claim, session, one, _) = ids();
        let held = Held::default();
        held.take(claim, session, [one]);
        held.signal(session, &[(one, claim)]);
        let left = held.leftovers(&[(one, claim)]);
        assert_eq!(left.signals, [(session, one, claim)]);
        held.release(&[(one, claim)], &left);
        assert_eq!(held.leftovers(&[(one, claim)]).signals, []);
        held.signal(session, &[(one, claim)]);
        held.forget(session);
        assert_eq!(held.leftovers(&[(one, claim)]).signals, []);
    }
}
