//! Removing what ended long ago, in small batches: two round trips for tasks that left nothing but themselves, three for others.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use queue_core::Status;
use queue_core::spec::KEY_KEPT;
use queue_core::time::micros;
use sqlx::mysql::MySqlRow;

use crate::connection::{Conn, Reply, rows_of};
use crate::error::Failure;
use crate::inner::{Inner, lock, missing};
use crate::operation::Operation;
use crate::row::delete_finished;
use crate::server::Flavor;
use crate::sql::{CLOCK, are_few, list, runs, timed_runs, value, within};

/// Tasks that one transaction removes: few, so that workers get their turn in between, and enough to be worth a commit.
pub(super) const PRUNED_MAX: usize = 500;
/// Keys without a task that one batch removes.
const KEYS_MAX: usize = 1_000;
/// Rows that one statement removes by a list of keys, so that it fits into a packet.
const LISTED_MAX: usize = 350;

/// What hangs on a task, but for its payload, and is there for few of them: table, index of the task's id.
const HANGS: [(&str, &str); 3] =
    [("queue_result", "PRIMARY"), ("queue_attempt", "PRIMARY"), ("queue_idempotency", "queue_idempotency_task")];
/// The one of them whose rows outlive the task.
const KEYS: &str = "queue_idempotency";

/// Up to which end of each status this process has removed all that there was. The rows stay in the index until the server's
/// purge has removed them, and a look from the head would walk over them all.
#[derive(Debug, Default)]
pub(crate) struct Pruned(Mutex<BTreeMap<u8, i64>>);

impl Pruned {
    fn mark(&self, status: Status) -> Option<i64> {
        lock(&self.0).get(&status.code()).copied()
    }

    /// A batch was full: the next one begins where it ended. One that was not has reached the end of what is old, and the next
    /// looks at all of it: others may have left something behind, or have committed late.
    fn remember(&self, statuses: &[Status], old: &[Old], is_full: bool) {
        let mut marks = lock(&self.0);
        for status in statuses.iter().map(|status| status.code()) {
            match old.iter().filter(|one| one.status == status).map(|one| one.ended_at).max() {
                Some(mark) if is_full => {
                    marks.insert(status, mark);
                }
                None if is_full => {}
                _ => {
                    marks.remove(&status);
                }
            }
        }
    }
}

/// A task that ended long ago, as it is listed; in this order they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Old {
    ended_at: i64,
    status: u8,
    id: u64,
}

/// Removes a batch of ended tasks, the oldest first.
pub(super) struct Prune {
    pub(super) status: Option<Status>,
    pub(super) older_than: Duration,
    pub(super) limit: usize,
}

impl Operation for Prune {
    type Output = usize;

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<usize, Failure> {
        let flavor = inner.server.flavor;
        let statuses: Vec<_> = [Status::Completed, Status::Failed]
            .into_iter()
            .filter(|status| self.status.is_none_or(|wanted| wanted == *status))
            .collect();
        let mut origins: Vec<_> = statuses.iter().map(|status| inner.pruned.mark(*status)).collect();
        let mut looks = self.looks(&statuses, &origins);
        looks.push(hanging_sql());
        let mut replies = conn.begin(&looks.join("; ")).await?;
        let hanging = Hanging::read(&replies.split_off(statuses.len()))?;
        let mut old = self.read(&statuses, &replies)?;
        if old.len() < self.limit && origins.iter().any(Option::is_some) {
            origins.fill(None);
            old = self.read(&statuses, &conn.run(self.looks(&statuses, &origins).join("; ")).await?)?;
        }

        let mut ids: Vec<_> = old.iter().map(|one| one.id).collect();
        ids.sort_unstable();
        let mut sql = removals(flavor, &old, &ids);
        let found = hanging.of(conn, &ids).await?;
        sql.extend(found.iter().flat_map(|(table, ids)| let_go(flavor, table, ids)));
        if hanging.has_old_keys {
            sql.push(format!(
                "DELETE /*+ INDEX(queue_idempotency queue_idempotency_expiry) */ FROM queue_idempotency \
                 WHERE expires_at <= {CLOCK} ORDER BY expires_at LIMIT {KEYS_MAX}"
            ));
        }
        conn.run_all_and_commit(sql).await?;
        inner.pruned.remember(&statuses, &old, old.len() == self.limit);
        Ok(old.len())
    }
}

