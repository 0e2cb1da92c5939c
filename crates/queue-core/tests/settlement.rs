//! What the outcome of a run comes to, reason by reason.

use std::time::Duration;

use queue_core::settlement::{RECOVERY_DELAY_MAX, Requeue};
use queue_core::{
    Backoff, ClaimId, ErrorText, FailureReason, Jitter, Outcome, Run, Settle, Settled, Settlement, Status, TaskId,
    TaskResult, Timestamp,
};

const NOW: Timestamp = Timestamp::from_micros(1_000_000);

fn run() -> Run {
    Run {
        attempt: 1,
        max_attempts: 3,
        backoff: Backoff::DEFAULT,
        deadline_at: Some(NOW.after(Duration::from_secs(60))),
        cancel_requested: false,
    }
}

fn error() -> ErrorText {
    ErrorText::from("boom")
}

fn errored() -> Outcome {
    Outcome::Errored { error: error(), delay: None }
}

fn every_outcome() -> [Outcome; 9] {
    [
        Outcome::Succeeded(TaskResult::None),
        errored(),
        Outcome::Rejected(error()),
        Outcome::Panicked(error()),
        Outcome::Snoozed(Duration::from_secs(1)),
        Outcome::Released,
        Outcome::Cancelled,
        Outcome::OutOfBudget,
        Outcome::Lost,
    ]
}

fn labels(run: &Run) -> Vec<&'static str> {
    every_outcome().into_iter().map(|outcome| Settlement::decide(run, outcome, NOW, Jitter::ZERO).label()).collect()
}

#[test]
fn with_attempts_and_time_left() {
    assert_eq!(
        labels(&run()),
        [
            "completed",
            "retried",
            "rejected",
            "panicked",
            "snoozed",
            "released",
            "cancelled",
            "budget_exceeded",
            "retried"
        ]
    );
}

#[test]
fn on_the_last_attempt() {
    assert_eq!(
        labels(&Run { attempt: 3, ..run() }),
        [
            "completed",
            "exhausted",
            "rejected",
            "panicked",
            "snoozed",
            "released",
            "cancelled",
            "budget_exceeded",
            "crashed"
        ]
    );
}

#[test]
fn at_the_deadline_only_what_would_run_again_is_over_budget() {
    assert_eq!(
        labels(&Run { deadline_at: Some(NOW), ..run() }),
        [
            "completed",
            "budget_exceeded",
            "rejected",
            "panicked",
            "budget_exceeded",
            "budget_exceeded",
            "cancelled",
            "budget_exceeded",
            "budget_exceeded"
        ]
    );
}

#[test]
fn a_cancel_wins_over_everything_but_success() {
    let cancelled = Run { cancel_requested: true, attempt: 3, deadline_at: Some(NOW), ..run() };
    let mut expected = ["cancelled"; 9];
    expected[0] = "completed";
    assert_eq!(labels(&cancelled), expected);
    let settlement = Settlement::decide(&cancelled, errored(), NOW, Jitter::ZERO);
    assert_eq!(settlement.error(), Some(&error()));
}

#[test]
fn exhausted_comes_before_budget_exceeded() {
    let run = Run { attempt: 3, deadline_at: Some(NOW), ..run() };
    let settlement = Settlement::decide(&run, errored(), NOW, Jitter::ZERO);
    assert_eq!(settlement, Settlement::Fail { reason: FailureReason::Exhausted, error: Some(error()) });
}

#[test]
fn a_retry_past_the_deadline_keeps_its_error() {
    let run = Run { attempt: 2, max_attempts: 9, deadline_at: Some(NOW.after(Duration::from_secs(30))), ..run() };
    let settlement = Settlement::decide(&run, errored(), NOW, Jitter::ZERO);
    assert_eq!(settlement, Settlement::Fail { reason: FailureReason::BudgetExceeded, error: Some(error()) });
}

#[test]
fn the_handler_may_name_the_delay() {
    let outcome = Outcome::Errored { error: error(), delay: Some(Duration::from_secs(7)) };
    let settlement = Settlement::decide(&run(), outcome, NOW, Jitter::ZERO);
    let expected = Settlement::Requeue { delay: Duration::from_secs(7), kind: Requeue::Retry { error: error() } };
    assert_eq!(settlement, expected);
}

#[test]
fn a_lost_task_waits_a_jittered_second_at_most() {
    let settlement = Settlement::decide(&run(), Outcome::Lost, NOW, Jitter::from_random(u64::MAX));
    let Settlement::Requeue { delay, kind: Requeue::Recover { error } } = settlement else {
        panic!("not recovered: {settlement:?}")
    };
    assert!(delay <= RECOVERY_DELAY_MAX && delay > RECOVERY_DELAY_MAX / 2);
    assert!(error.as_str().contains("lost"));
}

#[test]
fn the_reaper_leaves_its_own_id() {
    let (task, claim) = (TaskId::new(1).unwrap(), ClaimId::new(2).unwrap());
    let reaper = ClaimId::new(3).unwrap();
    let settlement = || Settlement::Complete { result: TaskResult::None };
    assert_eq!(Settle::by_holder(task, claim, settlement()).leaves, claim);
    assert_eq!(Settle::by_reaper(task, claim, reaper, settlement()).leaves, reaper);
    assert!(Settled::Applied.is_applied() && Settled::Already(Status::Queued).is_applied());
    assert!(!Settled::Stale.is_applied());
}
