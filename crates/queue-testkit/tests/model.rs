//! The model-based test, tested: the reference store agrees with itself, and a store that breaks a promise does not.

#![cfg(feature = "proptest")]

use queue_testkit::MemoryStore;
use queue_testkit::model::{self, Clients};

#[test]
fn the_reference_store_agrees_with_itself() {
    model::run(
        async || {
            let store = MemoryStore::new();
            Clients::of(store.clone()).and(store)
        },
        300,
    );
}
