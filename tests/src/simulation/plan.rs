//! All that a seed decides before anything runs.

use std::time::Duration;

use queue_core::Entropy as _;
use queue_testkit::SeededEntropy;
use serde::{Deserialize, Serialize};

/// How long disturbances go on; then everything heals, and what is left must end.
pub const TROUBLE_LASTS: Duration = Duration::from_secs(40);
/// Queues that there are.
pub const QUEUES: usize = 2;

/// What happens in one run of the simulation.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What everything came from, and what the rest of the randomness comes from.
    pub seed: u64,
    /// The workers.
    pub workers: Vec<WorkerPlan>,
    /// What is enqueued, each batch by one call.
    pub batches: Vec<Batch>,
    /// How often calls to the store go wrong.
    pub rates: Rates,
    /// Whether reads of the store may be stale.
    pub stale_reads: bool,
    /// What else happens, and when.
    pub disturbances: Vec<(Duration, Disturbance)>,
}

/// One worker: its pool's settings and its clocks.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "most are the settings of their names")]
pub struct WorkerPlan {
    pub concurrency: usize,
    pub prefetch: usize,
    pub lease: Duration,
    pub heartbeat: Duration,
    pub grace: Duration,
    pub cancel_grace: Duration,
    /// The limit of one of the two types.
    pub type_concurrency: Option<usize>,
    /// After which handlers are stopped; longer than a lease or shorter.
    pub timeout: Duration,
    /// How far its wall clock is off.
    pub wall_off_ms: i64,
    /// How fast its monotonic clock is, in millionths.
    pub drift_ppm: i64,
}

/// Jobs that are enqueued together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// When.
    pub at: Duration,
    /// Whether each has an idempotency key, so that the producer may try again until it is told that it worked.
    pub keyed: bool,
    /// The jobs.
    pub jobs: Vec<JobPlan>,
}

/// A job, which should become one task.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "most are the settings of their names")]
pub struct JobPlan {
    pub number: u64,
    /// Which of the two types it is of.
    pub kind: usize,
    pub queue: usize,
    pub priority: i8,
    pub delay: Duration,
    pub attempts: u16,
    pub backoff: Duration,
    pub budget: Option<Duration>,
    /// What its runs do, one after the other; the last one again and again, unless it is a snooze.
    pub acts: Vec<Act>,
}

/// What one run of a handler does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each says what it does")]
pub enum Act {
    Succeed {
        ms: u64,
    },
    Fail {
        ms: u64,
    },
    Reject {
        ms: u64,
    },
    Panic {
        ms: u64,
    },
    Snooze {
        ms: u64,
        for_ms: u64,
    },
    Progress {
        steps: u64,
        ms: u64,
    },
    /// Until it is dropped.
    Hang,
    /// Until it is told to stop; an error then.
    Polite,
    /// Until it is told to stop; a success a little later.
    Stubborn {
        ms: u64,
    },
    /// Takes its process down.
    Crash {
        ms: u64,
    },
}

/// How often calls go wrong, in a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the fault of its name")]
pub struct Rates {
    pub unavailable: u64,
    pub request_lost: u64,
    pub answer_lost: u64,
    pub late: u64,
    pub refused: u64,
    pub hang: u64,
    pub delayed: u64,
    pub delay_max: Duration,
}

/// How nothing goes through between a process and the store.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "each says what it is")]
pub enum Blockade {
    Refuses,
    Hangs,
    LosesRequests,
    /// What is sent arrives; nothing comes back.
    LosesAnswers,
}

/// Something that happens from outside. Workers and batches are meant by their places.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "each says what it is")]
pub enum Disturbance {
    Kill { worker: usize },
    Freeze { worker: usize, lasts: Duration },
    Shutdown { worker: usize, deadline: Duration },
    StopNow { worker: usize },
    Drain { worker: usize },
    Partition { worker: usize, how: Blockade, lasts: Duration },
    Outage { how: Blockade, lasts: Duration },
    Pause { queue: usize, lasts: Duration },
    Cancel { job: u64 },
    Retry,
    Delete,
    ClockJump { by_ms: i64 },
    OtherServer,
}

impl Plan {
    /// The plan of this seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let dice = Dice(SeededEntropy::new(seed));
        // Some runs are quiet, so that one trouble is seen alone; some are wild.
        let wild = dice.0.below(4);
        let workers = (0..dice.between(2, 4)).map(|_| WorkerPlan::roll(&dice)).collect::<Vec<_>>();
        let (mut number, mut batches) = (0, Vec::new());
        for _ in 0..dice.between(3, 9) {
            let jobs = (0..dice.between(1, 4)).map(|_| {
                number += 1;
                JobPlan::roll(&dice, number)
            });
            let jobs = jobs.collect();
            batches.push(Batch { at: dice.ms(0, 30_000), keyed: dice.0.per_mille(500), jobs });
        }
        let rates = Rates::roll(&dice, wild);
        let stale_reads = dice.0.per_mille(500);
        let count = if wild == 0 { dice.between(0, 3) } else { dice.between(3, 12) };
        let latest = u64::try_from(TROUBLE_LASTS.as_millis()).unwrap_or(u64::MAX);
        let disturbances = (0..count).map(|_| {
            let at = dice.ms(500, latest);
            (at, Disturbance::roll(&dice, workers.len() as u64, number))
        });
        let disturbances = disturbances.collect();
        Self { seed, workers, batches, rates, stale_reads, disturbances }
    }
}

