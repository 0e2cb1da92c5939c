//! What only a server can show. The server is named by TEST_MYSQL_URL or TEST_MARIADB_URL, which `cargo xtask test` sets.

mod support;

use std::env;

use serde_json::json;
use sqlx::{Connection as _, MySqlConnection};
use support::Room;

/// A database of its own, removed when the test is over.
struct Database {
    url: String,
    server: String,
    name: String,
}

impl Database {
    fn new(variable: &str) -> Self {
        let server = env::var(variable)
            .unwrap_or_else(|_| panic!("{variable} names no server; `cargo xtask test` provides one"));
        let server = server.trim_end_matches('/').to_owned();
        let name = format!("queue_cli_{}_{:x}", std::process::id(), fresh());
        let database = Self { url: format!("{server}/{name}"), server, name };
        database.execute("CREATE DATABASE");
        database
    }

    fn execute(&self, what: &str) {
        let statement = format!("{what} `{}`", self.name);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = MySqlConnection::connect(&self.server).await.unwrap();
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        });
    }

    /// The same with another password.
    fn with_password(&self, password: &str) -> String {
        let (user, host) = self.url.split_once('@').unwrap();
        let user = user.rsplit_once(':').filter(|(_, rest)| !rest.starts_with("//")).map_or(user, |(user, _)| user);
        format!("{user}:{password}@{host}")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.execute("DROP DATABASE");
    }
}

fn fresh() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};

    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn a_program_works(variable: &str) {
    let (room, database) = (Room::new(), Database::new(variable));
    let at = ["--database-url", &database.url];
    let run = |args: &[&str]| room.run(&[args, at.as_slice()].concat());
    let from_variable = |args: &[&str]| room.command(args).env("QUEUE_DATABASE_URL", &database.url).status().unwrap();
    run(&["enqueue", "a"]).fails(1, "has no queue schema yet").hints("queue migrate --database-url mysql://");
    run(&["migrate", "--status"]).fails(1, "has no queue schema yet");
    run(&["migrate"]).ok();
    run(&["enqueue", "a", "--payload", "{\"n\":  1.0}", "--key", "k"]).ok();
    let script = room.script("echo", "cat; env > \"$ROOM/env\"");
    assert!(from_variable(&["work", "--drain", "--exec", &format!("a={}", script.display())]).success());
    let task = run(&["--json", "task", "list"]).ok();
    assert!(task.out.contains("\"payload\":{\"n\":  1.0}"), "{task:?}");
    assert_eq!((&task.json()["status"], &task.json()["result"]), (&json!("completed"), &json!({"n": 1.0})));
    let env = room.read("env");
    assert!(!env.contains("QUEUE_DATABASE_URL") && !env.contains(&database.name), "{env}");
    assert_eq!(run(&["--json", "stats"]).ok().json()["queues"][0]["queue"], "default");
    run(&["task", "show", "999999999"]).fails(3, "there is no task 999999999");
}

fn the_demo_ends_well(variable: &str) {
    let (room, database) = (Room::new(), Database::new(variable));
    let demo = ["--json", "--database-url", &database.url, "demo", "--tasks", "240"];
    let value = room.run(&demo).ok().json();
    assert_eq!(
        (&value["ok"], &value["lost"], &value["finished_twice"]),
        (&json!(true), &json!(0), &json!(0)),
        "{value}"
    );
}

#[test]
fn mysql_a_program_works() {
    a_program_works("TEST_MYSQL_URL");
}

#[test]
fn mariadb_a_program_works() {
    a_program_works("TEST_MARIADB_URL");
}

#[test]
fn mysql_the_demo_ends_well() {
    the_demo_ends_well("TEST_MYSQL_URL");
}

#[test]
fn mariadb_the_demo_ends_well() {
    the_demo_ends_well("TEST_MARIADB_URL");
}

#[test]
fn a_server_that_refuses_or_is_down() {
    let (room, database) = (Room::new(), Database::new("TEST_MYSQL_URL"));
    let wrong = database.with_password("hunter2");
    let refused = room.run(&["enqueue", "a", "--database-url", &wrong]).fails(1, "refuses access").hints("password");
    let bench = room.run(&["bench", "--database-url", &wrong]).fails(1, "refuses access: Access").hints("password");
    let down = room.run(&["stats", "--database-url", "mysql://app:hunter2@127.0.0.1:1/x"]).fails(1, "cannot reach");
    let down = down.hints("start the server");
    let work = ["work", "--exec", "a=true", "--database-url", "mysql://app:hunter2@127.0.0.1:1/x"];
    let work = room.run(&work).fails(1, "connection refused; is the server running there?").hints("start the server");
    let both = room.run(&["stats", "--database-url", "mysql://app:hunter2@127.0.0.1:1,127.0.0.1:2/x"]);
    let both =
        both.fails(1, "none of its hosts takes writes: 127.0.0.1:1: connection refused; 127.0.0.1:2: connection");
    let both = both.hints("name every member of the replication group");
    let missing = room.run(&["stats", "--database-url", &format!("{}_none", database.url)]);
    let missing = missing.fails(1, "_none");
    for ran in [refused, bench, down, work, both, missing] {
        assert!(!ran.err.contains("hunter2") && !ran.err.contains(":secret@"), "{ran:?}");
    }
    assert!(!room.path("queue.db").exists());
}
