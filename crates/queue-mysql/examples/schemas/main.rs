//! Measures shapes of the schema against one another: our tables with our statements and nothing around them, and variants of both.
//!
//! ```text
//! cargo run --release -p queue-mysql --example schemas -- --database-url mysql://app:secret@127.0.0.1:3306 \
//!     --variant ours,four-trips,ticket,ticket+finished-none --tasks 40000 --payload 100 --connections 4 --batch 250 --rounds 3
//! ```
//!
//! A variant is words with `+` between them ([`Variant`]); the first one named is what the others are compared with. In each round
//! all of them run, each on fresh tables in a database of its own, the next round beginning with another one. The table shows the
//! median of the rounds, and the median, least and greatest of the ratios within a round.

mod drain;
mod server;
mod sql;
mod tables;
mod variant;

use std::error::Error;

use drain::{Load, Outcome, run};
use server::Server;
use variant::{Variant, WORDS};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

#[derive(Debug)]
struct Asked {
    url: String,
    variants: Vec<Variant>,
    rounds: usize,
    load: Load,
}

impl Asked {
    /// `None` when help is asked for.
    fn read(mut words: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let load = Load { tasks: 40_000, payload: 100, connections: 4, batch: 250, producers: 0, snapshot: false };
        let mut asked = Self { url: String::new(), variants: Vec::new(), rounds: 3, load };
        while let Some(word) = words.next() {
            if word == "--help" {
                return Ok(None);
            }
            if word == "--snapshot" {
                asked.load.snapshot = true;
                continue;
            }
            let value = words.next().ok_or_else(|| format!("{word} takes a value"))?;
            match word.as_str() {
                "--database-url" => asked.url = value,
                "--variant" => asked.variants = value.split(',').map(Variant::parse).collect::<Result<_>>()?,
                "--tasks" => asked.load.tasks = value.parse()?,
                "--payload" => asked.load.payload = value.parse()?,
                "--connections" => asked.load.connections = value.parse()?,
                "--batch" => asked.load.batch = value.parse()?,
                "--producers" => asked.load.producers = value.parse()?,
                "--rounds" => asked.rounds = value.parse()?,
                _ => return Err(format!("{word} is not known; see --help").into()),
            }
        }
        if asked.url.is_empty() || asked.variants.is_empty() {
            return Err("--database-url and --variant are needed; see --help".into());
        }
        Ok(Some(asked))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let Some(asked) = Asked::read(std::env::args().skip(1))? else {
        println!(
            "--database-url URL --variant A,B+C [--tasks N] [--payload BYTES] [--connections N] [--batch N] [--producers N] \
             [--snapshot] [--rounds N]\n\nWords of a variant:"
        );
        for (word, what) in WORDS {
            println!("  {word:14} {what}");
        }
        return Ok(());
    };
    let server = Server::find(&asked.url).await?;
    let Load { tasks, payload, connections, batch, producers, snapshot } = asked.load;
    println!(
        "{}: {tasks} tasks of {payload} bytes, {connections} x {batch} in flight, {producers} producers beside, snapshot held: \
         {snapshot}",
        server.version
    );
    let mut outcomes: Vec<Vec<Outcome>> = vec![Vec::new(); asked.variants.len()];
    for round in 0..asked.rounds {
        for turn in 0..asked.variants.len() {
            let which = (round + turn) % asked.variants.len();
            let outcome = run(&server, &asked.variants[which], asked.load).await;
            server.drop_database().await?;
            outcomes[which].push(outcome.map_err(|error| format!("{}: {error}", asked.variants[which].name))?);
        }
    }
    show(&asked.variants, &outcomes);
    Ok(())
}

fn show(variants: &[Variant], outcomes: &[Vec<Outcome>]) {
    println!(
        "{:40} {:>8} {:>6} {:>13} {:>8} {:>8} {:>8} {:>7}",
        "variant", "tasks/s", "ratio", "least..most", "fill/s", "binlog B", "MB", "repeats"
    );
    let base = &outcomes[0];
    for (variant, own) in variants.iter().zip(outcomes) {
        let ratios: Vec<f64> = own.iter().zip(base).map(|(own, base)| own.drained / base.drained).collect();
        let (least, most) =
            (ratios.iter().copied().fold(f64::MAX, f64::min), ratios.iter().copied().fold(0.0, f64::max));
        println!(
            "{:40} {:>8.0} {:>6.2} {:>6.2}..{:<5.2} {:>8.0} {:>8} {:>8.1} {:>7}",
            variant.name,
            median(own.iter().map(|one| one.drained)),
            median(ratios),
            least,
            most,
            median(own.iter().map(|one| one.filled)),
            own[0].binlog.map_or("-".to_owned(), |_| format!("{:.0}", median(own.iter().filter_map(|one| one.binlog)))),
            median(own.iter().map(|one| one.megabytes)),
            own.iter().map(|one| one.repeats).sum::<usize>(),
        );
    }
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
