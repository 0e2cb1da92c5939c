//! `cargo xtask test`: one build, real servers, every test, the coverage floors.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::coverage::{Coverage, Report};
use crate::failover;
use crate::process;
use crate::server::own::OwnServer;
use crate::server::{self, Kind, Server};
use crate::workspace::{Workspace, is_ci};

/// Tests for MariaDB have this in their names; they run once for each release of it.
const MARIADB_FILTER: &str = "mariadb";
/// Tests for OceanBase have this in their names; they run apart, where a server can be had.
const OCEANBASE_FILTER: &str = "oceanbase";
/// How often the failover test kills the primary here.
const FAILOVERS: u32 = 2;

/// The package of the tests that kill a server of their own, and their names without the engine.
const OWN_SERVERS_PACKAGE: &str = "queue-tests";
const OWN_SERVERS_TEST: &str = "the_short_chaos_loses_nothing_and_does_nothing_twice_on_";
const SKIP_OWN_SERVERS: &[&str] = &["--skip", OWN_SERVERS_TEST];

/// What `test` and `coverage` are told.
#[derive(Debug, Default, Args)]
pub(crate) struct TestArgs {
    /// Only the tests of these packages
    #[arg(short, long, value_name = "NAME")]
    package: Vec<String>,
    /// A plain build that counts no lines
    #[arg(long)]
    no_coverage: bool,
    /// A filter and options for the test programs
    #[arg(last = true, value_name = "ARGS")]
    rest: Vec<String>,
}

impl TestArgs {
    /// Whether tests that kill a server of their own may be among them.
    fn wants_own_servers(&self) -> bool {
        let filters = self.filters();
        let chosen =
            |engine: &&str| filters.iter().any(|filter| format!("{OWN_SERVERS_TEST}{engine}").contains(filter));
        (self.package.is_empty() || self.package.iter().any(|package| package == OWN_SERVERS_PACKAGE))
            && (filters.is_empty() || ["mysql", MARIADB_FILTER, OCEANBASE_FILTER].iter().any(chosen))
    }

    /// The words for the test programs that choose tests by their names.
    fn filters(&self) -> Vec<&str> {
        const TAKE_A_WORD: [&str; 7] =
            ["--skip", "--test-threads", "--format", "--color", "--logfile", "--shuffle-seed", "-Z"];
        let mut words = self.rest.iter().map(String::as_str);
        let mut filters = Vec::new();
        while let Some(word) = words.next() {
            if TAKE_A_WORD.contains(&word) {
                words.next();
            } else if !word.starts_with('-') {
                filters.push(word);
            }
        }
        filters
    }

    fn is_whole(&self) -> bool {
        self.package.is_empty() && self.rest.is_empty()
    }

    fn select(&self, command: &mut Command) {
        if self.package.is_empty() {
            // xtask's tests run apart: an instrumented build of its dependencies would serve nobody.
            command.args(["--workspace", "--exclude", "xtask"]);
        }
        for package in &self.package {
            command.args(["--package", package]);
        }
        command.arg("--all-features");
    }
}

/// Runs `cargo xtask test` or, with [`Report::Lines`], `coverage`.
pub(crate) fn run(workspace: &Workspace, args: &TestArgs, report: Report) -> Result<()> {
    if server::wants_container() && !cfg!(feature = "docker") {
        return with_containers(workspace);
    }
    let _alone = workspace.lock("test")?;
    let start = process::now();
    let coverage = coverage(workspace, args)?;
    // Fetching and setting up servers waits for the network and the disk, the build for the processors.
    let (built, choices) = std::thread::scope(|scope| {
        let choices = scope.spawn(|| -> Result<_> {
            let choices = server::choose(&workspace.target)?;
            let own = if args.wants_own_servers() { server::own::one_of_each(&workspace.target)? } else { Vec::new() };
            Ok((choices, own))
        });
        let built = Build::new(workspace, args, coverage.as_ref());
        (built, choices.join().expect("choosing a server does not panic"))
    });
    let (mut built, (choices, own)) = (built?, choices?);
    built.own = own;
    let built_after = start.elapsed();
    let servers = choices.into_iter().map(server::Choice::start).collect::<Result<Vec<_>>>()?;
    for server in &servers {
        println!("server: {server}");
    }

    let mut run = Run { workspace, args, coverage: coverage.as_ref(), built: &built, servers, tally: Tally::default() };
    run.cargo_test()?;
    run.second_mariadb()?;
    let oceanbase = run.scale_out()?;
    run.fail_over()?;
    if args.is_whole() {
        let mut own = workspace.cargo("test");
        own.args(["--quiet", "--package", "xtask"]);
        run.tally.watch(&mut own, "xtask")?;
    }

    println!("\ntested on:");
    run.servers.iter().for_each(|server| println!("  {server}"));
    println!("  {oceanbase}");
    println!("  SQLite (bundled)");
    let Run { servers, tally, .. } = run;
    drop(servers);
    println!("built in {} s, tested in {} s", built_after.as_secs(), (start.elapsed() - built_after).as_secs());
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if !tally.broken.is_empty() {
        bail!("tests failed: {}", tally.broken.join(", "));
    }
    if tally.passed == 0 {
        bail!("no test ran");
    }
    match coverage {
        Some(coverage) => coverage.report(workspace, &built.programs, report, args.is_whole()),
        None => {
            println!("coverage was left out");
            Ok(())
        }
    }
}

