//! A server of this run's own: a random port, a data directory that goes away and, for tests, settings that trade durability
//! for speed.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::guard::{self, Life};
use super::installation::{Installation, tail};
use super::{Kind, Server, wire};
use crate::{interrupt, process};

/// Nothing here must survive a power cut, and a suite that makes a database for each test is mostly fsync.
/// The binary log stays on: tests must see what it refuses.
const FAST: [&str; 5] = [
    "--innodb-flush-log-at-trx-commit=2",
    "--sync-binlog=0",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=0",
    "--innodb-buffer-pool-size=256M",
];
const START_LIMIT: Duration = Duration::from_secs(120);

/// An installation with a fresh data directory, ready to start.
#[derive(Debug)]
pub(crate) struct Prepared {
    kind: Kind,
    installation: Installation,
    home: Home,
    options: &'static [&'static str],
}

impl Prepared {
    /// Makes the data directory under `runs`.
    pub(crate) fn new(kind: Kind, installation: Installation, runs: &Path) -> Result<Self> {
        let home = Home(runs.join(format!("{}-{}", std::process::id(), kind.url_variable().to_lowercase())));
        installation.set_up(&home.0)?;
        Ok(Self { kind, installation, home, options: &FAST })
    }

    /// The same with the engine's own settings, which lose nothing that was acknowledged.
    pub(crate) fn durable(self) -> Self {
        Self { options: &[], ..self }
    }

    /// Starts it. To be called on the main thread: the server dies with the thread that started it.
    pub(crate) fn start(self) -> Result<Server> {
        let Self { kind, installation, home, options } = self;
        let mut attempts = 3; // between the search for a port and its use somebody else may take it
        loop {
            attempts -= 1;
            let port = free_port()?;
            match start_at(&installation, &home.0, port, options) {
                Ok(process) => {
                    let source = installation.source.clone();
                    return Server::reach(kind, kind.url(port), source, Some(Box::new((process, home))));
                }
                Err(error) if attempts == 0 => return Err(error),
                Err(_) => interrupt::check()?,
            }
        }
    }
}

/// Removes what earlier runs under `runs` could not, because they were killed.
pub(crate) fn sweep(runs: &Path) {
    for entry in fs::read_dir(runs).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_string_lossy().split('-').next().and_then(|pid| pid.parse().ok());
        let alive = owner.is_some_and(|pid| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok());
        if !alive {
            let _ = fs::remove_dir_all(entry.path()); // the next run tries again
        }
    }
}

/// A free port of 127.0.0.1 below 32768, where no outgoing connection takes one.
pub(crate) fn free_port() -> Result<u16> {
    for _ in 0..200 {
        let random = RandomState::new().hash_one(0) % 10_000;
        let port = 20_000 + u16::try_from(random).expect("below 10,000");
        if is_free(port) {
            return Ok(port);
        }
    }
    bail!("no free port between 20000 and 30000 on 127.0.0.1")
}

/// Whether nobody listens on `port`.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// A socket for `port`: its path must be short, which a target directory's need not be.
pub(crate) fn socket(port: u16) -> PathBuf {
    std::env::temp_dir().join(format!("queue-xtask-{port}.sock"))
}

/// Waits until the server that `child` is greets on `port`.
pub(crate) fn await_greeting(child: &mut Child, port: u16, log: &Path) -> Result<()> {
    let start = process::now();
    loop {
        interrupt::check()?;
        if wire::greeting(&format!("127.0.0.1:{port}")).is_ok() {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            bail!("the server ended while starting ({status}):\n{}", tail(log));
        }
        if start.elapsed() > START_LIMIT {
            bail!("the server does not answer after {} s:\n{}", START_LIMIT.as_secs(), tail(log));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn start_at(installation: &Installation, home: &Path, port: u16, options: &[&str]) -> Result<Running> {
    let log = home.join("log");
    let file = File::create(&log)?;
    let words = installation.serve(home, port, &socket(port), options);
    let child = guard::command(Life::Tied, &words)?
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn_in_own_group()
        .with_context(|| format!("cannot start {}", installation.source))?;
    let mut running = Running { child, port };
    await_greeting(&mut running.child, port, &log)?;
    Ok(running)
}

trait OwnGroup {
    fn spawn_in_own_group(&mut self) -> std::io::Result<Child>;
}

impl OwnGroup for std::process::Command {
    /// Ctrl-C in the terminal must not reach the server before the tests have ended.
    fn spawn_in_own_group(&mut self) -> std::io::Result<Child> {
        std::os::unix::process::CommandExt::process_group(self, 0).spawn()
    }
}

/// The server's process; its data is worth nothing, so it need not end gracefully.
#[derive(Debug)]
struct Running {
    child: Child,
    port: u16,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // fails only if it has ended
        let _ = self.child.wait();
        let _ = fs::remove_file(socket(self.port));
        let _ = fs::remove_file(socket(self.port).with_extension("sock.lock"));
    }
}

/// A data directory that goes away with this value.
#[derive(Debug)]
pub(super) struct Home(pub(super) PathBuf);

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // `sweep` of the next run tries again
    }
}
