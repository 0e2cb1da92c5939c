//! Many seeds, and what is told of one that failed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::mem::{Discriminant, discriminant};
use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::bent::Broken;
use super::plan::{Plan, Rates};
use super::world::{Outcome, run};
use crate::history::{Fact, History, Tally, Violation};

/// Runs that shrinking may take, at most.
const SHRINK_RUNS_MAX: u32 = 300;

/// Seeds to be run.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Which.
    pub seeds: Range<u64>,
    /// What is broken, if anything is.
    pub broken: Option<Broken>,
}

/// A seed that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What happened, as it came.
    pub outcome: Outcome,
    /// A smaller plan that breaks the same promise, and what happened in it.
    pub smallest: (Plan, Outcome),
}

impl Campaign {
    /// Runs the seeds on as many threads as the machine has processors, until all are done or one fails. Of those that fail the
    /// lowest seed is told, whatever thread ran it.
    ///
    /// # Errors
    ///
    /// The first failure, shrunk.
    pub fn run(&self) -> Result<Tally, Box<Failure>> {
        self.first_failure().map_err(|seed| Box::new(Failure::of(seed, self.broken)))
    }

    /// As [`run`](Self::run), and only says which seed it is.
    ///
    /// # Errors
    ///
    /// The lowest seed that breaks a promise.
    pub fn first_failure(&self) -> Result<Tally, u64> {
        let next = AtomicU64::new(self.seeds.start);
        let failed = AtomicU64::new(u64::MAX);
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let work = || {
            let mut sum = Tally::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= self.seeds.end || seed > failed.load(Ordering::Relaxed) {
                    return sum;
                }
                let outcome = run(&Plan::of(seed), self.broken);
                if !outcome.verdict.is_good() {
                    failed.fetch_min(seed, Ordering::Relaxed);
                }
                sum = sum.plus(outcome.verdict.tally);
            }
        };
        let sum = thread::scope(|scope| {
            let workers = (0..threads).map(|_| scope.spawn(work)).collect::<Vec<_>>();
            let sums = workers.into_iter().map(|worker| worker.join().expect("a seed does not panic"));
            sums.fold(Tally::default(), Tally::plus)
        });
        match failed.into_inner() {
            u64::MAX => Ok(sum),
            seed => Err(seed),
        }
    }
}

impl Failure {
    /// Runs a seed that fails again, and shrinks it.
    fn of(seed: u64, broken: Option<Broken>) -> Self {
        let plan = Plan::of(seed);
        let outcome = run(&plan, broken);
        let smallest = shrink(plan, outcome.clone(), broken);
        Self { seed, outcome, smallest }
    }

    /// What to read, and how to see it again.
    #[must_use]
    pub fn text(&self) -> String {
        let (plan, outcome) = &self.smallest;
        let mut text = format!("seed {} breaks a promise; see it again with\n\n", self.seed);
        let _ = writeln!(text, "    cargo xtask simulate --seed {}\n", self.seed);
        for violation in &self.outcome.verdict.violations {
            let _ = writeln!(text, "  {violation:?}");
        }
        let jobs = plan.batches.iter().map(|batch| batch.jobs.len()).sum::<usize>();
        let (workers, disturbances) = (plan.workers.len(), plan.disturbances.len());
        let _ = writeln!(
            text,
            "\nshrunk to {jobs} jobs on {workers} workers with {disturbances} disturbances, {:?}:\n",
            plan.rates
        );
        let violations = &outcome.verdict.violations;
        for violation in violations {
            let _ = writeln!(text, "  {violation:?}");
        }
        let tasks = violations.iter().flat_map(Violation::tasks).collect::<Vec<_>>();
        // Renewals are many and say little, but where it is about leases.
        let leases = violations.iter().any(|violation| matches!(violation, Violation::LiveWorkStolen { .. }));
        let events = outcome.history.events().iter();
        let events = events.filter(|event| leases || !matches!(event.fact, Fact::Renewed { .. })).cloned();
        let _ = write!(text, "\n{}", History::new(events).text((!tasks.is_empty()).then_some(&*tasks)));
        text
    }
}

/// Leaves out of a plan what is not needed to break one of the same promises.
fn shrink(plan: Plan, outcome: Outcome, broken: Option<Broken>) -> (Plan, Outcome) {
    let wanted = kinds(&outcome);
    let mut best = (plan, outcome);
    let mut runs = 0;
    loop {
        let mut smaller = false;
        for candidate in candidates(&best.0) {
            if runs >= SHRINK_RUNS_MAX {
                return best;
            }
            runs += 1;
            let outcome = run(&candidate, broken);
            if kinds(&outcome).iter().any(|kind| wanted.contains(kind)) {
                best = (candidate, outcome);
                smaller = true;
                break;
            }
        }
        if !smaller {
            return best;
        }
    }
}

