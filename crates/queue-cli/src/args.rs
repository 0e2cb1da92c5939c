//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use queue_runtime::queue_core::FailureReason;
use queue_runtime::{Priority, QueueName, Status, TaskId, TaskType, Timestamp};

use crate::bench::Bench;
use crate::exec::Assignment;
use crate::{duration, time};

/// The database that is used when none is named.
pub(crate) const DEFAULT_URL: &str = "sqlite://queue.db";
/// The variable that names the database. It is never handed on to a program that works on a task.
pub(crate) const URL_VARIABLE: &str = "QUEUE_DATABASE_URL";

const AFTER_HELP: &str = "\
DUR is a duration: 90s, 5m, 1h30m, 250ms, 7d. Times are RFC 3339, printed in UTC.
A database is sqlite://FILE or mysql://USER:PASSWORD@HOST/DATABASE (MySQL and MariaDB).
An SQLite file is made and migrated by the first `queue enqueue` or `queue work`; a server only by `queue migrate` and the demo.

Exit codes: 0 ok, 1 failure, 2 the command line or its input is not valid and nothing was done, 3 no such task.
Environment: QUEUE_DATABASE_URL names the database, QUEUE_LOG sets the log level (error, warn, info, debug, trace).";

/// Durable background tasks on the database you already run.
#[derive(Debug, Parser)]
#[command(name = "queue", version, after_help = AFTER_HELP, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that go before or after the command.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// The database [default: $QUEUE_DATABASE_URL, else sqlite://queue.db]
    #[arg(long, global = true, value_name = "URL", display_order = 100)]
    pub(crate) database_url: Option<String>,
    /// A file that holds the URL, so that its password is on no command line
    #[arg(long, global = true, value_name = "FILE", display_order = 101)]
    pub(crate) database_url_file: Option<PathBuf>,
    /// Print JSON: one value, or one a line for lists
    #[arg(long, global = true, display_order = 102)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring the database's schema up to date
    Migrate(Migrate),
    /// Add a task, or a batch of them
    Enqueue(Box<Enqueue>),
    /// Work on tasks with programs of any language
    Work(Box<Work>),
    /// Look at tasks, retry and cancel them
    #[command(subcommand)]
    Task(Task),
    /// Show how the queues stand
    Stats,
    /// Pause a queue: no worker takes a task of it until it is resumed
    Pause(Pause),
    /// Resume a queue that was paused
    Resume {
        /// The queue
        #[arg(value_name = "QUEUE")]
        queue: QueueName,
    },
    /// Look at workers, and tell them to drain
    #[command(subcommand)]
    Worker(Worker),
    /// Look the database over and say what to do where something is wrong
    Doctor(Doctor),
    /// Remove ended tasks
    Prune(Prune),
    /// See it work: thousands of tasks, two workers, one of them killed
    Demo(Demo),
    /// Measure how fast it is on this database's server
    Bench(Bench),
}

#[derive(Args, Debug)]
pub(crate) struct Migrate {
    /// Only show how the schema stands; exits with 1 when it needs a migration
    #[arg(long)]
    pub(crate) status: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
A line of a batch file is a JSON object: {\"type\": …, \"payload\": …} and, where wanted, \"queue\", \"priority\", \"delay\", \"at\", \
\"max_attempts\", \"budget\" and \"key\". The options of the command are the defaults of the lines. The whole file is checked \
before anything is written; it is then written in chunks, and an error tells the line to go on from.")]
pub(crate) struct Enqueue {
    /// What kind of task it is, such as mail.welcome; with --batch, the type of lines without one
    #[arg(value_name = "TYPE", required_unless_present = "batch")]
    pub(crate) task_type: Option<TaskType>,
    /// What the task works on: JSON, @FILE to read it from, or - for standard input [default: null]
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true, conflicts_with = "batch")]
    pub(crate) payload: Option<String>,
    /// The queue to wait in [default: default]
    #[arg(long, value_name = "QUEUE")]
    pub(crate) queue: Option<QueueName>,
    /// -100 to 100, the higher first [default: 0]
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = parse_priority)]
    pub(crate) priority: Option<Priority>,
    /// Due this long from now
    #[arg(long, value_name = "DUR", allow_hyphen_values = true, value_parser = duration::parse, conflicts_with = "at")]
    pub(crate) delay: Option<Duration>,
    /// Due at this time
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(crate) at: Option<Timestamp>,
    /// Attempts in all, the first included [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) max_attempts: Option<u16>,
    /// How long the task may take in all, waiting and retries included, or none [default: 1h]
    #[arg(long, value_name = "DUR|none", allow_hyphen_values = true, value_parser = parse_budget)]
    pub(crate) budget: Option<BudgetArg>,
    /// An idempotency key: enqueueing again under it changes nothing and finds the first task
    #[arg(long, value_name = "KEY", conflicts_with = "batch")]
    pub(crate) key: Option<String>,
    /// A file of tasks as JSON lines, or - for standard input
    #[arg(long, value_name = "FILE|-")]
    pub(crate) batch: Option<String>,
}

