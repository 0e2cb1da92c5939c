//! The reference store against the suite that it is the model of.

use queue_testkit::MemoryStore;

async fn fresh() -> MemoryStore {
    MemoryStore::new()
}

queue_testkit::conformance!(fresh);
