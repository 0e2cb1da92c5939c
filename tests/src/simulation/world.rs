//! Runs a plan.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use queue_core::admin::{Action, Filter, Page, Pause, Selection};
use queue_core::{
    Budget, Clock as _, Migrate as _, Priority, QueueName, Retry, Start, Status, Store, TaskAdmin as _, TaskId,
    TaskSpec, TaskType, Timestamp,
};
use queue_runtime::clock::TokioClock;
use queue_runtime::ports::{Ports, Spawn as _};
use queue_runtime::{Limits, Pool, Queue, RunningPool};
use queue_testkit::around::Wrapped;
use queue_testkit::{FaultyStore, MemoryStore, SeededEntropy, StoreClock};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::bent::{Bent, Broken};
use super::performance::{self, Stage};
use super::plan::{Batch, Disturbance, JobPlan, Plan, QUEUES, TROUBLE_LASTS, WorkerPlan};
use super::process::{Body, SkewedClock};
use super::weather::Weather;
use crate::history::{Event, Fact, FinalState, History, Journal, RecordingStore, Sink, Verdict, Violation, check};

const TYPES: [TaskType; 2] = [TaskType::new("sim.one"), TaskType::new("sim.two")];
const QUEUE_NAMES: [QueueName; QUEUES] = [QueueName::new("one"), QueueName::new("two")];
/// How long what is left may take once everything has healed.
const CALM_MAX: Duration = Duration::from_mins(10);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the last shutdown may take.
const LAST_SHUTDOWN: Duration = Duration::from_secs(10);
/// The process number of the world itself, and of the producer.
const WORLD: u32 = 0;
const PRODUCER: u32 = 1;

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// All that happened.
    pub history: History,
    /// How the tasks stood in the end.
    pub end: FinalState,
    /// What the checker says.
    pub verdict: Verdict,
}

/// Runs a plan, with something broken or not. The same plan always comes to the same outcome.
///
/// # Panics
///
/// When no runtime can be had.
#[must_use]
pub fn run(plan: &Plan, broken: Option<Broken>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime can be had").block_on(async { World::new(plan, broken).run().await })
}

/// What processes tell the world.
#[derive(Clone, Copy, Debug)]
pub(super) enum Message {
    /// The process shall die.
    Crash { process: u32 },
    /// The process is at its end.
    Exit { process: u32 },
}

/// What the world tells a process.
#[derive(Clone, Copy, Debug)]
enum Command {
    Shutdown(Duration),
    StopNow,
}

/// What the world does next.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Start(usize),
    Enqueue(usize),
    Disturb(Disturbance),
    Thaw(u32),
    Heal(usize),
    HealAll,
    Resume(usize),
}

#[derive(Debug)]
struct Process {
    number: u32,
    body: Body,
    commands: mpsc::UnboundedSender<Command>,
}

