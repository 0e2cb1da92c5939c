//! Listens for what other processes announce, while the pool has room for more.
//!
//! A pool that is full does not begin to listen. One that was woken, and has no room by then or finds more than it can
//! take, passes it on, so that one wake-up is enough for however much was enqueued. All of it may fail: the pool polls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use queue_core::{Due, WakeChannel};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use crate::client::ring;

/// The dispatcher's side of it.
#[derive(Debug, Default)]
pub(crate) struct Afar {
    /// Whether there is room for more; nothing where nobody listens.
    room: Option<watch::Sender<bool>>,
    /// Whether a wake-up that the dispatcher has not heard yet came from afar.
    called: Arc<AtomicBool>,
    /// Whether others are to be told if more is found than can be taken.
    passes_on: bool,
}

impl Afar {
    /// Whether anybody listens.
    pub(crate) const fn listens(&self) -> bool {
        self.room.is_some()
    }

    /// Says whether there is room for more.
    pub(crate) fn has_room(&self, room: bool) {
        if let Some(told) = &self.room {
            told.send_if_modified(|before| std::mem::replace(before, room) != room);
        }
    }

    /// The pool was woken.
    pub(crate) fn woken(&mut self) {
        self.passes_on |= self.called.swap(false, Ordering::AcqRel);
    }

    /// A claim that left after the last wake-up is back. Whether others are to be told; `more` says whether something is due
    /// that there was no room for.
    pub(crate) fn claimed(&mut self, more: bool) -> bool {
        std::mem::take(&mut self.passes_on) && more
    }

    /// Nothing is claimed any more.
    pub(crate) fn stop(&mut self) {
        self.room = None;
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Listener {
    config: Arc<Config>,
    channel: Arc<dyn WakeChannel>,
    room: watch::Receiver<bool>,
    called: Arc<AtomicBool>,
}

impl Listener {
    /// A listener where the store has a channel, and what it and the dispatcher tell each other.
    pub(crate) fn new(config: &Arc<Config>) -> (Afar, Option<Self>) {
        let Some(channel) = config.herald.channel().cloned() else { return (Afar::default(), None) };
        let (told, room) = watch::channel(false);
        let afar = Afar { room: Some(told), ..Afar::default() };
        let called = Arc::clone(&afar.called);
        (afar, Some(Self { config: Arc::clone(config), channel, room, called }))
    }

    /// Listens until the pool stops.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let scope = self.config.scope();
        let listening = async {
            while self.room.wait_for(|room| *room).await.is_ok() {
                let mut room = self.room.clone();
                tokio::select! {
                    biased;
                    // Nothing is claimed any more.
                    () = closed(&mut room) => return,
                    () = self.channel.listen(&scope) => {}
                }
                if *self.room.borrow() {
                    self.called.store(true, Ordering::Release);
                    ring(&self.config.wake);
                } else {
                    self.config.herald.announce(Due::anything());
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = listening => {}
        }
    }
}

/// Waits until nobody tells any more.
async fn closed(room: &mut watch::Receiver<bool>) {
    while room.changed().await.is_ok() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_wake_up_from_afar_is_passed_on_and_once() {
        let mut afar = Afar::default();
        afar.woken();
        assert!(!afar.claimed(true));
        afar.called.store(true, Ordering::Release);
        afar.woken();
        assert!(afar.claimed(true) && !afar.claimed(true));
        afar.called.store(true, Ordering::Release);
        afar.woken();
        assert!(!afar.claimed(false) && !afar.claimed(true));
    }
}
