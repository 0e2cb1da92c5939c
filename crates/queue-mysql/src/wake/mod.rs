//! Processes that wake each other, without a right or a table of their own: an idle pool keeps a connection that sleeps on the
//! server, and a process that has enqueued something ends such a sleep with `KILL QUERY`.
//!
//! * A sleeping connection runs nothing but sleeps, ever, so that a kill that comes too late ends the next sleep at worst. Its
//!   statement says in a comment whose it is and what it waits for.
//! * Who is to be woken is looked up in the process list and killed in one packet, on one connection to one server: no id is
//!   ever kept, so none can be of a connection that has ended, or of another server behind a proxy. Only a statement that
//!   sleeps, carries our mark, and is of the same account and database, is ever killed.
//! * One is woken at a time, at random: no herd comes running. A pool that finds more than it can take announces that.
//! * Whatever fails is told once and tried again ever more rarely. The pool polls meanwhile, as it does without all of this.
//!
//! These statements are in no catalogue of the doctor's: they touch no table.

mod announcing;
mod marker;
mod sleeping;

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use queue_core::{Due, Scope, WakeChannel};
use sqlx::MySqlConnection;
use tokio::runtime::Id;
use tokio::sync::oneshot;

use self::announcing::Announcer;
use crate::hosts::Seat;
use crate::inner::Inner;
use crate::server::Flavor;

/// The first wait after something failed, and the longest; it doubles in between.
const TROUBLE_MIN: Duration = Duration::from_secs(1);
const TROUBLE_MAX: Duration = Duration::from_secs(60);

/// What a store keeps for it.
#[derive(Debug)]
pub(crate) struct Wakes {
    /// Random, so that it tells this store's sleepers from all others.
    token: String,
    /// Counts this store's sleeps.
    sleeps: AtomicU64,
    /// Connections for sleeping that do not sleep now, by the runtime that drives them.
    beds: Mutex<HashMap<Id, Vec<Bed>>>,
    announcer: tokio::sync::Mutex<Announcer>,
    /// Whether it is known, and was told, that it does not work.
    troubled: AtomicBool,
}

/// A connection that only ever sleeps.
#[derive(Debug)]
struct Bed {
    raw: MySqlConnection,
    seat: Seat,
}

impl Wakes {
    /// A channel, where servers of this kind can have one.
    pub(crate) fn on(flavor: Flavor) -> Option<Self> {
        if flavor == Flavor::OceanBase {
            tracing::warn!("processes cannot wake each other on OceanBase; they poll");
            return None;
        }
        Some(Self {
            token: format!("{:016x}", RandomState::new().hash_one(std::process::id())),
            sleeps: AtomicU64::new(0),
            beds: Mutex::default(),
            announcer: tokio::sync::Mutex::default(),
            troubled: AtomicBool::new(false),
        })
    }

    /// It does not work. Told once, until it does again.
    fn failed(&self, what: &str, why: &str) {
        if self.troubled.swap(true, Ordering::Relaxed) {
            tracing::debug!(why, "{what}");
        } else {
            tracing::warn!(why, "{what}; polling goes on");
        }
    }

    /// It works.
    fn worked(&self) {
        if self.troubled.swap(false, Ordering::Relaxed) {
            tracing::info!("processes wake each other again");
        }
    }
}

/// How long to wait after so many failures in a row.
fn trouble(failures: u32) -> Duration {
    TROUBLE_MIN.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(TROUBLE_MAX)
}

/// The channel of a store.
#[derive(Debug)]
pub(crate) struct Channel(pub(crate) Arc<Inner>);

#[async_trait]
impl WakeChannel for Channel {
    async fn announce(&self, due: &Due) -> Duration {
        match &self.0.wakes {
            Some(wakes) => announcing::announce(&self.0, wakes, due).await,
            None => TROUBLE_MAX,
        }
    }

    async fn listen(&self, scope: &Scope) {
        let (tell, told) = oneshot::channel();
        // In a task of its own, which ends the sleep in good order when nobody listens any more.
        tokio::spawn(sleeping::sleep_until_woken(Arc::clone(&self.0), scope.clone(), tell));
        if told.await.is_err() {
            std::future::pending().await // the runtime ends, and so does whoever waits
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_met_calmly() {
        assert_eq!([1, 2, 6, 7, 99].map(|failures| trouble(failures).as_secs()), [1, 2, 32, 60, 60]);
    }

    #[test]
    fn there_is_none_on_oceanbase() {
        assert!(Wakes::on(Flavor::OceanBase).is_none());
        let wakes = Wakes::on(Flavor::MySql).unwrap();
        assert!(wakes.token.len() == 16 && wakes.token != Wakes::on(Flavor::MariaDb).unwrap().token);
    }
}
