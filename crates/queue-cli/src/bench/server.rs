//! The server that the bench runs on: a database of its own, and what the server counts.

use std::collections::HashMap;
use std::time::Duration;

use queue_runtime::StoreError;
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, MySqlConnection, Row as _};
use tokio::time::sleep;

use super::workload::failed;
use crate::database::Database;
use crate::failure::Outcome;
use crate::url::hosts;

/// How often, and how many times at most, the server is asked whether it rests.
const REST_LOOK: Duration = Duration::from_millis(200);
const REST_LOOKS: u32 = 300;
/// Transactions that may wait to be purged on a server that rests.
const UNPURGED_MAX: u64 = 1_000;

/// What the server answers to an account that it does not know, or that may not use a database.
const ACCESS_DENIED: u16 = 1045;
const ACCESS_DENIED_TO_DATABASE: u16 = 1044;

/// A connection to the server, apart from those of the queue.
#[derive(Debug)]
pub(super) struct Server {
    conn: MySqlConnection,
    options: MySqlConnectOptions,
    pub(super) version: String,
}

/// What the server has done, all in all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counters {
    pub(super) statements: u64,
    pub(super) commits: u64,
    /// Statements that insert, update, replace or delete.
    pub(super) writes: u64,
    /// Rows that the tables' engine has given out.
    pub(super) rows: u64,
    /// `None` where the account may not know, or there is no binlog.
    pub(super) binlog_bytes: Option<u64>,
    /// Statements of the bench's own among them.
    own: u64,
}

impl Counters {
    /// What was done since then, but for looking at the counters.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            statements: self.statements.saturating_sub(before.statements).saturating_sub(self.own - before.own),
            commits: self.commits.saturating_sub(before.commits),
            writes: self.writes.saturating_sub(before.writes),
            rows: self.rows.saturating_sub(before.rows),
            binlog_bytes: self.binlog_bytes.zip(before.binlog_bytes).map(|(now, then)| now.saturating_sub(then)),
            own: 0,
        }
    }
}

/// A consistent snapshot that stays open until it is dropped.
#[derive(Debug)]
pub(super) struct Snapshot {
    _conn: MySqlConnection,
}

impl Server {
    /// Connects to the server that the URL names, whatever database it names.
    pub(super) async fn connect(named: &Database) -> Outcome<Self> {
        let options: MySqlConnectOptions =
            server_url(named.url()).parse().map_err(|error| failed("the URL of the server", error))?;
        let options = options.disable_statement_logging();
        let mut conn = options.connect().await.map_err(|error| named.explain(&sorted(error)))?;
        let row = conn.fetch_one("SELECT VERSION()").await.map_err(|error| failed("the server's version", error))?;
        let version = text(&row, 0);
        Ok(Self { conn, options, version })
    }

    pub(super) async fn create(&mut self, database: &str) -> Outcome {
        let sql = format!("CREATE DATABASE {database}");
        self.conn.execute(AssertSqlSafe(sql)).await.map(drop).map_err(|error| {
            failed("cannot make a database for the bench", error).hint("an account that may CREATE and DROP databases")
        })
    }

    pub(super) async fn drop_database(&mut self, database: &str) -> Outcome {
        let sql = format!("DROP DATABASE IF EXISTS {database}");
        self.conn
            .execute(AssertSqlSafe(sql))
            .await
            .map(drop)
            .map_err(|error| failed(&format!("the database {database} of the bench is left behind"), error))
    }

    /// Opens a snapshot of everything, as a backup does.
    pub(super) async fn snapshot(&self) -> Outcome<Snapshot> {
        let told = |error| failed("cannot hold a snapshot", error);
        let mut conn = self.options.connect().await.map_err(told)?;
        for sql in
            ["SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT"]
        {
            conn.execute(sql).await.map_err(told)?;
        }
        Ok(Snapshot { _conn: conn })
    }

    /// What the server has done until now.
    pub(super) async fn counters(&mut self) -> Outcome<Counters> {
        let all = self.status().await?;
        let sum = |names: &[&str]| names.iter().filter_map(|name| all.get(*name)).sum();
        let binlog_bytes = match all.get("binlog_bytes_written") {
            Some(bytes) => Some(*bytes),
            None => self.binlog_bytes().await,
        };
        // Each look counts itself, and what it asks of the binlog.
        let own = all.get("com_show_status").copied().unwrap_or_default() + sum(&["com_show_binlogs"]);
        Ok(Counters {
            statements: sum(&["questions"]),
            commits: sum(&["com_commit"]),
            writes: sum(&[
                "com_insert",
                "com_update",
                "com_delete",
                "com_replace",
                "com_insert_select",
                "com_delete_multi",
                "com_update_multi",
            ]),
            rows: sum(&["innodb_rows_read"]),
            binlog_bytes,
            own,
        })
    }

