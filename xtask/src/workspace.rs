//! The workspace as `cargo metadata` tells it: where it is, where builds go, and who depends on whom.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;

/// The workspace that this command works on.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The folder of the root `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Where builds go, and under it whatever xtask fetches or makes.
    pub(crate) target: PathBuf,
    /// The whole answer of `cargo metadata`.
    pub(crate) metadata: Value,
}

impl Workspace {
    /// Asks Cargo about the workspace that xtask belongs to.
    pub(crate) fn load() -> Result<Self> {
        let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        let text = process::output(
            Command::new(cargo_program())
                .args(["metadata", "--format-version=1", "--no-deps", "--manifest-path"])
                .arg(&manifest),
        )?;
        let metadata: Value = serde_json::from_str(&text).context("cargo metadata printed no JSON")?;
        let path = |key: &str| -> Result<PathBuf> {
            Ok(metadata[key].as_str().with_context(|| format!("cargo metadata without {key}"))?.into())
        };
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")?, metadata })
    }

    /// A `cargo` command in the root of the workspace.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = Command::new(cargo_program());
        command.arg(subcommand).current_dir(&self.root);
        if std::env::var_os("CARGO_TARGET_DIR").is_some() {
            command.env("CARGO_TARGET_DIR", &self.target); // it may have been relative to another folder
        }
        if is_ci() {
            command.env("CARGO_INCREMENTAL", "0");
        }
        // `cargo run` set these for xtask; a build below it must not see them, or it differs from one outside.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "LD_LIBRARY_PATH" {
                command.env_remove(&*name);
            }
        }
        command
    }

    /// Waits until no other command holds `name`; it is held until the returned file is dropped.
    pub(crate) fn lock(&self, name: &str) -> Result<File> {
        fs::create_dir_all(&self.target)?;
        let path = self.target.join(format!("{name}.lock"));
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        if file.try_lock().is_err() {
            println!("waiting for another `cargo xtask {name}`");
            file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Ok(file)
    }

    /// The packages of the workspace, as Cargo describes them.
    pub(crate) fn packages(&self) -> impl Iterator<Item = &Value> {
        self.metadata["packages"].as_array().into_iter().flatten()
    }
}

/// Whether this run is a CI's, where nothing may be left out.
pub(crate) fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false" && value != "0")
}

fn cargo_program() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
