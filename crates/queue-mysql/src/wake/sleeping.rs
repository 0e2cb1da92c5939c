//! The side that is woken: a connection that sleeps on the server until somebody ends its sleep.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use queue_core::{Scope, StoreError};
use sqlx::Connection as _;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::{Bed, Wakes, announcing, marker, trouble};
use crate::connection::{Reply, run_on};
use crate::error::{number, plain};
use crate::inner::{Inner, lock};
use crate::server::Flavor;
use crate::sql::value;

/// How long a connection sleeps at a time. What lies between must not take it for idle.
const SLEEP: Duration = Duration::from_secs(25);
/// How much later than that the answer may come.
const LATE: Duration = Duration::from_secs(10);
/// The shortest time between two sleeps that nobody ended, should the server not let us sleep.
const SLEEP_MIN: Duration = Duration::from_secs(1);
/// How often a sleeper looks whether the server is still the one to write to.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// How long ending a sleep in good order may take.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// How a sleep ended.
enum Woken {
    /// Somebody ended it.
    Called(Bed),
    /// Nobody did.
    Alone(Bed),
    /// The writes go elsewhere now.
    Moved,
    /// Nobody listens any more.
    Left,
    /// The connection is lost, or the server does not let us sleep.
    Failed(String),
}

/// Sleeps, again and again, until it is woken, or nobody listens.
pub(super) async fn sleep_until_woken(inner: Arc<Inner>, scope: Scope, mut tell: oneshot::Sender<()>) {
    let Some(wakes) = &inner.wakes else { return };
    let mut failures = 0;
    loop {
        let kept = wakes.keep_bed(&inner, None);
        let was_kept = kept.is_some();
        let bed = match kept {
            Some(bed) => Ok(bed),
            None => tokio::select! {
                biased;
                () = tell.closed() => return,
                made = make_bed(&inner) => made,
            },
        };
        let woken = match bed {
            Ok(bed) => sleep_once(&inner, wakes, &scope, bed, &mut tell).await,
            Err(error) => Woken::Failed(error.to_string()),
        };
        match woken {
            Woken::Called(bed) => {
                wakes.worked();
                wakes.keep_bed(&inner, Some(bed));
                let _ = tell.send(()); // a wake-up that nobody hears is lost
                return;
            }
            Woken::Alone(bed) => {
                failures = 0;
                wakes.keep_bed(&inner, Some(bed));
            }
            Woken::Moved => {}
            Woken::Left => return,
            // The server closes what lies idle for long.
            Woken::Failed(_) if was_kept => {}
            Woken::Failed(why) => {
                failures += 1;
                wakes.failed("no other process can wake this one", &why);
                tokio::select! {
                    biased;
                    () = tell.closed() => return,
                    () = sleep(trouble(failures)) => {}
                }
            }
        }
    }
}

/// A new connection to sleep on.
async fn make_bed(inner: &Inner) -> Result<Bed, StoreError> {
    let hosts = inner.connections.hosts();
    let (mut raw, seat) = hosts.connect().await?;
    // A limit for all statements is not meant for this one.
    let unlimited = match inner.server.flavor {
        Flavor::MariaDb => "SET SESSION max_statement_time = 0",
        Flavor::MySql | Flavor::OceanBase => "SET SESSION max_execution_time = 0",
    };
    let set = timeout(inner.options.connect_timeout, run_on(&mut raw, unlimited.to_owned()));
    match set.await {
        Ok(Ok(_)) => Ok(Bed { raw, seat }),
        Ok(Err(error)) => Err(StoreError::unavailable(crate::error::Told(plain(&error)))),
        Err(_) => Err(StoreError::unavailable("no answer")),
    }
}

async fn sleep_once(
    inner: &Arc<Inner>,
    wakes: &Wakes,
    scope: &Scope,
    mut bed: Bed,
    tell: &mut oneshot::Sender<()>,
) -> Woken {
    let name = format!("{}.{}", wakes.token, wakes.sleeps.fetch_add(1, Ordering::Relaxed));
    let hosts = inner.connections.hosts();
    let seat = bed.seat;
    let moved = async {
        while hosts.holds(seat) {
            sleep(WATCH_EVERY).await;
        }
    };
    let mut least = pin!(sleep(SLEEP_MIN));
    let mut rested = false;
    let ended = {
        let mut asleep = pin!(timeout(SLEEP + LATE, run_on(&mut bed.raw, marker::sleep(&name, scope, SLEEP))));
        let mut moved = pin!(moved);
        loop {
            tokio::select! {
                biased;
                ended = asleep.as_mut() => break Some(ended),
                () = tell.closed() => {
                    let leaving = async {
                        announcing::wake_own(inner, &name).await;
                        let _ = asleep.as_mut().await;
                    };
                    let _ = timeout(LEAVE_LIMIT, leaving).await;
                    break None;
                }
                () = moved.as_mut() => return Woken::Moved,
                () = least.as_mut(), if !rested => rested = true,
            }
        }
    };
    let Some(ended) = ended else {
        let _ = timeout(LEAVE_LIMIT, bed.raw.close()).await;
        return Woken::Left;
    };
    match ended.map(|ended| ended.map(|replies| was_called(&replies))) {
        Ok(Ok(true)) => Woken::Called(bed),
        // MariaDB's word for it.
        Ok(Err(error)) if number(&error) == Some(1317) => Woken::Called(bed),
        Ok(Ok(false)) => {
            if !rested {
                tokio::select! {
                    () = tell.closed() => {}
                    () = least => {}
                }
            }
            Woken::Alone(bed)
        }
        Ok(Err(error)) => Woken::Failed(plain(&error)),
        Err(_) => Woken::Failed("a sleep did not end".to_owned()),
    }
}

/// Whether the sleep was cut short.
fn was_called(replies: &[Reply]) -> bool {
    let row = replies.first().and_then(|reply| reply.rows.first());
    row.is_some_and(|row| matches!(value::<i64>(row, 0), Ok(1)))
}

impl Wakes {
    /// Keeps a bed for the next sleep; or, without one, takes one that was kept.
    fn keep_bed(&self, inner: &Inner, bed: Option<Bed>) -> Option<Bed> {
        let mut beds = lock(&self.beds);
        let own = beds.entry(Handle::current().id()).or_default();
        if let Some(bed) = bed {
            own.push(bed);
            return None;
        }
        own.retain(|bed| inner.connections.hosts().holds(bed.seat));
        own.pop()
    }
}
