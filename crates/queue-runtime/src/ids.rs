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
                Step::Wait(mut flight) => match flight.wait_for(Option::is_some).await.as_deref() {
                    Ok(Some(Err(error))) => return Err(retell(error)),
                    // It landed, or its caller was dropped: look again.
                    Ok(_) | Err(_) => {}
                },
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
fn retell(error: &StoreError) -> StoreError {
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
