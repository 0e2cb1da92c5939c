//! `queue pause` and `queue resume`

use queue_runtime::queue_core::admin::Pause;
use queue_runtime::{QueueName, Timestamp};
use serde_json::json;

use super::actor;
use crate::database::{Database, Need};
use crate::failure::Outcome;
use crate::output::Output;

/// Pauses the queue for this reason; without any, resumes it.
pub(super) async fn run(database: &Database, queue: QueueName, why: Option<String>, output: &mut Output) -> Outcome {
    let store = database.open(Need::Look).await?.erased_store();
    let actor = actor();
    // The store keeps its own time of it.
    let pause = why.map(|why| Pause { by: actor.clone(), why, at: Timestamp::EPOCH });
    let paused = pause.is_some();
    store.set_paused(queue.clone(), pause, &actor).await.map_err(|error| database.explain(&error))?;
    if output.is_json() {
        return output.value(&json!({ "queue": queue.as_str(), "paused": paused }));
    }
    output.line(if paused {
        format!("queue {queue} is paused; {} resumes it", database.command(&format!("resume {queue}")))
    } else {
        format!("queue {queue} is resumed")
    })
}
