//! Removes tasks that ended long ago, as the pool's retention says, beside the pool's own work and not in its way.
//!
//! The pool pays for it with its own pace: a little more is removed than ends here, so that in all processes together as much
//! goes as comes. Batches take a third of the time at most, and a tenth while more is due than the pool can take: the work of the
//! day comes first, and what it leaves goes after it. Where less has ended than is old (when the setting was changed) batches follow
//! on one another as well, and all pools together take no more than some tenths. Once nothing is old enough, a look now and then.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use queue_core::{Observation, Status};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::call;
use super::config::Config;
use super::pace::{Trouble, shared};

/// Tasks that are removed in one call, at most.
const BATCH: usize = 500;
/// Tasks that must have ended for another batch to follow at once: fewer than it removes, so that history does not grow.
const PRICE: u64 = (BATCH - BATCH / 16) as u64;
/// A pause is so many times as long as the batch took, at least; and where more is due, or too few have ended.
const PAUSES_MIN: u32 = 2;
const PAUSES_MAX: u32 = 9;
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// How long nothing is looked for once nothing was old enough.
const CALM: Duration = Duration::from_secs(10);
/// The first wait after the store failed, and the longest.
const TROUBLE_MIN: Duration = Duration::from_secs(1);
const TROUBLE_MAX: Duration = Duration::from_secs(60);

/// What the pool has to do and has done, as far as it sets the pace of the pruner.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Workload {
    /// Tasks whose end the pool has written.
    pub(crate) ended: u64,
    /// Whether its last claim left something that was due.
    pub(crate) backlog: bool,
}

/// Tasks of one status, and how long they are kept.
#[derive(Debug)]
struct Rule {
    status: Status,
    keep: Duration,
    /// When to look, on the monotonic clock.
    look_at: Duration,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pruner {
    config: Arc<Config>,
    board: Arc<Board>,
    workload: watch::Receiver<Workload>,
    /// Tasks whose end has paid for a batch.
    paid: u64,
    rules: Vec<Rule>,
    trouble: Trouble,
}

impl Pruner {
    /// `None` when everything is kept.
    pub(crate) fn new(config: &Arc<Config>, board: &Arc<Board>, workload: watch::Receiver<Workload>) -> Option<Self> {
        let look_at = config.clock.monotonic();
        let rules = config.retention.rules().into_iter().map(|(status, keep)| Rule { status, keep, look_at });
        let rules: Vec<_> = rules.collect();
        (!rules.is_empty()).then(|| Self {
            config: Arc::clone(config),
            board: Arc::clone(board),
            workload,
            paid: 0,
            rules,
            trouble: Trouble::between(TROUBLE_MIN, TROUBLE_MAX),
        })
    }

    /// Removes what is old until told to stop, and then stops at once: what a batch has not removed stays.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.work() => {}
        }
    }

    async fn work(&mut self) {
        loop {
            // The one that has waited longest, so that statuses take turns.
            let next = self.rules.iter().enumerate().min_by_key(|(_, rule)| rule.look_at);
            let Some((place, look_at)) = next.map(|(place, rule)| (place, rule.look_at)) else { return };
            let now = self.config.clock.monotonic();
            if now < look_at {
                self.config.clock.sleep(look_at - now).await;
                continue;
            }
            self.look(place, now).await;
        }
    }

    /// Removes one batch, and decides when to look again.
    async fn look(&mut self, place: usize, began: Duration) {
        let config = Arc::clone(&self.config);
        let Rule { status, keep, .. } = self.rules[place];
        let call = config.store.prune(Some(status), keep, BATCH);
        let answer = call::bounded(&*config.clock, config.call_limit(), call).await;
        let now = config.clock.monotonic();
        let pruned = match answer {
            Ok(pruned) => pruned,
            Err(error) => {
                config.failed("what ended long ago was not removed", &error);
                self.trouble.failed(&config, now);
                let again_at = self.trouble.until();
                self.rules.iter_mut().for_each(|rule| rule.look_at = rule.look_at.max(again_at));
                return;
            }
        };
        self.trouble.over();
        if pruned > 0 {
            config.observe(&Observation::Pruned { status, count: pruned });
        }
        let is_behind = pruned >= BATCH as u64;
        let calm = shared(CALM, self.board.live_sessions());
        self.rules[place].look_at = if is_behind { now } else { now + config.jittered(calm) };
        if is_behind {
            self.pause(now.saturating_sub(began)).await;
        }
    }

    /// Waits until as much has ended as pays for another batch, and longer while there is a backlog; or for so long that this one
    /// does not count.
    async fn pause(&mut self, took: Duration) {
        let least = took.saturating_mul(PAUSES_MIN);
        let longer = took.saturating_mul(PAUSES_MAX).max(PAUSE_MIN);
        let longest = shared(longer, self.board.live_sessions());
        let goal = self.paid + PRICE;
        self.config.clock.sleep(least).await;
        let is_paid = self.is_soon(longer - least, |now| now.ended >= goal && !now.backlog).await
            || self.is_soon(longest - longer, |now| now.ended >= goal).await;
        // What a backlog leaves stays paid for.
        self.paid = if is_paid { goal } else { self.workload.borrow().ended };
    }

    /// Whether that holds within this time.
    async fn is_soon(&mut self, time: Duration, holds: impl FnMut(&Workload) -> bool) -> bool {
        let held = async {
            if self.workload.wait_for(holds).await.is_err() {
                // The pool has ended.
                pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = held => true,
            () = self.config.clock.sleep(time) => false,
        }
    }
}