/// Starts xtask once more, with containers built in.
fn with_containers(workspace: &Workspace) -> Result<()> {
    println!("a Docker engine answers: building xtask with containers (once)");
    let mut again = workspace.cargo("run");
    again.args(["--quiet", "--package", "xtask", "--features", "docker", "--"]).args(std::env::args_os().skip(1));
    Err(again.exec()).context("cannot start cargo")
}

fn coverage(workspace: &Workspace, args: &TestArgs) -> Result<Option<Coverage>> {
    if args.no_coverage {
        return Ok(None);
    }
    match Coverage::new(workspace) {
        Ok(coverage) => Ok(Some(coverage)),
        Err(error) if is_ci() => Err(error.context("in CI coverage is not left out")),
        Err(error) => {
            println!("coverage is left out: {error:#}");
            Ok(None)
        }
    }
}

/// What the build made.
#[derive(Debug, Default)]
pub(crate) struct Build {
    /// All programs, for the coverage report.
    programs: Vec<PathBuf>,
    /// Test programs, each with the folder of its package.
    tests: Vec<(PathBuf, PathBuf)>,
    /// Binaries by name; a test of another package than theirs finds them through `QUEUE_BIN`.
    binaries: BTreeMap<String, PathBuf>,
    /// Servers that tests may kill.
    own: Vec<OwnServer>,
}

impl Build {
    fn new(workspace: &Workspace, args: &TestArgs, coverage: Option<&Coverage>) -> Result<Self> {
        let mut command = workspace.cargo("test");
        args.select(&mut command);
        if let Some(coverage) = coverage {
            coverage.instrument(&mut command);
        }
        Self::from_command(command)
    }

    /// Builds what this `cargo test` would run, without running it.
    pub(crate) fn from_command(mut command: Command) -> Result<Self> {
        command.arg("--no-run");
        Self::of(command)
    }

    /// Builds the binaries of these packages.
    pub(crate) fn binaries_of(workspace: &Workspace, packages: &[&str]) -> Result<Self> {
        let mut command = workspace.cargo("build");
        command.arg("--bins").args(packages.iter().flat_map(|package| ["--package", package]));
        Self::of(command)
    }

    fn of(mut command: Command) -> Result<Self> {
        let mut build = Self::default();
        command.arg("--message-format=json-render-diagnostics");
        if !process::lines(&mut command, |line| build.note(line))? {
            bail!("`{}` failed", process::describe(&command));
        }
        build.programs.sort_unstable();
        build.programs.dedup();
        Ok(build)
    }

    /// The binary of this name.
    pub(crate) fn binary(&self, name: &str) -> Result<&Path> {
        self.binaries.get(name).map(PathBuf::as_path).with_context(|| format!("the build made no program {name}"))
    }

    /// The test program of this name, and the folder of its package.
    pub(crate) fn test(&self, name: &str) -> Option<(&Path, &Path)> {
        let is_it = |program: &Path| {
            let file = program.file_name().unwrap_or_default().to_string_lossy();
            file.rsplit_once('-').is_some_and(|(before, _)| before == name)
        };
        self.tests.iter().find(|(program, _)| is_it(program)).map(|(program, folder)| (&**program, &**folder))
    }

