//! Which fault when: a pure function of the seed, so that a run's faults can be repeated. (What the processes do meanwhile cannot.)

use std::fmt;
use std::time::Duration;

use queue_testkit::SeededEntropy;

use crate::proxy::Moment;

/// The time at the end of a run that is left to finish what waits.
const CALM: Duration = Duration::from_secs(8);
/// The mean time between two faults.
const GAP: Duration = Duration::from_millis(1_100);

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A worker gets SIGKILL and is started again.
    KillWorker,
    /// A worker gets SIGSTOP, and SIGCONT when its lease is long over.
    PauseWorker,
    /// A worker gets SIGTERM, drains, and is started again.
    StopWorker,
    /// A `queue work` gets SIGKILL and is started again.
    KillCli,
    /// A `queue work` gets SIGSTOP, and SIGCONT when its lease is long over.
    PauseCli,
    /// A `queue work` gets SIGTERM, drains, and is started again.
    StopCli,
    /// A producer gets SIGKILL and is started again.
    KillProducer,
    /// KILL CONNECTION for half of the clients' connections.
    KillConnections,
    /// The line to one process is cut.
    Cut,
    /// The line to one process is slow.
    Slow,
    /// The line to one process is half-open: silent, and nobody is told.
    HalfOpen,
    /// One process cannot reach the server.
    Unreachable,
    /// COMMITs of one process lose their connections before they arrive.
    CommitBefore,
    /// COMMITs of one process lose their connections right after they were sent.
    CommitSent,
    /// COMMITs of one process lose their connections after the server has answered.
    CommitAnswered,
    /// The server gets SIGKILL and is started again.
    KillServer,
    /// The server gets SIGSTOP, and SIGCONT a little later.
    FreezeServer,
    /// The server takes no writes for a while.
    ReadOnly,
    /// A backup's consistent snapshot is held open.
    Snapshot,
    /// The server's clock jumps, forwards or back.
    Clock,
}

