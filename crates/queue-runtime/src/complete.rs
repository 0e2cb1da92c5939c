//! Completing a task in the handler's own transaction.

use std::future::Ready;

use queue_core::{Settled, Status, Store, StoreError, TaskId, Transactional};
use serde::Serialize;

use crate::client::Queue;
use crate::codec::{self, EncodeError};
use crate::enqueue::WithinKnownStore;
use crate::erased::RunHandle;

/// Why a task was not completed in the handler's transaction. Roll it back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompleteError {
    /// The claim under which the handler runs is no longer current: another worker has the task, or has ended it. The
    /// transaction must not commit, or the handler's effect would happen twice.
    #[error("task {task} is no longer held by this run; roll the transaction back")]
    Stale {
        /// The task.
        task: TaskId,
    },
    /// The output is not one that can be kept.
    #[error("the output cannot be kept: {0}")]
    Encode(#[from] EncodeError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A completion that is not written yet; see [`Queue::complete`].
#[derive(Debug)]
#[must_use = "nothing is completed until `.within(&mut tx)` is awaited"]
pub struct Complete<'q, S: ?Sized, O> {
    queue: &'q Queue<S>,
    run: &'q RunHandle,
    output: O,
}

impl<'q, S: ?Sized, O> Complete<'q, S, O> {
    pub(crate) const fn new(queue: &'q Queue<S>, run: &'q RunHandle, output: O) -> Self {
        Self { queue, run, output }
    }
}

impl<S: Transactional, O: Serialize> Complete<'_, S, O> {
    /// Completes the task in this transaction and gives the output back, for the handler to return. The task is completed when
    /// the transaction commits. When it does not, the run counts as failed and the task is retried, even if the handler
    /// returns `Ok`.
    ///
    /// While the transaction is open it holds the task's row; nothing of the queue's own waits for it.
    ///
    /// # Errors
    ///
    /// [`CompleteError::Stale`] when the claim is no longer current. Roll back after any error.
    pub async fn within(self, tx: &mut S::Conn) -> Result<O, CompleteError> {
        let Self { queue, run, output } = self;
        let (task, claim) = (run.task.id, run.task.claim);
        let result = codec::encode_output(&output, queue.shared().limits.result_bytes_max)?;
        // Before the write: when its answer is lost, the pool must still not complete the task by itself.
        run.mark_completing();
        match queue.store().complete_in(tx, task, claim, result).await? {
            Settled::Applied | Settled::Already(Status::Completed) => Ok(output),
            Settled::Already(_) | Settled::Stale => Err(CompleteError::Stale { task }),
        }
    }
}

/// Only here to say, where it does not compile, what to write instead.
impl<O> Complete<'_, dyn Store, O> {
    #[doc(hidden)]
    pub fn within<T: WithinKnownStore>(self, tx: T) -> Ready<Result<O, CompleteError>> {
        tx.never()
    }
}
