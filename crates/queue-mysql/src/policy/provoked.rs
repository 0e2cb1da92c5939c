//! Real errors of real servers, each provoked inside an operation, and what became of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use queue_core::ErrorKind;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection};

use super::Policy;
use crate::MySqlStore;
use crate::connection::Conn;
use crate::error::{Class, Failure, classify, number};
use crate::inner::Inner;
use crate::operation::Operation;
use crate::sql::value;
use crate::support::{Database, MARIADB, MYSQL, OCEANBASE};

/// What an operation went through.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// The connection of each try.
    connections: Vec<u64>,
    /// The server's number of the error, and what we make of it.
    number: Option<u16>,
    policy: Option<Policy>,
}

/// How an error is provoked.
#[derive(Clone, Debug)]
enum Way {
    /// These statements end in one.
    Statements(String),
    /// These do, with the commit under way.
    Committing(String),
    /// The other connection holds row 1 and changed many; it then wants our row 2.
    Deadlock(Arc<tokio::sync::Mutex<Option<MySqlConnection>>>),
    /// A snapshot of ours is older than what the other connection then writes.
    Changed(Arc<tokio::sync::Mutex<Option<MySqlConnection>>>),
    /// A statement that takes for ever is ended, with its connection, by the other one.
    Killed(Arc<tokio::sync::Mutex<Option<MySqlConnection>>>),
}

/// Provokes an error at its first try and does nothing at the second.
struct Provoke<const REPEATABLE: bool> {
    way: Way,
    seen: Arc<Mutex<Seen>>,
}

impl<const REPEATABLE: bool> Operation for Provoke<REPEATABLE> {
    type Output = ();
    const REPEATABLE: bool = REPEATABLE;

    async fn attempt(&mut self, _: &Inner, conn: &mut Conn) -> Result<(), Failure> {
        let replies = conn.run("SELECT CONNECTION_ID()".to_owned()).await?;
        let id: u64 = value(&replies[0].rows[0], 0)?;
        let is_first = {
            let mut seen = self.seen.lock().unwrap();
            seen.connections.push(id);
            seen.connections.len() == 1
        };
        if !is_first {
            return Ok(());
        }
        let error = self.way.provoke(conn).await.expect_err("it was to fail");
        let mut seen = self.seen.lock().unwrap();
        seen.number = number(&error);
        seen.policy = Some(classify(&error).policy(conn.is_committing()));
        Err(error.into())
    }
}

impl Way {
    async fn provoke(&self, conn: &mut Conn) -> Result<(), sqlx::Error> {
        match self {
            Self::Statements(sql) => conn.begin(sql).await.map(drop),
            Self::Committing(sql) => conn.run_committing(sql.clone()).await.map(drop),
            Self::Deadlock(other) => {
                let mut other = other.lock().await.take().expect("the other connection");
                conn.begin("SELECT x FROM t WHERE id = 2 FOR UPDATE").await?;
                // It waits for us until we are rolled back; that it does is what the server sees of the two, in whichever order.
                let waiting = tokio::spawn(async move {
                    run(&mut other, "UPDATE t SET x = 9 WHERE id = 2; COMMIT").await;
                });
                let ours = conn.run("SELECT x FROM t WHERE id = 1 FOR UPDATE".to_owned()).await;
                if ours.is_err() {
                    conn.rollback().await?;
                }
                waiting.await.expect("the other one goes on");
                ours.map(drop)
            }
            Self::Changed(other) => {
                let mut other = other.lock().await.take().expect("the other connection");
                conn.run(
                    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SET innodb_snapshot_isolation = ON".to_owned(),
                )
                .await?;
                conn.begin("SELECT x FROM t").await?;
                run(&mut other, "UPDATE t SET x = 7 WHERE id = 1").await;
                conn.run("SELECT x FROM t WHERE id = 1 FOR UPDATE".to_owned()).await.map(drop)
            }
            Self::Killed(other) => {
                let mut other = other.lock().await.take().expect("the other connection");
                let id: u64 = value(&conn.run("SELECT CONNECTION_ID()".to_owned()).await?[0].rows[0], 0)?;
                let killing = tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    run(&mut other, &format!("KILL CONNECTION {id}")).await;
                });
                let ours = conn
                    .begin(
                        "INSERT INTO t SELECT 100 + a.id + 50 * (b.id + 50 * (c.id + 50 * d.id)), 0 \
                         FROM t AS a, t AS b, t AS c, t AS d",
                    )
                    .await;
                killing.await.expect("it is killed");
                ours.map(drop)
            }
        }
    }
}

async fn run(conn: &mut MySqlConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.unwrap();
}

/// A table, a store that waits for locks as shortly as can be, and another connection.
struct Stage {
    database: Database,
    store: MySqlStore,
}