impl WorkerPlan {
    fn roll(dice: &Dice) -> Self {
        let lease = dice.ms(4_000, 9_000);
        Self {
            concurrency: dice.size(1, 5),
            // Now and then as much as by default.
            prefetch: if dice.size(0, 3) == 0 { 500 } else { dice.size(0, 3) },
            lease,
            heartbeat: lease / u32::try_from(dice.between(3, 6)).unwrap_or(3),
            grace: dice.ms(0, 4_000),
            cancel_grace: dice.ms(50, 1_000),
            type_concurrency: dice.0.per_mille(300).then(|| dice.size(1, 2)),
            timeout: dice.ms(3_000, if dice.0.per_mille(500) { 10_000 } else { 40_000 }),
            wall_off_ms: dice.signed(300_000),
            drift_ppm: dice.signed(10_000),
        }
    }
}

impl JobPlan {
    fn roll(dice: &Dice, number: u64) -> Self {
        Self {
            number,
            kind: dice.size(0, 1),
            queue: dice.size(0, QUEUES as u64 - 1),
            priority: i8::try_from(dice.signed(2)).unwrap_or(0),
            delay: if dice.0.per_mille(250) { dice.ms(0, 8_000) } else { Duration::ZERO },
            attempts: u16::try_from(dice.between(1, 5)).unwrap_or(1),
            backoff: dice.ms(0, 3_000),
            budget: dice.0.per_mille(400).then(|| dice.ms(5_000, 90_000)),
            acts: (0..dice.between(1, 3)).map(|_| Act::roll(dice)).collect(),
        }
    }
}

impl Act {
    fn roll(dice: &Dice) -> Self {
        let ms = if dice.0.per_mille(600) { dice.between(0, 300) } else { dice.between(300, 8_000) };
        match dice.between(0, 99) {
            0..37 => Self::Succeed { ms },
            37..52 => Self::Fail { ms },
            52..55 => Self::Reject { ms },
            55..58 => Self::Panic { ms },
            58..66 => Self::Snooze { ms, for_ms: dice.between(0, 3_000) },
            66..75 => Self::Progress { steps: dice.between(1, 6), ms: dice.between(1, 1_500) },
            75..84 => Self::Hang,
            84..90 => Self::Polite,
            90..95 => Self::Stubborn { ms: dice.between(0, 600) },
            _ => Self::Crash { ms },
        }
    }
}

impl Rates {
    fn roll(dice: &Dice, wild: u64) -> Self {
        let (faults, delay_max) = match wild {
            0 => (0, Duration::from_millis(20)),
            1 => (20, dice.ms(1, 400)),
            2 => (60, dice.ms(1, 2_000)),
            _ => (150, dice.ms(1, 4_000)),
        };
        Self {
            unavailable: dice.between(0, faults),
            request_lost: dice.between(0, faults),
            answer_lost: dice.between(0, faults),
            late: dice.between(0, faults),
            refused: dice.between(0, faults / 8),
            hang: dice.between(0, faults / 4),
            delayed: dice.between(0, 1_000),
            delay_max,
        }
    }
}

impl Blockade {
    fn roll(dice: &Dice) -> Self {
        match dice.between(0, 3) {
            0 => Self::Refuses,
            1 => Self::Hangs,
            2 => Self::LosesRequests,
            _ => Self::LosesAnswers,
        }
    }
}

impl Disturbance {
    fn roll(dice: &Dice, workers: u64, jobs: u64) -> Self {
        let worker = dice.size(0, workers - 1);
        // Shorter than any lease, about as long, and so long that everything lapses.
        let lasts = dice.ms(500, if dice.0.per_mille(600) { 8_000 } else { 30_000 });
        match dice.between(0, 99) {
            0..18 => Self::Kill { worker },
            18..32 => Self::Freeze { worker, lasts },
            32..42 => Self::Shutdown { worker, deadline: dice.ms(200, 12_000) },
            42..46 => Self::StopNow { worker },
            46..50 => Self::Drain { worker },
            50..62 => Self::Partition { worker, how: Blockade::roll(dice), lasts },
            62..68 => Self::Outage { how: Blockade::roll(dice), lasts },
            68..73 => Self::Pause { queue: dice.size(0, QUEUES as u64 - 1), lasts },
            73..83 => Self::Cancel { job: dice.between(1, jobs) },
            83..88 => Self::Retry,
            88..90 => Self::Delete,
            90..95 => Self::ClockJump { by_ms: dice.signed(4_900) },
            95..98 => Self::ClockJump { by_ms: dice.signed(60_000) },
            _ => Self::OtherServer,
        }
    }
}

/// Numbers out of a seed.
struct Dice(SeededEntropy);

impl Dice {
    fn between(&self, least: u64, most: u64) -> u64 {
        least + self.0.below(most - least + 1)
    }

    fn size(&self, least: u64, most: u64) -> usize {
        usize::try_from(self.between(least, most)).unwrap_or(usize::MAX)
    }

    fn ms(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.between(least, most))
    }

    /// As far from zero at most.
    fn signed(&self, most: u64) -> i64 {
        let sign = if self.0.next_u64() & 1 == 0 { 1 } else { -1 };
        sign * i64::try_from(self.between(0, most)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_one_plan() {
        let told = |seed| format!("{:?}", Plan::of(seed));
        assert_eq!(told(3), told(3));
        assert_ne!(told(3), told(4));
    }

    #[test]
    fn seeds_reach_everything() {
        let all = (0..300).map(|seed| format!("{:?}", Plan::of(seed))).collect::<String>();
        for word in ["Crash", "Stubborn", "Polite", "Hang", "Kill", "Freeze", "StopNow", "Drain", "LosesAnswers"] {
            assert!(all.contains(word), "{word}");
        }
        for word in ["Outage", "Partition", "Pause", "Cancel", "Retry", "Delete", "ClockJump", "OtherServer"] {
            assert!(all.contains(word), "{word}");
        }
    }
}
