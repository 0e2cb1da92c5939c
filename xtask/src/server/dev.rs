//! `cargo xtask db`: a real server for development, durable as in production, that outlives the command.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::guard::{self, Life};
use super::installation::{Installation, tail};
use super::local::{await_greeting, free_port, is_free, socket};
use super::{Kind, oceanbase, wire};
use crate::workspace::Workspace;
use crate::{interrupt, process};

/// The database that every server of ours but OceanBase's starts with.
pub(crate) const DATABASE: &str = "queue";
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What to do with the server.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum DevAction {
    /// Start it, unless it runs, and print its URL
    Start,
    /// Stop it, unless it is stopped; its data stays under target/dev-db
    Stop,
    /// Print its URL
    Url,
}

/// Which engine.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum DevEngine {
    /// The newest MySQL that can be had
    Mysql,
    /// The oldest MariaDB that can be had
    Mariadb,
    /// OceanBase's one-node build, seekdb
    Oceanbase,
}

impl DevEngine {
    /// The kind of server that it is.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Mysql => Kind::Mysql,
            Self::Mariadb => Kind::Mariadb,
            Self::Oceanbase => Kind::OceanBase,
        }
    }
}

/// Runs `cargo xtask db`.
pub(crate) fn run(workspace: &Workspace, action: DevAction, engine: DevEngine) -> Result<()> {
    let (name, port) = match engine {
        DevEngine::Mysql => ("mysql", 23_306),
        DevEngine::Mariadb => ("mariadb", 23_307),
        DevEngine::Oceanbase => ("oceanbase", 23_308),
    };
    let server = DevServer { name, kind: engine.kind(), home: workspace.target.join("dev-db").join(name) };
    match action {
        DevAction::Start => server.start(&workspace.target, port),
        DevAction::Stop => server.stop(),
        DevAction::Url => {
            let Some((_, port)) = server.running() else {
                bail!("no {name} of `cargo xtask db` runs\ntry: cargo xtask db start {name}");
            };
            println!("{}", server.url(port));
            Ok(())
        }
    }
}

struct DevServer {
    name: &'static str,
    kind: Kind,
    home: PathBuf,
}

impl DevServer {
    fn start(&self, target: &Path, preferred: u16) -> Result<()> {
        if self.running().is_none() {
            let installation = Installation::installed(self.kind)
                .or_else(|_| Installation::unpacked(self.kind, &target.join("servers")))
                .with_context(|| {
                    let (program, image) = (self.kind.program(), self.kind.image());
                    format!("no {} can be had; install {program}, or run a container of {image} yourself", self.kind)
                })?;
            installation.set_up(&self.home)?;
            let remembered = fs::read_to_string(self.home.join("port")).ok().and_then(|port| port.parse().ok());
            let wanted = [remembered, Some(preferred)].into_iter().flatten().find(|port| is_free(*port));
            let port = wanted.map_or_else(free_port, Ok)?;
            self.launch(&installation, port)?;
        }
        let (pid, port) = self.running().context("the server ended right after it had started")?;
        let version = wire::version_at(&self.kind.url(port))?;
        println!("{}", self.url(port));
        // OceanBase greets as the MySQL that it resembles.
        let version = if self.kind == Kind::OceanBase { oceanbase::SOURCE } else { version.as_str() };
        eprintln!("{} {version}, process {pid}, log {}", self.name, self.home.join("log").display());
        Ok(())
    }

    /// The URL of the database that it starts with.
    fn url(&self, port: u16) -> String {
        let database = if self.kind == Kind::OceanBase { "test" } else { DATABASE };
        format!("{}/{database}", self.kind.url(port))
    }

    fn launch(&self, installation: &Installation, port: u16) -> Result<()> {
        let log = self.home.join("log");
        let file = File::create(&log)?;
        let words = installation.serve(&self.home, port, &socket(port), &[]);
        let mut child = guard::command(Life::Free, &words)?
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", installation.source))?;
        fs::write(self.home.join("port"), port.to_string())?;
        fs::write(self.home.join("process"), child.id().to_string())?;
        await_greeting(&mut child, port, &log)
    }

    fn stop(&self) -> Result<()> {
        let Some(pid) = self.process() else {
            eprintln!("{} does not run", self.name);
            return Ok(());
        };
        // OceanBase's build takes minutes to follow a friendly word, and recovers from the other as it must anyway.
        let signal = if self.kind == Kind::OceanBase { Signal::SIGKILL } else { Signal::SIGTERM };
        kill(pid, signal).with_context(|| format!("cannot stop process {pid}"))?;
        let start = process::now();
        while self.process().is_some() {
            interrupt::check()?;
            if start.elapsed() > STOP_LIMIT {
                kill(pid, Signal::SIGKILL).with_context(|| format!("cannot kill process {pid}"))?;
                bail!(
                    "{} did not stop in {} s and was killed; it recovers at the next start:\n{}",
                    self.name,
                    STOP_LIMIT.as_secs(),
                    tail(&self.home.join("log"))
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        eprintln!("{} is stopped", self.name);
        Ok(())
    }

    /// The process and the port, if it runs and answers.
    fn running(&self) -> Option<(Pid, u16)> {
        let pid = self.process()?;
        let port = fs::read_to_string(self.home.join("port")).ok()?.parse().ok()?;
        wire::version_at(&self.kind.url(port)).ok().map(|_| (pid, port))
    }

    /// The process, if it is alive and still ours: after a restart of the machine its number may be another's.
    fn process(&self) -> Option<Pid> {
        let pid: i32 = fs::read_to_string(self.home.join("process")).ok()?.parse().ok()?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).or_else(|_| {
            let output = Command::new("ps").args(["-ww", "-o", "args=", "-p", &pid.to_string()]).output();
            output.map(|output| output.stdout)
        });
        // A process that has ended and was not waited for has no command line.
        let line = String::from_utf8_lossy(&line.ok()?).into_owned();
        line.contains(&*self.home.to_string_lossy()).then(|| Pid::from_raw(pid))
    }
}
