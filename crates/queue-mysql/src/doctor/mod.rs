//! The doctor: whether the server, the account, the schema and what is in it are as the store needs them.
//!
//! It writes nothing. A check that the account may not make is a warning that names the right.

mod invariants;
mod plans;
#[cfg(test)]
pub(crate) mod recording;
mod rights;
mod schema;
mod settings;
mod state;
mod statements;

use std::sync::Arc;

use async_trait::async_trait;
use queue_core::StoreError;
use queue_core::diagnose::{Diagnose, Examination, Finding, Level};

use crate::connection::{Conn, rows_of};
use crate::error::{Failure, number, plain, to_store_error};
use crate::inner::Inner;
use crate::migrate;
use crate::options::MySqlOptions;
use crate::server::{Flavor, Server};
use crate::store::MySqlStore;
pub(crate) use settings::Settings;
use statements::Sample;

/// As long as the lists of a large batch.
const LIST: u64 = 200;

#[async_trait]
impl Diagnose for MySqlStore {
    async fn diagnose(&self, examination: Examination) -> Vec<Finding> {
        let store = self.clone();
        // In a task of its own, as every call: dropping the future leaves no connection in the middle of an answer.
        let examined = tokio::spawn(async move {
            let mut findings = vec![server(&store.inner)];
            if let Err(error) = examine(&store, examination, &mut findings).await {
                findings.push(interrupted(&error));
            }
            findings
        });
        examined.await.unwrap_or_else(|error| vec![interrupted(&StoreError::other(error.to_string()))])
    }
}

fn interrupted(error: &StoreError) -> Finding {
    Finding::fail(
        "connection",
        format!("the examination was cut short: {error}"),
        "see to the connection and run it again",
    )
}

/// The part that is cheap, at connect. What makes every write fail is refused, the rest is logged.
pub(crate) fn at_connect(settings: &Settings, place: &str, options: &MySqlOptions) -> Result<(), StoreError> {
    for finding in settings.needed(options).into_iter().filter(|finding| finding.level == Level::Fail) {
        if finding.check == "binlog" || finding.check == "isolation" {
            let advice = finding.advice.unwrap_or_default();
            let reason = format!("{place}: {}; {advice}", finding.detail);
            return Err(StoreError::Unsupported { reason });
        }
        tracing::warn!(check = finding.check, advice = finding.advice, "{place}: {}", finding.detail);
    }
    Ok(())
}

async fn examine(store: &MySqlStore, examination: Examination, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    let inner: &Arc<Inner> = &store.inner;
    let mut conn = inner.connections.acquire(false).await?;
    let place = inner.connections.place();
    let lost = |error: sqlx::Error| to_store_error(&error, false, place);
    let (clock, now) = state::clock(&mut conn, examination.wall).await.map_err(lost)?;
    let settings =
        conn.run(Settings::sql()).await.and_then(|replies| Settings::of(rows_of(&replies, 0))).map_err(lost)?;
    findings.extend(settings.needed(&inner.options));
    findings.extend(settings.others(inner.server.flavor, &inner.options, examination.lease));
    findings.push(clock);
    findings.push(state::replicas(&mut conn).await.map_err(lost)?);
    findings.extend(state::snapshots(&mut conn, inner.server.flavor).await.map_err(lost)?);
    let rights = rights::Rights::find(&mut conn).await.map_err(lost)?;
    // On this connection: the store may have no other.
    let is_usable = match migrate::status(&mut conn).await {
        Ok(status) => {
            findings.push(Finding::of_schema(&status));
            status.found.is_some()
        }
        Err(Failure::Sql(error)) if number(&error).is_some() => {
            let told = format!("its version cannot be read: {}", plain(&error));
            findings.push(Finding::warn("schema", told, "see `privileges`"));
            true
        }
        Err(failure) => return Err(failure.told(place)),
    };
    if !is_usable {
        return Ok(());
    }
    findings.extend(rights.findings(&inner.server.database));
    let expected = schema::expected(migrate::steps().chain([migrate::MAKE]));
    let found = schema::found(&mut conn).await.map_err(lost)?;
    findings.extend(schema::compare(&expected, &found, &rights.hidden()));
    findings.push(state::skip_locked(inner, &mut conn).await?);
    let sample = Sample { id: last_id(&mut conn).await.saturating_sub(LIST).max(1), time: now.as_micros(), list: LIST };
    findings.extend(plans::check(&mut conn, inner.server.flavor, sample).await.map_err(lost)?);
    match invariants::check(&mut conn, examination.tasks_max).await {
        Ok(found) => findings.extend(found),
        Err(Failure::Sql(error)) if number(&error).is_some() => {
            let told = format!("whether each task is where it must be cannot be looked at: {}", plain(&error));
            findings.push(Finding::warn("invariants", told, "see `privileges` and `tables`"));
        }
        Err(failure) => return Err(failure.told(place)),
    }
    Ok(())
}

fn server(inner: &Inner) -> Finding {
    let Server { flavor, version: (major, minor, patch), .. } = &inner.server;
    let name = match flavor {
        Flavor::MySql => "MySQL",
        Flavor::MariaDb => "MariaDB",
        Flavor::OceanBase => "OceanBase",
    };
    Finding::ok("server", format!("{name} {major}.{minor}.{patch} at {}", inner.connections.place()))
}

/// The last task id that was reserved; a small one when it cannot be read.
async fn last_id(conn: &mut Conn) -> u64 {
    invariants::one(conn, "SELECT next_id FROM queue_id_block").await.ok().flatten().unwrap_or(1)
}
