//! Starting programs, and what is needed to stop them.

use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;
use std::{io, thread};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::oneshot;

/// Starts every program from one thread that lives as long as the process: the kernel ties a parent-death signal to the
/// *thread* that started the child, and tokio's threads come and go.
#[derive(Clone, Debug)]
pub(crate) struct Launcher {
    jobs: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    command: Command,
    started: oneshot::Sender<io::Result<Running>>,
}

impl Launcher {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (jobs, waiting) = mpsc::channel::<Job>();
        thread::Builder::new().name("queue-launcher".to_owned()).spawn(move || {
            while let Ok(mut job) = waiting.recv() {
                // When nobody waits for it any more, dropping it kills it.
                let _ = job.started.send(job.command.spawn().and_then(Running::of));
            }
        })?;
        Ok(Self { jobs })
    }

    /// Starts a program, as the leader of a process group of its own.
    pub(crate) async fn launch(&self, mut command: Command) -> io::Result<Running> {
        use std::os::unix::process::CommandExt as _;

        command.process_group(0);
        let gone = || io::Error::other("the launcher has ended");
        let (started, answer) = oneshot::channel();
        self.jobs.send(Job { command, started }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// A started program and its group. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    /// `None` once it was waited for: then its number may be another's.
    child: Option<Child>,
    group: Pid,
}

impl Running {
    fn of(child: Child) -> io::Result<Self> {
        let group = i32::try_from(child.id()).map(Pid::from_raw).map_err(io::Error::other)?;
        Ok(Self { child: Some(child), group })
    }

    /// The child, to take its streams.
    pub(crate) const fn child_mut(&mut self) -> Option<&mut Child> {
        self.child.as_mut()
    }

    /// Sends a signal to the whole group. The child was not waited for yet, so the number is still its own.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.child.is_some() {
            // The only error that can be is that nothing is left to be told.
            let _ = killpg(self.group, signal);
        }
    }

    /// Waits until the leader has ended, without taking its status: until [`end`](Self::end) its number stays taken.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    #[cfg(target_os = "linux")]
    pub(crate) async fn ended(&self) -> io::Result<()> {
        use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
        use tokio::signal::unix::{SignalKind, signal};

        // Listening begins before the first look, so that no end is missed in between.
        let mut ends = signal(SignalKind::child())?;
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        loop {
            match waitid(Id::Pid(self.group), look) {
                Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            ends.recv().await;
        }
    }

    /// Waits until the leader has ended. This system cannot tell without taking the status, so the group is asked for.
    #[cfg(not(target_os = "linux"))]
    pub(crate) async fn ended(&mut self) -> io::Result<()> {
        while let Some(child) = &mut self.child {
            if child.try_wait()?.is_some() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Kills what is left of the group and takes the leader's status, which has ended.
    pub(crate) fn end(mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGKILL);
        let mut child = self.child.take().ok_or_else(|| io::Error::other("the program was waited for already"))?;
        child.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        if let Some(mut child) = self.child.take() {
            // It ends within moments, but this may be a thread that must not wait. Without a thread it stays a zombie
            // until this process ends.
            let _ = thread::Builder::new().name("queue-reaper".to_owned()).spawn(move || child.wait());
        }
    }
}
