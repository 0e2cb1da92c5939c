//! The one task that owns what a pool holds: it claims, starts handlers, settles, and stops.
//!
//! Everything that takes time runs elsewhere and comes back as an [`Event`], so that nothing in here is ever dropped
//! half-way, and no lock is needed. Three rules hold it together:
//!
//! - **Capacity returns only when a settle is acknowledged.** A claim asks for the slots that are free then, and for those
//!   that its own trip settles. While settlements fail, nothing is claimed.
//! - **What the store was asked is asked again until it answered**: a batch of settlements as it was, a claim by its id.
//! - **One trip gathers.** While a trip is under way, what ends waits for the next one, until it is enough for one of its own.

mod answers;
mod starting;
mod stopping;
mod trips;

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use queue_core::claim::Resolved;
use queue_core::progress::ProgressUpdate;
use queue_core::store::Reckoning;
use queue_core::{ClaimId, ClaimReply, Observation, Scope, SessionId, Settle, Settled, StoreError, Timestamp};
use tokio::sync::{mpsc, watch};

use self::starting::Waiting;
pub(crate) use self::stopping::Ended;
use self::stopping::Stopping;
use super::board::Board;
use super::config::Config;
use super::executor::{Executor, Finished};
use super::heartbeat::Orders;
use super::held::Slots;
use super::listener::Afar;
use super::pace::{Pace, Poll, Trouble};
use super::pruner::Workload;
use super::report::Report;
use super::runners::Runners;

/// How often progress is written and handlers are looked after.
const TICK: Duration = Duration::from_secs(1);
/// How often the dispatcher steps back, at most, to let handlers that end at once be gathered into one trip.
const GATHER_MAX: usize = 16;

/// What comes back to the dispatcher. Each runner holds room for one, so what is large and rare is boxed.
#[derive(Debug)]
pub(crate) enum Event {
    /// A run is over.
    Finished(Finished),
    /// A handler that outlived its run has ended.
    Vacated(usize),
    /// A trip is back.
    Trip(Box<Trip>),
    /// A claim whose acknowledgement was lost was asked about.
    Resolved(Box<Ask>, Result<Resolved, StoreError>),
    /// Progress of the tasks in these slots was written, or was not.
    Flushed(Vec<usize>, Option<StoreError>),
    /// Whether anything is left to do.
    Busy(Result<bool, StoreError>),
}

/// A trip to the store that is back.
#[derive(Debug)]
pub(crate) struct Trip {
    pub(crate) settled: Option<(Batch, Result<Vec<Settled>, StoreError>)>,
    pub(crate) claimed: Option<(Ask, Result<ClaimReply, StoreError>)>,
    pub(crate) took: Duration,
}

/// Settlements that go together, and again as they are until the store has answered.
#[derive(Debug)]
pub(crate) struct Batch {
    items: Arc<[Settle]>,
    /// In the order of the items.
    slots: Vec<usize>,
    /// Progress that must be written before.
    progress: Vec<ProgressUpdate>,
    /// On its own: it may wait for a transaction of the handler's, or it cannot be written. Others do not wait for it.
    apart: bool,
    /// How often it was sent in vain.
    tries: u32,
    /// How often the store refused it for good.
    refusals: u32,
}

impl Batch {
    /// Whether it left by itself and not as part of a trip.
    const fn goes_alone(&self) -> bool {
        self.apart || self.tries > 0
    }
}

/// A claim under way, and the capacity that it may use up.
#[derive(Debug)]
pub(crate) struct Ask {
    session: SessionId,
    claim: ClaimId,
    tasks: usize,
    /// How many of them are in place of what its own trip settles, and so of slots that are still held until that is back.
    replaces: usize,
    bytes: u64,
    suspects: usize,
    /// By the places of handlers with a limit of their own.
    per_type: Vec<(usize, usize)>,
    /// How many wake-ups had been heard when it left.
    wakes: u64,
}