impl Prune {
    /// A statement for each status, which locks what goes and leaves out what others remove right now.
    fn looks(&self, statuses: &[Status], origins: &[Option<i64>]) -> Vec<String> {
        let looks = statuses.iter().zip(origins).map(|(status, origin)| {
            // The type is asked for because MySQL walks over a small table when the index alone has all that is asked for.
            let from = origin.map(|origin| format!(" AND completed_at >= {origin}")).unwrap_or_default();
            format!(
                "SELECT completed_at, task_id, type_id FROM queue_finished FORCE INDEX (PRIMARY) WHERE status = {}{from} AND \
                 completed_at < {CLOCK} - {} ORDER BY completed_at, task_id LIMIT {} FOR UPDATE SKIP LOCKED",
                status.code(),
                micros(self.older_than),
                self.limit
            )
        });
        looks.collect()
    }

    fn read(&self, statuses: &[Status], replies: &[Reply]) -> Result<Vec<Old>, sqlx::Error> {
        let mut old = Vec::new();
        for (index, status) in statuses.iter().enumerate() {
            for row in rows_of(replies, index) {
                old.push(Old { ended_at: value(row, 0)?, status: status.code(), id: value(row, 1)? });
            }
        }
        old.sort_unstable();
        old.truncate(self.limit);
        Ok(old)
    }
}

/// Asks which of the tables that hang on tasks hold anything, and whether keys have had their time.
fn hanging_sql() -> String {
    let latest = HANGS.map(|(table, index)| format!("(SELECT MAX(task_id) FROM {table} FORCE INDEX ({index}))"));
    format!(
        "SELECT {}, EXISTS (SELECT 1 FROM queue_idempotency FORCE INDEX (queue_idempotency_expiry) \
         WHERE expires_at <= {CLOCK})",
        latest.join(", ")
    )
}

/// What the answer to [`hanging_sql`] says.
#[derive(Debug)]
struct Hanging {
    /// The latest task in each table; `None` where it is empty.
    latest: Vec<(&'static str, &'static str, Option<u64>)>,
    has_old_keys: bool,
}

impl Hanging {
    fn read(replies: &[Reply]) -> Result<Self, Failure> {
        let row: &MySqlRow = rows_of(replies, 0).first().ok_or_else(|| missing("what hangs on tasks"))?;
        let mut latest = Vec::new();
        for (column, (table, index)) in HANGS.into_iter().enumerate() {
            latest.push((table, index, value(row, column)?));
        }
        Ok(Self { latest, has_old_keys: value::<i64>(row, HANGS.len())? != 0 })
    }

    /// Which of these tasks (their ids rise) have rows in which of the tables. Read without locks: a range would come across, and
    /// wait for, the rows of others; these rows are committed, as the ends of their tasks are.
    async fn of(&self, conn: &mut Conn, ids: &[u64]) -> Result<Vec<(&'static str, Vec<u64>)>, Failure> {
        let Some(first) = ids.first() else { return Ok(Vec::new()) };
        let used = |latest: &Option<u64>| latest.is_some_and(|latest| latest >= *first);
        let used: Vec<_> = self.latest.iter().filter(|(.., latest)| used(latest)).collect();
        let read = |(table, index, _): &&(_, _, _)| {
            format!("SELECT task_id FROM {table} FORCE INDEX ({index}) WHERE {}", within("task_id", ids))
        };
        let replies = conn.run_all(used.iter().map(read).collect()).await?;
        let mut found = Vec::new();
        for ((table, ..), reply) in used.iter().zip(&replies) {
            let ids = reply.rows.iter().map(|row| value(row, 0)).collect::<Result<Vec<u64>, _>>()?;
            if !ids.is_empty() {
                found.push((*table, ids));
            }
        }
        Ok(found)
    }
}

/// The statements that remove what every task has: its place in the list, its row and its payload.
fn removals(flavor: Flavor, old: &[Old], ids: &[u64]) -> Vec<String> {
    if old.is_empty() {
        return Vec::new();
    }
    let mut sql = match finished_runs(flavor, old) {
        Some(conditions) => {
            conditions.iter().map(|condition| flavor.delete_where("queue_finished", condition)).collect()
        }
        None => old
            .chunks(LISTED_MAX)
            .map(|old| {
                let keys = old.iter().map(|Old { ended_at, status, id }| format!("({status},{ended_at},{id})"));
                delete_finished(flavor, &list(keys))
            })
            .collect::<Vec<_>>(),
    };
    for (table, column) in [("queue_task", "id"), ("queue_payload", "task_id")] {
        sql.extend(if flavor.deletes_runs() && are_few(runs(ids).len(), ids.len()) {
            vec![flavor.delete_where(table, &within(column, ids))]
        } else {
            ids.chunks(LISTED_MAX).map(|ids| flavor.delete_by_id(table, column, &list(ids))).collect()
        });
    }
    sql
}

