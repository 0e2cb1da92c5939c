//! Finds the tasks of workers that are gone, in whichever process they ran, and fails what waits past its budget.

use std::sync::Arc;
use std::time::Duration;

use queue_core::reap::{LostTask, StoreTime};
use queue_core::{ClaimId, Observation, Outcome, Settle, Settled, Settlement, StoreError, TaskType, Timestamp};
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::call;
use super::config::Config;

/// How far the store's clock may move against the monotonic one between two ticks before it counts as a jump.
const JUMP_MAX: Duration = Duration::from_secs(5);
/// Rounds of one kind of work within a tick, at most; the rest is left to the next tick.
const ROUNDS_MAX: usize = 100;

/// See the module.
#[derive(Debug)]
pub(crate) struct Reaper {
    config: Arc<Config>,
    board: Arc<Board>,
    /// The store's time as it was seen last, and when that was.
    seen: Option<(StoreTime, Duration)>,
    /// Nothing is reaped before: the clock jumped, or another server answers.
    not_before: Duration,
    sweeping: Sweeping,
}

/// How far this pool has come with its sweep.
#[derive(Clone, Copy, Debug, Default)]
struct Sweeping {
    /// It is not finished.
    goes_on: bool,
    /// Ticks that the last one took, or takes until now.
    ticks: u32,
}

impl Reaper {
    pub(crate) fn new(config: Arc<Config>, board: Arc<Board>) -> Self {
        Self { config, board, seen: None, not_before: Duration::ZERO, sweeping: Sweeping::default() }
    }

    /// Ticks every third of the lease until told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let config = Arc::clone(&self.config);
        loop {
            if let Err(error) = self.tick().await {
                config.failed("lost tasks were not looked for", &error);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = config.clock.sleep(config.jittered(config.lease / 3)) => {}
            }
        }
    }

    async fn tick(&mut self) -> Result<(), StoreError> {
        let is_first = self.seen.is_none();
        if self.clock_is_trusted().await? {
            self.fence().await?;
            self.recover().await?;
        }
        // A pool that starts has enough to do, and many may start together.
        if is_first || !self.is_its_turn() {
            return Ok(());
        }
        let ticks = if self.sweeping.goes_on { self.sweeping.ticks + 1 } else { 1 };
        self.sweeping = Sweeping { goes_on: true, ticks };
        self.sweeping.goes_on = !self.sweep().await?;
        Ok(())
    }

    /// Whether this pool is the one to sweep at this tick. A sweep reads all that is due, so it falls by lot to one of the pools that are
    /// alive, and more rarely where it takes several ticks: together they read about as much as one alone. By lot and not in turn,
    /// or those that start together would sweep together.
    fn is_its_turn(&self) -> bool {
        let live_sessions = self.board.live_sessions();
        let lots = u64::from(live_sessions) * u64::from(self.sweeping.ticks.max(1));
        self.sweeping.goes_on || live_sessions <= 1 || self.config.entropy.next_u64().is_multiple_of(lots)
    }

    /// Whether leases may be judged by the store's clock. The first look only takes note.
    async fn clock_is_trusted(&mut self) -> Result<bool, StoreError> {
        let config = &self.config;
        let time = call::bounded(&*config.clock, config.call_limit(), config.store.time()).await?;
        let now = config.clock.monotonic();
        let Some((before, then)) = self.seen.replace((time.clone(), now)) else { return Ok(false) };
        let expected = before.now.after(now.saturating_sub(then));
        let moved = time.now.since(expected).max(expected.since(time.now));
        if moved > JUMP_MAX || time.server != before.server {
            tracing::warn!(
                ?moved,
                "the store's clock jumped, or another server answers; nothing is reaped for one lease"
            );
            self.not_before = now + config.lease;
        }
        Ok(now >= self.not_before)
    }

    /// Fences the sessions whose lease has ended.
    async fn fence(&self) -> Result<(), StoreError> {
        let config = &self.config;
        let limit = config.store.limits().batch_max;
        for _ in 0..ROUNDS_MAX {
            let call = config.store.fence_expired(limit);
            let fenced = call::bounded(&*config.clock, config.call_limit(), call).await?;
            for session in &fenced {
                tracing::warn!(
                    session = session.id.get(),
                    name = session.name,
                    "a worker is gone; its tasks are recovered"
                );
            }
            if fenced.len() < limit {
                break;
            }
        }
        Ok(())
    }

    /// Settles what fenced sessions held.
    async fn recover(&self) -> Result<(), StoreError> {
        let config = &self.config;
        let limit = config.store.limits().batch_max;
        for _ in 0..ROUNDS_MAX {
            let lost = call::bounded(&*config.clock, config.call_limit(), config.store.lost(limit)).await?;
            if lost.tasks.is_empty() {
                break;
            }
            let found = lost.tasks.len();
            let applied = self.settle(lost.tasks, lost.now).await?;
            // Others may be at it; what is left then comes with the next tick.
            if found < limit || applied == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Settles lost tasks under an id of its own, so that their late holders are stale. Returns how many were.
    async fn settle(&self, tasks: Vec<LostTask>, now: Timestamp) -> Result<usize, StoreError> {
        let config = &self.config;
        let reaper = ClaimId::from_random(config.entropy.next_u64());
        let decide = |task: &LostTask| Settlement::decide(&task.run, Outcome::Lost, now, config.jitter());
        let batch = tasks.iter().map(|task| Settle::by_reaper(task.id, task.claim, reaper, decide(task)));
        let batch = batch.collect::<Arc<[_]>>();
        let call = config.store.settle(Arc::clone(&batch));
        let answers = call::bounded(&*config.clock, config.call_limit(), call).await?;
        let mut applied = 0;
        for ((item, task), answer) in batch.iter().zip(&tasks).zip(answers) {
            if answer == Settled::Applied {
                applied += 1;
                self.processed(&task.task_type, item.settlement.label());
            }
        }
        tracing::info!(tasks = applied, "tasks of lost workers were recovered");
        Ok(applied)
    }

    /// Fails what waits past its budget. Returns whether all that is due was looked at.
    async fn sweep(&self) -> Result<bool, StoreError> {
        let config = &self.config;
        let limit = config.store.limits().batch_max;
        for _ in 0..ROUNDS_MAX {
            let swept = call::bounded(&*config.clock, config.call_limit(), config.store.expire(limit)).await?;
            for ended in &swept.ended {
                self.processed(&ended.task_type, ended.reason.as_str());
            }
            if swept.finished {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn processed(&self, task_type: &TaskType, outcome: &'static str) {
        let task_type = self.config.handlers.known(task_type);
        self.config.observe(&Observation::Processed { task_type, outcome, ran_for: None });
    }
}
