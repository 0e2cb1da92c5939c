//! Writing in the user's own transaction, on the user's own connection to the same file.

use async_trait::async_trait;
use queue_core::{
    ClaimId, Enqueued, NewTask, Settle, Settled, Settlement, StoreError, TaskId, TaskResult, TaskStore as _,
    Transactional,
};
use rusqlite::{Connection, TransactionBehavior};

use crate::enqueue;
use crate::error::before_commit;
use crate::settling;
use crate::store::SqliteStore;
use crate::work::{Memory, Work};

impl SqliteStore {
    /// Begins a transaction on a connection of yours to the same file, in which [`enqueue_in`](Transactional::enqueue_in) and
    /// [`complete_in`](Transactional::complete_in) then write. End it with `COMMIT` or `ROLLBACK`.
    ///
    /// SQLite has one lock for the whole file: while your transaction is open, nothing else is written to it, the renewal of leases
    /// included, and no task ids can be reserved. So this puts ids aside before it takes the lock (`BEGIN IMMEDIATE`), and so
    /// such transactions should be short. It blocks the caller's thread as long as your connection waits for the lock.
    ///
    /// # Errors
    ///
    /// As the store's own calls; nothing was begun then.
    pub async fn begin(&self, conn: &mut Connection) -> Result<(), StoreError> {
        self.check_file(conn)?;
        self.put_ids_aside().await?;
        // Ended by the caller, on the connection.
        let begun = conn.transaction_with_behavior(TransactionBehavior::Immediate);
        let mut begun = begun.map_err(|error| before_commit(&error))?;
        begun.set_drop_behavior(rusqlite::DropBehavior::Ignore);
        Ok(())
    }

    /// A view of the transaction that the user's connection is in.
    fn within<'c>(&self, conn: &'c Connection, memory: &'c mut Memory) -> Result<Work<'c>, StoreError> {
        self.check_file(conn)?;
        if conn.is_autocommit() {
            return Err(StoreError::other("the connection is in no transaction; begin one first"));
        }
        Ok(Work::new(conn, self.now(), memory))
    }

    fn check_file(&self, conn: &Connection) -> Result<(), StoreError> {
        match self.path() {
            Some(path) if conn.path() == Some(path) => Ok(()),
            Some(path) => Err(StoreError::other(format!("the connection is to another database than {path}"))),
            None => Err(StoreError::other("a queue in memory has no connection but its own")),
        }
    }
}

/// Everything of the file is locked by the user's own transaction anyway, so nothing is to be prepared but what is too large.
#[async_trait]
impl Transactional for SqliteStore {
    type Conn = Connection;

    async fn prepare(&self, batch: &[NewTask]) -> Result<(), StoreError> {
        self.limits().check_enqueue(batch)
    }

    async fn enqueue_in(&self, conn: &mut Connection, batch: &[NewTask]) -> Result<Vec<Enqueued>, StoreError> {
        self.limits().check_enqueue(batch)?;
        let mut memory = Memory::default();
        let mut work = self.within(conn, &mut memory)?;
        Ok(enqueue::enqueue(&mut work, batch)?)
    }

    async fn complete_in(
        &self,
        conn: &mut Connection,
        task: TaskId,
        claim: ClaimId,
        result: TaskResult,
    ) -> Result<Settled, StoreError> {
        let mut memory = Memory::default();
        let mut work = self.within(conn, &mut memory)?;
        let settle = Settle::by_holder(task, claim, Settlement::Complete { result });
        Ok(settling::settle_one(&mut work, &settle, &self.limits())?)
    }
}
