//! Running `queue` as its users do.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// A directory of its own in which `queue` is run, so that the default database is a fresh file.
pub(crate) struct Room {
    dir: TempDir,
}

/// What a command printed.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A script that can be run.
    pub(crate) fn script(&self, name: &str, lines: &str) -> PathBuf {
        let path = self.write(name, format!("#!/bin/sh\n{lines}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_queue"));
        command.args(args).current_dir(self.dir.path());
        command.env_remove("QUEUE_DATABASE_URL").env_remove("QUEUE_LOG").env("ROOM", self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args).spawn().unwrap())
    }

    /// Runs it with this on its standard input.
    pub(crate) fn feed(&self, args: &[&str], input: impl AsRef<[u8]>) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        // A command that refuses its input may close it before it has all of it.
        let _ = child.stdin.take().unwrap().write_all(input.as_ref());
        finish(child)
    }

    /// Starts a worker that goes on until it is stopped.
    pub(crate) fn start(&self, args: &[&str]) -> Worker {
        Worker(Some(self.command(args).spawn().unwrap()))
    }

    pub(crate) fn task(&self, id: u64) -> Value {
        self.run(&["--json", "task", "show", &id.to_string()]).ok().json()
    }

    pub(crate) fn list(&self) -> Vec<Value> {
        self.run(&["--json", "task", "list", "--limit", "100000"]).ok().lines()
    }

    /// Waits until the task is as wanted.
    pub(crate) fn until(&self, id: u64, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(|| Some(self.task(id)).filter(&wanted), || format!("{:#}", self.task(id)))
    }

    /// Waits until the file is there, and has something in it.
    pub(crate) fn until_file(&self, name: &str) -> String {
        eventually(|| Some(self.read(name)).filter(|text| !text.is_empty()), || format!("no {name}"))
    }
}

impl Ran {
    /// It ended well.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// It failed with this code, one `error:` line that says this, and at most a `try:` line.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, says: &str) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        let lines = self.err.lines().collect::<Vec<_>>();
        assert!(lines.first().is_some_and(|line| line.starts_with("error: ") && line.contains(says)), "{self:?}");
        assert!(lines.len() == 1 || (lines.len() == 2 && lines[1].starts_with("  try: ")), "{self:?}");
        self
    }

    /// Its hint says this.
    #[track_caller]
    pub(crate) fn hints(self, hint: &str) -> Self {
        assert!(self.err.lines().nth(1).is_some_and(|line| line.contains(hint)), "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn finish(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A worker process, killed when the test is over.
pub(crate) struct Worker(Option<Child>);

impl Worker {
    pub(crate) fn id(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.id()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ran {
        finish(self.0.take().unwrap())
    }

    /// Kills it with SIGKILL and waits until it is dead.
    pub(crate) fn kill(mut self) {
        let mut child = self.0.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Looks again and again, a bounded number of times.
pub(crate) fn eventually<T>(mut look: impl FnMut() -> Option<T>, last: impl FnOnce() -> String) -> T {
    for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
        if let Some(found) = look() {
            return found;
        }
        thread::sleep(LOOK);
    }
    panic!("it did not come: {}", last());
}

/// Whether a process of this number runs (one that has ended and was not waited for does not).
pub(crate) fn runs(pid: &str) -> bool {
    let status = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat")).unwrap_or_default();
    status.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Waits until no process of this number runs.
pub(crate) fn until_gone(pid: &str) {
    eventually(|| (!runs(pid)).then_some(()), || format!("process {pid} still runs"));
}
