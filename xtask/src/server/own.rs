//! A server that a test starts, kills and starts again by itself: here its data directory is made, and a recipe is written that
//! says how it is started (`ServerRecipe` of `queue-tests`).

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::guard::{self, Life};
use super::installation::Installation;
use super::local::{Home, free_port, socket};
use super::{Kind, PASSWORD, USER};
use crate::debian::Unpacked;
use crate::workspace::is_ci;

/// What was acknowledged must outlive a SIGKILL of the server, which the kernel's page cache does as well: nothing is waited for
/// that only a power cut would ask for. Pages torn by the kill are mended as in production. Small, so that it is soon up again.
const OPTIONS: [&str; 3] = ["--innodb-flush-log-at-trx-commit=2", "--sync-binlog=0", "--innodb-buffer-pool-size=64M"];

/// A data directory and the recipe to serve it. The directory goes away with this value, so the server must have ended before.
#[derive(Debug)]
pub(crate) struct OwnServer {
    /// What kind it is.
    pub(crate) kind: Kind,
    home: Home,
}

impl OwnServer {
    /// Makes one. It never takes a server that runs, or a container: it is there to be killed.
    pub(crate) fn prepare(kind: Kind, target: &Path) -> Result<Self> {
        let servers = target.join("servers");
        let (installation, is_unpacked) = match Installation::installed(kind) {
            Ok(installation) => (installation, false),
            Err(_) => {
                let unpacked = Installation::unpacked(kind, &servers)
                    .with_context(|| format!("no {kind} of our own can be had; install {}", kind.program()))?;
                (unpacked, true)
            }
        };
        let name = format!("{}-own-{}", std::process::id(), kind.url_variable().to_lowercase());
        let home = Home(target.join("test-servers").join(name));
        installation.set_up(&home.0)?;
        let port = free_port()?;
        let words = installation.serve(&home.0, port, &socket(port), &OPTIONS);
        let clock = if is_unpacked {
            faked(kind, &servers, &home.0)
        } else {
            Err("the server is not one of unpacked packages".into())
        };
        let (words, clock) = match clock {
            Ok((prefix, file)) => (prefix.into_iter().chain(words).collect(), json!({ "Ok": file })),
            Err(why) => (words, json!({ "Err": why })),
        };
        let words = guard::words(Life::Tied, &words)?;
        let words = words.into_iter().map(OsString::into_string).collect::<Result<Vec<_>, _>>();
        let words = words.ok().context("a path that is no UTF-8")?;
        // `read_only` of MySQL spares accounts with rights, `super_read_only` nobody. Turning the first off turns off both.
        let read_only = |name| json!([format!("SET GLOBAL {name} = ON"), "SET GLOBAL read_only = OFF"]);
        let (user, password, read_only) = match kind {
            Kind::Mysql => (USER, PASSWORD, read_only("super_read_only")),
            Kind::Mariadb | Kind::MariadbLts => (USER, PASSWORD, read_only("read_only")),
            Kind::OceanBase => ("root", "", Value::Null),
        };
        let recipe: Value = json!({
            "name": kind.to_string(),
            "words": words,
            "port": port,
            "user": user,
            "password": password,
            "read_only": read_only,
            "clock": clock,
            "log": home.0.join("log"),
        });
        let own = Self { kind, home };
        fs::write(own.recipe(), serde_json::to_vec_pretty(&recipe)?)?;
        Ok(own)
    }

    /// The file of the recipe.
    pub(crate) fn recipe(&self) -> PathBuf {
        self.home.0.join("recipe.json")
    }
}

/// One of each engine. One that cannot be had is left out, and said to be; MySQL and MariaDB must be had in a CI's run.
pub(crate) fn one_of_each(target: &Path) -> Result<Vec<OwnServer>> {
    let mut own = Vec::new();
    for kind in [Kind::Mysql, Kind::Mariadb, Kind::OceanBase] {
        match OwnServer::prepare(kind, target) {
            Ok(server) => own.push(server),
            Err(error) if is_ci() && kind != Kind::OceanBase => return Err(error),
            Err(error) => println!("what kills its server is not tested on {kind}: {error:#}"),
        }
    }
    Ok(own)
}

/// What must stand before a server's command line so that its clock can be moved, and the file that moves it; or why not.
fn faked(kind: Kind, servers: &Path, home: &Path) -> Result<(Vec<OsString>, PathBuf), String> {
    let (suite, _) = kind.debian().ok_or("no suite of Debian has this engine")?;
    let unpacked = Unpacked::fetch(suite, &servers.join(format!("libfaketime-{suite}")), &["libfaketime"])
        .map_err(|error| format!("libfaketime cannot be had: {error:#}"))?;
    let libraries = fs::read_dir(unpacked.path("usr/lib")).into_iter().flatten().flatten();
    let library = libraries
        .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.is_file())
        .ok_or("the package libfaketime holds no libfaketimeMT.so.1")?;
    let file = home.join("clock");
    let word = |name: &str, value: &Path| {
        let mut word = OsString::from(name);
        word.push("=");
        word.push(value);
        word
    };
    let words = vec![
        "env".into(),
        word("LD_PRELOAD", &library),
        word("FAKETIME_TIMESTAMP_FILE", &file),
        // Looked at for every reading, so that a jump is a jump. Monotonic time stays what it is, and so do the waits that
        // end by it: with libfaketime's fix for them, each commit of MySQL takes 20 ms.
        "FAKETIME_NO_CACHE=1".into(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
        "FAKETIME_FORCE_MONOTONIC_FIX=0".into(),
    ];
    Ok((words, file))
}
