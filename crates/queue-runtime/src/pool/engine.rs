//! Starts the parts of a pool and ends them together.

use std::sync::Arc;
use std::time::Duration;

use queue_core::StoreError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::call;
use super::config::Config;
use super::dispatcher::{Control, Dispatcher};
use super::error::StartError;
use super::heartbeat::{Heartbeat, Orders};
use super::listener::Listener;
use super::pruner::{Pruner, Workload};
use super::reaper::Reaper;
use super::report::Report;
use super::sampler::Sampler;

/// A pool at work.
#[derive(Debug)]
pub(crate) struct Engine {
    control: watch::Sender<Control>,
    report: oneshot::Receiver<Report>,
    config: Arc<Config>,
}

impl Engine {
    /// Checks the schema, opens a session and starts to work.
    pub(crate) async fn start(config: Config) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let schema = call::bounded(&*config.clock, config.call_limit(), config.store.schema()).await?;
        schema.check().map_err(StoreError::from)?;

        let board = Arc::new(Board::default());
        let (orders, orders_given) = watch::channel(Orders::default());
        let (opened, opening) = oneshot::channel();
        let (closed, closing) = oneshot::channel();
        let heartbeat = Heartbeat { config: Arc::clone(&config), board: Arc::clone(&board), orders: orders_given };
        config.spawn.spawn_apart("queue-heartbeat", Box::pin(heartbeat.run(opened, closed)))?;
        let gone = || StoreError::unavailable("the heartbeat ended before it began");
        opening.await.unwrap_or_else(|_| Err(gone()))?;
        log(&config);

        let stop = CancellationToken::new();
        config.spawn.spawn("reaper", Box::pin(Reaper::new(Arc::clone(&config), Arc::clone(&board)).run(stop.clone())));
        if config.samples {
            config.spawn.spawn("sampler", Box::pin(Sampler::new(Arc::clone(&config)).run(stop.clone())));
        }

        let (workload, workload_now) = watch::channel(Workload::default());
        if let Some(pruner) = Pruner::new(&config, &board, workload_now) {
            config.spawn.spawn("pruner", Box::pin(pruner.run(stop.clone())));
        }
        let (afar, listener) = Listener::new(&config);
        if let Some(listener) = listener {
            config.spawn.spawn("listener", Box::pin(listener.run(stop.clone())));
        }

        let (control, controlled) = watch::channel(Control::Work);
        let (tell, report) = oneshot::channel();
        // Room for what every slot can say at once.
        let (events, taken) = mpsc::channel(2 * (config.concurrency + config.prefetch) + 64);
        let dispatcher = Dispatcher::new(Arc::clone(&config), board, orders, events, workload, afar);
        let (spawn, kept) = (Arc::clone(&config.spawn), Arc::clone(&config));
        spawn.spawn(
            "dispatcher",
            Box::pin(async move {
                let stop = stop.drop_guard();
                let ended = dispatcher.run(taken, controlled).await;
                drop(stop);
                let patience = ended.close_by.saturating_sub(config.clock.monotonic());
                tokio::select! {
                    biased;
                    // An error says that the heartbeat has ended.
                    _ = closing => {}
                    () = config.clock.sleep(patience) => {}
                }
                let _ = tell.send(ended.report);
            }),
        );
        Ok(Self { control, report, config: kept })
    }

    /// Tells the pool something.
    pub(crate) fn control(&self, control: Control) {
        self.control.send_replace(control);
    }

    /// Waits until the pool has ended. `None`: the runtime it ran on is gone.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again, until it has returned.
    pub(crate) async fn ended(&mut self) -> Option<Report> {
        (&mut self.report).await.ok()
    }
}

impl Engine {
    /// Waits until the pool has ended, this long at most; the wait is not at the mercy of handlers that never yield.
    pub(crate) async fn ended_within(mut self, limit: Duration) -> Result<Report, StartError> {
        let (over, mut out_of_time) = oneshot::channel();
        let (clock, waits) = (Arc::clone(&self.config.clock), over);
        self.config.spawn.spawn_apart(
            "queue-deadline",
            Box::pin(async move {
                let mut waits = waits;
                tokio::select! {
                    biased;
                    () = waits.closed() => {}
                    () = clock.sleep(limit) => { let _ = waits.send(()); }
                }
            }),
        )?;
        tokio::select! {
            biased;
            report = &mut self.report => report.map_err(|_| StartError::RuntimeGone),
            _ = &mut out_of_time => Err(StartError::Starved),
        }
    }
}

/// One line for each type: no default is silent.
fn log(config: &Config) {
    tracing::info!(
        name = config.name,
        host = config.host,
        queues = %config.queues,
        concurrency = config.concurrency,
        prefetch = config.prefetch,
        lease = ?config.lease,
        heartbeat = ?config.heartbeat,
        grace = ?config.grace,
        cancel_grace = ?config.cancel_grace,
        poll = ?(config.poll_min, config.poll_max),
        wake_channel = config.herald.channel().is_some(),
        fail_unregistered = %config.fail_unregistered,
        retention = %config.retention,
        "the pool starts"
    );
    for registered in config.handlers.iter() {
        let limits = registered.limits;
        tracing::info!(
            r#type = registered.handler.task_type().as_str(),
            blocking = registered.handler.is_blocking(),
            concurrency = limits.concurrency.unwrap_or(config.concurrency).min(config.concurrency),
            timeout = ?limits.timeout,
            max_attempts = ?limits.max_attempts,
            budget = ?limits.budget,
            "handles"
        );
    }
}
