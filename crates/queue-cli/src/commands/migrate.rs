//! `queue migrate`

use queue_runtime::queue_core::error::SchemaProblem;
use queue_runtime::queue_core::store::SchemaStatus;
use serde_json::json;

use crate::args::Migrate;
use crate::database::{Database, Need};
use crate::failure::Outcome;
use crate::output::Output;

pub(super) async fn run(database: &Database, args: &Migrate, output: &mut Output) -> Outcome {
    if args.status {
        return status(database, output).await;
    }
    let queue = database.open(Need::Migrate).await?;
    let explain = |error| database.explain(&error);
    let applied = queue.migrate().await.map_err(explain)?;
    let version = queue.schema().await.map_err(explain)?.found;
    if output.is_json() {
        return output.value(&json!({ "applied": applied, "version": version }));
    }
    let version = version.map_or_else(|| "unknown".to_owned(), |version| version.to_string());
    output.line(if applied.is_empty() {
        format!("{} is up to date: schema version {version}", database.shown())
    } else {
        format!("migrated {} to schema version {version}", database.shown())
    })
}

async fn status(database: &Database, output: &mut Output) -> Outcome {
    // A file that is not there is not made just to be looked at.
    let status = if database.is_there() {
        let queue = database.open(Need::Migrate).await?;
        queue.schema().await.map_err(|error| database.explain(&error))?
    } else {
        database.open(Need::Look).await?.schema().await.map_err(|error| database.explain(&error))?
    };
    print(&status, output)?;
    output.flush()?;
    status.check().map_err(|problem: SchemaProblem| database.explain(&problem.into()))
}

fn print(status: &SchemaStatus, output: &mut Output) -> Outcome {
    if output.is_json() {
        return output.value(&json!({
            "found": status.found,
            "supported": status.supported,
            "min_compatible": status.min_compatible,
            "up_to_date": status.check().is_ok(),
        }));
    }
    output.line(match status.found {
        Some(found) => format!("schema version {found}; this program brings version {}", status.supported),
        None => format!("no schema; this program brings version {}", status.supported),
    })
}
