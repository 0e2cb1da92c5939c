//! `queue stats`

use crate::database::{Database, Need};
use crate::failure::Outcome;
use crate::output::Output;
use crate::output::stats::{StatsJson, lines};

pub(super) async fn run(database: &Database, output: &mut Output) -> Outcome {
    let queue = database.open(Need::Look).await?;
    let stats = queue.erased_store().stats().await.map_err(|error| database.explain(&error))?;
    if output.is_json() {
        return output.value(&StatsJson::new(&stats));
    }
    lines(&stats).into_iter().try_for_each(|line| output.line(line))
}
