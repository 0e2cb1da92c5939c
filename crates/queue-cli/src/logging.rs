//! What is logged, to standard error.

use std::env;
use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

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
    let filter = filter(said.as_deref().unwrap_or(usual)).ok_or_else(|| {
        Failure::usage(format!("{LEVEL_VARIABLE} is not a log level; use error, warn, info, debug or trace"))
            .hint(format!("{LEVEL_VARIABLE}=info"))
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    Ok(())
}

/// A level, or levels for parts of the program: `info,sqlx=debug`.
fn filter(said: &str) -> Option<EnvFilter> {
    // A word that is no level would name a part of the program, and silence all the others.
    let is_level = |word: &str| word.contains(['=', '[']) || word.trim().parse::<LevelFilter>().is_ok();
    EnvFilter::try_new(said).ok().filter(|_| said.split(',').all(is_level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_silences_nothing() {
        for level in ["info", "DEBUG", "off", " warn ", "info,sqlx=debug", "warn,queue_runtime[task]=trace"] {
            assert!(filter(level).is_some(), "{level}");
        }
        for word in ["verbose", "warning", "info,chatty", "lo=ud=er"] {
            assert!(filter(word).is_none(), "{word}");
        }
    }
}