impl Stage {
    async fn set(variable: &str) -> Self {
        let database = Database::empty(variable).await;
        let store = MySqlStore::builder().lock_wait(Duration::from_secs(1)).connect(&database.url()).await.unwrap();
        let mut user = database.user().await;
        let rows: Vec<_> = (1..=50).map(|id| format!("({id},0)")).collect();
        run(
            &mut user,
            &format!("CREATE TABLE t (id INT PRIMARY KEY, x INT NOT NULL); INSERT INTO t VALUES {}", rows.join(",")),
        )
        .await;
        user.close().await.unwrap();
        Self { database, store }
    }

    async fn other(&self, sql: &str) -> MySqlConnection {
        let mut other = self.database.user().await;
        run(&mut other, sql).await;
        other
    }

    async fn perform<const REPEATABLE: bool>(&self, way: Way) -> (Result<(), ErrorKind>, Seen) {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let provoke = Provoke::<REPEATABLE> { way, seen: Arc::clone(&seen) };
        let result = self.store.perform(provoke).await.map_err(|error| error.kind());
        let seen = seen.lock().unwrap().clone();
        (result, seen)
    }

    /// An error after which the transaction is run again, on the connection that it has.
    async fn is_retried(&self, way: Way, number: u16, kind: &'static str) {
        let (result, seen) = self.perform::<false>(way).await;
        assert_eq!((result, seen.number, seen.policy), (Ok(()), Some(number), Some(Policy::RetryTransaction(kind))));
        assert!(matches!(seen.connections.as_slice(), [first, second] if first == second), "{seen:?}");
    }

    /// An error that the caller hears of at once; whether its connection is used again.
    async fn is_permanent(&self, way: Way, numbers: &[u16], told: ErrorKind, keeps: bool) {
        let (result, seen) = self.perform::<true>(way).await;
        assert!(seen.number.is_some_and(|number| numbers.contains(&number)), "{seen:?}");
        assert_eq!((result, seen.policy), (Err(told), Some(Policy::Permanent)), "{seen:?}");
        self.is_kept(&seen, keeps).await;
    }

    /// Whether the next call has the same connection.
    async fn is_kept(&self, seen: &Seen, keeps: bool) {
        let (_, next) = self.perform::<false>(Way::Statements("SIGNAL SQLSTATE '45000'".to_owned())).await;
        assert_eq!(next.connections[0] == *seen.connections.last().unwrap(), keeps, "{seen:?} {next:?}");
    }
}

fn shared(conn: MySqlConnection) -> Arc<tokio::sync::Mutex<Option<MySqlConnection>>> {
    Arc::new(tokio::sync::Mutex::new(Some(conn)))
}

fn statements(sql: &str) -> Way {
    Way::Statements(sql.to_owned())
}

async fn every_error_meets_its_policy(variable: &str) {
    let stage = Stage::set(variable).await;

    let other =
        stage.other("START TRANSACTION; UPDATE t SET x = 1 WHERE id = 1; UPDATE t SET x = 1 WHERE id > 10").await;
    stage.is_retried(Way::Deadlock(shared(other)), 1213, "deadlock").await;
    let other = stage.other("START TRANSACTION; UPDATE t SET x = 1 WHERE id = 1").await;
    stage.is_retried(statements("UPDATE t SET x = 2 WHERE id = 1"), 1205, "lock_timeout").await;
    stage
        .is_retried(
            statements("SELECT x FROM t WHERE id = 1 FOR UPDATE NOWAIT"),
            if variable == MYSQL { 3572 } else { 1205 },
            "lock_timeout",
        )
        .await;
    other.close().await.unwrap();

    stage.is_permanent(statements("INSERT INTO t VALUES (1, 1)"), &[1062], ErrorKind::Other, true).await;
    stage.is_permanent(statements("SELECT nonsense"), &[1054], ErrorKind::Other, true).await;
    stage.is_permanent(statements("SELECT 1 FROM queue_task"), &[1146], ErrorKind::Schema, true).await;
    stage
        .is_permanent(statements("SELECT IF(FALSE, 1, (SELECT 1 UNION SELECT 2))"), &[1242], ErrorKind::Other, true)
        .await;
    let mut user = stage.database.user().await;
    let packet: u64 =
        sqlx::Row::get(&sqlx::query("SELECT @@max_allowed_packet").fetch_one(&mut user).await.unwrap(), 0);
    let large = format!("SELECT LENGTH('{}')", "x".repeat(usize::try_from(packet).unwrap()));
    stage.is_permanent(Way::Statements(large), &[1153], ErrorKind::Other, false).await;

    // No writes here: the connection goes, and nothing is tried again behind the caller's back.
    let read_only =
        statements("COMMIT; SET SESSION TRANSACTION READ ONLY; START TRANSACTION; INSERT INTO t VALUES (100, 1)");
    let (result, seen) = stage.perform::<false>(read_only).await;
    assert_eq!((result, seen.number, seen.policy), (Err(ErrorKind::Unavailable), Some(1792), Some(Policy::Reconnect)));
    stage.is_kept(&seen, false).await;
    if variable == MYSQL {
        // The same number as of a server that is read-only.
        let (result, seen) = stage.perform::<false>(statements("SELECT 1 INTO OUTFILE '/nowhere/at/all'")).await;
        assert_eq!(
            (result, seen.number, seen.policy),
            (Err(ErrorKind::Unavailable), Some(1290), Some(Policy::Reconnect))
        );
        stage.is_kept(&seen, false).await;
    }
}

