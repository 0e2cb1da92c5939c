//! How near the store comes to bare SQLite: the same rows written to the same tables with the same durability, once by hand with
//! rusqlite and once through the port, in turn.
//! `cargo run --release -p queue-sqlite --example floor -- [TASKS] [ROUNDS] [PAYLOAD_BYTES BATCH]`
//!
//! The files are made in the folder for temporary files (`TMPDIR`), which should be on a disk.

mod bare;
mod ours;

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use queue_core::Migrate as _;
use queue_sqlite::SqliteStore;
use queue_sqlite::rusqlite::Connection;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) tasks: usize,
    pub(crate) payload_bytes: usize,
    /// Tasks that are enqueued, claimed and settled at a time.
    pub(crate) batch: usize,
}

impl Load {
    /// A payload: JSON, like most.
    pub(crate) fn payload(&self) -> String {
        format!("\"{}\"", "x".repeat(self.payload_bytes - 2))
    }
}

/// Tasks a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub(crate) enqueue: f64,
    pub(crate) drain: f64,
}

/// The clock that both are measured with.
pub(crate) struct Watch(Instant);

impl Watch {
    #[expect(clippy::disallowed_methods, reason = "a measurement needs a clock, and decides nothing")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// How many a second so many were.
    pub(crate) fn rate(&self, tasks: usize) -> f64 {
        tasks as f64 / self.0.elapsed().as_secs_f64()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let tasks = args.next().map_or(Ok(50_000), |text| text.parse::<usize>())?;
    let rounds = args.next().map_or(Ok(3), |text| text.parse::<usize>())?;
    let only = args.map(|text| text.parse::<usize>()).collect::<Result<Vec<_>, _>>()?;
    let loads = match only[..] {
        [] => vec![(100, 250), (100, 64), (4096, 250), (4096, 64)],
        [payload_bytes, batch] => vec![(payload_bytes, batch)],
        _ => return Err("a payload size goes with a batch size".into()),
    };
    println!(
        "payload  batch            bare SQLite             store   ratio of the medians   (tasks a second; {rounds} rounds)"
    );
    for (payload_bytes, batch) in loads {
        let load = Load { tasks: (tasks / batch).max(1) * batch, payload_bytes, batch };
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..rounds.max(1) {
            bare.push(measure(Kind::Bare, load).await?);
            ours.push(measure(Kind::Ours, load).await?);
        }
        for (name, of) in [("enqueue", (|rates| rates.enqueue) as fn(&Rates) -> f64), ("drain", |rates| rates.drain)] {
            let (bare, ours) = (median(&bare, of), median(&ours, of));
            println!("{payload_bytes:5} B  {batch:5}  {name:8} {bare:12.0} {ours:17.0} {:22.2}", ours / bare);
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Bare,
    Ours,
}

/// One run on a new file.
async fn measure(kind: Kind, load: Load) -> Result<Rates, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = migrated(folder.path()).await?;
    let rates = match kind {
        Kind::Bare => bare::run(&path, load)?,
        Kind::Ours => ours::run(&path, load).await?,
    };
    let ended: i64 =
        Connection::open(&path)?
            .query_row("SELECT count(*) FROM queue_finished WHERE status = 2", [], |row| row.get(0))?;
    assert_eq!(usize::try_from(ended)?, load.tasks, "every task is completed, whoever did it");
    Ok(rates)
}

/// A file with the schema in it, the same for both.
async fn migrated(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let path = folder.join("queue.db");
    SqliteStore::open(&path).await?.migrate().await?;
    Ok(path)
}

fn median(rates: &[Rates], of: fn(&Rates) -> f64) -> f64 {
    let mut sorted = rates.iter().map(of).collect::<Vec<_>>();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
