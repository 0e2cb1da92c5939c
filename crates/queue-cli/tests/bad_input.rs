//! Every bad input: one `error:` line, a documented exit code, nothing half-written.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use support::Room;

/// Nothing was written, and no file was made.
fn untouched(room: &Room) {
    assert!(!room.path("queue.db").exists(), "a refused command leaves no database behind");
}

#[test]
fn arguments_that_cannot_be() {
    let room = Room::new();
    for (args, says) in [
        (vec!["enqueue", "a", "--payload", "{\"a\":"], "--payload is not JSON"),
        (vec!["enqueue", "a b"], "a name must not contain"),
        (vec!["enqueue", ""], "a name must not be empty"),
        (vec!["enqueue", "a", "--queue", "ä"], "a name must not contain"),
        (vec!["enqueue", "a", "--delay", "-5s"], "a duration cannot be negative"),
        (vec!["enqueue", "a", "--delay", "99999999999999d"], "100 years at most"),
        (vec!["enqueue", "a", "--at", "tomorrow"], "write it as RFC 3339"),
        (vec!["enqueue", "a", "--priority", "101"], "a priority of 101 is out of range"),
        (vec!["enqueue", "a", "--priority", "high"], "a priority is a whole number"),
        (vec!["enqueue", "a", "--max-attempts", "0"], "0 is not in"),
        (vec!["enqueue", "a", "--budget", "0s"], "it must be longer than 0s"),
        (vec!["enqueue", "a", "--key", ""], "an idempotency key has 1 to 128 bytes"),
        (vec!["enqueue"], "required arguments were not provided: <TYPE>"),
        (vec!["stauts"], "unrecognized subcommand 'stauts'"),
        (vec!["work", "--exec", "cat"], "it reads TYPE=PROGRAM"),
        (vec!["work", "--exec", "a=cat", "--exec", "a=cat"], "two programs for the type a"),
        (vec!["work", "--exec", "a=cat", "--metrics", "here"], "such as 127.0.0.1:9000"),
        (vec!["bench", "--watch", "0s"], "it must be longer than 0s"),
        (vec!["task", "show", "0"], "a task's id is a number from 1 on"),
        (vec!["prune", "--older-than", "1w"], "one of d, h, m, s and ms"),
        (vec!["stats", "--database-url", "postgres://u:hunter2@h/d"], "there is no backend for postgres://"),
        (vec!["stats", "--database-url", "hunter2"], "the database is not named by a URL"),
        (vec!["work", "--exec", "a=cat", "--database-url", "mysql://u:hunter2@h"], "it names no database"),
        (vec!["enqueue", "a", "--database-url", "sqlite::memory:"], "a database in memory would end"),
        (vec!["stats", "--database-url", ""], "the database URL is empty"),
        (vec!["stats", "--database-url", "sqlite://a", "--database-url-file", "b"], "give one of them"),
    ] {
        let ran = room.run(&args).fails(2, says);
        assert!(!ran.err.contains("hunter2"), "{ran:?}");
        untouched(&room);
    }
    for (variable, value, says) in [
        ("QUEUE_LOG", "verbose", "QUEUE_LOG is not a log level; use error, warn, info, debug or trace"),
        ("QUEUE_DATABASE_URL", "", "QUEUE_DATABASE_URL is set, but empty"),
    ] {
        let output = room.command(&["stats"]).env(variable, value).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && told.contains(says), "{told}");
    }
}

#[test]
fn what_cannot_be_read_or_run() {
    let room = Room::new();
    room.run(&["enqueue", "a", "--payload", "@none.json"]).fails(1, "cannot read none.json: No such file");
    room.run(&["enqueue", "a", "--batch", "none.jsonl"]).fails(1, "cannot read none.jsonl: No such file");
    room.run(&["stats", "--database-url-file", "none"]).fails(1, "cannot read none: No such file");
    room.run(&["work", "--exec", "a=./none"]).fails(1, "cannot run ./none: No such file");
    room.write("plain", "");
    room.run(&["work", "--exec", "a=./plain"])
        .fails(1, "cannot run ./plain: it is not executable")
        .hints("chmod +x ./plain");
    room.run(&["demo", "--keep", "plain"]).fails(2, "plain is there already");
    untouched(&room);
    room.run(&["stats"]).fails(1, "there is no queue.db yet").hints("queue migrate");
    room.run(&["enqueue", "a", "--database-url", "sqlite://no/such/dir/q.db"])
        .fails(1, "error: cannot make no/such/dir/q.db: the directory no/such/dir does not exist")
        .hints("mkdir -p no/such/dir");
    room.run(&["bench", "--tasks", "1", "--database-url", "sqlite://no/such/dir/q.db"])
        .fails(1, "error: the directory no/such/dir does not exist")
        .hints("mkdir -p no/such/dir");
    room.run(&["stats", "--database-url", "sqlite://plain"])
        .fails(1, "plain has no queue schema yet")
        .hints("queue migrate");
    room.run(&["enqueue", "a", "--database-url", "sqlite://my%20queue.db"]).ok();
    room.run(&["stats", "--database-url", "sqlite://my%20queue.db"]).ok();
    room.run(&["enqueue", "a", "--database-url", "sqlite://."]).fails(1, "error: . is a directory");
    room.write("text.db", "this is no database ".repeat(100));
    room.run(&["enqueue", "a", "--database-url", "sqlite://text.db"]).fails(1, "text.db");
}

