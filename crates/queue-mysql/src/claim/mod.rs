//! Claiming: look without locks, lock what may be taken, let the core judge it, take it.
//!
//! Two round trips where work is known to be there: look, and lock and read on a guess ([`guess`]); write and commit. Three where
//! the look has to come first, one when there is nothing. Settlements of the common kind go with the first of them, in the
//! same transaction.

mod found;
mod guess;
mod lane;
mod offer;
mod resolve;
mod take;
mod trip;

pub(crate) use resolve::ResolveClaim;
pub(crate) use trip::SettleAndClaim;

use std::time::Instant;

use queue_core::admission::Admission;
use queue_core::{ClaimReply, ClaimRequest, Claimed, StoreError};
use sqlx::Row as _;

use crate::connection::{Conn, Reply, rows_of};
use crate::error::{Class, Failure, Told, classify};
use crate::inner::{Inner, missing};
use crate::lanes::{Survey, read_first};
use crate::operation::Operation;
use crate::sql::{guard, inlined, value};
use guess::Guess;
use offer::{Offer, alive_and_look_sql};
use take::{Judged, Statements};

/// Takes due tasks for a session.
pub(crate) struct Claim {
    pub(crate) request: ClaimRequest,
}

/// What a claim begins with.
struct Opening {
    survey: Survey,
    /// The queue that was served last.
    turn: Option<u32>,
    /// The transaction is open, and holds the session's row.
    begun: bool,
    /// What was locked on a guess.
    guessed: Option<(Guess, Vec<Reply>)>,
}

/// For measuring how long a look takes.
#[expect(clippy::disallowed_methods, reason = "where the next look begins hangs on it, and nothing of any task")]
fn now() -> Instant {
    Instant::now()
}

/// A look on its own, prepared where it has one of the common texts: a server keeps only so many statements for everybody.
async fn alone(conn: &mut Conn, look: String, numbers: &[i64], bounds: usize) -> Result<Reply, Failure> {
    if bounds <= 1 {
        match conn.bound_numbers(look.clone(), numbers).await {
            Err(error) if classify(&error) == Class::Busy => {}
            reply => return Ok(reply?),
        }
    }
    let reply = conn.run(inlined(&look, numbers)).await?.pop();
    Ok(reply.ok_or_else(|| missing("the answer to a look at the lanes"))?)
}

impl Operation for Claim {
    type Output = ClaimReply;

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<ClaimReply, Failure> {
        let Some(opening) = self.open(inner, conn, Vec::new(), false).await? else {
            conn.rollback().await?;
            return Ok(ClaimReply::Fenced);
        };
        match self.claim(inner, conn, opening).await {
            Err(failure) if failure.class() == Some(Class::Duplicate) => {
                Err(self.id_taken(conn).await.unwrap_or(failure))
            }
            reply => reply,
        }
    }
}

impl Claim {
    pub(crate) fn new(mut request: ClaimRequest, inner: &Inner) -> Self {
        request.capacity.tasks = request.capacity.tasks.min(inner.options.limits.batch_max);
        Self { request }
    }

    /// Looks at the lanes, and locks what is likely there, after these statements of the same transaction, which may have `begun`
    /// already. `None` when the session is fenced.
    async fn open(
        &self,
        inner: &Inner,
        conn: &mut Conn,
        mut sql: Vec<String>,
        begun: bool,
    ) -> Result<Option<Opening>, Failure> {
        let session = self.request.session;
        let turn = inner.lanes.turn();
        let guess = Guess::of(inner, &self.request, turn);
        let bounds = inner.lanes.bounds();
        let within = begun || guess.is_some() || !sql.is_empty();
        let (look, numbers) = Survey::sql(session, &bounds);
        let began = now();
        let (look, found) = if within {
            sql.extend(alive_and_look_sql(inner.server.flavor, session, inlined(&look, &numbers)));
            let looked = sql.len();
            sql.extend(guess.iter().flat_map(Guess::sql).cloned());
            let mut replies = if begun { conn.run_all(sql).await? } else { conn.begin_all(sql).await? };
            let found = replies.split_off(looked.min(replies.len()));
            (replies.pop().ok_or_else(|| missing("the answer to a look at the lanes"))?, found)
        } else {
            (alone(conn, look, &numbers, bounds.len()).await?, Vec::new())
        };
        let Some(survey) = Survey::read(&look, &bounds)? else { return Ok(None) };
        inner.lanes.tell(survey.now);
        if !within {
            inner.lanes.looked(&survey, began.elapsed());
        }
        let guessed = guess.map(|guess| (guess, found));
        Ok(Some(Opening { survey, turn, begun: within, guessed }))
    }

