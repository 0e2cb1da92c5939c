//! The threads that own the connections: one that writes, with group commit, and a few that read.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use queue_core::StoreError;
use rusqlite::Connection;

use crate::clock::Now;
use crate::error::{at_commit, before_commit, is_busy};
use crate::jobs::{Job, Jobs, Weight};
use crate::work::{Memory, Work};

/// What one transaction holds at most, in jobs and by their weight.
const GROUP_JOBS_MAX: usize = 64;
const GROUP_WEIGHT_MAX: Weight = 1_000;
/// How often a transaction is begun before the store says that it is unavailable. Each try waits for the busy timeout.
pub(crate) const BEGIN_TRIES_MAX: u32 = 3;

/// Some threads and the jobs in front of them. They end when this is dropped, after the jobs that wait.
pub(crate) struct Threads {
    pub(crate) jobs: Arc<Jobs>,
    handles: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Threads({})", self.handles.len())
    }
}

impl Threads {
    /// The thread that writes.
    pub(crate) fn writer(conn: Connection, now: Now, busy: Arc<AtomicU64>) -> Result<Self, StoreError> {
        let jobs = Arc::new(Jobs::new());
        let mut writer = Writer { thread: Thread::new(conn, now, &jobs), busy };
        let handle = spawn("queue-sqlite-write", move || {
            while let Some(job) = writer.thread.jobs.next() {
                writer.transact(job, GROUP_JOBS_MAX);
            }
        })?;
        Ok(Self { jobs, handles: vec![handle] })
    }

    /// The threads that read; `None` without connections.
    pub(crate) fn readers(conns: Vec<Connection>, now: &Now) -> Result<Option<Self>, StoreError> {
        if conns.is_empty() {
            return Ok(None);
        }
        let jobs = Arc::new(Jobs::new());
        let mut threads = Self { jobs, handles: Vec::new() };
        for conn in conns {
            let mut thread = Thread::new(conn, now.clone(), &threads.jobs);
            let handle = spawn("queue-sqlite-read", move || {
                while let Some(job) = thread.jobs.next() {
                    thread.read(job);
                }
            })?;
            threads.handles.push(handle);
        }
        Ok(Some(threads))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.jobs.close();
        for handle in self.handles.drain(..) {
            // A thread that panicked has nothing left to wait for.
            let _ = handle.join();
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(StoreError::unavailable)
}

/// A thread's own: nobody else ever sees its connection.
struct Thread {
    conn: Connection,
    now: Now,
    jobs: Arc<Jobs>,
    memory: Memory,
}

impl Thread {
    fn new(conn: Connection, now: Now, jobs: &Arc<Jobs>) -> Self {
        Self { conn, now, jobs: Arc::clone(jobs), memory: Memory::default() }
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([]).map(|_| ())
    }

    /// Runs a job in the transaction that is open; `false` when it failed.
    fn run(&mut self, job: &mut dyn Job) -> bool {
        let mut work = Work::new(&self.conn, self.now.read(), &mut self.memory);
        // A job that panics is a bug of ours. It must not take the thread and with it every later call along.
        catch_unwind(AssertUnwindSafe(|| job.run(&mut work))).unwrap_or_else(|_| {
            tracing::error!("a job on the SQLite connection panicked; its transaction is rolled back");
            false
        })
    }

    fn rollback(&mut self) {
        self.memory.forget();
        // SQLite has rolled back by itself after some errors.
        if !self.conn.is_autocommit()
            && let Err(error) = self.execute("ROLLBACK")
        {
            tracing::warn!(%error, "a SQLite transaction could not be rolled back");
        }
    }

    /// All reads of a job see one state of the database.
    fn read(&mut self, mut job: Box<dyn Job>) {
        if let Err(error) = self.execute("BEGIN") {
            return job.finish(Err(before_commit(&error)));
        }
        self.run(job.as_mut());
        // Nothing was written, so there is nothing to undo, and what was learned stays true.
        if !self.conn.is_autocommit()
            && let Err(error) = self.execute("COMMIT")
        {
            tracing::warn!(%error, "a SQLite read could not be ended");
        }
        job.finish(Ok(()));
    }
}

struct Writer {
    thread: Thread,
    /// How often a transaction had to be begun again.
    busy: Arc<AtomicU64>,
}

/// What became of a job that shares its transaction with others.
enum Shared {
    Done,
    /// It failed and was undone alone.
    Undone,
    /// It failed and SQLite rolled back everything.
    AllUndone,
    /// It did not fail, and everything is rolled back all the same.
    Again,
}

impl Writer {
    /// Runs a job in a transaction and, in the same one, up to `jobs_max - 1` of those that came to wait meanwhile: one
    /// commit, one wait for the disk. A job that fails is undone alone.
    fn transact(&mut self, mut first: Box<dyn Job>, jobs_max: usize) {
        if let Err(error) = self.begin() {
            return first.finish(Err(before_commit(&error)));
        }
        if !self.thread.run(first.as_mut()) {
            self.thread.rollback();
            return first.finish(Ok(()));
        }
        let mut room = GROUP_WEIGHT_MAX.saturating_sub(first.weight());
        let mut done = vec![first];
        while done.len() < jobs_max
            && let Some(mut job) = self.thread.jobs.next_within(room)
        {
            room -= job.weight();
            match self.run_shared(job.as_mut()) {
                Shared::Done => done.push(job),
                Shared::Undone => job.finish(Ok(())),
                Shared::AllUndone => {
                    job.finish(Ok(()));
                    return self.each_alone(done);
                }
                Shared::Again => {
                    done.push(job);
                    return self.each_alone(done);
                }
            }
        }
        let Err(error) = self.thread.execute("COMMIT") else {
            return done.into_iter().for_each(|job| job.finish(Ok(())));
        };
        self.thread.rollback();
        if done.len() > 1 && !matches!(at_commit(&error), StoreError::UnknownOutcome { .. }) {
            return self.each_alone(done);
        }
        for job in done {
            job.finish(Err(at_commit(&error)));
        }
    }

    /// Their common transaction is undone: each gets one of its own.
    fn each_alone(&mut self, jobs: Vec<Box<dyn Job>>) {
        for job in jobs {
            self.transact(job, 1);
        }
    }

    fn run_shared(&mut self, job: &mut dyn Job) -> Shared {
        if self.thread.execute("SAVEPOINT job").is_err() {
            self.thread.rollback();
            return Shared::Again;
        }
        if self.thread.run(job) {
            if self.thread.execute("RELEASE job").is_ok() {
                return Shared::Done;
            }
            self.thread.rollback();
            return Shared::Again;
        }
        self.thread.memory.forget();
        let undone = !self.thread.conn.is_autocommit()
            && self.thread.execute("ROLLBACK TO job").is_ok()
            && self.thread.execute("RELEASE job").is_ok();
        if undone {
            return Shared::Undone;
        }
        self.thread.rollback();
        Shared::AllUndone
    }

    fn begin(&self) -> rusqlite::Result<()> {
        let mut tries = 1;
        loop {
            match self.thread.execute("BEGIN IMMEDIATE") {
                Err(error) if is_busy(&error) && tries < BEGIN_TRIES_MAX => {
                    tries += 1;
                    self.busy.fetch_add(1, Ordering::Relaxed);
                }
                begun => return begun,
            }
        }
    }
}