/// A budget's length, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BudgetArg(pub(crate) Option<Duration>);

#[derive(Args, Debug)]
#[command(after_help = "\
A program gets the task's payload on standard input, and in its environment QUEUE_TASK_ID, QUEUE_TASK_TYPE, QUEUE_ATTEMPT, \
QUEUE_FENCE (rises with every run of the task) and QUEUE_DEADLINE (unset without a budget). Its exit status decides: 0 completes the \
task, with what it printed as the result if that is JSON; 65 fails it for good; any other tries again, with the end of its \
standard error as the error. A line `progress: 40 halfway` on standard error reports progress. When the task is cancelled or \
out of time, the program and what it started get SIGTERM, then SIGKILL.

Ctrl-C lets running programs end within the grace; a second one stops now, and their tasks go back to the queue.

Once it works it waits out an outage of the database. At its start it does not: it says what is wrong and exits with 1, for a supervisor to start it again (docs/OPERATIONS.md has a unit for systemd).")]
pub(crate) struct Work {
    /// Run PROGRAM for each task of TYPE; words after it are its arguments, no shell is involved (repeatable)
    #[arg(long, value_name = "TYPE=PROGRAM", required = true)]
    pub(crate) exec: Vec<Assignment>,
    /// Only tasks of this queue (repeatable) [default: every queue]
    #[arg(long, value_name = "QUEUE")]
    pub(crate) queue: Vec<QueueName>,
    /// Programs that run at once [default: the number of processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(crate) concurrency: Option<u16>,
    /// How long this worker may be silent before its tasks are given to others
    #[arg(long, value_name = "DUR", default_value = "30s", value_parser = parse_lease)]
    pub(crate) lease: Duration,
    /// How long running programs may go on after Ctrl-C or SIGTERM
    #[arg(long, value_name = "DUR", default_value = "30s", value_parser = duration::parse)]
    pub(crate) grace: Duration,
    /// How long one attempt may take; after that it is tried again [default: no limit but the budget]
    #[arg(long, value_name = "DUR", value_parser = parse_positive)]
    pub(crate) timeout: Option<Duration>,
    /// Remove completed tasks this long after their end, while it works, of every queue [default: keep them]
    #[arg(long, value_name = "DUR", value_parser = duration::parse)]
    pub(crate) keep_completed: Option<Duration>,
    /// Remove failed tasks this long after their end, while it works, of every queue [default: keep them]
    #[arg(long, value_name = "DUR", value_parser = duration::parse)]
    pub(crate) keep_failed: Option<Duration>,
    /// End when nothing is left to do: nothing due, running or waiting to be tried again, in any process
    #[arg(long)]
    pub(crate) drain: bool,
    /// Serve Prometheus metrics on http://ADDR/metrics, such as 127.0.0.1:9000
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    pub(crate) metrics: Option<SocketAddr>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "What runs goes on, and tasks may be enqueued: they wait. Their budgets go on as well: a pause that is longer fails \
them. Pausing a paused queue again changes who and why."
)]
pub(crate) struct Pause {
    /// The queue; it need not have been used yet
    #[arg(value_name = "QUEUE")]
    pub(crate) queue: QueueName,
    /// Why, for those who look at `queue stats`
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) why: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Worker {
    /// List the workers, the latest first
    List,
    /// Tell workers to take no more tasks, to let what runs end within their --grace, and to exit
    Drain {
        /// Their names, or ids where names are not enough
        #[arg(value_name = "NAME|ID", required = true)]
        workers: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// List tasks
    List(List),
    /// Show all that is known of a task
    Show {
        /// The task
        #[arg(value_name = "ID", value_parser = parse_id)]
        id: TaskId,
    },
    /// Queue failed tasks again, with fresh attempts and a fresh budget
    Retry(Retry),
    /// Cancel tasks; the program of a running one is told to stop
    Cancel(Cancel),
}

const BY_CONDITION: &str = "\
Tasks are named by their ids, or by what they all are: then it is told how many there are, and --yes does it. Tasks that come to \
match meanwhile are left alone.";

#[derive(Args, Debug)]
#[command(after_help = BY_CONDITION)]
pub(crate) struct Retry {
    /// The tasks
    #[arg(value_name = "ID", required_unless_present_any = ["task_type", "queue", "reason"], value_parser = parse_id)]
    pub(crate) ids: Vec<TaskId>,
    #[command(flatten)]
    pub(crate) all: All,
    /// All that failed for this reason: exhausted, panicked, budget_exceeded, rejected, cancelled, crashed or unregistered
    #[arg(long, value_name = "REASON", conflicts_with = "ids", value_parser = parse_reason)]
    pub(crate) reason: Option<FailureReason>,
}

#[derive(Args, Debug)]
#[command(after_help = BY_CONDITION)]
pub(crate) struct Cancel {
    /// The tasks
    #[arg(value_name = "ID", required_unless_present_any = ["task_type", "queue"], value_parser = parse_id)]
    pub(crate) ids: Vec<TaskId>,
    #[command(flatten)]
    pub(crate) all: All,
}

/// Tasks by what they all are.
#[derive(Args, Debug)]
pub(crate) struct All {
    /// All of this type
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "ids")]
    pub(crate) task_type: Option<TaskType>,
    /// All in this queue
    #[arg(long, value_name = "QUEUE", conflicts_with = "ids")]
    pub(crate) queue: Option<QueueName>,
    /// Do it, and do not only tell how many there are
    #[arg(long, conflicts_with = "ids")]
    pub(crate) yes: bool,
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// Only of this status: queued, running, completed or failed
    #[arg(long, value_name = "STATUS", value_parser = parse_status)]
    pub(crate) status: Option<Status>,
    /// Only of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) task_type: Option<TaskType>,
    /// Only in this queue
    #[arg(long, value_name = "QUEUE")]
    pub(crate) queue: Option<QueueName>,
    /// Only failed for this reason: exhausted, panicked, budget_exceeded, rejected, cancelled, crashed or unregistered
    #[arg(long, value_name = "REASON", value_parser = parse_reason)]
    pub(crate) reason: Option<FailureReason>,
    /// Tasks at most
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) limit: u32,
    /// Go on after this task, the last one of the list before
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    pub(crate) after: Option<TaskId>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
It writes nothing. Each line is ok, warn or fail, with what to do. Exit code 0: ok, or warnings only; 1: something fails, or there is \
no connection. A check that the account may not make is a warning. docs/OPERATIONS.md tells what is looked at.")]
pub(crate) struct Doctor {
    /// The lease of the workers, to hold timeouts against
    #[arg(long, value_name = "DUR", default_value = "30s", value_parser = parse_lease)]
    pub(crate) lease: Duration,
    /// Look at every task, and not at the latest million only; this may take a while
    #[arg(long)]
    pub(crate) full: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Prune {
    /// Tasks that ended longer ago than this
    #[arg(long, value_name = "DUR", allow_hyphen_values = true, value_parser = duration::parse)]
    pub(crate) older_than: Duration,
    /// Only of this status: completed or failed
    #[arg(long, value_name = "STATUS", value_parser = parse_ended)]
    pub(crate) status: Option<Status>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "It runs on a fresh SQLite file that is removed at the end, whatever QUEUE_DATABASE_URL says. On a database that \
--database-url names it touches only tasks of its own, in a queue of its own."
)]
pub(crate) struct Demo {
    /// Run on this new SQLite file and keep it, to look at afterwards
    #[arg(long, value_name = "FILE")]
    pub(crate) keep: Option<PathBuf>,
    /// Tasks in all
    #[arg(long, value_name = "N", default_value = "3000", hide = true, value_parser = clap::value_parser!(u32).range(60..=1_000_000))]
    pub(crate) tasks: u32,
}

