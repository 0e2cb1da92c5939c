//! What the reaper works on: tasks whose worker is gone.

use crate::ids::{ClaimId, SessionId, TaskId};
use crate::names::TaskType;
use crate::settlement::Run;
use crate::time::Timestamp;

/// The store's clock and which server it is. A jump of the clock, or another server, makes the reaper wait one whole lease,
/// so that nobody's live work is taken for lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreTime {
    /// The store's clock.
    pub now: Timestamp,
    /// An opaque mark of the server that answered; it changes when another server answers.
    pub server: String,
}

/// A session that was fenced just now, because its lease had ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FencedSession {
    /// Its id.
    pub id: SessionId,
    /// Its name.
    pub name: String,
}

/// A running task held by a fenced session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostTask {
    /// Its id.
    pub id: TaskId,
    /// The claim that still holds it.
    pub claim: ClaimId,
    /// Its type.
    pub task_type: TaskType,
    /// What the decision about its end depends on, a cancel request included.
    pub run: Run,
}

/// Lost tasks, and the clock to judge them by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The store's clock.
    pub now: Timestamp,
    /// The tasks, by id.
    pub tasks: Vec<LostTask>,
}

/// What a sweep did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swept {
    /// What it failed, because its budget was spent.
    pub ended: Vec<crate::claim::Ended>,
    /// Whether it came to the end of what waits, so that the next call begins anew.
    pub finished: bool,
}
