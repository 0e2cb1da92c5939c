//! The servers that the URL names, and which of them is the one to write to.
//!
//! One host is taken as it is. Of several, each new connection asks whether its server takes writes (see
//! [`standing`](crate::standing)); when the one that did no longer does, all are asked at once. Whatever points to a move (a refused
//! write, a call without an answer) ends the *epoch*: connections that were opened in it are not used again, idle ones of
//! other runtimes included, because a replica goes on answering reads.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use queue_core::StoreError;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{ConnectOptions as _, Error, MySqlConnection};
use tokio::runtime::{Handle, Id};
use tokio::time::{sleep, timeout};

use crate::connection::{run_on, settings};
use crate::error::{Class, Told, classify, plain, to_store_error};
use crate::inner::lock;
use crate::options::MySqlOptions;
use crate::server::Flavor;
use crate::standing::{ALSO_TAKES, MEMBERS, Member, Standing, VARIABLES, Verdict, WAIT_FOR_BACKLOG, choose};
use crate::url::{Host, Target};

/// How long the host that was the right one may take to answer before the others are asked as well.
const CURRENT_LIMIT: Duration = Duration::from_secs(1);
/// How long each host may take when all are asked.
const SEARCH_LIMIT: Duration = Duration::from_secs(2);
/// How long the others are waited for once one says that it takes writes.
const GRACE: Duration = Duration::from_millis(300);
/// How often it is looked, during a call that takes long, whether the place to write to has moved.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Which server a connection leads to, and since when it is thought to be the right one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seat {
    host: usize,
    epoch: u64,
    /// Counts the servers that were found one after another.
    pub(crate) server: u64,
}

/// What is known of where to write to.
#[derive(Debug, Default)]
struct Current {
    host: Option<usize>,
    epoch: u64,
    /// The mark of the server that was found last, and how many there were before it.
    server_id: String,
    server: u64,
    /// How many searches failed, and how the last one did.
    failed: u64,
    failure: Vec<Said>,
}

impl Current {
    const fn whereabouts(&self) -> (Option<usize>, u64) {
        (self.host, self.epoch)
    }
}

/// The servers.
pub(crate) struct Hosts {
    target: Target,
    options: MySqlOptions,
    /// What the store began on.
    flavor: OnceLock<Flavor>,
    /// Whether the only host is a member of a replication group.
    only_in_group: AtomicBool,
    current: Mutex<Current>,
    /// One search at a time in each runtime: one that the heartbeat needs must not wait for a runtime that is starved.
    searching: Mutex<HashMap<Id, Arc<tokio::sync::Mutex<()>>>>,
}

/// Why a host is not the one.
#[derive(Clone, Debug)]
struct Said {
    host: usize,
    kind: Kind,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It cannot be reached.
    Absent,
    /// It did not answer in time: it may be busy, or gone.
    Silent,
    Denied,
    NoDatabase,
    Unsupported,
    /// It takes no writes, or not now.
    Not,
}

/// A host that answered.
struct Asked {
    host: usize,
    raw: MySqlConnection,
    standing: Standing,
}

impl Hosts {
    pub(crate) fn new(target: Target, options: MySqlOptions) -> Self {
        Self {
            target,
            options,
            flavor: OnceLock::new(),
            only_in_group: AtomicBool::new(false),
            current: Mutex::default(),
            searching: Mutex::default(),
        }
    }

    /// The servers and the database, for errors.
    pub(crate) fn place(&self) -> &str {
        &self.target.shown
    }

    pub(crate) const fn are_several(&self) -> bool {
        self.target.hosts.len() > 1
    }

    /// The store began on this kind of server, and stays with it.
    pub(crate) fn settle_on(&self, flavor: Flavor, standing: &Standing) {
        let _ = self.flavor.set(flavor); // it is set once, before there is another caller
        self.only_in_group.store(standing.group.is_some(), Ordering::Relaxed);
    }

    /// Whether a connection that was opened then may still be used.
    pub(crate) fn holds(&self, seat: Seat) -> bool {
        self.current().epoch == seat.epoch
    }

    /// Something says that the server of this seat is not the one to write to any more.
    pub(crate) fn doubt(&self, seat: Seat) {
        let mut current = self.current();
        if current.epoch == seat.epoch && self.are_several() {
            current.epoch += 1;
            current.host = None;
        }
    }

