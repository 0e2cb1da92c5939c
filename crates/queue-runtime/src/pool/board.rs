//! What the heartbeat and the dispatcher share: which session is alive, which handlers run, and which of them shall stop.
//!
//! The heartbeat must reach handlers without the dispatcher's help, because busy handlers can starve that. Its lock is held
//! for moments only, never across an await, and no token fires under it.

use std::sync::{Arc, Mutex, MutexGuard};

use queue_core::session::Signals;
use queue_core::store::Reckoning;
use queue_core::{ClaimId, SessionId, TaskId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::erased::RunHandle;
use crate::lock::lock;

/// Why a handler shall stop; several may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stops(u8);

impl Stops {
    pub(crate) const NONE: Self = Self(0);
    /// Somebody wants the task cancelled.
    pub(crate) const CANCELLED: Self = Self(1);
    /// The attempt took longer than the worker allows.
    pub(crate) const TIMED_OUT: Self = Self(2);
    /// The budget is spent.
    pub(crate) const OUT_OF_BUDGET: Self = Self(4);
    /// The pool shuts down.
    pub(crate) const SHUTDOWN: Self = Self(8);
    /// The session cannot be renewed; its lease is about to end.
    pub(crate) const LAPSED: Self = Self(16);
    /// The session was fenced: the task may be another worker's by now.
    pub(crate) const FENCED: Self = Self(32);

    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// A handler that runs.
#[derive(Debug)]
struct Posted {
    session: SessionId,
    handle: Arc<RunHandle>,
    stops: Stops,
}

/// What happened since the dispatcher looked last.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// The session to claim under; `None` while there is none.
    pub(crate) session: Option<SessionId>,
    /// Sessions that ended, and whether they were fenced.
    pub(crate) ended: Vec<(SessionId, Stops)>,
    /// Tasks that shall be cancelled and whose handlers do not run here.
    pub(crate) cancels: Vec<(TaskId, ClaimId)>,
    /// The store's clock as the heartbeat heard it last.
    pub(crate) reckoning: Option<Reckoning>,
    /// Whether an operator wants the pool to drain and stop.
    pub(crate) drain: bool,
    /// Sessions that are alive, as the heartbeat heard it last; 0 when it does not know.
    pub(crate) live_sessions: u32,
}

#[derive(Debug, Default)]
struct State {
    runs: Vec<Option<Posted>>,
    news: News,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Board {
    state: Mutex<State>,
    /// Fires when there is news.
    pub(crate) changed: Notify,
}

impl Board {
    /// A session was opened.
    pub(crate) fn open(&self, session: SessionId, live_sessions: u32, reckoning: Reckoning) {
        let mut state = self.lock();
        state.news.session = Some(session);
        state.news.live_sessions = live_sessions;
        state.news.reckoning = Some(reckoning);
        drop(state);
        self.changed.notify_one();
    }

    /// A session ended: its handlers shall stop.
    pub(crate) fn end(&self, session: SessionId, why: Stops) {
        let mut state = self.lock();
        state.news.session = None;
        state.news.ended.push((session, why));
        let tokens = stop(&mut state, why, |posted| posted.session == session);
        drop(state);
        tokens.iter().for_each(CancellationToken::cancel);
        self.changed.notify_one();
    }

    /// What a renewal brought along.
    pub(crate) fn renewed(&self, signals: Signals, reckoning: Reckoning) {
        let mut state = self.lock();
        let wanted = |posted: &Posted| signals.cancels.contains(&(posted.handle.task.id, posted.handle.task.claim));
        let tokens = if signals.cancels.is_empty() { Vec::new() } else { stop(&mut state, Stops::CANCELLED, wanted) };
        state.news.reckoning = Some(reckoning);
        state.news.drain |= signals.drain;
        state.news.live_sessions = signals.live_sessions;
        // Told again with each renewal until settled, so that what is lost on the way comes again.
        state.news.cancels = signals.cancels;
        drop(state);
        tokens.iter().for_each(CancellationToken::cancel);
        self.changed.notify_one();
    }

    /// What is new.
    pub(crate) fn news(&self) -> News {
        let news = &mut self.lock().news;
        News {
            session: news.session,
            ended: std::mem::take(&mut news.ended),
            cancels: std::mem::take(&mut news.cancels),
            reckoning: news.reckoning.take(),
            drain: news.drain,
            live_sessions: news.live_sessions,
        }
    }

    /// Sessions that are alive, as the heartbeat heard it last; 0 when it does not know.
    pub(crate) fn live_sessions(&self) -> u32 {
        self.lock().news.live_sessions
    }

    /// Posts a handler that is about to run; `false`, and it must not run, when its session is not alive.
    pub(crate) fn post(&self, slot: usize, session: SessionId, handle: &Arc<RunHandle>) -> bool {
        let mut state = self.lock();
        if state.news.session != Some(session) {
            return false;
        }
        if state.runs.len() <= slot {
            state.runs.resize_with(slot + 1, || None);
        }
        state.runs[slot] = Some(Posted { session, handle: Arc::clone(handle), stops: Stops::NONE });
        true
    }

    /// Takes a handler off and says why it was to stop.
    pub(crate) fn withdraw(&self, slot: usize) -> Stops {
        self.lock().runs.get_mut(slot).and_then(Option::take).map_or(Stops::NONE, |posted| posted.stops)
    }

    /// Why a handler shall stop.
    pub(crate) fn stops(&self, slot: usize) -> Stops {
        self.lock().runs.get(slot).and_then(Option::as_ref).map_or(Stops::NONE, |posted| posted.stops)
    }

    /// Tells one handler to stop.
    pub(crate) fn stop(&self, slot: usize, why: Stops) {
        let token = self.lock().runs.get_mut(slot).and_then(Option::as_mut).map(|posted| {
            posted.stops = posted.stops.with(why);
            posted.handle.cancel.clone()
        });
        if let Some(token) = token {
            token.cancel();
        }
    }

    /// Tells every handler to stop.
    pub(crate) fn stop_all(&self, why: Stops) {
        let tokens = stop(&mut self.lock(), why, |_| true);
        tokens.iter().for_each(CancellationToken::cancel);
    }

    /// Visits the handlers that run.
    pub(crate) fn each_run(&self, mut visit: impl FnMut(usize, &RunHandle)) {
        for (slot, posted) in self.lock().runs.iter().enumerate() {
            if let Some(posted) = posted {
                visit(slot, &posted.handle);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Marks those that match, and returns the tokens that are to fire once the lock is released.
fn stop(state: &mut State, why: Stops, matches: impl Fn(&Posted) -> bool) -> Vec<CancellationToken> {
    let mut tokens = Vec::new();
    for posted in state.runs.iter_mut().flatten().filter(|posted| matches(posted)) {
        if posted.stops.is_none() {
            tokens.push(posted.handle.cancel.clone());
        }
        posted.stops = posted.stops.with(why);
    }
    tokens
}
