//! Task ids, reserved in blocks so that an enqueue costs no trip of its own for them.

use std::sync::{Arc, Mutex, PoisonError};

use queue_core::ids::IdBlock;
use queue_core::{StoreError, TaskId};
use tokio::sync::watch;

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
    /// The reservation under way. Its sender is gone when the caller that made it was dropped.
    flight: Option<watch::Receiver<Landing>>,
}

/// How a reservation ended; `None` while it is under way.
type Landing = Option<Result<(), Arc<StoreError>>>;

enum Step {
    Done,
    Wait(watch::Receiver<Landing>),
    Reserve(watch::Sender<Landing>, u32),
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
                Step::Wait(mut flight) => {
                    if let Ok(Some(Err(error))) = flight.wait_for(Option::is_some).await.as_deref() {
                        return Err(retell(error));
                    }
                }
                Step::Reserve(landing, block_size) => match reserve(block_size).await {
                    Ok(block) => {
                        self.land(Some(block));
                        let _ = landing.send(Some(Ok(())));
                    }
                    Err(error) => {
                        self.land(None);
                        let error = Arc::new(error);
                        let _ = landing.send(Some(Err(Arc::clone(&error))));
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
            && flight.has_changed().is_ok()
        {
            return Step::Wait(flight.clone());
        }
        let missing = u32::try_from(count - ids.len()).unwrap_or(u32::MAX);
        let block_size = state.block_size.max(missing);
        state.block_size = state.block_size.saturating_mul(4).min(BLOCK_MAX);
        let (landing, flight) = watch::channel(None);
        state.flight = Some(flight);
        Step::Reserve(landing, block_size)
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
