//! `queue task list|show|retry|cancel`

use queue_runtime::queue_core::Store;
use queue_runtime::queue_core::admin::{Acted, Action, Filter, Page, Selection};
use queue_runtime::{Status, TaskId, TaskRecord};
use serde_json::json;

use super::actor;
use crate::args::{All, Cancel, List, Retry, Task};
use crate::database::{Database, Need};
use crate::failure::{Code, Failure, Outcome};
use crate::output::task::{TaskJson, details, list, row};
use crate::output::{Output, tasks};

/// Tasks read at once.
const PAGE: usize = 500;

pub(super) async fn run(database: &Database, command: Task, output: &mut Output) -> Outcome {
    let store = database.open(Need::Look).await?.erased_store();
    let tasks = Tasks { database, store: &*store };
    match command {
        Task::List(args) => tasks.list(args, output).await,
        Task::Show { id } => tasks.show(id, output).await,
        Task::Retry(Retry { ids, all, reason }) if ids.is_empty() => {
            let failed = filter(&all, Status::Failed);
            tasks.act_on_all([Filter { reason, ..failed }], Action::Retry, all.yes, output).await
        }
        Task::Retry(Retry { ids, .. }) => tasks.act(ids, Action::Retry, output).await,
        Task::Cancel(Cancel { ids, all }) if ids.is_empty() => {
            // What runs comes last: what is queued and begins meanwhile is found there.
            let filters = [Status::Queued, Status::Running].map(|status| filter(&all, status));
            tasks.act_on_all(filters, Action::Cancel, all.yes, output).await
        }
        Task::Cancel(Cancel { ids, .. }) => tasks.act(ids, Action::Cancel, output).await,
    }
}

struct Tasks<'a> {
    database: &'a Database,
    store: &'a dyn Store,
}

impl Tasks<'_> {
    async fn get(&self, id: TaskId) -> Outcome<TaskRecord> {
        let found = self.store.get(id).await.map_err(|error| self.database.explain(&error))?;
        found.ok_or_else(|| self.not_found(&[id]))
    }

    fn not_found(&self, ids: &[TaskId]) -> Failure {
        Failure::new(Code::NotFound, missing(ids)).hint(self.database.command("task list"))
    }

    async fn list(&self, args: List, output: &mut Output) -> Outcome {
        let filter = Filter { status: args.status, reason: args.reason, task_type: args.task_type, queue: args.queue };
        let mut after = match args.after {
            Some(id) => Some(filter.position(&self.get(id).await?)),
            None => None,
        };
        let mut left = args.limit as usize;
        let mut table = list();
        let mut last = None;
        while left > 0 {
            let page = Page { after, limit: left.min(PAGE) };
            let found = self.store.list(filter.clone(), page).await.map_err(|error| self.database.explain(&error))?;
            for task in &found {
                if output.is_json() {
                    self.print_whole(task.clone(), output).await?;
                } else {
                    table.row(row(task));
                }
            }
            left = left.saturating_sub(found.len());
            last = found.last().map(|task| task.id).or(last);
            match found.last() {
                Some(task) if found.len() == page.limit => after = Some(filter.position(task)),
                _ => {
                    last = None;
                    break;
                }
            }
        }
        if output.is_json() {
            return Ok(());
        }
        let lines = table.lines();
        if lines.len() == 1 && args.after.is_none() {
            return output.line("no tasks");
        }
        lines.into_iter().try_for_each(|line| output.line(line))?;
        match last {
            Some(last) => output.line(format!("there may be more: --after {last}")),
            None => Ok(()),
        }
    }

    /// A list leaves out what tasks work on and leave behind; JSON has it.
    async fn print_whole(&self, mut task: TaskRecord, output: &mut Output) -> Outcome {
        if let Some(whole) = self.store.get(task.id).await.map_err(|error| self.database.explain(&error))? {
            task.payload = whole.payload;
            task.result = whole.result;
        }
        output.value(&TaskJson::new(&task))
    }

    async fn show(&self, id: TaskId, output: &mut Output) -> Outcome {
        let task = self.get(id).await?;
        let attempts = self.store.attempts(id).await.map_err(|error| self.database.explain(&error))?;
        if output.is_json() {
            return output.value(&TaskJson::new(&task).with_attempts(&attempts));
        }
        details(&task, &attempts).into_iter().try_for_each(|line| output.line(line))
    }

    /// Acts on what matches now or, unless it is wanted so, only tells how much that is.
    async fn act_on_all(
        &self,
        filters: impl IntoIterator<Item = Filter>,
        action: Action,
        wanted: bool,
        output: &mut Output,
    ) -> Outcome {
        let explain = |error| self.database.explain(&error);
        let mut ids = Vec::new();
        for filter in filters {
            let all = Selection::Matching { filter, limit: usize::MAX };
            ids.extend(all.ids(self.store, PAGE).await.map_err(explain)?);
        }
        let ids = Selection::distinct(ids);
        let matched = ids.len() as u64;
        let acted = match wanted && matched > 0 {
            true => self.store.act(Selection::Ids(ids), action, &actor()).await.map_err(explain)?,
            false => Vec::new(),
        };
        let changed = acted.iter().filter(|(_, acted)| acted.is_change()).count() as u64;
        if output.is_json() {
            return output.value(&json!({ "matched": matched, "changed": changed }));
        }
        let verb = if action == Action::Retry { "retry" } else { "cancel" };
        output.line(match (wanted, matched) {
            (_, 0) => format!("there is nothing to {verb}"),
            (false, _) => format!("this would {verb} {}; nothing was changed, --yes does it", tasks(matched)),
            (true, _) if action == Action::Retry => format!("{} queued again", tasks(changed)),
            (true, _) => format!("{} cancelled, or told to stop", tasks(changed)),
        })
    }

    async fn act(&self, mut ids: Vec<TaskId>, action: Action, output: &mut Output) -> Outcome {
        ids.sort_unstable();
        ids.dedup();
        let acted = self
            .store
            .act(Selection::Ids(ids), action, &actor())
            .await
            .map_err(|error| self.database.explain(&error))?;
        let (mut unknown, mut refused) = (Vec::new(), Vec::new());
        for (id, acted) in acted {
            let (name, said) = match acted {
                Acted::Done => ("done", if action == Action::Retry { "queued again" } else { "cancelled" }),
                Acted::Signalled => ("signalled", "runs, and is told to stop with its worker's next heartbeat"),
                Acted::NotFound => {
                    unknown.push(id);
                    ("not_found", "")
                }
                Acted::Refused(why) => {
                    refused.push(format!("task {id}: {why}"));
                    ("refused", "")
                }
            };
            if output.is_json() {
                output.value(&json!({ "id": id.get(), "outcome": name }))?;
            } else if !said.is_empty() {
                output.line(format!("task {id}: {said}"))?;
            }
        }
        output.flush()?;
        match (unknown.is_empty(), refused.is_empty()) {
            (true, true) => Ok(()),
            (false, true) => Err(self.not_found(&unknown)),
            (true, false) => Err(Failure::failed(refused.join("; "))),
            (false, false) => {
                refused.push(missing(&unknown));
                Err(Failure::failed(refused.join("; ")))
            }
        }
    }
}

/// The tasks of this status that are so.
fn filter(all: &All, status: Status) -> Filter {
    Filter { status: Some(status), task_type: all.task_type.clone(), queue: all.queue.clone(), ..Filter::default() }
}

fn missing(ids: &[TaskId]) -> String {
    let listed = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("there {} {listed}", if ids.len() == 1 { "is no task" } else { "are no tasks" })
}
