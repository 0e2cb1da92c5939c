//! `cargo xtask chaos`: the long form of the chaos run, on servers of its own.

use std::hash::{BuildHasher, RandomState};
use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::server::dev::DevEngine;
use crate::server::own::OwnServer;
use crate::server::{self, Kind};
use crate::test::Build;
use crate::workspace::Workspace;
use crate::{interrupt, process};

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
    let built = Build::binaries_of(workspace, &["queue-cli", "queue-tests"])?;
    let (chaos, queue) = (built.binary("queue_chaos")?, built.binary("queue")?);
    server::sweep(&workspace.target);
    let kinds = args.engine.map_or_else(|| vec![Kind::Mysql, Kind::Mariadb], |engine| vec![engine.kind()]);
    let seed = args.seed.unwrap_or_else(|| RandomState::new().hash_one(0) % 1_000_000);
    let mut broken = Vec::new();
    for kind in kinds {
        let own = OwnServer::prepare(kind, &workspace.target)?;
        let mut command = Command::new(chaos);
        command.arg("run").arg("--recipe").arg(own.recipe()).arg("--queue").arg(queue);
        command.args(["--seconds", &(args.minutes * 60).to_string(), "--seed", &seed.to_string()]);
        if let Err(error) = process::run(&mut command) {
            interrupt::check()?;
            eprintln!("{error:#}");
            broken.push(kind.to_string());
        }
    }
    if !broken.is_empty() {
        bail!("promises were broken on {}; the same faults again: --seed {seed}", broken.join(" and "));
    }
    Ok(())
}
