//! Settling and claiming in one transaction: one commit instead of two, and one round trip less.

use std::sync::Arc;

use queue_core::{ClaimReply, Settle, Settled};

use super::Claim;
use crate::connection::Conn;
use crate::error::{Class, Failure};
use crate::inner::Inner;
use crate::operation::Operation;
use crate::settle::Completions;

/// Writes how runs ended, and takes due tasks. The answer is `None` when that must be done one after the other: an end is not a
/// completion, or something was not as expected; nothing was written then.
pub(crate) struct SettleAndClaim {
    pub(crate) batch: Arc<[Settle]>,
    pub(crate) claim: Claim,
}

impl Operation for SettleAndClaim {
    type Output = Option<(Vec<Settled>, ClaimReply)>;

    async fn attempt(&mut self, inner: &Inner, conn: &mut Conn) -> Result<Self::Output, Failure> {
        if !inner.server.flavor.shares_locks() {
            return Ok(None);
        }
        let Some(completions) = Completions::of(inner, &self.batch) else { return Ok(None) };
        match self.together(inner, conn, &completions).await {
            Ok(reply) => Ok(Some((vec![Settled::Applied; self.batch.len()], reply))),
            // Alone, each finds out what it is about.
            Err(failure) if is_of_a_row(&failure) => {
                conn.rollback().await?;
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }
}

impl SettleAndClaim {
    async fn together(
        &self,
        inner: &Inner,
        conn: &mut Conn,
        completions: &Completions<'_>,
    ) -> Result<ClaimReply, Failure> {
        let pairs: Vec<_> = self.batch.iter().map(|settle| (settle.task, settle.claim)).collect();
        let cleaning = inner.held.cleaning(&pairs);
        let sql = completions.statements(inner.server.flavor, cleaning.leftovers());
        let begun = completions.has_results();
        if begun {
            conn.begin("DO 0").await?;
            completions.write_results(inner, conn).await?;
        }
        let reply = match self.claim.open(inner, conn, sql, begun).await? {
            Some(opening) => self.claim.claim(inner, conn, opening).await?,
            // What it has done before it was fenced counts.
            None => {
                conn.run_and_commit("").await?;
                ClaimReply::Fenced
            }
        };
        cleaning.done(&pairs);
        Ok(reply)
    }
}

/// Whether the failure may be about one of the rows and not about the server.
fn is_of_a_row(failure: &Failure) -> bool {
    match failure {
        Failure::Again(_) => true,
        failure => matches!(failure.class(), Some(Class::Guard | Class::Duplicate | Class::Repeat("lock_timeout"))),
    }
}
