//! How every call runs: in a task of its own, within a time, repeated where the server says so.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic;
use std::sync::{Arc, Mutex};

use queue_core::StoreError;
use tokio::time::{sleep, timeout};

use crate::connection::{Conn, repeat_delay};
use crate::error::{Class, Failure, Told, classify, to_store_error};
use crate::inner::{Inner, lock};
use crate::policy::Policy;

/// Tries of one call, at most.
const TRIES_MAX: u32 = 10;
/// Tries of one call whose connection was lost, or led to a server that takes no writes, at most.
const TRIES_AFTER_LOSS: u32 = 3;

/// One call to the store. It is tried on a connection, from the beginning each time; what it learns in one try it may
/// keep for the next.
pub(crate) trait Operation: Send + 'static {
    /// What the caller gets.
    type Output: Send + 'static;
    /// Whether doing it twice is the same as doing it once, so that it may be repeated even after an unknown outcome.
    const REPEATABLE: bool = false;
    /// Whether it uses the connections that are kept for renewals.
    const URGENT: bool = false;

    /// One try. When it fails, the transaction is rolled back.
    fn attempt(&mut self, inner: &Inner, conn: &mut Conn)
    -> impl Future<Output = Result<Self::Output, Failure>> + Send;
}

/// How often transactions were repeated, by kind.
#[derive(Debug, Default)]
pub(crate) struct Retries(Mutex<BTreeMap<&'static str, u64>>);

impl Retries {
    fn count(&self, kind: &'static str) {
        *lock(&self.0).entry(kind).or_default() += 1;
    }

    pub(crate) fn all(&self) -> Vec<(&'static str, u64)> {
        lock(&self.0).iter().map(|(kind, count)| (*kind, *count)).collect()
    }
}

impl Inner {
    /// Runs an operation. Dropping the returned future leaves it running to its end, so that no connection is ever left in
    /// the middle of an answer.
    pub(crate) async fn perform<O: Operation>(self: &Arc<Self>, operation: O) -> Result<O::Output, StoreError> {
        let inner = Arc::clone(self);
        match tokio::spawn(async move { inner.repeat(operation).await }).await {
            Ok(output) => output,
            Err(error) => match error.try_into_panic() {
                Ok(cause) => panic::resume_unwind(cause),
                Err(_) => Err(StoreError::unknown_outcome(Told("the runtime is shutting down".into()))),
            },
        }
    }

    async fn repeat<O: Operation>(&self, mut operation: O) -> Result<O::Output, StoreError> {
        let hosts = self.connections.hosts();
        let mut tries = 0;
        // Whether a try that was repeated, because that does no harm, may have been committed.
        let mut unsure = false;
        loop {
            tries += 1;
            let mut conn = match self.connections.acquire(O::URGENT).await {
                Err(error) if unsure => return Err(StoreError::unknown_outcome(error)),
                acquired => acquired?,
            };
            let seat = conn.seat();
            let ended = tokio::select! {
                biased;
                ended = timeout(self.options.call_timeout, operation.attempt(self, &mut conn)) => Some(ended),
                () = hosts.moved(seat), if hosts.are_several() => None,
            };
            let failure = match ended {
                Some(Ok(Ok(output))) => {
                    self.connections.put_back(conn);
                    return Ok(output);
                }
                Some(Ok(Err(failure))) => failure,
                // The server is cut off from the others, or frozen, and another one has taken its place.
                None if tries < TRIES_AFTER_LOSS && (!conn.is_committing() || O::REPEATABLE) => {
                    unsure |= conn.is_committing();
                    self.retries.count("moved");
                    continue;
                }
                None | Some(Err(_)) => {
                    hosts.doubt(seat);
                    return Err(self.timed_out(&conn));
                }
            };
            let committing = conn.is_committing();
            let class = failure.class();
            let rolled_back = class.is_none_or(Class::keeps_connection)
                && matches!(timeout(self.options.call_timeout, conn.rollback()).await, Ok(Ok(())));
            let was_idle = conn.was_idle();
            // A group that refuses a commit may have another primary: the next connection asks.
            let refused_by_group = class == Some(Class::Repeat("certification")) && hosts.are_several();
            if rolled_back && !committing && !refused_by_group {
                self.connections.put_back(conn);
            } else {
                drop(conn);
            }
            let error = match failure {
                Failure::Store(error) => return Err(error),
                Failure::Again(kind) if tries < TRIES_MAX => {
                    self.retries.count(kind);
                    sleep(repeat_delay(tries)).await;
                    continue;
                }
                Failure::Again(kind) => {
                    return Err(StoreError::unavailable(Told(format!("given up after {tries} tries: {kind}"))));
                }
                Failure::Sql(error) => error,
            };
            let may_repeat = !committing || O::REPEATABLE;
            let class = classify(&error);
            // It was the one to write to, and is not any more.
            let is_refused = class == Class::ReadOnly;
            if is_refused {
                hosts.doubt(seat);
            }
            match class.policy(committing) {
                Policy::RetryTransaction(kind) if tries < TRIES_MAX && may_repeat => {
                    self.retries.count(kind);
                    sleep(repeat_delay(tries)).await;
                }
                // Of several servers another one may take writes by now.
                Policy::Reconnect | Policy::Unknown
                    if is_refused && hosts.are_several() && tries < TRIES_AFTER_LOSS && may_repeat =>
                {
                    self.retries.count("moved");
                }
                // The server closes what lies idle for long, and restarts: one look with a new connection tells.
                Policy::Reconnect | Policy::Unknown
                    if !is_refused && (was_idle || O::REPEATABLE) && tries < TRIES_AFTER_LOSS && may_repeat =>
                {
                    self.connections.forget_own();
                    self.retries.count("reconnect");
                }
                _ => {
                    if is_refused {
                        self.connections.forget_own();
                    }
                    return Err(to_store_error(&error, committing || unsure, self.connections.place()));
                }
            }
            unsure |= committing;
        }
    }

    fn timed_out(&self, conn: &Conn) -> StoreError {
        let told = Told(format!("{}: no answer within the time for a call", self.connections.place()));
        if conn.is_committing() { StoreError::unknown_outcome(told) } else { StoreError::unavailable(told) }
    }
}
