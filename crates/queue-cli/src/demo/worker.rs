//! The hidden command that is a worker of the demonstration.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;
use std::{env, panic, thread};

use queue_runtime::{Pool, QueueName, connect};
use tokio::sync::oneshot;

use super::kinds;
use crate::args::URL_VARIABLE;
use crate::exec::guard;
use crate::failure::{self, Failure, Outcome};
use crate::logging;

/// `queue __demo_worker NAME QUEUE`, with the database in the environment. It works until its standard input ends.
const WORKER: &str = "__demo_worker";
/// Handlers that run at once in a worker.
const CONCURRENCY: usize = 16;
/// Short, so that a killed worker is found soon.
const LEASE: Duration = Duration::from_millis(1_200);
const GRACE: Duration = Duration::from_millis(500);
const CANCEL_GRACE: Duration = Duration::from_millis(100);

/// Runs the hidden command that the arguments name, if they do.
pub(super) fn hidden(mut args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if args.nth(1)? != WORKER {
        return None;
    }
    let (name, queue) = (args.next()?.into_string().ok()?, args.next()?.into_string().ok()?);
    Some(match work(name, queue) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure::tell(&failure);
            ExitCode::FAILURE
        }
    })
}

#[tokio::main]
async fn work(name: String, queue: String) -> Outcome {
    let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("a worker of the demonstration: {error}"));
    // The panics of demo.panic are part of the show.
    logging::install("off")?;
    // Tasks that panic are a part of the show; where they did is not.
    panic::set_hook(Box::new(|_| {}));
    let url = env::var(URL_VARIABLE).map_err(|error| failed(&error))?;
    let served = QueueName::parse(queue).map_err(|error| failed(&error))?;
    let queue = connect(&url).await.map_err(|error| failed(&error))?;
    let pool = Pool::new(&queue)
        .name(name)
        .queues([served])
        .concurrency(CONCURRENCY)
        .lease(LEASE)
        .grace(GRACE)
        .cancel_grace(CANCEL_GRACE);
    let running = kinds::handled(pool).start().await.map_err(|error| failed(&error))?;
    // It ends when the demonstration does, however that ends.
    let (over, ended) = oneshot::channel();
    thread::spawn(move || {
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        let _ = over.send(());
    });
    let _ = ended.await;
    running.shutdown(GRACE + CANCEL_GRACE * 2).await.map_err(|error| failed(&error))?;
    Ok(())
}

/// A worker process, which is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) name: String,
    process: Child,
}

impl Worker {
    /// Starts a worker. The database is named in its environment, so that no password is on a command line.
    pub(super) fn start(number: u32, url: &str, queue: &QueueName) -> io::Result<Self> {
        let name = format!("{queue} worker {number}");
        let mut command: Command = guard::myself()?;
        command.args([WORKER, &name, queue.as_str()]).env(URL_VARIABLE, url);
        let process = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        Ok(Self { name, process })
    }

    /// Kills it with SIGKILL, as the kernel does when memory is short, and waits until it is dead.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.process.kill()?;
        self.process.wait().map(drop)
    }

    /// Lets it end.
    pub(super) fn end(mut self) -> io::Result<()> {
        drop(self.process.stdin.take());
        self.process.wait().map(drop)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It has ended already, unless something went wrong.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
