//! `queue worker list|drain`

use queue_runtime::queue_core::Store;
use queue_runtime::queue_core::session::SessionRecord;
use serde_json::json;

use super::actor;
use crate::args::Worker;
use crate::database::{Database, Need};
use crate::failure::{Code, Failure, Outcome};
use crate::output::Output;
use crate::output::worker::{WorkerJson, drained, lines};

pub(super) async fn run(database: &Database, command: Worker, output: &mut Output) -> Outcome {
    let store = database.open(Need::Look).await?.erased_store();
    match command {
        Worker::List => list(database, &*store, output).await,
        Worker::Drain { workers } => drain(database, &*store, &workers, output).await,
    }
}

async fn list(database: &Database, store: &dyn Store, output: &mut Output) -> Outcome {
    let explain = |error| database.explain(&error);
    let sessions = store.sessions().await.map_err(explain)?;
    let now = store.time().await.map_err(explain)?.now;
    if output.is_json() {
        return sessions.iter().try_for_each(|session| output.value(&WorkerJson::new(session, now)));
    }
    lines(&sessions, now).into_iter().try_for_each(|line| output.line(line))
}

async fn drain(database: &Database, store: &dyn Store, wanted: &[String], output: &mut Output) -> Outcome {
    let explain = |error| database.explain(&error);
    let sessions = store.sessions().await.map_err(explain)?;
    let alive = |session: &&SessionRecord| session.fenced_at.is_none();
    let is = |session: &SessionRecord, word: &String| session.name == *word || session.id.to_string() == *word;
    let missing = wanted.iter().filter(|word| !sessions.iter().filter(alive).any(|session| is(session, word)));
    let missing = missing.map(String::as_str).collect::<Vec<_>>();
    // Before any of them is told, so that a misspelt name changes nothing.
    if !missing.is_empty() {
        let said = format!("there is no live worker {}", missing.join(", "));
        return Err(Failure::new(Code::NotFound, said).hint(database.command("worker list")));
    }
    for session in sessions.iter().filter(alive).filter(|session| wanted.iter().any(|word| is(session, word))) {
        let told = store.request_drain(session.id, &actor()).await.map_err(explain)?;
        if output.is_json() {
            output.value(&json!({ "id": session.id.to_string(), "name": session.name, "told": told }))?;
        } else {
            output.line(drained(session, told))?;
        }
    }
    Ok(())
}
