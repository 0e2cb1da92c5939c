//! `cargo xtask bench`: the bench of this tree, alone or in turn with that of another commit, and the suite of instruction counts.

mod compare;
mod counts;
mod tree;

use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use self::tree::Tree;
use crate::process;
use crate::server::dev::DevEngine;
use crate::server::{self, Server};
use crate::workspace::Workspace;

/// The variable that names the database to `queue`.
const URL_VARIABLE: &str = "QUEUE_DATABASE_URL";

/// What `bench` is told.
#[derive(Args, Debug)]
#[command(after_help = "\
Without a database in ARGS or $QUEUE_DATABASE_URL it runs on a server that it starts, durable as in production, and removes at the \
end. Machines drift, so figures of two commits are only comparable when they were measured in turn: --compare does that, and its \
ratios are the medians of those of the rounds.

  cargo xtask bench -- --tasks 20000
  cargo xtask bench --compare main -- --only enqueue,drain
  cargo xtask bench --compare HEAD~1 --rounds 5 --fail-below 0.9 -- --only drain --database-url sqlite://queue.db
  cargo xtask bench --counts")]
pub(crate) struct BenchArgs {
    /// Measure this commit as well, in turn with this tree, and print the ratios
    #[arg(long, value_name = "COMMIT")]
    compare: Option<String>,
    /// How often each is measured
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=99), requires = "compare")]
    rounds: u32,
    /// Fail when a rate (tasks enqueued or drained a second) is below this share of the other commit's
    #[arg(long, value_name = "RATIO", value_parser = share, requires = "compare")]
    fail_below: Option<f64>,
    /// The server to start when no database is named
    #[arg(long, value_name = "ENGINE", default_value = "mysql")]
    engine: DevEngine,
    /// Count the instructions of the pure parts instead, and fail when one takes more than was recorded
    #[arg(long, conflicts_with_all = ["rounds", "fail_below", "engine", "bench"])]
    counts: bool,
    /// Record the counts as they are now
    #[arg(long, requires = "counts", conflicts_with = "compare")]
    bless: bool,
    /// What `queue bench` is told; `queue bench --help` lists it
    #[arg(last = true, value_name = "ARGS")]
    bench: Vec<String>,
}

impl BenchArgs {
    /// Those of `bench --counts`.
    pub(crate) fn counts() -> Self {
        Self {
            compare: None,
            rounds: 1,
            fail_below: None,
            engine: DevEngine::Mysql,
            counts: true,
            bless: false,
            bench: Vec::new(),
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("a share is over 0 and at most 1, such as 0.9".to_owned()),
    }
}

/// Runs `cargo xtask bench`.
pub(crate) fn run(workspace: &Workspace, args: &BenchArgs) -> Result<()> {
    let _lock = workspace.lock("bench")?; // two at once would measure each other
    let here = Tree::here(workspace);
    let before = args.compare.as_deref().map(|commit| Tree::of_commit(workspace, commit)).transpose()?;
    match (args.counts, before) {
        (true, Some(before)) => counts::compare(workspace, &before, &here),
        (true, None) if args.bless => counts::bless(workspace, &here),
        (true, None) => counts::hold(workspace, &here),
        (false, Some(before)) => {
            let programs = [before.queue(workspace)?, here.queue(workspace)?];
            let place = Place::of(workspace, args)?;
            let rounds = compare::measure([&before, &here], args.rounds, |side| {
                let mut command = Command::new(&programs[side]);
                command.args(["--json", "bench"]).args(&args.bench);
                place.name_to(&mut command);
                command
            })?;
            compare::report([&before, &here], &rounds, args.fail_below)
        }
        (false, None) => {
            let program = here.queue(workspace)?;
            let place = Place::of(workspace, args)?;
            let mut command = Command::new(program);
            command.arg("bench").args(&args.bench);
            place.name_to(&mut command);
            process::run(&mut command)
        }
    }
}

/// Where the bench runs.
struct Place(Option<Server>);

impl Place {
    /// The database that the user names; else a server of this run's own. To be called on the main thread.
    fn of(workspace: &Workspace, args: &BenchArgs) -> Result<Self> {
        if names_database(&args.bench) || std::env::var_os(URL_VARIABLE).is_some() {
            return Ok(Self(None));
        }
        if args.bench.iter().any(|word| matches!(word.as_str(), "--help" | "-h")) {
            bail!("the options of `queue bench`: cargo run -- bench --help");
        }
        let server = server::durable(args.engine.kind(), &workspace.target)?;
        println!("server: {server}");
        Ok(Self(Some(server)))
    }

    /// By the environment: what stands on a command line can be read by others, and is quoted in errors.
    fn name_to(&self, command: &mut Command) {
        if let Self(Some(server)) = self {
            command.env(URL_VARIABLE, &server.url);
        }
    }
}

fn names_database(words: &[String]) -> bool {
    words.iter().any(|word| word.split('=').next().is_some_and(|name| name.starts_with("--database-url")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn parse(words: &[&str]) -> Result<BenchArgs, String> {
        let words = std::iter::once("bench").chain(words.iter().copied());
        Cli::try_parse_from(words).map(|cli| cli.bench).map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_bench_is_told_stands_behind_two_dashes() {
        let args = parse(&["--compare", "main", "--fail-below", "0.9", "--", "--only", "drain"]).unwrap();
        assert_eq!((args.compare.as_deref(), args.rounds, args.fail_below), (Some("main"), 3, Some(0.9)));
        assert_eq!(args.bench, ["--only", "drain"]);
        assert!(parse(&["--compare", "main", "--only", "drain"]).unwrap_err().contains("-- --only"));
    }

    #[test]
    fn options_that_would_do_nothing_are_refused() {
        for words in [
            &["--rounds", "2"][..],
            &["--fail-below", "0.9"],
            &["--bless"],
            &["--counts", "--", "--tasks", "1"],
            &["--counts", "--bless", "--compare", "main"],
            &["--compare", "main", "--fail-below", "90"],
            &["--compare", "main", "--rounds", "0"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
        assert!(parse(&["--counts", "--compare", "main"]).unwrap().counts);
        assert!(parse(&["--counts", "--bless"]).unwrap().bless);
    }

    #[test]
    fn a_database_is_named_by_url_or_by_file() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert!(names_database(&words(&["--tasks", "1", "--database-url", "sqlite://a.db"])));
        assert!(names_database(&words(&["--database-url=sqlite://a.db"])));
        assert!(names_database(&words(&["--database-url-file", "secret"])));
        assert!(!names_database(&words(&["--tasks=1"])));
    }
}
