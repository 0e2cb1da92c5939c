//! All that an engine is told, checked already.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use queue_core::{Clock, Entropy, Jitter, Observation, Observer, Queues, Scope, Store, StoreError, TaskType};
use tokio::sync::Notify;

use crate::erased::ErasedHandler;
use crate::herald::Herald;
use crate::limits::Limits;
use crate::ports::Spawn;
use crate::retention::Retention;

/// Payload bytes that wait in this process for a slot, at most (a single larger payload waits alone).
pub(crate) const WAITING_BYTES_MAX: u64 = 16 << 20;

/// A handler, and what this worker decides about its type.
#[derive(Clone, Debug)]
pub(crate) struct Registered {
    pub(crate) handler: Arc<dyn ErasedHandler>,
    pub(crate) limits: Limits,
}

/// The handlers, in the order of their types.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handlers {
    sorted: Vec<Registered>,
}

impl Handlers {
    /// Adds a handler; `false` when its type has one already.
    pub(crate) fn add(&mut self, registered: Registered) -> bool {
        match self.find(registered.handler.task_type()) {
            Ok(_) => false,
            Err(place) => {
                self.sorted.insert(place, registered);
                true
            }
        }
    }

    /// The place of a type's handler.
    pub(crate) fn place(&self, task_type: &TaskType) -> Option<usize> {
        self.find(task_type).ok()
    }

    pub(crate) fn at(&self, place: usize) -> &Registered {
        &self.sorted[place]
    }

    pub(crate) fn len(&self) -> usize {
        self.sorted.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Registered> {
        self.sorted.iter()
    }

    /// The type itself when it is registered, for labels that must stay bounded.
    pub(crate) fn known<'a>(&self, task_type: &'a TaskType) -> Option<&'a TaskType> {
        self.place(task_type).map(|_| task_type)
    }

    fn find(&self, task_type: &TaskType) -> Result<usize, usize> {
        self.sorted.binary_search_by(|one| one.handler.task_type().cmp(task_type))
    }
}

/// What an engine is made of.
pub(crate) struct Config {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) spawn: Arc<dyn Spawn>,
    pub(crate) observer: Arc<dyn Observer>,
    /// Whether the observer wants to hear how the queues stand, which costs a query now and then.
    pub(crate) samples: bool,
    /// Fires when something may be due.
    pub(crate) wake: Arc<Notify>,
    /// Tells other processes that something may be due.
    pub(crate) herald: Arc<Herald>,
    pub(crate) handlers: Handlers,
    pub(crate) queues: Queues,
    pub(crate) fail_unregistered: Queues,
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) concurrency: usize,
    pub(crate) prefetch: usize,
    pub(crate) lease: Duration,
    pub(crate) heartbeat: Duration,
    /// How long handlers may go on after claiming has stopped.
    pub(crate) grace: Duration,
    /// How long a handler may go on after its token fired.
    pub(crate) cancel_grace: Duration,
    pub(crate) poll_min: Duration,
    pub(crate) poll_max: Duration,
    /// What goes of the tasks that have ended, and when.
    pub(crate) retention: Retention,
    /// Whether the pool ends by itself when nothing is left to do.
    pub(crate) drain: Option<Drain>,
}

/// When a pool that ends by itself ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drain {
    /// Whether tasks that are first due later are waited for.
    pub(crate) later: bool,
}

impl Config {
    pub(crate) fn scope(&self) -> Scope {
        Scope {
            queues: self.queues.clone(),
            types: self.handlers.iter().map(|one| one.handler.task_type().clone()).collect(),
            fail_unregistered: self.fail_unregistered.clone(),
        }
    }

    /// How long one call to the store may take before it counts as one whose outcome is unknown.
    pub(crate) fn call_limit(&self) -> Duration {
        self.lease
    }

    /// How long before the lease ends the handlers are told to stop when it cannot be renewed.
    pub(crate) fn lapse_margin(&self) -> Duration {
        (self.cancel_grace + self.lease / 20).min(self.lease / 3)
    }

    /// How long they are given then.
    pub(crate) fn lapse_grace(&self) -> Duration {
        self.lapse_margin().saturating_sub(self.lease / 20)
    }

    pub(crate) fn jitter(&self) -> Jitter {
        Jitter::from_random(self.entropy.next_u64())
    }

    /// A delay between three quarters of `delay` and all of it.
    pub(crate) fn jittered(&self, delay: Duration) -> Duration {
        delay - self.jitter().of(delay / 4)
    }

    pub(crate) fn observe(&self, observation: &Observation<'_>) {
        self.observer.observe(observation);
    }

    /// Tells of a call to the store that failed.
    pub(crate) fn failed(&self, what: &'static str, error: &StoreError) {
        self.observe(&Observation::StoreFailed(error.kind()));
        tracing::warn!(kind = error.kind().as_str(), %error, "{what}");
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("name", &self.name).field("handlers", &self.handlers).finish_non_exhaustive()
    }
}