impl Fault {
    /// All kinds, in the order of reports.
    pub const ALL: [Self; 20] = [
        Self::KillWorker,
        Self::PauseWorker,
        Self::StopWorker,
        Self::KillCli,
        Self::PauseCli,
        Self::StopCli,
        Self::KillProducer,
        Self::KillConnections,
        Self::Cut,
        Self::Slow,
        Self::HalfOpen,
        Self::Unreachable,
        Self::CommitBefore,
        Self::CommitSent,
        Self::CommitAnswered,
        Self::KillServer,
        Self::FreezeServer,
        Self::ReadOnly,
        Self::Snapshot,
        Self::Clock,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KillWorker => "SIGKILL worker",
            Self::PauseWorker => "SIGSTOP worker past its lease",
            Self::StopWorker => "SIGTERM worker",
            Self::KillCli => "SIGKILL queue work",
            Self::PauseCli => "SIGSTOP queue work past its lease",
            Self::StopCli => "SIGTERM queue work",
            Self::KillProducer => "SIGKILL producer",
            Self::KillConnections => "KILL CONNECTION",
            Self::Cut => "line cut",
            Self::Slow => "line slow",
            Self::HalfOpen => "line half-open",
            Self::Unreachable => "server unreachable",
            Self::CommitBefore => "connection lost before COMMIT",
            Self::CommitSent => "connection lost after COMMIT was sent",
            Self::CommitAnswered => "acknowledgement of COMMIT lost",
            Self::KillServer => "SIGKILL server",
            Self::FreezeServer => "SIGSTOP server",
            Self::ReadOnly => "read_only",
            Self::Snapshot => "snapshot held open",
            Self::Clock => "server's clock moved",
        }
    }

    /// The moment at which COMMITs are lost, if that is the fault.
    #[must_use]
    pub const fn moment(self) -> Option<Moment> {
        match self {
            Self::CommitBefore => Some(Moment::Before),
            Self::CommitSent => Some(Moment::Sent),
            Self::CommitAnswered => Some(Moment::Answered),
            _ => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One fault of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When it begins.
    pub at: Duration,
    /// What happens.
    pub fault: Fault,
    /// To which of those whom it may befall, modulo their number.
    pub target: usize,
    /// How long it lasts, where it does.
    pub lasts: Duration,
    /// By how many seconds the clock is off from now on, if it is a jump of the clock.
    pub clock_s: u64,
}

/// All that is decided before a run begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where it came from.
    pub seed: u64,
    /// How long there are faults and load.
    pub storm: Duration,
    /// The lease of the workers.
    pub lease: Duration,
    /// The faults, by time.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The plan of a run that takes about this long in all. Kinds of fault that cannot be had are `left_out`.
    #[must_use]
    pub fn new(seed: u64, length: Duration, lease: Duration, left_out: &[Fault]) -> Self {
        let entropy = SeededEntropy::new(seed);
        let storm = length.saturating_sub(CALM).max(Duration::from_secs(1));
        let between = |low: Duration, high: Duration| low + (high - low) * u32_of(entropy.below(1_001)) / 1_000;
        let (mut steps, mut bag) = (Vec::new(), Vec::<Fault>::new());
        let mut at = Duration::from_secs(1);
        while at < storm {
            // Every kind once, in any order, before one comes again.
            if bag.is_empty() {
                bag.extend(Fault::ALL.iter().filter(|fault| !left_out.contains(fault)));
            }
            let fault = bag.swap_remove(usize::try_from(entropy.below(bag.len() as u64)).unwrap_or(0));
            let target = usize::try_from(entropy.below(1 << 16)).unwrap_or(0);
            let lasts = match fault {
                Fault::PauseWorker | Fault::PauseCli => between(lease * 3 / 2, lease * 5 / 2),
                Fault::HalfOpen | Fault::Unreachable => between(lease / 2, lease * 2),
                Fault::FreezeServer => between(lease / 4, lease * 3 / 2),
                Fault::KillServer | Fault::KillWorker | Fault::KillCli => between(Duration::ZERO, lease),
                Fault::Snapshot => between(lease * 3, lease * 8),
                _ => between(lease / 4, lease),
            };
            // Between a little (which no reaper can tell from drift) and far more than a lease.
            let clock_s = entropy.below(40);
            steps.push(Step { at, fault, target, lasts, clock_s });
            at += between(GAP / 2, GAP * 3 / 2);
        }
        Self { seed, storm, lease, steps }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {} faults in {} s", self.seed, self.steps.len(), self.storm.as_secs())?;
        for Step { at, fault, target, lasts, .. } in &self.steps {
            writeln!(f, "  {:>6.1} s  {fault:<38} [{target:>5}] {:.1} s", at.as_secs_f64(), lasts.as_secs_f64())?;
        }
        Ok(())
    }
}

fn u32_of(small: u64) -> u32 {
    u32::try_from(small).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LEASE: Duration = Duration::from_secs(2);

    #[test]
    fn a_seed_gives_one_plan_and_the_short_form_has_every_kind_of_fault() {
        let plan = |seed| Plan::new(seed, Duration::from_secs(40), LEASE, &[]);
        assert_eq!(plan(7).steps, plan(7).steps);
        assert_ne!(plan(7).steps, plan(8).steps);
        for seed in 0..100 {
            let kinds: BTreeSet<_> = plan(seed).steps.iter().map(|step| step.fault).collect();
            assert_eq!(kinds.len(), Fault::ALL.len(), "seed {seed}");
        }
        assert!(plan(7).to_string().starts_with("seed 7: "));
    }

    #[test]
    fn what_cannot_be_had_is_left_out() {
        let plan = Plan::new(1, Duration::from_mins(5), LEASE, &[Fault::Clock]);
        assert!(plan.steps.iter().all(|step| step.fault != Fault::Clock && step.at < plan.storm));
    }
}
