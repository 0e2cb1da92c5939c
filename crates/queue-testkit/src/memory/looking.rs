//! What operators see.

use std::collections::BTreeMap;
use std::time::Duration;

use queue_core::admin::{Count, Filter, Page, QueueStats, Stats};
use queue_core::session::SessionRecord;
use queue_core::{AttemptRecord, Payload, QueueName, Status, TaskId, TaskRecord, TaskResult, Timestamp};

use super::database::{Database, Row};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
const SESSIONS_MAX: usize = 1_000;

/// One entry of the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub actor: String,
    /// What: the name of an action, `pause`, `resume` or `drain`.
    pub action: &'static str,
    /// How many tasks, queues or sessions were changed.
    pub changed: u64,
}

impl Database {
    pub(super) fn record(&self, id: TaskId, row: &Row) -> TaskRecord {
        let worker = || {
            let claim = self.claims.get(&row.state.claim?)?;
            Some(self.sessions.get(&claim.session)?.name.clone())
        };
        TaskRecord {
            id,
            task_type: row.task_type.clone(),
            queue: row.queue.clone(),
            priority: row.priority,
            state: row.state.clone(),
            backoff: row.backoff.clone(),
            progress: row.progress.clone(),
            last_error: row.last_error.clone(),
            worker: if row.state.status == Status::Running { worker() } else { None },
            payload: row.payload.clone(),
            result: row.result.clone(),
        }
    }

    pub(super) fn get(&self, id: TaskId) -> Option<TaskRecord> {
        self.rows.get(&id).map(|row| self.record(id, row))
    }

    pub(super) fn attempts(&self, id: TaskId) -> Vec<AttemptRecord> {
        self.attempts.get(&id).into_iter().flatten().cloned().collect()
    }

    pub(super) fn list(&self, filter: &Filter, page: Page) -> Vec<TaskRecord> {
        let mut found = BTreeMap::new();
        for (&id, row) in &self.rows {
            let mut record = self.record(id, row);
            let position = filter.position(&record);
            if filter.matches(&record) && page.after.is_none_or(|after| after < position) {
                record.payload = Payload::default();
                record.result = TaskResult::None;
                found.insert(position, record);
            }
        }
        found.into_values().take(page.limit).collect()
    }

    pub(super) fn stats(&self, now: Timestamp) -> Stats {
        let mut queues: BTreeMap<&QueueName, Tallied> =
            self.queues.keys().map(|name| (name, Tallied::default())).collect();
        for row in self.rows.values() {
            queues.entry(&row.queue).or_default().add(row, now);
        }
        let queues = queues
            .into_iter()
            .map(|(queue, tallied)| QueueStats {
                queue: queue.clone(),
                ready: Count::bounded(tallied.ready),
                later: Count::bounded(tallied.later),
                running: Count::bounded(tallied.running),
                oldest_ready: tallied.oldest.map(|oldest| now.since(oldest)),
                completed_last_minute: Count::bounded(tallied.completed),
                failed_last_day: Count::bounded(tallied.failed),
                paused: self.queues.get(queue).cloned().flatten(),
            })
            .collect();
        let alive = self.sessions.values().filter(|session| session.fenced_at.is_none() && session.lease_until > now);
        Stats { now, queues, sessions: alive.count() as u64 }
    }

    pub(super) fn sessions(&self) -> Vec<SessionRecord> {
        let mut sessions: Vec<_> = self
            .sessions
            .iter()
            .map(|(&id, row)| SessionRecord {
                id,
                name: row.name.clone(),
                host: row.host.clone(),
                version: row.version.clone(),
                opened_at: row.opened_at,
                lease_until: row.lease_until,
                fenced_at: row.fenced_at,
                running: row
                    .claims
                    .iter()
                    .filter_map(|id| self.claims.get(id))
                    .map(|row| row.members.len() as u64)
                    .sum(),
            })
            .collect();
        sessions.sort_by_key(|session| std::cmp::Reverse((session.opened_at, session.id)));
        sessions.truncate(SESSIONS_MAX);
        sessions
    }
}

#[derive(Debug, Default)]
struct Tallied {
    ready: u64,
    later: u64,
    running: u64,
    completed: u64,
    failed: u64,
    oldest: Option<Timestamp>,
}

impl Tallied {
    fn add(&mut self, row: &Row, now: Timestamp) {
        let ended_after = |point: Timestamp| row.state.completed_at.is_some_and(|at| at > point);
        match row.state.status {
            Status::Queued if row.state.run_at > now => self.later += 1,
            Status::Queued => {
                self.ready += 1;
                self.oldest = [self.oldest, Some(row.state.run_at)].into_iter().flatten().min();
            }
            Status::Running => self.running += 1,
            Status::Completed => self.completed += u64::from(ended_after(now.before(MINUTE))),
            Status::Failed => self.failed += u64::from(ended_after(now.before(DAY))),
        }
    }
}
