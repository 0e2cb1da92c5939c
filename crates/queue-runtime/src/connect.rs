//! The composition root: the one place that knows every adapter. Each is a cargo feature.

use queue_core::StoreError;
#[cfg(any(feature = "mysql", feature = "sqlite"))]
use queue_core::diagnose::Diagnose as _;
use queue_core::diagnose::{Examination, Finding};

use crate::client::Queue;

/// Connects to the store that a URL names: `mysql://user@host/database` (`mariadb://` likewise) or `sqlite://queue.db`. The
/// schema is not touched; [`Queue::migrate`] does that. `mysql://user@h1,h2,h3/database` names the members of a replication
/// group: the one that takes writes is found, and followed when it moves.
///
/// The queue does not know its store's type, so it cannot write in a transaction of yours. Make it with
/// [`Queue::new`] and the store's own `connect` where you need that; nothing else changes.
///
/// # Errors
///
/// [`StoreError::Unsupported`] when no adapter of this build takes the URL; else what the adapter says of it.
pub async fn connect(url: &str) -> Result<Queue, StoreError> {
    match adapter(url)? {
        Adapter::MySql => mysql(url).await,
        Adapter::Sqlite => sqlite(url).await,
    }
}

/// Looks over the store that a URL names: the server, the account, the schema and what is in it. Writes nothing, and makes no
/// file. Findings come in an order that people like to read.
///
/// # Errors
///
/// As [`connect`]: where there is no connection, there is nothing to look over.
pub async fn diagnose(url: &str, examination: Examination) -> Result<Vec<Finding>, StoreError> {
    match adapter(url)? {
        Adapter::MySql => diagnose_mysql(url, examination).await,
        Adapter::Sqlite => diagnose_sqlite(url, examination).await,
    }
}

/// The adapters that there are.
enum Adapter {
    MySql,
    Sqlite,
}

fn adapter(url: &str) -> Result<Adapter, StoreError> {
    match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("mysql" | "mariadb") => Ok(Adapter::MySql),
        Some("sqlite") => Ok(Adapter::Sqlite),
        // What is before the colon is told only when it is a scheme: else it may be anything, a password included.
        Some(scheme) if url[scheme.len()..].starts_with("://") && is_scheme(scheme) => {
            Err(unsupported(format!("unknown scheme {scheme}://; use mysql://… or sqlite://…")))
        }
        _ => Err(unsupported("not a URL; use mysql://… or sqlite://…".to_owned())),
    }
}

#[cfg(feature = "mysql")]
async fn mysql(url: &str) -> Result<Queue, StoreError> {
    Ok(Queue::new(queue_mysql::MySqlStore::connect(url).await?).erase())
}

#[cfg(feature = "mysql")]
async fn diagnose_mysql(url: &str, examination: Examination) -> Result<Vec<Finding>, StoreError> {
    Ok(queue_mysql::MySqlStore::connect(url).await?.diagnose(examination).await)
}

#[cfg(not(feature = "mysql"))]
async fn mysql(_: &str) -> Result<Queue, StoreError> {
    Err(left_out("mysql"))
}

#[cfg(not(feature = "mysql"))]
async fn diagnose_mysql(_: &str, _: Examination) -> Result<Vec<Finding>, StoreError> {
    Err(left_out("mysql"))
}

#[cfg(feature = "sqlite")]
async fn sqlite(url: &str) -> Result<Queue, StoreError> {
    Ok(Queue::new(queue_sqlite::SqliteStore::connect(url).await?).erase())
}

#[cfg(feature = "sqlite")]
async fn diagnose_sqlite(url: &str, examination: Examination) -> Result<Vec<Finding>, StoreError> {
    let options = queue_sqlite::SqliteOptions::from_url(url)?.existing();
    Ok(queue_sqlite::SqliteStore::with_options(options).await?.diagnose(examination).await)
}

#[cfg(not(feature = "sqlite"))]
async fn sqlite(_: &str) -> Result<Queue, StoreError> {
    Err(left_out("sqlite"))
}

#[cfg(not(feature = "sqlite"))]
async fn diagnose_sqlite(_: &str, _: Examination) -> Result<Vec<Finding>, StoreError> {
    Err(left_out("sqlite"))
}

#[cfg(not(all(feature = "mysql", feature = "sqlite")))]
fn left_out(feature: &str) -> StoreError {
    unsupported(format!("this build has no adapter for {feature}; build queue-runtime with its feature `{feature}`"))
}

const fn unsupported(reason: String) -> StoreError {
    StoreError::Unsupported { reason }
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(url: &str) -> String {
        connect(url).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn an_unknown_scheme_is_told_with_what_would_do() {
        let unknown = "unknown scheme postgres://; use mysql://… or sqlite://…";
        assert_eq!(told("postgres://ana:hunter2@localhost/app").await, unknown);
    }

    #[tokio::test]
    async fn what_is_no_url_is_not_repeated() {
        for url in ["", "queue.db", "hunter2:3306/app", "hunter 2://x", "://", ":sqlite"] {
            assert_eq!(told(url).await, "not a URL; use mysql://… or sqlite://…", "{url}");
        }
    }

    #[cfg(not(feature = "sqlite"))]
    #[tokio::test]
    async fn an_adapter_may_be_left_out() {
        assert_eq!(
            told("sqlite://queue.db").await,
            "this build has no adapter for sqlite; build queue-runtime with its feature `sqlite`"
        );
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn a_url_of_sqlite_gives_a_queue() {
        let dir = tempfile::tempdir().unwrap();
        let queue = connect(&format!("sqlite://{}/queue.db", dir.path().display())).await.unwrap();
        assert!(!queue.migrate().await.unwrap().is_empty());
        assert_eq!(queue.schema().await.unwrap().check(), Ok(()));
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn a_store_is_looked_over_and_none_is_made() {
        use queue_core::diagnose::{Level, worst};

        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/queue.db", dir.path().display());
        let examination = Examination::at(queue_core::Timestamp::from_micros(0));
        assert!(diagnose(&url, examination).await.is_err());
        assert!(!dir.path().join("queue.db").exists());
        connect(&url).await.unwrap().migrate().await.unwrap();
        let findings = diagnose(&url, examination).await.unwrap();
        assert_eq!(worst(&findings), Level::Ok, "{findings:#?}");
    }

    #[cfg(feature = "mysql")]
    #[tokio::test]
    async fn a_url_of_mysql_is_the_adapters() {
        assert!(told("mysql://").await.contains("mysql"), "the adapter refuses it");
    }
}
