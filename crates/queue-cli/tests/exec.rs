//! Programs as workers: what goes in, what comes out, and how they are stopped.

mod support;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{Room, eventually, runs, until_gone};

fn exec(room: &Room, script: &str) -> String {
    format!("a={}", room.script("program", script).display())
}

#[test]
fn a_program_gets_the_task_and_gives_the_result() {
    let room = Room::new();
    let script = "cat > \"$ROOM/stdin\"; env > \"$ROOM/env\"; echo \"arguments: $*\" > \"$ROOM/args\"; printf ' {\"ok\": 1.0}\\n'";
    room.run(&["enqueue", "a", "--payload", "{\"x\":  1}"]).ok();
    let mut work = room.command(&["work", "--drain", "--exec", &format!("{} one  two", exec(&room, script))]);
    let url = "sqlite://queue.db";
    let output = work.env("QUEUE_DATABASE_URL", url).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "completed 1\n", "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "quiet in a pipe");
    let task = room.task(1);
    assert_eq!((&task["status"], &task["result"]), (&json!("completed"), &json!({"ok": 1.0})));
    assert_eq!(room.read("stdin"), "{\"x\":  1}");
    assert_eq!(room.read("args"), "arguments: one two\n");
    let env = room.read("env");
    for line in ["QUEUE_TASK_ID=1", "QUEUE_TASK_TYPE=a", "QUEUE_ATTEMPT=1", "QUEUE_FENCE=1"] {
        assert!(env.lines().any(|found| found == line), "{line} in {env}");
    }
    let deadline = env.lines().find_map(|line| line.strip_prefix("QUEUE_DEADLINE=")).unwrap();
    assert_eq!(Some(deadline), task["deadline_at"].as_str());
    assert!(!env.contains("QUEUE_DATABASE_URL") && !env.contains(url), "{env}");
}

#[test]
fn without_a_budget_there_is_no_deadline() {
    let room = Room::new();
    room.run(&["enqueue", "a", "--budget", "none"]).ok();
    let mut work = room.command(&["work", "--drain", "--exec", &exec(&room, "env > \"$ROOM/env\"")]);
    assert!(work.env("QUEUE_DEADLINE", "of another task").status().unwrap().success());
    assert!(!room.read("env").contains("QUEUE_DEADLINE"));
}

#[test]
fn the_exit_status_decides() {
    let room = Room::new();
    let script = "case $(cat) in
        1) echo 'this task is wrong' >&2; exit 65;;
        2) echo \"attempt $QUEUE_ATTEMPT\" >&2; [ $QUEUE_ATTEMPT = 2 ];;
        3) echo not json;;
        4) kill -9 $$;;
        5) exec /no/such/interpreter;;
        6) printf '\\377\\376 bad bytes' >&2; exit 3;;
        7) head -c 70000 /dev/zero | tr '\\0' 1;;
    esac";
    for payload in ["1", "2", "3", "4", "5", "6", "7"] {
        let attempts = if payload == "2" { "2" } else { "1" };
        room.run(&["enqueue", "a", "--payload", payload, "--max-attempts", attempts]).ok();
    }
    room.run(&["work", "--drain", "--exec", &exec(&room, script)]).ok();
    let tasks = room.list();
    let of = |payload: u64| tasks.iter().find(|task| task["payload"] == json!(payload)).unwrap();
    let end = |payload| (of(payload)["status"].as_str().unwrap(), of(payload)["reason"].as_str().unwrap_or_default());
    assert_eq!(end(1), ("failed", "rejected"));
    assert_eq!(of(1)["last_error"], "exit status 65: this task is wrong");
    assert_eq!((end(2), &of(2)["attempt"]), (("completed", ""), &json!(2)));
    assert_eq!((end(3), &of(3)["result"]), (("completed", ""), &Value::Null));
    assert_eq!((end(4), &of(4)["last_error"]), (("failed", "exhausted"), &json!("killed by SIGKILL")));
    assert!(of(5)["last_error"].as_str().unwrap().starts_with("exit status 127: "), "{}", of(5));
    assert_eq!(of(6)["last_error"], "exit status 3: \u{fffd}\u{fffd} bad bytes");
    assert_eq!(
        (end(7), &of(7)["result"], &of(7)["result_dropped_bytes"]),
        (("completed", ""), &Value::Null, &json!(70_000))
    );
}

