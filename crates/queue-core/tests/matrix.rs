//! The whole matrix of status and event, as a snapshot: whoever changes a rule sees it here.

use std::fmt::Write as _;
use std::time::Duration;

use queue_core::settlement::Requeue;
use queue_core::{
    Budget, ClaimId, ErrorText, Event, FailureReason, Fence, Settlement, Status, TaskResult, TaskState, Timestamp,
    TransitionError, transition,
};

const NOW: Timestamp = Timestamp::from_micros(1_000);

fn claim(id: u64) -> ClaimId {
    ClaimId::new(id).unwrap()
}

fn task(status: Status) -> TaskState {
    let ran = status != Status::Queued;
    let task = TaskState {
        status,
        reason: (status == Status::Failed).then_some(FailureReason::Exhausted),
        attempt: u16::from(ran),
        max_attempts: 3,
        losses: 0,
        fence: Fence::new(u32::from(ran)),
        claim: ran.then(|| claim(7)),
        cancel_requested: false,
        created_at: Timestamp::from_micros(10),
        run_at: Timestamp::from_micros(10),
        started_at: ran.then_some(Timestamp::from_micros(20)),
        completed_at: status.is_terminal().then_some(Timestamp::from_micros(30)),
        deadline_at: Some(Timestamp::from_micros(10_000)),
        budget: Budget::of(Duration::from_micros(9_990)),
    };
    assert_eq!(task.defect(), None);
    task
}

fn events(settlement: &Settlement) -> [Event<'_>; 8] {
    [
        Event::Claim(claim(8)),
        Event::Settle { claim: claim(7), leaves: claim(7), settlement },
        Event::Settle { claim: claim(7), leaves: claim(9), settlement },
        Event::Settle { claim: claim(6), leaves: claim(6), settlement },
        Event::Expire,
        Event::Unregister,
        Event::Cancel,
        Event::Retry,
    ]
}

fn told(result: &Result<TaskState, TransitionError>) -> String {
    match result {
        Err(error) => format!("✗ {error}"),
        Ok(next) => {
            assert_eq!(next.defect(), None);
            let reason = next.reason.map(|reason| format!("({reason})")).unwrap_or_default();
            let flag = if next.cancel_requested { " cancel requested" } else { "" };
            format!(
                "{}{reason} attempt {} fence {} claim {}{flag}",
                next.status,
                next.attempt,
                next.fence,
                next.claim.map_or("none".to_owned(), |claim| claim.to_string()),
            )
        }
    }
}

#[test]
fn every_status_meets_every_event() {
    let complete = Settlement::Complete { result: TaskResult::None };
    let names = [
        "claim by 8",
        "settle 7",
        "settle 7, reaper 9",
        "settle 6",
        "expire, budget left",
        "unregister",
        "cancel",
        "retry",
    ];
    let mut matrix = String::new();
    for status in Status::ALL {
        for (event, name) in events(&complete).iter().zip(names) {
            writeln!(matrix, "{status:<10} {name:<20} {}", told(&transition(&task(*status), event, NOW))).unwrap();
        }
    }
    insta::assert_snapshot!(matrix);
}

#[test]
fn every_settlement_of_a_running_task() {
    let error = || ErrorText::from("e");
    let delay = Duration::from_micros(500);
    let requeue = |kind| Settlement::Requeue { delay, kind };
    let mut settlements = vec![
        Settlement::Complete { result: TaskResult::None },
        requeue(Requeue::Retry { error: error() }),
        requeue(Requeue::Snooze),
        requeue(Requeue::Release),
        requeue(Requeue::Recover { error: error() }),
    ];
    settlements
        .extend(FailureReason::ALL.iter().map(|reason| Settlement::Fail { reason: *reason, error: Some(error()) }));
    let mut table = String::new();
    for settlement in &settlements {
        let event = Event::Settle { claim: claim(7), leaves: claim(7), settlement };
        let next = transition(&TaskState { losses: 1, ..task(Status::Running) }, &event, NOW);
        let losses = next.as_ref().map_or(0, |next| next.losses);
        assert_eq!(next.as_ref().map(|next| next.status), Ok(settlement.status()));
        let kept = if settlement.error().is_some() { "error kept" } else { "" };
        writeln!(table, "{:<16} {} losses {losses} {kept}", settlement.label(), told(&next)).unwrap();
    }
    insta::assert_snapshot!(table);
}

#[test]
fn a_claim_needs_a_due_task_with_time_and_attempts_left() {
    let queued = task(Status::Queued);
    let claimed = |task: TaskState| transition(&task, &Event::Claim(claim(8)), NOW);
    assert_eq!(
        claimed(TaskState { run_at: NOW.after(Duration::from_micros(1)), ..queued.clone() }),
        Err(TransitionError::NotDue)
    );
    assert_eq!(claimed(TaskState { deadline_at: Some(NOW), ..queued.clone() }), Err(TransitionError::DeadlinePassed));
    assert_eq!(claimed(TaskState { attempt: 3, ..queued.clone() }), Err(TransitionError::AttemptsSpent));
    let expired = transition(&TaskState { deadline_at: Some(NOW), ..queued.clone() }, &Event::Expire, NOW).unwrap();
    assert_eq!(expired.reason, Some(FailureReason::BudgetExceeded));
    let unlimited = TaskState { deadline_at: None, budget: Budget::NONE, ..queued };
    assert_eq!(transition(&unlimited, &Event::Expire, Timestamp::MAX), Err(TransitionError::NotExpired));
}

#[test]
fn an_impossible_row_is_told_as_defect() {
    let defects = [
        TaskState { reason: Some(FailureReason::Crashed), ..task(Status::Running) },
        TaskState { completed_at: None, ..task(Status::Completed) },
        TaskState { attempt: 4, ..task(Status::Completed) },
        TaskState { claim: None, ..task(Status::Running) },
        TaskState { attempt: 3, ..task(Status::Queued) },
        TaskState { deadline_at: None, ..task(Status::Queued) },
    ];
    let told: Vec<_> = defects.iter().map(|task| task.defect().expect("a defect")).collect();
    insta::assert_snapshot!(told.join("\n"));
    assert!(!task(Status::Queued).is_suspect() && TaskState { losses: 1, ..task(Status::Queued) }.is_suspect());
}

#[test]
fn codes_and_names_round_trip() {
    for status in Status::ALL {
        assert_eq!(Status::from_code(status.code()), Some(*status));
        assert_eq!(Status::from_name(status.as_str()), Some(*status));
    }
    for reason in FailureReason::ALL {
        assert_eq!(FailureReason::from_code(reason.code()), Some(*reason));
        assert_eq!(FailureReason::from_name(reason.as_str()), Some(*reason));
    }
    assert_eq!((Status::from_code(9), FailureReason::from_code(0), Status::from_name("done")), (None, None, None));
}
