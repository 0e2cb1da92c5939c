//! The server of a run: its own, to be killed.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, MySqlConnection};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::plan::Fault;
use super::process::{now, signal};

/// How long a server may take to come up, recovery included.
const START_MAX: Duration = Duration::from_secs(90);
/// How long an administrator's statement may take.
const ADMIN_MAX: Duration = Duration::from_secs(10);

/// How a server of one's own is started and used. Whoever can start servers makes one of these (`cargo xtask` does) and hands it
/// on as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecipe {
    /// What it is, for people: `MySQL 9.7.0`.
    pub name: String,
    /// The command line that serves a data directory that is there and set up, in the foreground. Run again after a SIGKILL it
    /// recovers. Its environment has `XTASK_PARENT`, the id of the process that started it.
    pub words: Vec<String>,
    /// The port of 127.0.0.1 that it listens on.
    pub port: u16,
    /// An account that may do everything.
    pub user: String,
    /// Its password; empty for none.
    pub password: String,
    /// The statement that makes the server take no writes of ordinary accounts, and the one that ends that. `None`
    /// where it has none.
    pub read_only: Option<(String, String)>,
    /// A file whose content moves the server's clock at once (`+20` is twenty seconds ahead), or why it cannot be moved.
    pub clock: Result<PathBuf, String>,
    /// Where what it prints goes.
    pub log: PathBuf,
}

/// A server that runs, or was killed and will be started again. It is killed for good when this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    recipe: ServerRecipe,
    child: Child,
}

impl ServerRecipe {
    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The faults that cannot be had with it, and why.
    #[must_use]
    pub fn left_out(&self) -> Vec<(Fault, String)> {
        let clock = self.clock.as_ref().err().map(|why| (Fault::Clock, why.clone()));
        let read_only = self.read_only.is_none().then(|| (Fault::ReadOnly, "the server has no such switch".to_owned()));
        clock.into_iter().chain(read_only).collect()
    }

    /// A connection that may do everything, past any proxy.
    pub(super) async fn admin(&self) -> anyhow::Result<MySqlConnection> {
        let mut options = MySqlConnectOptions::new()
            .host("127.0.0.1")
            .port(self.port)
            .username(&self.user)
            .ssl_mode(MySqlSslMode::Preferred)
            .disable_statement_logging();
        if !self.password.is_empty() {
            options = options.password(&self.password);
        }
        Ok(timeout(ADMIN_MAX, options.connect()).await.context("no connection within the time for it")??)
    }

    /// Runs statements as the administrator.
    pub(super) async fn administer(&self, statements: &[&str]) -> anyhow::Result<()> {
        let mut admin = self.admin().await?;
        for statement in statements {
            let done = timeout(ADMIN_MAX, admin.execute(AssertSqlSafe((*statement).to_owned()))).await;
            done.with_context(|| format!("no answer to {statement}"))?.with_context(|| (*statement).to_owned())?;
        }
        // What was asked for is done.
        let _ = admin.close().await;
        Ok(())
    }

    /// Moves the server's clock to this many seconds ahead of the machine's.
    pub(super) fn move_clock(&self, ahead_s: u64) -> io::Result<()> {
        match &self.clock {
            Ok(file) => {
                // Renamed into place, so that it is never read half written.
                let new = file.with_extension("new");
                fs::write(&new, format!("+{ahead_s}\n"))?;
                fs::rename(new, file)
            }
            Err(_) => Ok(()),
        }
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let (program, arguments) = self.words.split_first().context("a recipe without words")?;
        Command::new(program)
            .args(arguments)
            .env("XTASK_PARENT", std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))
    }
}

impl Server {
    /// Starts it and waits until it answers.
    pub(super) async fn start(recipe: ServerRecipe) -> anyhow::Result<Self> {
        recipe.move_clock(0)?;
        let mut server = Self { child: recipe.spawn()?, recipe };
        server.answers().await?;
        Ok(server)
    }

    /// SIGKILL.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("the server cannot be killed: has it ended by itself?")
    }

    /// Starts it after a kill and waits until it answers.
    pub(super) async fn restart(&mut self) -> anyhow::Result<()> {
        self.child = self.recipe.spawn()?;
        self.answers().await
    }

    /// SIGSTOP.
    pub(super) fn freeze(&self) {
        signal(&self.child, Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub(super) fn thaw(&self) {
        signal(&self.child, Signal::SIGCONT);
    }

    async fn answers(&mut self) -> anyhow::Result<()> {
        let started = now();
        loop {
            if self.recipe.administer(&["SELECT 1"]).await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended while starting ({status}); see {}", self.recipe.name, self.recipe.log.display());
            }
            if started.elapsed() > START_MAX {
                bail!("{} does not answer; see {}", self.recipe.name, self.recipe.log.display());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_json_and_says_what_it_cannot() {
        let text = r#"{"name": "MySQL", "words": ["mysqld"], "port": 20001, "user": "app", "password": "", "read_only": null,
            "clock": {"Err": "no libfaketime"}, "log": "/tmp/log"}"#;
        let recipe: ServerRecipe = serde_json::from_str(text).unwrap();
        assert_eq!(
            recipe.left_out().iter().map(|(fault, _)| *fault).collect::<Vec<_>>(),
            [Fault::Clock, Fault::ReadOnly]
        );
        assert_eq!(recipe.address().to_string(), "127.0.0.1:20001");
        recipe.move_clock(7).unwrap();
    }

    #[test]
    fn a_clock_is_moved_by_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = ServerRecipe {
            name: "MySQL".to_owned(),
            words: Vec::new(),
            port: 1,
            user: String::new(),
            password: String::new(),
            read_only: Some(("ON".to_owned(), "OFF".to_owned())),
            clock: Ok(folder.path().join("clock")),
            log: folder.path().join("log"),
        };
        assert_eq!(recipe.left_out(), []);
        recipe.move_clock(7).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("clock")).unwrap(), "+7\n");
    }
}
