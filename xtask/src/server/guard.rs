//! A server must not outlive the command that started it, however that command ends. xtask starts itself once
//! more, ties that process to its parent's life, and becomes the server: no unsafe code, no watchdog.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

/// The hidden subcommand that does it.
pub(crate) const COMMAND: &str = "__guard";

/// How long the program is to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Life {
    /// It dies with the thread that started it.
    Tied,
    /// It outlives its parent and leaves its terminal.
    Free,
}

/// A command that becomes `words` under `life`.
pub(crate) fn command(life: Life, words: &[OsString]) -> Result<Command> {
    let exe = std::env::current_exe().context("cannot find xtask's own program")?;
    let mut command = Command::new(exe);
    command.arg(COMMAND).arg(match life {
        Life::Tied => "tied",
        Life::Free => "free",
    });
    command.args(words).env("XTASK_PARENT", std::process::id().to_string()).env_remove("LD_LIBRARY_PATH");
    Ok(command)
}

/// The command line that becomes `words` under `life`, for others to start: they set `XTASK_PARENT` to their process id.
pub(crate) fn words(life: Life, words: &[OsString]) -> Result<Vec<OsString>> {
    let command = command(life, words)?;
    Ok(std::iter::once(command.get_program()).chain(command.get_args()).map(OsString::from).collect())
}

/// What the hidden subcommand does; returns only if it cannot.
pub(crate) fn become_program(life: Life, words: &[OsString]) -> Result<()> {
    match life {
        Life::Free => drop(nix::unistd::setsid()), // an error says that it leads a session already
        Life::Tied => tie()?,
    }
    let (program, arguments) = words.split_first().context("no program")?;
    let error = Command::new(program).args(arguments).env_remove("XTASK_PARENT").env_remove("LD_LIBRARY_PATH").exec();
    bail!("cannot start {}: {error}", program.display());
}

#[cfg(target_os = "linux")]
fn tie() -> Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).context("cannot set the parent-death signal")?;
    let parent = std::env::var("XTASK_PARENT").unwrap_or_default();
    if nix::unistd::getppid().to_string() != parent {
        bail!("the process that wanted this server is gone");
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn tie() -> Result<()> {
    Ok(()) // there is no such signal; Ctrl-C and the ordinary ways out still stop the server
}