/// What a pool is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Work,
    /// Stop within this time.
    Stop(Duration),
    /// Stop now.
    StopNow,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    config: Arc<Config>,
    board: Arc<Board>,
    runners: Runners,
    events: mpsc::Sender<Event>,
    orders: watch::Sender<Orders>,
    /// For the pruner.
    workload: watch::Sender<Workload>,
    scope: Scope,
    /// Whether every type has a limit of its own.
    all_limited: bool,
    batch_max: usize,
    batch_bytes_max: u64,

    session: Option<SessionId>,
    reckoning: Reckoning,
    slots: Slots,
    /// Claimed, not started.
    waiting: VecDeque<Waiting>,
    waiting_bytes: u64,
    /// Slots whose settlement waits for a trip.
    pending: VecDeque<usize>,
    /// Batches that go on their own, or again.
    again: VecDeque<Batch>,
    /// How many batches are failing, `apart` ones left out.
    failing: usize,
    /// Claims to be asked about.
    doubts: VecDeque<Ask>,
    /// Trips under way, those of `again` left out.
    trips: usize,
    /// When the last one left.
    left_at: Duration,
    /// Other calls under way.
    calls: usize,
    /// Claims under way or in doubt.
    asks: usize,
    reserved: Reserved,
    /// The slot of a suspect that has not yet run for one lease.
    suspect: Option<usize>,

    /// When to claim next.
    claim_at: Duration,
    /// Whether the last claim left something that was due.
    backlog: bool,
    /// When the next task is due, by the last claim.
    next_due: Option<Timestamp>,
    wakes: u64,
    afar: Afar,
    poll: Poll,
    trouble: Trouble,
    pace: Pace,
    next_tick: Duration,
    flushing: bool,
    /// Whether it is time to ask whether anything is left to do.
    ask_busy: bool,
    stopping: Option<Stopping>,
    in_flight_told: usize,
    report: Report,
}

/// Capacity that claims under way may use up.
#[derive(Debug, Default)]
struct Reserved {
    tasks: usize,
    bytes: u64,
    suspects: usize,
    of_type: Vec<usize>,
}

impl Dispatcher {
    pub(crate) fn new(
        config: Arc<Config>,
        board: Arc<Board>,
        orders: watch::Sender<Orders>,
        events: mpsc::Sender<Event>,
        workload: watch::Sender<Workload>,
        afar: Afar,
    ) -> Self {
        let (limits, now) = (config.store.limits(), config.clock.monotonic());
        let types = config.handlers.len();
        let all_limited = config.handlers.iter().all(|one| one.limits.concurrency.is_some());
        let executor = Executor { config: Arc::clone(&config), board: Arc::clone(&board), events: events.clone() };
        Self {
            scope: config.scope(),
            all_limited,
            batch_max: limits.batch_max.max(1),
            batch_bytes_max: limits.batch_bytes_max,
            runners: Runners::new(Arc::new(executor)),
            events,
            board,
            orders,
            workload,
            session: None,
            reckoning: Reckoning::new(Timestamp::EPOCH, now),
            slots: Slots::new(types),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            pending: VecDeque::new(),
            again: VecDeque::new(),
            failing: 0,
            doubts: VecDeque::new(),
            trips: 0,
            left_at: now,
            calls: 0,
            asks: 0,
            reserved: Reserved { of_type: vec![0; types], ..Reserved::default() },
            suspect: None,
            claim_at: now,
            backlog: false,
            next_due: None,
            wakes: 0,
            afar,
            poll: Poll::new(&config),
            trouble: Trouble::default(),
            pace: Pace::default(),
            next_tick: now,
            flushing: false,
            ask_busy: false,
            stopping: None,
            in_flight_told: 0,
            report: Report::default(),
            config,
        }
    }

