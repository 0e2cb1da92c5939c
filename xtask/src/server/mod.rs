//! Real database servers for the tests and for development.
//!
//! Order of preference for each kind: the environment's URL, a container, a server that is installed here, the
//! unpacked packages of Debian or, for OceanBase, of PyPI. No MySQL or MariaDB to be had is an error that lists what was tried,
//! never a skip; OceanBase is left out then, and a run says so.

mod choose;
pub(crate) mod dev;
#[cfg_attr(not(feature = "docker"), path = "docker_absent.rs")]
mod docker;
pub(crate) mod guard;
mod installation;
mod local;
mod oceanbase;
pub(crate) mod own;
mod wire;

use std::any::Any;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

pub(crate) use choose::{Choice, choose, choose_oceanbase, durable, wants_container};
use installation::Installation;

/// Removes what earlier runs could not, because they were killed.
pub(crate) fn sweep(target: &std::path::Path) {
    local::sweep(&target.join("test-servers"));
}

/// The user that every server of ours but OceanBase's has, with all rights.
pub(crate) const USER: &str = "app";
/// Its password: these servers listen on 127.0.0.1 and hold nothing but test data.
pub(crate) const PASSWORD: &str = "secret";

/// A kind of server that the queue is tested on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The newest MySQL that can be had.
    Mysql,
    /// The oldest MariaDB that can be had.
    Mariadb,
    /// MariaDB's current long-term release.
    MariadbLts,
    /// OceanBase's one-node build.
    OceanBase,
}

impl Kind {
    /// Those that every run is for, in the order in which they are provided.
    pub(crate) const ALL: [Self; 3] = [Self::Mysql, Self::Mariadb, Self::MariadbLts];

    /// The variable that names a running server of this kind.
    pub(crate) fn url_variable(self) -> &'static str {
        match self {
            Self::Mysql => "TEST_MYSQL_URL",
            Self::Mariadb => "TEST_MARIADB_URL",
            Self::MariadbLts => "TEST_MARIADB_LTS_URL",
            Self::OceanBase => "TEST_OCEANBASE_URL",
        }
    }

    /// The variable that names the recipe of a server that a test may kill.
    pub(crate) fn recipe_variable(self) -> &'static str {
        match self {
            Self::Mysql => "TEST_MYSQL_RECIPE",
            Self::Mariadb => "TEST_MARIADB_RECIPE",
            Self::MariadbLts => "TEST_MARIADB_LTS_RECIPE",
            Self::OceanBase => "TEST_OCEANBASE_RECIPE",
        }
    }

    /// The variable that names another image than [`Self::image`].
    pub(crate) fn image_variable(self) -> &'static str {
        match self {
            Self::Mysql => "TEST_MYSQL_IMAGE",
            Self::Mariadb => "TEST_MARIADB_IMAGE",
            Self::MariadbLts => "TEST_MARIADB_LTS_IMAGE",
            Self::OceanBase => "TEST_OCEANBASE_IMAGE",
        }
    }

    /// The image of this kind, `name:tag`.
    pub(crate) fn image(self) -> String {
        let default = match self {
            Self::Mysql => "mysql:9",
            Self::Mariadb => "mariadb:10.11",
            Self::MariadbLts => "mariadb:11.8",
            Self::OceanBase => "oceanbase/seekdb:latest",
        };
        std::env::var(self.image_variable()).unwrap_or_else(|_| default.to_owned())
    }

    /// Debian's suite and package of this kind.
    fn debian(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Mysql => Some(("sid", "mysql-server-core")),
            Self::Mariadb => Some(("bookworm", "mariadb-server-core")),
            Self::MariadbLts => Some(("trixie", "mariadb-server-core")),
            Self::OceanBase => None,
        }
    }

    /// The program's name.
    fn program(self) -> &'static str {
        match self {
            Self::Mysql => "mysqld",
            Self::Mariadb | Self::MariadbLts => "mariadbd",
            Self::OceanBase => "seekdb",
        }
    }

    /// Whether it is MariaDB, which differs in how it is set up.
    fn is_mariadb(self) -> bool {
        matches!(self, Self::Mariadb | Self::MariadbLts)
    }

    /// The URL of a server of ours, with no database.
    fn url(self, port: u16) -> String {
        match self {
            Self::OceanBase => format!("mysql://root@127.0.0.1:{port}"), // it makes no other account
            _ => url(port),
        }
    }

    /// The oldest version that the queue accepts.
    fn floor(self) -> (u32, u32, u32) {
        if self.is_mariadb() { (10, 6, 0) } else { (8, 0, 20) }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mysql => "MySQL",
            Self::Mariadb => "MariaDB",
            Self::MariadbLts => "MariaDB (long-term release)",
            Self::OceanBase => "OceanBase",
        })
    }
}

/// A server that answers. One that was started here ends, and its data goes, when this is dropped.
pub(crate) struct Server {
    /// What kind it is.
    pub(crate) kind: Kind,
    /// `mysql://user:password@host:port`, with no database.
    pub(crate) url: String,
    /// The version that it names in its greeting.
    pub(crate) version: String,
    /// Where it comes from, in words.
    pub(crate) source: String,
    /// What keeps it running, if that is ours to end.
    running: Option<Box<dyn Any>>,
}

impl Server {
    /// Waits until the server at `url` greets, and takes its version from there.
    fn reach(kind: Kind, url: String, source: String, running: Option<Box<dyn Any>>) -> anyhow::Result<Self> {
        let version = wire::version_at(&url)?;
        Ok(Self { kind, url, version, source, running })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = if self.running.is_some() { "started for this run" } else { "was running" };
        // In its greeting it calls itself MySQL 5.7.25. Of one that is ours the source tells the version.
        if self.kind == Kind::OceanBase {
            return write!(f, "OceanBase ({}, {whose})", self.source);
        }
        let engine = if self.kind.is_mariadb() { "MariaDB" } else { "MySQL" };
        // Without the distribution's decoration, where there is one.
        match wire::numbers(&self.version) {
            Some((major, minor, patch)) => write!(f, "{engine} {major}.{minor}.{patch} ({}, {whose})", self.source),
            None => write!(f, "{engine} {} ({}, {whose})", self.version, self.source),
        }
    }
}

/// The command line of a MySQL server that can be a member of a replication group, without its data directory. It ends with
/// the process that starts it.
pub(crate) fn group_program(target: &Path) -> anyhow::Result<Vec<OsString>> {
    let installed = Installation::installed(Kind::Mysql).and_then(|installation| installation.group_member());
    let member = installed.or_else(|_| {
        let unpacked = Installation::unpacked(Kind::Mysql, &target.join("servers"));
        unpacked.and_then(|installation| installation.group_member())
    })?;
    guard::words(guard::Life::Tied, &member)
}

fn url(port: u16) -> String {
    format!("mysql://{USER}:{PASSWORD}@127.0.0.1:{port}")
}
