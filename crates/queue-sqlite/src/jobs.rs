//! Work on its way to a thread that owns a connection: a job runs to its end there, whatever becomes of who asked for it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use queue_core::StoreError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::Fault;
use crate::work::Work;

/// Callers that may have a job in the queue at once; the others wait for their turn without a lock.
const WAITING_MAX: usize = 256;

/// How much of a transaction that several jobs share one job takes: about the rows it writes, and less where what it writes stands
/// beside what others write.
pub(crate) type Weight = usize;

/// A piece of work. It may be run again after its transaction was rolled back.
pub(crate) trait Job: Send {
    fn weight(&self) -> Weight;

    /// Runs it and keeps the answer; `false` when it failed and its writes must be undone.
    fn run(&mut self, work: &mut Work<'_>) -> bool;

    /// Tells the caller: the kept answer or, when the transaction could not be committed, that.
    fn finish(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Call<T, F> {
    weight: Weight,
    call: F,
    answer: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<T, F> Job for Call<T, F>
where
    T: Send,
    F: FnMut(&mut Work<'_>) -> Result<T, Fault> + Send,
{
    fn weight(&self) -> Weight {
        self.weight
    }

    fn run(&mut self, work: &mut Work<'_>) -> bool {
        let answer = (self.call)(work).map_err(StoreError::from);
        let done = answer.is_ok();
        self.answer = Some(answer);
        done
    }

    fn finish(self: Box<Self>, committed: Result<(), StoreError>) {
        let answer = match committed {
            Ok(()) => self.answer.unwrap_or_else(|| Err(StoreError::other("the job panicked; nothing was written"))),
            Err(error) => Err(error),
        };
        // A caller that is gone has chosen not to hear it.
        let _ = self.reply.send(answer);
    }
}

fn gone() -> StoreError {
    StoreError::unknown_outcome("the thread that owns the SQLite connection has ended")
}

/// The queue in front of one or more threads.
pub(crate) struct Jobs {
    state: Mutex<State>,
    arrived: Condvar,
    places: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    /// Renewals of leases: they must not wait behind bulk work.
    urgent: VecDeque<Box<dyn Job>>,
    ordinary: VecDeque<Box<dyn Job>>,
    closed: bool,
}

impl Jobs {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), places: Arc::new(Semaphore::new(WAITING_MAX)) }
    }

    /// Has `call` run on the thread and waits for its answer.
    pub(crate) async fn call<T, F>(&self, weight: Weight, call: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Work<'_>) -> Result<T, Fault> + Send + 'static,
    {
        let permit = Arc::clone(&self.places).acquire_owned().await.map_err(|_| gone())?;
        self.send(weight, call, Some(permit)).await
    }

    /// The same, before everything that waits already.
    pub(crate) async fn call_urgent<T, F>(&self, call: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Work<'_>) -> Result<T, Fault> + Send + 'static,
    {
        self.send(1, call, None).await
    }

    async fn send<T, F>(&self, weight: Weight, call: F, permit: Option<OwnedSemaphorePermit>) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Work<'_>) -> Result<T, Fault> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let urgent = permit.is_none();
        let job = Box::new(Call { weight, call, answer: None, reply, _permit: permit });
        {
            let mut state = self.lock();
            if urgent { state.urgent.push_back(job) } else { state.ordinary.push_back(job) }
        }
        self.arrived.notify_one();
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// The next job, as soon as there is one; `None` once the queue is closed and empty.
    pub(crate) fn next(&self) -> Option<Box<dyn Job>> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.urgent.pop_front().or_else(|| state.ordinary.pop_front()) {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next job, if there is one right now that is not heavier than `weight_max`.
    pub(crate) fn next_within(&self, weight_max: Weight) -> Option<Box<dyn Job>> {
        let mut state = self.lock();
        let State { urgent, ordinary, .. } = &mut *state;
        let jobs = if urgent.is_empty() { ordinary } else { urgent };
        if jobs.front()?.weight() > weight_max {
            return None;
        }
        jobs.pop_front()
    }

    /// No more jobs: the threads end when they have run what waits.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
