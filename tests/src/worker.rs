use std::env;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use queue_runtime::{Ctx, Pool, Result};

use crate::history::{How, Journal};
use crate::work::Job;

const URL: &str = "QUEUE_E2E_URL";
const FOLDER: &str = "QUEUE_E2E_FOLDER";

/// The lease of worker processes: short, so that a lost one is found soon.
const LEASE: Duration = Duration::from_secs(3);

/// A worker process of a test. It is killed when this is dropped.
#[derive(Debug)]
pub struct Worker {
    child: Child,
}

impl Worker {
    /// Starts this test's executable again, for its ignored test `worker`, which must call [`serve`].
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn start(url: &str, folder: &Path) -> Self {
        Self::start_with(url, folder, &[])
    }

    /// The same, with variables that the test's own `worker` reads.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn start_with(url: &str, folder: &Path, variables: &[(&str, String)]) -> Self {
        let executable = env::current_exe().expect("the test's own executable");
        let child = Command::new(executable)
            .args(["--exact", "worker", "--ignored", "--nocapture", "--test-threads", "1"])
            .env(URL, url)
            .env(FOLDER, folder)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("a worker process can be started");
        Self { child }
    }

    /// In a worker process: the database and the folder that it was started with.
    ///
    /// # Panics
    ///
    /// When the process was not started by [`Worker::start`].
    #[must_use]
    pub fn place() -> (String, PathBuf) {
        let variable = |name| env::var(name).expect("a worker process is started by its test");
        (variable(URL), PathBuf::from(variable(FOLDER)))
    }

    /// Whether it has ended, by itself or not.
    ///
    /// # Panics
    ///
    /// When that cannot be found out.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_some()
    }

    /// The process's id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Panics
    ///
    /// When it cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
    }

    /// Tells it to stop (SIGTERM), and waits until it has.
    ///
    /// # Panics
    ///
    /// When it cannot be told.
    pub fn stop(&mut self) -> ExitStatus {
        let id = self.child.id().try_into().expect("a process has a small id");
        kill(Pid::from_raw(id), Signal::SIGTERM).expect("a child can be told to stop");
        self.wait()
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    ///
    /// When it cannot be waited for.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("a child can be waited for")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already, and there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body of a worker process: serves [`Job`]s until it is told to stop.
///
/// # Panics
///
/// When the process was not started by [`Worker::start`], or the pool ends with an error.
pub async fn serve() {
    let (url, folder) = Worker::place();
    let queue = queue_runtime::connect(&url).await.expect("the database can be reached");
    Pool::with_state(&queue, Journal::in_folder(&folder))
        .handle(job)
        .concurrency(64)
        .lease(LEASE)
        .heartbeat(LEASE / 6)
        .run()
        .await
        .expect("the pool drains and stops");
}

async fn job(job: Job, cx: Ctx<Journal>) -> Result {
    cx.state().started(&cx);
    tokio::time::sleep(job.sleep()).await;
    cx.state().ended(&cx, How::Succeeded);
    Ok(())
}
