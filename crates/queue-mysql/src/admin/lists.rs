//! Lists of tasks, page by page, in the order that suits their status.

use queue_core::admin::{Filter, Page};
use queue_core::{FailureReason, Status, TaskRecord};

use super::looking::{RECORD_LEN, Seen, columns};
use crate::connection::Conn;
use crate::error::Failure;
use crate::inner::Inner;
use crate::lanes::waiting;
use crate::members::claimed_ids;
use crate::operation::Operation;
use crate::sql::{list, value};

/// Running tasks that one statement looks at.
const RUNNING_CHUNK: usize = 1_000;

/// A place in a list: a task comes after it when its own place is greater.
type Position = (i64, i64);

/// Reads a part of a list.
pub(super) struct List {
    pub(super) filter: Filter,
    pub(super) page: Page,
}

impl Operation for List {
    type Output = Vec<TaskRecord>;
    const REPEATABLE: bool = true;

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<Vec<TaskRecord>, Failure> {
        let Some(query) = Query::of(inner, conn, &self.filter).await? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let mut after = self.page.after;
        while found.len() < self.page.limit {
            let room = self.page.limit - found.len();
            let rows = query.fetch(conn, after, room).await?;
            let is_last = rows.len() < room;
            if rows.iter().any(|(_, seen)| seen.as_ref().is_ok_and(|seen| !seen.is_known(inner))) {
                inner.names.refresh(conn).await?;
            }
            for (position, seen) in rows {
                after = Some(position);
                match seen.and_then(|seen| seen.record(inner)) {
                    Ok(record) => found.push(record),
                    Err(defect) => {
                        tracing::error!(
                            task = defect.task.get(),
                            defect = defect.what,
                            "a row that cannot be is left out"
                        );
                    }
                }
            }
            if is_last {
                break;
            }
        }
        Ok(found)
    }
}

/// A row of a list, whatever its own state is like.
type Listed = (Position, Result<Seen, crate::row::Defect>);

/// A filter in the database's numbers.
struct Query {
    status: Option<Status>,
    type_id: Option<u32>,
    queue_id: Option<u32>,
    reason: Option<FailureReason>,
}

impl Query {
    /// `None` when nothing can match.
    async fn of(inner: &Inner, conn: &mut Conn, filter: &Filter) -> Result<Option<Self>, Failure> {
        let status = filter.status();
        if filter.reason.is_some() && status != Some(Status::Failed) {
            return Ok(None);
        }
        let names = &inner.names;
        let unknown = filter.task_type.as_ref().is_some_and(|name| names.type_id(name).is_none())
            || filter.queue.as_ref().is_some_and(|name| names.queue_id(name).is_none());
        if unknown {
            names.refresh(conn).await?;
        }
        let type_id = filter.task_type.as_ref().map(|name| names.type_id(name));
        let queue_id = filter.queue.as_ref().map(|name| names.queue_id(name));
        if type_id == Some(None) || queue_id == Some(None) {
            return Ok(None);
        }
        Ok(Some(Self { status, type_id: type_id.flatten(), queue_id: queue_id.flatten(), reason: filter.reason }))
    }

    /// The conditions on a table that has these columns.
    fn conditions(&self, table: &str) -> String {
        let mut sql = String::new();
        for (column, number) in [("type_id", self.type_id), ("queue_id", self.queue_id)] {
            if let Some(number) = number {
                sql.push_str(&format!(" AND {table}.{column} = {number}"));
            }
        }
        sql
    }

    async fn fetch(&self, conn: &mut Conn, after: Option<Position>, limit: usize) -> Result<Vec<Listed>, Failure> {
        match self.status {
            None => self.by_id(conn, after, limit).await,
            Some(Status::Running) => self.running(conn, after, limit).await,
            Some(Status::Queued) => self.queued(conn, after, limit).await,
            Some(status @ (Status::Completed | Status::Failed)) => self.ended(conn, status, after, limit).await,
        }
    }

