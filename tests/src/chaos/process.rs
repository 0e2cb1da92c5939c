//! The processes of a run, each with a supervisor that starts it again whenever it ends.

use std::fs;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::history::{Fact, Journal};

/// The exit status of a process of ours that could not start its work: nobody's fault but the server's.
pub const NOT_STARTED: u8 = 75;
/// How long a process that was told to stop may take, all graces included.
const STOP_MAX: Duration = Duration::from_secs(20);
/// Within this time after its start, a `queue work` may end because the server cannot be reached.
const START_MAX: Duration = Duration::from_secs(10);

/// What is done to a process.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// SIGKILL; it comes back after a while.
    Kill { away: Duration },
    /// SIGSTOP, and SIGCONT after a while.
    Pause { lasts: Duration },
    /// SIGTERM; it comes back after a while.
    Stop { away: Duration },
    /// SIGTERM, for good.
    End,
    /// SIGKILL, for good.
    EndNow,
}

/// What processes did that they must not do.
pub(super) type Complaints = Arc<Mutex<Vec<String>>>;

/// A process and its supervisor. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    orders: mpsc::UnboundedSender<Order>,
    supervising: JoinHandle<()>,
}

impl Process {
    /// Starts it; `launch` makes its command, anew for each start, and what that says on standard error is in `log`.
    pub(super) fn start(
        name: String,
        log: PathBuf,
        launch: impl FnMut() -> Command + Send + 'static,
        complaints: &Complaints,
        journal: &Journal,
    ) -> Self {
        let (orders, receiver) = mpsc::unbounded_channel();
        let supervisor =
            Supervisor { name, log, orders: receiver, complaints: Arc::clone(complaints), journal: journal.clone() };
        Self { orders, supervising: tokio::spawn(supervisor.run(launch)) }
    }

    /// Does this to it, after what was ordered before.
    pub(super) fn order(&self, order: Order) {
        // A supervisor that has ended has told why.
        let _ = self.orders.send(order);
    }

    /// Waits until it has ended for good.
    pub(super) async fn ended(&mut self) {
        let _ = (&mut self.supervising).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.supervising.abort();
    }
}

struct Supervisor {
    name: String,
    log: PathBuf,
    orders: mpsc::UnboundedReceiver<Order>,
    complaints: Complaints,
    journal: Journal,
}

impl Supervisor {
    async fn run(mut self, mut launch: impl FnMut() -> Command) {
        loop {
            let mut child = match launch().kill_on_drop(true).spawn() {
                Ok(child) => child,
                Err(error) => return self.complain(format!("cannot be started: {error}")),
            };
            let journal = self.journal.about(child.id().unwrap_or_default());
            journal.record(Fact::ProcessStarted);
            let comes_back = self.attend(&mut child, &journal).await;
            journal.record(Fact::ProcessKilled);
            match comes_back {
                Some(away) => sleep(away).await,
                None => return,
            }
        }
    }

    /// Carries out orders until the process has ended. Returns how long it stays away.
    async fn attend(&mut self, child: &mut Child, journal: &Journal) -> Option<Duration> {
        let born = now();
        loop {
            tokio::select! {
                biased;
                status = child.wait() => {
                    self.ended_by_itself(status.ok(), born);
                    return Some(Duration::from_millis(500));
                }
                order = self.orders.recv() => match order? {
                    Order::Kill { away } => {
                        let _ = child.kill().await; // it may just have ended
                        return Some(away);
                    }
                    Order::Pause { lasts } => {
                        journal.record(Fact::ProcessFrozen);
                        signal(child, Signal::SIGSTOP);
                        sleep(lasts).await;
                        signal(child, Signal::SIGCONT);
                        journal.record(Fact::ProcessThawed);
                    }
                    Order::Stop { away } => {
                        self.stop(child).await;
                        return Some(away);
                    }
                    Order::End => {
                        self.stop(child).await;
                        return None;
                    }
                    Order::EndNow => {
                        let _ = child.kill().await;
                        return None;
                    }
                },
            }
        }
    }

    async fn stop(&self, child: &mut Child) {
        signal(child, Signal::SIGTERM);
        match timeout(STOP_MAX, child.wait()).await {
            Ok(Ok(status)) if status.success() || is_not_started(status) => {}
            // Told to stop before it listened, a process dies of the signal, as it may.
            Ok(Ok(status)) if std::os::unix::process::ExitStatusExt::signal(&status) == Some(15) => {}
            Ok(status) => self.complain(format!("was told to stop and ended with {status:?}: {}", self.last_said())),
            Err(_) => {
                self.complain(format!("was told to stop and did not within {} s", STOP_MAX.as_secs()));
                let _ = child.kill().await;
            }
        }
    }

    fn ended_by_itself(&self, status: Option<ExitStatus>, born: Instant) {
        let excused = status.is_some_and(is_not_started)
            || self.name.starts_with("queue work")
                && status.is_some_and(|s| s.code() == Some(1))
                && born.elapsed() < START_MAX;
        if !excused {
            let said = self.last_said();
            self.complain(format!("ended by itself after {} s: {status:?}: {said}", born.elapsed().as_secs()));
        }
    }

    /// The end of its log, which says why it ended.
    fn last_said(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(3)..].join(" / ")
    }

    fn complain(&self, what: String) {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        complaints.push(format!("{} {what}", self.name));
    }
}

fn is_not_started(status: ExitStatus) -> bool {
    status.code() == Some(NOT_STARTED.into())
}

pub(super) fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // It may just have ended.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// The time, for limits.
#[expect(clippy::disallowed_methods, reason = "real processes run on real time")]
pub(super) fn now() -> Instant {
    Instant::now()
}
