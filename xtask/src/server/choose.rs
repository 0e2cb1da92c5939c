//! Which server each kind gets: the first of the order of preference that is there.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::installation::Installation;
use super::local::Prepared;
use super::{Kind, Server, docker};
use crate::process;
use crate::workspace::is_ci;

/// How long an engine may take to answer, and a registry to hand over an image.
const DOCKER_LIMIT: Duration = Duration::from_secs(10);
const PULL_LIMIT: Duration = Duration::from_secs(180);

/// A server that can be had, not started yet.
#[derive(Debug)]
pub(crate) enum Choice {
    /// The environment names one.
    Running(Kind, String),
    /// An image is on this machine.
    Container(Kind),
    /// A program and its fresh data directory.
    Program(Box<Prepared>),
}

impl Choice {
    /// Starts it, or makes sure that it runs. To be called on the main thread.
    pub(crate) fn start(self) -> Result<Server> {
        match self {
            Self::Running(kind, url) => {
                let variable = kind.url_variable();
                Server::reach(kind, url, variable.to_owned(), None).with_context(|| format!("{variable} is set"))
            }
            Self::Container(kind) => docker::start(kind),
            Self::Program(prepared) => prepared.start(),
        }
    }
}

/// One server of each kind. MariaDB's second release is left out where it cannot be had (not in CI), and where the
/// environment names the first alone.
pub(crate) fn choose(target: &Path) -> Result<Vec<Choice>> {
    super::sweep(target);
    let mysql = choose_one(Kind::Mysql, target)?;
    let mariadb = choose_one(Kind::Mariadb, target)?;
    let named = matches!(mariadb, Choice::Running(..)) && std::env::var_os(Kind::MariadbLts.url_variable()).is_none();
    let lts = if named {
        println!("{} is set alone: one MariaDB is tested, the one that it names", Kind::Mariadb.url_variable());
        None
    } else {
        match choose_one(Kind::MariadbLts, target) {
            Ok(choice) => Some(choice),
            Err(error) if is_ci() => return Err(error),
            Err(error) => {
                println!("a second MariaDB is not tested: {error:#}");
                None
            }
        }
    };
    Ok([Some(mysql), Some(mariadb), lts].into_iter().flatten().collect())
}

/// OceanBase, where the environment names one or its one-node build can be had. No container: the wheel is quicker.
pub(crate) fn choose_oceanbase(target: &Path) -> Result<Choice> {
    let kind = Kind::OceanBase;
    if let Ok(url) = std::env::var(kind.url_variable()) {
        return Ok(Choice::Running(kind, url.trim_end_matches('/').to_owned()));
    }
    let installation = Installation::unpacked(kind, &target.join("servers"))?;
    Ok(Choice::Program(Box::new(Prepared::new(kind, installation, &target.join("test-servers"))?)))
}

/// A server of this run's own that is durable as in production; it ends, and its data goes, when it is dropped. To be called on the
/// main thread.
pub(crate) fn durable(kind: Kind, target: &Path) -> Result<Server> {
    super::sweep(target);
    let installation = Installation::installed(kind)
        .or_else(|_| Installation::unpacked(kind, &target.join("servers")))
        .with_context(|| format!("no {kind} of our own can be had; name a database, or install {}", kind.program()))?;
    Prepared::new(kind, installation, &target.join("test-servers"))?.durable().start()
}

/// Whether a container is the choice for some kind, so that xtask needs its feature `docker`.
pub(crate) fn wants_container() -> bool {
    engine_answers().is_ok()
        && Kind::ALL.iter().any(|kind| std::env::var_os(kind.url_variable()).is_none() && image(*kind).is_ok())
}

fn choose_one(kind: Kind, target: &Path) -> Result<Choice> {
    let variable = kind.url_variable();
    if let Ok(url) = std::env::var(variable) {
        return Ok(Choice::Running(kind, url.trim_end_matches('/').to_owned()));
    }
    let runs = target.join("test-servers");
    let mut tried = vec![format!("{variable} is not set")];
    match engine_answers().and_then(|()| image(kind)) {
        Ok(()) => return Ok(Choice::Container(kind)),
        Err(error) => tried.push(format!("{error:#}")),
    }
    // The second MariaDB is there for its release, which an installed program need not have.
    if kind != Kind::MariadbLts {
        match Installation::installed(kind).and_then(|installation| Prepared::new(kind, installation, &runs)) {
            Ok(prepared) => return Ok(Choice::Program(Box::new(prepared))),
            Err(error) => tried.push(format!("{error:#}")),
        }
    }
    let unpacked = Installation::unpacked(kind, &target.join("servers"));
    match unpacked.and_then(|installation| Prepared::new(kind, installation, &runs)) {
        Ok(prepared) => Ok(Choice::Program(Box::new(prepared))),
        Err(error) => {
            tried.push(format!("{error:#}"));
            let image = kind.image();
            Err(anyhow!(
                "no {kind} server can be had:\n  - {}\ntry: {variable}=mysql://user:password@host:port (a user with all \
                 rights), or `docker pull {image}`, or install {}",
                tried.join("\n  - "),
                kind.program()
            ))
        }
    }
}

fn engine_answers() -> Result<()> {
    let mut command = Command::new("docker");
    command.args(["version", "--format", "{{.Server.Version}}"]);
    let answer = process::output_within(&mut command, DOCKER_LIMIT)?;
    answer.filter(|output| output.status.success()).map(drop).context("no Docker engine answers")
}

fn image(kind: Kind) -> Result<()> {
    let image = kind.image();
    let mut inspect = Command::new("docker");
    inspect.args(["image", "inspect", &image]);
    if process::output_within(&mut inspect, DOCKER_LIMIT)?.is_some_and(|output| output.status.success()) {
        return Ok(());
    }
    println!("pulling {image} (at most {} s)", PULL_LIMIT.as_secs());
    let mut pull = Command::new("docker");
    pull.args(["pull", "--quiet", &image]);
    let pulled = process::output_within(&mut pull, PULL_LIMIT)?;
    pulled
        .filter(|output| output.status.success())
        .map(drop)
        .with_context(|| format!("the image {image} is not on this machine and cannot be pulled"))
}