async fn a_lost_connection_meets_its_policy(variable: &str) {
    let stage = Stage::set(variable).await;
    let kill = "KILL CONNECTION_ID()".to_owned();
    let committing = || Way::Committing(kill.clone());
    // What may be repeated is, on another connection, whether the commit was under way or not.
    for (way, policy) in [(statements(&kill), Policy::Reconnect), (committing(), Policy::Unknown)] {
        let (result, seen) = stage.perform::<true>(way).await;
        assert_eq!((result, seen.policy), (Ok(()), Some(policy)), "{seen:?}");
        assert!(matches!(seen.connections.as_slice(), [first, second] if first != second), "{seen:?}");
    }
    // What may not is tried again only where the connection may have been dead all along, and never around the commit.
    let (result, seen) = stage.perform::<false>(committing()).await;
    assert_eq!((result, seen.policy), (Err(ErrorKind::UnknownOutcome), Some(Policy::Unknown)), "{seen:?}");
    let (result, seen) = stage.perform::<false>(statements(&kill)).await;
    assert_eq!((result, seen.policy), (Err(ErrorKind::Unavailable), Some(Policy::Reconnect)), "{seen:?}");
    assert_eq!(seen.connections.len(), 1);
}

/// Whether the server still tells the number of it or has closed the connection is a matter of luck, hence more than once.
async fn a_killed_statement_lost_its_connection(variable: &str) {
    let stage = Stage::set(variable).await;
    for _ in 0..4 {
        let other = stage.other("DO 0").await;
        let (result, seen) = stage.perform::<true>(Way::Killed(shared(other))).await;
        assert_eq!((result, seen.policy), (Ok(()), Some(Policy::Reconnect)), "{seen:?}");
        assert!(matches!(seen.connections.as_slice(), [first, second] if first != second), "{seen:?}");
    }
}

#[tokio::test]
async fn a_killed_statement_lost_its_connection_on_mysql() {
    a_killed_statement_lost_its_connection(MYSQL).await;
}

#[tokio::test]
async fn a_killed_statement_lost_its_connection_on_mariadb() {
    a_killed_statement_lost_its_connection(MARIADB).await;
}

#[tokio::test]
async fn a_killed_statement_lost_its_connection_on_oceanbase() {
    a_killed_statement_lost_its_connection(OCEANBASE).await;
}

#[tokio::test]
async fn mysql_every_error_meets_its_policy() {
    every_error_meets_its_policy(MYSQL).await;
}

#[tokio::test]
async fn mariadb_every_error_meets_its_policy() {
    every_error_meets_its_policy(MARIADB).await;
}

#[tokio::test]
async fn mysql_a_lost_connection_meets_its_policy() {
    a_lost_connection_meets_its_policy(MYSQL).await;
}

#[tokio::test]
async fn mariadb_a_lost_connection_meets_its_policy() {
    a_lost_connection_meets_its_policy(MARIADB).await;
}

/// As MariaDB does by default from 11.6 on.
#[tokio::test]
async fn mariadb_a_snapshot_that_is_outdated_is_retried() {
    let stage = Stage::set(MARIADB).await;
    let other = stage.other("DO 0").await;
    stage.is_retried(Way::Changed(shared(other)), 1020, "record_changed").await;
}

#[test]
fn each_class_has_its_policy() {
    let classes = [
        Class::Repeat("x"),
        Class::Lost,
        Class::ReadOnly,
        Class::Busy,
        Class::Denied,
        Class::NoDatabase,
        Class::NoTable,
        Class::Duplicate,
        Class::PacketTooLarge,
        Class::Guard,
        Class::Other,
    ];
    let kept: Vec<_> = classes.into_iter().filter(|class| !class.keeps_connection()).collect();
    assert_eq!(kept, [Class::Lost, Class::ReadOnly, Class::PacketTooLarge]);
    let unknown: Vec<_> = classes.into_iter().filter(|class| class.policy(true) == Policy::Unknown).collect();
    assert_eq!(unknown, [Class::Lost, Class::ReadOnly], "no other class may hide that a commit was under way");
}
