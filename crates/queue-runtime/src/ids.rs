//! Task ids, reserved in blocks so that an enqueue costs no trip of its own for them.

use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};

use queue_core::ids::IdBlock;
use queue_core::{StoreError, TaskId};
use tokio::sync::Notify;

use crate::lock::lock;

/// The first block's size; a process that enqueues a little wastes little.
const BLOCK_MIN: u32 = 100;
/// The largest block's size.
const BLOCK_MAX: u32 = 10_000;

/// Hands out reserved ids. When they run out one caller reserves a larger block for all who wait.
#[derive(Debug)]
pub(crate) struct IdAllocator {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    block: Option<IdBlock>,
    block_size: u32,
    /// The reservation under way, or one that is over.
    flight: Option<Arc<Flight>>,
}

/// A reservation, for those who wait for it. Not a `watch`: that wakes them in a random order, and a simulation has to see the same
/// order each time.
#[derive(Debug, Default)]
struct Flight {
    /// Set when it is over, with what went wrong if anything did.
    landing: OnceLock<Option<Arc<StoreError>>>,
    landed: Notify,
}

impl Flight {
    fn is_over(&self) -> bool {
        self.landing.get().is_some()
    }

    /// Waits until it is over, and says what went wrong if anything did.
    async fn landed(&self) -> Result<(), StoreError> {
        let mut landed = pin!(self.landed.notified());
        landed.as_mut().enable();
        if !self.is_over() {
            landed.await;
        }
        match self.landing.get() {
            Some(Some(error)) => Err(retell(error)),
            Some(None) | None => Ok(()),
        }
    }
}

/// Makes a reservation that others wait for, and lets none of them wait for ever.
struct Pilot(Arc<Flight>);

impl Pilot {
    fn land(&self, error: Option<Arc<StoreError>>) {
        // The first word counts.
        let _ = self.0.landing.set(error);
        self.0.landed.notify_waiters();
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        self.land(None);
    }
}

enum Step {
    Done,
    Wait(Arc<Flight>),
    Reserve(Pilot, u32),
}

