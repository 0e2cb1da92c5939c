//! Who plays in a run: each process, the line on which it reaches the server, and how it is started.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Result, bail};
use tokio::process::Command;

use super::process::{Complaints, Process};
use super::storm::Storm;
use super::work::EXEC;
use crate::history::Journal;
use crate::proxy::Proxy;

pub(super) const DATABASE: &str = "queue_chaos";
/// The account of the processes. It has no password, so that it can log in without encryption, which the proxies could not
/// look into; and no right beyond the database, so that `read_only` holds for it.
pub(super) const ACCOUNT: &str = "chaos";

/// A process and its line to the server.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) process: Process,
    pub(super) proxy: Proxy,
}

/// Who plays in the scene.
pub(super) struct Cast<'s> {
    pub(super) storm: &'s Storm,
    pub(super) complaints: &'s Complaints,
    pub(super) journal: &'s Journal,
}

impl Cast<'_> {
    pub(super) async fn worker(&self, number: usize) -> Result<Actor> {
        let (program, folder, lease) = (self.storm.program.clone(), self.storm.folder.clone(), self.storm.plan.lease);
        self.actor(format!("worker {number}"), move |url| {
            let mut command = Command::new(&program);
            command
                .arg("work")
                .arg(url)
                .arg(&folder)
                .arg(format!("worker {number}"))
                .arg(lease.as_millis().to_string());
            command
        })
        .await
    }

    pub(super) async fn cli(&self, number: usize) -> Result<Actor> {
        let (queue, lease) = (self.storm.queue.clone(), format!("{}ms", self.storm.plan.lease.as_millis()));
        let (program, folder) = (path_word(&self.storm.program)?, path_word(&self.storm.folder)?);
        self.actor(format!("queue work {number}"), move |url| {
            let mut command = Command::new(&queue);
            command.args(["work", "--concurrency", "3", "--grace", "3s", "--lease", &lease, "--exec"]);
            command.arg(format!("{EXEC}={program} exec {folder}")).env("QUEUE_DATABASE_URL", url);
            command
        })
        .await
    }

    pub(super) async fn producer(&self, number: usize) -> Result<Actor> {
        let (program, folder, seed) = (self.storm.program.clone(), self.storm.folder.clone(), self.storm.plan.seed);
        let mut start = u64::try_from(number)? << 16;
        self.actor(format!("producer {number}"), move |url| {
            start += 1; // no two producers have one number
            let mut command = Command::new(&program);
            command.arg("produce").arg(url).arg(&folder).arg(start.to_string()).arg(seed.to_string());
            command
        })
        .await
    }

    async fn actor(&self, name: String, mut launch: impl FnMut(&str) -> Command + Send + 'static) -> Result<Actor> {
        let proxy = Proxy::start(self.storm.server.address()).await?;
        let url = url_at(proxy.port());
        let log = self.storm.folder.join(format!("{}.log", name.replace(' ', "-")));
        let said = log.clone();
        let launch = move || {
            let mut command = launch(&url);
            let said = File::options().create(true).append(true).open(&said);
            let said = said.map_or_else(|_| Stdio::null(), Stdio::from);
            // Without the backtrace of an error that `main` returns, which would be the end of the log.
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).env("RUST_BACKTRACE", "0");
            command
        };
        Ok(Actor { process: Process::start(name, log, launch, self.complaints, self.journal), proxy })
    }
}

/// A path as a word of an `--exec`, which knows no quotes.
fn path_word(path: &Path) -> Result<String> {
    let path = fs::canonicalize(path)?;
    match path.to_str() {
        Some(word) if !word.contains(char::is_whitespace) => Ok(word.to_owned()),
        _ => bail!("{} has a blank in it, or is no UTF-8", path.display()),
    }
}

/// The URL of the processes' database at this port.
pub(super) fn url_at(port: u16) -> String {
    format!("mysql://{ACCOUNT}@127.0.0.1:{port}/{DATABASE}?ssl-mode=disabled")
}
