//! What stands for a process: its futures, which can be frozen or be gone all at once, and its clocks.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use queue_core::{Clock, Timestamp};
use queue_runtime::clock::TokioClock;
use queue_runtime::ports::{Detached, Spawn};

type Slot = Mutex<Option<Detached>>;

#[derive(Default)]
struct State {
    dead: bool,
    frozen: bool,
    /// How often it was frozen.
    freezes: u32,
    /// Those who wanted to run while it was frozen.
    waiting: Vec<Waker>,
    futures: Vec<Weak<Slot>>,
}

/// A process. Clones are the same one.
#[derive(Clone, Default)]
pub(super) struct Body {
    state: Arc<Mutex<State>>,
}

impl Body {
    pub(super) fn is_dead(&self) -> bool {
        self.lock().dead
    }

    pub(super) fn freezes(&self) -> u32 {
        self.lock().freezes
    }

    /// It is gone: every future of it is dropped here and now, and none of them hears of it. Not to be called from one of them.
    pub(super) fn die(&self) {
        let mut state = self.lock();
        state.dead = true;
        let futures = std::mem::take(&mut state.futures);
        state.waiting.clear();
        drop(state);
        for slot in futures.iter().filter_map(Weak::upgrade) {
            let future = lock(&slot).take();
            drop(future);
        }
    }

    /// Nothing of it runs until it is thawed.
    pub(super) fn freeze(&self) {
        let mut state = self.lock();
        state.frozen = true;
        state.freezes += 1;
    }

    pub(super) fn thaw(&self) {
        let mut state = self.lock();
        state.frozen = false;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(slot: &Slot) -> MutexGuard<'_, Option<Detached>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

impl Spawn for Body {
    fn spawn(&self, _: &'static str, future: Detached) {
        let slot = Arc::new(Mutex::new(Some(future)));
        let mut state = self.lock();
        if state.dead {
            return;
        }
        if state.futures.len() % 64 == 63 {
            state.futures.retain(|future| future.strong_count() > 0);
        }
        state.futures.push(Arc::downgrade(&slot));
        drop(state);
        tokio::spawn(Mortal { body: self.clone(), slot });
    }

    fn spawn_apart(&self, name: &'static str, future: Detached) -> io::Result<()> {
        self.spawn(name, future);
        Ok(())
    }
}

/// A future that lives as long as its process, and stands still with it.
struct Mortal {
    body: Body,
    slot: Arc<Slot>,
}

impl Future for Mortal {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.body.lock();
        if state.dead {
            return Poll::Ready(());
        }
        if state.frozen {
            state.waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        let mut slot = lock(&self.slot);
        let Some(future) = slot.as_mut() else { return Poll::Ready(()) };
        let poll = future.as_mut().poll(cx);
        if poll.is_ready() {
            *slot = None;
        }
        poll
    }
}

/// A process's clocks: the wall clock is off, the monotonic one a little too fast or too slow.
#[derive(Clone, Copy, Debug)]
pub(super) struct SkewedClock {
    pub(super) clock: TokioClock,
    pub(super) wall_off_ms: i64,
    pub(super) drift_ppm: i64,
}

const MILLION: u128 = 1_000_000;

impl SkewedClock {
    fn speed(&self) -> u128 {
        u128::try_from(1_000_000 + self.drift_ppm).unwrap_or(MILLION)
    }
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[async_trait]
impl Clock for SkewedClock {
    fn monotonic(&self) -> Duration {
        nanos(self.clock.monotonic().as_nanos() * self.speed() / MILLION)
    }

    fn wall(&self) -> Timestamp {
        let off = Duration::from_millis(self.wall_off_ms.unsigned_abs());
        let wall = self.clock.wall();
        if self.wall_off_ms < 0 { wall.before(off) } else { wall.after(off) }
    }

    async fn sleep(&self, duration: Duration) {
        // Rounded up: to wake a moment too early, and sleep for no time at all, would be to stand still for ever.
        tokio::time::sleep(nanos((duration.as_nanos() * MILLION).div_ceil(self.speed()))).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Dropped(Arc<AtomicU32>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_stands_still_and_is_gone_at_once() {
        let (body, steps, dropped) = (Body::default(), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (counted, guard) = (Arc::clone(&steps), Dropped(Arc::clone(&dropped)));
        let future = Box::pin(async move {
            let _guard = guard;
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        body.spawn_apart("a", future).unwrap();
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        body.freeze();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!((steps.load(Ordering::Relaxed), body.freezes()), (2, 1));
        body.thaw();
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert_eq!((steps.load(Ordering::Relaxed), dropped.load(Ordering::Relaxed)), (4, 0));
        body.die();
        assert_eq!((dropped.load(Ordering::Relaxed), body.is_dead()), (1, true));
        body.spawn("late", Box::pin(async { unreachable!("a dead process runs nothing") }));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(steps.load(Ordering::Relaxed), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn clocks_are_off() {
        let clock = TokioClock::starting_at(Timestamp::from_micros(10_000_000));
        let slow = SkewedClock { clock, wall_off_ms: -2_000, drift_ppm: -10_000 };
        slow.sleep(Duration::from_secs(99)).await;
        assert_eq!(clock.monotonic(), Duration::from_secs(100));
        assert_eq!(slow.monotonic(), Duration::from_secs(99));
        let fast = SkewedClock { drift_ppm: 10_000, ..slow };
        fast.sleep(Duration::from_nanos(1)).await;
        assert_eq!(clock.monotonic(), Duration::from_millis(100_001));
        clock.sleep(Duration::from_millis(999)).await;
        assert_eq!(slow.wall(), Timestamp::from_micros(109_000_000));
        assert_eq!(SkewedClock { wall_off_ms: 1_000, ..slow }.wall(), Timestamp::from_micros(112_000_000));
    }
}
