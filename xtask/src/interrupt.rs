//! Ctrl-C and its kin: end what runs now, so that the ordinary way out (and every `Drop` on it) still happens.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Starts to listen. The first signal ends the process groups that are running and lets the command clean up;
/// a second one leaves at once (servers then die of their parent-death signal).
pub(crate) fn listen() -> Result<()> {
    let mut signals =
        signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot listen for signals")?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for _ in signals.forever() {
                if INTERRUPTED.swap(true, Ordering::SeqCst) {
                    end_groups(Signal::SIGKILL);
                    std::process::exit(130);
                }
                eprintln!("interrupted: stopping (once more to stop at once)");
                end_groups(Signal::SIGTERM);
            }
        })
        .context("cannot start the thread that waits for signals")?;
    Ok(())
}

/// An error once a signal has come, so that loops end.
pub(crate) fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) {
        bail!("interrupted");
    }
    Ok(())
}

/// A process group that a signal ends, for as long as this lives; whatever is left of it dies with this value.
#[derive(Debug)]
pub(crate) struct Group(i32);

impl Group {
    /// Watches the group that the process `leader` leads.
    pub(crate) fn watch(leader: u32) -> Self {
        let id = i32::try_from(leader).expect("process ids fit in 31 bits");
        GROUPS.lock().expect("no panic under this lock").insert(id);
        if INTERRUPTED.load(Ordering::SeqCst) {
            end(id, Signal::SIGTERM); // it was started after the signal's round
        }
        Self(id)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        GROUPS.lock().expect("no panic under this lock").remove(&self.0);
        end(self.0, Signal::SIGKILL);
    }
}

fn end_groups(signal: Signal) {
    for &id in GROUPS.lock().expect("no panic under this lock").iter() {
        end(id, signal);
    }
}

fn end(group: i32, signal: Signal) {
    // No such group: it has ended already, which is all that is wanted.
    let _ = killpg(Pid::from_raw(group), signal);
}
