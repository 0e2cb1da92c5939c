//! What is done about each class of errors before the caller hears of it: the one table, and its proof against real errors.
//!
//! Which of the server's numbers is of which class stands in `error.rs`; `operation.rs` does what is said here.

use crate::error::Class;

/// What is done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Nothing was written: the transaction is run again, a bounded number of times. The name is the metric's label.
    RetryTransaction(&'static str),
    /// The connection is closed. What does no harm when it is repeated is tried on another one; else the caller hears that the
    /// store is unavailable, and nothing was written.
    Reconnect,
    /// The connection is closed, and the commit was under way: what may be repeated is, and of the rest the caller hears that
    /// the outcome is unknown.
    Unknown,
    /// Repeating it would not help: the caller hears of it at once.
    Permanent,
}

impl Class {
    /// What is done, when the commit was not under way and when it was.
    pub(crate) const fn policy(self, committing: bool) -> Policy {
        match (self, committing) {
            (Self::Repeat(kind), _) => Policy::RetryTransaction(kind),
            (Self::Lost | Self::ReadOnly, false) => Policy::Reconnect,
            (Self::Lost | Self::ReadOnly, true) => Policy::Unknown,
            (
                Self::Busy
                | Self::Denied
                | Self::NoDatabase
                | Self::NoTable
                | Self::Duplicate
                | Self::PacketTooLarge
                | Self::Guard
                | Self::Other,
                _,
            ) => Policy::Permanent,
        }
    }

    /// Whether the connection is still good after a rollback. After a packet that was too large the server closes it.
    pub(crate) const fn keeps_connection(self) -> bool {
        !matches!(self, Self::PacketTooLarge)
            && matches!(self.policy(false), Policy::RetryTransaction(_) | Policy::Permanent)
    }
}

#[cfg(test)]
#[path = "policy/provoked.rs"]
mod provoked;
