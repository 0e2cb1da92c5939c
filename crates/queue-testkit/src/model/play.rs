use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::env;
use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use proptest_state_machine::ReferenceStateMachine as _;
use queue_core::{Store, Timestamp};
use tokio::runtime::Builder;

use super::at_once::{AtOnce, Made};
use super::book::Book;
use super::call::Call;
use super::clients::Clients;
use super::judge::{Judge, Objection};
use super::seen::{Hours, Seen};
use super::step::Step;
use super::strategy::Steps;
use crate::MemoryStore;
use crate::conformance::Fixture;
use crate::memory::StoreClock;

/// Steps of a sequence, at most.
const STEPS_MAX: usize = 50;
/// How long a failing sequence is shrunk.
const SHRINK_MS_MAX: u32 = 120_000;
/// How far the model's clock goes on with each look at it.
const TICK: i64 = 10;

/// Plays so many random sequences (or as many as `QUEUE_MODEL_CASES` says) on a store and on the model, in a runtime of its own.
/// The same database serves one sequence after the other.
///
/// # Panics
///
/// When the store does not do as the model does: with the shortest sequence found that shows it.
pub fn run<F, Fresh>(fresh: impl Fn() -> Fresh, cases: u32)
where
    F: Fixture,
    Fresh: Future<Output = Clients<F>>,
{
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime can be had");
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&variable("QUEUE_MODEL_SEED", 1_u64).to_le_bytes());
    let config = Config {
        cases: variable("QUEUE_MODEL_CASES", cases),
        failure_persistence: None,
        max_shrink_time: SHRINK_MS_MAX,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let (kept, number) = (RefCell::new(None), Cell::new(0));
    let played = runner.run(&Steps::sequential_strategy(1..STEPS_MAX), |(_, steps, seen)| {
        number.set(number.get() + 1);
        let left = kept.borrow_mut().take();
        let clients = runtime.block_on(async {
            let clients: Clients<F> = match left {
                Some(clients) => clients,
                None => fresh().await,
            };
            Game::new(&clients, number.get()).await.play(&steps, seen.as_deref()).await.map_err(TestCaseError::fail)?;
            let is_clear = clients.clear().await.map_err(|error| TestCaseError::fail(error.to_string()))?;
            if is_clear {
                return Ok(Some(clients));
            }
            clients.finish().await;
            Ok::<_, TestCaseError>(None)
        })?;
        *kept.borrow_mut() = clients;
        Ok(())
    });
    if let Some(clients) = kept.take() {
        runtime.block_on(clients.finish());
    }
    match played {
        Ok(()) => {}
        Err(TestError::Fail(reason, (_, steps, _))) => panic!("{reason}\n\nthe shortest sequence found: {steps:#?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

fn variable<T: FromStr>(name: &str, or: T) -> T {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or)
}

/// The model's clock: never behind the store's, and never the same twice.
#[derive(Debug)]
struct Following(AtomicI64);

impl Following {
    fn at_least(&self, now: Timestamp) {
        self.0.fetch_max(now.as_micros(), Ordering::SeqCst);
    }
}

impl StoreClock for Following {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.fetch_add(TICK, Ordering::SeqCst))
    }
}

/// One sequence under way.
struct Game<'a, F> {
    clients: &'a Clients<F>,
    clock: Arc<Following>,
    model: MemoryStore,
    book: Book,
    judge: Judge,
    seen: Seen,
    model_seen: Seen,
    /// What was called and answered, for whoever must find out why it is wrong.
    history: String,
}

impl<'a, F: Fixture> Game<'a, F> {
    async fn new(clients: &'a Clients<F>, number: u64) -> Self {
        let store = clients.get(0);
        let begun = store.time().await.expect("the store's clock can be read").now;
        let clock = Arc::new(Following(AtomicI64::new(begun.as_micros())));
        let model = MemoryStore::with_clock(clock.clone()).with_limits(store.limits());
        let hours = Hours { begun };
        Self {
            clients,
            book: Book::new(store, number, begun).await,
            judge: Judge { hours, alone: true },
            seen: hours.look(&model).await.expect("the model can be looked at"),
            model_seen: hours.look(&model).await.expect("the model can be looked at"),
            clock,
            model,
            history: String::new(),
        }
    }

    async fn play(
        mut self,
        steps: &[(u8, Step)],
        seen: Option<&std::sync::atomic::AtomicUsize>,
    ) -> Result<(), Objection> {
        for (client, step) in steps {
            if let Some(seen) = seen {
                seen.fetch_add(1, Ordering::SeqCst);
            }
            let made = match step {
                Step::AtOnce(left, right) => self.at_once(*client, [left, right]).await,
                step => self.alone(*client, step).await,
            };
            made.map_err(|objection| self.explain(&objection))?;
        }
        let all = self.book.ids().iter().copied().collect();
        let ended = self.compare(&all).await;
        ended.map_err(|objection| self.explain(&objection))
    }

