//! Types, queues, retry policies and lanes by number. They are written once, outside any user's transaction, and never change,
//! so every process keeps what it has seen.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use queue_core::{Backoff, NewTask, QueueName, StoreError, TaskType};
use sqlx::mysql::{MySqlArguments, MySqlRow};

use crate::connection::Conn;
use crate::error::{Class, Failure, classify};
use crate::inner::Inner;
use crate::operation::Operation;
use crate::row::{NEVER, insert_ends};
use crate::sql::{add, list, value};

/// One kind of name.
#[derive(Debug)]
struct Table<N> {
    by_name: HashMap<N, u32>,
    by_id: HashMap<u32, N>,
    max_id: u32,
}

impl<N> Default for Table<N> {
    fn default() -> Self {
        Self { by_name: HashMap::new(), by_id: HashMap::new(), max_id: 0 }
    }
}

impl<N: Clone + Eq + Hash> Table<N> {
    fn learn(&mut self, id: u32, name: N) {
        self.by_name.insert(name.clone(), id);
        self.by_id.insert(id, name);
        self.max_id = self.max_id.max(id);
    }
}

#[derive(Debug, Default)]
struct Known {
    types: Table<TaskType>,
    queues: Table<QueueName>,
    policies: Table<Backoff>,
    lanes: HashSet<(u32, i8)>,
}

/// The names seen so far.
#[derive(Debug, Default)]
pub(crate) struct Names(RwLock<Known>);

/// The numbers that a new task is written with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) type_id: u32,
    pub(crate) queue_id: u32,
    pub(crate) policy_id: u32,
}

impl Names {
    pub(crate) fn task_type(&self, id: u32) -> Option<TaskType> {
        self.read().types.by_id.get(&id).cloned()
    }

    pub(crate) fn queue(&self, id: u32) -> Option<QueueName> {
        self.read().queues.by_id.get(&id).cloned()
    }

    pub(crate) fn policy(&self, id: u32) -> Option<Backoff> {
        self.read().policies.by_id.get(&id).cloned()
    }

    pub(crate) fn type_id(&self, name: &TaskType) -> Option<u32> {
        self.read().types.by_name.get(name).copied()
    }

    pub(crate) fn queue_id(&self, name: &QueueName) -> Option<u32> {
        self.read().queues.by_name.get(name).copied()
    }

    /// The highest type number seen.
    pub(crate) fn type_id_max(&self) -> u32 {
        self.read().types.max_id
    }

    /// Whether each known type is among these.
    pub(crate) fn all_types_in(&self, served: &[TaskType]) -> bool {
        self.read().types.by_name.keys().all(|name| served.contains(name))
    }

