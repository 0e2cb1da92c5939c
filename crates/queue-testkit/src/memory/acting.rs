//! What operators do.

use std::time::Duration;

use queue_core::admin::{Acted, Action, Effect, Page, Pause, Selection};
use queue_core::spec::KEY_KEPT;
use queue_core::text::cut;
use queue_core::{QueueName, SessionId, Status, StoreError, TaskId, Timestamp};

use super::database::Database;
use super::looking::AuditEntry;

const AUDIT_MAX: usize = 10_000;

const FIRST: TaskId = match TaskId::new(1) {
    Some(id) => id,
    None => unreachable!(),
};

impl Database {
    pub(super) fn act(
        &mut self,
        selection: Selection,
        action: Action,
        actor: &str,
        now: Timestamp,
    ) -> Result<Vec<(TaskId, Acted)>, StoreError> {
        selection.check()?;
        let ids = match selection {
            Selection::Ids(ids) => Selection::distinct(ids),
            Selection::Matching { filter, limit } => {
                self.list(&filter, Page { after: None, limit }).into_iter().map(|task| task.id).collect()
            }
        };
        let acted: Vec<_> = ids.into_iter().map(|id| (id, self.act_on(id, action, now))).collect();
        let changed = acted.iter().filter(|(_, acted)| acted.is_change()).count();
        self.note(actor, action.as_str(), changed as u64, now);
        Ok(acted)
    }

    fn act_on(&mut self, id: TaskId, action: Action, now: Timestamp) -> Acted {
        let Some(row) = self.rows.get(&id) else { return Acted::NotFound };
        let effect = match action.on(&row.state, now) {
            Ok(effect) => effect,
            Err(error) => return Acted::Refused(error),
        };
        let acted = effect.acted();
        match effect {
            Effect::Move(state) | Effect::Signal(state) => self.change(id, state),
            Effect::Delete => self.delete(id),
        }
        acted
    }

    /// Every trace of it, its key included.
    fn delete(&mut self, id: TaskId) {
        let Some(row) = self.remove(id) else { return };
        if let Some((key, keys)) = row.key.zip(self.keys.get_mut(&row.task_type)) {
            keys.remove(&key);
        }
    }

    pub(super) fn set_paused(&mut self, queue: QueueName, pause: Option<Pause>, actor: &str, now: Timestamp) {
        let action = if pause.is_some() { "pause" } else { "resume" };
        let pause =
            pause.map(|pause| Pause { by: cut(&pause.by, 64).into(), why: cut(&pause.why, 200).into(), at: now });
        self.queues.insert(queue, pause);
        self.note(actor, action, 1, now);
    }

    pub(super) fn request_drain(&mut self, id: SessionId, actor: &str, now: Timestamp) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        session.drain = true;
        self.note(actor, "drain", 1, now);
        true
    }

    pub(super) fn prune(&mut self, status: Option<Status>, older_than: Duration, limit: usize, now: Timestamp) -> u64 {
        let ended: Vec<_> = self.prunable(status, older_than, limit, now).into_iter().map(|(_, id)| id).collect();
        self.prune_these(&ended, now);
        ended.len() as u64
    }

    /// What ended longer ago than this, the oldest first.
    pub(super) fn prunable(
        &self,
        status: Option<Status>,
        older_than: Duration,
        limit: usize,
        now: Timestamp,
    ) -> Vec<(Timestamp, TaskId)> {
        let until = now.before(older_than);
        let mut ended: Vec<_> = [Status::Completed, Status::Failed]
            .into_iter()
            .filter(|one| status.is_none_or(|status| status == *one))
            .flat_map(|one| {
                let from = (one, Timestamp::from_micros(i64::MIN), FIRST);
                self.finished.range(from..(one, until, FIRST)).take(limit)
            })
            .map(|&(_, at, id)| (at, id))
            .collect();
        ended.sort_unstable();
        ended.truncate(limit);
        ended
    }

    /// Removes ended tasks; their keys stay for their time.
    pub(super) fn prune_these(&mut self, ended: &[TaskId], now: Timestamp) {
        for &id in ended {
            let Some(row) = self.remove(id) else { continue };
            let at = row.key.as_ref().and_then(|key| self.keys.get(&row.task_type)?.get(key)).map(|key| key.at);
            if let Some((key, at)) = row.key.zip(at) {
                self.orphans.insert((at, row.task_type, key));
            }
        }
        self.drop_old_keys(now);
    }

    fn drop_old_keys(&mut self, now: Timestamp) {
        while let Some((at, task_type, key)) = self.orphans.pop_first() {
            if at.after(KEY_KEPT) > now {
                self.orphans.insert((at, task_type, key));
                return;
            }
            if let Some(keys) = self.keys.get_mut(&task_type) {
                keys.remove(&key);
            }
        }
    }

    fn note(&mut self, actor: &str, action: &'static str, changed: u64, now: Timestamp) {
        if self.audit.len() == AUDIT_MAX {
            self.audit.pop_front();
        }
        self.audit.push_back(AuditEntry { at: now, actor: cut(actor, 64).to_owned(), action, changed });
    }
}
