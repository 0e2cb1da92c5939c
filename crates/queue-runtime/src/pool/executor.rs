//! One run of one handler, from its first poll to its end. It never talks to the store.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use queue_core::{ErrorText, Outcome, Payload, Progress};
use tokio::sync::mpsc;
use tracing::Instrument as _;

use super::board::{Board, Stops};
use super::config::Config;
use super::dispatcher::Event;
use super::ending::Ending;
use crate::erased::{RunFuture, RunHandle};

/// When a run must be over, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// On the monotonic clock.
    pub(crate) at: Duration,
    pub(crate) why: Stops,
}

/// A run that is to start.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) slot: usize,
    /// The place of the handler.
    pub(crate) place: usize,
    pub(crate) payload: Payload,
    pub(crate) handle: Arc<RunHandle>,
    pub(crate) limit: Option<Limit>,
}

/// A run that is over.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) slot: usize,
    pub(crate) ending: Ending,
    /// Why it was told to stop, as far as it was before it ended.
    pub(crate) stops: Stops,
    /// On the monotonic clock.
    pub(crate) at: Duration,
    pub(crate) completing: bool,
    /// The last progress, unless it was taken before.
    pub(crate) progress: Option<Progress>,
    /// Whether the handler still occupies its thread: it is blocking, and did not stop when it was told.
    pub(crate) occupied: bool,
}

/// Runs handlers for one pool.
#[derive(Debug)]
pub(crate) struct Executor {
    pub(crate) config: Arc<Config>,
    pub(crate) board: Arc<Board>,
    pub(crate) events: mpsc::Sender<Event>,
}

impl Executor {
    /// One run, to its end.
    pub(crate) fn run(&self, job: Job) -> impl Future<Output = ()> + Send {
        let task = &job.handle.task;
        let span =
            tracing::info_span!("task", id = task.id.get(), r#type = task.task_type.as_str(), attempt = task.attempt);
        self.perform(job).instrument(span)
    }

    async fn perform(&self, job: Job) {
        let Job { slot, place, payload, handle, limit } = job;
        let handler = &self.config.handlers.at(place).handler;
        let started = catch_unwind(AssertUnwindSafe(|| handler.run(payload, Arc::clone(&handle))));
        let mut guarded = match started {
            Ok(future) => Guarded(Some(future)),
            Err(panic) => {
                self.finish(slot, &handle, Ending::Returned(panicked(panic)), false).await;
                return;
            }
        };

        let ended = tokio::select! {
            biased;
            outcome = guarded.outcome() => Some(outcome),
            () = self.told_to_stop(slot, &handle, limit) => None,
        };
        let ended = match ended {
            Some(outcome) => Some(outcome),
            None => tokio::select! {
                biased;
                outcome = guarded.outcome() => Some(outcome),
                () = self.config.clock.sleep(self.grace(slot)) => None,
            },
        };
        match ended {
            None if handler.is_blocking() => {
                self.finish(slot, &handle, Ending::Dropped, true).await;
                // Its late result is refused; only its thread is waited for.
                drop(guarded.outcome().await);
                let _ = self.events.send(Event::Vacated(slot)).await;
            }
            ended => {
                let ending = match (guarded.discard(), ended) {
                    (Err(panic), _) => Ending::Returned(panicked(panic)),
                    (Ok(()), Some(outcome)) => Ending::Returned(outcome),
                    (Ok(()), None) => Ending::Dropped,
                };
                self.finish(slot, &handle, ending, false).await;
            }
        }
    }

    /// Waits until somebody tells the handler to stop, or its time is over.
    async fn told_to_stop(&self, slot: usize, handle: &RunHandle, limit: Option<Limit>) {
        let Some(limit) = limit else { return handle.cancel.cancelled().await };
        let left = limit.at.saturating_sub(self.config.clock.monotonic());
        tokio::select! {
            biased;
            () = handle.cancel.cancelled() => {}
            () = self.config.clock.sleep(left) => self.board.stop(slot, limit.why),
        }
    }

    fn grace(&self, slot: usize) -> Duration {
        let stops = self.board.stops(slot);
        if stops.has(Stops::LAPSED) {
            self.config.lapse_grace().min(self.config.cancel_grace)
        } else {
            self.config.cancel_grace
        }
    }

    async fn finish(&self, slot: usize, handle: &RunHandle, ending: Ending, occupied: bool) {
        let stops = if handle.cancel.is_cancelled() { self.board.stops(slot) } else { Stops::NONE };
        let finished = Finished {
            slot,
            ending,
            stops,
            at: self.config.clock.monotonic(),
            completing: handle.is_completing(),
            progress: handle.take_progress(),
            occupied,
        };
        // When nobody listens any more the pool is gone, and its session with it.
        let _ = self.events.send(Event::Finished(finished)).await;
    }
}

/// A handler's future, whose panics stay inside.
struct Guarded(Option<RunFuture>);

impl Guarded {
    /// The future's outcome; a panic is one. To be asked no more once it was told.
    fn outcome(&mut self) -> impl Future<Output = Outcome> {
        poll_fn(|cx| {
            let Some(future) = &mut self.0 else { return Poll::Pending };
            match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                Ok(poll) => poll,
                Err(panic) => Poll::Ready(panicked(panic)),
            }
        })
    }

    /// Drops the future, which may panic as well.
    fn discard(&mut self) -> Result<(), Box<dyn Any + Send>> {
        let future = self.0.take();
        catch_unwind(AssertUnwindSafe(|| drop(future)))
    }
}

/// The message of a panic, as far as it is text.
fn panicked(panic: Box<dyn Any + Send>) -> Outcome {
    let text = match panic.downcast_ref::<&'static str>() {
        Some(text) => ErrorText::from(*text),
        None => panic.downcast_ref::<String>().map_or_else(
            || ErrorText::from("the handler panicked without a message"),
            |text| ErrorText::new(text.as_str()),
        ),
    };
    // Dropping what was panicked with is foreign code as well.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    Outcome::Panicked(text)
}