    fn note(&mut self, message: &str) {
        let Ok(message) = serde_json::from_str::<Value>(message) else { return };
        let Some(program) = message["executable"].as_str().map(PathBuf::from) else { return };
        self.programs.push(program.clone());
        if message["profile"]["test"] == true {
            let manifest = Path::new(message["manifest_path"].as_str().unwrap_or_default());
            self.tests.push((program, manifest.parent().unwrap_or(manifest).to_owned()));
        } else if let Some(name) = message["target"]["name"].as_str() {
            self.binaries.insert(name.to_owned(), program);
        }
    }

    fn has_own(&self, kind: Kind) -> bool {
        self.own.iter().any(|own| own.kind == kind)
    }
}

/// A run of what was built.
struct Run<'a> {
    workspace: &'a Workspace,
    args: &'a TestArgs,
    coverage: Option<&'a Coverage>,
    built: &'a Build,
    servers: Vec<Server>,
    tally: Tally,
}

impl Run<'_> {
    fn cargo_test(&mut self) -> Result<()> {
        let mut command = self.workspace.cargo("test");
        command.arg("--no-fail-fast");
        self.args.select(&mut command);
        command.args(["--", "--skip", OCEANBASE_FILTER]).args(&self.args.rest).args(self.skipped());
        self.environment(&mut command);
        self.tally.watch(&mut command, "cargo test")
    }

    /// Runs the tests for MariaDB once more, on its second release.
    fn second_mariadb(&mut self) -> Result<()> {
        let second = self.servers.iter().find(|server| server.kind == Kind::MariadbLts);
        let Some((name, url)) = second.map(|second| (second.to_string(), second.url.clone())) else { return Ok(()) };
        if !self.args.rest.is_empty() {
            println!("a filtered run: {name} is left out");
            return Ok(());
        }
        println!("\nonce more on {name}: the tests with `{MARIADB_FILTER}` in their names");
        // A server's death is a matter of the engine, hardly of its release.
        let programs = self.programs_with(&[MARIADB_FILTER], SKIP_OWN_SERVERS)?;
        if programs.is_empty() && self.args.is_whole() {
            self.tally.broken.push(format!("no test has `{MARIADB_FILTER}` in its name, so none ran on {name}"));
        }
        self.on(programs, Kind::Mariadb, &name, &url)
    }

    /// Runs the tests for OceanBase, if one can be had: it is one more engine, and its build is not for every machine. Says on what
    /// they ran, or why they did not. The server lives for them alone, because of its memory.
    fn scale_out(&mut self) -> Result<String> {
        let filters = if self.args.rest.is_empty() {
            vec![OCEANBASE_FILTER]
        } else {
            self.args.filters().into_iter().filter(|filter| filter.contains(OCEANBASE_FILTER)).collect()
        };
        let skip: &[&str] = if self.built.has_own(Kind::OceanBase) { &[] } else { SKIP_OWN_SERVERS };
        let programs = if filters.is_empty() { Vec::new() } else { self.programs_with(&filters, skip)? };
        if programs.is_empty() && !self.args.is_whole() {
            return Ok("not OceanBase: this run is filtered".to_owned());
        }
        let server = match server::choose_oceanbase(&self.workspace.target).and_then(server::Choice::start) {
            Ok(server) => server,
            Err(error) => {
                let told = format!("not OceanBase, for want of a server: {error:#}");
                println!("\n{told}");
                return Ok(told);
            }
        };
        let name = server.to_string();
        println!("\non {name}: the tests with `{OCEANBASE_FILTER}` in their names");
        if programs.is_empty() {
            self.tally.broken.push(format!("no test has `{OCEANBASE_FILTER}` in its name, so none ran on {name}"));
        }
        self.on(programs, Kind::OceanBase, &name, &server.url)?;
        Ok(name)
    }

    /// The test programs that have tests with one of these words in their names, each ready to run just those.
    fn programs_with(&self, filters: &[&str], skip: &[&str]) -> Result<Vec<Command>> {
        let mut found = Vec::new();
        for (program, folder) in &self.built.tests {
            let command = || {
                let mut command = Command::new(program);
                command.args(filters).args(skip).current_dir(folder).env("CARGO_MANIFEST_DIR", folder);
                self.environment(&mut command);
                command
            };
            let listed = process::output(command().args(["--list", "--format=terse"]))
                .with_context(|| format!("cannot list the tests of {}", program.display()))?;
            if listed.lines().any(|line| line.ends_with(": test")) {
                found.push(command());
            }
        }
        Ok(found)
    }

    /// Runs them on this server, in place of the one of that kind.
    fn on(&mut self, programs: Vec<Command>, kind: Kind, name: &str, url: &str) -> Result<()> {
        for mut command in programs {
            command.env(kind.url_variable(), url);
            let told = format!("{} on {name}", Path::new(command.get_program()).display());
            self.tally.watch(&mut command, &told)?;
        }
        Ok(())
    }

    /// Runs the failover test, alone, because it counts seconds.
    fn fail_over(&mut self) -> Result<()> {
        if !self.args.is_whole() {
            println!("a filtered run: the failover test is left out (`cargo xtask failover` runs it alone)");
            return Ok(());
        }
        let target = &self.workspace.target;
        let program = match server::group_program(target) {
            Ok(program) => program,
            Err(error) if is_ci() => return Err(error.context("in CI the failover test is not left out")),
            Err(error) => {
                println!("the failover test is left out, for want of a server program: {error:#}");
                return Ok(());
            }
        };
        let mut command = failover::command(self.built, &program, target, FAILOVERS)?;
        self.environment(&mut command);
        self.tally.watch(&mut command, "failover")
    }

    /// Sets what tests find in their environment.
    fn environment(&self, command: &mut Command) {
        if let Some(coverage) = self.coverage {
            coverage.instrument(command);
        }
        for server in &self.servers {
            command.env(server.kind.url_variable(), &server.url);
        }
        for own in &self.built.own {
            command.env(own.kind.recipe_variable(), own.recipe());
        }
        if let Some(queue) = self.built.binaries.get("queue") {
            command.env("QUEUE_BIN", queue);
        }
    }

    /// The tests whose servers cannot be had, each as an option that skips it.
    fn skipped(&self) -> Vec<String> {
        let missing = |kind: &Kind| self.args.wants_own_servers() && !self.built.has_own(*kind);
        let name = |kind| if kind == Kind::Mysql { "mysql" } else { MARIADB_FILTER };
        let missing = [Kind::Mysql, Kind::Mariadb].into_iter().filter(missing).map(name);
        missing.flat_map(|name| ["--skip".to_owned(), format!("{OWN_SERVERS_TEST}{name}")]).collect()
    }
}

