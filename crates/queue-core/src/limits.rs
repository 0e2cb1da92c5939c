//! The sizes that a store accepts.

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
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
