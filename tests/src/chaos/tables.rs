//! What the tables hold when all is over.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use queue_core::{FailureReason, Status};
use sqlx::{MySqlConnection, Row as _};

use super::work::{Kind, Work};
use crate::history::{FinalTask, Violation, ghosts};

/// What `queue_attempt` says of an attempt whose worker was lost begins so.
const LOST: &str = "the worker was lost";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Every task, with its failed attempts; its job is the number in its payload.
    pub(super) tasks: Vec<FinalTask>,
    /// What each task is to do.
    pub(super) works: BTreeMap<u64, Work>,
    /// How often each task had its effect.
    pub(super) ledger: BTreeMap<u64, u64>,
    /// Tasks that are not where their status says.
    pub(super) ghosts: Vec<String>,
    /// Failed attempts whose worker was lost.
    pub(super) lost_attempts: u64,
}

impl Tables {
    /// Reads them.
    pub(super) async fn read(db: &mut MySqlConnection) -> Result<Self> {
        let mut tables = Self { ghosts: ghosts(db).await?, ..Self::default() };
        let sql = "SELECT task_id, COUNT(*) FROM chaos_ledger GROUP BY task_id";
        for row in sqlx::query(sql).fetch_all(&mut *db).await? {
            tables.ledger.insert(row.try_get(0)?, u64::try_from(row.try_get::<i64, _>(1)?)?);
        }
        let mut attempts = BTreeMap::<u64, Vec<(u32, String)>>::new();
        let sql = "SELECT task_id, fence, outcome, error FROM queue_attempt ORDER BY task_id, fence";
        for row in sqlx::query(sql).fetch_all(&mut *db).await? {
            attempts.entry(row.try_get(0)?).or_default().push((row.try_get(1)?, row.try_get(2)?));
            tables.lost_attempts += u64::from(row.try_get::<String, _>(3)?.starts_with(LOST));
        }
        let sql = "SELECT t.id, t.status, t.reason, t.attempt, t.max_attempts, t.claims, p.body FROM queue_task t \
                   JOIN queue_payload p ON p.task_id = t.id ORDER BY t.id";
        for row in sqlx::query(sql).fetch_all(&mut *db).await? {
            let id = row.try_get(0)?;
            let work: Work = serde_json::from_slice(row.try_get::<&[u8], _>(6)?)
                .with_context(|| format!("the payload of task {id} is not what was enqueued"))?;
            let status = Status::from_code(row.try_get(1)?).with_context(|| format!("the status of task {id}"))?;
            let reason = row.try_get::<Option<u8>, _>(2)?.and_then(FailureReason::from_code);
            tables.tasks.push(FinalTask {
                id,
                job: Some(work.number),
                status: status.as_str().to_owned(),
                reason: reason.map(|reason| reason.as_str().to_owned()),
                attempt: row.try_get(3)?,
                max_attempts: row.try_get(4)?,
                fence: row.try_get(5)?,
                attempts: attempts.remove(&id).unwrap_or_default(),
            });
            tables.works.insert(id, work);
        }
        Ok(tables)
    }

