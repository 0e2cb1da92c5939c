//! `run()` and the signals that end it. In a process of its own, because the signals are sent to it.
#![cfg(unix)]

use std::process::Command;
use std::time::Duration;

use queue_runtime::{Ctx, Pool, Queue, Result, Status, Task, TaskType};
use queue_testkit::MemoryStore;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Nap {
    ms: u64,
}

impl Task for Nap {
    const TYPE: TaskType = TaskType::new("nap");
    type Output = ();
}

async fn nap(task: Nap, _: Ctx) -> Result {
    tokio::time::sleep(Duration::from_millis(task.ms)).await;
    Ok(())
}

fn terminate_myself() {
    let id = std::process::id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
}

#[tokio::test]
async fn the_first_signal_drains_and_the_second_stops_now() {
    for (ms, signals, expected) in [(400, 1, (1, 0)), (60_000, 2, (0, 1))] {
        let queue = Queue::new(MemoryStore::new());
        let task = queue.enqueue(&Nap { ms }).await.unwrap().id();
        let running = tokio::spawn(Pool::new(&queue).handle(nap).run());
        let status = async || queue.get(task).await.unwrap().unwrap().state.status;
        while status().await != Status::Running {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for _ in 0..signals {
            terminate_myself();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let report = tokio::time::timeout(Duration::from_secs(10), running).await.unwrap().unwrap().unwrap();
        assert_eq!((report.completed, report.released), expected, "{report:?}");
    }
}
