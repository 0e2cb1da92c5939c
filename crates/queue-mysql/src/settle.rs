//! Settling: what the core decided about the ends of runs is written down.
//!
//! The common case, completions of tasks that this process claimed, is one round trip with a guard that fails the whole when a
//! row is not as expected. Everything else, and that as well when the guard fails, reads the rows and moves each by
//! `transition`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use queue_core::record::ATTEMPTS_MAX;
use queue_core::{
    ClaimId, Event, Settle, Settled, Settlement, StoreError, TaskId, TaskResult, TaskState, Timestamp, TransitionError,
    transition,
};
use sqlx::mysql::MySqlArguments;

use crate::connection::{Conn, rows_of};
use crate::enqueue::LARGE_PACKET_BYTES;
use crate::error::{Class, Failure, classify};
use crate::held::Leftovers;
use crate::inner::{Inner, missing};
use crate::operation::Operation;
use crate::row::{INSERT_FINISHED_COLUMNS, Move, TaskRow, lock_sql, moves, read_sql};
use crate::server::{Deletion, Flavor};
use crate::sql::{CLOCK, add, chunk, guard, list, placeholders, time, value, within};

/// Writes how runs ended.
pub(crate) struct SettleBatch {
    pub(crate) batch: Arc<[Settle]>,
}

impl Operation for SettleBatch {
    type Output = Vec<Settled>;
    const REPEATABLE: bool = true;

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<Vec<Settled>, Failure> {
        let pairs: Vec<_> = self.batch.iter().map(|settle| (settle.task, settle.claim)).collect();
        let cleaning = inner.held.cleaning(&pairs);
        let settled = match self.complete(inner, conn, cleaning.leftovers()).await? {
            Some(settled) => settled,
            None => self.settle(inner, conn, cleaning.leftovers()).await?,
        };
        cleaning.done(&pairs);
        Ok(settled)
    }
}

