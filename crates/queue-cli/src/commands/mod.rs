//! The commands: each reads its arguments, acts through the runtime, and prints.

mod doctor;
mod enqueue;
mod migrate;
mod pause;
mod prune;
mod stats;
mod task;
mod work;
mod worker;

use std::env;

use crate::args::{Cli, Command};
use crate::bench;
use crate::database::Database;
use crate::demo;
use crate::failure::Outcome;
use crate::output::Output;

/// Who the audit says it was.
fn actor() -> String {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| env::var(name).ok()).filter(|user| !user.is_empty());
    user.unwrap_or_else(|| "cli".to_owned())
}

/// Runs a command.
pub(crate) async fn run(cli: Cli) -> Outcome {
    let database = Database::named(&cli.global)?;
    let mut output = Output::new(cli.global.json);
    match cli.command {
        Command::Migrate(args) => migrate::run(&database, &args, &mut output).await?,
        Command::Enqueue(args) => enqueue::run(&database, *args, &mut output).await?,
        Command::Work(args) => work::run(&database, *args, &mut output).await?,
        Command::Task(args) => task::run(&database, args, &mut output).await?,
        Command::Stats => stats::run(&database, &mut output).await?,
        Command::Pause(args) => pause::run(&database, args.queue, Some(args.why), &mut output).await?,
        Command::Resume { queue } => pause::run(&database, queue, None, &mut output).await?,
        Command::Worker(args) => worker::run(&database, args, &mut output).await?,
        Command::Doctor(args) => doctor::run(&database, &args, &mut output).await?,
        Command::Prune(args) => prune::run(&database, &args, &mut output).await?,
        Command::Demo(args) => demo::run(&database, &args, &mut output).await?,
        Command::Bench(args) => bench::run(&database, &args, &mut output).await?,
    }
    output.flush()
}
