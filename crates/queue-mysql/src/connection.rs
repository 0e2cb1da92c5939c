//! The connections to the server, and where a transaction on one of them stands.
//!
//! Not sqlx's pool: that one pings the server at each return, a round trip a call. A connection here goes back only when
//! the call that used it came to a known end, and is closed in every other case.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::TryStreamExt;
use queue_core::StoreError;
use sqlx::mysql::{MySqlArguments, MySqlRow};
use sqlx::{AssertSqlSafe, Either, Executor, MySql, MySqlConnection};
use tokio::runtime::{Handle, Id};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::{Told, is_refusal};
use crate::hosts::{Hosts, Seat};
use crate::inner::lock;
use crate::options::MySqlOptions;
use crate::server::Flavor;
use crate::sql::add;
use crate::url::Target;

/// Connections kept apart for renewing sessions, so that a lease never waits for a free one.
pub(crate) const URGENT_CONNECTIONS: usize = 2;

/// What is sent at once, in bytes: what fits into one TLS record. The driver sends each record by itself and leaves Nagle's
/// algorithm on, so that a second one waits until the first is acknowledged, which the receiver puts off for 40 ms.
pub(crate) const PACKET_BYTES: usize = 16_000;

/// What a statement answered.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) rows: Vec<MySqlRow>,
    /// Rows matched (not: rows changed).
    pub(crate) affected: u64,
    pub(crate) last_insert_id: u64,
}

/// The rows of one reply of several; none where there is no such reply.
pub(crate) fn rows_of(replies: &[Reply], index: usize) -> &[MySqlRow] {
    replies.get(index).map_or(&[], |reply| reply.rows.as_slice())
}

/// How far a connection's transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No transaction is open.
    Idle,
    /// One is open; nothing of it is committed.
    Open,
    /// The commit, or a write that commits itself, is on its way.
    Committing,
}

/// The connections of one store.
pub(crate) struct Connections {
    hosts: Hosts,
    options: MySqlOptions,
    normal: Arc<Semaphore>,
    urgent: Arc<Semaphore>,
    /// By runtime, because a connection is driven by the runtime that opened it: one that the heartbeat's own thread
    /// uses must not hang when the main runtime is starved.
    idle: Mutex<HashMap<Id, Vec<(MySqlConnection, Seat)>>>,
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").field("hosts", &self.place()).finish_non_exhaustive()
    }
}

impl Connections {
    pub(crate) fn new(target: Target, options: MySqlOptions) -> Self {
        Self {
            hosts: Hosts::new(target, options.clone()),
            normal: Arc::new(Semaphore::new(options.connections_max)),
            urgent: Arc::new(Semaphore::new(URGENT_CONNECTIONS)),
            options,
            idle: Mutex::default(),
        }
    }

    /// The server and the database, for errors.
    pub(crate) fn place(&self) -> &str {
        self.hosts.place()
    }

    /// Which servers there are.
    pub(crate) const fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// A connection of one's own. An idle one may have been closed by the server meanwhile: [`Conn::was_idle`] says so.
    pub(crate) async fn acquire(&self, urgent: bool) -> Result<Conn, StoreError> {
        let permits = if urgent { &self.urgent } else { &self.normal };
        let wait = timeout(self.options.connect_timeout, Arc::clone(permits).acquire_owned());
        let Ok(Ok(permit)) = wait.await else {
            let busy = format!("all {} connections to {} are in use", self.options.connections_max, self.place());
            return Err(StoreError::unavailable(Told(busy)));
        };
        let idle = self.take_idle();
        let was_idle = idle.is_some();
        let (raw, seat) = match idle {
            Some(idle) => idle,
            None => self.hosts.connect().await?,
        };
        let flavor = self.hosts.flavor().unwrap_or_default();
        Ok(Conn { raw, seat, flavor, phase: Phase::Idle, was_idle, _permit: permit })
    }

    /// An idle connection to the server that takes writes, as far as is known.
    fn take_idle(&self) -> Option<(MySqlConnection, Seat)> {
        let mut idle = self.idle();
        let own = idle.get_mut(&Handle::current().id())?;
        own.retain(|(_, seat)| self.hosts.holds(*seat));
        own.pop()
    }

    /// Keeps a connection for the next call. Only one without a transaction may come back.
    pub(crate) fn put_back(&self, conn: Conn) {
        if conn.phase == Phase::Idle && self.hosts.holds(conn.seat) {
            self.idle().entry(Handle::current().id()).or_default().push((conn.raw, conn.seat));
        }
    }

