//! What the parts of a store share.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use queue_core::StoreError;
use queue_core::error::SchemaProblem;

use crate::admin::Pruned;
use crate::connection::Connections;
use crate::held::Held;
use crate::lanes::Lanes;
use crate::names::Names;
use crate::operation::Retries;
use crate::options::MySqlOptions;
use crate::server::Server;
use crate::sweep::Sweep;
use crate::wake::Wakes;

/// The state of a store. All of it but the connections can be lost: the database knows better.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) connections: Connections,
    pub(crate) options: MySqlOptions,
    pub(crate) server: Server,
    pub(crate) names: Names,
    pub(crate) lanes: Lanes,
    pub(crate) held: Held,
    pub(crate) sweep: Sweep,
    pub(crate) pruned: Pruned,
    pub(crate) retries: Retries,
    /// What wakes other processes, where that is wanted.
    pub(crate) wakes: Option<Wakes>,
    /// The server whose clock was told last, as [`Seat::server`](crate::hosts::Seat) counts them.
    pub(crate) judged: AtomicU64,
}

/// What a panic of another call left behind is whole: nothing panics between two changes that belong together.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first row of a reply that must have one.
pub(crate) fn missing(what: &'static str) -> StoreError {
    StoreError::corrupt(None, format!("{what} is missing; {}", SchemaProblem::Missing))
}