#[derive(Debug)]
struct World<'a> {
    plan: &'a Plan,
    broken: Option<Broken>,
    clock: TokioClock,
    store_time: Arc<StoreTime>,
    memory: MemoryStore,
    /// What is beneath the faults and the notes.
    beneath: Arc<dyn Store>,
    log: Arc<Log>,
    entropy: SeededEntropy,
    weathers: Vec<Weather>,
    processes: Vec<Option<Process>>,
    producer: (Body, Queue),
    /// Batches whose producers are not done.
    enqueueing: Arc<AtomicUsize>,
    producer_weather: Weather,
    lives: u32,
    tell: mpsc::UnboundedSender<Message>,
    told: mpsc::UnboundedReceiver<Message>,
    agenda: BTreeMap<(Duration, u64), Deed>,
    deeds: u64,
    calm: bool,
    /// Nobody is started any more.
    over: bool,
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, broken: Option<Broken>) -> Self {
        let clock = TokioClock::starting_at(Timestamp::from_micros(1_700_000_000_000_000));
        let store_time = Arc::new(StoreTime { clock, off_ms: AtomicI64::new(0) });
        let memory = MemoryStore::with_clock(Arc::<StoreTime>::clone(&store_time));
        let stale = plan.stale_reads.then(|| SeededEntropy::new(plan.seed ^ 0x57a1e));
        let beneath = Bent::new(Arc::new(memory.clone()), clock, broken.filter(|broken| !broken.is_around()), stale);
        let beneath: Arc<dyn Store> = Arc::new(beneath);
        let log = Arc::new(Log { clock, events: Mutex::default() });
        let weather = |place: u64| Weather::new(plan.seed.wrapping_mul(31).wrapping_add(place), plan.rates, place > 0);
        let weathers = (1..=plan.workers.len() as u64).map(weather).collect();
        let producer_weather = weather(0);
        let (tell, told) = mpsc::unbounded_channel();
        let mut world = Self {
            plan,
            broken,
            clock,
            store_time,
            memory,
            log,
            entropy: SeededEntropy::new(plan.seed ^ 0x5eed),
            weathers,
            processes: plan.workers.iter().map(|_| None).collect(),
            producer: (Body::default(), Queue::new(MemoryStore::new()).erase()),
            enqueueing: Arc::default(),
            producer_weather,
            beneath,
            lives: 0,
            tell,
            told,
            agenda: BTreeMap::new(),
            deeds: 0,
            calm: false,
            over: false,
        };
        let store = world.view(PRODUCER, &world.producer_weather, None);
        let entropy = Arc::new(SeededEntropy::new(plan.seed ^ 0x9a0d));
        world.producer.1 = Queue::with_ports(store, Arc::new(clock), entropy).erase();
        for worker in 0..plan.workers.len() {
            world.plan_at(Duration::ZERO, Deed::Start(worker));
        }
        for (place, batch) in plan.batches.iter().enumerate() {
            world.plan_at(batch.at, Deed::Enqueue(place));
        }
        for (at, disturbance) in &plan.disturbances {
            world.plan_at(*at, Deed::Disturb(*disturbance));
        }
        world
    }

    async fn run(mut self) -> Outcome {
        let _ = self.memory.migrate().await;
        self.work_until(TROUBLE_LASTS).await;
        self.heal().await;
        let patience = self.clock.monotonic() + CALM_MAX;
        while self.clock.monotonic() < patience && self.is_unfinished().await {
            self.work_until(self.clock.monotonic() + LOOK_EVERY).await;
        }
        self.end().await
    }

    /// Does what is on the agenda until then.
    async fn work_until(&mut self, until: Duration) {
        loop {
            let next = self.agenda.first_key_value().map_or(until, |((at, _), _)| (*at).min(until));
            let wait = next.saturating_sub(self.clock.monotonic());
            if wait.is_zero() {
                match self.agenda.first_entry().filter(|entry| entry.key().0 <= next) {
                    Some(entry) => {
                        let deed = entry.remove();
                        self.perform(deed).await;
                        continue;
                    }
                    None => return,
                }
            }
            tokio::select! {
                biased;
                message = self.told.recv() => match message {
                    Some(Message::Crash { process }) => self.kill(process),
                    Some(Message::Exit { process }) => self.exited(process),
                    None => unreachable!("the world holds a sender"),
                },
                () = sleep(wait) => {}
            }
        }
    }

    async fn perform(&mut self, deed: Deed) {
        match deed {
            Deed::Start(worker) => self.start(worker),
            Deed::Enqueue(place) => self.enqueue(place),
            Deed::Disturb(disturbance) if !self.calm => self.disturb(disturbance).await,
            Deed::Disturb(_) => {}
            Deed::Thaw(process) => {
                if let Some(found) = self.processes.iter().flatten().find(|found| found.number == process) {
                    self.log.record(process, Fact::ProcessThawed);
                    found.body.thaw();
                }
            }
            Deed::Heal(worker) => self.weathers[worker].partition(None),
            Deed::HealAll => self.everywhere(|weather| weather.outage(None)),
            Deed::Resume(queue) => {
                let _ = self.memory.set_paused(QUEUE_NAMES[queue].clone(), None, "sim").await;
            }
        }
    }

    async fn disturb(&mut self, disturbance: Disturbance) {
        self.log.record(WORLD, Fact::Note { text: format!("{disturbance:?}") });
        match disturbance {
            Disturbance::Kill { worker } => {
                if let Some(process) = self.number_of(worker) {
                    self.kill(process);
                }
            }
            Disturbance::Freeze { worker, lasts } => {
                if let Some(process) = &self.processes[worker] {
                    process.body.freeze();
                    self.log.record(process.number, Fact::ProcessFrozen);
                    let thaw = Deed::Thaw(process.number);
                    self.plan_in(lasts, thaw);
                }
            }
            Disturbance::Shutdown { worker, deadline } => self.command(worker, Command::Shutdown(deadline)),
            Disturbance::StopNow { worker } => self.command(worker, Command::StopNow),
            Disturbance::Drain { worker } => {
                let name = worker_name(worker);
                for session in self.memory.sessions().await.unwrap_or_default() {
                    if session.name == name {
                        let _ = self.memory.request_drain(session.id, "sim").await;
                    }
                }
            }
            Disturbance::Partition { worker, how, lasts } => {
                self.weathers[worker].partition(Some(how));
                self.plan_in(lasts, Deed::Heal(worker));
            }
            Disturbance::Outage { how, lasts } => {
                self.everywhere(|weather| weather.outage(Some(how)));
                self.plan_in(lasts, Deed::HealAll);
            }
            Disturbance::Pause { queue, lasts } => {
                let pause = Pause { by: "sim".to_owned(), why: "planned".to_owned(), at: Timestamp::EPOCH };
                let _ = self.memory.set_paused(QUEUE_NAMES[queue].clone(), Some(pause), "sim").await;
                self.plan_in(lasts, Deed::Resume(queue));
            }
            Disturbance::Cancel { job } => self.act(TaskId::new(job), Action::Cancel).await,
            Disturbance::Retry => {
                let task = self.some_failed().await;
                self.act(task, Action::Retry).await;
            }
            Disturbance::Delete => {
                let task = self.some_failed().await;
                self.act(task, Action::Delete).await;
            }
            Disturbance::ClockJump { by_ms } => {
                self.store_time.off_ms.fetch_add(by_ms, Ordering::Relaxed);
                self.log.record(WORLD, Fact::ClockMoved { by_ms });
            }
            Disturbance::OtherServer => {
                self.memory.set_server(format!("server {}", self.deeds));
                self.log.record(WORLD, Fact::ClockMoved { by_ms: 0 });
            }
        }
    }

    /// An operator acts; whether it goes with how the task stands is the store's business.
    async fn act(&self, task: Option<TaskId>, action: Action) {
        let Some(task) = task else { return };
        let recorded = Wrapped(RecordingStore::new(Arc::clone(&self.beneath), self.journal(WORLD)));
        let _ = recorded.act(Selection::Ids(vec![task]), action, "sim").await;
    }

    async fn some_failed(&self) -> Option<TaskId> {
        let filter = Filter { status: Some(Status::Failed), ..Filter::default() };
        let failed = self.memory.list(filter, Page { after: None, limit: 100 }).await.unwrap_or_default();
        self.entropy.choose(&failed).map(|task| task.id)
    }

    fn start(&mut self, worker: usize) {
        if self.over || self.processes[worker].is_some() {
            return;
        }
        self.lives += 1;
        let number = PRODUCER + self.lives;
        let body = Body::default();
        let (commands, commanded) = mpsc::unbounded_channel();
        let pool = self.pool(worker, number, &body);
        self.log.record(number, Fact::ProcessStarted);
        let life = Life { process: number, clock: self.clock, body: body.clone(), log: Arc::clone(&self.log) };
        let tell = self.tell.clone();
        body.spawn(
            "main",
            Box::pin(async move {
                life.live(pool, commanded).await;
                let _ = tell.send(Message::Exit { process: number });
            }),
        );
        self.processes[worker] = Some(Process { number, body, commands });
    }

    fn pool(&self, worker: usize, number: u32, body: &Body) -> Pool<Stage> {
        let plan = self.plan.workers[worker];
        let WorkerPlan { wall_off_ms, drift_ppm, .. } = plan;
        let ports = Ports {
            clock: Arc::new(SkewedClock { clock: self.clock, wall_off_ms, drift_ppm }),
            entropy: Arc::new(SeededEntropy::new(self.plan.seed.wrapping_add(u64::from(number) << 32))),
            spawn: Arc::new(body.clone()),
        };
        let around = self.broken.filter(|broken| broken.is_around());
        let store = self.view(number, &self.weathers[worker], around);
        let queue = Queue::with_ports(store, Arc::clone(&ports.clock), Arc::clone(&ports.entropy));
        let stage =
            Stage { body: body.clone(), journal: self.journal(number), process: number, tell: self.tell.clone() };
        let limits = Limits::DEFAULT.timeout(plan.timeout);
        let limited = plan.type_concurrency.map_or(limits, |most| limits.concurrency(most));
        let [one, two] = TYPES;
        Pool::with_state(&queue, stage)
            .handle_raw(one, performance::perform, limits)
            .handle_raw(two, performance::perform, limited)
            .ports(ports)
            .name(worker_name(worker))
            .concurrency(plan.concurrency)
            .prefetch(plan.prefetch)
            .lease(plan.lease)
            .heartbeat(plan.heartbeat)
            .grace(plan.grace)
            .cancel_grace(plan.cancel_grace)
            .poll(Duration::from_millis(50), Duration::from_secs(1))
    }

    /// The store as a process sees it: faults on the way, notes of what is true, and what is broken or stale beneath.
    fn view(&self, process: u32, weather: &Weather, around: Option<Broken>) -> Wrapped<Bent> {
        let beneath: Arc<dyn Store> = Arc::clone(&self.beneath);
        let recording = Wrapped(RecordingStore::new(beneath, self.journal(process)).job(performance::job));
        Bent::new(Arc::new(FaultyStore::new(recording, weather.clone())), self.clock, around, None)
    }

    fn enqueue(&self, place: usize) {
        let (body, queue) = (&self.producer.0, self.producer.1.clone());
        let (batch, journal) = (self.plan.batches[place].clone(), self.journal(PRODUCER));
        let under_way = Arc::clone(&self.enqueueing);
        under_way.fetch_add(1, Ordering::Relaxed);
        body.spawn(
            "enqueue",
            Box::pin(async move {
                produce(&queue, &batch, &journal).await;
                under_way.fetch_sub(1, Ordering::Relaxed);
            }),
        );
    }

    fn kill(&mut self, number: u32) {
        let Some(worker) = self.place_of(number) else { return };
        if let Some(process) = self.processes[worker].take() {
            process.body.die();
            self.log.record(number, Fact::ProcessKilled);
            self.restart(worker);
        }
    }

    fn exited(&mut self, number: u32) {
        let Some(worker) = self.place_of(number) else { return };
        if let Some(process) = self.processes[worker].take() {
            // With the process goes what its pool could not end in time.
            process.body.die();
            self.log.record(number, Fact::ProcessEnded);
            self.restart(worker);
        }
    }

    fn restart(&mut self, worker: usize) {
        let pause = if self.calm { 500 } else { 200 + self.entropy.below(10_000) };
        self.plan_in(Duration::from_millis(pause), Deed::Start(worker));
    }

    fn command(&self, worker: usize, command: Command) {
        if let Some(process) = &self.processes[worker] {
            let _ = process.commands.send(command);
        }
    }

    /// No fault any more, and everybody is back.
    async fn heal(&mut self) {
        self.log.record(WORLD, Fact::Note { text: "everything heals".to_owned() });
        self.calm = true;
        self.everywhere(Weather::calm);
        for deed in std::mem::take(&mut self.agenda).into_values() {
            self.perform(deed).await;
        }
        for worker in 0..self.processes.len() {
            self.start(worker);
        }
    }

    async fn is_unfinished(&self) -> bool {
        if self.enqueueing.load(Ordering::Relaxed) > 0 {
            return true;
        }
        for status in [Status::Queued, Status::Running] {
            let filter = Filter { status: Some(status), ..Filter::default() };
            if self.memory.list(filter, Page { after: None, limit: 1 }).await.is_ok_and(|page| !page.is_empty()) {
                return true;
            }
        }
        false
    }

    async fn end(mut self) -> Outcome {
        self.over = true;
        for worker in 0..self.processes.len() {
            self.command(worker, Command::Shutdown(LAST_SHUTDOWN));
        }
        let patience = self.clock.monotonic() + 2 * LAST_SHUTDOWN;
        while self.processes.iter().any(Option::is_some) && self.clock.monotonic() < patience {
            self.work_until(self.clock.monotonic() + LOOK_EVERY).await;
        }
        let history = History::new(std::mem::take(&mut *self.log.lock()));
        let mut end = FinalState::of(&self.memory, |_| None, false).await.unwrap_or_default();
        end.ghosts = self.memory.ghosts();
        let mut verdict = check(&history, &end);
        for process in self.processes.iter().flatten() {
            verdict.violations.push(Violation::Overdue(format!("process {} never ended", process.number)));
        }
        let overdue = history.events().iter().filter_map(|event| match &event.fact {
            Fact::Note { text } if text.starts_with(OVERDUE) => Some(Violation::Overdue(text.clone())),
            _ => None,
        });
        verdict.violations.extend(overdue);
        Outcome { history, end, verdict }
    }

    fn everywhere(&self, change: impl Fn(&Weather)) {
        self.weathers.iter().for_each(&change);
        change(&self.producer_weather);
    }

    fn number_of(&self, worker: usize) -> Option<u32> {
        self.processes[worker].as_ref().map(|process| process.number)
    }

    fn place_of(&self, number: u32) -> Option<usize> {
        self.processes.iter().position(|process| process.as_ref().is_some_and(|process| process.number == number))
    }

    fn journal(&self, process: u32) -> Journal {
        Journal::new(process, Arc::<Log>::clone(&self.log))
    }

    fn plan_in(&mut self, delay: Duration, deed: Deed) {
        self.plan_at(self.clock.monotonic() + delay, deed);
    }

    fn plan_at(&mut self, at: Duration, deed: Deed) {
        self.deeds += 1;
        self.agenda.insert((at, self.deeds), deed);
    }
}