    /// Closes the idle connections of this runtime: after one was lost, the others are likely lost as well.
    pub(crate) fn forget_own(&self) {
        self.idle().remove(&Handle::current().id());
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, HashMap<Id, Vec<(MySqlConnection, Seat)>>> {
        lock(&self.idle)
    }
}

/// All that our statements depend on, so that no global setting of the server matters.
pub(crate) fn settings(options: &MySqlOptions, flavor: Flavor) -> String {
    let wait = options.lock_wait.as_secs().max(1);
    // MariaDB alone reads what stands after the exclamation mark: it turns a long list into a subquery, which it then
    // answers by a scan.
    format!(
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SET SESSION \
         sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', autocommit = 1, \
         innodb_lock_wait_timeout = {wait}, lock_wait_timeout = {} \
         /*M!100306 , in_predicate_conversion_threshold = 0 */{}",
        wait.max(10),
        flavor.settings(options)
    )
}

/// A connection in use by one call. Dropping it closes it.
pub(crate) struct Conn {
    raw: MySqlConnection,
    seat: Seat,
    flavor: Flavor,
    phase: Phase,
    was_idle: bool,
    _permit: OwnedSemaphorePermit,
}

impl Conn {
    /// Whether it lay idle before this call, so that a loss may only mean that the server closed it long ago.
    pub(crate) const fn was_idle(&self) -> bool {
        self.was_idle
    }

    /// Which server it leads to.
    pub(crate) const fn seat(&self) -> Seat {
        self.seat
    }

    /// Whether what was asked for last may have been committed, though no answer came.
    pub(crate) fn is_committing(&self) -> bool {
        self.phase == Phase::Committing
    }

    /// The connection itself, for what runs on the user's connections as well.
    pub(crate) fn raw(&mut self) -> &mut MySqlConnection {
        &mut self.raw
    }

    /// Statements that write nothing, or that write inside the open transaction. One reply for each.
    pub(crate) async fn run(&mut self, sql: String) -> Result<Vec<Reply>, sqlx::Error> {
        run_on(&mut self.raw, self.flavor.say(sql)).await
    }

    /// As [`run`](Self::run), in as many packets as it takes.
    pub(crate) async fn run_all(&mut self, statements: Vec<String>) -> Result<Vec<Reply>, sqlx::Error> {
        let mut replies = Vec::new();
        for packet in packets(statements) {
            replies.extend(self.run(packet).await?);
        }
        Ok(replies)
    }

    /// As [`begin`](Self::begin), in as many packets as it takes.
    pub(crate) async fn begin_all(&mut self, mut statements: Vec<String>) -> Result<Vec<Reply>, sqlx::Error> {
        statements.insert(0, "START TRANSACTION".to_owned());
        self.phase = Phase::Open;
        let mut replies = self.run_all(statements).await?;
        replies.remove(0);
        Ok(replies)
    }

    /// As [`run_and_commit`](Self::run_and_commit), in as many packets as it takes.
    pub(crate) async fn run_all_and_commit(&mut self, statements: Vec<String>) -> Result<Vec<Reply>, sqlx::Error> {
        let mut packets = packets(statements);
        let last = packets.pop().unwrap_or_default();
        let mut replies = self.run_all(packets).await?;
        replies.extend(self.run_and_commit(&last).await?);
        Ok(replies)
    }

    /// Begins, runs and commits, in as few packets as it takes. One reply for each of the statements.
    pub(crate) async fn transact(&mut self, mut statements: Vec<String>) -> Result<Vec<Reply>, sqlx::Error> {
        statements.insert(0, "START TRANSACTION".to_owned());
        self.phase = Phase::Open;
        let mut replies = self.run_all_and_commit(statements).await?;
        replies.remove(0);
        Ok(replies)
    }

    /// Begins a transaction and runs these statements in it, in one round trip. One reply for each of them.
    pub(crate) async fn begin(&mut self, sql: &str) -> Result<Vec<Reply>, sqlx::Error> {
        self.phase = Phase::Open;
        let mut replies = self.run(format!("START TRANSACTION; {sql}")).await?;
        replies.remove(0);
        Ok(replies)
    }

    /// Runs these statements and commits, in one round trip. One reply for each of them.
    pub(crate) async fn run_and_commit(&mut self, sql: &str) -> Result<Vec<Reply>, sqlx::Error> {
        let sql = if sql.is_empty() { "COMMIT".to_owned() } else { format!("{sql}; COMMIT") };
        self.run_committing(sql).await
    }

