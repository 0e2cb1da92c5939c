//! Tells the observer now and then how the queues stand, and what the store repeated by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use queue_core::{Observation, Status};
use tokio_util::sync::CancellationToken;

use super::call;
use super::config::Config;

const EVERY: Duration = Duration::from_secs(15);

/// See the module.
#[derive(Debug)]
pub(crate) struct Sampler {
    config: Arc<Config>,
    /// What the store had repeated when it was asked last, by kind.
    retries: BTreeMap<&'static str, u64>,
}

impl Sampler {
    pub(crate) fn new(config: Arc<Config>) -> Self {
        let retries = config.store.retries().into_iter().collect();
        Self { config, retries }
    }

    /// Samples until told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let config = Arc::clone(&self.config);
        loop {
            self.sample().await;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = config.clock.sleep(config.jittered(EVERY)) => {}
            }
        }
    }

    async fn sample(&mut self) {
        let config = &self.config;
        for (kind, total) in config.store.retries() {
            let before = self.retries.insert(kind, total).unwrap_or_default();
            if let Some(count) = total.checked_sub(before).filter(|count| *count > 0) {
                config.observe(&Observation::StoreRetried { kind, count });
            }
        }
        let stats = match call::bounded(&*config.clock, config.call_limit(), config.store.stats()).await {
            Ok(stats) => stats,
            Err(error) => return config.failed("it is not known how the queues stand", &error),
        };
        for queue in &stats.queues {
            let depths = [
                (Status::Queued, queue.ready.number.saturating_add(queue.later.number)),
                (Status::Running, queue.running.number),
            ];
            for (status, count) in depths {
                config.observe(&Observation::QueueDepth { queue: &queue.queue, status, count });
            }
            let age = queue.oldest_ready.unwrap_or_default();
            config.observe(&Observation::OldestReady { queue: &queue.queue, age });
        }
    }
}
