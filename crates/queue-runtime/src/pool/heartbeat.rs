//! Keeps the pool's session alive, on a thread of its own so that busy handlers cannot starve it, and stops the handlers
//! when it cannot.
//!
//! A lease counts from the *start* of the last renewal that was acknowledged: the store cannot have begun it earlier. Handlers
//! are told to stop in time to be gone when it ends, because from then on their tasks may be another worker's.

use std::sync::Arc;
use std::time::Duration;

use queue_core::session::{Renewal, SessionSpec};
use queue_core::store::Reckoning;
use queue_core::{Observation, SessionId, StoreError};
use tokio::sync::{oneshot, watch};

use super::board::{Board, Stops};
use super::call;
use super::config::Config;

/// What the dispatcher wants of the heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// This session was found to be fenced.
    pub(crate) fenced: Option<SessionId>,
    /// End the session, and the heartbeat with it.
    pub(crate) close: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    pub(crate) config: Arc<Config>,
    pub(crate) board: Arc<Board>,
    pub(crate) orders: watch::Receiver<Orders>,
}

/// A session that is alive.
#[derive(Clone, Copy, Debug)]
struct Alive {
    session: SessionId,
    /// When the last acknowledged renewal began, on the monotonic clock.
    since: Duration,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Fenced,
    Lapsed,
    Closed,
    /// The dispatcher is gone without a word.
    Orphaned,
}

impl Heartbeat {
    /// Opens a session, says how that went, and keeps sessions alive until told to end. `ended` is dropped at the very end.
    pub(crate) async fn run(mut self, opened: oneshot::Sender<Result<(), StoreError>>, ended: oneshot::Sender<()>) {
        let mut alive = match self.open(SessionId::from_random(self.config.entropy.next_u64())).await {
            Ok(Some(alive)) => alive,
            Ok(None) => {
                let error = StoreError::unavailable("the session was fenced before it was opened");
                let _ = opened.send(Err(error));
                return;
            }
            Err(error) => {
                let _ = opened.send(Err(error));
                return;
            }
        };
        if opened.send(Ok(())).is_err() {
            self.close(alive.session).await;
            return;
        }
        loop {
            match self.keep(&mut alive).await {
                End::Fenced => {
                    self.board.end(alive.session, Stops::FENCED);
                    tracing::warn!(session = alive.session.get(), "the session was fenced; its handlers are cancelled");
                    self.config.observe(&Observation::SessionFenced);
                }
                End::Lapsed => {
                    self.board.end(alive.session, Stops::LAPSED);
                    tracing::warn!(
                        session = alive.session.get(),
                        "the session could not be renewed; its handlers are cancelled before its lease ends"
                    );
                }
                End::Closed => {
                    self.close(alive.session).await;
                    break;
                }
                End::Orphaned => {
                    self.board.end(alive.session, Stops::LAPSED);
                    break;
                }
            }
            match self.reopen().await {
                Some(fresh) => alive = fresh,
                None => break,
            }
        }
        drop(ended);
    }

    /// Renews the session until that is over.
    async fn keep(&mut self, alive: &mut Alive) -> End {
        let config = Arc::clone(&self.config);
        let mut failures = 0;
        let mut next = alive.since + config.jittered(config.heartbeat);
        loop {
            let lapse_at = alive.since + config.lease.saturating_sub(config.lapse_margin());
            if let Some(end) = self.ordered(alive.session) {
                return end;
            }
            let now = config.clock.monotonic();
            if now >= lapse_at {
                return End::Lapsed;
            }
            if now < next {
                tokio::select! {
                    biased;
                    changed = self.orders.changed() => {
                        if changed.is_err() {
                            return self.ordered(alive.session).unwrap_or(End::Orphaned);
                        }
                    }
                    () = config.clock.sleep(next.min(lapse_at).saturating_sub(now)) => {}
                }
                continue;
            }
            // So short that a connection that hangs leaves time for another try.
            let limit = config.heartbeat.max(config.lease / 6).min(lapse_at - now);
            let call = call::bounded(&*config.clock, limit, config.store.renew_session(alive.session, config.lease));
            match call.await {
                Ok(Renewal::Renewed(signals)) => {
                    failures = 0;
                    alive.since = now;
                    next = now + config.jittered(config.heartbeat);
                    let reckoning = Reckoning::new(signals.now, config.clock.monotonic());
                    self.board.renewed(signals, reckoning);
                }
                Ok(Renewal::Fenced) => return End::Fenced,
                Err(error) => {
                    config.failed("the session was not renewed", &error);
                    next = config.clock.monotonic() + self.pause(failures);
                    failures += 1;
                }
            }
        }
    }

    /// What the dispatcher wants, as far as it ends the session.
    fn ordered(&mut self, session: SessionId) -> Option<End> {
        let orders = *self.orders.borrow_and_update();
        if orders.close { Some(End::Closed) } else { (orders.fenced == Some(session)).then_some(End::Fenced) }
    }

    /// Opens another session, however long it takes; `None` when told to end before.
    async fn reopen(&mut self) -> Option<Alive> {
        let config = Arc::clone(&self.config);
        let mut failures = 0;
        let mut session = SessionId::from_random(config.entropy.next_u64());
        loop {
            if self.orders.borrow_and_update().close {
                return None;
            }
            match self.open(session).await {
                Ok(Some(alive)) => return Some(alive),
                Ok(None) => session = SessionId::from_random(config.entropy.next_u64()),
                Err(error) => config.failed("no session was opened", &error),
            }
            let pause = self.pause(failures);
            failures += 1;
            tokio::select! {
                biased;
                changed = self.orders.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                }
                () = config.clock.sleep(pause) => {}
            }
        }
    }

    /// Opens a session; `None` when it was fenced since an earlier try. A lost acknowledgement is answered by asking again.
    async fn open(&self, session: SessionId) -> Result<Option<Alive>, StoreError> {
        let config = &self.config;
        let spec = SessionSpec {
            id: session,
            name: config.name.clone(),
            host: config.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            lease: config.lease,
        };
        let since = config.clock.monotonic();
        let limit = (config.lease / 2).max(config.heartbeat);
        match call::bounded(&*config.clock, limit, config.store.open_session(spec)).await? {
            Renewal::Renewed(signals) => {
                tracing::debug!(session = session.get(), "a session was opened");
                self.board.open(session, signals.live_sessions, Reckoning::new(signals.now, config.clock.monotonic()));
                Ok(Some(Alive { session, since }))
            }
            Renewal::Fenced => Ok(None),
        }
    }

    async fn close(&self, session: SessionId) {
        let call = self.config.store.close_session(session);
        if let Err(error) = call::bounded(&*self.config.clock, self.config.heartbeat, call).await {
            // It ends by itself, a lease later.
            self.config.failed("the session was not closed", &error);
        }
    }

    /// The wait after a failure: short at first, the heartbeat at most.
    fn pause(&self, failures: u32) -> Duration {
        let heartbeat = self.config.heartbeat;
        let wait = (heartbeat / 16).saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
        self.config.jittered(wait.min(heartbeat))
    }
}