    fn explain(&self, objection: &str) -> String {
        format!("{objection}\n\nwhat happened before:\n{}", self.history)
    }

    fn note(&mut self, client: u8, made: &Made) {
        let (call, reply) = made;
        let _ = writeln!(self.history, "client {client}: {call:?}\n  -> {reply:?}");
    }

    async fn alone(&mut self, client: u8, step: &Step) -> Result<(), Objection> {
        let store = self.clients.get(client);
        let mut calls: VecDeque<Call> = self.book.calls(store, step).await.into();
        while let Some(call) = calls.pop_front() {
            let now = store.time().await.map_err(|error| error.to_string())?.now;
            self.clock.at_least(now);
            let reply = call.make(store).await;
            calls.extend(self.book.note(&call, &reply));
            let made = (call, reply);
            self.note(client, &made);
            self.judge.follow(&self.model, &made.0, &made.1).await?;
        }
        let seen = self.look(store).await?;
        let closely = seen.changed(&self.seen);
        self.compare_with(store, seen, &closely).await
    }

    /// Two clients, each with its calls in order, at the same time.
    async fn at_once(&mut self, client: u8, steps: [&[Step]; 2]) -> Result<(), Objection> {
        let stores = [self.clients.get(client), self.clients.get(client.wrapping_add(1))];
        let mut calls = [Vec::new(), Vec::new()];
        for (side, steps) in steps.into_iter().enumerate() {
            for step in steps {
                calls[side].extend(self.book.calls(stores[side], step).await);
            }
        }
        let [left, right] = calls;
        let (left, right) = tokio::join!(make_all(stores[0], left), make_all(stores[1], right));
        for (side, made) in [(client, &left), (client.wrapping_add(1), &right)] {
            for made in made {
                self.note(side, made);
                let _ = self.book.note(&made.0, &made.1);
            }
        }
        let mut seen = self.look(stores[0]).await?;
        let closely = seen.changed(&self.seen);
        let hours = self.judge.hours;
        hours.look_closely(stores[0], &mut seen, &closely).await.map_err(|error| error.to_string())?;
        let judge = Judge { alone: false, ..self.judge };
        let at_once = AtOnce { judge, sides: [&left, &right], seen: &seen, closely: &closely };
        self.model = at_once.explain(&self.model).await?;
        self.compare_with(stores[0], seen, &BTreeSet::new()).await
    }

    async fn look(&self, store: &dyn Store) -> Result<Seen, Objection> {
        let seen = self.judge.hours.look(store).await.map_err(|error| error.to_string())?;
        self.clock.at_least(store.time().await.map_err(|error| error.to_string())?.now);
        Ok(seen)
    }

    async fn compare(&mut self, closely: &BTreeSet<queue_core::TaskId>) -> Result<(), Objection> {
        let store = self.clients.get(0);
        let seen = self.look(store).await?;
        self.compare_with(store, seen, closely).await
    }

    /// The store and the model show the same, and what the model left alone is just as it was.
    async fn compare_with(
        &mut self,
        store: &dyn Store,
        mut seen: Seen,
        closely: &BTreeSet<queue_core::TaskId>,
    ) -> Result<(), Objection> {
        let hours = self.judge.hours;
        let failed = |error: queue_core::StoreError| error.to_string();
        let mut model_seen = hours.look(&self.model).await.map_err(failed)?;
        let moved = seen.moved(&self.seen, &model_seen, &self.model_seen);
        seen.forget_closely();
        hours.look_closely(store, &mut seen, closely).await.map_err(failed)?;
        hours.look_closely(&self.model, &mut model_seen, closely).await.map_err(failed)?;
        let differences = seen.differences(&model_seen);
        let ghosts = self.model.ghosts();
        if !(differences.is_empty() && moved.is_empty() && ghosts.is_empty()) {
            return Err(format!("the store and the model differ:{differences}{moved}{}", ghosts.join("\n")));
        }
        for (id, task) in &seen.tasks {
            self.model.retime(*id, &task.state);
        }
        self.model_seen = hours.look(&self.model).await.map_err(failed)?;
        self.seen = seen;
        Ok(())
    }
}

async fn make_all(store: &dyn Store, calls: Vec<Call>) -> Vec<Made> {
    let mut made = Vec::with_capacity(calls.len());
    for call in calls {
        let reply = call.make(store).await;
        made.push((call, reply));
    }
    made
}
