//! The demonstration, in a short form.

mod support;

use std::path::Path;

use serde_json::json;
use support::Room;

#[test]
fn it_ends_well_and_leaves_nothing_behind() {
    let room = Room::new();
    let mut demo = room.command(&["demo", "--tasks", "240"]);
    let output = demo.env("TMPDIR", room.path("")).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{out}{}", String::from_utf8_lossy(&output.stderr));
    for part in
        ["queue demo · SQLite", "enqueued 240 tasks", "⚡ killed worker 2", "lost 0 · finished twice 0", "next:  "]
    {
        assert!(out.contains(part), "{part} in {out}");
    }
    assert!(!out.contains('✗'), "{out}");
    let left = std::fs::read_dir(room.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn it_keeps_its_file_and_names_commands_that_exist() {
    let room = Room::new();
    let out = room.run(&["demo", "--tasks", "60", "--keep", "demo.db"]).ok().out;
    let next = out.lines().last().unwrap().split_once("next:  ").unwrap().1;
    let words = next.split(' ').skip(1).collect::<Vec<_>>();
    assert_eq!(words, ["--database-url", "sqlite://demo.db", "task", "list", "--status", "failed"]);
    let list = room.run(&words).ok().out;
    assert!(list.contains("failed(panicked)") && list.contains("failed(rejected)"), "{list}");
    room.run(&["demo", "--keep", "demo.db"]).fails(2, "demo.db is there already");
    room.run(&["demo", "--keep", "x.db", "--database-url", "sqlite://y.db"]).fails(2, "--keep makes a new SQLite file");
}

#[test]
fn programs_read_json_and_the_environment_is_left_alone() {
    let room = Room::new();
    let mut demo = room.command(&["--json", "demo", "--tasks", "60"]);
    let output = demo.env("QUEUE_DATABASE_URL", "sqlite://production.db").output().unwrap();
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&value["ok"], &value["lost"], &value["finished_twice"]), (&json!(true), &json!(0), &json!(0)));
    assert_eq!(value["kinds"].as_array().unwrap().len(), 6);
    assert!(!Path::new(&room.path("production.db")).exists());
}
