//! Which rows a claim takes.

use std::sync::Arc;

use queue_core::admission::{Admission, Candidate, ENDED_MAX, Verdict};
use queue_core::claim::Capacity;
use queue_core::{ClaimId, ClaimRequest, QueueName, Queues, Scope, SessionId, TaskType, Timestamp};

static QUEUE: QueueName = QueueName::DEFAULT;
static MAIL: TaskType = TaskType::new("mail");
static RARE: TaskType = TaskType::new("rare");
const NOW: Timestamp = Timestamp::from_micros(100);

fn request(capacity: Capacity) -> ClaimRequest {
    ClaimRequest {
        session: SessionId::new(1).unwrap(),
        claim: ClaimId::new(1).unwrap(),
        scope: Scope::of([MAIL.clone(), RARE.clone()]),
        capacity,
    }
}

fn candidate(task_type: &TaskType) -> Candidate<'_> {
    Candidate { queue: &QUEUE, task_type, deadline_at: None, suspect: false, bytes: 10 }
}

#[test]
fn stops_when_the_slots_are_full() {
    let request = request(Capacity::of(1));
    let mut admission = Admission::new(&request, NOW);
    assert_eq!((admission.room(), admission.suspect_room()), (1, 1));
    assert_eq!(admission.admit(&candidate(&MAIL)), Verdict::Run);
    assert_eq!(admission.admit(&candidate(&MAIL)), Verdict::Full);
    assert_eq!((admission.room(), admission.suspect_room()), (0, 0));
}

#[test]
fn a_task_larger_than_the_byte_budget_is_taken_alone() {
    let request = request(Capacity { bytes: 15, ..Capacity::of(9) });
    let mut admission = Admission::new(&request, NOW);
    assert_eq!(admission.admit(&Candidate { bytes: 99, ..candidate(&MAIL) }), Verdict::Run);
    assert_eq!(admission.admit(&candidate(&MAIL)), Verdict::Full);
    let mut admission = Admission::new(&request, NOW);
    assert_eq!(admission.admit(&candidate(&MAIL)), Verdict::Run);
    assert_eq!(admission.admit(&candidate(&MAIL)), Verdict::Full);
}

#[test]
fn limited_types_and_suspects_are_skipped_and_not_waited_for() {
    let request = request(Capacity { suspects: 1, per_type: vec![(RARE.clone(), 1)], ..Capacity::of(9) });
    let mut admission = Admission::new(&request, NOW);
    let suspect = Candidate { suspect: true, ..candidate(&MAIL) };
    let verdicts =
        [candidate(&RARE), candidate(&RARE), suspect, suspect, candidate(&MAIL)].map(|one| admission.admit(&one));
    assert_eq!(verdicts, [Verdict::Run, Verdict::Skip, Verdict::Run, Verdict::Skip, Verdict::Run]);
}

#[test]
fn what_has_no_room_of_its_own_is_skipped_however_large_it_is() {
    let capacity = Capacity { suspects: 0, per_type: vec![(RARE.clone(), 0)], bytes: 25, ..Capacity::of(9) };
    let request = request(capacity);
    let mut admission = Admission::new(&request, NOW);
    let rare = Candidate { bytes: 99, ..candidate(&RARE) };
    let suspect = Candidate { suspect: true, bytes: 99, ..candidate(&MAIL) };
    let verdicts = [candidate(&MAIL), rare, suspect, candidate(&MAIL), candidate(&MAIL)];
    let verdicts = verdicts.map(|one| admission.admit(&one));
    assert_eq!(verdicts, [Verdict::Run, Verdict::Skip, Verdict::Skip, Verdict::Run, Verdict::Full]);
}

#[test]
fn spent_budgets_end_without_taking_a_slot() {
    let request = request(Capacity::of(0));
    let mut admission = Admission::new(&request, NOW);
    let spent = Candidate { deadline_at: Some(NOW), ..candidate(&MAIL) };
    for _ in 0..ENDED_MAX {
        assert_eq!(admission.admit(&spent), Verdict::Expire);
    }
    assert_eq!(admission.admit(&spent), Verdict::Skip);
}

#[test]
fn other_types_are_left_alone_unless_this_worker_fails_them() {
    let other = TaskType::new("other");
    let mut request = request(Capacity::of(9));
    assert_eq!(Admission::new(&request, NOW).admit(&candidate(&other)), Verdict::Skip);
    request.scope.fail_unregistered = Queues::All;
    assert_eq!(Admission::new(&request, NOW).admit(&candidate(&other)), Verdict::Unregister);
    let spent = Candidate { deadline_at: Some(NOW), ..candidate(&other) };
    assert_eq!(Admission::new(&request, NOW).admit(&spent), Verdict::Expire);
    request.scope.queues = Queues::Named(Arc::from([QueueName::new("elsewhere")]));
    assert_eq!(Admission::new(&request, NOW).admit(&candidate(&other)), Verdict::Skip);
}
