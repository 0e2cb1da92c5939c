//! A store that goes wrong on purpose, as networks and servers do.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use queue_core::TaskStore as _;
//! use queue_testkit::faulty::{Call, Fault, FaultyStore, Script};
//! use queue_testkit::MemoryStore;
//!
//! let script = Script::new().at(Call::ReserveIds, 2, Fault::AnswerLost);
//! let store = FaultyStore::new(MemoryStore::new(), script);
//! assert!(store.reserve_ids(1).await.is_ok());
//! assert!(store.reserve_ids(1).await.unwrap_err().is_transient());
//! assert_eq!(store.calls(Call::ReserveIds), 2);
//! # }
//! ```

mod plan;
mod serving;
mod transacting;

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use queue_core::{Store, StoreError, TaskId};
use tokio::time::sleep;

pub use self::plan::{Rates, Script, Seeded};

/// A call of the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the method of its name")]
#[non_exhaustive]
pub enum Call {
    ReserveIds,
    Enqueue,
    OpenSession,
    RenewSession,
    CloseSession,
    Claim,
    ResolveClaim,
    Settle,
    Progress,
    Time,
    FenceExpired,
    Lost,
    Expire,
    IsBusy,
    Get,
    Attempts,
    List,
    Stats,
    Act,
    SetPaused,
    Sessions,
    RequestDrain,
    Prune,
    Migrate,
    Schema,
}

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing is written, and the caller knows it: *unavailable*.
    Unavailable,
    /// Nothing is written, and the caller cannot know it: *unknown outcome*, before the commit.
    RequestLost,
    /// It is written, and the caller cannot know it: *unknown outcome*, after the commit.
    AnswerLost,
    /// The caller is told *unknown outcome* at once, and so much later it is written all the same: the request was still under
    /// way. This is what makes [`resolve_claim`](queue_core::TaskStore::resolve_claim) have to be decisive.
    Late(Duration),
    /// Nothing is written, and trying again will not help: *other*.
    Refused,
    /// Nothing is written, and there is no answer at all. Only dropping the call ends it.
    Hang,
    /// Nothing is written, and the store panics.
    Panic,
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strike {
    /// How long it takes until the store sees it. A call dropped meanwhile has written nothing.
    pub before: Duration,
    /// How it goes wrong, if it does.
    pub fault: Option<Fault>,
    /// How long its answer takes. A call dropped meanwhile has written.
    pub after: Duration,
}

impl From<Fault> for Strike {
    fn from(fault: Fault) -> Self {
        Self { fault: Some(fault), ..Self::default() }
    }
}

/// Decides what becomes of each call: a [`Script`], a [`Seeded`] source of faults, or a function.
pub trait Faults: Send + Sync {
    /// What becomes of the `nth` call of this kind, counted from 1.
    fn strike(&self, call: Call, nth: u64) -> Strike;

    /// Whether this task's rows are corrupt: then no batch of settlements with it is written.
    fn is_corrupt(&self, _task: TaskId) -> bool {
        false
    }

    /// What the store says that it repeated, beyond what it did: see [`TaskStore::retries`](queue_core::TaskStore::retries).
    fn retries(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

impl<F: Fn(Call, u64) -> Strike + Send + Sync> Faults for F {
    fn strike(&self, call: Call, nth: u64) -> Strike {
        self(call, nth)
    }
}

/// Any store, with [`Faults`] in between. Clones share the store, the faults and the count of calls.
///
/// Delays are those of tokio's clock, so a paused runtime makes them virtual.
pub struct FaultyStore<S: ?Sized> {
    inner: Arc<S>,
    faults: Arc<dyn Faults>,
    calls: Arc<Mutex<BTreeMap<Call, u64>>>,
}

impl<S: Store + 'static> FaultyStore<S> {
    /// This store, going wrong like this.
    pub fn new(inner: S, faults: impl Faults + 'static) -> Self {
        Self::over(Arc::new(inner), faults)
    }
}

impl<S: Store + ?Sized + 'static> FaultyStore<S> {
    /// As [`new`](FaultyStore::new), over a store that is shared or whose kind is not known.
    pub fn over(inner: Arc<S>, faults: impl Faults + 'static) -> Self {
        Self { inner, faults: Arc::new(faults), calls: Arc::default() }
    }

    /// The store itself, where nothing goes wrong.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// How often this was called, whatever became of it.
    #[must_use]
    pub fn calls(&self, call: Call) -> u64 {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).get(&call).copied().unwrap_or(0)
    }

    /// Lets a call go its way. `work` owns what it needs: a request under way does not end with its caller.
    async fn pass<T: Send + 'static>(
        &self,
        call: Call,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let nth = {
            let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            let nth = calls.entry(call).or_default();
            *nth += 1;
            *nth
        };
        let Strike { before, fault, after } = self.faults.strike(call, nth);
        delay(before).await;
        let answer = match fault {
            None => work.await,
            Some(Fault::Unavailable) => Err(StoreError::unavailable(Injected(call))),
            Some(Fault::RequestLost) => Err(StoreError::unknown_outcome(Injected(call))),
            Some(Fault::AnswerLost) => {
                // What the store said is lost, whether it was an answer or an error.
                drop(work.await);
                Err(StoreError::unknown_outcome(Injected(call)))
            }
            Some(Fault::Late(later)) => {
                tokio::spawn(async move {
                    delay(later).await;
                    drop(work.await);
                });
                Err(StoreError::unknown_outcome(Injected(call)))
            }
            Some(Fault::Refused) => Err(StoreError::other(Injected(call))),
            Some(Fault::Hang) => pending().await,
            Some(Fault::Panic) => panic!("{}", Injected(call)),
        };
        delay(after).await;
        answer
    }
}

/// No time is no wait, not even a turn of the runtime.
async fn delay(duration: Duration) {
    if !duration.is_zero() {
        sleep(duration).await;
    }
}

impl<S: ?Sized> Clone for FaultyStore<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), faults: self.faults.clone(), calls: self.calls.clone() }
    }
}

impl<S: fmt::Debug + ?Sized> fmt::Debug for FaultyStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").field("inner", &&*self.inner).finish_non_exhaustive()
    }
}

/// The source of every error made here.
#[derive(Debug)]
struct Injected(Call);

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a fault was injected into {:?}", self.0)
    }
}

impl std::error::Error for Injected {}
