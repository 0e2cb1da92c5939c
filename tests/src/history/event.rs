//! One thing that happened.

use queue_core::settlement::Requeue;
use queue_core::{Settled, Settlement};
use serde::{Deserialize, Serialize};

/// Something that happened in a process, at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Microseconds on a clock that all processes of the history share. The order of events of one process that
    /// have the same time is the order in which they were written.
    pub at: u64,
    /// The process.
    pub process: u32,
    /// What it is about.
    #[serde(flatten)]
    pub fact: Fact,
}

/// What happened. Ids are the numbers of `queue_core`'s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
#[expect(missing_docs, reason = "fields are named after what they hold in `queue_core`")]
pub enum Fact {
    /// The process begins.
    ProcessStarted,
    /// The process was killed: nothing of it happens any more. Written by who killed it, under the victim's number.
    ProcessKilled,
    /// The process was frozen (SIGSTOP), as `ProcessKilled` is written.
    ProcessFrozen,
    /// The process goes on.
    ProcessThawed,
    /// The process ended by itself.
    ProcessEnded,
    /// The store's clock moved, or another server answers: leases cannot be judged for a while.
    ClockMoved { by_ms: i64 },
    /// An enqueue is sent. `job` is what makes the task what it is, whatever id it got.
    Enqueuing { task: u64, job: Option<u64> },
    /// An enqueue was acknowledged, under this id.
    Enqueued { task: u64 },
    /// A session was opened, as it was asked at `since`.
    SessionOpened { session: u64, lease_us: u64, since: u64 },
    /// A renewal was acknowledged that was sent at `since`.
    Renewed { session: u64, since: u64 },
    /// A reaper fenced the session, because its lease was over.
    SessionFenced { session: u64 },
    /// The session is ended by its own process.
    SessionClosed { session: u64 },
    /// A claim, or what it was resolved to, was answered: the task is held.
    Claimed { task: u64, claim: u64, session: u64, fence: u32, attempt: u16, max_attempts: u16 },
    /// A handler starts.
    Started { task: u64, fence: u32, attempt: u16, max_attempts: u16 },
    /// A handler ends.
    Ended { task: u64, fence: u32, how: How },
    /// A settlement is sent.
    Settling { task: u64, claim: u64, to: To, by_reaper: bool },
    /// A settlement that was sent at `since` was answered.
    Settled { task: u64, claim: u64, to: To, by_reaper: bool, since: u64, answer: Answer },
    /// An operator's action is sent.
    Acting { task: u64, operation: Operation },
    /// An operator's action was carried out.
    Acted { task: u64, operation: Operation },
    /// Something that only people read, such as a fault that was injected.
    Note { text: String },
}

/// How a handler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It returned a value.
    Succeeded,
    /// It returned an error, to be tried again or not.
    Errored,
    /// It asked to be run later.
    Snoozed,
    /// It panicked.
    Panicked,
    /// Its future was dropped.
    Dropped,
}

/// What a settlement makes of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum To {
    /// Completed.
    Completed,
    /// Failed for good.
    Failed,
    /// Tried again; the attempt is spent.
    Retried,
    /// Recovered from a lost worker; the attempt is spent.
    Recovered,
    /// Run later, the attempt refunded.
    Snoozed,
    /// Given back, the attempt refunded.
    Released,
}

impl To {
    /// Whether the task waits again.
    #[must_use]
    pub const fn requeues(self) -> bool {
        !matches!(self, Self::Completed | Self::Failed)
    }

    /// Whether the attempt is given back.
    #[must_use]
    pub const fn refunds(self) -> bool {
        matches!(self, Self::Snoozed | Self::Released)
    }
}

impl From<&Settlement> for To {
    fn from(settlement: &Settlement) -> Self {
        match settlement {
            Settlement::Complete { .. } => Self::Completed,
            Settlement::Fail { .. } => Self::Failed,
            Settlement::Requeue { kind: Requeue::Recover { .. }, .. } => Self::Recovered,
            Settlement::Requeue { kind: Requeue::Snooze, .. } => Self::Snoozed,
            Settlement::Requeue { kind: Requeue::Release, .. } => Self::Released,
            Settlement::Requeue { .. } => Self::Retried,
        }
    }
}

/// What a store says of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It was written.
    Applied,
    /// It had been written before.
    Already,
    /// The claim is not current; nothing was written.
    Stale,
    /// The claim is not current, says the last of several tries that the store made by itself. What became of the tries before
    /// it is not known: one of them may have been written, and the task claimed anew since.
    Unclear,
}

impl Answer {
    /// What a store says, having `repeated` or not what it may have written already.
    #[must_use]
    pub const fn of(settled: Settled, repeated: bool) -> Self {
        match settled {
            Settled::Applied => Self::Applied,
            Settled::Already(_) => Self::Already,
            Settled::Stale if repeated => Self::Unclear,
            Settled::Stale => Self::Stale,
        }
    }

    /// Whether it was written.
    #[must_use]
    pub const fn is_accepted(self) -> bool {
        matches!(self, Self::Applied | Self::Already)
    }
}

/// What an operator does to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Cancels it.
    Cancel,
    /// Queues it again, with fresh attempts.
    Retry,
    /// Removes it.
    Delete,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_of_json() {
        let fact = Fact::Settled {
            task: 7,
            claim: u64::MAX >> 1,
            to: To::Released,
            by_reaper: false,
            since: 3,
            answer: Answer::Already,
        };
        let event = Event { at: 5, process: 2, fact };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(
            line,
            r#"{"at":5,"process":2,"fact":"settled","task":7,"claim":9223372036854775807,"to":"released","by_reaper":false,"since":3,"answer":"already"}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        let killed = Event { at: 6, process: 1, fact: Fact::ProcessKilled };
        assert_eq!(serde_json::from_str::<Event>(r#"{"at":6,"process":1,"fact":"process_killed"}"#).unwrap(), killed);
    }

    #[test]
    fn only_what_was_repeated_and_came_too_late_is_unclear() {
        let answers = [Settled::Applied, Settled::Already(queue_core::Status::Queued), Settled::Stale];
        let of = |repeated| answers.map(|settled| Answer::of(settled, repeated));
        assert_eq!(of(false), [Answer::Applied, Answer::Already, Answer::Stale]);
        assert_eq!(of(true), [Answer::Applied, Answer::Already, Answer::Unclear]);
        assert_eq!(of(true).map(Answer::is_accepted), [true, true, false]);
    }

    #[test]
    fn what_waits_again_either_spent_its_attempt_or_got_it_back() {
        let refunded = [To::Completed, To::Failed, To::Retried, To::Recovered, To::Snoozed, To::Released]
            .map(|to| (to.requeues(), to.refunds()));
        let ended = (false, false);
        assert_eq!(refunded, [ended, ended, (true, false), (true, false), (true, true), (true, true)]);
    }
}
