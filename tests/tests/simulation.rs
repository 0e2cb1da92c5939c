//! The simulation: seeds that keep every promise, seeds that are the same each time, and broken variants that are caught.

use std::collections::BTreeSet;

use queue_tests::history::Violation;
use queue_tests::simulation::{Broken, Campaign, Plan, run};

#[test]
fn two_thousand_seeds_keep_every_promise() {
    match (Campaign { seeds: 0..2_000, broken: None }).run() {
        Ok(tally) => assert!(tally.recovered > 2_000 && tally.stale > 500, "too little happened: {tally}"),
        Err(failure) => panic!("{}", failure.text()),
    }
}

#[test]
fn one_seed_is_one_history() {
    for seed in 0..60 {
        let told = || run(&Plan::of(seed), None).history.text(None);
        let (once, again) = (told(), told());
        assert!(once == again, "seed {seed} came to two histories:\n{once}\n{again}");
    }
}

#[test]
fn a_failing_seed_says_how_to_see_it_again_and_is_shrunk() {
    let failure = (Campaign { seeds: 0..50, broken: Some(Broken::NoFence) }).run().unwrap_err();
    let text = failure.text();
    assert!(text.contains(&format!("cargo xtask simulate --seed {}\n", failure.seed)), "{text}");
    assert!(text.contains("StaleAccepted") && text.contains("Settled {"), "{text}");
    let jobs = |plan: &Plan| plan.batches.iter().map(|batch| batch.jobs.len()).sum::<usize>();
    let (before, after) = (Plan::of(failure.seed), &failure.smallest.0);
    assert!(jobs(after) < jobs(&before), "nothing was left out of {before:?}");
    assert!(!failure.smallest.1.verdict.is_good());
}

/// A broken variant is caught within so many seeds, by one of these violations at least.
macro_rules! caught {
    ($($broken:ident within $seeds:literal by $($violation:ident)|+;)+) => {
        $(
            #[test]
            #[expect(non_snake_case, reason = "named after what is broken")]
            fn $broken() {
                let broken = Some(Broken::$broken);
                let seed = (Campaign { seeds: 0..$seeds, broken }).first_failure().expect_err("it went unnoticed");
                let violations = run(&Plan::of(seed), broken).verdict.violations;
                let names = violations.iter().map(Violation::name).collect::<BTreeSet<_>>();
                assert!([$(stringify!($violation)),+].iter().any(|name| names.contains(name)), "{names:?}");
            }
        )+
    };
}

caught! {
    NoFence within 50 by StaleAccepted;
    AttemptNotPersisted within 50 by WrongAttempt;
    ReaperIgnoresLiveSessions within 50 by LiveWorkStolen;
    RetriedSettleWithoutItsClaim within 200 by StaleAccepted;
    ReleaseKeepsTheAttempt within 100 by WrongAttempt;
    LostClaimNeverResolved within 50 by Lost;
    FencedHandlersGoOn within 200 by RanOn | Overlap;
}
