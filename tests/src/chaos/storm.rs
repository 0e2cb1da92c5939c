//! A run: the server, the processes and their lines, the faults of the plan, and the calm in which all must end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use queue_runtime::{MySqlStore, Queue};
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use super::cast::{ACCOUNT, Actor, Cast, DATABASE, url_at};
use super::judgement::{evidence, judge, refused};
use super::plan::{Fault, Plan, Step};
use super::process::{Complaints, Order, now};
use super::report::Report;
use super::server::{Server, ServerRecipe};
use super::tables::Tables;
use super::work::LEDGER;
use crate::history::{Fact, History, Journal};
use crate::proxy::Weather;

const WORKERS: usize = 3;
const CLIS: usize = 2;
const PRODUCERS: usize = 2;
/// COMMITs that are lost for each such fault.
const COMMITS: usize = 3;
/// How long what waits may take to end, once the faults are over.
const CALM_MAX: Duration = Duration::from_secs(90);

/// All that a run needs.
#[derive(Clone, Debug)]
pub struct Storm {
    /// The server.
    pub server: ServerRecipe,
    /// The faults.
    pub plan: Plan,
    /// The program `queue_chaos`.
    pub program: PathBuf,
    /// The program `queue`.
    pub queue: PathBuf,
    /// Where histories and logs go: an empty folder.
    pub folder: PathBuf,
}

/// Runs it and checks what happened.
///
/// # Errors
///
/// When the run could not be carried out. A broken promise is no error but in the report.
pub async fn run(storm: Storm) -> Result<Report> {
    let began = now();
    let scene = Arc::new(Scene::set(storm).await?);
    scene.rage().await?;
    let scene = Arc::into_inner(scene).context("a fault is still under way")?;
    let mut report = scene.calm().await?;
    report.took = began.elapsed();
    Ok(report)
}

#[derive(Debug)]
struct Scene {
    storm: Storm,
    journal: Journal,
    server: tokio::sync::Mutex<Server>,
    workers: Vec<Actor>,
    clis: Vec<Actor>,
    producers: Vec<Actor>,
    complaints: Complaints,
    done: Mutex<BTreeMap<Fault, u64>>,
    missed: AtomicU64,
    /// The furthest that the server's clock has been ahead, in seconds.
    ahead_s: AtomicU64,
}

impl Scene {
    /// Starts everything.
    async fn set(storm: Storm) -> Result<Self> {
        let server = Server::start(storm.server.clone()).await?;
        let statements = [
            format!("DROP DATABASE IF EXISTS {DATABASE}"),
            format!("CREATE DATABASE {DATABASE}"),
            format!("CREATE USER IF NOT EXISTS '{ACCOUNT}'@'%'"),
            format!("GRANT ALL ON {DATABASE}.* TO '{ACCOUNT}'@'%'"),
            format!("USE {DATABASE}"),
            LEDGER.to_owned(),
        ];
        storm.server.administer(&statements.each_ref().map(String::as_str)).await?;
        let url = url_at(storm.server.port);
        Queue::new(MySqlStore::connect(&url).await?).migrate().await?;

        let complaints = Complaints::default();
        let journal = Journal::in_folder(&storm.folder);
        let cast = Cast { storm: &storm, complaints: &complaints, journal: &journal };
        let (mut workers, mut clis, mut producers) = (Vec::new(), Vec::new(), Vec::new());
        for number in 1..=WORKERS {
            workers.push(cast.worker(number).await?);
        }
        for number in 1..=CLIS {
            clis.push(cast.cli(number).await?);
        }
        for number in 1..=PRODUCERS {
            producers.push(cast.producer(number).await?);
        }
        Ok(Self {
            server: tokio::sync::Mutex::new(server),
            workers,
            clis,
            producers,
            complaints,
            done: Mutex::default(),
            missed: AtomicU64::new(0),
            ahead_s: AtomicU64::new(0),
            journal,
            storm,
        })
    }

    /// Carries out the plan.
    async fn rage(self: &Arc<Self>) -> Result<()> {
        let began = now();
        let mut acts = JoinSet::new();
        for step in self.storm.plan.steps.clone() {
            sleep_until(began + step.at).await;
            let scene = Arc::clone(self);
            acts.spawn(async move { scene.act(step).await });
            while let Some(act) = acts.try_join_next() {
                act??;
            }
        }
        sleep_until(began + self.storm.plan.storm).await;
        while let Some(act) = acts.join_next().await {
            act??;
        }
        Ok(())
    }

