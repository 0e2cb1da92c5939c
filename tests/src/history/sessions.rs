//! What a history says of processes, sessions and the store's clock.

use std::collections::BTreeMap;

use super::event::{Event, Fact};
use super::verdict::Violation;

/// A lease is judged with this part of it as a tolerance: clocks of processes run differently fast.
const TOLERANCE: u64 = 20;

#[derive(Debug, Default)]
struct Session {
    lease_us: u64,
    /// When the renewals that were acknowledged had been sent.
    renewed: Vec<u64>,
    fenced_at: Option<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    sessions: BTreeMap<u64, Session>,
    /// By process: when it was gone.
    gone: BTreeMap<u32, u64>,
    /// By process: from when to when it was frozen.
    frozen: BTreeMap<u32, Vec<(u64, u64)>>,
    clock_moved: Vec<u64>,
    lease_max_us: u64,
}

impl Sessions {
    pub(super) fn of(events: &[Event]) -> Self {
        let mut all = Self::default();
        for Event { at, process, fact } in events {
            match *fact {
                Fact::ProcessKilled | Fact::ProcessEnded => {
                    all.gone.entry(*process).or_insert(*at);
                }
                Fact::ProcessFrozen => all.frozen.entry(*process).or_default().push((*at, u64::MAX)),
                Fact::ProcessThawed => {
                    if let Some((_, until)) = all.frozen.entry(*process).or_default().last_mut() {
                        *until = *at;
                    }
                }
                Fact::ClockMoved { .. } => all.clock_moved.push(*at),
                Fact::SessionOpened { session, lease_us, since } => {
                    let opened = all.sessions.entry(session).or_default();
                    opened.lease_us = lease_us;
                    opened.renewed.push(since);
                    all.lease_max_us = all.lease_max_us.max(lease_us);
                }
                Fact::Renewed { session, since } => all.sessions.entry(session).or_default().renewed.push(since),
                Fact::SessionFenced { session } => {
                    all.sessions.entry(session).or_default().fenced_at.get_or_insert(*at);
                }
                _ => {}
            }
        }
        all
    }

    /// When a process was gone, if it is.
    pub(super) fn gone_at(&self, process: u32) -> Option<u64> {
        self.gone.get(&process).copied()
    }

    /// Whether the session was renewed after this: then it had not been fenced before.
    pub(super) fn renewed_after(&self, session: u64, at: u64) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.renewed.iter().any(|since| *since > at))
    }

    /// Until when a handler of the session may run at the latest, if it was fenced: whoever cannot renew stops its handlers
    /// before the lease ends that it knows of.
    pub(super) fn must_stop_by(&self, session: u64) -> Option<u64> {
        let session = self.sessions.get(&session)?;
        Some(session.fenced_at? + session.lease_us + session.lease_us / TOLERANCE)
    }

    /// Whether a process may have slept through the end of its lease in this time.
    pub(super) fn slept(&self, process: u32, from: u64, until: u64) -> bool {
        let from = from.saturating_sub(2 * self.lease_max_us);
        self.frozen
            .get(&process)
            .is_some_and(|times| times.iter().any(|(begun, ended)| *begun <= until && *ended >= from))
    }

    /// Whether the store's clock may have misjudged a lease shortly before or within this time.
    pub(super) fn clock_moved(&self, from: u64, until: u64) -> bool {
        let from = from.saturating_sub(2 * self.lease_max_us);
        self.clock_moved.iter().any(|at| (from..=until).contains(at))
    }

    /// Sessions that were fenced though their lease had not ended.
    pub(super) fn stolen(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (id, session) in &self.sessions {
            let Some(fenced_at) = session.fenced_at else { continue };
            let lease = session.lease_us - session.lease_us / TOLERANCE;
            // The store cannot have begun a lease before it was asked to.
            let alive = |since: &u64| {
                since + lease > fenced_at && !self.clock_moved.iter().any(|at| (*since..=fenced_at).contains(at))
            };
            if session.renewed.iter().any(alive) {
                violations.push(Violation::LiveWorkStolen { session: *id, task: None });
            }
        }
        violations
    }
}
