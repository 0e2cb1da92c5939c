//! What is logged, to standard error.

use std::env;
use std::io;

use tracing_subscriber::EnvFilter;

use crate::args::Command;
use crate::failure::{Failure, Outcome};
use crate::output::watched;

const LEVEL_VARIABLE: &str = "QUEUE_LOG";

/// Starts logging at the level that QUEUE_LOG says; else warnings, and what a worker does when a person watches it.
pub(crate) fn start(command: &Command) -> Outcome {
    let usual = if matches!(command, Command::Work(_)) && watched() { "info" } else { "warn" };
    install(usual)
}

/// Starts logging with this level when QUEUE_LOG says nothing.
pub(crate) fn install(usual: &str) -> Outcome {
    let said = env::var(LEVEL_VARIABLE).ok().filter(|said| !said.trim().is_empty());
    let filter = EnvFilter::try_new(said.as_deref().unwrap_or(usual)).map_err(|_| {
        Failure::usage(format!("{LEVEL_VARIABLE} is not a log level")).hint(format!("{LEVEL_VARIABLE}=info"))
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    Ok(())
}