    /// What is wrong with the ends and the effects of tasks, in words. The history is not asked.
    pub(super) fn wrong(&self, refused: &BTreeSet<u64>) -> Vec<String> {
        let mut wrong = Vec::new();
        for task in &self.tasks {
            let work = &self.works[&task.id];
            let (id, number) = (task.id, work.number);
            if refused.contains(&number) {
                wrong.push(format!("task {id} was written, and its producer was told that it was not"));
            }
            let used_up =
                matches!(task.reason.as_deref(), Some("crashed" | "exhausted")) && task.attempt >= task.max_attempts;
            let as_it_should = match task.status.as_str() {
                "completed" => work.kind != Kind::Rejected,
                "failed" => used_up || (work.kind == Kind::Rejected && task.reason.as_deref() == Some("rejected")),
                _ => true, // that it has not ended is told as lost
            };
            if !as_it_should {
                let reason = task.reason.as_deref().unwrap_or("no reason");
                wrong.push(format!("task {id} ({:?}) ended as {} ({reason})", work.kind, task.status));
            }
            let effects = self.ledger.get(&id).copied().unwrap_or(0);
            let expected = u64::from(work.kind == Kind::Ledger && task.status == "completed");
            // More than one is told as done twice.
            if effects != expected && effects <= 1 {
                wrong.push(format!("task {id} ({:?}, {}) had its effect {effects} times", work.kind, task.status));
            }
            // Each claim spent an attempt or gave it back, and each attempt but a successful one left a trace.
            let traces = u16::try_from(task.attempts.len()).unwrap_or(u16::MAX);
            let spent = traces + u16::from(task.status == "completed");
            if task.status != "queued" && task.status != "running" && spent != task.attempt {
                wrong.push(format!("task {id} has spent {} attempts, and {traces} of them left a trace", task.attempt));
            }
        }
        let known: BTreeSet<_> = self.works.keys().collect();
        let unknown = self.ledger.keys().filter(|task| !known.contains(task));
        wrong.extend(unknown.map(|task| format!("task {task} had an effect and is not there")));
        wrong
    }

    /// Tasks that had their effect more than once.
    pub(super) fn twice(&self) -> Vec<Violation> {
        let twice = self.ledger.iter().filter(|(_, effects)| **effects > 1);
        twice.map(|(task, _)| Violation::Duplicated { task: *task, fences: Vec::new() }).collect()
    }

    /// How many attempts were given back.
    pub(super) fn refunds(&self) -> u64 {
        self.tasks.iter().map(|task| u64::from(task.fence).saturating_sub(task.attempt.into())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(kind: Kind, status: &str, reason: Option<&str>, effects: u64) -> Tables {
        let task = FinalTask {
            id: 1,
            job: Some(7),
            status: status.to_owned(),
            reason: reason.map(str::to_owned),
            attempt: 2,
            max_attempts: 3,
            fence: 4,
            attempts: vec![(1, "retried".to_owned())],
        };
        let works = BTreeMap::from([(1, Work { number: 7, kind, ms: 0 })]);
        Tables { tasks: vec![task], works, ledger: BTreeMap::from([(1, effects)]), ..Tables::default() }
    }

    #[test]
    fn a_task_that_ended_as_it_should_is_not_accused() {
        let good = tables(Kind::Ledger, "completed", None, 1);
        assert_eq!(good.wrong(&BTreeSet::new()), Vec::<String>::new());
        assert_eq!(good.refunds(), 2);
    }

    #[test]
    fn wrong_ends_effects_attempts_and_answers_are_told() {
        let told = |tables: Tables, refused: u64| tables.wrong(&BTreeSet::from([refused])).join("; ");
        assert!(told(tables(Kind::Plain, "completed", None, 0), 7).contains("told that it was not"));
        let twice = tables(Kind::Ledger, "completed", None, 2).twice();
        assert_eq!(twice, [Violation::Duplicated { task: 1, fences: Vec::new() }]);
        assert!(told(tables(Kind::Plain, "completed", None, 1), 0).contains("effect 1 times"));
        assert!(told(tables(Kind::Ledger, "completed", None, 0), 0).contains("effect 0 times"));
        assert!(told(tables(Kind::Plain, "failed", Some("crashed"), 0), 0).contains("ended as failed (crashed)"));
        assert!(told(tables(Kind::Rejected, "completed", None, 0), 0).contains("ended as completed"));
        let mut traceless = tables(Kind::Plain, "completed", None, 0);
        traceless.tasks[0].attempts.clear();
        assert!(told(traceless, 0).contains("0 of them left a trace"));
        let mut stray = tables(Kind::Plain, "completed", None, 0);
        stray.ledger.insert(9, 1);
        assert!(told(stray, 0).contains("task 9 had an effect and is not there"));
    }
}
