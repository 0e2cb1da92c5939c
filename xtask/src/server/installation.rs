//! A server program on this machine, installed or unpacked, and how each engine is set up and started.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{Kind, PASSWORD, USER, oceanbase, wire};
use crate::debian::{Program, Unpacked};
use crate::process;

/// A server program that can be set up and started.
#[derive(Debug, Clone)]
pub(crate) struct Installation {
    kind: Kind,
    program: Program,
    /// `--basedir`.
    base: PathBuf,
    /// Error messages, character sets and, for MariaDB, the SQL that makes its system tables.
    share: PathBuf,
    /// Where it comes from, in words.
    pub(crate) source: String,
}

impl Installation {
    /// The one that is installed on this machine, if it is of `kind` and new enough; else why not.
    pub(crate) fn installed(kind: Kind) -> Result<Self> {
        if kind == Kind::OceanBase {
            bail!("an installed OceanBase is not looked for; name one by {}", kind.url_variable());
        }
        let name = kind.program();
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&paths)
            .chain(["/usr/sbin", "/usr/local/sbin", "/usr/libexec"].map(PathBuf::from))
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
            .with_context(|| format!("no {name} on the PATH or in /usr/sbin"))?;
        let answer = process::output(Command::new(&program).arg("--version"))?;
        if answer.contains("MariaDB") != kind.is_mariadb() {
            bail!("{} is not {kind}: {}", program.display(), answer.trim());
        }
        let version = answer.split_once("Ver ").map_or("", |(_, version)| version);
        if wire::numbers(version).is_none_or(|version| version < kind.floor()) {
            bail!("{} is too old: {}", program.display(), answer.trim());
        }
        let real = program.canonicalize()?;
        let base = real.parent().and_then(Path::parent).context("a program in no folder")?.to_owned();
        let share = share_of(kind, &base)?;
        let source = program.display().to_string();
        Ok(Self { kind, program: Program::plain(program), base, share, source })
    }

    /// The one in Debian's packages, or in Python's, unpacked under `servers`.
    pub(crate) fn unpacked(kind: Kind, servers: &Path) -> Result<Self> {
        let Some((suite, package)) = kind.debian() else {
            fs::create_dir_all(servers)?;
            let program = Program::of(oceanbase::program(servers)?);
            let (base, share) = (servers.to_owned(), servers.to_owned());
            return Ok(Self { kind, program, base, share, source: oceanbase::SOURCE.to_owned() });
        };
        let unpacked = Unpacked::fetch(suite, &servers.join(format!("{package}-{suite}")), &[package])?;
        let program = unpacked.program(&format!("usr/sbin/{}", kind.program()), &["mysql/private"])?;
        let base = unpacked.path("usr");
        let share = share_of(kind, &base)?;
        Ok(Self { kind, program, base, share, source: format!("Debian {suite}, unpacked") })
    }

    /// Makes an empty data directory under `home`, unless one is there.
    pub(crate) fn set_up(&self, home: &Path) -> Result<()> {
        let done = home.join("set-up");
        if done.is_file() {
            return Ok(());
        }
        if home.is_dir() {
            fs::remove_dir_all(home)?; // half made by a run that was cut short
        }
        fs::create_dir_all(home)?;
        if self.kind == Kind::OceanBase {
            fs::create_dir_all(home.join("data"))?; // it fills this by itself when it starts
            fs::write(done, "")?;
            return Ok(());
        }
        // Read at each start, one statement a line.
        fs::write(
            home.join("init.sql"),
            format!(
                "CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';\n\
                 GRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION;\n\
                 CREATE DATABASE IF NOT EXISTS {};\n",
                super::dev::DATABASE
            ),
        )?;
        let log = home.join("set-up.log");
        let file = File::create(&log)?;
        let mut command = self.program.command();
        command.args(self.options(home)).stdout(file.try_clone()?).stderr(file);
        if self.kind.is_mariadb() {
            fs::create_dir_all(home.join("data"))?;
            command.args(["--bootstrap", "--silent-startup", "--max_allowed_packet=8M", "--net_buffer_length=16K"]);
            fs::write(home.join("bootstrap.sql"), self.bootstrap()?)?;
            command.stdin(File::open(home.join("bootstrap.sql"))?);
        } else {
            command.arg("--initialize-insecure").stdin(Stdio::null());
        }
        let status = command.status().with_context(|| format!("cannot start {}", self.source))?;
        if !status.success() {
            bail!("{} could not make its data directory ({status}):\n{}", self.source, tail(&log));
        }
        fs::write(done, "")?;
        Ok(())
    }

    /// The command line that serves `home` on `port`; `extra` options come last and win.
    pub(crate) fn serve(&self, home: &Path, port: u16, socket: &Path, extra: &[&str]) -> Vec<OsString> {
        let mut words = self.program.words().to_vec();
        if self.kind == Kind::OceanBase {
            words.extend(oceanbase::options(home, port));
            return words;
        }
        words.extend(self.options(home));
        words.push(joined("--init-file=", &home.join("init.sql")));
        words.push(joined("--socket=", socket));
        words.push(joined("--pid-file=", &home.join("pid")));
        words.push(format!("--port={port}").into());
        words.push("--bind-address=127.0.0.1".into());
        words.push("--max-connections=1000".into());
        let of_engine: &[&str] = if self.kind.is_mariadb() {
            &["--server-id=1", "--log-bin=binlog", "--binlog-format=ROW"] // as MySQL has by default
        } else {
            &["--mysqlx=OFF"]
        };
        words.extend(of_engine.iter().chain(extra).map(OsString::from));
        words
    }

    /// The command line of a member of a replication group, without its data directory.
    pub(crate) fn group_member(&self) -> Result<Vec<OsString>> {
        let plugins = ["lib/mysql/plugin", "lib64/mysql/plugin", "lib/plugin"].map(|folder| self.base.join(folder));
        let plugins = plugins.iter().find(|folder| folder.join("group_replication.so").is_file());
        let plugins = plugins.with_context(|| format!("{} has no plugin for group replication", self.source))?;
        let mut words = self.program.words().to_vec();
        words.extend(self.fixed_options());
        words.push(joined("--plugin-dir=", plugins));
        Ok(words)
    }

    fn options(&self, home: &Path) -> Vec<OsString> {
        let mut options = self.fixed_options();
        options.extend([joined("--datadir=", &home.join("data")), joined("--tmpdir=", home)]);
        options
    }

    /// The options that do not depend on where the data is.
    fn fixed_options(&self) -> Vec<OsString> {
        let mut options = vec![
            "--no-defaults".into(),
            joined("--basedir=", &self.base),
            joined("--lc-messages-dir=", &self.share),
            joined("--character-sets-dir=", &self.share.join("charsets")),
        ];
        if nix::unistd::geteuid().is_root() {
            options.push("--user=root".into());
        }
        // Its default names a folder that only the installed package makes.
        options.push(if self.kind.is_mariadb() {
            joined("--plugin-dir=", &self.base.join("lib/mysql/plugin"))
        } else {
            "--secure-file-priv=NULL".into()
        });
        options
    }

    /// The SQL that makes MariaDB's system tables, as its install script feeds it.
    fn bootstrap(&self) -> Result<Vec<u8>> {
        let mut sql = b"create database if not exists mysql;\nuse mysql;\nSET @auth_root_socket=NULL;\n".to_vec();
        let system = ["mariadb", "mysql"]
            .into_iter()
            .find(|name| self.share.join(format!("{name}_system_tables.sql")).is_file())
            .with_context(|| format!("{} holds no system_tables.sql", self.share.display()))?;
        let files = [
            format!("{system}_system_tables.sql"),
            format!("{system}_performance_tables.sql"),
            format!("{system}_system_tables_data.sql"),
            "fill_help_tables.sql".to_owned(),
            "maria_add_gis_sp_bootstrap.sql".to_owned(),
            format!("{system}_sys_schema.sql"),
        ];
        for file in files {
            let path = self.share.join(&file);
            sql.extend(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        }
        Ok(sql)
    }
}

/// The last lines of a log, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

fn share_of(kind: Kind, base: &Path) -> Result<PathBuf> {
    let names: &[&str] = if kind.is_mariadb() { &["mariadb", "mysql"] } else { &["mysql", ""] };
    names
        .iter()
        .map(|name| base.join("share").join(name))
        .find(|path| path.join("charsets").is_dir())
        .with_context(|| format!("no messages and character sets under {}/share", base.display()))
}

fn joined(option: &str, value: &Path) -> OsString {
    let mut word = OsString::from(option);
    word.push(value);
    word
}
