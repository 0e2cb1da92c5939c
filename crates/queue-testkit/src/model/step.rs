use std::time::Duration;

use queue_core::Status;
use queue_core::admin::Action;

/// One of what is there when the step is made, counted from the latest; beyond the first it begins anew. A step that finds
/// nothing to refer to does nothing, so that sequences shrink freely.
#[derive(Clone, Copy, Debug)]
pub struct Pick(pub u8);

impl Pick {
    /// The one picked.
    pub(super) fn of<T>(self, all: &[T]) -> Option<&T> {
        let back = usize::from(self.0).checked_rem(all.len())?;
        all.get(all.len() - 1 - back)
    }
}

/// A length of time that is over at once, or not within the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Over at once.
    Zero,
    /// So many hours.
    Hours(u8),
    /// The longest there is.
    Longest,
}

impl Length {
    /// It, as a duration.
    pub(super) const fn duration(self) -> Duration {
        match self {
            Self::Zero => Duration::ZERO,
            Self::Hours(hours) => Duration::from_secs(hours as u64 * 3600),
            Self::Longest => Duration::MAX,
        }
    }
}

/// How long a session lives without renewal.
#[derive(Clone, Copy, Debug)]
pub enum Lease {
    /// Its lease has ended when it begins.
    Over,
    /// Longer than the test.
    Long,
}

/// A task to be enqueued.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Which type.
    pub kind: u8,
    /// Which queue.
    pub queue: u8,
    /// Its priority.
    pub priority: i8,
    /// How long until it is due; `None` is a point in time that is past.
    pub delay: Option<Length>,
    /// Attempts allowed.
    pub attempts: u16,
    /// Which backoff.
    pub backoff: u8,
    /// Its budget; `None` is none.
    pub budget: Option<Length>,
    /// Which idempotency key.
    pub key: Option<u8>,
    /// The payload's bytes, each of them this number.
    pub bytes: u8,
}

/// Which queues and types.
#[derive(Clone, Debug)]
pub struct Reach {
    /// These queues; `None` is all.
    pub queues: Option<Vec<u8>>,
    /// These types.
    pub kinds: Vec<u8>,
    /// The queues in which tasks of other types are failed; `None` is all.
    pub fails: Option<Vec<u8>>,
}

/// What a claim wants.
#[derive(Clone, Debug)]
pub struct Wish {
    /// For which session.
    pub session: Pick,
    /// What may be taken.
    pub reach: Reach,
    /// Tasks at most.
    pub tasks: usize,
    /// Payload bytes at most.
    pub bytes: Option<u64>,
    /// Suspects at most.
    pub suspects: usize,
    /// Tasks of a type at most.
    pub of_kind: Option<(u8, usize)>,
}

/// Who settles.
#[derive(Clone, Copy, Debug)]
pub enum Who {
    /// The claim's holder.
    Holder,
    /// The reaper.
    Reaper,
    /// Somebody whose claim never was.
    Stranger,
}

/// What happened to a run.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    /// It returned a value of so many bytes; zero is none.
    Succeeded(u32),
    /// It returned an error, and may have said how long to wait.
    Errored(Option<Length>),
    /// It said: do not retry.
    Rejected,
    /// It panicked.
    Panicked,
    /// It asked to be run later.
    Snoozed(Length),
    /// It was given back.
    Released,
    /// It was cancelled.
    Cancelled,
    /// Its budget was spent.
    OutOfBudget,
    /// Its worker is gone.
    Lost,
    /// A retry, whether or not an attempt is left: what no core decides.
    RetryAnyway,
}

/// One settlement.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Of which of all tasks that were ever claimed, as that claim left it.
    pub held: Pick,
    /// By whom.
    pub who: Who,
    /// What happened.
    pub ending: Ending,
    /// Whether the worker knew of a cancel request.
    pub cancelled: bool,
}

/// One step of a sequence.
#[derive(Clone, Debug)]
pub enum Step {
    /// Enqueues a batch.
    Enqueue(Vec<Draft>),
    /// Enqueues an earlier batch once more, under the same ids.
    EnqueueAgain(Pick),
    /// Opens a session.
    Open(Lease),
    /// Opens a session that was opened before.
    Reopen(Pick, Lease),
    /// Renews a session.
    Renew(Pick, Lease),
    /// Closes a session.
    Close(Pick),
    /// Claims.
    Claim(Wish),
    /// Resolves a claim's id before it is used, which makes it void, and claims under it then.
    ClaimVoid(Wish),
    /// Resolves a claim.
    Resolve(Pick),
    /// Settles.
    Settle(Vec<End>),
    /// Settles and claims in one trip.
    Trip(Vec<End>, Wish),
    /// Reports progress of tasks that were claimed at some time.
    Progress(Vec<(Pick, u8)>),
    /// Fences sessions whose lease has ended, so many at most.
    Fence(usize),
    /// Settles what is lost, so many at most.
    Reap(usize),
    /// Fails what is past its budget, so many at a time, until there is no more.
    Sweep(usize),
    /// Acts on tasks by their ids, one of them perhaps unknown.
    Act(Vec<Pick>, Action),
    /// Acts on tasks of this status, so many at most.
    ActOn(Status, usize, Action),
    /// Pauses or resumes a queue.
    Pause(u8, bool),
    /// Wants a session's pool to drain.
    Drain(Pick),
    /// Prunes what has ended, or what ended days ago, so many at most.
    Prune(Option<Status>, bool, usize),
    /// Lists tasks, of this status and queue, in pages of so many.
    List(Option<Status>, Option<u8>, usize),
    /// Asks whether anything is left to do.
    Busy(Reach),
    /// Two clients do these at the same time.
    AtOnce(Vec<Self>, Vec<Self>),
}