    /// One fault, from its beginning to its end. An error ends the run.
    async fn act(&self, step: Step) -> Result<()> {
        let Step { fault, lasts, target, .. } = step;
        self.journal.record(Fact::Note { text: format!("{fault} [{target}] {} ms", lasts.as_millis()) });
        let done = match fault {
            Fault::KillWorker => ordered(of(&self.workers, target), Order::Kill { away: lasts }),
            Fault::PauseWorker => ordered(of(&self.workers, target), Order::Pause { lasts }),
            Fault::StopWorker => ordered(of(&self.workers, target), Order::Stop { away: lasts }),
            Fault::KillCli => ordered(of(&self.clis, target), Order::Kill { away: lasts }),
            Fault::PauseCli => ordered(of(&self.clis, target), Order::Pause { lasts }),
            Fault::StopCli => ordered(of(&self.clis, target), Order::Stop { away: lasts }),
            Fault::KillProducer => ordered(of(&self.producers, target), Order::Kill { away: lasts }),
            Fault::Cut => {
                self.anyone(target).proxy.cut();
                true
            }
            Fault::Slow => self.weather(target, Weather::Slow(lasts / 40), lasts).await,
            Fault::HalfOpen => self.weather(target, Weather::HalfOpen, lasts).await,
            Fault::Unreachable => self.weather(target, Weather::Down, lasts).await,
            Fault::CommitBefore | Fault::CommitSent | Fault::CommitAnswered => {
                for moment in std::iter::repeat_n(fault.moment(), COMMITS).flatten() {
                    self.anyone(target).proxy.lose_commit(moment);
                }
                return Ok(()); // counted when they are lost
            }
            Fault::KillServer => {
                let mut server = self.server.lock().await;
                server.kill().await?;
                sleep(lasts).await;
                server.restart().await?;
                true
            }
            Fault::FreezeServer => {
                let server = self.server.lock().await;
                server.freeze();
                sleep(lasts).await;
                server.thaw();
                true
            }
            Fault::KillConnections => self.kill_connections(target % 2).await.is_ok(),
            Fault::ReadOnly => self.read_only(lasts).await.is_ok(),
            Fault::Snapshot => self.snapshot(lasts).await.is_ok(),
            Fault::Clock => self.move_clock(step.clock_s).is_ok(),
        };
        if done {
            *self.done.lock().unwrap_or_else(PoisonError::into_inner).entry(fault).or_default() += 1;
        } else {
            self.missed.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    fn everyone(&self) -> impl Iterator<Item = &Actor> {
        self.workers.iter().chain(&self.clis).chain(&self.producers)
    }

    fn anyone(&self, target: usize) -> &Actor {
        self.everyone().nth(target % (WORKERS + CLIS + PRODUCERS)).expect("the number is below theirs")
    }

    async fn weather(&self, target: usize, weather: Weather, lasts: Duration) -> bool {
        let proxy = &self.anyone(target).proxy;
        proxy.weather(weather);
        sleep(lasts).await;
        proxy.weather(Weather::Fine);
        true
    }

    /// Kills every other connection of the processes.
    async fn kill_connections(&self, first: usize) -> Result<()> {
        let mut admin = self.storm.server.admin().await?;
        let sql = format!("SELECT id FROM information_schema.processlist WHERE user = '{ACCOUNT}' ORDER BY id");
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut admin).await?;
        for row in rows.iter().skip(first).step_by(2) {
            let id = row.try_get::<u64, _>(0).or_else(|_| row.try_get::<i64, _>(0).map(i64::unsigned_abs))?;
            // It may have gone by itself.
            let _ = admin.execute(AssertSqlSafe(format!("KILL CONNECTION {id}"))).await;
        }
        if rows.is_empty() { bail!("nobody is connected") } else { Ok(()) }
    }

    async fn read_only(&self, lasts: Duration) -> Result<()> {
        let (on, _) = self.storm.server.read_only.as_ref().context("left out")?;
        self.storm.server.administer(&[on]).await?;
        sleep(lasts).await;
        self.writable().await
    }

    /// Makes sure that the server takes writes; after a restart it does so by itself.
    async fn writable(&self) -> Result<()> {
        let Some((_, off)) = &self.storm.server.read_only else { return Ok(()) };
        for _ in 0..100 {
            if self.storm.server.administer(&[off]).await.is_ok() {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        bail!("the server stays read-only")
    }

    /// What a backup does: reads from a snapshot and takes its time.
    async fn snapshot(&self, lasts: Duration) -> Result<()> {
        let mut admin = self.storm.server.admin().await?;
        let count = format!("SELECT COUNT(*) FROM {DATABASE}.queue_task");
        admin.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
        admin.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
        admin.execute(AssertSqlSafe(count.clone())).await?;
        sleep(lasts).await;
        // Meanwhile the server may have been killed, which ends the backup.
        let _ = admin.execute(AssertSqlSafe(count)).await;
        Ok(())
    }

    fn move_clock(&self, ahead_s: u64) -> Result<()> {
        // Said on both sides of it, because nobody can say both at once.
        let moved = Fact::ClockMoved { by_ms: i64::try_from(ahead_s * 1_000)? };
        self.journal.record(moved.clone());
        self.storm.server.move_clock(ahead_s)?;
        self.journal.record(moved);
        self.ahead_s.fetch_max(ahead_s, Ordering::SeqCst);
        Ok(())
    }

    /// Ends the faults, waits until every task has ended, stops the processes in good order, and looks at what they did.
    async fn calm(mut self) -> Result<Report> {
        for producer in &self.producers {
            producer.process.order(Order::EndNow);
        }
        for actor in self.everyone() {
            actor.proxy.calm();
        }
        self.writable().await?;
        // What was due when the clock was furthest ahead must be due now.
        self.move_clock(self.ahead_s.load(Ordering::SeqCst))?;
        for producer in &mut self.producers {
            producer.process.ended().await;
        }
        self.drained().await?;
        for worker in self.workers.iter().chain(&self.clis) {
            worker.process.order(Order::End);
        }
        for worker in self.workers.iter_mut().chain(&mut self.clis) {
            worker.process.ended().await;
        }
        self.report().await
    }

    /// Waits until every task has ended, or for so long that those which have not are lost.
    async fn drained(&self) -> Result<()> {
        let mut admin = self.storm.server.admin().await?;
        let sql = format!("SELECT COUNT(*) FROM {DATABASE}.queue_task WHERE status IN (0, 1)");
        let began = now();
        let mut quiet = 0;
        // Twice, because a producer's last write may still be on its way when it is killed.
        while quiet < 2 && began.elapsed() < CALM_MAX {
            let row = sqlx::query(AssertSqlSafe(sql.clone())).fetch_one(&mut admin).await?;
            quiet = if row.try_get::<i64, _>(0)? == 0 { quiet + 1 } else { 0 };
            sleep(Duration::from_millis(300)).await;
        }
        Ok(())
    }

    async fn report(self) -> Result<Report> {
        let mut admin = self.storm.server.admin().await?;
        admin.execute(AssertSqlSafe(format!("USE {DATABASE}"))).await?;
        let tables = Tables::read(&mut admin).await?;
        let history = History::read(&self.storm.folder);
        let (native, exec) = judge(&history, &tables);
        let mut faults = self.done.into_inner().unwrap_or_else(PoisonError::into_inner);
        for actor in self.workers.iter().chain(&self.clis).chain(&self.producers) {
            let moments = [Fault::CommitBefore, Fault::CommitSent, Fault::CommitAnswered];
            for (fault, count) in moments.into_iter().zip(actor.proxy.lost_commits()) {
                *faults.entry(fault).or_default() += count;
            }
        }
        let mut complaints = std::mem::take(&mut *self.complaints.lock().unwrap_or_else(PoisonError::into_inner));
        complaints.extend(tables.wrong(&refused(&history)));
        let tally = native.tally.plus(exec.tally);
        let violations: Vec<_> = native.violations.into_iter().chain(exec.violations).chain(tables.twice()).collect();
        let suspects: BTreeSet<_> = violations.iter().flat_map(|violation| violation.tasks()).take(3).collect();
        let attempts: u64 = tables.tasks.iter().map(|task| task.attempts.len() as u64).sum();
        let version: String = sqlx::query_scalar("SELECT VERSION()").fetch_one(&mut admin).await?;
        Ok(Report {
            server: format!("{} {version}", self.storm.server.name),
            seed: self.storm.plan.seed,
            took: Duration::ZERO,
            faults,
            left_out: self.storm.server.left_out(),
            missed: self.missed.into_inner(),
            tally,
            tasks: tables.tasks.len() as u64,
            lost_attempts: tables.lost_attempts,
            failed_attempts: attempts - tables.lost_attempts,
            refunds: tables.refunds(),
            effects: tables.ledger.values().sum(),
            violations,
            complaints,
            evidence: evidence(&history, &suspects),
        })
    }
}

fn of(actors: &[Actor], target: usize) -> &Actor {
    &actors[target % actors.len()]
}

fn ordered(actor: &Actor, order: Order) -> bool {
    actor.process.order(order);
    true
}
