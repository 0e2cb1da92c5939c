//! Claiming: look without locks, lock what may be taken, let the core judge it, take it.
//!
//! Four round trips when there is work (look; lock; take and read; commit), one when there is none. Settlements of the common
//! kind go with the first of them, in the same transaction.

mod offer;
mod resolve;
mod take;
mod trip;

pub(crate) use resolve::ResolveClaim;
pub(crate) use trip::SettleAndClaim;

use queue_core::admission::Admission;
use queue_core::{ClaimReply, ClaimRequest, Claimed, StoreError, Timestamp};

use crate::connection::Conn;
use crate::error::{Class, Failure, Told};
use crate::inner::Inner;
use crate::lanes::Survey;
use crate::operation::Operation;
use crate::sql::{guard, value};
use offer::Offer;
use take::Judged;

/// Takes due tasks for a session.
pub(crate) struct Claim {
    pub(crate) request: ClaimRequest,
}

impl Operation for Claim {
    type Output = ClaimReply;

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<ClaimReply, Failure> {
        let survey = Survey::take(conn, &inner.lanes, Some(self.request.session)).await?;
        if !survey.alive {
            return Ok(ClaimReply::Fenced);
        }
        self.claim(inner, conn, &survey, false).await
    }
}

impl Claim {
    /// Claims what the survey saw; in the open transaction, or in one that it opens when there is something to claim.
    async fn claim(&self, inner: &Inner, conn: &mut Conn, survey: &Survey, begun: bool) -> Result<ClaimReply, Failure> {
        let mut request = self.request.clone();
        request.capacity.tasks = request.capacity.tasks.min(inner.options.limits.batch_max);
        let unknown = survey.lanes.iter().any(|(lane, _)| inner.names.queue(lane.queue_id).is_none());
        if unknown || survey.type_id_max > inner.names.type_id_max() {
            inner.names.refresh(conn).await?;
        }
        let now = survey.now;
        let mut offer = Offer::new(inner, &request, survey);
        if begun {
            offer = offer.begun();
        }
        let mut admission = Admission::new(&request, now);
        let mut judged = Judged::default();
        if !offer.work_off(inner, conn, &mut admission, &mut judged).await? {
            conn.rollback().await?;
            return Ok(ClaimReply::Fenced);
        }
        let (tasks, ended) = match judged.take(inner, conn, &request, now).await {
            Ok(taken) => taken,
            // What else is in the transaction is not rolled back here.
            Err(failure) if begun => return Err(failure),
            Err(failure) => return Err(self.explain(inner, conn, &judged, failure, now).await),
        };
        // Where nothing can be locked for sharing, the session's row is locked as late as can be: claims of one session would
        // wait for each other.
        let hold = (!inner.server.flavor.shares_locks() && !judged.is_empty()).then(|| {
            let session = request.session;
            let touch = format!("UPDATE queue_session SET drain = drain WHERE id = {session} AND fenced_at IS NULL");
            format!("{touch}; {}", guard(1))
        });
        let next_due = match offer.next_due_and_commit(conn, hold).await {
            Ok(next_due) => next_due,
            Err(failure) if failure.class() == Some(Class::Guard) => {
                conn.rollback().await?;
                return Ok(ClaimReply::Fenced);
            }
            Err(failure) => return Err(failure),
        };
        inner.lanes.saw(offer.seen(), now);
        if let Some(queue) = offer.last_queue() {
            inner.lanes.set_turn(queue);
        }
        inner.held.take(request.claim, request.session, judged.members());
        Ok(ClaimReply::Claimed(Claimed { now, tasks, ended, next_due }))
    }

    /// What to make of an error while taking.
    async fn explain(
        &self,
        inner: &Inner,
        conn: &mut Conn,
        judged: &Judged,
        failure: Failure,
        now: Timestamp,
    ) -> Failure {
        match failure.class() {
            Some(Class::Duplicate) => self.id_taken(conn).await.unwrap_or(failure),
            // Somebody's open transaction holds the row of a queued task, for one that tried to complete it under a claim that
            // was no longer current. Nothing may wait for that with the session's row locked: such rows are passed over.
            Some(Class::Repeat("lock_timeout")) => {
                if let Err(error) = conn.rollback().await {
                    return error.into();
                }
                match judged.locked_by_others(conn).await {
                    Ok(locked) => {
                        for task in locked {
                            inner.lanes.avoid(task, now);
                            tracing::warn!(task = task.get(), "a queued task's row is locked for long, passed over");
                        }
                        failure
                    }
                    Err(failure) => failure,
                }
            }
            // The guard: a row that waits belongs to a task that does not.
            Some(Class::Guard) => {
                if let Err(error) = conn.rollback().await {
                    return error.into();
                }
                match judged.ghosts(conn).await {
                    Ok(ghosts) => {
                        for task in ghosts {
                            inner.lanes.avoid(task, now);
                            tracing::error!(task = task.get(), "a task waits that is not queued; it is left alone");
                        }
                        Failure::Again("ghost")
                    }
                    Err(failure) => failure,
                }
            }
            _ => failure,
        }
    }

    /// The claim's id is there already: void, or used before.
    async fn id_taken(&self, conn: &mut Conn) -> Option<Failure> {
        conn.rollback().await.ok()?;
        let sql = format!("SELECT LENGTH(members) FROM queue_claim WHERE id = {}", self.request.claim);
        let rows = conn.run(sql).await.ok()?.pop()?.rows;
        let length: i64 = value(rows.first()?, 0).ok()?;
        Some(Failure::Store(if length == 0 {
            StoreError::unavailable(Told("the claim was resolved as void before it was committed".into()))
        } else {
            StoreError::other(Told("the claim's id was used before".into()))
        }))
    }
}
