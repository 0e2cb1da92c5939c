//! `cargo xtask failover`: the primary of a replication group is killed under load, and the queue follows.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::process;
use crate::server::group_program;
use crate::test::Build;
use crate::workspace::Workspace;

/// The test's program and its name.
const NAME: &str = "failover";
const TIMES_DEFAULT: u32 = 10;

/// What `failover` is told.
#[derive(Debug, Args)]
pub(crate) struct FailoverArgs {
    /// How often the primary is killed
    #[arg(long, value_name = "N", default_value_t = TIMES_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
}

/// Runs `cargo xtask failover`.
pub(crate) fn run(workspace: &Workspace, args: &FailoverArgs) -> Result<()> {
    let program = group_program(&workspace.target)?;
    let mut build = workspace.cargo("test");
    build.args(["--package", "queue-tests", "--test", NAME]);
    let built = Build::from_command(build)?;
    let mut command = command(&built, &program, &workspace.target, args.times)?;
    process::run(&mut command).context("the failover test failed")
}

/// The command that runs the test of this build.
pub(crate) fn command(built: &Build, program: &[OsString], target: &Path, times: u32) -> Result<Command> {
    let (test, folder) = built.test(NAME).context("the build made no failover test")?;
    let data = target.join("test-servers");
    fs::create_dir_all(&data)?;
    let words: Vec<_> = program.iter().map(|word| word.to_string_lossy()).collect();
    let mut command = Command::new(test);
    command
        .args([NAME, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .current_dir(folder)
        .env("CARGO_MANIFEST_DIR", folder)
        .env("TEST_GROUP_PROGRAM", words.join("\n"))
        .env("TEST_GROUP_FOLDER", data)
        .env("QUEUE_FAILOVER_TIMES", times.to_string());
    Ok(command)
}