    /// A whole transaction, or a statement that commits itself, in one round trip.
    pub(crate) async fn run_committing(&mut self, sql: String) -> Result<Vec<Reply>, sqlx::Error> {
        let before = std::mem::replace(&mut self.phase, Phase::Committing);
        match self.run(sql).await {
            Ok(replies) => {
                self.phase = Phase::Idle;
                Ok(replies)
            }
            Err(error) => {
                if is_refusal(&error) {
                    self.phase = if before == Phase::Idle { Phase::Open } else { before };
                }
                Err(error)
            }
        }
    }

    /// A prepared statement inside the open transaction, or one that only reads.
    pub(crate) async fn bound(&mut self, sql: String, arguments: MySqlArguments) -> Result<Reply, sqlx::Error> {
        bound_on(&mut self.raw, sql, arguments).await
    }

    /// A prepared statement that only reads, with a number for each `?`.
    pub(crate) async fn bound_numbers(&mut self, sql: String, numbers: &[i64]) -> Result<Reply, sqlx::Error> {
        let mut arguments = MySqlArguments::default();
        for number in numbers {
            add(&mut arguments, *number)?;
        }
        let sql = self.flavor.say(sql);
        self.bound(sql, arguments).await
    }

    /// A prepared statement that commits itself.
    pub(crate) async fn bound_committing(
        &mut self,
        sql: String,
        arguments: MySqlArguments,
    ) -> Result<Reply, sqlx::Error> {
        self.phase = Phase::Committing;
        match self.bound(sql, arguments).await {
            Ok(reply) => {
                self.phase = Phase::Idle;
                Ok(reply)
            }
            Err(error) => {
                if is_refusal(&error) {
                    self.phase = Phase::Open;
                }
                Err(error)
            }
        }
    }

    /// Ends whatever transaction is open without keeping it.
    pub(crate) async fn rollback(&mut self) -> Result<(), sqlx::Error> {
        if self.phase != Phase::Idle {
            self.run("ROLLBACK".to_owned()).await?;
            self.phase = Phase::Idle;
        }
        Ok(())
    }
}

/// Joins statements into packets that are not too large to be sent at once.
fn packets(statements: Vec<String>) -> Vec<String> {
    let mut packets: Vec<String> = Vec::new();
    for statement in statements {
        match packets.last_mut().filter(|packet| packet.len() + statement.len() + 2 <= PACKET_BYTES) {
            Some(packet) => {
                packet.push_str("; ");
                packet.push_str(&statement);
            }
            None => packets.push(statement),
        }
    }
    packets
}

/// Runs statements made of our own words and integers. One reply for each.
pub(crate) async fn run_on(conn: &mut MySqlConnection, sql: String) -> Result<Vec<Reply>, sqlx::Error> {
    #[cfg(test)]
    crate::doctor::recording::saw(&sql);
    let mut replies = Vec::new();
    let mut reply = Reply::default();
    let mut stream = conn.fetch_many(sqlx::raw_sql(AssertSqlSafe(sql)));
    while let Some(step) = stream.try_next().await? {
        match step {
            Either::Right(row) => reply.rows.push(row),
            Either::Left(done) => {
                reply.affected = done.rows_affected();
                reply.last_insert_id = done.last_insert_id();
                replies.push(std::mem::take(&mut reply));
            }
        }
    }
    Ok(replies)
}

/// Runs one prepared statement.
pub(crate) async fn bound_on(
    conn: &mut MySqlConnection,
    sql: String,
    arguments: MySqlArguments,
) -> Result<Reply, sqlx::Error> {
    #[cfg(test)]
    crate::doctor::recording::saw(&sql);
    let mut reply = Reply::default();
    let query = sqlx::query_with::<MySql, _>(AssertSqlSafe(sql), arguments);
    let mut stream = conn.fetch_many(query);
    while let Some(step) = stream.try_next().await? {
        match step {
            Either::Right(row) => reply.rows.push(row),
            Either::Left(done) => {
                reply.affected = done.rows_affected();
                reply.last_insert_id = done.last_insert_id();
            }
        }
    }
    Ok(reply)
}

/// How long to wait before the transaction is run again: short, and longer each time.
pub(crate) const fn repeat_delay(tries: u32) -> Duration {
    let doubled = if tries > 6 { 6 } else { tries };
    Duration::from_millis(1 << doubled)
}