    /// Tasks of any status by the latest id.
    async fn by_id(&self, conn: &mut Conn, after: Option<Position>, limit: usize) -> Result<Vec<Listed>, Failure> {
        let below = after.map(|(_, id)| format!(" AND t.id < {}", id.saturating_neg())).unwrap_or_default();
        let sql = format!(
            "SELECT {}, 0, -CAST(t.id AS SIGNED) FROM queue_task AS t FORCE INDEX (PRIMARY) \
             LEFT JOIN queue_payload AS p ON p.task_id = t.id WHERE TRUE{below}{} ORDER BY t.id DESC LIMIT {limit}",
            columns(),
            self.conditions("t")
        );
        listed(conn, sql).await
    }

    /// Ended tasks by the latest end.
    async fn ended(
        &self,
        conn: &mut Conn,
        status: Status,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Listed>, Failure> {
        let before = after.map(|(at, id)| {
            let (at, id) = (at.saturating_neg(), id.saturating_neg());
            format!(" AND f.completed_at <= {at} AND NOT (f.completed_at = {at} AND f.task_id >= {id})")
        });
        let reason = self.reason.map(|reason| format!(" AND f.reason = {}", reason.code()));
        let sql = format!(
            "SELECT {}, -f.completed_at, -CAST(f.task_id AS SIGNED) FROM queue_finished AS f FORCE INDEX (PRIMARY) \
             STRAIGHT_JOIN queue_task AS t ON t.id = f.task_id LEFT JOIN queue_payload AS p ON p.task_id = t.id \
             WHERE f.status = {}{}{}{} ORDER BY f.completed_at DESC, f.task_id DESC LIMIT {limit}",
            columns(),
            status.code(),
            before.unwrap_or_default(),
            reason.unwrap_or_default(),
            self.conditions("f")
        );
        listed(conn, sql).await
    }

    /// Queued tasks by due time, merged out of their lanes.
    async fn queued(&self, conn: &mut Conn, after: Option<Position>, limit: usize) -> Result<Vec<Listed>, Failure> {
        let lanes = waiting(conn).await?;
        let behind = after.map(|(run_at, id)| {
            format!(" AND r.run_at >= {run_at} AND NOT (r.run_at = {run_at} AND r.task_id <= {id})")
        });
        let behind = behind.unwrap_or_default();
        let mut found = Vec::new();
        for (lane, _) in lanes.iter().filter(|(lane, _)| self.queue_id.is_none_or(|queue| queue == lane.queue_id)) {
            let sql = format!(
                "SELECT {}, r.run_at, CAST(r.task_id AS SIGNED) FROM queue_ready AS r FORCE INDEX (PRIMARY) \
                 STRAIGHT_JOIN queue_task AS t ON t.id = r.task_id LEFT JOIN queue_payload AS p ON p.task_id = t.id \
                 WHERE r.queue_id = {} AND r.suspect = {} AND r.priority_rank = {}{behind}{} \
                 ORDER BY r.run_at, r.task_id LIMIT {limit}",
                columns(),
                lane.queue_id,
                u8::from(lane.suspect),
                lane.rank,
                self.conditions("r")
            );
            found.extend(listed(conn, sql).await?);
        }
        found.sort_by_key(|(position, _)| *position);
        found.truncate(limit);
        Ok(found)
    }

    /// Running tasks by id.
    async fn running(&self, conn: &mut Conn, after: Option<Position>, limit: usize) -> Result<Vec<Listed>, Failure> {
        let first = after.map_or(0, |(_, id)| id);
        let mut ids = claimed_ids(conn).await?;
        ids.retain(|id| i64::try_from(id.get()).is_ok_and(|id| id > first));
        let mut found = Vec::new();
        for chunk in ids.chunks(RUNNING_CHUNK) {
            let room = limit - found.len();
            let sql = format!(
                "SELECT {}, 0, CAST(t.id AS SIGNED) FROM queue_task AS t FORCE INDEX (PRIMARY) \
                 LEFT JOIN queue_payload AS p ON p.task_id = t.id WHERE t.id IN ({}) AND t.status = 1{} \
                 ORDER BY t.id LIMIT {room}",
                columns(),
                list(chunk),
                self.conditions("t")
            );
            found.extend(listed(conn, sql).await?);
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }
}

async fn listed(conn: &mut Conn, sql: String) -> Result<Vec<Listed>, Failure> {
    let rows = conn.run(sql).await?.pop().unwrap_or_default().rows;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        found.push(((value(row, RECORD_LEN)?, value(row, RECORD_LEN + 1)?), Seen::read(row)?));
    }
    Ok(found)
}
