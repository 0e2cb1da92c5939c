//! The sizes that a store accepts.

use crate::error::StoreError;
use crate::spec::NewTask;

/// Bounds of a store. What is larger is refused before anything is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// The largest payload, in bytes.
    pub payload_bytes_max: u64,
    /// The largest result, in bytes; a larger one is dropped and flagged.
    pub result_bytes_max: u64,
    /// The most tasks in one call to enqueue, settle or claim.
    pub batch_max: usize,
    /// The most payload bytes in one call to enqueue.
    pub batch_bytes_max: u64,
}

impl StoreLimits {
    /// Payloads of 1 MiB, results of 64 KiB, 1,000 tasks and 4 MiB a batch.
    pub const DEFAULT: Self =
        Self { payload_bytes_max: 1 << 20, result_bytes_max: 1 << 16, batch_max: 1_000, batch_bytes_max: 4 << 20 };

    /// Refuses a batch of new tasks that is too large.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`]: of the batch, a payload or a backoff.
    pub fn check_enqueue(&self, batch: &[NewTask]) -> Result<(), StoreError> {
        at_most("a batch in tasks", batch.len() as u64, self.batch_max as u64)?;
        let mut sum = 0_u64;
        for task in batch {
            let bytes = task.spec.payload.body().len() as u64;
            at_most("a payload in bytes", bytes, self.payload_bytes_max)?;
            task.spec.retry.backoff().check_stored()?;
            sum = sum.saturating_add(bytes);
        }
        at_most("a batch in payload bytes", sum, self.batch_bytes_max)
    }

    /// Refuses a batch of so many settlements when it is too large.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`].
    pub const fn check_settle(&self, settlements: usize) -> Result<(), StoreError> {
        at_most("a batch in settlements", settlements as u64, self.batch_max as u64)
    }
}

const fn at_most(what: &'static str, size: u64, limit: u64) -> Result<(), StoreError> {
    if size > limit { Err(StoreError::TooLarge { what, size, limit }) } else { Ok(()) }
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Backoff, Nonce, Payload, Retry, TaskId, TaskSpec, TaskType};

    #[test]
    fn what_is_too_large_is_named() {
        let limits = StoreLimits { payload_bytes_max: 3, batch_max: 2, batch_bytes_max: 4, ..StoreLimits::default() };
        let task = |payload: &'static str| NewTask {
            id: TaskId::new(1).unwrap(),
            nonce: Nonce::new(1),
            spec: TaskSpec::new(TaskType::new("a"), Payload::json(payload)),
        };
        let mut endless = task("1");
        endless.spec.retry = Retry::new(Backoff::Steps(vec![Duration::from_secs(1); 1_000].into()));
        let what = |batch: &[NewTask]| match limits.check_enqueue(batch) {
            Err(StoreError::TooLarge { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        assert!(limits.check_enqueue(&[task("22"), task("22")]).is_ok());
        assert_eq!(what(&[task("4444")]), "a payload in bytes");
        assert_eq!(what(&[task("333"), task("22")]), "a batch in payload bytes");
        assert_eq!(what(&[task(""), task(""), task("")]), "a batch in tasks");
        assert_eq!(what(&[endless]), "a backoff's stored form in bytes");
        assert!(limits.check_settle(2).is_ok() && limits.check_settle(3).is_err());
    }
}