/// The statements that remove the rows of these tasks in a table where others have none; their keys stay for their time.
fn let_go(flavor: Flavor, table: &'static str, ids: &[u64]) -> Vec<String> {
    let let_go = |ids: &[u64]| match table {
        KEYS => format!(
            "UPDATE queue_idempotency FORCE INDEX (queue_idempotency_task) SET expires_at = created_at + {} WHERE task_id IN ({})",
            micros(KEY_KEPT),
            list(ids)
        ),
        table => flavor.delete_by_id(table, "task_id", &list(ids)),
    };
    ids.chunks(LISTED_MAX).map(let_go).collect()
}

/// Conditions, one for each status, that name the places of these tasks by first and last; `None` where they are not in runs.
fn finished_runs(flavor: Flavor, old: &[Old]) -> Option<Vec<String>> {
    let mut by_status: BTreeMap<u8, Vec<(i64, u64)>> = BTreeMap::new();
    for Old { ended_at, status, id } in old {
        by_status.entry(*status).or_default().push((*ended_at, *id));
    }
    let by_status: Vec<_> =
        by_status.iter().map(|(status, pairs)| (status, timed_runs("completed_at", pairs))).collect();
    let count = by_status.iter().map(|(_, runs)| runs.len()).sum();
    (flavor.deletes_runs() && are_few(count, old.len())).then(|| {
        by_status.iter().map(|(status, runs)| format!("status = {status} AND ({})", runs.join(" OR "))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(status: u8, ended_at: i64, ids: impl IntoIterator<Item = u64>) -> Vec<Old> {
        ids.into_iter().map(|id| Old { ended_at, status, id }).collect()
    }

    fn sql(flavor: Flavor, mut old: Vec<Old>) -> Vec<String> {
        old.sort_unstable();
        let mut ids: Vec<_> = old.iter().map(|one| one.id).collect();
        ids.sort_unstable();
        removals(flavor, &old, &ids)
    }

    #[test]
    fn what_ended_together_is_named_by_first_and_last() {
        let old = [ended(2, 70, 1..=5), ended(2, 80, 6..=9), ended(3, 75, 10..=13)].concat();
        assert_eq!(
            sql(Flavor::MySql, old.clone()),
            [
                "DELETE /*+ INDEX(queue_finished PRIMARY) */ FROM queue_finished WHERE status = 2 AND (completed_at = 70 AND \
                 (task_id BETWEEN 1 AND 4 OR task_id = 5) OR completed_at = 80 AND (task_id BETWEEN 6 AND 8 OR task_id = 9))",
                "DELETE /*+ INDEX(queue_finished PRIMARY) */ FROM queue_finished WHERE status = 3 AND (completed_at = 75 AND \
                 (task_id BETWEEN 10 AND 12 OR task_id = 13))",
                "DELETE /*+ INDEX(queue_task PRIMARY) */ FROM queue_task WHERE (id BETWEEN 1 AND 12 OR id = 13)",
                "DELETE /*+ INDEX(queue_payload PRIMARY) */ FROM queue_payload WHERE (task_id BETWEEN 1 AND 12 OR task_id = 13)",
            ]
        );
        let maria = sql(Flavor::MariaDb, old);
        assert_eq!(
            maria[2],
            "DELETE x FROM queue_task AS x FORCE INDEX (PRIMARY) WHERE (id BETWEEN 1 AND 12 OR id = 13)"
        );
    }

    #[test]
    fn what_ended_singly_is_listed_in_statements_that_fit_into_a_packet() {
        let old: Vec<_> =
            (0..500).flat_map(|n| ended(2, 1_700_000_000_000_000 + n, [u64::MAX - 2 * n as u64])).collect();
        for flavor in [Flavor::MySql, Flavor::MariaDb, Flavor::OceanBase] {
            let sql = sql(flavor, old.clone());
            assert_eq!(sql.len(), 6);
            assert!(sql.iter().all(|sql| sql.len() < crate::connection::PACKET_BYTES), "{flavor:?}");
        }
        assert!(sql(Flavor::MySql, Vec::new()).is_empty());
    }

    #[test]
    fn full_batches_go_on_where_the_last_one_ended() {
        let pruned = Pruned::default();
        let both = [Status::Completed, Status::Failed];
        pruned.remember(&both, &[ended(2, 70, [1]), ended(2, 80, [2])].concat(), true);
        assert_eq!(both.map(|status| pruned.mark(status)), [Some(80), None]);
        pruned.remember(&both, &ended(3, 90, [3]), true);
        assert_eq!(both.map(|status| pruned.mark(status)), [Some(80), Some(90)]);
        pruned.remember(&both[..1], &ended(2, 95, [4]), false);
        assert_eq!(both.map(|status| pruned.mark(status)), [None, Some(90)]);
    }
}