    /// Claims what was seen; in the open transaction, or in one that it opens when there is something to claim.
    async fn claim(&self, inner: &Inner, conn: &mut Conn, opening: Opening) -> Result<ClaimReply, Failure> {
        let Opening { survey, turn, begun, guessed } = opening;
        let request = &self.request;
        let unknown = survey.lanes.iter().any(|(lane, _)| inner.names.queue(lane.queue_id).is_none());
        if unknown || survey.type_id_max > inner.names.type_id_max() {
            inner.names.refresh(conn).await?;
        }
        let now = survey.now;
        let mut offer = Offer::new(inner, request, &survey, turn);
        if begun {
            offer = offer.begun();
        }
        let mut admission = Admission::new(request, now);
        let mut judged = Judged::default();
        // Its turn was taken when it was made.
        let was_guessed = guessed.is_some();
        inner.lanes.expect_these(offer.likely(admission.suspect_room()));
        let mut rest = Vec::new();
        if let Some((guess, found)) = guessed {
            rest = offer.take_over(inner, conn, &guess, found, &mut admission, &mut judged).await?;
        }
        if !offer.work_off(inner, conn, &mut admission, &mut judged, rest).await? {
            conn.rollback().await?;
            return Ok(ClaimReply::Fenced);
        }
        let (ahead, mut next_due) = offer.next_due_sql();
        let Statements { mut sql, bodies, answer } = judged.statements(inner.server.flavor, request, now, &ahead);
        // Where nothing can be locked for sharing, the session's row is locked as late as can be: claims of one session would
        // wait for each other.
        let holds = !inner.server.flavor.shares_locks() && !judged.is_empty();
        if holds {
            let session = request.session;
            sql.push(format!("UPDATE queue_session SET drain = drain WHERE id = {session} AND fenced_at IS NULL"));
            sql.push(guard(1));
        }
        let replies = if offer.is_begun() { conn.run_all_and_commit(sql).await } else { conn.run_all(sql).await };
        let replies = match replies.map_err(Failure::from) {
            Ok(replies) => replies,
            Err(failure) if holds && failure.class() == Some(Class::Guard) => {
                conn.rollback().await?;
                return Ok(ClaimReply::Fenced);
            }
            Err(failure) => return Err(failure),
        };
        if let Some((index, from)) = answer
            && let Some(row) = rows_of(&replies, index).first()
        {
            for column in from..row.len() {
                next_due = [next_due, read_first(row, column)?].into_iter().flatten().min();
            }
        }
        inner.lanes.saw(offer.seen(), now);
        inner.lanes.look_again(offer.left());
        if let Some(queue) = offer.last_queue().filter(|_| !was_guessed) {
            inner.lanes.set_turn(queue);
        }
        inner.held.take(request.claim, request.session, judged.members());
        let none = Reply::default();
        let (tasks, ended) = judged.taken(bodies.and_then(|index| replies.get(index)).unwrap_or(&none))?;
        let next_due = next_due.map(queue_core::Timestamp::from_micros);
        Ok(ClaimReply::Claimed(Claimed { now, tasks, ended, next_due }))
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