/// What the test programs said.
#[derive(Debug, Default)]
struct Tally {
    passed: u64,
    failed: u64,
    broken: Vec<String>,
}

impl Tally {
    /// Runs `command`, shows what it prints and adds up its results.
    fn watch(&mut self, command: &mut Command, name: &str) -> Result<()> {
        let succeeded = process::lines(command, |line| {
            println!("{line}");
            if let Some((passed, failed)) = result(line) {
                self.passed += passed;
                self.failed += failed;
            }
        })?;
        if !succeeded {
            self.broken.push(name.to_owned());
        }
        Ok(())
    }
}

/// The figures of a line like `test result: ok. 3 passed; 0 failed; …`.
fn result(line: &str) -> Option<(u64, u64)> {
    let (_, figures) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let figure = |name: &str| -> Option<u64> {
        figures.split("; ").find_map(|part| part.strip_suffix(name)?.trim().parse().ok())
    };
    Some((figure("passed")?, figure("failed")?))
}

#[cfg(test)]
mod tests {
    use super::{Build, result};

    #[test]
    fn figures_come_out_of_a_result_line() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(result(line), Some((12, 3)));
        assert_eq!(result("test result of something else"), None);
    }

    #[test]
    fn the_build_tells_tests_from_binaries() {
        let mut build = Build::default();
        build.note(r#"{"executable":"/t/queue","profile":{"test":false},"target":{"name":"queue"}}"#);
        build.note(r#"{"executable":"/t/deps/x-1","profile":{"test":true},"manifest_path":"/w/x/Cargo.toml"}"#);
        build.note(r#"{"executable":null,"profile":{"test":false}}"#);
        build.note("no JSON");
        assert_eq!(build.programs.len(), 2);
        assert_eq!(build.tests, [("/t/deps/x-1".into(), "/w/x".into())]);
        assert_eq!(build.test("x").unwrap().1, std::path::Path::new("/w/x"));
        assert!(build.test("queue").is_none());
        assert_eq!(build.binaries["queue"], std::path::Path::new("/t/queue"));
    }
}
