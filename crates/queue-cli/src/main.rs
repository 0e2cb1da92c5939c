//! `queue`: enqueue tasks, work on them with programs of any language, look at them, and see a demonstration.
//!
//! A thin room over `queue-runtime`. Promises: each failure is one `error:` line, with a `try:` line where something
//! helps, and a documented exit code; no password is ever printed, logged or handed to a program; stored text cannot act on a
//! terminal.

mod args;
mod batch;
mod bench;
mod commands;
mod database;
mod demo;
mod duration;
mod exec;
mod failure;
mod logging;
mod output;
mod progress;
mod time;
mod url;
mod usage;

use std::process::ExitCode;

use crate::failure::{Code, Failure};

fn main() -> ExitCode {
    // Before anything else: these stand between a worker and a program, and must be small and quick.
    if let Some(code) = exec::guard::hidden(std::env::args_os()) {
        return code;
    }
    if let Some(code) = demo::hidden(std::env::args_os()).or_else(|| bench::hidden(std::env::args_os())) {
        return code;
    }
    let cli = match usage::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let run = || {
        logging::start(&cli.command)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
        runtime.block_on(commands::run(cli))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if failure.code() != Code::Quiet {
                failure::tell(&failure);
            }
            ExitCode::from(failure.code() as u8)
        }
    }
}
