//! The domain of the queue, and nothing else: **no clock, no randomness, no I/O**. `now` and jitter are arguments, so
//! every rule in here can be tested without a database, a runtime or a sleep.
//!
//! | module | what it holds |
//! |---|---|
//! | [`machine`] | the four statuses and the one total transition function |
//! | [`settlement`] | how the outcome of a run becomes what the store writes |
//! | [`retry`], [`budget`] | delays between attempts, the wall-clock budget |
//! | [`admission`] | which of the rows a claim has looked at may run |
//! | [`claim`], [`session`], [`reap`] | who holds a task, and how a lost one is found |
//! | [`store`], [`admin`], [`clock`], [`observer`], [`wake`] | the ports that adapters implement |
//!
//! A store backend implements [`TaskStore`], [`TaskAdmin`] and [`Migrate`], each with [`macro@async_trait`] on its `impl`; a program that only wants to property-test
//! the state machine needs [`transition`] and [`Settlement::decide`].

pub mod admin;
pub mod admission;
pub mod budget;
pub mod claim;
pub mod clock;
pub mod diagnose;
pub mod error;
pub mod ids;
pub mod limits;
pub mod machine;
pub mod names;
pub mod observer;
pub mod payload;
pub mod priority;
pub mod progress;
pub mod reap;
pub mod record;
pub mod retry;
pub mod session;
pub mod settlement;
pub mod spec;
pub mod store;
pub mod text;
pub mod time;
pub mod wake;

pub use admin::TaskAdmin;
/// What the ports are written with, and so what implements them: `#[async_trait] impl TaskStore for MyStore { … }`.
pub use async_trait::async_trait;
pub use budget::Budget;
pub use claim::{ClaimReply, ClaimRequest, Claimed, ClaimedTask, Queues, Scope};
pub use clock::{Clock, Entropy};
pub use diagnose::{Diagnose, Examination, Finding};
pub use error::{ErrorKind, StoreError};
pub use ids::{ClaimId, Fence, Nonce, SessionId, TaskId};
pub use limits::StoreLimits;
pub use machine::{Event, FailureReason, Status, TaskState, TransitionError, transition};
pub use names::{NameError, QueueName, TaskType};
pub use observer::{Observation, Observer};
pub use payload::{Payload, TaskResult};
pub use priority::Priority;
pub use progress::{Percent, Progress};
pub use record::{AttemptRecord, TaskRecord};
pub use retry::{Backoff, Jitter, Retry};
pub use settlement::{Outcome, Run, Settle, Settled, Settlement};
pub use spec::{Enqueued, IdempotencyKey, NewTask, Start, TaskSpec};
pub use store::{Migrate, Store, TaskStore, Transactional};
pub use text::ErrorText;
pub use time::Timestamp;
pub use wake::{Due, WakeChannel};
