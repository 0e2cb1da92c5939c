//! `queue prune`

use serde_json::json;

use crate::args::Prune;
use crate::database::{Database, Need};
use crate::failure::Outcome;
use crate::output::{Output, tasks};
use crate::progress::Spinner;

/// Tasks removed in one call.
const STEP: usize = 10_000;

pub(super) async fn run(database: &Database, args: &Prune, output: &mut Output) -> Outcome {
    let store = database.open(Need::Look).await?.erased_store();
    let spinner = Spinner::start();
    let mut removed = 0;
    loop {
        let step = store.prune(args.status, args.older_than, STEP).await.map_err(|error| database.explain(&error))?;
        removed += step;
        if step < STEP as u64 {
            break;
        }
        spinner.say(format!("removed {}", tasks(removed)));
    }
    spinner.end();
    if output.is_json() {
        return output.value(&json!({ "removed": removed }));
    }
    output.line(format!("removed {}", tasks(removed)))
}
