use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use queue_runtime::{MySqlStore, Queue, SqliteStore, Store};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection};
use tempfile::TempDir;

/// Where a test's database lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The server at `TEST_MYSQL_URL`.
    MySql,
    /// The server at `TEST_MARIADB_URL`.
    MariaDb,
    /// A file in a temporary folder.
    Sqlite,
}

/// A migrated database of one test's own, removed with it.
#[derive(Debug)]
pub struct Database {
    backend: Backend,
    url: String,
    server: String,
    name: String,
    accounts: Vec<String>,
    _folder: TempDir,
}

/// Of accounts of a database's own.
const PASSWORD: &str = "a-long-password";

static COUNTER: AtomicU32 = AtomicU32::new(0);

impl Database {
    /// Makes and migrates one.
    ///
    /// # Panics
    ///
    /// When the server's variable is not set or the server cannot be used: a test without its server is a failure.
    pub async fn fresh(backend: Backend) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let name = format!("queue_e2e_{}_{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let server = match backend {
            Backend::MySql => server("TEST_MYSQL_URL"),
            Backend::MariaDb => server("TEST_MARIADB_URL"),
            Backend::Sqlite => String::new(),
        };
        let url = match backend {
            Backend::Sqlite => format!("sqlite://{}", folder.path().join("queue.db").display()),
            Backend::MySql | Backend::MariaDb => {
                execute(&server, format!("CREATE DATABASE {name}")).await;
                format!("{server}/{name}")
            }
        };
        let database = Self { backend, url, server, name, accounts: Vec::new(), _folder: folder };
        database.store().await.migrate().await.expect("the schema can be made");
        database
    }

    /// The database's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The database's URL for an account of its own, which may read and write the tables and nothing else. It is removed with the
    /// database.
    ///
    /// # Panics
    ///
    /// When it cannot be made; in a file there is none.
    pub async fn account(&mut self, suffix: &str) -> String {
        let account = format!("{}_{suffix}", self.name);
        execute(&self.server, format!("CREATE USER '{account}'@'%' IDENTIFIED BY '{PASSWORD}'")).await;
        self.accounts.push(account.clone());
        let rights = "SELECT, INSERT, UPDATE, DELETE";
        execute(&self.server, format!("GRANT {rights} ON {}.* TO '{account}'@'%'", self.name)).await;
        let (scheme, place) = self.url.split_once("://").expect("a URL");
        let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
        format!("{scheme}://{account}:{PASSWORD}@{place}")
    }

    /// Its store.
    ///
    /// # Panics
    ///
    /// When it cannot be reached.
    pub async fn store(&self) -> Arc<dyn Store> {
        match self.backend {
            Backend::Sqlite => Arc::new(SqliteStore::connect(&self.url).await.expect("the file opens")),
            Backend::MySql | Backend::MariaDb => {
                Arc::new(MySqlStore::connect(&self.url).await.expect("the server answers"))
            }
        }
    }

    /// A queue in it.
    ///
    /// # Panics
    ///
    /// When it cannot be reached.
    pub async fn queue(&self) -> Queue {
        queue_runtime::connect(&self.url).await.expect("the database can be reached")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.backend == Backend::Sqlite {
            return;
        }
        let server = self.server.clone();
        let accounts = self.accounts.iter().map(|account| format!("DROP USER IF EXISTS '{account}'@'%'"));
        let drops: Vec<_> = accounts.chain([format!("DROP DATABASE IF EXISTS {}", self.name)]).collect();
        // A runtime cannot be entered from within another one, so this goes to a thread.
        let dropping = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            for drop in drops {
                runtime.block_on(execute(&server, drop));
            }
        });
        let dropped = dropping.join();
        assert!(dropped.is_ok() || thread::panicking(), "the test's database could not be dropped");
    }
}

fn server(variable: &str) -> String {
    let url = env::var(variable).unwrap_or_else(|_| panic!("set {variable}, or run the tests with `cargo xtask test`"));
    url.trim_end_matches('/').to_owned()
}

async fn execute(server: &str, statement: String) {
    let mut connection = MySqlConnection::connect(server).await.expect("the server answers");
    connection.execute(AssertSqlSafe(statement)).await.expect("the account may create and drop databases");
    connection.close().await.expect("the connection closes");
}