fn worker_name(worker: usize) -> String {
    format!("worker {worker}")
}

/// How a note begins that the end of a pool came too late.
const OVERDUE: &str = "overdue:";

/// The main function of a worker's process.
#[derive(Debug)]
struct Life {
    process: u32,
    clock: TokioClock,
    body: Body,
    log: Arc<Log>,
}

impl Life {
    async fn live(&self, pool: Pool<Stage>, mut commands: mpsc::UnboundedReceiver<Command>) {
        match pool.start().await {
            Ok(running) => self.work(running, &mut commands).await,
            Err(error) => self.note(format!("the pool did not start: {error}")),
        }
    }

    async fn work(&self, mut running: RunningPool, commands: &mut mpsc::UnboundedReceiver<Command>) {
        let command = tokio::select! {
            biased;
            report = running.ended() => {
                self.note(format!("ended by itself: {report:?}"));
                return;
            }
            command = commands.recv() => command,
        };
        let (begun, freezes) = (self.clock.monotonic(), self.body.freezes());
        let deadline = match command {
            Some(Command::Shutdown(deadline)) => {
                let report = running.shutdown(deadline).await;
                self.note(format!("shut down: {report:?}"));
                deadline
            }
            Some(Command::StopNow) | None => {
                running.stop_now();
                let report = running.ended().await;
                self.note(format!("stopped: {report:?}"));
                Duration::from_secs(3)
            }
        };
        let took = self.clock.monotonic() - begun;
        // Clocks run differently fast, and a frozen process cannot keep a deadline.
        if took > deadline + deadline / 50 + Duration::from_millis(200) && freezes == self.body.freezes() {
            self.note(format!("{OVERDUE} told to stop within {deadline:?}, process {} took {took:?}", self.process));
        }
    }

