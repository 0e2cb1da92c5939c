//! The short form of the chaos run, on a server of its own for each engine. `cargo xtask chaos` is the long one.

use std::env;
use std::io::{self, Write as _};
use std::process::Command;

/// Long enough for every kind of fault, the calm at the end included.
const SECONDS: &str = "40";
/// The same faults each time. What the processes do meanwhile differs anyhow.
const SEED: &str = "4";

#[test]
fn the_short_chaos_loses_nothing_and_does_nothing_twice_on_mysql() {
    run("TEST_MYSQL_RECIPE");
}

#[test]
fn the_short_chaos_loses_nothing_and_does_nothing_twice_on_mariadb() {
    run("TEST_MARIADB_RECIPE");
}

#[test]
fn the_short_chaos_loses_nothing_and_does_nothing_twice_on_oceanbase() {
    run("TEST_OCEANBASE_RECIPE");
}

fn run(variable: &str) {
    let set =
        |name: &str| env::var(name).unwrap_or_else(|_| panic!("set {name}: run the tests with `cargo xtask test`"));
    let ran = Command::new(env!("CARGO_BIN_EXE_queue_chaos"))
        .args(["run", "--seconds", SECONDS, "--seed", SEED, "--recipe", &set(variable), "--queue", &set("QUEUE_BIN")])
        .output()
        .expect("the program can be started");
    let said = [ran.stdout, ran.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(ran.status.success(), "{said}");
    // Past the test harness, which shows nothing of what passed: the report is worth a look.
    let report = said.find("chaos on ").map_or(said.as_str(), |start| &said[start..]);
    writeln!(io::stderr(), "{report}").expect("standard error is there");
    assert!(report.contains("lost 0 · duplicated 0 · unexplained reruns 0 · other violations 0"), "{said}");
}
