//! The store: every call becomes an operation that runs to its end in a task of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use queue_core::claim::Resolved;
use queue_core::ids::IdBlock;
use queue_core::progress::ProgressUpdate;
use queue_core::reap::{FencedSession, Lost, StoreTime, Swept};
use queue_core::session::{Renewal, SessionSpec};
use queue_core::store::{SchemaStatus, Trip};
use queue_core::{
    ClaimId, ClaimReply, ClaimRequest, Enqueued, Migrate, NewTask, Scope, SessionId, Settle, Settled, StoreError,
    StoreLimits, TaskId, TaskResult, TaskStore, Transactional, WakeChannel,
};
use sqlx::MySqlConnection;

use crate::connection::{Conn, Connections, rows_of};
use crate::doctor::Settings;
use crate::enqueue::{self, Enqueue, ReserveIds};
use crate::error::Failure;
use crate::inner::{Inner, missing};
use crate::operation::Operation;
use crate::options::MySqlOptions;
use crate::server::Server;
use crate::sql::value;
use crate::standing::{Standing, VARIABLES};
use crate::url::Target;
use crate::wake::{Channel, Wakes};
use crate::{busy, claim, doctor, migrate, progress, reap, session, settle, sweep, transactional};

/// A queue in one MySQL or MariaDB database.
#[derive(Clone, Debug)]
pub struct MySqlStore {
    pub(crate) inner: Arc<Inner>,
}

impl MySqlStore {
    /// Connects to what a URL names: `mysql://user:password@host:3306/database`, also `mariadb://…`. TLS is used where the
    /// server offers it; `ssl-mode`, `ssl-ca`, `ssl-cert`, `ssl-key` and `socket` can be given as in `…?ssl-mode=required`,
    /// and `wake=on` turns on what [`MySqlOptions::wake_channel`] does. The
    /// schema is not touched: migrate it.
    ///
    /// Several hosts of one replicated database may stand where one does, with commas between them, in any order. The one
    /// that takes writes (the primary of a replication group, or the only one that is not read-only) is found by asking
    /// and followed when it moves; the others are never written to. `docs/SCALING.md` says how to run such a group.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] when the server does not answer, [`StoreError::Denied`] when it refuses the account,
    /// [`StoreError::Unsupported`] when it is one that cannot be used, [`StoreError::Other`] when the URL cannot be read or the
    /// database is not there. None of them tells the password.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::connect_with(url, MySqlOptions::default()).await
    }

    /// Whether the URL can be read at all, without connecting: one that cannot stays wrong, however often it is tried.
    ///
    /// # Errors
    ///
    /// [`StoreError::Other`], which says why and how a URL is written.
    pub fn check_url(url: &str) -> Result<(), StoreError> {
        Target::parse(url).map(drop)
    }

    /// Options, to connect with.
    pub fn builder() -> MySqlOptions {
        MySqlOptions::default()
    }

    pub(crate) async fn connect_with(url: &str, options: MySqlOptions) -> Result<Self, StoreError> {
        let target = Target::parse(url)?;
        let wakes = target.wake.unwrap_or(options.wake_channel);
        let connections = Connections::new(target, options.clone());
        let (server, settings) = find_server(&connections).await?;
        doctor::at_connect(&settings, connections.place(), &options)?;
        let wakes = if wakes { Wakes::on(server.flavor) } else { None };
        let inner = Inner {
            wakes,
            connections,
            options,
            server,
            names: Default::default(),
            lanes: Default::default(),
            held: Default::default(),
            sweep: Default::default(),
            pruned: Default::default(),
            retries: Default::default(),
            judged: Default::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) async fn perform<O: Operation>(&self, operation: O) -> Result<O::Output, StoreError> {
        self.inner.perform(operation).await
    }
}

/// All that has to be known before the first call, in one round trip.
async fn find_server(connections: &Connections) -> Result<(Server, Settings), StoreError> {
    let mut conn = connections.acquire(false).await?;
    let read = async |conn: &mut Conn| -> Result<(Server, Standing, Settings), Failure> {
        let sql = format!("SELECT VERSION(), @@version_comment, DATABASE(); {VARIABLES}; {}", Settings::sql());
        let replies = conn.run(sql).await?;
        let row =
            replies.first().and_then(|reply| reply.rows.first()).ok_or_else(|| missing("the server's version"))?;
        let (version, comment, database): (String, String, String) = (value(row, 0)?, value(row, 1)?, value(row, 2)?);
        let server = Server::parse(&version, &comment, &database)?;
        let standing = Standing::of(rows_of(&replies, 1))?;
        standing.check(connections.hosts().are_several())?;
        Ok((server, standing, Settings::of(rows_of(&replies, 2))?))
    };
    match read(&mut conn).await {
        Ok((server, standing, settings)) => {
            let is_member = standing.group.is_some();
            connections.hosts().settle_on(server.flavor, &standing);
            let is_settled = !server.flavor.needs_own_settings();
            if is_settled && (!is_member || connections.hosts().are_several()) {
                connections.put_back(conn);
            } // else the next one waits for the backlog of a new primary, as a member must, or gets what its kind needs
            Ok((server, settings))
        }
        Err(failure) => Err(failure.told(connections.place())),
    }
}

