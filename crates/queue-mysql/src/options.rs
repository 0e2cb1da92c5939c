//! How a store is set up.

use std::time::Duration;

use queue_core::{StoreError, StoreLimits};

use crate::MySqlStore;

/// What can be chosen about a [`MySqlStore`]. Made by [`MySqlStore::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct MySqlOptions {
    pub(crate) connections_max: usize,
    pub(crate) call_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) lock_wait: Duration,
    pub(crate) limits: StoreLimits,
    pub(crate) wake_channel: bool,
}

impl Default for MySqlOptions {
    fn default() -> Self {
        Self {
            connections_max: 10,
            call_timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(5),
            lock_wait: Duration::from_secs(3),
            limits: StoreLimits::DEFAULT,
            wake_channel: false,
        }
    }
}

impl MySqlOptions {
    /// Connections at most, 10 by default; zero counts as one. They are opened when they are needed. Two more may be opened for
    /// renewing sessions, so that a lease never waits behind other work.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.connections_max = connections.max(1);
        self
    }

    /// How long one call may take, waiting for a connection apart; 20 s by default. A call that takes longer fails, and its
    /// connection is closed.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// How long to wait for a new connection, or for one to become free; 5 s by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long the server lets a statement wait for a row's lock, 3 s by default, at least 1 s.
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait.max(Duration::from_secs(1));
        self
    }

    /// The largest payload in bytes, 1 MiB by default. A batch may hold one such payload at least.
    pub fn payload_bytes_max(mut self, bytes: u64) -> Self {
        self.limits.payload_bytes_max = bytes;
        self.limits.batch_bytes_max = self.limits.batch_bytes_max.max(bytes);
        self
    }

    /// The largest result in bytes, 64 KiB by default; a larger one is dropped and flagged.
    pub fn result_bytes_max(mut self, bytes: u64) -> Self {
        self.limits.result_bytes_max = bytes;
        self
    }

    /// Whether processes wake each other when something is due, so that an idle worker need not poll to find it; off by
    /// default, and `?wake=on` or `?wake=off` of the URL goes before it. Polling goes on beside it.
    ///
    /// An idle pool then keeps one more connection, which sleeps on the server, and a process that enqueues one more, which ends
    /// such a sleep with `KILL QUERY`. An account may do that to its own connections without any further right; processes under
    /// different accounts do not wake each other. Not on OceanBase.
    pub fn wake_channel(mut self, on: bool) -> Self {
        self.wake_channel = on;
        self
    }

    /// Connects as [`MySqlStore::connect`] does, with these options.
    ///
    /// # Errors
    ///
    /// As [`MySqlStore::connect`].
    pub async fn connect(self, url: &str) -> Result<MySqlStore, StoreError> {
        MySqlStore::connect_with(url, self).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stay_sensible() {
        let options = MySqlOptions::default().max_connections(0).lock_wait(Duration::ZERO).payload_bytes_max(8 << 20);
        assert_eq!(options.connections_max, 1);
        assert_eq!(options.lock_wait, Duration::from_secs(1));
        assert_eq!(options.limits.batch_bytes_max, 8 << 20);
        assert_eq!(options.result_bytes_max(5).limits.result_bytes_max, 5);
    }
}
