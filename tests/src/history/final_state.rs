//! How the tasks stand when all is over.

use queue_core::admin::{Filter, Page};
use queue_core::{FailureReason, Status, Store, StoreError, TaskRecord};
use serde::{Deserialize, Serialize};

/// How a task stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalTask {
    /// Its id.
    pub id: u64,
    /// What makes it what it is, as [`Fact::Enqueuing`](super::Fact::Enqueuing) has it.
    pub job: Option<u64>,
    /// The status, by its name.
    pub status: String,
    /// The reason of a failure, by its name.
    pub reason: Option<String>,
    /// Attempts used.
    pub attempt: u16,
    /// Attempts allowed.
    pub max_attempts: u16,
    /// How often it was claimed.
    pub fence: u32,
    /// The failed attempts: the fence of each, and its outcome by name. May be left empty where nobody asked.
    pub attempts: Vec<(u32, String)>,
}

impl FinalTask {
    /// The task of this record.
    #[must_use]
    pub fn of(task: &TaskRecord, job: Option<u64>) -> Self {
        Self {
            id: task.id.get(),
            job,
            status: task.state.status.as_str().to_owned(),
            reason: task.state.reason.map(|reason| reason.as_str().to_owned()),
            attempt: task.state.attempt,
            max_attempts: task.state.max_attempts,
            fence: task.state.fence.get(),
            attempts: Vec::new(),
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        Status::from_name(&self.status).is_some_and(Status::is_terminal)
    }

    pub(super) fn reason(&self) -> Option<FailureReason> {
        self.reason.as_deref().and_then(FailureReason::from_name)
    }
}

/// How everything stands when all is over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalState {
    /// Every task that there is.
    pub tasks: Vec<FinalTask>,
    /// Tasks that are not where their status says, each told in words.
    pub ghosts: Vec<String>,
}

impl FinalState {
    /// What a store holds. `job` finds what makes a task what it is; with `attempts` the failed attempts of each task are
    /// asked for, one by one. Ghosts are a matter of tables, so they are left to the caller.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn of(
        store: &dyn Store,
        job: impl Fn(&TaskRecord) -> Option<u64>,
        attempts: bool,
    ) -> Result<Self, StoreError> {
        let mut state = Self::default();
        for status in Status::ALL {
            let filter = Filter { status: Some(*status), ..Filter::default() };
            let mut after = None;
            loop {
                let page = store.list(filter.clone(), Page { after, limit: 1_000 }).await?;
                let Some(last) = page.last() else { break };
                after = Some(filter.position(last));
                for task in &page {
                    let mut found = FinalTask::of(task, job(task));
                    if attempts {
                        let failed = store.attempts(task.id).await?;
                        found.attempts = failed.into_iter().map(|one| (one.fence.get(), one.outcome)).collect();
                    }
                    state.tasks.push(found);
                }
            }
        }
        state.tasks.sort_by_key(|task| task.id);
        Ok(state)
    }
}
