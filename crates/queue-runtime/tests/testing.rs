//! `queue_runtime::testing`: running a handler once, without a database and without a clock.

use std::sync::Arc;
use std::time::Duration;

use queue_core::Outcome;
use queue_runtime::ports::Ports;
use queue_runtime::testing::{paused_queue, perform, perform_blocking};
use queue_runtime::{
    Ctx, Options, OsEntropy, Pool, Result, ResultExt as _, Retry, Status, Task, TaskResult, TaskType, percent,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Export {
    account: u32,
    format: String,
}

impl Task for Export {
    const TYPE: TaskType = TaskType::new("report.export");
    type Output = String;
    const OPTIONS: Options = Options::DEFAULT.queue("reports").retry(Retry::DEFAULT.attempts(8));
}

trait Files: Send + Sync + 'static {
    fn pages(&self, account: u32) -> anyhow::Result<Option<Vec<String>>>;
}

struct Deps<F> {
    files: F,
}

async fn export<F: Files>(task: Export, cx: Ctx<Deps<F>>) -> Result<String> {
    if task.format != "csv" {
        return cx.reject(format!("no such format: {}", task.format));
    }
    let Some(pages) = cx.state().files.pages(task.account)? else {
        return cx.snooze(Duration::from_secs(30));
    };
    for (i, page) in pages.iter().enumerate() {
        if cx.is_cancelled() || cx.remaining() < Duration::from_secs(5) {
            return cx.snooze(Duration::ZERO);
        }
        cx.progress(percent(i + 1, pages.len()), page.as_str());
    }
    Ok(format!("exports/{}.csv", task.account))
}

/// Two pages, but none of account 0, and trouble with account 1.
#[derive(Clone, Copy)]
struct Fake;

impl Files for Fake {
    fn pages(&self, account: u32) -> anyhow::Result<Option<Vec<String>>> {
        match account {
            0 => Ok(None),
            1 => Err(anyhow::anyhow!("disk on fire").context("reading pages")),
            _ => Ok(Some(vec!["page 1".to_owned(), "page 2".to_owned()])),
        }
    }
}

fn csv(account: u32) -> Export {
    Export { account, format: "csv".to_owned() }
}

const DEPS: Deps<Fake> = Deps { files: Fake };

#[tokio::test]
async fn a_run_tells_output_and_progress() {
    let run = perform(export, csv(7), DEPS).attempt(3).await;
    assert_eq!(run.output.as_deref(), Some("exports/7.csv"));
    assert_eq!(run.progress, [(50, "page 1".into()), (100, "page 2".into())]);
    assert_eq!(run.outcome, Outcome::Succeeded(TaskResult::Value("\"exports/7.csv\"".into())));
    assert_eq!(run.error, None);
}

#[tokio::test]
async fn a_run_tells_how_it_failed() {
    let run = perform(export, Export { account: 7, format: "pdf".to_owned() }, DEPS).await;
    assert!(matches!(run.outcome, Outcome::Rejected(_)));
    assert_eq!((run.output, run.error.as_deref()), (None, Some("no such format: pdf")));

    let run = perform(export, csv(1), DEPS).await;
    assert!(matches!(run.outcome, Outcome::Errored { delay: None, .. }));
    assert_eq!(run.error.as_deref(), Some("reading pages: disk on fire"));

    assert_eq!(perform(export, csv(0), DEPS).await.outcome, Outcome::Snoozed(Duration::from_secs(30)));
}

#[tokio::test]
async fn a_handler_sees_that_it_shall_stop() {
    let stopped = Outcome::Snoozed(Duration::ZERO);
    assert_eq!(perform(export, csv(7), DEPS).cancelled().await.outcome, stopped);
    assert_eq!(perform(export, csv(7), DEPS).remaining(Duration::from_secs(4)).await.outcome, stopped);
}