fn parse_priority(text: &str) -> Result<Priority, String> {
    let number = text.parse::<i64>().map_err(|_| "a priority is a whole number, -100 to 100, the higher first")?;
    Priority::parse(number).map_err(|error| error.to_string())
}

/// With a budget of nothing a task would fail before it could run.
fn parse_budget(text: &str) -> Result<BudgetArg, String> {
    match text {
        "none" => Ok(BudgetArg(None)),
        text => parse_positive(text).map(|length| BudgetArg(Some(length))),
    }
}

/// A shorter lease would be lost to every hiccup of the machine.
fn parse_lease(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(lease) if lease < Duration::from_secs(1) => Err("a lease is 1s at least".to_owned()),
        Ok(lease) => Ok(lease),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) fn parse_positive(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(Duration::ZERO) => Err("it must be longer than 0s".to_owned()),
        Ok(length) => Ok(length),
        Err(error) => Err(error.to_string()),
    }
}

fn parse_address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "an address is an IP address and a port, such as 127.0.0.1:9000 or [::]:9000")
}

fn parse_id(text: &str) -> Result<TaskId, &'static str> {
    text.parse().ok().and_then(TaskId::new).ok_or("a task's id is a number from 1 on")
}

fn parse_status(text: &str) -> Result<Status, &'static str> {
    Status::from_name(text).ok_or("a status is queued, running, completed or failed")
}

