//! Finding what was lost, and what waited too long.

use queue_core::reap::{FencedSession, Lost, LostTask, Swept};
use queue_core::settlement::Run;
use queue_core::{Event, SessionId, StoreError, Timestamp};

use super::database::Database;

impl Database {
    pub(super) fn fence_expired(&mut self, limit: usize, now: Timestamp) -> Vec<FencedSession> {
        let ended = self.sessions.iter_mut().filter(|(_, row)| row.fenced_at.is_none() && row.lease_until <= now);
        ended
            .take(limit)
            .map(|(&id, row)| {
                row.fenced_at = Some(now);
                FencedSession { id, name: row.name.clone() }
            })
            .collect()
    }

    pub(super) fn lost(&mut self, limit: usize, now: Timestamp) -> Lost {
        let fenced = |id: &SessionId| self.sessions.get(id).is_some_and(|session| session.fenced_at.is_some());
        let mut ids: Vec<_> = self
            .claims
            .iter()
            .filter(|(_, claim)| fenced(&claim.session))
            .flat_map(|(&id, claim)| claim.members.iter().map(move |&task| (task, id)))
            .collect();
        ids.sort_unstable();
        let tasks = ids.into_iter().take(limit).filter_map(|(id, claim)| {
            let row = self.rows.get(&id)?;
            let run = Run {
                attempt: row.state.attempt,
                max_attempts: row.state.max_attempts,
                backoff: row.backoff.clone(),
                deadline_at: row.state.deadline_at,
                cancel_requested: row.state.cancel_requested,
            };
            Some(LostTask { id, claim, task_type: row.task_type.clone(), run })
        });
        let tasks = tasks.collect();
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.forget_session(id);
        }
        Lost { now, tasks }
    }

    /// In the order of deadlines, so that one look sees all that is spent: it is finished when it was not cut short.
    pub(super) fn expire(&mut self, limit: usize, now: Timestamp) -> Result<Swept, StoreError> {
        let spent = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).take(limit);
        let spent: Vec<_> = spent.map(|&(_, id)| id).collect();
        let finished = spent.len() < limit;
        let mut ended = Vec::with_capacity(spent.len());
        for id in spent {
            ended.extend(self.end(id, &Event::Expire, now)?);
        }
        Ok(Swept { ended, finished })
    }
}