#[test]
fn floods_and_closed_streams_stop_nobody() {
    let room = Room::new();
    let script = "case $QUEUE_TASK_ID in
        1) exec 0<&-; head -c 3000000 /dev/zero | tr '\\0' x >&2; head -c 3000000 /dev/zero; echo end >&2; exit 1;;
        *) exec 1>&- 2>&-; sleep 0.2;;
    esac";
    room.write("large.json", format!("\"{}\"", "x".repeat(900_000)));
    for _ in 0..2 {
        room.run(&["enqueue", "a", "--payload", "@large.json", "--max-attempts", "1"]).ok();
    }
    room.run(&["work", "--drain", "--concurrency", "1", "--exec", &exec(&room, script)]).ok();
    let tasks = room.list();
    let flooded = tasks.iter().find(|task| task["status"] == "failed").unwrap();
    let error = flooded["last_error"].as_str().unwrap();
    assert!(error.len() <= 4096 && error.starts_with("exit status 1: …") && error.ends_with("xend"), "{}", error.len());
    assert!(tasks.iter().any(|task| task["status"] == "completed"), "{tasks:?}");
}

/// What a program says need be neither text nor a line.
#[test]
fn bytes_that_are_no_text_are_told_all_the_same() {
    let room = Room::new();
    let script =
        r"printf 'progress: 40 \377\000\n\377\376\000progress: 50\nprogress: 60 \303' >&2; printf '\377{}'; exit $1";
    room.run(&["enqueue", "a", "--payload", "1", "--max-attempts", "1"]).ok();
    let failing = exec(&room, &script.replace("$1", "1"));
    room.run(&["work", "--drain", "--exec", &failing]).ok();
    let task = room.task(1);
    assert_eq!((&task["status"], &task["progress"]), (&json!("failed"), &json!(60)));
    assert_eq!(task["progress_message"], json!("\u{fffd}"));
    assert_eq!(task["last_error"], json!("exit status 1: \u{fffd}\u{fffd}\0progress: 50"));
    room.run(&["enqueue", "a", "--payload", "1"]).ok();
    room.run(&["work", "--drain", "--exec", &exec(&room, &script.replace("$1", "0"))]).ok();
    let tasks = room.list();
    let done = tasks.iter().find(|task| task["status"] == "completed").unwrap();
    assert_eq!(room.task(done["id"].as_u64().unwrap())["result"], json!(null));
}

#[test]
fn progress_is_seen_while_it_runs() {
    let room = Room::new();
    let script =
        "echo 'progress: 40 halfway' >&2; while [ ! -e \"$ROOM/go\" ]; do sleep 0.02; done; echo 'progress: 100' >&2";
    room.run(&["enqueue", "a"]).ok();
    let worker = room.start(&["work", "--drain", "--lease", "2s", "--exec", &exec(&room, script)]);
    let running = room.until(1, |task| task["progress"] == json!(40));
    assert_eq!((&running["status"], &running["progress_message"]), (&json!("running"), &json!("halfway")));
    assert!(running["worker"].is_string());
    let list = room.run(&["task", "list", "--status", "running"]).ok().out;
    assert!(list.contains("40 % halfway"), "{list}");
    room.write("go", "");
    worker.end().ok();
    assert_eq!(room.task(1)["progress"], json!(100));
}

/// A program that ignores SIGTERM and leaves its process ids behind, with a child of its own.
const STUBBORN: &str = "trap 'echo term >> \"$ROOM/terms\"' TERM; sleep 1000 & echo $! > \"$ROOM/child\"; echo $$ > \"$ROOM/pid\"; while :; do sleep 0.1; done";
const WILLING: &str = "sleep 1000 & echo $! > \"$ROOM/child\"; echo $$ > \"$ROOM/pid\"; wait";