fn parse_reason(text: &str) -> Result<FailureReason, String> {
    let names = || FailureReason::ALL.iter().map(|reason| reason.as_str()).collect::<Vec<_>>().join(", ");
    FailureReason::from_name(text).ok_or_else(|| format!("a reason is one of {}", names()))
}

fn parse_ended(text: &str) -> Result<Status, &'static str> {
    Status::from_name(text).filter(|status| status.is_terminal()).ok_or("only completed and failed tasks can be pruned")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_go_before_or_after() {
        for line in [
            "queue --json --database-url sqlite://a.db task list",
            "queue task list --json --database-url sqlite://a.db",
        ] {
            let cli = parse(line).unwrap();
            assert!(cli.global.json);
            assert_eq!(cli.global.database_url.as_deref(), Some("sqlite://a.db"));
        }
    }

    #[test]
    fn negative_numbers_are_values_not_options() {
        let cli = parse("queue enqueue a --priority -7 --payload -1").unwrap();
        let Command::Enqueue(enqueue) = cli.command else { panic!("not enqueue") };
        assert_eq!((enqueue.priority.unwrap().get(), enqueue.payload.as_deref()), (-7, Some("-1")));
        let error = parse("queue enqueue a --delay -5s").unwrap_err().to_string();
        assert!(error.contains("a duration cannot be negative"), "{error}");
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for line in [
            "queue enqueue",
            "queue enqueue a --delay 1s --at 2026-01-01T00:00:00Z",
            "queue enqueue a --batch - --payload 1",
            "queue enqueue a --batch - --key k",
            "queue enqueue a --max-attempts 0",
            "queue enqueue a --budget 0s",
            "queue enqueue a --priority 101",
            "queue work",
            "queue work --exec a=cat --concurrency 0",
            "queue work --exec a=cat --timeout 0s",
            "queue work --exec a=cat --lease 999ms",
            "queue work --exec a=cat --metrics localhost",
            "queue bench --watch 0s",
            "queue task show 0",
            "queue task retry",
            "queue task retry 1 --type a",
            "queue task retry 1 --yes",
            "queue task retry --yes",
            "queue task retry --reason bad",
            "queue task cancel",
            "queue task cancel --reason exhausted",
            "queue task list --status done",
            "queue prune",
            "queue prune --older-than 1d --status queued",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_budget_may_be_none() {
        assert_eq!(parse_budget("none"), Ok(BudgetArg(None)));
        assert_eq!(parse_budget("5m"), Ok(BudgetArg(Some(Duration::from_secs(300)))));
    }
}