    /// A new connection to the server that takes writes.
    pub(crate) async fn connect(&self) -> Result<(MySqlConnection, Seat), StoreError> {
        if !self.are_several() {
            return Ok((self.connect_to_only().await?, Seat::default()));
        }
        let before = self.current().whereabouts();
        if let Some(opened) = self.connect_to_current().await {
            return Ok(opened);
        }
        let failed = self.current().failed;
        let lock = Arc::clone(lock(&self.searching).entry(Handle::current().id()).or_default());
        let _alone = lock.lock().await;
        if self.current().whereabouts() != before
            && let Some(opened) = self.connect_to_current().await
        {
            return Ok(opened); // another task's search ended well
        }
        let failure = {
            let current = self.current();
            (current.failed > failed).then(|| current.failure.clone())
        };
        if let Some(said) = failure {
            return Err(self.nobody(&said)); // it failed just now
        }
        match self.search().await {
            Ok(asked) => Ok(self.take_place(asked)),
            Err(said) => {
                let error = self.nobody(&said);
                let mut current = self.current();
                current.failed += 1;
                current.failure = said;
                Err(error)
            }
        }
    }

    /// Ends when another host than that of this seat was found to be the one to write to.
    pub(crate) async fn moved(&self, seat: Seat) {
        loop {
            sleep(WATCH_EVERY).await;
            let lock = Arc::clone(lock(&self.searching).entry(Handle::current().id()).or_default());
            let _alone = lock.lock().await;
            let known = self.current().host;
            let host = match known {
                Some(host) if !self.holds(seat) => Some(host),
                // Where it is well it has not moved, though another name of the same server may answer sooner.
                _ => match self.connect_to_current().await {
                    Some((_, here)) => Some(here.host),
                    None => self.search().await.ok().map(|asked| self.take_place(asked).1.host),
                },
            };
            if host.is_some_and(|host| host != seat.host) {
                return;
            }
        }
    }

    async fn connect_to_only(&self) -> Result<MySqlConnection, StoreError> {
        let Some(host) = self.target.hosts.first() else { return Err(StoreError::other("the URL names no host")) };
        let opened = timeout(self.options.connect_timeout, async {
            let mut raw = self.login(host).connect().await?;
            run_on(&mut raw, self.settings()).await?;
            if self.only_in_group.load(Ordering::Relaxed) {
                run_on(&mut raw, WAIT_FOR_BACKLOG.to_owned()).await?;
            }
            Ok(raw)
        });
        match opened.await {
            Ok(Ok(raw)) => Ok(raw),
            Ok(Err(error)) => Err(to_store_error(&error, false, self.place())),
            Err(_) => {
                Err(StoreError::unavailable(Told(format!("{}: no connection within the time for it", self.place()))))
            }
        }
    }

    /// A connection to the host that was the right one last, if it still is.
    async fn connect_to_current(&self) -> Option<(MySqlConnection, Seat)> {
        let (host, epoch) = {
            let current = self.current();
            (current.host?, current.epoch)
        };
        let asked = match self.ask(host, CURRENT_LIMIT).await {
            Ok(asked) if matches!(asked.standing.verdict(self.flavor()), Verdict::Takes) => asked,
            // What is only slow keeps its connections; the search decides.
            Err(said) if said.kind == Kind::Silent => return None,
            _ => {
                self.doubt(Seat { epoch, ..Seat::default() });
                return None;
            }
        };
        Some(self.take_place(asked))
    }

    /// Notes that the write place is there.
    fn take_place(&self, asked: Asked) -> (MySqlConnection, Seat) {
        let Asked { host, raw, standing } = asked;
        let mut current = self.current();
        let moved = current.server_id != standing.id;
        if current.host.is_some_and(|known| known != host) {
            current.epoch += 1;
        }
        if moved {
            if !current.server_id.is_empty() {
                current.server += 1;
                tracing::warn!(host = self.target.hosts[host].place, "another server takes the writes now");
            }
            current.server_id = standing.id;
        }
        current.host = Some(host);
        (raw, Seat { host, epoch: current.epoch, server: current.server })
    }

