//! What a job works with: the connection it may use until it ends, one reading of the clock, the known names.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use queue_core::{StoreError, TaskId, Timestamp};
use rusqlite::{CachedStatement, Connection, Params, Row};

use crate::buffers::Buffers;
use crate::error::Fault;
use crate::held::{Held, OTHERS_WROTE};
use crate::marks::Marks;
use crate::names::Names;

/// Corrupt tasks that are told in the log, each once, at most.
const TOLD_MAX: usize = 1_000;
/// How long a task is not tried again that could not be claimed, and how many such are kept, at most.
const AVOIDED_FOR: Duration = Duration::from_secs(5);
const AVOIDED_MAX: usize = 10_000;

pub(crate) type Result<T, E = Fault> = std::result::Result<T, E>;

/// A job's view of the database, within a transaction.
pub(crate) struct Work<'a> {
    pub(crate) conn: &'a Connection,
    /// The store's clock, read once for this job.
    pub(crate) now: Timestamp,
    pub(crate) memory: &'a mut Memory,
    /// Statements that this job has used, by the address of their text: a batch runs each of a few hundreds of times, and looking
    /// one up by its text costs as much as a cheap one takes.
    used: RefCell<Vec<(Address, CachedStatement<'a>)>>,
    /// Whether there is any signal at all, once this job has looked.
    signals: Cell<Option<bool>>,
    /// Whether this job has found out if others have written since the last one.
    held_checked: bool,
}

/// Where a statement's text is, and how long it is.
type Address = (*const u8, usize);

/// What a thread remembers from job to job.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) names: Names,
    /// The queue that was served last: the next claim begins after it.
    pub(crate) last_queue: Option<i64>,
    pub(crate) marks: Marks,
    held: Held,
    pub(crate) buffers: Buffers,
    told: BTreeSet<Option<TaskId>>,
    /// Tasks that were judged and could not be claimed, by their stored numbers, and until when they are passed over.
    avoided: BTreeMap<i64, Timestamp>,
}

impl Memory {
    /// Forgets what a transaction that was rolled back may have taught: names that it added, rows that it took.
    pub(crate) fn forget(&mut self) {
        self.names.forget();
        self.marks = Marks::default();
        self.held = Held::default();
    }

    /// Passes over this task for a while: it takes room in a claim before it is known that it cannot be claimed, and again and again
    /// it would take that of the tasks behind it.
    pub(crate) fn avoid(&mut self, task: TaskId, now: Timestamp) {
        if self.avoided.len() >= AVOIDED_MAX {
            self.avoided.clear();
        }
        self.avoided.insert(task.number(), now.after(AVOIDED_FOR));
    }

    /// Whether the task of this number is passed over.
    pub(crate) fn avoids(&self, task: i64, now: Timestamp) -> bool {
        self.avoided.get(&task).is_some_and(|until| *until > now)
    }
}

impl<'a> Work<'a> {
    pub(crate) fn new(conn: &'a Connection, now: Timestamp, memory: &'a mut Memory) -> Self {
        Self { conn, now, memory, used: RefCell::default(), signals: Cell::new(None), held_checked: false }
    }

    /// Runs a write and says how many rows it touched.
    pub(crate) fn execute(&self, sql: &'static str, params: impl Params) -> Result<usize> {
        self.with(sql, |statement| Ok(statement.execute(params)?))
    }

    /// The first row, if there is one.
    pub(crate) fn first<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        self.with(sql, |statement| statement.query(params)?.next()?.map(read).transpose())
    }

    /// All rows.
    pub(crate) fn all<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut all = Vec::new();
        self.each(sql, params, |row| {
            all.push(read(row)?);
            Ok(true)
        })?;
        Ok(all)
    }

    /// Each row in turn, as long as `read` wants more.
    pub(crate) fn each(
        &self,
        sql: &'static str,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> Result<bool>,
    ) -> Result<()> {
        self.with(sql, |statement| {
            let mut rows = statement.query(params)?;
            while let Some(row) = rows.next()? {
                if !read(row)? {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Whether there is a row.
    pub(crate) fn exists(&self, sql: &'static str, params: impl Params) -> Result<bool> {
        self.with(sql, |statement| Ok(statement.exists(params)?))
    }

    /// Whether any running task is asked to stop: nearly always none is, and then no task need be looked up.
    pub(crate) fn has_signals(&self) -> Result<bool> {
        if let Some(known) = self.signals.get() {
            return Ok(known);
        }
        let found = self.exists("SELECT 1 FROM queue_signal", [])?;
        self.signals.set(Some(found));
        Ok(found)
    }

    /// What is known of this process's runs, as far as it holds still.
    pub(crate) fn held(&mut self) -> Result<&mut Held> {
        if !self.held_checked {
            let version = self.first(OTHERS_WROTE, [], |row| Ok(row.get(0)?))?.unwrap_or_default();
            self.memory.held.check(version);
            self.held_checked = true;
        }
        Ok(&mut self.memory.held)
    }

    /// This job writes a signal.
    pub(crate) fn expect_signals(&self) {
        self.signals.set(Some(true));
    }

    fn with<T>(&self, sql: &'static str, run: impl FnOnce(&mut CachedStatement<'a>) -> Result<T>) -> Result<T> {
        let address = (sql.as_ptr(), sql.len());
        let kept = {
            let mut used = self.used.borrow_mut();
            used.iter().position(|(one, _)| *one == address).map(|index| used.swap_remove(index).1)
        };
        let mut statement = match kept {
            Some(statement) => statement,
            None => self.conn.prepare_cached(sql)?,
        };
        let answer = run(&mut statement);
        self.used.borrow_mut().push((address, statement));
        answer
    }

    /// Passes over a corrupt row: it is told in the log, once, and is `None`. Any other error stays one.
    pub(crate) fn pass_over_corrupt<T>(&mut self, read: Result<T>) -> Result<Option<T>> {
        let (task, defect) = match read {
            Ok(value) => return Ok(Some(value)),
            Err(Fault::Store(StoreError::Corrupt { task, defect })) => (task, defect),
            Err(fault) => return Err(fault),
        };
        let told = &mut self.memory.told;
        if told.len() < TOLD_MAX && told.insert(task) {
            tracing::error!(task = task.map(TaskId::get), defect, "a corrupt row is left alone");
        }
        Ok(None)
    }
}

/// An id as SQLite keeps it: the same 64 bits, signed.
pub(crate) trait Id: Copy {
    fn number(self) -> i64;
}

macro_rules! id {
    ($($id:ty),+) => {
        $(impl Id for $id {
            fn number(self) -> i64 {
                self.get().cast_signed()
            }
        })+
    };
}

id!(queue_core::TaskId, queue_core::ClaimId, queue_core::SessionId);

/// The task of a stored number.
pub(crate) fn task_id(number: i64) -> Result<TaskId> {
    TaskId::new(number.cast_unsigned()).ok_or_else(|| StoreError::corrupt(None, "a task has no id").into())
}

/// The ids as a JSON array, for one bound parameter.
pub(crate) fn id_list(ids: impl IntoIterator<Item = TaskId>) -> String {
    let mut list = String::from("[");
    for id in ids {
        if list.len() > 1 {
            list.push(',');
        }
        // A string takes whatever is written to it.
        let _ = write!(list, "{}", id.number());
    }
    list.push(']');
    list
}

/// A number as SQLite keeps it, cut at its largest.
pub(crate) fn clamped(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
