//! Processes that work beside the bench's own.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead as _, Write as _};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use queue_runtime::{Queue, QueueName, Retention, connect};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::draining::repeated;
use super::memory;
use super::workload::{Ended, PRUNED, STOP, failed, pool, token, types};
use crate::args::URL_VARIABLE;
use crate::exec::guard;
use crate::failure::{self, Failure, Outcome};
use crate::logging;

/// `queue __bench_worker TYPES CONCURRENCY PRUNES QUEUE…`, with the database in the environment. It prints `ready` once it is connected, works
/// from the first line of its standard input to its end, and prints `done COUNT` from time to time, `start TOKEN` for each task
/// of a queue that is not drained, and `memory BYTES`, `pruned COUNT` and `retries COUNT` at the end.
const WORKER: &str = "__bench_worker";
/// How often a worker says how far it is.
const TELL: Duration = Duration::from_millis(5);
/// Connections that a worker makes before it begins.
const CONNECTIONS: usize = 4;

/// Runs the hidden command that the arguments name, if they do.
pub(super) fn hidden(mut args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if args.nth(1)? != WORKER {
        return None;
    }
    let mut number = || args.next()?.to_str()?.parse().ok();
    let (types, concurrency, prunes) = (number()?, number()?, number()? != 0);
    let named = args.map(|queue| queue.to_str().and_then(|queue| QueueName::parse(queue.to_owned()).ok()));
    let named = named.collect::<Option<Vec<_>>>()?;
    Some(match work(types, concurrency, prunes, named) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure::tell(&failure);
            ExitCode::FAILURE
        }
    })
}

#[tokio::main]
async fn work(type_count: u16, concurrency: u16, prunes: bool, served: Vec<QueueName>) -> Outcome {
    let told = |error: &dyn std::fmt::Display| failed("a worker of the bench", error);
    logging::install("error")?;
    let url = env::var(URL_VARIABLE).map_err(|error| told(&error))?;
    let queue = connect(&url).await.map_err(|error| told(&error))?;
    let (lines, mut inbox) = mpsc::channel::<()>(1);
    thread::spawn(move || {
        // One line to begin; the end of the input, or of the bench, to end.
        for line in io::stdin().lock().lines() {
            if line.is_err() || lines.blocking_send(()).is_err() {
                return;
            }
        }
    });
    warm_up(&queue).await?;
    say("ready");
    if inbox.recv().await.is_none() {
        return Ok(());
    }
    let ended = Arc::new(Ended::default());
    let echoes = !served.iter().all(|queue| queue.as_str().starts_with("bench-"));
    let on_start = move |payload: &queue_runtime::Payload| {
        if echoes {
            say(&format!("start {}", token(payload)));
        }
    };
    let observer = Arc::clone(&ended);
    let retention = if prunes { PRUNED } else { Retention::FOREVER };
    let running = pool(&queue, &types(type_count)?, served, concurrency, on_start)
        .retention(retention)
        .observer(observer)
        .start()
        .await
        .map_err(|error| told(&error))?;
    let mut said = 0;
    loop {
        tokio::select! {
            line = inbox.recv() => {
                if line.is_none() {
                    break;
                }
            }
            () = sleep(TELL) => {
                let count = ended.count();
                if count > said {
                    say(&format!("done {count}"));
                    said = count;
                }
            }
        }
    }
    running.shutdown(STOP).await.map_err(|error| told(&error))?;
    say(&format!("memory {}", memory::peak_bytes().unwrap_or_default()));
    say(&format!("pruned {}", ended.pruned()));
    say(&format!("retries {}", repeated(&queue)));
    Ok(())
}

/// Makes the connections that a process has which is at work, such as the bench's own after it has enqueued: each takes a handshake.
async fn warm_up(queue: &Queue) -> Outcome {
    let mut calls = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let store = queue.erased_store();
        calls.spawn(async move { store.time().await });
    }
    while let Some(call) = calls.join_next().await {
        let time = call.map_err(|error| failed("a worker of the bench", error))?;
        time.map_err(|error| failed("a worker of the bench", error))?;
    }
    Ok(())
}

/// Whoever started it may have gone, and then its input ends as well.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// A worker process; killed when it is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    process: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

/// What a worker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Ready,
    Done(u64),
    Started(u64),
    Memory(u64),
    Pruned(u64),
    Retries(u64),
}

/// What a worker says at its end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Last {
    /// Its peak.
    pub(super) memory_bytes: u64,
    /// Tasks whose history it removed.
    pub(super) pruned: u64,
    /// Transactions that it repeated.
    pub(super) retries: u64,
}

impl Said {
    fn read(line: &str) -> Option<Self> {
        let (word, number) = line.split_once(' ').unwrap_or((line, "0"));
        let number = number.parse().ok()?;
        Some(match word {
            "ready" => Self::Ready,
            "done" => Self::Done(number),
            "start" => Self::Started(number),
            "memory" => Self::Memory(number),
            "pruned" => Self::Pruned(number),
            "retries" => Self::Retries(number),
            _ => return None,
        })
    }
}

impl Worker {
    /// Starts a worker and waits until it is connected. The database is named in its environment, so that no password is on a
    /// command line.
    pub(super) async fn start(
        url: &str,
        types: u16,
        concurrency: u16,
        prunes: bool,
        queues: &[QueueName],
    ) -> Outcome<Self> {
        let told = |error: io::Error| failed("cannot start a worker of the bench", error);
        let mut command = tokio::process::Command::from(guard::myself().map_err(told)?);
        command.arg(WORKER).arg(types.to_string()).arg(concurrency.to_string()).arg(u8::from(prunes).to_string());
        command.args(queues.iter().map(QueueName::as_str)).env(URL_VARIABLE, url);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().map_err(told)?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(Failure::failed("a worker of the bench has no pipes"));
        };
        let mut worker = Self { process, input, lines: BufReader::new(output).lines() };
        while worker.said().await? != Said::Ready {}
        Ok(worker)
    }

    /// Lets it begin.
    pub(super) async fn go(&mut self) -> Outcome {
        self.input.write_all(b"go\n").await.map_err(|error| failed("a worker of the bench is gone", error))
    }

    /// The next thing that it says.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(super) async fn said(&mut self) -> Outcome<Said> {
        loop {
            match self.lines.next_line().await {
                Ok(Some(line)) => {
                    if let Some(said) = Said::read(&line) {
                        return Ok(said);
                    }
                }
                Ok(None) => return Err(Failure::failed("a worker of the bench has ended before its time")),
                Err(error) => return Err(failed("a worker of the bench", error)),
            }
        }
    }

    /// Lets it end. Returns its last words.
    pub(super) async fn end(mut self) -> Outcome<Last> {
        drop(self.input);
        let mut last = Last::default();
        while let Ok(Some(line)) = self.lines.next_line().await {
            match Said::read(&line) {
                Some(Said::Memory(bytes)) => last.memory_bytes = bytes,
                Some(Said::Pruned(count)) => last.pruned = count,
                Some(Said::Retries(count)) => last.retries = count,
                _ => {}
            }
        }
        let status = self.process.wait().await.map_err(|error| failed("a worker of the bench", error))?;
        if !status.success() {
            return Err(Failure::failed("a worker of the bench has failed"));
        }
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_say_is_understood() {
        assert_eq!(Said::read("ready"), Some(Said::Ready));
        assert_eq!(Said::read("done 12"), Some(Said::Done(12)));
        assert_eq!(Said::read("start 7"), Some(Said::Started(7)));
        assert_eq!((Said::read("done x"), Said::read("hello")), (None, None));
    }
}