#[test]
fn payloads_that_are_too_large() {
    let room = Room::new();
    room.write("large.json", format!("\"{}\"", "x".repeat(1 << 20)));
    room.run(&["enqueue", "a", "--payload", "@large.json"])
        .fails(2, "the payload has 1048578 bytes, and 1048576 are the most");
    room.feed(&["enqueue", "a", "--payload", "-"], vec![b'1'; 3 << 20]).fails(1, "a payload has 1048576 at most");
    let batch = format!("{{\"payload\":1}}\n{{\"payload\":\"{}\"}}\n", "x".repeat(1 << 20));
    room.feed(&["enqueue", "a", "--batch", "-"], batch).fails(2, "line 2: its payload has 1048578 bytes");
    untouched(&room);
}

#[test]
fn a_batch_with_one_bad_line_writes_nothing_and_names_it() {
    let room = Room::new();
    let good = "{\"payload\":{\"a\":1}}\n".repeat(1_500);
    for (bad, says) in [
        ("{\"payload\":", "line 1501: EOF while parsing"),
        ("{\"payload\":1,\"prio\":1}", "line 1501: unknown field `prio`"),
        ("{\"payload\":1,\"delay\":\"-1s\"}", "line 1501: delay: a duration cannot be negative"),
    ] {
        room.write("batch.jsonl", format!("{good}{bad}\n{good}"));
        room.run(&["enqueue", "a", "--batch", "batch.jsonl"]).fails(2, says);
        room.feed(&["enqueue", "a", "--batch", "-"], format!("{good}{bad}\n")).fails(2, says);
    }
    room.feed(&["enqueue", "a", "--batch", "-"], b"{\"payload\":\"\xff\"}\n").fails(2, "line 1: byte 13 is not UTF-8");
    untouched(&room);
}

#[test]
fn a_key_conflict_in_the_middle_tells_where_to_go_on() {
    let room = Room::new();
    room.run(&["enqueue", "a", "--key", "k", "--payload", "1"]).ok();
    let lines = (1..=1_200).map(|n| {
        if n == 1_100 { "{\"payload\":2,\"key\":\"k\"}\n".to_owned() } else { format!("{{\"payload\":{n}}}\n") }
    });
    room.write("batch.jsonl", lines.collect::<String>());
    let ran = room.run(&["enqueue", "a", "--batch", "batch.jsonl"]);
    let ran = ran
        .fails(1, "line 1100: the idempotency key belongs to task 1")
        .hints("tail -n +1001 batch.jsonl | queue enqueue");
    assert!(ran.err.contains("lines 1 to 1000 were enqueued"), "{ran:?}");
    assert_eq!(room.list().len(), 1_001);
}

#[test]
fn tasks_that_are_not_there() {
    let room = Room::new();
    room.run(&["enqueue", "a"]).ok();
    room.run(&["task", "show", "99"]).fails(3, "there is no task 99").hints("queue task list");
    room.run(&["task", "retry", "98", "99"]).fails(3, "there are no tasks 98, 99");
    room.run(&["task", "list", "--after", "99"]).fails(3, "there is no task 99");
    let both = room.run(&["task", "cancel", "1", "99"]).fails(3, "there is no task 99");
    assert_eq!(both.out, "task 1: cancelled\n", "what can be done is done");
}

/// Root may write to any file, so the directory's rights say nothing there; the URL's own mode does.
#[test]
fn a_read_only_file() {
    let room = Room::new();
    room.run(&["enqueue", "a"]).ok();
    let url = "sqlite://queue.db?mode=ro";
    room.run(&["enqueue", "a", "--database-url", url]).fails(1, "cannot write to queue.db").hints("chmod u+w queue.db");
    room.run(&["stats", "--database-url", url]).ok();
    if fs::metadata(room.path("queue.db")).unwrap().uid() != 0 {
        fs::set_permissions(room.path("queue.db"), fs::Permissions::from_mode(0o444)).unwrap();
        room.run(&["enqueue", "a"]).fails(1, "cannot write to queue.db").hints("chmod u+w queue.db");
    }
    assert_eq!(room.list().len(), 1);
}
