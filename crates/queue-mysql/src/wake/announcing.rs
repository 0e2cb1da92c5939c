//! The side that wakes: it looks for a connection that sleeps, and ends its sleep, in one packet.

use std::time::Duration;

use queue_core::{Due, StoreError};
use sqlx::MySqlConnection;
use tokio::runtime::{Handle, Id};
use tokio::time::{sleep, timeout};

use super::marker::{Whose, sleeper};
use super::{Wakes, trouble};
use crate::connection::run_on;
use crate::error::{Class, Told, classify, number, plain};
use crate::hosts::Seat;
use crate::inner::Inner;
use crate::server::Flavor;
use crate::sql::value;

/// How long an announcement may take.
const LIMIT: Duration = Duration::from_secs(2);
/// How long to leave the server in peace after somebody was woken.
const PAUSE: Duration = Duration::from_millis(2);
/// How long, at first and at most, when nobody sleeps: whoever works finds what there is by itself.
const PAUSE_BUSY_MIN: Duration = Duration::from_millis(5);
const PAUSE_BUSY_MAX: Duration = Duration::from_millis(80);
/// Who was just woken by another announcement sleeps again after this time.
const AGAIN: Duration = Duration::from_millis(3);
/// How long the announcement before may take to let go of [`ALONE`].
const TURN_LIMIT: &str = "0.05";
/// A lock of the server's for the look and the kill, on MariaDB only: there all sleeps share a mutex, and a kill that finds it
/// taken, by one who has just been woken, tries again for two seconds.
const ALONE: &str = "queue.wake";
/// How long whoever was woken has to let go of that mutex.
const LET_GO: Duration = Duration::from_millis(1);

/// The connection for announcements, and how they went.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    line: Option<Line>,
    failures: u32,
    /// Announcements in a row that found nobody.
    unheard: u32,
}

#[derive(Debug)]
struct Line {
    raw: MySqlConnection,
    seat: Seat,
    /// The runtime that drives it.
    runtime: Id,
    /// Where the process list is read.
    table: &'static str,
}

/// Wakes one of another process, and says when to come again.
pub(super) async fn announce(inner: &Inner, wakes: &Wakes, due: &Due) -> Duration {
    let mut announcer = wakes.announcer.lock().await;
    let whose = Whose::Others { token: &wakes.token, due };
    let tried = timeout(LIMIT, async {
        Ok(announcer.wake(inner, &whose).await? || {
            sleep(AGAIN).await;
            announcer.wake(inner, &whose).await?
        })
    });
    let why = match tried.await {
        Ok(Ok(found)) => {
            wakes.worked();
            announcer.failures = 0;
            announcer.unheard = if found { 0 } else { announcer.unheard.saturating_add(1) };
            return pause(announcer.unheard);
        }
        Ok(Err(error)) => StoreError::to_string(&error),
        Err(_) => "no answer in time".to_owned(),
    };
    announcer.line = None;
    announcer.failures += 1;
    wakes.failed("other processes cannot be woken", &why);
    trouble(announcer.failures)
}

/// How long to leave the server in peace after so many announcements in a row found nobody.
fn pause(unheard: u32) -> Duration {
    match unheard {
        0 => PAUSE,
        _ => PAUSE_BUSY_MIN.saturating_mul(1_u32.checked_shl(unheard - 1).unwrap_or(u32::MAX)).min(PAUSE_BUSY_MAX),
    }
}

/// Ends a sleep of this store's own. That it may fail does no harm: the server notices within seconds that nobody is there.
pub(super) async fn wake_own(inner: &Inner, name: &str) {
    if let Some(wakes) = &inner.wakes {
        let _ = wakes.announcer.lock().await.wake(inner, &Whose::This(name)).await;
    }
}

impl Announcer {
    /// Wakes one. `false` when nobody sleeps.
    async fn wake(&mut self, inner: &Inner, whose: &Whose<'_>) -> Result<bool, StoreError> {
        let kept = self.line.take().filter(|line| line.may_be_used(inner));
        let was_kept = kept.is_some();
        let mut line = match kept {
            Some(line) => line,
            None => Line::open(inner).await?,
        };
        let woken = match line.wake(inner.server.flavor, whose).await {
            // The server closes what lies idle for long.
            Err(error) if was_kept && classify(&error) == Class::Lost => {
                line = Line::open(inner).await?;
                line.wake(inner.server.flavor, whose).await
            }
            woken => woken,
        };
        let woken = woken.map_err(|error| StoreError::unavailable(Told(plain(&error))))?;
        self.line = Some(line);
        Ok(woken)
    }
}

impl Line {
    async fn open(inner: &Inner) -> Result<Self, StoreError> {
        let (mut raw, seat) = inner.connections.hosts().connect().await?;
        let table = table(&mut raw, inner.server.flavor).await;
        Ok(Self { raw, seat, runtime: Handle::current().id(), table })
    }

    fn may_be_used(&self, inner: &Inner) -> bool {
        self.runtime == Handle::current().id() && inner.connections.hosts().holds(self.seat)
    }

    async fn wake(&mut self, flavor: Flavor, whose: &Whose<'_>) -> Result<bool, sqlx::Error> {
        let found = sleeper(self.table, whose);
        if flavor != Flavor::MariaDb {
            return self.run(format!("SET @queue_sleeper = {found}; KILL QUERY @queue_sleeper")).await;
        }
        let woken = self
            .run(format!(
                "SET @queue_alone = GET_LOCK('{ALONE}', {TURN_LIMIT}); \
                 SET @queue_sleeper = IF(@queue_alone = 1, {found}, NULL); KILL QUERY @queue_sleeper"
            ))
            .await?;
        if woken {
            sleep(LET_GO).await;
        }
        run_on(&mut self.raw, format!("DO RELEASE_LOCK('{ALONE}')")).await?;
        Ok(woken)
    }

    async fn run(&mut self, sql: String) -> Result<bool, sqlx::Error> {
        match run_on(&mut self.raw, sql).await {
            Ok(_) => Ok(true),
            // There is no such connection: nobody was found, or it is gone.
            Err(error) if number(&error) == Some(1094) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Where the process list is read. In `performance_schema` no lock of the server's is held for that; an older or a trimmed
/// server does not have it there, and MariaDB does not show it to everybody.
async fn table(raw: &mut MySqlConnection, flavor: Flavor) -> &'static str {
    const LOCKLESS: &str = "performance_schema.processlist";
    const ANY: &str = "information_schema.processlist";
    if flavor == Flavor::MariaDb {
        return ANY;
    }
    let sql = format!("SELECT COUNT(*) FROM {LOCKLESS} WHERE ID = CONNECTION_ID() AND INFO IS NOT NULL");
    let seen = match run_on(raw, sql).await {
        Ok(replies) => replies.first().and_then(|reply| reply.rows.first()).map(|row| value::<i64>(row, 0)),
        Err(_) => None,
    };
    if matches!(seen, Some(Ok(1))) { LOCKLESS } else { ANY }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nobody_sleeps_the_server_is_left_in_peace() {
        assert_eq!([0, 1, 2, 5, 99].map(|unheard| pause(unheard).as_millis()), [2, 5, 10, 80, 80]);
    }
}