impl SettleBatch {
    /// The fast way; `None` when it is not open to this batch.
    async fn complete(
        &self,
        inner: &Inner,
        conn: &mut Conn,
        leftovers: &Leftovers,
    ) -> Result<Option<Vec<Settled>>, Failure> {
        let Some(completions) = Completions::of(inner, &self.batch) else { return Ok(None) };
        match completions.write(inner, conn, leftovers).await {
            Ok(()) => Ok(Some(vec![Settled::Applied; self.batch.len()])),
            // A row is not as expected, or a result is there from before: find out which.
            Err(error) if matches!(classify(&error), Class::Guard | Class::Duplicate) => {
                conn.rollback().await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The way that is always open.
    async fn settle(&self, inner: &Inner, conn: &mut Conn, leftovers: &Leftovers) -> Result<Vec<Settled>, Failure> {
        let mut ids: Vec<_> = self.batch.iter().map(|settle| settle.task).collect();
        ids.sort_unstable();
        ids.dedup();
        let ids = list(ids);
        let replies = conn
            .begin(&format!(
                "{}; SELECT {CLOCK}; {}; SELECT session_id, task_id FROM queue_signal WHERE task_id IN ({ids})",
                lock_sql(&ids, ""),
                read_sql(&ids)
            ))
            .await?;
        let now = replies.get(1).and_then(|reply| reply.rows.first()).ok_or_else(|| missing("the clock's answer"))?;
        let now = time(now, 0)?;
        let mut rows = HashMap::new();
        for row in rows_of(&replies, 2) {
            match TaskRow::read(row)? {
                Ok(task) => {
                    rows.insert(task.id, (task.clone(), task.state));
                }
                Err(defect) => {
                    tracing::error!(
                        task = defect.task.get(),
                        defect = defect.what,
                        "a row that cannot be is not settled"
                    );
                }
            }
        }
        let mut ending = Ending {
            applied: BTreeMap::new(),
            flavor: inner.server.flavor,
            result_bytes_max: inner.options.limits.result_bytes_max,
        };
        let settled = self.batch.iter().map(|settle| ending.settle(&mut rows, settle, now));
        let settled = settled.collect::<Result<Vec<_>, _>>()?;
        let mut signals: Vec<(u64, u64)> = Vec::new();
        for row in rows_of(&replies, 3) {
            signals.push((value(row, 0)?, value(row, 1)?));
        }
        signals.retain(|(_, task)| ending.applied.contains_key(task));
        ending.write(conn, &rows, signals, leftovers, now).await?;
        Ok(settled)
    }
}

/// Completions of tasks that this process claimed.
pub(crate) struct Completions<'a> {
    by_claim: BTreeMap<ClaimId, Vec<TaskId>>,
    results: Vec<(TaskId, &'a TaskResult)>,
}

impl<'a> Completions<'a> {
    /// `None` when one of them is something else.
    pub(crate) fn of(inner: &Inner, batch: &'a [Settle]) -> Option<Self> {
        let mut completions = Self { by_claim: BTreeMap::new(), results: Vec::new() };
        for settle in batch {
            let Settlement::Complete { result } = &settle.settlement else { return None };
            if settle.claim != settle.leaves || !inner.held.holds(settle.claim, settle.task) {
                return None;
            }
            completions.by_claim.entry(settle.claim).or_default().push(settle.task);
            if *result != TaskResult::None {
                completions.results.push((settle.task, result));
            }
        }
        for members in completions.by_claim.values_mut() {
            members.sort_unstable();
        }
        Some(completions)
    }

    async fn write(&self, inner: &Inner, conn: &mut Conn, leftovers: &Leftovers) -> Result<(), sqlx::Error> {
        let sql = self.statements(inner.server.flavor, leftovers);
        if self.results.is_empty() {
            conn.transact(sql).await?;
        } else {
            conn.begin("DO 0").await?;
            self.write_results(inner, conn).await?;
            conn.run_all_and_commit(sql).await?;
        }
        Ok(())
    }

    pub(crate) const fn has_results(&self) -> bool {
        !self.results.is_empty()
    }

    /// Writes what the runs came to, in the open transaction.
    pub(crate) async fn write_results(&self, inner: &Inner, conn: &mut Conn) -> Result<(), sqlx::Error> {
        insert_results(conn, &self.results, inner.options.limits.result_bytes_max).await
    }

    /// The statements of a transaction that writes all but the results. They fail when a row is not as expected.
    pub(crate) fn statements(&self, flavor: Flavor, leftovers: &Leftovers) -> Vec<String> {
        let mut sql = vec![format!("SET @queue_now = {CLOCK}")];
        for (claim, members) in &self.by_claim {
            let ids: Vec<_> = members.iter().map(|task| task.get()).collect();
            sql.push(format!(
                "UPDATE queue_task FORCE INDEX (PRIMARY) SET status = 2, completed_at = @queue_now WHERE {} AND \
                 status = 1 AND claim_id = {claim}",
                within("id", &ids)
            ));
            sql.push(guard(members.len()));
        }
        let mut ids: Vec<_> = self.by_claim.values().flatten().map(|task| task.get()).collect();
        ids.sort_unstable();
        sql.push(format!(
            "{INSERT_FINISHED_COLUMNS} SELECT 2, @queue_now, id, type_id, queue_id, NULL FROM queue_task \
             FORCE INDEX (PRIMARY) WHERE {}",
            within("id", &ids)
        ));
        sql.extend(removals(flavor, leftovers));
        sql
    }
}

/// What a batch comes to before it is written.
struct Ending<'a> {
    /// The settlements that apply, by task.
    applied: BTreeMap<u64, &'a Settle>,
    flavor: Flavor,
    result_bytes_max: u64,
}

impl<'a> Ending<'a> {
    fn settle(
        &mut self,
        rows: &mut HashMap<TaskId, (TaskRow, TaskState)>,
        settle: &'a Settle,
        now: Timestamp,
    ) -> Result<Settled, StoreError> {
        let Some((_, state)) = rows.get_mut(&settle.task) else { return Ok(Settled::Stale) };
        let event = Event::Settle { claim: settle.claim, leaves: settle.leaves, settlement: &settle.settlement };
        match transition(state, &event, now) {
            // Nothing may write a row that could not be read again: the whole batch is refused.
            Ok(next) if next.defect().is_some() => {
                Err(StoreError::corrupt(Some(settle.task), next.defect().unwrap_or_default()))
            }
            Ok(next) => {
                *state = next;
                self.applied.insert(settle.task.get(), settle);
                Ok(Settled::Applied)
            }
            Err(TransitionError::AlreadySettled) => Ok(Settled::Already(state.status)),
            Err(_) => Ok(Settled::Stale),
        }
    }

    async fn write(
        &self,
        conn: &mut Conn,
        rows: &HashMap<TaskId, (TaskRow, TaskState)>,
        signals: Vec<(u64, u64)>,
        leftovers: &Leftovers,
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        let flavor = self.flavor;
        let mut moved = Vec::new();
        let mut results = Vec::new();
        let mut failed = Vec::new();
        for settle in self.applied.values() {
            let Some((before, after)) = rows.get(&settle.task) else { continue };
            moved.push(Move { before: before.clone(), after: after.clone() });
            if let Settlement::Complete { result } = &settle.settlement
                && *result != TaskResult::None
            {
                results.push((settle.task, result));
            }
            if let Some(error) = settle.settlement.error() {
                failed.push((before, settle.settlement.label(), error.as_str()));
            }
        }
        if !results.is_empty() {
            insert_results(conn, &results, self.result_bytes_max).await?;
        }
        insert_attempts(conn, &failed, now).await?;
        let mut sql = moves(flavor, &moved);
        sql.extend(failed.iter().filter_map(|(row, ..)| drop_old_attempts(row)));
        if !signals.is_empty() {
            let keys = list(signals.iter().map(|(session, task)| format!("({session},{task})")));
            let (table, columns) = ("queue_signal", &["session_id", "task_id"]);
            sql.push(Deletion { table, index: "PRIMARY", fixed: "", columns, rows: &keys }.sql(flavor));
        }
        sql.extend(removals(flavor, leftovers));
        conn.run_all_and_commit(sql).await?;
        Ok(())
    }
}

/// The statements that remove what nobody needs once a settle is committed.
fn removals(flavor: Flavor, leftovers: &Leftovers) -> Vec<String> {
    let mut sql = Vec::new();
    if !leftovers.signals.is_empty() {
        let keys = list(leftovers.signals.iter().map(|(session, task, claim)| format!("({session},{task},{claim})")));
        sql.push(delete_signals(flavor, &keys));
    }
    if !leftovers.claims.is_empty() {
        sql.push(flavor.delete_by_id("queue_claim", "id", &list(&leftovers.claims)));
    }
    sql
}

/// Removes signals: (session, task, claim).
pub(crate) fn delete_signals(flavor: Flavor, keys: &str) -> String {
    let columns = &["session_id", "task_id", "claim_id"];
    Deletion { table: "queue_signal", index: "PRIMARY", fixed: "", columns, rows: keys }.sql(flavor)
}

/// What a result's row holds: the size of one that is too large to keep, or the bytes.
pub(crate) fn kept(result: &TaskResult, bytes_max: u64) -> (Option<u64>, Option<Vec<u8>>) {
    match result {
        TaskResult::None => (None, None),
        TaskResult::Dropped { bytes } => (Some(*bytes), None),
        TaskResult::Value(body) => match TaskResult::bounded(body.clone(), bytes_max) {
            TaskResult::Dropped { bytes } => (Some(bytes), None),
            _ => (None, Some(body.to_vec())),
        },
    }
}

/// The bytes of a result, at most.
fn size(result: &TaskResult) -> usize {
    match result {
        TaskResult::Value(body) => body.len(),
        TaskResult::None | TaskResult::Dropped { .. } => 0,
    }
}

/// Writes results, which are bytes of the user's and so are bound.
async fn insert_results(conn: &mut Conn, results: &[(TaskId, &TaskResult)], bytes_max: u64) -> Result<(), sqlx::Error> {
    let mut rest = results;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|(_, result)| {
            bytes += size(result);
            bytes <= LARGE_PACKET_BYTES
        });
        let (now, later) = rest.split_at(chunk(fits.count().max(1)));
        rest = later;
        let mut arguments = MySqlArguments::default();
        for (task, result) in now {
            let (dropped, body) = kept(result, bytes_max);
            add(&mut arguments, task.get())?;
            add(&mut arguments, dropped)?;
            add(&mut arguments, body)?;
        }
        // An operator's retry may have left an earlier result behind.
        let sql =
            format!("REPLACE INTO queue_result (task_id, dropped_bytes, body) VALUES {}", placeholders(now.len(), 3));
        conn.bound(sql, arguments).await?;
    }
    Ok(())
}

