//! Every developer habit of the queue as `cargo xtask …`.
//!
//! *Architecture Invariant:* nothing here must have been installed by hand. What a command needs beyond the
//! Rust toolchain (servers, LLVM's coverage tools, linters) it fetches itself into the target directory, from
//! the registries that this machine already uses, and says so where one cannot be had.

mod bench;
mod chaos;
mod coverage;
mod debian;
mod failover;
mod interrupt;
mod lint;
mod process;
mod rust_source;
mod server;
mod test;
mod tools;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::server::dev::{DevAction, DevEngine};
use crate::workspace::Workspace;

/// Developer habits of the queue.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every test against real MySQL and MariaDB (and OceanBase where it can be had), and hold the coverage floors
    Test(test::TestArgs),
    /// As `test`, and list the lines that no test reached (text and HTML under target/coverage)
    Coverage(test::TestArgs),
    /// Kill, freeze, cut and confuse real workers and a real server, and check that nothing is lost or done twice
    Chaos(chaos::ChaosArgs),
    /// Formatting, clippy, docs, dependency arrows, SQL rules, licences, spelling
    Lint(lint::LintArgs),
    /// `lint`, `bench --counts`, then `test`: what CI runs
    Ci,
    /// Kill the primary of a replication group under load, again and again
    Failover(failover::FailoverArgs),
    /// Run `queue bench` of this tree, or of a commit and this tree in turn; or count instructions
    Bench(bench::BenchArgs),
    /// A real server for development that outlives the command
    Db {
        /// What to do
        action: DevAction,
        /// Which engine
        #[arg(default_value = "mysql")]
        engine: DevEngine,
    },
    /// The real pool in virtual time on a store that goes wrong, one history a seed: --seeds N, --seed S or --broken N
    Simulate {
        /// As the simulation takes them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Internal: become PROGRAM, tied to the life of the process that started it
    #[command(name = server::guard::COMMAND, hide = true)]
    Guard {
        life: server::guard::Life,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        program: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    if let Command::Guard { life, program } = command {
        return server::guard::become_program(life, &program);
    }
    interrupt::listen()?;
    let workspace = Workspace::load()?;
    match command {
        Command::Test(args) => test::run(&workspace, &args, coverage::Report::Floors),
        Command::Coverage(args) => test::run(&workspace, &args, coverage::Report::Lines),
        Command::Chaos(args) => chaos::run(&workspace, &args),
        Command::Lint(args) => lint::run(&workspace, &args),
        Command::Ci => {
            lint::run(&workspace, &lint::LintArgs::default())?;
            bench::run(&workspace, &bench::BenchArgs::counts())?;
            test::run(&workspace, &test::TestArgs::default(), coverage::Report::Floors)
        }
        Command::Failover(args) => failover::run(&workspace, &args),
        Command::Bench(args) => bench::run(&workspace, &args),
        Command::Db { action, engine } => server::dev::run(&workspace, action, engine),
        Command::Simulate { arguments } => {
            let mut simulate = workspace.cargo("run");
            simulate.args(["--quiet", "-p", "queue-tests", "--example", "simulate", "--"]).args(arguments);
            process::run(&mut simulate)
        }
        Command::Guard { .. } => unreachable!("handled before the workspace is read"),
    }
}
