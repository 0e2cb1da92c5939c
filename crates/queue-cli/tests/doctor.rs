//! `queue doctor`, as an operator sees it.

mod support;

use std::env;

use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection};
use support::{Ran, Room};

/// The finding of this check, as one line and what to do about it.
#[track_caller]
fn says(ran: &Ran, level: &str, check: &str, detail: &str, advice: &str) {
    let lines: Vec<_> = ran.out.lines().collect();
    let found = lines.windows(2).any(|pair| {
        let mut words = pair[0].split_whitespace();
        words.next() == Some(level)
            && words.next() == Some(check)
            && pair[0].contains(detail)
            && (advice.is_empty() || pair[1].trim_start().starts_with("→ ") && pair[1].contains(advice))
    });
    assert!(found, "no {level} {check} {detail} {advice} in {ran:?}");
}

#[test]
fn a_file_is_looked_over() {
    let room = Room::new();
    let missing = room.run(&["doctor"]).fails(1, "1 failure, 0 ok");
    assert!(missing.out.starts_with("fail  connection  there is no queue.db yet\n"), "{missing:?}");
    assert!(missing.out.contains("→ queue migrate") && !room.path("queue.db").exists(), "{missing:?}");
    room.write("plain.db", "");
    let empty = room.run(&["doctor", "--database-url", "sqlite://plain.db"]).fails(1, "1 failure, ");
    says(&empty, "fail", "schema", "no queue schema yet", "queue migrate --database-url sqlite://plain.db");
    room.run(&["enqueue", "a"]).ok();
    let healthy = room.run(&["doctor", "--full"]).ok();
    assert!(healthy.out.ends_with(" ok\n") && !healthy.out.contains("warn"), "{healthy:?}");
    says(&healthy, "ok", "invariants", "1 queued", "");
    assert!(room.run(&["doctor", "--lease", "10s"]).ok().out.contains("1 warning, "), "exit 0 with warnings only");

    rusqlite::Connection::open(room.path("queue.db")).unwrap().execute_batch("DROP INDEX queue_claim_session").unwrap();
    let broken = room.run(&["doctor"]).fails(1, "1 failure, ");
    says(&broken, "fail", "tables", "queue_claim_session is missing", "CREATE INDEX queue_claim_session ON");
    let json = room.run(&["--json", "doctor"]);
    assert_eq!(json.code, Some(1));
    let failed: Vec<_> = json.lines().into_iter().filter(|line| line["level"] == "fail").collect();
    assert_eq!((failed.len(), &failed[0]["check"]), (1, &"tables".into()), "{json:?}");
    assert!(failed[0]["advice"].as_str().unwrap().starts_with("CREATE INDEX"), "{json:?}");
}

fn execute(server: &str, statements: String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = MySqlConnection::connect(server).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

fn a_server_is_looked_over(variable: &str) {
    let server =
        env::var(variable).unwrap_or_else(|_| panic!("{variable} names no server; `cargo xtask test` provides one"));
    let server = server.trim_end_matches('/').to_owned();
    let name = format!("qd_{}_{}", variable.len(), std::process::id());
    execute(&server, format!("CREATE DATABASE {name}"));
    let (room, url) = (Room::new(), format!("{server}/{name}"));
    let run = |url: &str, args: &[&str]| room.run(&[args, &["--database-url", url]].concat());
    let empty = run(&url, &["doctor"]).fails(1, "1 failure, ");
    says(&empty, "fail", "schema", "no queue schema yet", "queue migrate");
    run(&url, &["migrate"]).ok();
    run(&url, &["enqueue", "a"]).ok();
    let healthy = run(&url, &["doctor"]).ok();
    says(&healthy, "ok", "skip_locked", "passes over a locked row", "");
    says(&healthy, "ok", "plans", "by the right index", "");
    says(&healthy, "ok", "invariants", "1 queued", "");

    let few = format!("{name}_few");
    execute(&server, format!("CREATE USER '{few}'@'%' IDENTIFIED BY 'pw'; GRANT SELECT ON {name}.* TO '{few}'@'%'"));
    let place = server.rsplit_once('@').unwrap().1;
    let ran = run(&format!("mysql://{few}:pw@{place}/{name}"), &["doctor"]);
    execute(&server, format!("DROP DATABASE {name}; DROP USER '{few}'@'%'"));
    let ran = ran.fails(1, "failures, ");
    let grant = format!("GRANT INSERT, UPDATE, DELETE ON `{name}`.queue_task TO '{few}'@'%'");
    says(&ran, "fail", "privileges", "may not INSERT, UPDATE, DELETE queue_task", &grant);
    says(&ran, "warn", "snapshots", "PROCESS privilege", "GRANT PROCESS");
    assert!(!ran.out.contains(":pw@"), "{ran:?}");
}

#[test]
fn mysql_a_server_is_looked_over() {
    a_server_is_looked_over("TEST_MYSQL_URL");
}

#[test]
fn mariadb_a_server_is_looked_over() {
    a_server_is_looked_over("TEST_MARIADB_URL");
}
