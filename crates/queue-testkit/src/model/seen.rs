use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use queue_core::admin::{Filter, QueueStats};
use queue_core::session::SessionRecord;
use queue_core::{AttemptRecord, Store, StoreError, TaskId, TaskRecord, TaskResult, Timestamp};

use super::call::list;

/// Half an hour and an hour, in microseconds.
const HALF: i64 = 1_800_000_000;
const HOUR: i64 = 2 * HALF;

/// All that can be seen of a store, in words that are the same for two stores that did the same at about the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    told: BTreeMap<String, String>,
    /// The rows, as they came.
    pub(super) tasks: BTreeMap<TaskId, TaskRecord>,
}

/// Points in time, in hours since the sequence began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hours {
    pub(super) begun: Timestamp,
}

impl Hours {
    pub(super) fn of(self, at: Timestamp) -> String {
        if at == Timestamp::MAX {
            return "never".to_owned();
        }
        let micros = at.as_micros().saturating_sub(self.begun.as_micros());
        format!("{} h", micros.saturating_add(HALF).div_euclid(HOUR))
    }

    pub(super) fn maybe(self, at: Option<Timestamp>) -> String {
        at.map_or_else(|| "-".to_owned(), |at| self.of(at))
    }

    /// A row, payload and result left out.
    pub(super) fn row(self, task: &TaskRecord) -> String {
        let state = &task.state;
        let progress =
            task.progress.as_ref().map(|progress| (progress.percent().get(), progress.message().map(str::to_owned)));
        format!(
            "{} in {} at {}: {} {:?}, attempt {} of {}, losses {}, fence {}, {:?}, cancel {}, created {}, run {}, started {}, \
             ended {}, deadline {}, {:?}, {}, progress {progress:?}, error {:?}, worker {:?}",
            task.task_type,
            task.queue,
            task.priority,
            state.status,
            state.reason,
            state.attempt,
            state.max_attempts,
            state.losses,
            state.fence,
            state.claim,
            state.cancel_requested,
            self.of(state.created_at),
            self.of(state.run_at),
            self.maybe(state.started_at),
            self.maybe(state.completed_at),
            self.maybe(state.deadline_at),
            state.budget,
            task.backoff,
            task.last_error.as_ref().map(queue_core::ErrorText::as_str),
            task.worker,
        )
    }

    fn session(self, session: &SessionRecord) -> String {
        let fenced = session.fenced_at.is_some();
        let (name, host, version) = (&session.name, &session.host, &session.version);
        let until = self.of(session.lease_until);
        format!("{name:?} on {host:?} {version:?}, until {until}, fenced {fenced}, runs {}", session.running)
    }

    fn attempt(self, attempt: &AttemptRecord) -> String {
        let (fence, number, outcome, error) =
            (attempt.fence, attempt.attempt, &attempt.outcome, attempt.error.as_str());
        let (started, ended) = (self.of(attempt.started_at), self.of(attempt.ended_at));
        format!("attempt {number}, fence {fence}, {outcome}, {error:?}, {started} to {ended}")
    }

    /// Looks at everything but payloads, results and histories.
    pub(super) async fn look(self, store: &dyn Store) -> Result<Seen, StoreError> {
        let mut told = BTreeMap::new();
        let listed = list(store, &Filter::default(), 1_000).await?;
        for task in &listed {
            told.insert(format!("task {}", task.id), self.row(task));
            if let Some(defect) = task.state.defect() {
                told.insert(format!("task {} is one that cannot be", task.id), defect.to_owned());
            }
        }
        let stats = store.stats().await?;
        for queue in stats.queues.iter().filter(|queue| !is_idle(queue)) {
            told.insert(format!("queue {}", queue.queue), counts(queue));
        }
        told.insert("live sessions".to_owned(), stats.sessions.to_string());
        // A fenced session that holds nothing goes at some time.
        for session in store.sessions().await?.iter().filter(|one| one.fenced_at.is_none() || one.running > 0) {
            told.insert(format!("session {}", session.id), self.session(session));
        }
        Ok(Seen { told, tasks: listed.into_iter().map(|task| (task.id, task)).collect() })
    }