    /// Works until told to stop, and says what was done.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut control: watch::Receiver<Control>,
    ) -> Ended {
        let (board, wake, clock) =
            (Arc::clone(&self.board), Arc::clone(&self.config.wake), Arc::clone(&self.config.clock));
        let mut woken = pin!(wake.notified());
        woken.as_mut().enable();
        let mut controlled = true;
        let mut gathered = Vec::new();
        loop {
            self.gather(&mut events, &mut gathered).await;
            let now = clock.monotonic();
            self.pump(now);
            if self.is_over(now) {
                return self.end(now);
            }
            let pause = self.next_wake(now).map(|at| at.saturating_sub(now));
            tokio::select! {
                biased;
                changed = control.changed(), if controlled => {
                    controlled = changed.is_ok();
                    // Whoever held the other end is gone without a word: stop in good order.
                    let order = if controlled { *control.borrow_and_update() } else { Control::Stop(self.stop_limit()) };
                    self.controlled(order, clock.monotonic());
                }
                () = board.changed.notified() => self.news(clock.monotonic()),
                count = events.recv_many(&mut gathered, 256) => {
                    debug_assert!(count > 0, "the dispatcher holds a sender");
                }
                () = woken.as_mut() => {
                    rearm(woken.as_mut(), &wake);
                    self.woken(clock.monotonic());
                }
                () = sleep_or_pend(&*clock, pause) => {}
            }
        }
    }

    /// Takes in what has come, and steps back while more of it comes: handlers that end at once go on one trip.
    async fn gather(&mut self, events: &mut mpsc::Receiver<Event>, gathered: &mut Vec<Event>) {
        for _ in 0..GATHER_MAX {
            while let Ok(event) = events.try_recv() {
                gathered.push(event);
            }
            if gathered.is_empty() {
                return;
            }
            let now = self.config.clock.monotonic();
            for event in gathered.drain(..) {
                self.take(event, now);
            }
            self.start_waiting(now);
            if self.slots.occupied() == 0 || self.pending.len() >= self.batch_max {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    fn take(&mut self, event: Event, now: Duration) {
        match event {
            Event::Finished(finished) => self.finished(finished),
            Event::Vacated(slot) => self.vacated(slot),
            Event::Trip(trip) => self.trip_returned(*trip, now),
            Event::Resolved(ask, answer) => self.resolved(*ask, answer, now),
            Event::Flushed(slots, error) => self.flushed(&slots, error),
            Event::Busy(answer) => self.busy(answer, now),
        }
    }

    /// Does all that can be done now.
    fn pump(&mut self, now: Duration) {
        self.advance_stop(now);
        self.start_waiting(now);
        if now >= self.next_tick && self.slots.len() > 0 {
            self.tick(now);
        }
        if now >= self.trouble.until() {
            self.repeat();
            self.resolve_doubts();
            self.launch_trips(now);
            self.ask_whether_busy();
        }
        if self.slots.occupied() != self.in_flight_told {
            self.in_flight_told = self.slots.occupied();
            self.config.observe(&Observation::InFlight(self.in_flight_told));
        }
        if self.afar.listens() {
            self.afar.has_room(self.session.is_some() && self.failing == 0 && !self.is_full());
        }
    }

    /// Whether every slot is taken.
    fn is_full(&self) -> bool {
        self.slots.len() >= self.config.concurrency
    }

    /// When to look again if nothing comes before.
    fn next_wake(&self, now: Duration) -> Option<Duration> {
        let retry_at = self.trouble.until();
        let blocked = !(self.again.is_empty() && self.doubts.is_empty() && self.pending.is_empty()) && now < retry_at;
        let claim_at = (self.trips == 0 && self.may_claim() && self.room(0) > 0).then(|| self.claim_at.max(retry_at));
        let busy_at = (self.ask_busy && now < retry_at).then_some(retry_at);
        [
            (self.slots.len() > 0).then_some(self.next_tick),
            blocked.then_some(retry_at),
            claim_at,
            self.gathered_at().map(|at| at.max(retry_at)),
            busy_at,
            self.stopping.as_ref().map(|stopping| stopping.next(now)),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Something may be due.
    fn woken(&mut self, now: Duration) {
        self.wakes += 1;
        self.afar.woken();
        self.poll.reset(&self.config);
        self.claim_at = now;
    }

    /// Whether nothing is held and nothing is under way.
    fn is_idle(&self) -> bool {
        self.slots.len() == 0 && self.trips == 0 && self.calls == 0 && self.asks == 0 && self.again.is_empty()
    }
}

/// Listens for the next wake-up.
fn rearm<'a>(mut woken: Pin<&mut tokio::sync::futures::Notified<'a>>, wake: &'a tokio::sync::Notify) {
    woken.set(wake.notified());
    woken.as_mut().enable();
}

async fn sleep_or_pend(clock: &dyn queue_core::Clock, pause: Option<Duration>) {
    match pause {
        Some(pause) => clock.sleep(pause).await,
        None => std::future::pending().await,
    }
}