#[test]
fn a_cancelled_program_and_what_it_started_are_stopped() {
    let room = Room::new();
    room.run(&["enqueue", "a"]).ok();
    let worker = room.start(&["work", "--drain", "--lease", "2s", "--exec", &exec(&room, WILLING)]);
    let (pid, child) = (room.until_file("pid"), room.until_file("child"));
    let said = room.run(&["task", "cancel", "1"]).ok().out;
    assert!(said.starts_with("task 1: runs, and is told to stop"), "{said}");
    let task = room.until(1, |task| task["status"] == "failed");
    assert_eq!(task["reason"], "cancelled");
    worker.end().ok();
    until_gone(&pid);
    until_gone(&child);
}

#[test]
fn a_program_that_will_not_end_is_killed() {
    let room = Room::new();
    room.run(&["enqueue", "a", "--max-attempts", "1"]).ok();
    let worker = room.start(&["work", "--drain", "--timeout", "300ms", "--exec", &exec(&room, STUBBORN)]);
    let (pid, child) = (room.until_file("pid"), room.until_file("child"));
    let task = room.until(1, |task| task["status"] == "failed");
    assert_eq!(task["reason"], "exhausted");
    assert!(task["last_error"].as_str().unwrap().contains("timed out after 300ms"), "{task}");
    worker.end().ok();
    until_gone(&pid);
    until_gone(&child);
    assert_eq!(room.read("terms"), "term\n", "it was asked first");
}

#[test]
fn what_a_program_leaves_behind_is_killed() {
    let room = Room::new();
    room.run(&["enqueue", "a"]).ok();
    let script = "sleep 1000 & echo $! > \"$ROOM/child\"; echo 7";
    room.run(&["work", "--drain", "--exec", &exec(&room, script)]).ok();
    assert_eq!(room.task(1)["result"], json!(7), "it holds the streams, and nobody waits for it");
    until_gone(&room.read("child"));
}

#[test]
fn a_budget_ends_a_program() {
    let room = Room::new();
    room.run(&["enqueue", "a", "--budget", "500ms"]).ok();
    room.run(&["work", "--drain", "--exec", &exec(&room, WILLING)]).ok();
    assert_eq!(room.task(1)["reason"], "budget_exceeded");
    until_gone(&room.until_file("child"));
}

#[test]
fn ctrl_c_once_drains() {
    let room = Room::new();
    for _ in 0..2 {
        room.run(&["enqueue", "a"]).ok();
    }
    let script = "echo $$ > \"$ROOM/pid\"; while [ ! -e \"$ROOM/go\" ]; do sleep 0.02; done";
    let worker = room.start(&["work", "--concurrency", "1", "--exec", &exec(&room, script)]);
    room.until_file("pid");
    worker.signal(Signal::SIGINT);
    // The other task is given back, the running one goes on.
    eventually(
        || room.list().iter().any(|task| task["status"] == "queued").then_some(()),
        || format!("{:?}", room.list()),
    );
    room.write("go", "");
    let ran = worker.end().ok();
    assert!(ran.out.starts_with("completed 1"), "{ran:?}");
    let tasks = room.list();
    let queued = tasks.iter().find(|task| task["status"] == "queued").unwrap();
    assert_eq!(queued["attempt"], json!(0), "what did not run has all its attempts");
}

#[test]
fn ctrl_c_twice_stops_now() {
    let room = Room::new();
    room.run(&["enqueue", "a"]).ok();
    let worker = room.start(&["work", "--grace", "10m", "--exec", &exec(&room, STUBBORN)]);
    let (pid, child) = (room.until_file("pid"), room.until_file("child"));
    worker.signal(Signal::SIGINT);
    std::thread::sleep(std::time::Duration::from_millis(200));
    worker.signal(Signal::SIGINT);
    worker.end().ok();
    let task = room.task(1);
    assert_eq!((&task["status"], &task["attempt"]), (&json!("queued"), &json!(0)), "{task}");
    until_gone(&pid);
    until_gone(&child);
}

