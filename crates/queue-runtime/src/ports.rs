//! What a pool takes from its surroundings besides the store: time, randomness and a place to run things. A simulation
//! brings its own, so that one seed replays one history.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use queue_core::{Clock, Entropy};

use crate::clock::{OsEntropy, SystemClock, TokioClock};

/// A future that runs on its own and tells nobody.
pub type Detached = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// Where a pool's futures run.
///
/// # Contract
///
/// A future that was handed over runs until it ends, or is dropped when the process (or what stands for it in a simulation)
/// dies. It is never run inside the call that hands it over.
pub trait Spawn: Send + Sync + Debug {
    /// Runs a future beside the handlers. The name says what it is for.
    fn spawn(&self, name: &'static str, future: Detached);

    /// Runs a future where busy handlers cannot starve it: on a thread with a runtime of its own or, in a simulation,
    /// beside everything else.
    ///
    /// # Errors
    ///
    /// When the thread or its runtime cannot be had.
    fn spawn_apart(&self, name: &'static str, future: Detached) -> io::Result<()>;
}

/// Everything on the tokio runtime that the pool is started in, what must not starve on a thread of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Threads;

impl Spawn for Threads {
    fn spawn(&self, _: &'static str, future: Detached) {
        tokio::spawn(future);
    }

    fn spawn_apart(&self, name: &'static str, future: Detached) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(future))?;
        Ok(())
    }
}

/// Everything on the tokio runtime that the pool is started in. On a current-thread runtime with paused time a run is then
/// the same each time; busy handlers starve the heartbeat.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneRuntime;

impl Spawn for OneRuntime {
    fn spawn(&self, _: &'static str, future: Detached) {
        tokio::spawn(future);
    }

    fn spawn_apart(&self, _: &'static str, future: Detached) -> io::Result<()> {
        tokio::spawn(future);
        Ok(())
    }
}

/// The ports of a pool.
#[derive(Clone, Debug)]
pub struct Ports {
    /// Time as this process sees it.
    pub clock: Arc<dyn Clock>,
    /// Random bits for ids and jitter.
    pub entropy: Arc<dyn Entropy>,
    /// Where futures run.
    pub spawn: Arc<dyn Spawn>,
}

impl Ports {
    /// The machine's own clocks and randomness, and threads.
    #[must_use]
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock::new()), entropy: Arc::new(OsEntropy), spawn: Arc::new(Threads) }
    }

    /// For tests on a runtime whose time is paused: tokio's clock, everything on that one runtime, this source of
    /// randomness.
    #[must_use]
    pub fn paused(entropy: Arc<dyn Entropy>) -> Self {
        Self { clock: Arc::new(TokioClock::new()), entropy, spawn: Arc::new(OneRuntime) }
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self::system()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_must_not_starve_has_a_thread_of_its_own() {
        let (tell, told) = oneshot::channel();
        let future = Box::pin(async move {
            tell.send(std::thread::current().name().map(str::to_owned)).unwrap();
        });
        Threads.spawn_apart("queue-heartbeat", future).unwrap();
        assert_eq!(told.await.unwrap().as_deref(), Some("queue-heartbeat"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_simulation_keeps_everything_on_one_runtime() {
        let (tell, told) = oneshot::channel();
        let here = std::thread::current().id();
        let future = Box::pin(async move { tell.send(std::thread::current().id()).unwrap() });
        Ports::paused(Arc::new(OsEntropy)).spawn.spawn_apart("heartbeat", future).unwrap();
        assert_eq!(told.await.unwrap(), here);
    }
}
