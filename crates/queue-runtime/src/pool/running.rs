//! A pool at work, as its owner holds it.

use std::time::Duration;

use super::dispatcher::Control;
use super::engine::Engine;
use super::error::StartError;
use super::report::Report;

/// How long after its deadline a pool counts as starved.
const STARVED_AFTER: Duration = Duration::from_millis(100);

/// A pool at work. Dropping it stops it in good order, unheard.
#[derive(Debug)]
pub struct RunningPool {
    engine: Engine,
    stop_limit: Duration,
}

impl RunningPool {
    pub(crate) const fn new(engine: Engine, stop_limit: Duration) -> Self {
        Self { engine, stop_limit }
    }

    /// Stops within this time. Claiming stops at once; handlers may go on for the pool's grace, then they are told to stop and,
    /// after the cancel grace, dropped; what did not finish is given back with its attempt refunded. Where the time is too short
    /// for both graces, they are cut. Returns by the deadline even if a handler or the store hangs.
    ///
    /// # Errors
    ///
    /// [`StartError::RuntimeGone`] when the runtime that the pool ran on has ended, [`StartError::Starved`] when handlers that
    /// never yield keep all of it busy.
    pub async fn shutdown(self, deadline: Duration) -> Result<Report, StartError> {
        self.stop(deadline);
        self.engine.ended_within(deadline.saturating_add(STARVED_AFTER)).await
    }

    /// Waits for the pool to end by itself, as an operator's wish makes it.
    ///
    /// # Errors
    ///
    /// [`StartError::RuntimeGone`] when the runtime that the pool ran on has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn ended(&mut self) -> Result<Report, StartError> {
        self.engine.ended().await.ok_or(StartError::RuntimeGone)
    }

    /// Begins to stop; see [`shutdown`](Self::shutdown).
    pub fn stop(&self, deadline: Duration) {
        self.engine.control(Control::Stop(deadline));
    }

    /// Gives back at once what runs, and ends.
    pub fn stop_now(&self) {
        self.engine.control(Control::StopNow);
    }

    pub(crate) const fn stop_limit(&self) -> Duration {
        self.stop_limit
    }
}
