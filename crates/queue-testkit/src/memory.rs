//! The reference store: the contract of the ports as a program, in memory.
//!
//! One mutex over ordered maps, no hash map, no randomness, no clock but the [`StoreClock`] it was given: the same calls in the
//! same order always give the same answers, which is what a deterministic simulation needs. Every rule comes from
//! `queue-core`; what is here is only where things are kept.

mod acting;
mod claiming;
mod database;
mod enqueueing;
#[cfg(feature = "proptest")]
mod following;
mod looking;
mod ready;
mod reaping;
mod serving;
mod settling;
mod transaction;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use queue_core::{StoreLimits, Timestamp};

use self::database::Database;
#[cfg(feature = "proptest")]
pub(crate) use self::following::Waiting;
pub use self::looking::AuditEntry;
pub use self::transaction::MemoryTransaction;
use crate::clock::SystemClock;

/// Where a [`MemoryStore`] reads its now. It is read once for each call, under the store's lock.
pub trait StoreClock: Send + Sync + fmt::Debug {
    /// The store's clock. Nothing needs it to be monotonic: the clocks of real servers jump.
    fn now(&self) -> Timestamp;
}

/// A store in memory: no durability, every other promise.
///
/// Clones share one content, as connections to one server do.
#[derive(Clone)]
pub struct MemoryStore {
    clock: Arc<dyn StoreClock>,
    limits: StoreLimits,
    shared: Arc<Mutex<Database>>,
}

impl MemoryStore {
    /// An empty store on the system's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock::new()))
    }

    /// An empty store on this clock.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn StoreClock>) -> Self {
        Self { clock, limits: StoreLimits::DEFAULT, shared: Arc::new(Mutex::new(Database::default())) }
    }

    /// The same store with other limits; clones made before keep theirs.
    #[must_use]
    pub const fn with_limits(mut self, limits: StoreLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The same store before it was ever migrated: it says that there is no schema, and does its work all the same.
    #[must_use]
    pub fn without_schema(self) -> Self {
        self.lock().migrated = false;
        self
    }

    /// Changes which server seems to answer (see [`StoreTime`](queue_core::reap::StoreTime)), as a failover does.
    pub fn set_server(&self, server: impl Into<String>) {
        self.lock().server = server.into();
    }

    /// What operators did, the oldest first; the last 10,000 entries.
    #[must_use]
    pub fn audit(&self) -> Vec<AuditEntry> {
        self.lock().audit.iter().cloned().collect()
    }

    /// What is wrong with the store's own books, task by task; nothing, unless this crate has a bug. A simulation's checker
    /// asks it: a task is found in exactly the places that its status says.
    #[must_use]
    pub fn ghosts(&self) -> Vec<String> {
        self.lock().ghosts()
    }

    fn lock(&self) -> MutexGuard<'_, Database> {
        // A panic of a caller cannot happen inside, and a poisoned test store is of no use to anybody.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("clock", &self.clock).field("limits", &self.limits).finish_non_exhaustive()
    }
}