/// Writes failed attempts: row, outcome and error of each.
async fn insert_attempts(
    conn: &mut Conn,
    failed: &[(&TaskRow, &'static str, &str)],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let mut rest = failed;
    while !rest.is_empty() {
        let (these, later) = rest.split_at(chunk(rest.len()));
        rest = later;
        let mut arguments = MySqlArguments::default();
        for (row, outcome, error) in these {
            add(&mut arguments, row.id.get())?;
            add(&mut arguments, row.state.fence.get())?;
            add(&mut arguments, row.state.attempt)?;
            add(&mut arguments, row.state.started_at.unwrap_or(now).as_micros())?;
            add(&mut arguments, now.as_micros())?;
            add(&mut arguments, *outcome)?;
            add(&mut arguments, (*error).to_owned())?;
        }
        let sql = format!(
            "REPLACE INTO queue_attempt (task_id, fence, attempt, started_at, ended_at, outcome, error) VALUES {}",
            placeholders(these.len(), 7)
        );
        conn.bound(sql, arguments).await?;
    }
    Ok(())
}

/// Of a task that failed often, only the latest failed attempts are kept.
fn drop_old_attempts(row: &TaskRow) -> Option<String> {
    let (task, fence) = (row.id, row.state.fence.get() as usize);
    (fence > ATTEMPTS_MAX).then(|| {
        format!(
            "DELETE a FROM queue_attempt AS a JOIN (SELECT fence FROM queue_attempt WHERE task_id = {task} \
             ORDER BY fence DESC LIMIT 1 OFFSET {ATTEMPTS_MAX}) AS old ON a.fence <= old.fence WHERE a.task_id = {task}"
        )
    })
}
