//! Sessions: one row per running pool, whose lease keeps every task that the pool holds.

use std::time::Duration;

use crate::ids::{ClaimId, SessionId, TaskId};
use crate::names::QueueName;
use crate::time::Timestamp;

/// The default length of a session's lease.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(30);

/// A session to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSpec {
    /// Its id, random, made by the caller.
    pub id: SessionId,
    /// A name for people; it need not be unique. At most 64 bytes are kept.
    pub name: String,
    /// The host it runs on. At most 64 bytes are kept.
    pub host: String,
    /// The version of the library. At most 32 bytes are kept.
    pub version: String,
    /// How long it lives without renewal.
    pub lease: Duration,
}

/// The answer to a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease runs anew from `now`.
    Renewed(Signals),
    /// The session is fenced or gone: every handler of it must be cancelled, and nothing may be claimed under it.
    Fenced,
}

/// What a renewal brings along.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// The store's clock.
    pub now: Timestamp,
    /// Running tasks of this session that shall be cancelled. A task stays listed until it is settled.
    pub cancels: Vec<(TaskId, ClaimId)>,
    /// Queues that are paused now. The store keeps them from being claimed by itself.
    pub paused: Vec<QueueName>,
    /// Whether an operator wants this pool to drain and stop.
    pub drain: bool,
    /// Sessions that are not fenced, this one included; 0 when the store does not say. Pools that are many poll more rarely each.
    pub live_sessions: u32,
}

/// A session as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its id.
    pub id: SessionId,
    /// Its name.
    pub name: String,
    /// The host it runs on.
    pub host: String,
    /// The version of the library.
    pub version: String,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When its lease ends unless it is renewed.
    pub lease_until: Timestamp,
    /// When it was fenced, if it was.
    pub fenced_at: Option<Timestamp>,
    /// Tasks that it holds.
    pub running: u64,
}
