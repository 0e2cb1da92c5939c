//! What the commands do when all is well.

mod support;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{Room, eventually};

#[test]
fn a_task_is_enqueued_listed_and_shown() {
    let room = Room::new();
    let enqueued =
        room.run(&["enqueue", "mail.welcome", "--payload", "{\"to\": \"ada\",  \"n\":1.0}", "--queue", "mail"]).ok();
    assert_eq!(enqueued.out, "enqueued task 1: mail.welcome in queue mail\n");
    let shown = room.task(1);
    let keys = shown.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>();
    for key in [
        "id",
        "type",
        "queue",
        "status",
        "priority",
        "attempt",
        "max_attempts",
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
        "payload",
        "result",
    ] {
        assert!(keys.contains(&key), "no {key} in {keys:?}");
    }
    assert_eq!(
        (&shown["type"], &shown["queue"], &shown["status"]),
        (&json!("mail.welcome"), &json!("mail"), &json!("queued"))
    );
    let raw = room.run(&["task", "show", "1", "--json"]).ok().out;
    assert!(raw.contains("\"payload\":{\"to\": \"ada\",  \"n\":1.0}"), "byte by byte: {raw}");
    let list = room.list();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0]["payload"], shown["payload"]);
    assert!(
        shown["run_at"].as_str().unwrap().ends_with('Z') && shown["run_at"].as_str().unwrap().len() == 27,
        "{shown}"
    );
    let text = room.run(&["task", "show", "1"]).ok().out;
    assert!(text.contains("attempt     0 of 3"), "{text}");
}

#[test]
fn every_option_of_enqueue_is_kept() {
    let room = Room::new();
    let args = [
        "enqueue",
        "a",
        "--priority",
        "-5",
        "--delay",
        "1h",
        "--max-attempts",
        "7",
        "--budget",
        "none",
        "--payload",
        "-",
    ];
    room.feed(&args, "  [1]\n").ok();
    let task = room.task(1);
    assert_eq!((&task["priority"], &task["max_attempts"], &task["deadline_at"]), (&json!(-5), &json!(7), &Value::Null));
    assert_eq!(task["payload"], json!([1]));
    assert!(task["run_at"].as_str() > task["created_at"].as_str());
    room.run(&["enqueue", "a", "--at", "2099-01-31T10:00:00+01:00"]).ok();
    let later = room.list().into_iter().find(|task| task["payload"].is_null()).unwrap();
    assert_eq!(later["run_at"], "2099-01-31T09:00:00.000000Z");
    let stats = room.run(&["stats", "--json"]).ok().json();
    assert_eq!((&stats["queues"][0]["ready"], &stats["queues"][0]["later"]), (&json!(0), &json!(2)));
}

#[test]
fn what_is_due_later_says_when() {
    let room = Room::new();
    let later = room.run(&["enqueue", "a", "--delay", "2h"]).ok().out;
    assert_eq!(later, "enqueued task 1: a in queue default, due in 2h00m\n");
    let at = room.run(&["enqueue", "a", "--at", "2099-01-31T10:00:00+01:00"]).ok().out;
    assert!(at.ends_with(", due at 2099-01-31T09:00:00.000000Z\n"), "{at}");
}

#[test]
fn nothing_of_a_paused_queue_runs_until_it_is_resumed() {
    let room = Room::new();
    room.run(&["pause", "mail"]).fails(1, "there is no queue.db yet");
    room.run(&["enqueue", "a", "--queue", "mail"]).ok();
    let paused = room.run(&["pause", "mail", "--why", "provider down"]).ok().out;
    assert_eq!(paused, "queue mail is paused; queue resume mail resumes it\n");
    let stats = room.run(&["stats", "--json"]).ok().json();
    assert_eq!(stats["queues"][0]["paused"]["why"], "provider down", "{stats}");
    let work = ["work", "--exec", "a=true", "--drain"];
    assert_eq!(room.run(&work).ok().out, "completed 0\n");
    assert_eq!(room.run(&["resume", "mail", "--json"]).ok().json(), json!({"queue": "mail", "paused": false}));
    assert_eq!(room.run(&work).ok().out, "completed 1\n");
}

#[test]
fn a_worker_is_listed_and_told_to_drain() {
    let room = Room::new();
    room.run(&["migrate"]).ok();
    assert_eq!(room.run(&["worker", "list"]).ok().out, "no workers\n");
    let worker = room.start(&["work", "--exec", "a=true", "--lease", "2s"]);
    let listed = || room.run(&["worker", "list", "--json"]).ok().lines();
    let found = eventually(|| listed().pop(), || "no worker".to_owned());
    assert_eq!((&found["state"], &found["running"]), (&json!("alive"), &json!(0)), "{found}");
    let name = found["name"].as_str().unwrap();
    room.run(&["worker", "drain", name, "nobody"])
        .fails(3, "there is no live worker nobody")
        .hints("queue worker list");
    let told = room.run(&["worker", "drain", name]).ok().out;
    assert!(told.ends_with("is told to drain with its next heartbeat; it runs 0\n"), "{told}");
    assert_eq!(worker.end().ok().out, "completed 0\n");
}

