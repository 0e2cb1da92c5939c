//! The model-based test, tested: the reference store agrees with itself, and a store that breaks a promise does not.

#![cfg(feature = "proptest")]

#[allow(dead_code, reason = "some promises are the suite's alone")]
mod broken;

use std::panic::{AssertUnwindSafe, catch_unwind};

use broken::{Broken, BrokenStore};
use queue_testkit::MemoryStore;
use queue_testkit::model::{self, Clients};

#[test]
fn the_reference_store_agrees_with_itself() {
    let clients = async || {
        let store = MemoryStore::new();
        Clients::of(store.clone()).and(store)
    };
    model::run(clients, 200);
}

/// A store that breaks this promise is found out within so many sequences, and the shortest one is told.
macro_rules! caught {
    ($($broken:ident)+) => {
        $(
            #[test]
            #[expect(non_snake_case, reason = "named after what is broken")]
            fn $broken() {
                let play = || model::run(async || Clients::of(BrokenStore::new(Broken::$broken)), 200);
                let caught = catch_unwind(AssertUnwindSafe(play)).expect_err("it was not noticed");
                let told = caught.downcast_ref::<String>().expect("the panic has a text");
                assert!(told.contains("the shortest sequence found"), "{told}");
            }
        )+
    };
}

// The types and the filters that two others are about are not in the sequences, and long sweeps are rare: the suite has them.
caught! {
    NoFence
    ReaperLeavesTheClaim
    VoidIsNotDecisive
    FencedMayClaim
    OneTooMany
    HalfABatch
    RepeatIsNew
    NoCancels
    NobodyIsAlive
    NoPause
    PagesOverlap
    PrunesTheYoung
    NeverBusy
}
