//! A database of one test's own, made and dropped with it.

use std::env;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use queue_core::Migrate as _;
use queue_mysql::MySqlStore;
use queue_testkit::conformance::Fixture;
use sqlx::mysql::MySqlDatabaseError;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection};

/// Where the MySQL server is.
pub(crate) const MYSQL: &str = "TEST_MYSQL_URL";
/// Where the MariaDB server is.
pub(crate) const MARIADB: &str = "TEST_MARIADB_URL";

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Where the OceanBase server is.
#[allow(dead_code, reason = "not every test binary looks at it")]
pub(crate) const OCEANBASE: &str = "TEST_OCEANBASE_URL";
/// What operators are told to grant. The tests run with just that.
const RECIPE: &str = include_str!("../../../../docs/OPERATIONS.md");
const PASSWORD: &str = "a-long-password";

/// A database and a store in it.
pub(crate) struct Database {
    store: MySqlStore,
    server: String,
    name: String,
    /// Whether it has accounts of its own.
    accounts: bool,
}

impl Database {
    /// A migrated database on the server that the variable names. Its store has the rights of a worker and no others; an
    /// account that may do that and no more has migrated it.
    pub(crate) async fn fresh(variable: &str) -> Self {
        if variable == OCEANBASE {
            // Its accounts are a tenant's own affair.
            let database = Self::empty(variable).await;
            database.store.migrate().await.expect("the schema can be made");
            return database;
        }
        let server = server(variable);
        let name = name();
        let (accounts, rights) = recipe(&name);
        execute(&server, format!("CREATE DATABASE {name}; {accounts}")).await;
        let url = |account: &str| format!("{}/{name}", as_account(&server, &format!("{name}_{account}")));
        let migrator =
            MySqlStore::builder().max_connections(1).connect(&url("m")).await.expect("the migrator may connect");
        migrator.migrate().await.expect("the migrator may make the schema");
        execute(&server, rights).await;
        let store = MySqlStore::builder().max_connections(6).connect(&url("r")).await.expect("the runtime may connect");
        Self { store, server, name, accounts: true }
    }

    /// A database without tables, and a store that may do anything in it.
    #[allow(dead_code, reason = "not every test binary needs one")]
    pub(crate) async fn empty(variable: &str) -> Self {
        let (server, name) = (server(variable), name());
        execute(&server, format!("CREATE DATABASE {name}")).await;
        let url = format!("{server}/{name}");
        let store = MySqlStore::builder().max_connections(6).connect(&url).await.expect("the server answers");
        Self { store, server, name, accounts: false }
    }

    /// The database's URL.
    #[allow(dead_code, reason = "not every test binary looks at it")]
    pub(crate) fn url(&self) -> String {
        format!("{}/{}", self.server, self.name)
    }

    /// The database's URL for the account of its store.
    #[allow(dead_code, reason = "not every test binary looks at it")]
    pub(crate) fn account_url(&self) -> String {
        format!("{}/{}", as_account(&self.server, &format!("{}_r", self.name)), self.name)
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
        let Self { server, name, accounts, .. } = self;
        let accounts = if *accounts { format!("; DROP USER '{name}_m'@'%', '{name}_r'@'%'") } else { String::new() };
        let (server, drop) = (server.clone(), format!("DROP DATABASE IF EXISTS {name}{accounts}"));
        // A runtime cannot be entered from within another one, so this goes to a thread.
        let dropping = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(execute(&server, drop));
        });
        assert!(dropping.join().is_ok() || thread::panicking(), "the test's database could not be dropped");
    }
}

fn name() -> String {
    // The server may keep databases of runs that were killed, so the number of the process is not enough of a name.
    let number = RandomState::new().hash_one(COUNTER.fetch_add(1, Ordering::Relaxed));
    format!("qt_{}_{:08x}", std::process::id(), number as u32)
}

/// The recipe for this database: the accounts with what the migrator may, and what the runtime may once the tables are there.
fn recipe(database: &str) -> (String, String) {
    let code = RECIPE.split("```sql\n").skip(1).filter_map(|block| block.split("```").next());
    let blocks = code.map(|block| {
        let sql = block.replace("`shop`", database).replace("'queue_migrator'", &format!("'{database}_m'"));
        let sql = sql.replace("'queue'", &format!("'{database}_r'"));
        sql.replace("another long password", PASSWORD).replace("a long password", PASSWORD).replace(";\n", "; ")
    });
    let blocks: Vec<_> = blocks.collect();
    let [accounts, rights] = blocks.as_slice() else { panic!("the recipe has two parts") };
    (accounts.clone(), rights.clone())
}

/// The same server, for another account.
fn as_account(server: &str, account: &str) -> String {
    let (scheme, rest) = server.split_once("://").expect("a URL");
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    format!("{scheme}://{account}:{PASSWORD}@{place}")
}

/// The server's URL, without a database.
pub(crate) fn server(variable: &str) -> String {
    let url = env::var(variable).unwrap_or_else(|_| panic!("set {variable}, or run the tests with `cargo xtask test`"));
    url.trim_end_matches('/').to_owned()
}

/// Runs statements as the account of the variable, which may do anything.
async fn execute(server: &str, statements: String) {
    let mut connection = MySqlConnection::connect(server).await.expect("the server answers");
    let mut done = sqlx::raw_sql(AssertSqlSafe(statements.clone())).execute(&mut connection).await;
    while done.as_ref().is_err_and(is_overtaken) {
        done = sqlx::raw_sql(AssertSqlSafe(statements.clone())).execute(&mut connection).await;
    }
    done.expect("the account of the URL may do anything, with GRANT OPTION (GRANT ALL ON *.* TO … WITH GRANT OPTION)");
    connection.close().await.expect("the connection closes");
}

/// Whether another statement changed some schema meanwhile, so that OceanBase asks for another try.
fn is_overtaken(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
    error.is_some_and(|error| error.number() == 5627)
}