#[tokio::test]
async fn a_handler_sees_its_run() {
    let look = |_: Export, cx: Ctx<&'static str>| async move {
        cx.clone().progress(200, "");
        assert_eq!((cx.attempt(), cx.max_attempts(), cx.fence().get()), (3, 8, 3));
        assert_eq!((cx.queue().as_str(), cx.task_type().as_str()), ("reports", "report.export"));
        assert_eq!((cx.remaining(), cx.priority().get()), (Duration::MAX, 0));
        assert_eq!(cx.deadline().map(|at| at.since(cx.created_at())), Some(Duration::from_hours(1)));
        assert!(format!("{cx:?}").starts_with("Ctx { task: TaskHead { id: TaskId(1)"), "{cx:?}");
        Ok(format!("{} {}", cx.state(), cx.task_id()))
    };
    let run = perform(look, csv(7), "task").attempt(3).await;
    assert_eq!(run.output.as_deref(), Some("task 1"));
    assert_eq!(run.progress, [(100, String::new())]);

    let last = |_: Export, cx: Ctx| async move { Ok(cx.max_attempts().to_string()) };
    assert_eq!(perform(last, csv(7), ()).max_attempts(1).await.output.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_cancelled_context_lets_who_waits_go_on() {
    let wait = |_: Export, cx: Ctx| async move {
        cx.cancelled().await;
        cx.snooze(Duration::from_secs(1))
    };
    assert_eq!(perform(wait, csv(7), ()).cancelled().await.outcome, Outcome::Snoozed(Duration::from_secs(1)));
}

#[tokio::test]
async fn a_blocking_handler_runs_too() {
    fn parse(task: Export, cx: Ctx) -> Result<String> {
        cx.progress(10, "parsing");
        let number = task.format.parse::<u8>().or_retry_in(Duration::from_secs(7))?;
        Ok(number.to_string())
    }
    let run = perform_blocking(parse, csv(1), ()).await;
    assert!(matches!(run.outcome, Outcome::Errored { delay: Some(delay), .. } if delay.as_secs() == 7), "{run:?}");
    let run = perform_blocking(parse, Export { account: 1, format: "12".to_owned() }, ()).await;
    assert_eq!((run.output.as_deref(), run.progress.len()), (Some("12"), 1));
}

#[derive(Serialize, Deserialize)]
struct Fickle {
    #[serde(skip_serializing)]
    secret: String,
}

impl Task for Fickle {
    const TYPE: TaskType = TaskType::new("bad.fickle");
    type Output = Option<String>;
}

#[tokio::test]
async fn a_payload_that_does_not_survive_storing_is_found() {
    let never = |task: Fickle, _: Ctx| async move { Ok(Some(task.secret)) };
    let run = perform(never, Fickle { secret: "hunter2".to_owned() }, ()).await;
    assert_eq!(run.error.as_deref(), Some("the payload does not decode as bad.fickle: data error at line 1 column 2"));
    assert!(!format!("{run:?}").contains("hunter2"));
}

#[derive(Serialize, Deserialize)]
struct Fill(usize);

impl Task for Fill {
    const TYPE: TaskType = TaskType::new("fill");
    type Output = Option<String>;
}

#[tokio::test]
async fn an_output_is_what_would_have_been_kept() {
    let fill = |Fill(bytes): Fill, _: Ctx| async move { Ok((bytes > 0).then(|| "x".repeat(bytes))) };
    assert_eq!(perform(fill, Fill(0), ()).await.outcome, Outcome::Succeeded(TaskResult::None));
    assert_eq!(perform(fill, Fill(0), ()).await.output, Some(None));
    let run = perform(fill, Fill(1 << 17), ()).await;
    assert_eq!((run.output, run.outcome), (None, Outcome::Succeeded(TaskResult::Dropped { bytes: (1 << 17) + 2 })));
}

#[tokio::test]
async fn what_waits_can_be_looked_at() {
    let queue = queue_runtime::testing::memory_queue();
    let late = queue.enqueue(&csv(2)).delay(Duration::from_secs(60)).await.unwrap().id();
    queue.enqueue(&csv(1)).await.unwrap();
    queue.enqueue(&Fill(1)).await.unwrap();
    let accounts = queue.enqueued::<Export>().into_iter().map(|task| task.account).collect::<Vec<_>>();
    assert_eq!(accounts, [1, 2]);
    queue.cancel(late).await.unwrap();
    assert_eq!(queue.enqueued::<Export>().len(), 1);
    assert_eq!(queue.get(late).await.unwrap().map(|task| task.state.status), Some(Status::Failed));
    assert_eq!(queue.enqueued::<Fill>()[0].0, 1);
}

#[tokio::test]
#[should_panic(expected = "the output encodes, but does not decode")]
async fn an_output_that_does_not_survive_storing_is_found() {
    #[derive(Serialize, Deserialize)]
    struct Half(u8);
    impl Task for Half {
        const TYPE: TaskType = TaskType::new("half");
        type Output = OneWay;
    }
    #[derive(Serialize, Deserialize)]
    struct OneWay {
        #[serde(skip_serializing)]
        _kept: u8,
    }
    let half = |Half(kept): Half, _: Ctx| async move { Ok(OneWay { _kept: kept }) };
    let _ = perform(half, Half(1), ()).await;
}

#[tokio::test(start_paused = true)]
async fn delays_take_no_time_where_time_is_paused() {
    let queue = paused_queue();
    let task = queue.enqueue(&Fill(0)).delay(Duration::from_secs(7_200)).await.unwrap().id();
    let stubborn = |_: Fill, cx: Ctx| async move { if cx.attempt() < 3 { Err("not yet".into()) } else { Ok(None) } };
    let pool = Pool::new(&queue).ports(Ports::paused(Arc::new(OsEntropy))).handle(stubborn);
    let done = pool.drain().with_later().await.unwrap();
    assert_eq!((done.completed, done.retried), (1, 2), "{done:?}");
    let state = queue.get(task).await.unwrap().unwrap().state;
    // The two hours, and the 30 s before the third attempt.
    assert!(state.started_at.unwrap().since(state.created_at) >= Duration::from_secs(7_230), "{state:?}");
}
