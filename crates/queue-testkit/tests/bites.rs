//! The suite bites: stores that break one promise each are caught by the case that is about it.

mod broken;

use std::panic::{AssertUnwindSafe, catch_unwind};

use broken::{Broken, BrokenStore};
use queue_testkit::conformance;

/// Runs a case on a store that breaks this promise: it must fail.
macro_rules! caught {
    ($($broken:ident by $topic:ident :: $case:ident;)+) => {
        $(
            #[test]
            #[expect(non_snake_case, reason = "named after what is broken")]
            fn $broken() {
                let fresh = async || BrokenStore::new(Broken::$broken);
                let case = || conformance::run(fresh, conformance::$topic::$case);
                assert!(catch_unwind(AssertUnwindSafe(case)).is_err(), "{:?} was not noticed", Broken::$broken);
            }
        )+
    };
}

caught! {
    NoFence by settle::a_claim_that_is_not_current_is_stale;
    ReaperLeavesTheClaim by settle::a_reaped_task_is_stale_for_its_holder;
    VoidIsNotDecisive by resolve::a_void_claim_can_never_be_committed;
    FencedMayClaim by claim::of_an_unknown_session_is_fenced;
    EveryTypeIsTaken by claim::takes_only_its_types;
    OneTooMany by capacity::bounds_the_tasks;
    HalfABatch by enqueue::another_nonce_is_corrupt;
    RepeatIsNew by keys::a_repeated_key_finds_the_first_task;
    NoCancels by cancel::a_running_task_is_signalled;
    NobodyIsAlive by reaper::tells_tasks_of_fenced_sessions;
    SweepStopsEarly by budgets::repeated_sweeps_look_at_everything;
    NoPause by pause::a_paused_queue_is_not_claimed;
    EmptyMeansAll by act::an_empty_filter_is_refused;
    PagesOverlap by listing::lists_are_in_order_and_have_no_gaps;
    PrunesTheYoung by prune::keeps_what_ended_lately;
    NeverBusy by busy::from_due_to_ended;
}