fn kinds(outcome: &Outcome) -> Vec<Discriminant<Violation>> {
    outcome.verdict.violations.iter().map(discriminant).collect()
}

/// Plans with one thing less, the larger steps first.
fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut plans = Vec::new();
    let mut add = |change: &dyn Fn(&mut Plan)| {
        let mut smaller = plan.clone();
        change(&mut smaller);
        plans.push(smaller);
    };
    if plan.rates != Rates::default() {
        add(&|plan| plan.rates = Rates::default());
    }
    if plan.stale_reads {
        add(&|plan| plan.stale_reads = false);
    }
    for parts in [2, 4] {
        let (batches, disturbances) = (plan.batches.len() / parts, plan.disturbances.len() / parts);
        for part in 0..parts {
            if disturbances > 1 {
                add(&|plan| drop(plan.disturbances.drain(part * disturbances..(part + 1) * disturbances)));
            }
            if batches > 1 {
                add(&|plan| drop(plan.batches.drain(part * batches..(part + 1) * batches)));
            }
        }
    }
    for place in 0..plan.disturbances.len() {
        add(&|plan| drop(plan.disturbances.drain(place..=place)));
    }
    for place in 0..plan.batches.len() {
        add(&|plan| drop(plan.batches.remove(place)));
        for job in 0..plan.batches[place].jobs.len() {
            if plan.batches[place].jobs.len() > 1 {
                add(&|plan| drop(plan.batches[place].jobs.remove(job)));
            }
        }
    }
    plans
}

/// What `simulate` was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// So many seeds, from the first on.
    Seeds(u64),
    /// This one.
    Seed(u64),
    /// Each broken variant, within so many seeds.
    Broken(u64),
}

impl Wish {
    /// Out of a program's arguments.
    ///
    /// # Errors
    ///
    /// How to ask.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        const HOW: &str = "simulate [--seeds N | --seed S | --broken N]";
        let arguments = arguments.into_iter().collect::<Vec<_>>();
        let number = |text: &str| text.parse().map_err(|_| format!("{text} is no number; {HOW}"));
        match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => Ok(Self::Seeds(2_000)),
            ["--seeds", seeds] => Ok(Self::Seeds(number(seeds)?)),
            ["--seed", seed] => Ok(Self::Seed(number(seed)?)),
            ["--broken", seeds] => Ok(Self::Broken(number(seeds)?)),
            _ => Err(HOW.to_owned()),
        }
    }

    /// Does it and tells how it went.
    ///
    /// # Errors
    ///
    /// What to read about a promise that was broken, or about a broken variant that went unnoticed.
    pub fn fulfil(self) -> Result<String, String> {
        match self {
            Self::Seeds(seeds) => {
                let tally = Campaign { seeds: 0..seeds, broken: None }.run().map_err(|failure| failure.text())?;
                Ok(format!("{seeds} seeds keep every promise: {tally}"))
            }
            Self::Seed(seed) => {
                let tally = Campaign { seeds: seed..seed + 1, broken: None }.run().map_err(|failure| failure.text())?;
                let history = run(&Plan::of(seed), None).history;
                Ok(format!("{}seed {seed} keeps every promise: {tally}", history.text(None)))
            }
            Self::Broken(seeds) => {
                let mut text = String::new();
                for broken in Broken::ALL {
                    let Err(seed) = (Campaign { seeds: 0..seeds, broken: Some(broken) }).first_failure() else {
                        return Err(format!("{text}{broken:?} went unnoticed in {seeds} seeds"));
                    };
                    let violations = run(&Plan::of(seed), Some(broken)).verdict.violations;
                    let names = violations.iter().map(Violation::name).collect::<BTreeSet<_>>();
                    let _ = writeln!(text, "{broken:?}: seed {seed} is the first that shows it, by {names:?}");
                }
                Ok(text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_a_wish() {
        let parse = |text: &str| Wish::parse(text.split_whitespace().map(str::to_owned));
        assert_eq!(parse(""), Ok(Wish::Seeds(2_000)));
        assert_eq!(parse("--seeds 5"), Ok(Wish::Seeds(5)));
        assert_eq!(parse("--seed 5"), Ok(Wish::Seed(5)));
        assert_eq!(parse("--broken 5"), Ok(Wish::Broken(5)));
        assert!(parse("--seed x").unwrap_err().starts_with("x is no number"));
        assert!(parse("--sed 1").unwrap_err().starts_with("simulate"));
    }
}
