//! The commands: each reads its arguments, acts through the runtime, and prints.

mod doctor;
mod enqueue;
mod migrate;
mod prune;
mod stats;
mod task;
mod work;

use crate::args::{Cli, Command};
use crate::bench;
use crate::database::Database;
use crate::demo;
use crate::failure::Outcome;
use crate::output::Output;

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
        Command::Doctor(args) => doctor::run(&database, &args, &mut output).await?,
        Command::Prune(args) => prune::run(&database, &args, &mut output).await?,
        Command::Demo(args) => demo::run(&database, &args, &mut output).await?,
        Command::Bench(args) => bench::run(&database, &args, &mut output).await?,
    }
    output.flush()
}
