//! A store whose calls are written down.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use queue_core::admin::{Acted, Action, Selection};
use queue_core::claim::Resolved;
use queue_core::reap::FencedSession;
use queue_core::session::{Renewal, SessionSpec};
use queue_core::store::Trip;
use queue_core::{
    ClaimId, ClaimReply, ClaimRequest, Claimed, Enqueued, NewTask, SessionId, Settle, Settled, Store, StoreError,
    TaskId,
};

use queue_testkit::around::Around;

use super::event::{Answer, Fact, Operation, To};
use super::journal::Journal;

/// Of the kinds of [`TaskStore::retries`](queue_core::TaskStore::retries), those after which nobody knows what became of the try
/// before: its connection was lost, or led to a server that is not the one to write to any more. After all others the server has
/// said that it rolled back.
const UNHEARD: [&str; 2] = ["reconnect", "moved"];

/// Any store, with notes of what a process asks of it and is answered.
///
/// Around the store of a process it notes what that process knows. Around the real store of a simulation, beneath what
/// injects faults, it notes what is true.
#[derive(Clone, Debug)]
pub struct RecordingStore {
    inner: Arc<dyn Store>,
    journal: Journal,
    job: fn(&NewTask) -> Option<u64>,
}

impl RecordingStore {
    /// This store, with notes in this journal.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, journal: Journal) -> Self {
        Self { inner, journal, job: |_| None }
    }

    /// What makes a task what it is, whatever id it gets.
    #[must_use]
    pub fn job(mut self, job: fn(&NewTask) -> Option<u64>) -> Self {
        self.job = job;
        self
    }

    fn settling(&self, batch: &[Settle]) {
        for item in batch {
            let (task, claim, to, by_reaper) = letter(item);
            self.journal.record(Fact::Settling { task, claim, to, by_reaper });
        }
    }

    fn settled(&self, batch: &[Settle], asked: Asked, answers: &Result<Vec<Settled>, StoreError>) {
        let Asked { since, repeats } = asked;
        let repeated = self.repeats() > repeats;
        for (item, answer) in batch.iter().zip(answers.iter().flatten()) {
            let (task, claim, to, by_reaper) = letter(item);
            let answer = Answer::of(*answer, repeated);
            self.journal.record(Fact::Settled { task, claim, to, by_reaper, since, answer });
        }
    }

    fn asked(&self) -> Asked {
        Asked { since: self.journal.now(), repeats: self.repeats() }
    }

    /// How often the store repeated by itself what may have been written already. Of which call, it does not say: one under way
    /// beside it counts as well.
    fn repeats(&self) -> u64 {
        let unheard = self.inner.retries().into_iter().filter(|(kind, _)| UNHEARD.contains(kind));
        unheard.map(|(_, count)| count).sum()
    }

    fn claimed(&self, session: SessionId, claimed: &Claimed) {
        for task in &claimed.tasks {
            self.journal.record(Fact::Claimed {
                task: task.id.get(),
                claim: task.claim.get(),
                session: session.get(),
                fence: task.fence.get(),
                attempt: task.attempt,
                max_attempts: task.max_attempts,
            });
        }
    }
}

/// When a settlement was sent.
#[derive(Clone, Copy, Debug)]
struct Asked {
    since: u64,
    /// What the store had repeated by then.
    repeats: u64,
}

fn letter(item: &Settle) -> (u64, u64, To, bool) {
    (item.task.get(), item.claim.get(), To::from(&item.settlement), item.leaves != item.claim)
}

#[async_trait]
impl Around for RecordingStore {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    async fn enqueue(&self, batch: Arc<[NewTask]>) -> Result<Vec<Enqueued>, StoreError> {
        for task in batch.iter() {
            self.journal.record(Fact::Enqueuing { task: task.id.get(), job: (self.job)(task) });
        }
        let answers = self.inner.enqueue(batch).await?;
        for answer in &answers {
            self.journal.record(Fact::Enqueued { task: answer.id().get() });
        }
        Ok(answers)
    }

    async fn open_session(&self, spec: SessionSpec) -> Result<Renewal, StoreError> {
        let (since, session, lease) = (self.journal.now(), spec.id.get(), spec.lease);
        let answer = self.inner.open_session(spec).await?;
        if let Renewal::Renewed(_) = answer {
            let lease_us = u64::try_from(lease.as_micros()).unwrap_or(u64::MAX);
            self.journal.record(Fact::SessionOpened { session, lease_us, since });
        }
        Ok(answer)
    }

    async fn renew_session(&self, session: SessionId, lease: Duration) -> Result<Renewal, StoreError> {
        let since = self.journal.now();
        let answer = self.inner.renew_session(session, lease).await?;
        if let Renewal::Renewed(_) = answer {
            self.journal.record(Fact::Renewed { session: session.get(), since });
        }
        Ok(answer)
    }

    async fn close_session(&self, session: SessionId) -> Result<(), StoreError> {
        self.journal.record(Fact::SessionClosed { session: session.get() });
        self.inner.close_session(session).await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<ClaimReply, StoreError> {
        let session = request.session;
        let answer = self.inner.claim(request).await?;
        if let ClaimReply::Claimed(claimed) = &answer {
            self.claimed(session, claimed);
        }
        Ok(answer)
    }

    async fn resolve_claim(&self, session: SessionId, claim: ClaimId) -> Result<Resolved, StoreError> {
        let answer = self.inner.resolve_claim(session, claim).await?;
        if let Resolved::Committed(claimed) = &answer {
            self.claimed(session, claimed);
        }
        Ok(answer)
    }

    async fn settle(&self, batch: Arc<[Settle]>) -> Result<Vec<Settled>, StoreError> {
        let asked = self.asked();
        self.settling(&batch);
        let answers = self.inner.settle(Arc::clone(&batch)).await;
        self.settled(&batch, asked, &answers);
        answers
    }

    async fn settle_and_claim(&self, batch: Arc<[Settle]>, request: ClaimRequest) -> Trip {
        let (asked, session) = (self.asked(), request.session);
        self.settling(&batch);
        let trip = self.inner.settle_and_claim(Arc::clone(&batch), request).await;
        self.settled(&batch, asked, &trip.settled);
        if let Ok(ClaimReply::Claimed(claimed)) = &trip.claim {
            self.claimed(session, claimed);
        }
        trip
    }

    async fn fence_expired(&self, limit: usize) -> Result<Vec<FencedSession>, StoreError> {
        let fenced = self.inner.fence_expired(limit).await?;
        for session in &fenced {
            self.journal.record(Fact::SessionFenced { session: session.id.get() });
        }
        Ok(fenced)
    }

    /// Actions on what matches a filter are only noted once they are answered: who checks the history names ids.
    async fn act(&self, selection: Selection, action: Action, actor: &str) -> Result<Vec<(TaskId, Acted)>, StoreError> {
        let operation = match action {
            Action::Cancel => Some(Operation::Cancel),
            Action::Retry => Some(Operation::Retry),
            Action::Delete => Some(Operation::Delete),
            _ => None,
        };
        if let (Selection::Ids(ids), Some(operation)) = (&selection, operation) {
            for id in ids {
                self.journal.record(Fact::Acting { task: id.get(), operation });
            }
        }
        let answers = self.inner.act(selection, action, actor).await?;
        if let Some(operation) = operation {
            for (task, _) in answers.iter().filter(|(_, acted)| acted.is_change()) {
                self.journal.record(Fact::Acted { task: task.get(), operation });
            }
        }
        Ok(answers)
    }
}