    /// Looks at payloads, results and histories of these tasks as well.
    pub(super) async fn look_closely(
        self,
        store: &dyn Store,
        seen: &mut Seen,
        tasks: &BTreeSet<TaskId>,
    ) -> Result<(), StoreError> {
        for &id in tasks {
            let mut text = String::new();
            if let Some(task) = store.get(id).await? {
                let _ = write!(text, "{}; {:?}, {:?}", self.row(&task), digest(&task), result(&task));
            }
            for attempt in store.attempts(id).await? {
                let _ = write!(text, "; {}", self.attempt(&attempt));
            }
            seen.told.insert(format!("task {id}, closely"), text);
        }
        Ok(())
    }
}

fn digest(task: &TaskRecord) -> (queue_core::payload::ContentType, [u8; 4]) {
    let digest = task.payload.digest();
    let mut first = [0; 4];
    first.copy_from_slice(&digest.as_bytes()[..4]);
    (task.payload.content_type(), first)
}

fn result(task: &TaskRecord) -> (usize, u64) {
    match &task.result {
        TaskResult::None => (0, 0),
        TaskResult::Value(value) => (value.len(), 0),
        TaskResult::Dropped { bytes } => (0, *bytes),
    }
}

/// Whether nothing is told of a queue but its name, as of one that an earlier sequence used.
fn is_idle(queue: &QueueStats) -> bool {
    queue.paused.is_none()
        && [queue.ready, queue.later, queue.running].iter().all(|count| count.number == 0)
        && queue.completed_last_minute.number + queue.failed_last_day.number == 0
}

fn counts(queue: &QueueStats) -> String {
    let paused = queue.paused.as_ref().map(|pause| (&pause.by, &pause.why));
    format!(
        "ready {:?}, later {:?}, running {:?}, waits {}, done {:?}, failed {:?}, paused {paused:?}",
        queue.ready,
        queue.later,
        queue.running,
        queue.oldest_ready.is_some(),
        queue.completed_last_minute,
        queue.failed_last_day,
    )
}

impl Seen {
    /// What is not the same, line by line.
    pub(super) fn differences(&self, model: &Self) -> String {
        let mut text = String::new();
        let keys: BTreeSet<_> = self.told.keys().chain(model.told.keys()).collect();
        for key in keys {
            let (ours, theirs) = (self.told.get(key), model.told.get(key));
            if ours != theirs {
                let tell = |told: Option<&String>| told.map_or("nothing".to_owned(), String::clone);
                let _ = write!(text, "\n{key}\n  store: {}\n  model: {}", tell(ours), tell(theirs));
            }
        }
        text
    }

    /// Rows that the model left as they were and the store did not.
    pub(super) fn moved(&self, before: &Self, model: &Self, model_before: &Self) -> String {
        let mut text = String::new();
        for (id, task) in &self.tasks {
            let unchanged = model.tasks.get(id) == model_before.tasks.get(id);
            if unchanged && before.tasks.get(id).is_some_and(|before| before != task) {
                let _ = write!(text, "\ntask {id} changed, though nothing happened to it: {:?}", task.state);
            }
        }
        text
    }

    /// Leaves what was told of single tasks' payloads, results and histories.
    pub(super) fn forget_closely(&mut self) {
        self.told.retain(|key, _| !key.ends_with(", closely"));
    }

    /// Tasks that are not as they were: new, changed or gone.
    pub(super) fn changed(&self, before: &Self) -> BTreeSet<TaskId> {
        let ids = self.tasks.keys().chain(before.tasks.keys()).copied();
        ids.filter(|id| self.tasks.get(id) != before.tasks.get(id)).collect()
    }
}
