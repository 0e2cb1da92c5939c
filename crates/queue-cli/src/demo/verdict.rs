//! What the database says became of every task.

use std::collections::{BTreeMap, HashSet};

use queue_runtime::queue_core::admin::{Filter, Page};
use queue_runtime::queue_core::{FailureReason, Store};
use queue_runtime::{QueueName, Status, StoreError, TaskId, TaskRecord};

use super::kinds::{KINDS, Kind};

const PAGE: usize = 1_000;

/// What became of the tasks of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) tasks: u64,
    pub(super) as_expected: u64,
    /// What became of the others: `failed(crashed)`, `queued`, ….
    pub(super) otherwise: BTreeMap<String, u64>,
}

/// What became of all.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    pub(super) kinds: Vec<(Kind, Got)>,
    /// Runs in all, those that were lost or failed included.
    pub(super) runs: u64,
    /// Acknowledged when they were enqueued, and now gone or not ended.
    pub(super) lost: u64,
    /// With a run that neither ended the task nor is in the history of its failed attempts.
    pub(super) twice: u64,
}

impl Verdict {
    /// Whether everything is as it was expected.
    pub(super) fn is_good(&self) -> bool {
        self.lost == 0 && self.twice == 0 && self.kinds.iter().all(|(_, got)| got.tasks == got.as_expected)
    }

    /// Reads every task of the queue.
    pub(super) async fn of(store: &dyn Store, queue: &QueueName, acknowledged: &[TaskId]) -> Result<Self, StoreError> {
        let mut kinds = KINDS.map(|kind| (kind, Got::default()));
        let mut verdict = Self::default();
        let mut missing = acknowledged.iter().copied().collect::<HashSet<_>>();
        let filter = Filter { queue: Some(queue.clone()), ..Filter::default() };
        let mut after = None;
        loop {
            let page = store.list(filter.clone(), Page { after, limit: PAGE }).await?;
            for task in &page {
                let expected = missing.remove(&task.id);
                verdict.runs += u64::from(task.state.fence.get());
                verdict.lost += u64::from(expected && !task.state.status.is_terminal());
                verdict.twice += u64::from(ran_too_often(store, task).await?);
                if let Some((kind, got)) = kinds.iter_mut().find(|(kind, _)| kind.name == task.task_type.as_str()) {
                    got.count(kind, task);
                }
            }
            match page.last() {
                Some(task) if page.len() == PAGE => after = Some(filter.position(task)),
                _ => break,
            }
        }
        verdict.lost += missing.len() as u64;
        verdict.kinds = kinds.to_vec();
        Ok(verdict)
    }
}

impl Got {
    fn count(&mut self, kind: &Kind, task: &TaskRecord) {
        self.tasks += 1;
        if kind.as_expected(task) {
            self.as_expected += 1;
        } else {
            *self.otherwise.entry(outcome(task)).or_default() += 1;
        }
    }
}

/// What became of a task, in a word or two.
fn outcome(task: &TaskRecord) -> String {
    match (task.state.reason, &task.progress) {
        (Some(reason), _) => format!("failed({reason})"),
        (None, Some(progress)) => format!("{} at {} %", task.state.status, progress.percent()),
        (None, None) => task.state.status.to_string(),
    }
}

/// Whether an attempt is neither the one that ended the task nor in the history of failed attempts: then the task went on
/// after it had ended, or was run by two workers at a time.
async fn ran_too_often(store: &dyn Store, task: &TaskRecord) -> Result<bool, StoreError> {
    let state = &task.state;
    if state.attempt < 2 || !state.status.is_terminal() {
        return Ok(false);
    }
    let failed = store.attempts(task.id).await?.len();
    Ok(usize::from(state.attempt) > failed + usize::from(!ends_in_history(state.status, state.reason)))
}

/// Whether the run that ended the task is itself in the history of failed attempts, because it left an error.
const fn ends_in_history(status: Status, reason: Option<FailureReason>) -> bool {
    use FailureReason::{Crashed, Exhausted, Panicked, Rejected};

    matches!((status, reason), (Status::Failed, Some(Crashed | Exhausted | Panicked | Rejected)))
}
