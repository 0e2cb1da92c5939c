//! The hidden commands that stand between a worker and a program, so that the program does not outlive the worker.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

/// `queue __guard WORKER_PID PROGRAM ARGUMENT…`: runs the program and kills the group when the worker dies.
pub(crate) const GUARD: &str = "__guard";
/// `queue __exec GUARD_PID PROGRAM ARGUMENT…`: becomes the program, which is killed when the guard dies.
pub(crate) const EXEC: &str = "__exec";

/// What a shell says of a program that is not there.
const NOT_FOUND: u8 = 127;
/// What a shell says of a program that cannot be run.
const NOT_RUNNABLE: u8 = 126;

/// Runs the hidden command that the arguments name, if they do.
pub(crate) fn hidden(mut args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let name = args.nth(1)?;
    let run = match name.to_str()? {
        GUARD => guard,
        EXEC => exec,
        _ => return None,
    };
    let parent = args.next().and_then(|pid| pid.to_str()?.parse::<i32>().ok())?;
    let program = args.next()?;
    Some(run(parent, program, args.collect()))
}

/// How this binary is started again, even after it was replaced on disk.
pub(crate) fn myself() -> io::Result<Command> {
    let mut command =
        if cfg!(target_os = "linux") { Command::new("/proc/self/exe") } else { Command::new(std::env::current_exe()?) };
    command.arg0("queue");
    Ok(command)
}

fn exec(parent: i32, program: OsString, args: Vec<OsString>) -> ExitCode {
    if !die_with(parent, kernel::KILL) {
        return ExitCode::from(NOT_RUNNABLE);
    }
    let error = Command::new(&program).args(args).exec();
    cannot_run(&program, &error)
}

fn cannot_run(program: &OsString, error: &io::Error) -> ExitCode {
    let _ = writeln!(io::stderr(), "queue: cannot run {}: {error}", program.display());
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE })
}

fn die_with(parent: i32, signal: kernel::DeathSignal) -> bool {
    kernel::on_parent_death(signal) && nix::unistd::getppid().as_raw() == parent
}

#[cfg(target_os = "linux")]
mod kernel {
    use nix::sys::prctl;
    use nix::sys::signal::Signal;

    pub(super) type DeathSignal = Signal;
    pub(super) const KILL: Signal = Signal::SIGKILL;
    /// What the guard is told of its worker's death with.
    pub(super) const TOLD: Signal = Signal::SIGUSR1;

    pub(super) fn on_parent_death(signal: Signal) -> bool {
        prctl::set_pdeathsig(signal).is_ok()
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use nix::sys::signal::Signal;

    pub(super) type DeathSignal = Signal;
    pub(super) const KILL: Signal = Signal::SIGKILL;
    pub(super) const TOLD: Signal = Signal::SIGUSR1;

    /// There is no such thing here: a program may outlive its worker.
    pub(super) fn on_parent_death(_: Signal) -> bool {
        true
    }
}

fn guard(worker: i32, program: OsString, args: Vec<OsString>) -> ExitCode {
    use nix::errno::Errno;
    use nix::sys::signal::{SigSet, Signal, killpg};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::{Pid, getpgrp, getpid, getppid};

    // The group's signals reach this process too. It must stay until the program has ended, so it takes them one by one.
    let signals = Signal::iterator().collect::<SigSet>();
    if signals.thread_block().is_err() || !die_with(worker, kernel::TOLD) {
        return ExitCode::from(NOT_RUNNABLE);
    }
    let spawned =
        myself().and_then(|mut command| command.arg(EXEC).arg(getpid().to_string()).arg(&program).args(args).spawn());
    let child = match spawned {
        Ok(child) => child,
        Err(error) => return cannot_run(&program, &error),
    };
    let Ok(child) = i32::try_from(child.id()).map(Pid::from_raw) else { return ExitCode::from(NOT_RUNNABLE) };
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return ExitCode::from(NOT_RUNNABLE),
        }
        if let Ok(kernel::TOLD) = signals.wait()
            && getppid().as_raw() != worker
        {
            // Ends this process as well.
            let _ = killpg(getpgrp(), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_commands_are_not_hidden_ones() {
        for line in
            ["queue", "queue stats", "queue task list", "queue __guard", "queue __guard x cat", "queue __exec 1"]
        {
            assert!(hidden(line.split(' ').map(OsString::from)).is_none(), "{line}");
        }
    }

    #[test]
    fn the_parent_must_be_the_one_that_is_named() {
        let code = exec(1, "/bin/true".into(), Vec::new());
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(NOT_RUNNABLE)));
    }
}
