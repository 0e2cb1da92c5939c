//! `queue bench`, at sizes that take no time: that it measures what it says and leaves nothing behind. How fast it is, no test says.

mod support;

use std::env;
use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;
use sqlx::{Connection as _, MySqlConnection};
use support::{Ran, Room, eventually};

/// Figures that are positive whatever the database.
const ALWAYS: &[&str] = &[
    "enqueue_per_second",
    "enqueue_single_per_second",
    "enqueue_alone_per_second",
    "drain_per_second",
    "memory_peak_bytes",
    "latency_rate_per_second",
    "latency_p50_ms",
    "latency_p95_ms",
    "latency_p99_ms",
    "pickup_p50_ms",
    "pickup_p99_ms",
    "pickup_across_p50_ms",
    "pickup_across_p99_ms",
    "idle_claim_p50_ms",
    "idle_claim_p99_ms",
];
/// Figures that only a server gives.
const SERVER: &[&str] =
    &["statements_per_task", "commits_per_task", "idle_statements_per_second", "idle_rows_per_claim"];
/// Figures that only a snapshot gives.
const SNAPSHOT: &[&str] = &["idle_claim_fresh_p50_ms", "idle_claim_fresh_p99_ms"];

fn positive(figures: &Value, names: &[&str]) {
    for name in names {
        assert!(figures[name].as_f64().is_some_and(|figure| figure >= 0.0), "{name}: {figures}");
    }
}

/// What a room holds of a bench.
fn left(room: &Room) -> Vec<String> {
    let entries = fs::read_dir(room.path(".")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries.filter(|name| name.starts_with("queue-bench-")).collect()
}

fn bench(room: &Room, url: &str, rest: &[&str]) -> Ran {
    room.run(&[&["--json", "bench", "--database-url", url, "--tasks", "20", "--watch", "200ms"], rest].concat())
}

#[test]
fn every_figure_is_there_and_nothing_stays() {
    let room = Room::new();
    let figures = bench(&room, "sqlite://queue.db", &["--payload", "300", "--types", "3", "--queues", "2"]).ok().json();
    positive(&figures, ALWAYS);
    assert_eq!((figures["engine"].as_str(), figures["types"].as_u64()), (Some("SQLite"), Some(3)));
    for name in [SERVER, SNAPSHOT].concat() {
        assert!(figures.as_object().unwrap().contains_key(name) && figures[name].is_null(), "{name}: {figures}");
    }
    assert_eq!(left(&room), Vec::<String>::new());
    assert!(!room.path("queue.db").exists(), "the database that was named is not touched");
}

#[test]
fn what_was_there_before_stays_behind_what_is_measured() {
    let room = Room::new();
    let rest = ["--only", "drain", "--backlog", "40", "--scheduled", "30", "--history", "20", "--processes", "2"];
    let figures = bench(&room, "sqlite://queue.db", &rest).ok().json();
    positive(&figures, &["drain_per_second", "memory_peak_bytes"]);
    assert!(figures["enqueue_per_second"].is_null() && figures["pickup_p50_ms"].is_null(), "{figures}");
    assert_eq!((figures["backlog"].as_u64(), figures["processes"].as_u64()), (Some(40), Some(2)));
}

#[test]
fn the_latency_is_measured_at_a_given_rate_without_a_drain() {
    let room = Room::new();
    let figures = bench(&room, "sqlite://queue.db", &["--only", "latency", "--rate", "100"]).ok().json();
    assert_eq!(figures["latency_rate_per_second"].as_f64(), Some(100.0));
    positive(&figures, &["latency_p50_ms", "latency_p99_ms"]);
    assert!(figures["drain_per_second"].is_null(), "{figures}");
}

#[test]
fn history_is_removed_beside_the_drain_when_wanted() {
    let room = Room::new();
    for processes in ["1", "2"] {
        let rest = ["--only", "drain", "--retention", "--processes", processes];
        let figures = bench(&room, "sqlite://queue.db", &rest).ok().json();
        positive(&figures, &["drain_per_second", "prune_per_second"]);
        assert_eq!((figures["retention"].as_bool(), figures["history"].as_u64()), (Some(true), Some(20)));
    }
    let without = bench(&room, "sqlite://queue.db", &["--only", "drain"]).ok().json();
    assert!(without["prune_per_second"].is_null() && without["retention"] == false, "{without}");
}

#[test]
fn people_get_a_table() {
    let room = Room::new();
    let table =
        room.run(&["bench", "--database-url", "sqlite://queue.db", "--tasks", "50", "--only", "enqueue,drain"]).ok();
    assert!(table.out.starts_with("SQLite · 50 tasks of 100 bytes · 64 at once · 1 process\n"), "{table:?}");
    assert!(table.out.lines().any(|line| line.starts_with("drain ") && line.ends_with("tasks/s")), "{table:?}");
}

#[test]
fn ctrl_c_removes_what_it_made() {
    let room = Room::new();
    let bench = room.start(&["bench", "--database-url", "sqlite://queue.db", "--tasks", "100000000"]);
    eventually(|| (!left(&room).is_empty()).then_some(()), || "it did not begin".to_owned());
    bench.signal(Signal::SIGINT);
    bench.end().fails(1, "interrupted");
    assert_eq!(left(&room), Vec::<String>::new());
}

#[test]
fn what_cannot_be_is_refused() {
    let room = Room::new();
    room.run(&["bench", "--snapshot", "--database-url", "sqlite://queue.db"]).fails(2, "--snapshot is for servers");
    room.run(&["bench", "--retention", "--only", "enqueue"]).fails(2, "--retention is about the drain");
    room.run(&["bench", "--rate", "9", "--only", "enqueue"]).fails(2, "--rate is about the latency");
    room.run(&["bench", "--tasks", "0"]).fails(2, "invalid value '0'");
    room.run(&["bench", "--only", "everything"]).fails(2, "invalid value 'everything'");
    room.run(&["bench", "--database-url", "mysql://app@127.0.0.1:1/shop"])
        .fails(1, "cannot reach mysql://app@127.0.0.1:1/shop: ")
        .hints("start the server");
    assert_eq!(left(&room), Vec::<String>::new());
}

fn on_a_server(variable: &str) {
    let server =
        env::var(variable).unwrap_or_else(|_| panic!("{variable} names no server; `cargo xtask test` provides one"));
    let server = server.trim_end_matches('/');
    let room = Room::new();
    let args = ["--json", "bench", "--database-url", server, "--tasks", "20", "--watch", "200ms", "--snapshot"];
    let figures = room.run(&args).ok().json();
    positive(&figures, ALWAYS);
    positive(&figures, SERVER);
    positive(&figures, SNAPSHOT);

    let bench = room.start(&["bench", "--database-url", server, "--tasks", "100000000"]);
    let own = format!("queue\\_bench\\_{}\\_%", bench.id());
    eventually(|| (!databases(server, &own).is_empty()).then_some(()), || "it did not begin".to_owned());
    bench.signal(Signal::SIGTERM);
    bench.end().fails(1, "interrupted");
    assert_eq!(databases(server, &own), Vec::<String>::new());
}

/// The databases whose names are like this.
fn databases(server: &str, like: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = MySqlConnection::connect(server).await.unwrap();
        let sql = "SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE ?";
        let names = sqlx::query_scalar(sql).bind(like).fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        names
    })
}

#[test]
fn a_server_is_left_as_it_was_mysql() {
    on_a_server("TEST_MYSQL_URL");
}

#[test]
fn a_server_is_left_as_it_was_mariadb() {
    on_a_server("TEST_MARIADB_URL");
}
