//! The SQLite store does what the reference store does, whatever the order of calls.

mod support;

use queue_testkit::model::{self, Clients};
use support::OnFile;

/// Sequences in a regular run; `QUEUE_MODEL_CASES` sets another number.
const CASES: u32 = 60;

/// A file that two stores have open, as two processes do.
async fn clients() -> Clients<OnFile> {
    let on_file = OnFile::fresh().await;
    let another = on_file.another().await;
    Clients::of(on_file).and(another)
}

#[test]
fn agrees_with_the_model() {
    model::run(clients, CASES);
}