impl IdAllocator {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { block: None, block_size: BLOCK_MIN, flight: None }) }
    }

    /// Takes `count` ids, which rise. `reserve` is called when too few are left and nobody else is at it.
    ///
    /// # Errors
    ///
    /// What `reserve` says; those who waited for it are told the same.
    pub(crate) async fn take<R, Fut>(&self, count: usize, reserve: R) -> Result<Vec<TaskId>, StoreError>
    where
        R: Fn(u32) -> Fut,
        Fut: Future<Output = Result<IdBlock, StoreError>>,
    {
        let mut ids = Vec::with_capacity(count);
        loop {
            match self.step(&mut ids, count) {
                Step::Done => return Ok(ids),
                // When it lands, and when its caller is dropped: look again.
                Step::Wait(flight) => flight.landed().await?,
                Step::Reserve(pilot, block_size) => match reserve(block_size).await {
                    Ok(block) => {
                        self.land(Some(block));
                        pilot.land(None);
                    }
                    Err(error) => {
                        self.land(None);
                        let error = Arc::new(error);
                        // Nobody can join any more; those who did are told, and the error itself is for the caller.
                        if Arc::strong_count(&pilot.0) > 1 {
                            pilot.land(Some(Arc::clone(&error)));
                        }
                        return Err(Arc::try_unwrap(error).unwrap_or_else(|error| retell(&error)));
                    }
                },
            }
        }
    }

    /// Takes what there is, and says what to do for more.
    fn step(&self, ids: &mut Vec<TaskId>, count: usize) -> Step {
        let mut state = self.lock();
        if let Some(block) = &mut state.block {
            ids.extend(block.take(count - ids.len()));
        }
        if ids.len() == count {
            return Step::Done;
        }
        if let Some(flight) = &state.flight
            && !flight.is_over()
        {
            return Step::Wait(Arc::clone(flight));
        }
        let missing = u32::try_from(count - ids.len()).unwrap_or(u32::MAX);
        let block_size = state.block_size.max(missing);
        state.block_size = state.block_size.saturating_mul(4).min(BLOCK_MAX);
        let flight = Arc::new(Flight::default());
        state.flight = Some(Arc::clone(&flight));
        Step::Reserve(Pilot(flight), block_size)
    }

    fn land(&self, block: Option<IdBlock>) {
        let mut state = self.lock();
        state.flight = None;
        // Others have waited for this flight, so what the block before held is used up.
        if block.is_some() {
            state.block = block;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// The same error once more, for another caller. The source is kept as text.
pub(crate) fn retell(error: &StoreError) -> StoreError {
    let source = || -> Box<dyn std::error::Error + Send + Sync> {
        std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string).into()
    };
    match error {
        StoreError::Unavailable { .. } => StoreError::unavailable(source()),
        StoreError::UnknownOutcome { .. } => StoreError::unknown_outcome(source()),
        StoreError::Denied { .. } => StoreError::denied(source()),
        StoreError::Corrupt { task, defect } => StoreError::corrupt(*task, defect.clone()),
        StoreError::Schema { problem } => StoreError::from(*problem),
        StoreError::Unsupported { reason } => StoreError::Unsupported { reason: reason.clone() },
        _ => StoreError::other(source()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    /// Where ids come from: each reservation waits for a permit and fails if it is told to.
    #[derive(Debug)]
    struct Counter {
        next: AtomicU64,
        permits: Semaphore,
        sizes: Mutex<Vec<u32>>,
        error: Mutex<Option<StoreError>>,
    }

    impl Counter {
        fn new(permits: usize) -> Self {
            let (sizes, error) = (Mutex::default(), Mutex::default());
            Self { next: AtomicU64::new(1), permits: Semaphore::new(permits), sizes, error }
        }

        async fn reserve(&self, count: u32) -> Result<IdBlock, StoreError> {
            self.sizes.lock().unwrap().push(count);
            self.permits.acquire().await.unwrap().forget();
            if let Some(error) = self.error.lock().unwrap().take() {
                return Err(error);
            }
            let first = self.next.fetch_add(count.into(), Ordering::Relaxed);
            Ok(IdBlock::new(TaskId::new(first).unwrap(), count.into()))
        }

        async fn take(&self, ids: &IdAllocator, count: usize) -> Result<Vec<u64>, StoreError> {
            let taken = ids.take(count, |count| self.reserve(count)).await?;
            Ok(taken.into_iter().map(TaskId::get).collect())
        }

        fn sizes(&self) -> Vec<u32> {
            self.sizes.lock().unwrap().clone()
        }
    }

    #[tokio::test]
    async fn blocks_grow_and_leave_no_gap() {
        let (ids, counter) = (IdAllocator::new(), Counter::new(99));
        let mut all = Vec::new();
        for _ in 0..50 {
            all.extend(counter.take(&ids, 1_000).await.unwrap());
        }
        assert_eq!(all, (1..=50_000).collect::<Vec<_>>());
        assert_eq!(counter.sizes()[..7], [1_000, 1_000, 1_600, 6_400, 10_000, 10_000, 10_000]);
        assert!(counter.take(&ids, 0).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn who_waits_shares_one_reservation() {
        let (ids, counter) = (IdAllocator::new(), Counter::new(0));
        let all = join_all((0..20).map(|_| counter.take(&ids, 5)));
        let (taken, ()) = tokio::join!(all, async { counter.permits.add_permits(1) });
        let mut taken = taken.into_iter().flat_map(Result::unwrap).collect::<Vec<_>>();
        taken.sort_unstable();
        assert_eq!((taken, counter.sizes()), ((1..=100).collect(), vec![100]));
    }

    #[tokio::test]
    async fn who_waits_is_told_of_the_error() {
        let (ids, counter) = (IdAllocator::new(), Counter::new(0));
        *counter.error.lock().unwrap() = Some(StoreError::unavailable("refused"));
        let all = join_all((0..3).map(|_| counter.take(&ids, 1)));
        let (errors, ()) = tokio::join!(all, async { counter.permits.add_permits(1) });
        for error in errors.into_iter().map(Result::unwrap_err) {
            assert_eq!(error.to_string(), "the store is unavailable: refused");
        }
        assert_eq!(counter.sizes(), [100]);
        counter.permits.add_permits(1);
        assert_eq!(counter.take(&ids, 1).await.unwrap(), [1]);
    }

    #[tokio::test]
    async fn a_reservation_given_up_is_made_by_the_next() {
        let (ids, counter) = (IdAllocator::new(), Counter::new(0));
        let mut leader = Box::pin(counter.take(&ids, 1));
        let mut waiter = Box::pin(counter.take(&ids, 1));
        assert!(leader.as_mut().now_or_never().is_none() && waiter.as_mut().now_or_never().is_none());
        assert_eq!(counter.sizes().len(), 1);
        drop(leader);
        counter.permits.add_permits(1);
        assert_eq!(waiter.await.unwrap(), [1]);
        assert_eq!(counter.sizes().len(), 2);

        let mut abandoned = Box::pin(counter.take(&ids, 1_000));
        assert!(abandoned.as_mut().now_or_never().is_none());
        drop(abandoned);
        counter.permits.add_permits(1);
        assert!(counter.take(&ids, 1_000).now_or_never().is_some_and(|taken| taken.is_ok()));
    }

    #[test]
    fn an_error_is_told_again_as_it_was() {
        use queue_core::error::SchemaProblem;

        let errors = [
            StoreError::unavailable("refused"),
            StoreError::unknown_outcome("gone"),
            StoreError::denied("no"),
            StoreError::corrupt(TaskId::new(7), "no status"),
            StoreError::from(SchemaProblem::Missing),
            StoreError::Unsupported { reason: "MySQL 5.7 is too old".to_owned() },
            StoreError::other("odd"),
        ];
        for error in errors {
            let again = retell(&error);
            assert_eq!((again.kind(), again.to_string()), (error.kind(), error.to_string()));
        }
    }
}