    /// Asks all hosts at once. The order in which the URL names them does not matter, and a dead one holds nothing up.
    async fn search(&self) -> Result<Asked, Vec<Said>> {
        let limit = SEARCH_LIMIT.min(self.options.connect_timeout);
        let mut asking: FuturesUnordered<_> = (0..self.target.hosts.len()).map(|host| self.ask(host, limit)).collect();
        let (mut takes, mut others, mut said) = (Vec::<Asked>::new(), Vec::<Standing>::new(), Vec::new());
        let mut grace = None;
        loop {
            let over = async {
                match grace.as_mut() {
                    Some(grace) => std::pin::Pin::new(grace).await,
                    None => std::future::pending().await,
                }
            };
            let answer = tokio::select! {
                biased;
                answer = asking.next() => answer,
                () = over => None,
            };
            match answer {
                None => break,
                Some(Err(refusal)) => said.push(refusal),
                Some(Ok(asked)) => match asked.standing.verdict(self.flavor()) {
                    Verdict::Takes => {
                        grace.get_or_insert_with(|| Box::pin(sleep(GRACE)));
                        takes.push(asked);
                    }
                    Verdict::Not(text) => {
                        said.push(Said { host: asked.host, kind: Kind::Not, text });
                        others.push(asked.standing);
                    }
                    Verdict::Unusable(error) => {
                        said.push(Said { host: asked.host, kind: Kind::Unsupported, text: error.to_string() });
                    }
                },
            }
        }
        drop(asking);
        let standings: Vec<&Standing> = takes.iter().map(|asked| &asked.standing).collect();
        let all: Vec<&Standing> = standings.iter().copied().chain(&others).collect();
        match choose(&standings, &all) {
            Some(index) => Ok(takes.swap_remove(index)),
            None => {
                said.extend(takes.iter().map(|asked| Said {
                    host: asked.host,
                    kind: Kind::Not,
                    text: ALSO_TAKES.to_owned(),
                }));
                Err(said)
            }
        }
    }

    /// Connects to one host and asks what it is.
    async fn ask(&self, host: usize, limit: Duration) -> Result<Asked, Said> {
        let options = self.login(&self.target.hosts[host]);
        let asking = timeout(limit, async {
            let mut raw = options.connect().await?;
            let replies = run_on(&mut raw, format!("{}; {VARIABLES}", self.settings())).await?;
            let mut standing = Standing::of(replies.last().map_or(&[][..], |reply| reply.rows.as_slice()))?;
            if standing.group.is_some() {
                let mut replies = run_on(&mut raw, MEMBERS.to_owned()).await?;
                let rows = replies.pop().unwrap_or_default().rows;
                standing.members = rows.iter().map(Member::of).collect::<Result<_, Error>>()?;
                if matches!(standing.verdict(self.flavor()), Verdict::Takes) {
                    run_on(&mut raw, WAIT_FOR_BACKLOG.to_owned()).await?;
                }
            }
            Ok::<_, Error>(Asked { host, raw, standing })
        });
        match asking.await {
            Ok(Ok(asked)) => Ok(asked),
            Ok(Err(error)) => {
                let (kind, text) = refusal(&error);
                Err(Said { host, kind, text })
            }
            Err(_) => Err(Said { host, kind: Kind::Silent, text: format!("no answer within {} s", limit.as_secs()) }),
        }
    }

    /// The error when no host takes writes: what each of them said, in one line.
    fn nobody(&self, said: &[Said]) -> StoreError {
        let mut said: Vec<_> = said.iter().collect();
        said.sort_by_key(|one| one.host);
        let each = said.iter().map(|one| {
            let place = &self.target.hosts[one.host].place;
            let colon = if one.kind == Kind::Not { "" } else { ":" };
            format!("{place}{colon} {}", one.text)
        });
        let told = format!("{}: none of its hosts takes writes: {}", self.place(), each.collect::<Vec<_>>().join("; "));
        // What a person must see to is told as such only where every host that answers says the same.
        let mut kinds: Vec<_> = said.iter().map(|one| one.kind).collect();
        kinds.retain(|kind| !matches!(kind, Kind::Absent | Kind::Silent));
        kinds.dedup();
        match kinds[..] {
            [Kind::Denied] => StoreError::denied(Told(told)),
            [Kind::NoDatabase] => StoreError::other(Told(told)),
            [Kind::Unsupported] => StoreError::Unsupported { reason: told },
            _ => StoreError::unavailable(Told(told)),
        }
    }

    /// The kind of server, once the first connection has told.
    pub(crate) fn flavor(&self) -> Option<Flavor> {
        self.flavor.get().copied()
    }

    /// What is run on each new connection.
    fn settings(&self) -> String {
        settings(&self.options, self.flavor().unwrap_or_default())
    }

    fn login(&self, host: &Host) -> MySqlConnectOptions {
        let login = host.options.clone().disable_statement_logging();
        match self.flavor().and_then(Flavor::statements_max) {
            Some(statements) => login.statement_cache_capacity(statements),
            None => login,
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        lock(&self.current)
    }
}

/// An error of asking, in few words.
fn refusal(error: &Error) -> (Kind, String) {
    if let Some(1142) = crate::error::number(error) {
        let grant = "may not see its replication group (GRANT SELECT ON performance_schema.replication_group_members)";
        return (Kind::Denied, grant.to_owned());
    }
    let kind = match classify(error) {
        Class::Denied => Kind::Denied,
        Class::NoDatabase => Kind::NoDatabase,
        _ => Kind::Absent,
    };
    let text = match error {
        Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => plain(error),
    };
    (kind, text)
}
