//! A settlement whose acknowledgement is lost, and whose task another worker has claimed by the time it is repeated: the repeat is
//! stale, the first try was written, and that explains the second start.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use queue_core::claim::Capacity;
use queue_core::session::{LEASE_DEFAULT, SessionSpec};
use queue_core::settlement::Outcome;
use queue_core::{
    ClaimId, ClaimReply, ClaimRequest, ClaimedTask, Jitter, Scope, SessionId, Settle, Settled, Settlement, TaskResult,
    TaskStore as _, Timestamp,
};
use queue_runtime::{MySqlStore, Task as _};
use queue_testkit::around::Wrapped;
use queue_tests::history::{Answer, Event, Fact, FinalState, How, RecordingStore, Sink, check};
use queue_tests::proxy::{Proxy, Weather};
use queue_tests::{Backend, Database, History, Job, Journal};
use sqlx::{Connection as _, Executor as _, MySqlConnection, Row as _};
use tokio::time::{sleep, timeout};

/// How often something is looked for that is not told.
const LOOK: Duration = Duration::from_millis(5);
/// It only ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Notes in the order in which they are taken; that is their time.
#[derive(Debug, Default)]
struct Notes(Mutex<Vec<Event>>);

impl Sink for Notes {
    fn now(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }

    fn record(&self, process: u32, fact: Fact) {
        let mut events = self.0.lock().unwrap();
        let at = events.len() as u64;
        events.push(Event { at, process, fact });
    }
}

/// A worker as its store sees it, with notes of all that it asks.
struct Worker {
    number: u32,
    store: Wrapped<RecordingStore>,
    journal: Journal,
}

impl Worker {
    async fn open(number: u32, store: MySqlStore, notes: &Arc<Notes>) -> Self {
        let journal = Journal::new(number, Arc::<Notes>::clone(notes));
        let store = Wrapped(RecordingStore::new(Arc::new(store), journal.clone()));
        let name = format!("worker {number}");
        let (host, version) = ("host".to_owned(), "1.0.0".to_owned());
        let id = SessionId::from_random(number.into());
        store.open_session(SessionSpec { id, name, host, version, lease: LEASE_DEFAULT }).await.unwrap();
        Self { number, store, journal }
    }

    /// Claims, again and again, until there is a task, and begins to run it.
    async fn start(&self) -> ClaimedTask {
        let session = SessionId::from_random(self.number.into());
        for tries in 1.. {
            let claim = ClaimId::from_random((u64::from(self.number) << 32) + tries);
            let request = ClaimRequest { session, claim, scope: Scope::of([Job::TYPE]), capacity: Capacity::of(1) };
            let ClaimReply::Claimed(mut claimed) = self.store.claim(request).await.unwrap() else { panic!("fenced") };
            if let Some(task) = claimed.tasks.pop() {
                let (id, fence) = (task.id.get(), task.fence.get());
                let (attempt, max_attempts) = (task.attempt, task.max_attempts);
                self.journal.record(Fact::Started { task: id, fence, attempt, max_attempts });
                return task;
            }
            sleep(LOOK).await;
        }
        unreachable!("it claims until there is a task")
    }

    async fn settle(&self, task: &ClaimedTask, how: How, outcome: Outcome) -> Vec<Settled> {
        self.journal.record(Fact::Ended { task: task.id.get(), fence: task.fence.get(), how });
        let settlement = Settlement::decide(&task.run(), outcome, Timestamp::EPOCH, Jitter::ZERO);
        self.store.settle([Settle::by_holder(task.id, task.claim, settlement)].into()).await.unwrap()
    }
}

async fn a_release_that_was_overtaken_explains_the_next_start(backend: Backend) {
    let database = Database::fresh(backend).await;
    let (place, name) = database.url().rsplit_once('/').unwrap();
    let (login, address) = place.rsplit_once('@').unwrap();
    let proxy = Proxy::start(address.parse().unwrap()).await.unwrap();
    let line = format!("{login}@127.0.0.1:{}/{name}?ssl-mode=disabled", proxy.port());
    let notes = Arc::new(Notes::default());
    let first = Worker::open(1, MySqlStore::connect(&line).await.unwrap(), &notes).await;
    let second = Worker::open(2, MySqlStore::connect(database.url()).await.unwrap(), &notes).await;
    database.queue().await.enqueue(&Job { sleep_ms: 0 }).await.unwrap();
    let task = first.start().await;

    // The claim's row goes with the release: whoever holds it holds up the transaction whose COMMIT is at the server already.
    let mut user = MySqlConnection::connect(database.url()).await.unwrap();
    user.execute("BEGIN").await.unwrap();
    user.execute("SELECT id FROM queue_claim FOR UPDATE").await.unwrap();
    let overtaking = async {
        let mut looks = MySqlConnection::connect(database.url()).await.unwrap();
        let sent = "SELECT CAST(COUNT(*) AS SIGNED) FROM information_schema.processlist WHERE DB = DATABASE() \
                    AND ID <> CONNECTION_ID() AND INFO LIKE '%DELETE%queue_claim%'";
        while looks.fetch_one(sent).await.unwrap().get::<i64, _>(0) == 0 {
            sleep(LOOK).await;
        }
        proxy.weather(Weather::HalfOpen);
        user.execute("ROLLBACK").await.unwrap();
        let task = second.start().await;
        proxy.weather(Weather::Fine);
        task
    };
    let (settled, again) = tokio::join!(first.settle(&task, How::Dropped, Outcome::Released), overtaking);
    assert_eq!((settled, again.id, again.attempt), (vec![Settled::Stale], task.id, task.attempt));
    assert_eq!(first.store.retries(), [("reconnect", 1)], "the store repeated it by itself");
    let settled = second.settle(&again, How::Succeeded, Outcome::Succeeded(TaskResult::None)).await;
    assert_eq!(settled, [Settled::Applied]);

    let history = History::new(notes.0.lock().unwrap().drain(..));
    let answers = history.events().iter().filter_map(|event| match event.fact {
        Fact::Settled { answer, .. } => Some(answer),
        _ => None,
    });
    assert_eq!(answers.collect::<Vec<_>>(), [Answer::Unclear, Answer::Applied]);
    let end = FinalState::of(&*database.store().await, |_| None, true).await.unwrap();
    let verdict = check(&history, &end);
    assert!(verdict.is_good(), "{:?}\n{}", verdict.violations, history.text(None));
}

#[tokio::test]
async fn a_release_that_was_overtaken_explains_the_next_start_on_mysql() {
    let test = a_release_that_was_overtaken_explains_the_next_start(Backend::MySql);
    timeout(PATIENCE, test).await.expect("it hangs");
}

#[tokio::test]
async fn a_release_that_was_overtaken_explains_the_next_start_on_mariadb() {
    let test = a_release_that_was_overtaken_explains_the_next_start(Backend::MariaDb);
    timeout(PATIENCE, test).await.expect("it hangs");
}
