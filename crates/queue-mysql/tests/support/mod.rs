//! A database of one test's own, made and dropped with it.

use std::env;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use queue_core::Migrate as _;
use queue_mysql::MySqlStore;
use queue_testkit::conformance::Fixture;
use sqlx::mysql::MySqlDatabaseError;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection};

/// Where the MySQL server is.
pub(crate) const MYSQL: &str = "TEST_MYSQL_URL";
/// Where the MariaDB server is.
pub(crate) const MARIADB: &str = "TEST_MARIADB_URL";

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Where the OceanBase server is.
#[allow(dead_code, reason = "not every test binary looks at it")]
pub(crate) const OCEANBASE: &str = "TEST_OCEANBASE_URL";

/// A database and a store in it.
pub(crate) struct Database {
    store: MySqlStore,
    server: String,
    name: String,
}

impl Database {
    /// A migrated database on the server that the variable names.
    pub(crate) async fn fresh(variable: &str) -> Self {
        let database = Self::empty(variable).await;
        database.store.migrate().await.expect("the schema can be made");
        database
    }

    /// A database without tables.
    pub(crate) async fn empty(variable: &str) -> Self {
        let server = server(variable);
        let name = format!("queue_test_{}_{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        execute(&server, format!("CREATE DATABASE {name}")).await;
        let url = format!("{server}/{name}");
        let store = MySqlStore::builder().max_connections(6).connect(&url).await.expect("the server answers");
        Self { store, server, name }
    }

    /// The database's URL.
    #[allow(dead_code, reason = "not every test binary looks at it")]
    pub(crate) fn url(&self) -> String {
        format!("{}/{}", self.server, self.name)
    }

    /// Another store on the database, as another process has it.
    #[allow(dead_code, reason = "not every test binary has two")]
    pub(crate) async fn another(&self) -> MySqlStore {
        MySqlStore::builder().max_connections(6).connect(&self.url()).await.expect("the server answers")
    }

    /// A connection of the user's own.
    #[allow(dead_code, reason = "not every test binary has one")]
    pub(crate) async fn user(&self) -> MySqlConnection {
        MySqlConnection::connect(&self.url()).await.expect("the server answers")
    }
}

impl Fixture for Database {
    type Store = MySqlStore;

    fn store(&self) -> &MySqlStore {
        &self.store
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, drop) = (self.server.clone(), format!("DROP DATABASE IF EXISTS {}", self.name));
        // A runtime cannot be entered from within another one, so this goes to a thread.
        let dropping = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(execute(&server, drop));
        });
        assert!(dropping.join().is_ok() || thread::panicking(), "the test's database could not be dropped");
    }
}

/// The server's URL, without a database.
pub(crate) fn server(variable: &str) -> String {
    let url = env::var(variable).unwrap_or_else(|_| panic!("set {variable}, or run the tests with `cargo xtask test`"));
    url.trim_end_matches('/').to_owned()
}

async fn execute(server: &str, statement: String) {
    let mut connection = MySqlConnection::connect(server).await.expect("the server answers");
    let mut done = connection.execute(AssertSqlSafe(statement.clone())).await;
    while done.as_ref().is_err_and(is_overtaken) {
        done = connection.execute(AssertSqlSafe(statement.clone())).await;
    }
    done.expect("the account may create and drop databases");
    connection.close().await.expect("the connection closes");
}

/// Whether another statement changed some schema meanwhile, so that OceanBase asks for another try.
fn is_overtaken(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
    error.is_some_and(|error| error.number() == 5627)
}
