//! The binary as its users run it: exit codes, errors, JSON, workers, signals.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// A folder with a database file of its own.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn url(&self) -> String {
        format!("sqlite://{}", self.path("queue.db"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_queue"));
        command.args(arguments).env("QUEUE_DATABASE_URL", self.url()).env_remove("QUEUE_LOG").stdin(Stdio::null());
        command.current_dir(self.folder.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs it, expects success, and returns what it printed.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let mut all = vec!["--json"];
        all.extend(arguments);
        self.ok(&all).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn show(&self, id: u64) -> Value {
        self.json(&["task", "show", &id.to_string()]).remove(0)
    }

    /// A program that can be executed.
    fn script(&self, name: &str, body: &str) -> String {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn waits_for(&self, what: &str, mut holds: impl FnMut() -> bool) {
        for _ in 0..600 {
            if holds() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("never: {what}");
    }
}

/// Expects one `error:` line, perhaps a `try:` line, and this exit code.
fn fails(output: &Output, code: i32) -> String {
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert_eq!(error.lines().filter(|line| line.starts_with("error:")).count(), 1, "{error}");
    assert!(error.lines().all(|line| line.starts_with("error:") || line.trim_start().starts_with("try:")), "{error}");
    assert!(output.stdout.is_empty(), "something was printed");
    error
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_task_is_enqueued_listed_and_shown() {
    let place = Place::new();
    place.ok(&["migrate"]);
    place.ok(&["migrate", "--status"]);
    let enqueued =
        place.json(&["enqueue", "mail.welcome", "--payload", r#"{"to": "ana"}"#, "--priority", "7", "--delay", "1h"]);
    let id = enqueued[0]["id"].as_u64().unwrap();
    let task = place.show(id);
    assert_eq!((task["type"].as_str(), task["status"].as_str()), (Some("mail.welcome"), Some("queued")));
    assert_eq!(
        (task["priority"].as_i64(), task["attempt"].as_u64(), task["max_attempts"].as_u64()),
        (Some(7), Some(0), Some(3))
    );
    assert_eq!(task["payload"]["to"], "ana");
    for name in [
        "queue",
        "run_at",
        "deadline_at",
        "created_at",
        "started_at",
        "completed_at",
        "reason",
        "last_error",
        "progress",
        "progress_message",
        "worker",
        "result",
    ] {
        assert!(task.get(name).is_some(), "{name} is missing");
    }
    assert_eq!(place.json(&["task", "list", "--status", "queued"]).len(), 1);
    assert_eq!(place.json(&["task", "list", "--type", "other"]).len(), 0);
    assert!(place.ok(&["task", "list"]).contains("mail.welcome"));
    assert!(place.ok(&["task", "show", &id.to_string()]).contains("mail.welcome"));
    assert!(place.ok(&["stats"]).contains("default"));
    assert!(!place.json(&["stats"]).is_empty());
    place.ok(&["task", "cancel", &id.to_string()]);
    assert_eq!(place.show(id)["reason"], "cancelled");
    place.ok(&["task", "retry", &id.to_string()]);
    assert_eq!(place.show(id)["status"], "queued");
    place.ok(&["task", "cancel", &id.to_string()]);
    place.ok(&["prune", "--older-than", "0s"]);
    fails(&place.run(&["task", "show", &id.to_string()]), 3);
}

#[test]
fn bad_input_is_told_and_nothing_is_written() {
    let place = Place::new();
    place.ok(&["migrate"]);
    let large = place.path("large.json");
    fs::write(&large, format!("\"{}\"", "x".repeat(2 << 20))).unwrap();
    let large = format!("@{large}");
    let cases: &[(&[&str], i32)] = &[
        (&["enqueue", "a", "--payload", "{not json"], 2),
        (&["--database-url", "postgres://db/x", "stats"], 2),
        (&["enqueue", "a", "--payload", &large], 1),
        (&["enqueue", "no spaces"], 2),
        (&["enqueue", "a", "--delay", "-5s"], 2),
        (&["enqueue", "a", "--delay", "soon"], 2),
        (&["enqueue", "a", "--priority", "101"], 2),
        (&["enqueue", "a", "--at", "tomorrow"], 2),
        (&["task", "show", "999999"], 3),
        (&["task", "list", "--status", "sleeping"], 2),
        (&["work"], 2),
        (&["no-such-command"], 2),
        (&["--database-url", "mysql://app:s3cret@127.0.0.1:1/x", "stats"], 1),
    ];
    for (arguments, code) in cases {
        let output = place.run(arguments);
        let seen = output.status.code();
        let error = String::from_utf8_lossy(&output.stderr);
        // Usage errors and failures are told apart by their code; whichever it is, it is no success.
        assert!(seen == Some(*code) || (seen == Some(1) && *code == 2), "{arguments:?}: {seen:?} {error}");
        fails(&output, seen.unwrap());
        assert!(!error.contains("s3cret"), "{error}");
    }
    assert_eq!(place.json(&["task", "list"]).len(), 0, "something was half-written");
}

#[test]
fn a_wrong_password_is_told_without_it() {
    let server = std::env::var("TEST_MYSQL_URL").expect("set TEST_MYSQL_URL, or run the tests with `cargo xtask test`");
    let place = server.trim_end_matches('/').rsplit_once('@').unwrap().1.to_owned();
    let output = Place::new().run(&["--database-url", &format!("mysql://app:s3cret-and-wrong@{place}/mysql"), "stats"]);
    assert!(!fails(&output, 1).contains("s3cret"));
}

#[test]
fn a_read_only_file_is_told() {
    let place = Place::new();
    place.ok(&["migrate"]);
    let file = place.path("queue.db");
    let url = format!("sqlite://{file}?mode=ro");
    fails(&place.run(&["--database-url", &url, "enqueue", "a"]), 1);
}

#[test]
fn a_batch_is_written_whole_or_not_at_all() {
    let place = Place::new();
    let (good, bad) = (place.path("good.jsonl"), place.path("bad.jsonl"));
    let line = r#"{"type": "a", "payload": {"n": 1.50}, "priority": -3, "delay": "5m", "key": "k1"}"#;
    fs::write(&good, format!("{line}\n{{\"payload\": 2}}\n")).unwrap();
    fs::write(&bad, format!("{line}\n{{\"payload\": 2, \"priority\": 1000}}\n")).unwrap();
    place.ok(&["migrate"]);
    let error = fails(&place.run(&["enqueue", "b", "--batch", &bad]), 2);
    assert!(error.contains("line 2"), "the line is not named: {error}");
    assert_eq!(place.json(&["task", "list"]).len(), 0);
    place.ok(&["enqueue", "b", "--batch", &good]);
    let tasks = place.json(&["task", "list"]);
    assert_eq!(tasks.len(), 2);
}

#[test]
fn programs_complete_reject_and_retry() {
    let place = Place::new();
    let log = place.path("log");
    let program = place.script(
        "work.sh",
        &format!(
            "read payload; echo \"$QUEUE_TASK_TYPE $QUEUE_ATTEMPT $payload ${{QUEUE_DATABASE_URL:-none}}\" >> {log}\n\
             echo 'progress: 40 halfway' >&2\n\
             case $payload in 1) echo '{{\"ok\": true}}';; 2) echo 'no such picture' >&2; exit 65;; \
             *) echo 'not yet' >&2; [ \"$QUEUE_ATTEMPT\" -ge 2 ] || exit 1;; esac"
        ),
    );
    let ids = ["1", "2", "3"]
        .map(|payload| place.json(&["enqueue", "picture", "--payload", payload])[0]["id"].as_u64().unwrap());
    place.ok(&["work", "--exec", &format!("picture={program}"), "--drain", "--concurrency", "2"]);
    let [done, rejected, retried] = ids.map(|id| place.show(id));
    assert_eq!((done["status"].as_str(), done["result"]["ok"].as_bool()), (Some("completed"), Some(true)));
    assert_eq!(done["progress"], 40);
    assert_eq!((rejected["reason"].as_str(), rejected["attempt"].as_u64()), (Some("rejected"), Some(1)));
    assert!(rejected["last_error"].as_str().unwrap().contains("no such picture"));
    assert_eq!((retried["status"].as_str(), retried["attempt"].as_u64()), (Some("completed"), Some(2)));
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("picture 1 1 none"), "the database's URL is in the program's environment: {log}");
}

#[test]
fn a_program_past_its_time_is_ended_and_retried() {
    let place = Place::new();
    let program = place.script("slow.sh", "sleep 600");
    place.ok(&["enqueue", "slow", "--max-attempts", "1"]);
    place.ok(&["work", "--exec", &format!("slow={program}"), "--drain", "--timeout", "300ms", "--grace", "1s"]);
    let task = place.show(1);
    assert_eq!((task["status"].as_str(), task["reason"].as_str()), (Some("failed"), Some("exhausted")));
}

#[test]
fn a_killed_worker_takes_its_program_along_and_loses_nothing() {
    let place = Place::new();
    let pid_file = place.path("pid");
    let program =
        place.script("once.sh", &format!("if [ \"$QUEUE_ATTEMPT\" = 1 ]; then echo $$ > {pid_file}; sleep 600; fi"));
    place.ok(&["enqueue", "once"]);
    let exec = format!("once={program}");
    let worker = place.command(&["work", "--exec", &exec, "--lease", "2s"]).stderr(Stdio::null()).spawn().unwrap();
    let mut worker = Killed(worker);
    place.waits_for("the program runs", || fs::read_to_string(&pid_file).is_ok_and(|pid| pid.ends_with('\n')));
    worker.0.kill().unwrap();
    worker.0.wait().unwrap();
    let pid = fs::read_to_string(&pid_file).unwrap().trim().to_owned();
    place.waits_for("the program is gone", || !Path::new(&format!("/proc/{pid}/cwd")).exists());
    place.ok(&["work", "--exec", &exec, "--lease", "2s", "--drain"]);
    let task = place.show(1);
    assert_eq!((task["status"].as_str(), task["attempt"].as_u64()), (Some("completed"), Some(2)));
}

#[test]
fn a_worker_that_is_told_to_stop_gives_its_task_back() {
    let place = Place::new();
    let started = place.path("started");
    let program = place.script("long.sh", &format!("touch {started}; sleep 600"));
    place.ok(&["enqueue", "long"]);
    let arguments = ["work", "--exec", &format!("long={program}"), "--grace", "500ms"];
    let mut worker = Killed(place.command(&arguments).stderr(Stdio::null()).spawn().unwrap());
    place.waits_for("the program runs", || Path::new(&started).exists());
    kill(Pid::from_raw(worker.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    worker.0.wait().unwrap();
    let task = place.show(1);
    assert_eq!(
        (task["status"].as_str(), task["attempt"].as_u64()),
        (Some("queued"), Some(0)),
        "the attempt is refunded"
    );
}

#[test]
fn the_demo_ends_well() {
    let place = Place::new();
    let kept = place.path("demo.db");
    let told = place.ok(&["demo", "--keep", &kept]);
    assert!(told.contains("lost 0 · finished twice 0"), "{told}");
    assert!(told.contains("crash"), "{told}");
    let failed = place.json(&[
        "--database-url",
        &format!("sqlite://{kept}"),
        "task",
        "list",
        "--status",
        "failed",
        "--limit",
        "500",
    ]);
    assert_eq!(failed.len(), 200);
}
