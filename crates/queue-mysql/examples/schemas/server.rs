//! The server, a database on it, and connections.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::TryStreamExt as _;
use sqlx::mysql::{MySqlConnectOptions, MySqlRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Either, Executor as _, MySqlConnection, Row as _};

use crate::Result;

/// What is sent at once, as in the store: one TLS record.
const PACKET_BYTES: usize = 16_000;

static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// A server, and the name of the database that is made there and dropped again.
#[derive(Debug)]
pub(crate) struct Server {
    options: MySqlConnectOptions,
    pub(crate) database: String,
    pub(crate) version: String,
    pub(crate) is_mariadb: bool,
}

impl Server {
    pub(crate) async fn find(url: &str) -> Result<Self> {
        let options: MySqlConnectOptions = url.parse()?;
        let options = options.timezone(None).pipes_as_concat(false).no_engine_substitution(false);
        let options = options.disable_statement_logging();
        let database = format!("queue_schemas_{}", std::process::id());
        let mut server = Self { options, database, version: String::new(), is_mariadb: false };
        server.version = server.admin().await?.run(["SELECT VERSION()"]).await?[0][0].try_get_unchecked(0)?;
        server.is_mariadb = server.version.contains("MariaDB");
        Ok(server)
    }

    /// A connection to no database.
    async fn admin(&self) -> Result<Conn> {
        Ok(Conn { raw: self.options.clone().connect().await?, number: 0 })
    }

    pub(crate) async fn make_database(&self) -> Result<()> {
        self.admin().await?.run([format!("CREATE DATABASE {}", self.database)]).await?;
        Ok(())
    }

    pub(crate) async fn drop_database(&self) -> Result<()> {
        self.admin().await?.run([format!("DROP DATABASE IF EXISTS {}", self.database)]).await?;
        Ok(())
    }

    /// A connection with the settings of the store.
    pub(crate) async fn connect(&self) -> Result<Conn> {
        let raw = self.options.clone().database(&self.database).connect().await?;
        let mut conn = Conn { raw, number: CONNECTIONS.fetch_add(1, Ordering::Relaxed) };
        conn.run([
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', autocommit = 1 \
             /*M!100306 , in_predicate_conversion_threshold = 0 */",
        ])
        .await?;
        Ok(conn)
    }

    /// The bytes of all binary logs; `None` where there are none.
    pub(crate) async fn binlog_bytes(&self) -> Option<u64> {
        let replies = self.admin().await.ok()?.run(["SHOW BINARY LOGS"]).await.ok()?;
        replies[0].iter().map(|row| row.try_get_unchecked::<u64, _>(1).ok()).sum()
    }

    /// What the tables take on disk, in megabytes, when all is written back.
    pub(crate) async fn megabytes(&self) -> Result<f64> {
        let tables = if self.is_mariadb { "INNODB_SYS_TABLESPACES" } else { "INNODB_TABLESPACES" };
        let mut conn = self.connect().await?;
        conn.run(["FLUSH TABLES queue_payload, queue_task FOR EXPORT", "UNLOCK TABLES"]).await?;
        let sql = format!(
            "SELECT CAST(SUM(ALLOCATED_SIZE) AS DOUBLE) / 1e6 FROM information_schema.{tables} WHERE NAME LIKE '{}/%'",
            self.database
        );
        Ok(conn.run([sql]).await?[0][0].try_get_unchecked(0)?)
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Conn {
    raw: MySqlConnection,
    pub(crate) number: u64,
}

impl Conn {
    /// Runs statements in as few packets as it takes. The rows of each of them.
    pub(crate) async fn run<S: AsRef<str>>(
        &mut self,
        sql: impl IntoIterator<Item = S>,
    ) -> sqlx::Result<Vec<Vec<MySqlRow>>> {
        let mut replies = Vec::new();
        let mut packet = String::new();
        for statement in sql {
            let statement = statement.as_ref();
            if !packet.is_empty() && packet.len() + statement.len() + 2 > PACKET_BYTES {
                self.send(std::mem::take(&mut packet), &mut replies).await?;
            }
            if !packet.is_empty() {
                packet.push_str("; ");
            }
            packet.push_str(statement);
        }
        self.send(packet, &mut replies).await?;
        Ok(replies)
    }

    async fn send(&mut self, packet: String, replies: &mut Vec<Vec<MySqlRow>>) -> sqlx::Result<()> {
        let mut rows = Vec::new();
        let mut stream = self.raw.fetch_many(sqlx::raw_sql(AssertSqlSafe(packet)));
        while let Some(step) = stream.try_next().await? {
            match step {
                Either::Right(row) => rows.push(row),
                Either::Left(_) => replies.push(std::mem::take(&mut rows)),
            }
        }
        Ok(())
    }
}