#[async_trait]
impl TaskStore for MySqlStore {
    fn limits(&self) -> StoreLimits {
        self.inner.options.limits
    }

    fn retries(&self) -> Vec<(&'static str, u64)> {
        self.inner.retries.all()
    }

    fn wake_channel(&self) -> Option<Arc<dyn WakeChannel>> {
        self.inner.wakes.is_some().then(|| Arc::new(Channel(Arc::clone(&self.inner))) as _)
    }

    async fn reserve_ids(&self, count: u32) -> Result<IdBlock, StoreError> {
        self.perform(ReserveIds { count }).await
    }

    async fn enqueue(&self, batch: Arc<[NewTask]>) -> Result<Vec<Enqueued>, StoreError> {
        self.inner.options.limits.check_enqueue(&batch)?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.inner.intern(&batch).await?;
        self.perform(Enqueue { batch, repeated: false }).await
    }

    async fn open_session(&self, spec: SessionSpec) -> Result<Renewal, StoreError> {
        self.perform(session::OpenSession { spec }).await
    }

    async fn renew_session(&self, session: SessionId, lease: Duration) -> Result<Renewal, StoreError> {
        self.perform(session::RenewSession { session, lease }).await
    }

    async fn close_session(&self, session: SessionId) -> Result<(), StoreError> {
        self.perform(session::CloseSession { session }).await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<ClaimReply, StoreError> {
        self.perform(claim::Claim::new(request, &self.inner)).await
    }

    async fn resolve_claim(&self, session: SessionId, claim: ClaimId) -> Result<Resolved, StoreError> {
        self.perform(claim::ResolveClaim { session, claim }).await
    }

    async fn settle(&self, batch: Arc<[Settle]>) -> Result<Vec<Settled>, StoreError> {
        self.inner.options.limits.check_settle(batch.len())?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.perform(settle::SettleBatch { batch }).await
    }

    async fn settle_and_claim(&self, batch: Arc<[Settle]>, request: ClaimRequest) -> Trip {
        if !batch.is_empty() && batch.len() <= self.inner.options.limits.batch_max {
            let claim = claim::Claim::new(request.clone(), &self.inner);
            match self.perform(claim::SettleAndClaim { batch: Arc::clone(&batch), claim }).await {
                Ok(Some((settled, reply))) => return Trip { settled: Ok(settled), claim: Ok(reply) },
                Ok(None) => {}
                Err(error) => return Trip { claim: Err(again(&error)), settled: Err(error) },
            }
        }
        let settled = self.settle(batch).await;
        let claim = self.claim(request).await;
        Trip { settled, claim }
    }

    async fn progress(&self, batch: Vec<ProgressUpdate>) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.perform(progress::Record { batch }).await
    }

    async fn time(&self) -> Result<StoreTime, StoreError> {
        self.perform(session::Clock).await
    }

    async fn fence_expired(&self, limit: usize) -> Result<Vec<FencedSession>, StoreError> {
        self.perform(reap::FenceExpired { limit }).await
    }

    async fn lost(&self, limit: usize) -> Result<Lost, StoreError> {
        self.perform(reap::FindLost { limit }).await
    }

    async fn expire(&self, limit: usize) -> Result<Swept, StoreError> {
        self.perform(sweep::Expire { limit }).await
    }

    async fn is_busy(&self, scope: Scope) -> Result<bool, StoreError> {
        self.perform(busy::IsBusy { scope }).await
    }
}

/// The error of a transaction, for the other half of it.
fn again(error: &StoreError) -> StoreError {
    let told = error.to_string();
    match error {
        StoreError::Unavailable { .. } => StoreError::unavailable(told),
        StoreError::UnknownOutcome { .. } => StoreError::unknown_outcome(told),
        StoreError::Denied { .. } => StoreError::denied(told),
        _ => StoreError::other(told),
    }
}

#[async_trait]
impl Migrate for MySqlStore {
    async fn migrate(&self) -> Result<Vec<u32>, StoreError> {
        // Nothing to do is the common case, and then no lock is taken.
        match self.schema().await?.check() {
            Ok(()) => Ok(Vec::new()),
            Err(problem @ queue_core::error::SchemaProblem::TooNew { .. }) => Err(problem.into()),
            Err(_) => self.perform(migrate::Apply).await,
        }
    }

    async fn schema(&self) -> Result<SchemaStatus, StoreError> {
        self.perform(migrate::Status).await
    }
}

#[async_trait]
impl Transactional for MySqlStore {
    type Conn = MySqlConnection;

    async fn prepare(&self, batch: &[NewTask]) -> Result<(), StoreError> {
        self.inner.options.limits.check_enqueue(batch)?;
        self.inner.intern(&Arc::from(batch)).await
    }

    async fn enqueue_in(&self, conn: &mut MySqlConnection, batch: &[NewTask]) -> Result<Vec<Enqueued>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let written = enqueue::enqueue_in(&self.inner, conn, batch).await;
        written.map_err(|failure| failure.told("in the transaction of the caller"))
    }

    async fn complete_in(
        &self,
        conn: &mut MySqlConnection,
        task: TaskId,
        claim: ClaimId,
        result: TaskResult,
    ) -> Result<Settled, StoreError> {
        transactional::complete_in(&self.inner, conn, task, claim, result).await
    }
}
