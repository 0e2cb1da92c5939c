use std::fmt;
use std::sync::Arc;

use queue_core::admin::{Action, Filter, Page, Selection};
use queue_core::{ClaimId, FailureReason, Settle, Settlement, Store, StoreError};

use crate::conformance::Fixture;

/// A database with the clients through which a sequence goes: one store at least.
pub struct Clients<F> {
    first: F,
    more: Vec<Arc<dyn Store>>,
}

impl<F: Fixture> Clients<F> {
    /// One client, which is asked by two at the same time now and then.
    #[must_use]
    pub const fn of(fixture: F) -> Self {
        Self { first: fixture, more: Vec::new() }
    }

    /// With another store on the same database: a process of its own, as it were.
    #[must_use]
    pub fn and(mut self, other: impl Store + 'static) -> Self {
        self.more.push(Arc::new(other));
        self
    }

    /// The fixture of the first one.
    pub const fn fixture(&self) -> &F {
        &self.first
    }

    pub(super) fn get(&self, number: u8) -> &dyn Store {
        match usize::from(number).checked_rem(self.more.len() + 1) {
            None | Some(0) => self.first.store(),
            Some(more) => self.more[more - 1].as_ref(),
        }
    }

    pub(super) async fn finish(&self) {
        self.first.finish().await;
    }

    /// Removes all that an earlier sequence left, by the ports alone. `false` when something stays: then the database is of no
    /// more use.
    pub(super) async fn clear(&self) -> Result<bool, StoreError> {
        let store = self.get(0);
        for queue in store.stats().await?.queues {
            if queue.paused.is_some() {
                store.set_paused(queue.queue, None, "model").await?;
            }
        }
        for session in store.sessions().await? {
            store.close_session(session.id).await?;
        }
        for task in store.lost(1_000).await?.tasks {
            let fail = Settlement::Fail { reason: FailureReason::Rejected, error: None };
            let settle = Settle::by_reaper(task.id, task.claim, ClaimId::from_random(7), fail);
            store.settle([settle].into()).await?;
        }
        store.lost(1_000).await?;
        let left = store.list(Filter::default(), Page { after: None, limit: 1_000 }).await?;
        store.act(Selection::Ids(left.iter().map(|task| task.id).collect()), Action::Delete, "model").await?;
        let left = store.list(Filter::default(), Page { after: None, limit: 1 }).await?;
        Ok(left.is_empty() && store.sessions().await?.is_empty())
    }
}

impl<F: Fixture> fmt::Debug for Clients<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("first", self.first.store()).field("more", &self.more).finish()
    }
}