    /// The numbers of a new task; `None` when one of them is not known yet.
    pub(crate) fn numbers(&self, task: &NewTask) -> Option<Numbers> {
        let known = self.read();
        let queue_id = *known.queues.by_name.get(&task.spec.queue)?;
        known.lanes.get(&(queue_id, task.spec.priority.rank()))?;
        Some(Numbers {
            type_id: *known.types.by_name.get(&task.spec.task_type)?,
            queue_id,
            policy_id: *known.policies.by_name.get(&task.spec.retry.backoff().kept())?,
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads every name that is not known yet.
    pub(crate) async fn refresh(&self, conn: &mut Conn) -> Result<(), sqlx::Error> {
        let sql =
            "SELECT id, name FROM queue_type; SELECT id, name FROM queue_queue; SELECT id, backoff FROM queue_policy";
        let replies = conn.run(sql.to_owned()).await?;
        let mut known = self.write();
        for (index, reply) in replies.iter().enumerate() {
            for row in &reply.rows {
                let id: u32 = value(row, 0)?;
                let name = text(row, 1)?;
                // A name that cannot be is left out: a row that refers to it is corrupt.
                match index {
                    0 => name.parse().into_iter().for_each(|name| known.types.learn(id, name)),
                    1 => name.parse().into_iter().for_each(|name| known.queues.learn(id, name)),
                    _ => name.parse().into_iter().for_each(|name| known.policies.learn(id, name)),
                }
            }
        }
        Ok(())
    }

    /// The number of a queue, written now if it is new.
    pub(crate) async fn intern_queue(&self, conn: &mut Conn, queue: &QueueName) -> Result<u32, Failure> {
        if let Some(id) = self.queue_id(queue) {
            return Ok(id);
        }
        let id = intern(conn, "queue_queue", "name", queue.as_str()).await?;
        self.write().queues.learn(id, queue.clone());
        Ok(id)
    }

    /// Writes lanes that are not known yet.
    pub(crate) async fn intern_lanes(&self, conn: &mut Conn, lanes: &[(u32, i8)]) -> Result<(), Failure> {
        let mut new: Vec<_> = {
            let known = self.read();
            lanes.iter().filter(|lane| !known.lanes.contains(lane)).copied().collect()
        };
        if new.is_empty() {
            return Ok(());
        }
        let rows = |lanes: &[(u32, i8)]| list(lanes.iter().map(|(queue, rank)| format!("({queue},{rank})")));
        // Asked first: the row at the end of a lane that is there may be locked, on MariaDB by a claim that has come to it, and
        // writing it once more would wait for that. A lane that has lost its end gets it again.
        let sql = format!(
            "SELECT l.queue_id, l.priority_rank FROM queue_lane AS l FORCE INDEX (PRIMARY) STRAIGHT_JOIN queue_ready AS r \
             FORCE INDEX (PRIMARY) ON r.queue_id = l.queue_id AND r.suspect = 0 AND r.priority_rank = l.priority_rank \
             AND r.run_at = {NEVER} AND r.task_id = 0 WHERE (l.queue_id, l.priority_rank) IN ({})",
            rows(&new)
        );
        let mut there = HashSet::new();
        for row in &conn.run(sql).await?.pop().unwrap_or_default().rows {
            there.insert((value(row, 0)?, value(row, 1)?));
        }
        new.retain(|lane| !there.contains(lane));
        if !new.is_empty() {
            // In one order, or two who write the same lanes would wait for each other.
            new.sort_unstable();
            let lanes = format!("INSERT IGNORE INTO queue_lane (queue_id, priority_rank) VALUES {}", rows(&new));
            conn.run_committing(format!("{}; {lanes}", insert_ends(&new))).await?;
        }
        self.write().lanes.extend(new.into_iter().chain(there));
        Ok(())
    }
}

/// Text of a name's column, whatever its collation.
fn text(row: &MySqlRow, index: usize) -> Result<String, sqlx::Error> {
    let bytes: Vec<u8> = value(row, index)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The number of a name. Looks first, so that a known name writes nothing and burns no number.
async fn intern(conn: &mut Conn, table: &str, column: &str, name: &str) -> Result<u32, Failure> {
    let select = format!("SELECT id FROM {table} WHERE {column} = ?");
    for _ in 0..2 {
        let reply = conn.bound(select.clone(), bound(name)?).await?;
        if let Some(row) = reply.rows.first() {
            return Ok(value(row, 0)?);
        }
        match conn.bound_committing(format!("INSERT INTO {table} ({column}) VALUES (?)"), bound(name)?).await {
            Ok(reply) if reply.last_insert_id > 0 => {
                return u32::try_from(reply.last_insert_id)
                    .map_err(|_| Failure::Store(StoreError::other(format!("{table} is full"))));
            }
            Ok(_) => {}
            Err(error) if classify(&error) == Class::Duplicate => conn.rollback().await?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::Again("name_raced"))
}

fn bound(name: &str) -> Result<MySqlArguments, sqlx::Error> {
    let mut arguments = MySqlArguments::default();
    add(&mut arguments, name)?;
    Ok(arguments)
}

/// Writes the names of a batch that are not known yet.
struct Intern {
    batch: Arc<[NewTask]>,
}

impl Operation for Intern {
    type Output = ();
    const REPEATABLE: bool = true;

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<(), Failure> {
        let names = &inner.names;
        let mut lanes = HashSet::new();
        for task in self.batch.iter() {
            if names.numbers(task).is_some() {
                continue;
            }
            let queue_id = names.intern_queue(conn, &task.spec.queue).await?;
            lanes.insert((queue_id, task.spec.priority.rank()));
            let task_type = &task.spec.task_type;
            if names.type_id(task_type).is_none() {
                let id = intern(conn, "queue_type", "name", task_type.as_str()).await?;
                names.write().types.learn(id, task_type.clone());
            }
            let backoff = task.spec.retry.backoff().kept();
            if !names.read().policies.by_name.contains_key(&backoff) {
                let id = intern(conn, "queue_policy", "backoff", &backoff.stored()?).await?;
                names.write().policies.learn(id, backoff);
            }
        }
        let lanes: Vec<_> = lanes.into_iter().collect();
        names.intern_lanes(conn, &lanes).await
    }
}

impl Inner {
    /// Makes sure that every name of the batch has its number.
    pub(crate) async fn intern(self: &Arc<Self>, batch: &Arc<[NewTask]>) -> Result<(), StoreError> {
        if batch.iter().all(|task| self.names.numbers(task).is_some()) {
            return Ok(());
        }
        self.perform(Intern { batch: Arc::clone(batch) }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_needed_only_for_types_that_are_not_served() {
        let names = Names::default();
        assert!(names.all_types_in(&[]));
        names.write().types.learn(4, TaskType::new("a"));
        assert!(names.all_types_in(&[TaskType::new("a")]) && !names.all_types_in(&[TaskType::new("b")]));
        assert_eq!((names.type_id_max(), names.task_type(4)), (4, Some(TaskType::new("a"))));
    }
}