#[test]
fn what_failed_is_retried_by_what_it_is() {
    let room = Room::new();
    let lines = |task_type: &str, count: usize| format!("{{\"type\":\"{task_type}\",\"payload\":1}}\n").repeat(count);
    room.feed(&["enqueue", "--batch", "-", "--max-attempts", "1"], lines("a", 520) + &lines("b", 2)).ok();
    room.run(&["work", "--exec", "a=false", "--exec", "b=false", "--drain"]).ok();
    let retry = |more: &[&str]| room.run(&[["task", "retry", "--type", "a"].as_slice(), more].concat()).ok();
    assert_eq!(retry(&[]).out, "this would retry 520 tasks; nothing was changed, --yes does it\n");
    assert_eq!(retry(&["--reason", "crashed", "--yes"]).out, "there is nothing to retry\n");
    assert_eq!(
        room.run(&["task", "list", "--reason", "exhausted", "--json", "--limit", "1000"]).ok().lines().len(),
        522
    );
    assert_eq!(retry(&["--reason", "exhausted", "--yes"]).out, "520 tasks queued again\n");
    let cancelled = room.run(&["--json", "task", "cancel", "--queue", "default", "--yes"]).ok().json();
    assert_eq!(cancelled, json!({"matched": 520, "changed": 520}));
    assert_eq!(room.run(&["task", "list", "--reason", "exhausted", "--json"]).ok().lines().len(), 2);
}

#[test]
fn help_comes_in_both_ways() {
    let room = Room::new();
    let help = room.run(&["help", "task", "list"]).ok().out;
    assert_eq!(help, room.run(&["task", "list", "--help"]).ok().out);
    assert!(help.contains("--status <STATUS>"), "{help}");
}

#[test]
fn a_key_makes_enqueueing_repeatable() {
    let room = Room::new();
    let args = ["--json", "enqueue", "a", "--key", "order-7", "--payload", "1"];
    assert_eq!(room.run(&args).ok().json(), json!({"id": 1, "type": "a", "queue": "default", "existing": false}));
    assert_eq!(room.run(&args).ok().json()["existing"], true);
    room.run(&["enqueue", "a", "--key", "order-7", "--payload", "2"])
        .fails(1, "which has another payload")
        .hints("task show 1");
    assert_eq!(room.list().len(), 1);
}

#[test]
fn a_batch_is_written_whole() {
    let room = Room::new();
    let lines = (0..2_500)
        .map(|n| format!("{{\"payload\":{n},\"key\":\"k{n}\",\"priority\":{}}}\n", n % 7))
        .collect::<String>();
    room.write("batch.jsonl", &lines);
    let written = room.run(&["enqueue", "a", "--batch", "batch.jsonl", "--json"]).ok().json();
    assert_eq!((&written["enqueued"], &written["existing"]), (&json!(2_500), &json!(0)));
    let again = room.feed(&["enqueue", "a", "--batch", "-", "--json"], &lines).ok().json();
    assert_eq!((&again["enqueued"], &again["existing"]), (&json!(0), &json!(2_500)));
    assert_eq!(room.list().len(), 2_500);
}

#[test]
fn lists_go_on_where_they_stopped() {
    let room = Room::new();
    room.feed(&["enqueue", "a", "--batch", "-"], "{\"payload\":1}\n".repeat(7)).ok();
    let mut seen = Vec::new();
    let mut after = None::<String>;
    loop {
        let mut args = vec!["task", "list", "--json", "--status", "queued", "--limit", "3"];
        args.extend(after.iter().flat_map(|id| ["--after", id]));
        let page = room.run(&args).ok().lines();
        let Some(last) = page.last() else { break };
        after = Some(last["id"].to_string());
        seen.extend(page.iter().map(|task| task["id"].as_u64().unwrap()));
    }
    let mut unique = seen.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!((seen.len(), unique.len()), (7, 7), "{seen:?}");
    let text = room.run(&["task", "list", "--limit", "3"]).ok().out;
    assert!(text.contains("there may be more: --after "), "{text}");
    assert_eq!(room.run(&["task", "list", "--type", "none"]).ok().out, "no tasks\n");
}