    fn note(&self, text: String) {
        self.log.record(self.process, Fact::Note { text });
    }
}

/// Enqueues a batch; with keys, until it is told that it worked.
async fn produce(queue: &Queue, batch: &Batch, journal: &Journal) {
    for _ in 0..100 {
        let specs = batch.jobs.iter().map(|job| spec(job, batch.keyed));
        match queue.enqueue_specs(specs).await {
            Ok(enqueued) => {
                for one in enqueued {
                    journal.record(Fact::Enqueued { task: one.id().get() });
                }
                return;
            }
            Err(error) => {
                journal.record(Fact::Note { text: format!("not enqueued: {error}") });
                for one in error.written {
                    journal.record(Fact::Enqueued { task: one.id().get() });
                }
            }
        }
        if !batch.keyed {
            // Whether it is there is not known, and another try could make it twice.
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

fn spec(job: &JobPlan, keyed: bool) -> TaskSpec {
    let mut spec = TaskSpec::new(TYPES[job.kind].clone(), performance::payload(job));
    spec.queue = QUEUE_NAMES[job.queue].clone();
    spec.priority = Priority::new(job.priority);
    spec.start = if job.delay.is_zero() { Start::Now } else { Start::After(job.delay) };
    spec.retry = Retry::fixed(job.backoff).attempts(job.attempts);
    spec.budget = job.budget.map_or(Budget::DEFAULT, Budget::of);
    spec.key = keyed.then(|| queue_core::IdempotencyKey::parse(format!("job {}", job.number)).expect("a short key"));
    spec
}

/// The store's clock: virtual time, and how far it has jumped.
#[derive(Debug)]
struct StoreTime {
    clock: TokioClock,
    off_ms: AtomicI64,
}

impl StoreClock for StoreTime {
    fn now(&self) -> Timestamp {
        let off = self.off_ms.load(Ordering::Relaxed);
        let jumped = Duration::from_millis(off.unsigned_abs());
        if off < 0 { self.clock.wall().before(jumped) } else { self.clock.wall().after(jumped) }
    }
}

/// Where everybody's notes go.
#[derive(Debug)]
struct Log {
    clock: TokioClock,
    events: Mutex<Vec<Event>>,
}

impl Log {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Log {
    fn now(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_micros()).unwrap_or(u64::MAX)
    }

    fn record(&self, process: u32, fact: Fact) {
        let event = Event { at: self.now(), process, fact };
        self.lock().push(event);
    }
}
