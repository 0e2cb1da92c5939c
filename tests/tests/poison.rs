//! A poison pill: a task that kills the process it runs in. It ends as crashed after its allowed attempts, and each of its
//! neighbours completes at the cost of one attempt at most.

use std::time::Duration;

use queue_runtime::{Ctx, Options, Pool, Result, Retry, Task, TaskType};
use queue_tests::history::{FinalState, FinalTask, How};
use queue_tests::{Backend, Database, History, Journal, Worker};
use serde::{Deserialize, Serialize};

/// Short, so that a dead worker is found soon.
const LEASE: Duration = Duration::from_secs(1);
/// How often the pill may kill.
const DEATHS: u16 = 3;
const NEIGHBOURS: usize = 60;

#[derive(Serialize, Deserialize)]
struct Swallow {
    deadly: bool,
}

impl Task for Swallow {
    const TYPE: TaskType = TaskType::new("e2e.swallow");
    type Output = ();
    const OPTIONS: Options = Options::DEFAULT.retry(Retry::fixed(Duration::ZERO).attempts(DEATHS));
}

#[tokio::test]
#[ignore = "the body of the worker processes that the other tests start"]
async fn worker() {
    let (url, folder) = Worker::place();
    let queue = queue_runtime::connect(&url).await.expect("the database can be reached");
    Pool::with_state(&queue, Journal::in_folder(&folder))
        .handle(swallow)
        .concurrency(8)
        .lease(LEASE)
        .run()
        .await
        .expect("the pool drains and stops");
}

async fn swallow(task: Swallow, cx: Ctx<Journal>) -> Result {
    cx.state().started(&cx);
    // The pill kills while its neighbours are at work.
    tokio::time::sleep(Duration::from_millis(if task.deadly { 30 } else { 60 })).await;
    if task.deadly {
        std::process::abort();
    }
    cx.state().ended(&cx, How::Succeeded);
    Ok(())
}

#[tokio::test]
async fn a_pill_ends_as_crashed_and_its_neighbours_survive_on_mysql() {
    a_pill_ends_as_crashed(Backend::MySql).await;
}

#[tokio::test]
async fn a_pill_ends_as_crashed_and_its_neighbours_survive_on_sqlite() {
    a_pill_ends_as_crashed(Backend::Sqlite).await;
}

async fn a_pill_ends_as_crashed(backend: Backend) {
    let database = Database::fresh(backend).await;
    let folder = tempfile::tempdir().unwrap();
    let queue = database.queue().await;
    let tasks: Vec<_> = (0..=NEIGHBOURS).map(|number| Swallow { deadly: number == NEIGHBOURS / 4 }).collect();
    let ids: Vec<_> = queue.enqueue_all(&tasks).await.unwrap().iter().map(|one| one.id().get()).collect();
    let pill = ids[NEIGHBOURS / 4];

    // Two workers, each started again when it has died, as a supervisor does.
    let start = || Worker::start(database.url(), folder.path());
    let mut workers = [start(), start()];
    let mut deaths = 0;
    let store = database.store().await;
    let end = loop {
        for worker in &mut workers {
            if worker.has_ended() {
                deaths += 1;
                *worker = start();
            }
        }
        let state = FinalState::of(&*store, |_| None, false).await.unwrap();
        // A task that is queued again between two pages is on neither.
        if state.tasks.len() == ids.len() && state.tasks.iter().all(FinalTask::is_terminal) {
            break FinalState::of(&*store, |_| None, true).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for worker in &mut workers {
        assert!(worker.stop().success(), "a worker that is told to stop drains and ends well");
    }

    assert_eq!(deaths, DEATHS, "one death for each attempt, and no other");
    let starts = History::read(folder.path()).starts();
    assert_eq!(end.tasks.len(), NEIGHBOURS + 1);
    for task in &end.tasks {
        if task.id == pill {
            let ended = (task.status.as_str(), task.reason.as_deref(), task.attempt);
            assert_eq!(ended, ("failed", Some("crashed"), DEATHS), "after exactly its allowed attempts");
            assert_eq!(starts[&pill], (DEATHS.into(), 0));
        } else {
            assert_eq!(task.status, "completed", "neighbour {}", task.id);
            let lost = task.attempts.len();
            assert!(lost <= 1, "neighbour {} paid {lost} attempts", task.id);
            assert_eq!(usize::from(task.attempt), 1 + lost);
        }
    }
    let paid = end.tasks.iter().filter(|task| task.id != pill && !task.attempts.is_empty()).count();
    assert!(paid > 0, "the pill had neighbours when it killed");
}
