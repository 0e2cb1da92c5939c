//! The testkit's store whose every call can be made to fail, as these tests use it, and a process that can be killed.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use mockall::automock;
use queue_core::TaskId;
use queue_runtime::ports::{Detached, Spawn};
use queue_testkit::MemoryStore;
pub(crate) use queue_testkit::faulty::{Call, Fault};
use queue_testkit::faulty::{Faults, Strike};
use tokio::task::AbortHandle;

/// A store in memory that goes wrong. It says that it repeated a transaction for each claim.
pub(crate) type FaultyStore = queue_testkit::FaultyStore<MemoryStore>;

/// Decides how each call goes wrong, if it does; `nth` counts the calls of a kind from 1.
#[automock]
pub(crate) trait Strikes: Send + Sync + 'static {
    fn strike(&self, call: Call, nth: u64) -> Option<Fault>;
}

/// A store that goes wrong like this.
pub(crate) fn faulty(
    inner: &MemoryStore,
    strike: impl Fn(Call, u64) -> Option<Fault> + Send + Sync + 'static,
) -> FaultyStore {
    let mut strikes = MockStrikes::new();
    strikes.expect_strike().returning(strike);
    mocked(inner, strikes)
}

/// A store that goes wrong as expected.
pub(crate) fn mocked(inner: &MemoryStore, strikes: MockStrikes) -> FaultyStore {
    FaultyStore::new(inner.clone(), Plan { strikes, corrupt: None, claims: AtomicU64::new(0) })
}

/// A store that cannot write the settlement of this task, nor of a batch with it.
pub(crate) fn refusing(inner: &MemoryStore, task: TaskId) -> FaultyStore {
    let mut strikes = MockStrikes::new();
    strikes.expect_strike().return_const(None);
    FaultyStore::new(inner.clone(), Plan { strikes, corrupt: Some(task), claims: AtomicU64::new(0) })
}

struct Plan {
    strikes: MockStrikes,
    corrupt: Option<TaskId>,
    claims: AtomicU64,
}

impl Faults for Plan {
    fn strike(&self, call: Call, nth: u64) -> Strike {
        if call == Call::Claim {
            self.claims.store(nth, Ordering::Relaxed);
        }
        Strike { fault: self.strikes.strike(call, nth), ..Strike::default() }
    }

    fn is_corrupt(&self, task: TaskId) -> bool {
        self.corrupt == Some(task)
    }

    fn retries(&self) -> Vec<(&'static str, u64)> {
        vec![("deadlock", self.claims.load(Ordering::Relaxed))]
    }
}

/// A process: all that it runs dies with it.
#[derive(Debug, Default)]
pub(crate) struct Process {
    running: Mutex<Vec<(&'static str, AbortHandle)>>,
}

impl Process {
    /// What of that which it ran has not ended.
    pub(crate) fn alive(&self) -> Vec<&'static str> {
        self.running.lock().unwrap().iter().filter(|(_, one)| !one.is_finished()).map(|(name, _)| *name).collect()
    }

    /// How much of this name it ever ran.
    pub(crate) fn named(&self, name: &str) -> usize {
        self.running.lock().unwrap().iter().filter(|(own, _)| *own == name).count()
    }

    /// As SIGKILL does it.
    pub(crate) fn kill(&self) {
        for (_, one) in self.running.lock().unwrap().drain(..) {
            one.abort();
        }
    }
}

impl Spawn for Process {
    fn spawn(&self, name: &'static str, future: Detached) {
        self.running.lock().unwrap().push((name, tokio::spawn(future).abort_handle()));
    }

    fn spawn_apart(&self, name: &'static str, future: Detached) -> io::Result<()> {
        self.spawn(name, future);
        Ok(())
    }
}