#[test]
fn a_killed_worker_takes_its_programs_along_and_loses_nothing() {
    let room = Room::new();
    room.run(&["enqueue", "a"]).ok();
    let first = room.start(&["work", "--lease", "1s", "--exec", &exec(&room, STUBBORN)]);
    let (pid, child) = (room.until_file("pid"), room.until_file("child"));
    assert!(runs(&pid) && runs(&child));
    first.kill();
    until_gone(&pid);
    until_gone(&child);
    // It stays until the dead worker's task is recovered, though nothing is due yet.
    let second = exec(&room, "echo $QUEUE_ATTEMPT $QUEUE_FENCE > \"$ROOM/again\"");
    room.run(&["work", "--drain", "--lease", "1s", "--exec", &second]).ok();
    let task = room.task(1);
    assert_eq!((&task["status"], &task["attempt"]), (&json!("completed"), &json!(2)), "{task}");
    assert_eq!(room.read("again"), "2 2\n");
    assert_eq!(task["failed_attempts"][0]["outcome"], "retried");
}

#[test]
fn draining_waits_for_what_is_tried_again_and_not_for_what_is_due_later() {
    let room = Room::new();
    room.run(&["enqueue", "a", "--delay", "1h"]).ok();
    room.run(&["enqueue", "b"]).ok();
    room.run(&["enqueue", "a"]).ok();
    room.run(&["work", "--drain", "--exec", &exec(&room, "[ $QUEUE_ATTEMPT = 2 ]")]).ok();
    let mut ends = room.list().iter().map(|task| format!("{} {}", task["type"], task["status"])).collect::<Vec<_>>();
    ends.sort();
    assert_eq!(ends, ["\"a\" \"completed\"", "\"a\" \"queued\"", "\"b\" \"queued\""]);
    room.run(&["work", "--drain", "--queue", "elsewhere", "--exec", &exec(&room, "false")]).ok();
}

#[test]
fn metrics_are_served_while_it_works() {
    use std::io::{Read as _, Write as _};

    let room = Room::new();
    room.run(&["enqueue", "a"]).ok();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let worker = room.start(&["work", "--metrics", &address, "--exec", &exec(&room, "true")]);
    room.until(1, |task| task["status"] == "completed");
    let scrape = || {
        let mut stream = std::net::TcpStream::connect(&address).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: queue\r\nconnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.contains("tasks_processed_total{type=\"a\",outcome=\"completed\"} 1").then_some(())
    };
    eventually(scrape, || "no metrics".to_owned());
    room.run(&["work", "--metrics", &address, "--exec", "a=true"])
        .fails(1, &format!("cannot serve metrics on {address}"));
    worker.signal(Signal::SIGTERM);
    worker.end().ok();
}

#[test]
fn files_are_hashed_as_sha256sum_does() {
    let room = Room::new();
    let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut dirs = vec![sources];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { dirs.push(path) } else { files.push(path) }
        }
    }
    let lines = files.iter().map(|file| format!("{}\n", json!({"type": "hash", "payload": file.to_str().unwrap()})));
    room.feed(&["enqueue", "--batch", "-"], lines.collect::<String>()).ok();
    let script = room.script("hash", "path=$(tr -d '\"'); printf '\"%s\"' \"$(sha256sum \"$path\" | cut -d' ' -f1)\"");
    room.run(&["work", "--drain", "--concurrency", "4", "--exec", &format!("hash={}", script.display())]).ok();
    let tasks = room.list();
    assert_eq!(tasks.len(), files.len());
    for task in tasks {
        let path = task["payload"].as_str().unwrap();
        let direct = std::process::Command::new("sha256sum").arg(path).output().unwrap();
        let direct = String::from_utf8(direct.stdout).unwrap();
        assert_eq!(task["result"].as_str(), direct.split(' ').next(), "{path}");
    }
}
