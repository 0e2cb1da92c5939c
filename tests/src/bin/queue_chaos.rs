//! The chaos run as a program: `queue_chaos run`, which starts itself again as `work`, `produce` and `exec` for the processes
//! of the run. `cargo xtask chaos` builds and starts it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use queue_tests::chaos::{self, Ended, Plan, ServerRecipe, Storm};

#[derive(Debug, Parser)]
#[command(name = "queue_chaos")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the chaos on a server of its own, and check that every promise was kept
    Run {
        /// A file that says how the server is started, as JSON
        #[arg(long)]
        recipe: PathBuf,
        /// The program `queue`
        #[arg(long)]
        queue: PathBuf,
        /// How long, in seconds, the calm at the end included
        #[arg(long, default_value_t = 40)]
        seconds: u64,
        /// The seed of the faults
        #[arg(long)]
        seed: u64,
        /// The lease of the workers, in milliseconds
        #[arg(long, default_value_t = 2_000)]
        lease_ms: u64,
    },
    /// Internal: a worker
    #[command(hide = true)]
    Work { url: String, folder: PathBuf, name: String, lease_ms: u64 },
    /// Internal: a producer
    #[command(hide = true)]
    Produce { url: String, folder: PathBuf, id: u64, seed: u64 },
    /// Internal: what `queue work --exec` runs
    #[command(hide = true)]
    Exec { folder: PathBuf },
}

fn main() -> Result<ExitCode> {
    let command = Cli::parse().command;
    let mut runtime = match command {
        Command::Exec { .. } => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    runtime.enable_all().build()?.block_on(perform(command))
}

async fn perform(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run { recipe, queue, seconds, seed, lease_ms } => {
            run(recipe, queue, seed, Duration::from_secs(seconds), Duration::from_millis(lease_ms)).await
        }
        Command::Work { url, folder, name, lease_ms } => {
            let ended = chaos::work(&url, &folder, &name, Duration::from_millis(lease_ms)).await;
            Ok(match ended.map_err(|error| anyhow::anyhow!("{error}"))? {
                Ended::Stopped => ExitCode::SUCCESS,
                Ended::NotStarted => ExitCode::from(chaos::NOT_STARTED),
            })
        }
        Command::Produce { url, folder, id, seed } => {
            let ended = chaos::produce(&url, &folder, id, seed).await;
            ended.map(|()| ExitCode::SUCCESS).map_err(|error| anyhow::anyhow!("{error}"))
        }
        Command::Exec { folder } => {
            let ended = chaos::exec(&folder).await;
            ended.map(|()| ExitCode::SUCCESS).map_err(|error| anyhow::anyhow!("{error}"))
        }
    }
}

async fn run(recipe: PathBuf, queue: PathBuf, seed: u64, length: Duration, lease: Duration) -> Result<ExitCode> {
    let text = std::fs::read(&recipe).with_context(|| format!("cannot read {}", recipe.display()))?;
    let server: ServerRecipe = serde_json::from_slice(&text).context("that is no recipe of a server")?;
    let left_out: Vec<_> = server.left_out().into_iter().map(|(fault, _)| fault).collect();
    let plan = Plan::new(seed, length, lease, &left_out);
    println!("{}: {plan}", server.name);
    let folder = tempfile::Builder::new().prefix("queue_chaos-").tempdir()?;
    let storm = Storm { server, plan, program: std::env::current_exe()?, queue, folder: folder.path().to_owned() };
    let report = match chaos::run(storm).await {
        Ok(report) => report,
        Err(error) => {
            println!("histories and logs are kept in {}", folder.keep().display());
            return Err(error);
        }
    };
    println!("{report}");
    if report.is_good() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("histories and logs are kept in {}; the faults again: --seed {seed}", folder.keep().display());
    Ok(ExitCode::FAILURE)
}