#[test]
fn tasks_are_cancelled_retried_and_pruned() {
    let room = Room::new();
    room.run(&["enqueue", "a"]).ok();
    assert_eq!(room.run(&["task", "cancel", "1"]).ok().out, "task 1: cancelled\n");
    assert_eq!(room.task(1)["reason"], "cancelled");
    room.run(&["task", "cancel", "1"]).fails(1, "task 1: cannot cancel a task that is failed");
    assert_eq!(room.run(&["task", "retry", "1", "1", "--json"]).ok().lines(), [json!({"id": 1, "outcome": "done"})]);
    assert_eq!(room.task(1)["status"], "queued");
    room.run(&["task", "cancel", "1"]).ok();
    assert_eq!(room.run(&["prune", "--older-than", "1h"]).ok().out, "removed 0 tasks\n");
    assert_eq!(
        room.run(&["prune", "--older-than", "0s", "--status", "failed", "--json"]).ok().json(),
        json!({"removed": 1})
    );
    room.run(&["task", "show", "1"]).fails(3, "there is no task 1");
}

#[test]
fn a_worker_looks_after_history() {
    let room = Room::new();
    room.run(&["enqueue", "a"]).ok();
    room.run(&["task", "cancel", "1"]).ok();
    room.run(&["enqueue", "a"]).ok();
    let other = room.list().iter().filter_map(|task| task["id"].as_u64()).max().unwrap();
    let cat = room.script("cat", "cat");
    let exec = format!("a={}", cat.display());
    let keep = ["--keep-failed", "0s", "--keep-completed", "90d"];
    let worker = room.start(&[&["work", "--exec", exec.as_str()], keep.as_slice()].concat());
    let gone = || (room.run(&["task", "show", "1"]).code == Some(3)).then_some(());
    eventually(gone, || "the failed task was not removed".to_owned());
    eventually(|| (room.task(other)["status"] == "completed").then_some(()), || "the other one did not run".to_owned());
    worker.signal(Signal::SIGINT);
    worker.end().ok();
    assert_eq!(room.task(other)["status"], "completed");
    room.run(&["work", "--exec", "a=cat", "--keep-failed", "7"]).fails(2, "needs a unit");
}

#[test]
fn a_schema_is_migrated_and_looked_at() {
    let room = Room::new();
    room.run(&["migrate", "--status"]).fails(1, "there is no queue.db yet").hints("queue migrate");
    assert!(!room.path("queue.db").exists(), "looking makes nothing");
    assert!(room.run(&["migrate"]).ok().out.starts_with("migrated queue.db to schema version "));
    assert!(room.run(&["migrate"]).ok().out.starts_with("queue.db is up to date"));
    assert_eq!(room.run(&["migrate", "--status", "--json"]).ok().json()["up_to_date"], true);
}

#[test]
fn the_database_is_named_in_three_ways() {
    let room = Room::new();
    room.write("url", "sqlite://three.db\n");
    room.run(&["--database-url", "sqlite://one.db", "enqueue", "a"]).ok();
    room.run(&["enqueue", "a", "--database-url-file", "url"]).ok();
    let mut variable = room.command(&["enqueue", "a"]);
    assert!(variable.env("QUEUE_DATABASE_URL", "sqlite://two.db").status().unwrap().success());
    for file in ["one.db", "two.db", "three.db"] {
        assert!(room.path(file).exists(), "{file}");
    }
    assert!(!room.path("queue.db").exists());
}

#[test]
fn stored_text_cannot_act_on_a_terminal() {
    let room = Room::new();
    let script = room.script("fail", "printf 'red \\033[31m\\007 \\302\\233 text\\nnext line' >&2; exit 65");
    room.run(&["enqueue", "a", "--payload", "\"\u{9b}2J\u{7f}\""]).ok();
    room.run(&["work", "--drain", "--exec", &format!("a={}", script.display())]).ok();
    for args in [["task", "show", "1"].as_slice(), &["task", "list"], &["--json", "task", "show", "1"]] {
        let out = room.run(args).ok().out;
        assert!(!out.chars().any(|c| c.is_control() && c != '\n'), "{out:?}");
    }
    let text = room.run(&["task", "show", "1"]).ok().out;
    assert!(text.contains("exit status 65: red \\u{1b}[31m\\u{7} \\u{9b} text\n    next line\n"), "{text}");
    assert_eq!(room.task(1)["payload"], "\u{9b}2J\u{7f}");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let room = Room::new();
    room.feed(&["enqueue", "a", "--batch", "-"], "{\"payload\":1}\n".repeat(2_000)).ok();
    let mut child = room.command(&["task", "list", "--limit", "100000"]).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
}

#[test]
fn help_tells_what_the_contract_is() {
    let room = Room::new();
    let help = room.run(&["--help"]).ok().out;
    for word in ["Exit codes", "QUEUE_DATABASE_URL", "migrated", "sqlite://", "mysql://"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert!(!help.contains("__"), "hidden commands stay hidden: {help}");
    assert!(room.run(&["work", "--help"]).ok().out.contains("QUEUE_FENCE"));
    assert_eq!(room.run(&[]).code, Some(2));
}
