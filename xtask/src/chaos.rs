//! `cargo xtask chaos`: the long form of the chaos run, on servers of its own.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::process;
use crate::server::dev::DevEngine;
use crate::server::own::OwnServer;
use crate::server::{self, Kind};
use crate::workspace::Workspace;

/// What `chaos` is told.
#[derive(Debug, Args)]
pub(crate) struct ChaosArgs {
    /// How long, on each engine
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1_440))]
    minutes: u64,
    /// Only this engine [default: first MySQL, then MariaDB]
    #[arg(long)]
    engine: Option<DevEngine>,
    /// The seed of the faults, as an earlier run told it [default: another each time]
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs `cargo xtask chaos`.
pub(crate) fn run(workspace: &Workspace, args: &ChaosArgs) -> Result<()> {
    let programs = build(workspace)?;
    let program = |name: &str| programs.get(name).with_context(|| format!("the build made no program {name}"));
    let (chaos, queue) = (program("queue-chaos")?, program("queue")?);
    server::sweep(&workspace.target);
    let kinds = match args.engine {
        Some(DevEngine::Mysql) => vec![Kind::Mysql],
        Some(DevEngine::Mariadb) => vec![Kind::Mariadb],
        None => vec![Kind::Mysql, Kind::Mariadb],
    };
    let seed = args.seed.unwrap_or_else(|| RandomState::new().hash_one(0) % 1_000_000);
    let mut broken = Vec::new();
    for kind in kinds {
        let own = OwnServer::prepare(kind, &workspace.target)?;
        let mut command = Command::new(chaos);
        command.arg("run").arg("--recipe").arg(own.recipe()).arg("--queue").arg(queue);
        command.args(["--seconds", &(args.minutes * 60).to_string(), "--seed", &seed.to_string()]);
        if let Err(error) = process::run(&mut command) {
            crate::interrupt::check()?;
            eprintln!("{error:#}");
            broken.push(kind.to_string());
        }
    }
    if !broken.is_empty() {
        bail!("promises were broken on {}; the same faults again: --seed {seed}", broken.join(" and "));
    }
    Ok(())
}

/// Builds the programs of the run.
fn build(workspace: &Workspace) -> Result<BTreeMap<String, PathBuf>> {
    let mut command = workspace.cargo("build");
    command.args(["--package", "queue-cli", "--package", "queue-tests", "--bins", "--message-format"]);
    command.arg("json-render-diagnostics");
    let mut programs = BTreeMap::new();
    let built = process::lines(&mut command, |line| {
        let Ok(message) = serde_json::from_str::<Value>(line) else { return };
        if let (Some(name), Some(program)) = (message["target"]["name"].as_str(), message["executable"].as_str()) {
            programs.insert(name.to_owned(), PathBuf::from(program));
        }
    })?;
    if !built {
        bail!("`{}` failed", process::describe(&command));
    }
    Ok(programs)
}
