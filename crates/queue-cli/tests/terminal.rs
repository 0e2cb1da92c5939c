//! What a person sees, who runs `queue` on a terminal.

mod support;

use std::fs::File;
use std::io::Read as _;
use std::process::Stdio;

use nix::pty::{Winsize, openpty};
use support::Room;

/// Runs it with a terminal for its output, and returns its exit code and all that it drew.
fn drawn(room: &Room, args: &[&str]) -> (Option<i32>, String) {
    let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(&size, None).unwrap();
    let mut command = room.command(args);
    command.env("TERM", "xterm").stdout(Stdio::from(terminal.slave.try_clone().unwrap())).stderr(terminal.slave);
    let mut child = command.spawn().unwrap();
    // The command keeps the terminal's other end, and reading would never end.
    drop(command);
    let mut seen = Vec::new();
    // When the last process has let go of it, reading fails.
    let _ = File::from(terminal.master).read_to_end(&mut seen);
    (child.wait().unwrap().code(), String::from_utf8_lossy(&seen).into_owned())
}

#[test]
fn the_demo_is_live() {
    let room = Room::new();
    let (code, seen) = drawn(&room, &["demo", "--tasks", "240"]);
    assert_eq!(code, Some(0), "{seen}");
    for part in ["  ready ", "  demo.resize #", "⚡ killed worker 2", "lost 0 · finished twice 0", "next:  "] {
        assert!(seen.contains(part), "{part} in {seen}");
    }
}

#[test]
fn a_worker_says_what_it_does_and_a_batch_shows_how_far_it_is() {
    let room = Room::new();
    room.write("batch.jsonl", "{\"payload\":1}\n".repeat(2_000));
    let (code, seen) = drawn(&room, &["enqueue", "a", "--batch", "batch.jsonl"]);
    assert_eq!(code, Some(0), "{seen}");
    assert!(seen.contains("enqueueing") && seen.contains("enqueued 2,000 tasks"), "{seen}");
    room.run(&["enqueue", "b"]).ok();
    let (code, seen) = drawn(&room, &["work", "--drain", "--exec", "b=true"]);
    assert_eq!(code, Some(0), "{seen}");
    assert!(seen.contains("INFO") && seen.contains("completed 1"), "{seen}");
}

#[test]
fn an_error_reads_the_same() {
    let room = Room::new();
    let (code, seen) = drawn(&room, &["stats"]);
    assert_eq!((code, seen.as_str()), (Some(1), "error: there is no queue.db yet\r\n  try: queue migrate\r\n"));
}