    /// Waits until the server has done what is left of work that is over, as far as it tells and for a minute at most: it writes back
    /// changed pages, and purges what was removed.
    pub(super) async fn rest(&mut self) -> Outcome {
        for _ in 0..REST_LOOKS {
            let status = self.status().await?;
            let pages =
                |name: &str| status.get(&format!("innodb_buffer_pool_pages_{name}")).copied().unwrap_or_default();
            let is_clean = pages("dirty") <= pages("total") / 20;
            if is_clean && self.unpurged(&status).await <= UNPURGED_MAX {
                break;
            }
            sleep(REST_LOOK).await;
        }
        Ok(())
    }

    /// Transactions whose removals are not purged yet; none where the account may not know.
    async fn unpurged(&mut self, status: &HashMap<String, u64>) -> u64 {
        if let Some(count) = status.get("innodb_history_list_length") {
            return *count;
        }
        let sql = "SELECT count FROM information_schema.innodb_metrics WHERE name = 'trx_rseg_history_len'";
        let row = self.conn.fetch_one(sql).await;
        row.ok().and_then(|row| row.try_get_unchecked(0).ok()).unwrap_or_default()
    }

    async fn status(&mut self) -> Outcome<HashMap<String, u64>> {
        let rows = self.conn.fetch_all("SHOW GLOBAL STATUS").await;
        let rows = rows.map_err(|error| failed("cannot read the server's counters", error))?;
        let counted =
            rows.iter().filter_map(|row| Some((text(row, 0).to_ascii_lowercase(), text(row, 1).parse().ok()?)));
        Ok(counted.collect())
    }

    /// The bytes of all binlog files; they only ever grow while the bench runs, unless files are purged.
    async fn binlog_bytes(&mut self) -> Option<u64> {
        let rows = self.conn.fetch_all("SHOW BINARY LOGS").await.ok()?;
        rows.iter().map(|row| row.try_get_unchecked::<u64, _>(1).ok()).sum()
    }

    /// Says farewell.
    pub(super) async fn close(self) {
        // The server notices a closed socket as well.
        let _ = self.conn.close().await;
    }
}

/// The error of a connection by what helps, as other commands tell it.
fn sorted(error: sqlx::Error) -> StoreError {
    let refused = error.as_database_error().and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
    match (&error, refused) {
        (_, Some(refused)) if matches!(refused.number(), ACCESS_DENIED_TO_DATABASE | ACCESS_DENIED) => {
            StoreError::denied(refused.message())
        }
        (sqlx::Error::Io(cause), _) => StoreError::unavailable(cause.to_string()),
        _ => StoreError::other(error),
    }
}

fn text(row: &MySqlRow, index: usize) -> String {
    row.try_get_unchecked::<Vec<u8>, _>(index)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// The URL with this database in place of its own.
pub(super) fn with_database(url: &str, database: &str) -> String {
    let query = url.find('?').map_or("", |at| &url[at..]);
    format!("{}/{database}{query}", &url[..hosts(url).end])
}

fn server_url(url: &str) -> String {
    with_database(url, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_url_is_replaced() {
        for (url, with) in [
            ("mysql://app:secret@127.0.0.1:3306/shop", "mysql://app:secret@127.0.0.1:3306/b"),
            ("mysql://app@db", "mysql://app@db/b"),
            ("mysql://db/shop?ssl-mode=disabled", "mysql://db/b?ssl-mode=disabled"),
            ("mariadb://a:b/c@db/shop", "mariadb://a:b/c@db/b"),
        ] {
            assert_eq!(with_database(url, "b"), with);
        }
    }

    #[test]
    fn looking_at_the_counters_is_not_counted() {
        let before = Counters { statements: 100, commits: 7, writes: 5, rows: 40, binlog_bytes: Some(1_000), own: 3 };
        let after = Counters { statements: 152, commits: 8, writes: 9, rows: 61, binlog_bytes: Some(1_500), own: 5 };
        let since = after.since(&before);
        assert_eq!((since.statements, since.commits, since.writes, since.binlog_bytes), (50, 1, 4, Some(500)));
        assert_eq!(since.rows, 21);
        assert_eq!(Counters { binlog_bytes: None, ..after }.since(&before).binlog_bytes, None);
    }
}
