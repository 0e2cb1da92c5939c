//! The core: what is decided for each task, and when it is tried again.

use std::hint::black_box;
use std::time::Duration;

use queue_core::admission::{Admission, Candidate};
use queue_core::claim::Capacity;
use queue_core::settlement::Requeue;
use queue_core::{
    Backoff, Budget, ClaimId, ClaimRequest, ErrorText, Event, FailureReason, Jitter, Outcome, QueueName, Run, Scope,
    SessionId, Settlement, TaskResult, TaskState, TaskType, Timestamp, transition,
};

use crate::{Case, Work};

pub(crate) const CASES: &[Case] = &[
    ("transition/claim", claim),
    ("transition/complete", complete),
    ("transition/every_event", every_event),
    ("settlement/every_outcome", every_outcome),
    ("admission/one_type", one_type),
    ("admission/limited_types", limited_types),
    ("backoff/delay", delay),
    ("backoff/text", text),
];

const TIMES: usize = 1_000;
const NOW: Timestamp = Timestamp::from_micros(1_000_000);
const CLAIM: ClaimId = ClaimId::from_random(7);

fn queued() -> TaskState {
    TaskState::enqueued(NOW, NOW, 3, Budget::DEFAULT)
}

/// The state after an event that applies.
fn after(task: &TaskState, event: &Event<'_>) -> TaskState {
    transition(task, event, NOW).expect("the event applies")
}

fn running() -> TaskState {
    after(&queued(), &Event::Claim(CLAIM))
}

const fn settle(settlement: &Settlement) -> Event<'_> {
    Event::Settle { claim: CLAIM, leaves: CLAIM, settlement }
}

fn claim() -> Work {
    let task = queued();
    Work::repeat(TIMES, move || transition(black_box(&task), &Event::Claim(CLAIM), NOW))
}

fn complete() -> Work {
    let (task, settlement) = (running(), Settlement::Complete { result: TaskResult::None });
    Work::repeat(TIMES, move || transition(black_box(&task), &settle(black_box(&settlement)), NOW))
}

/// Every status with every event, whether or not they go together.
fn every_event() -> Work {
    let error = || ErrorText::from("no such account");
    let requeue = |kind| Settlement::Requeue { delay: Duration::from_secs(30), kind };
    let settlements = [
        Settlement::Complete { result: TaskResult::None },
        Settlement::Fail { reason: FailureReason::Exhausted, error: Some(error()) },
        requeue(Requeue::Retry { error: error() }),
        requeue(Requeue::Snooze),
        requeue(Requeue::Release),
        requeue(Requeue::Recover { error: error() }),
    ];
    let states =
        [queued(), running(), after(&running(), &settle(&settlements[0])), after(&running(), &settle(&settlements[1]))];
    let others = [Event::Claim(CLAIM), Event::Expire, Event::Unregister, Event::Cancel, Event::Retry];
    let rounds = 25;
    Work::new(rounds * states.len() * (settlements.len() + others.len()), move || {
        for _ in 0..rounds {
            for state in &states {
                for event in settlements.iter().map(settle).chain(others.iter().cloned()) {
                    let _ = black_box(transition(black_box(state), &event, NOW));
                }
            }
        }
    })
}

fn every_outcome() -> Work {
    let run = Run {
        attempt: 2,
        max_attempts: 3,
        backoff: exponential(),
        deadline_at: Some(NOW.after(Duration::from_hours(1))),
        cancel_requested: false,
    };
    let error = || ErrorText::from("no such account");
    let outcomes = [
        Outcome::Succeeded(TaskResult::None),
        Outcome::Errored { error: error(), delay: None },
        Outcome::Rejected(error()),
        Outcome::Panicked(error()),
        Outcome::Snoozed(Duration::from_secs(30)),
        Outcome::Released,
        Outcome::Cancelled,
        Outcome::OutOfBudget,
        Outcome::Lost,
    ];
    let rounds = 100;
    Work::new(rounds * outcomes.len(), move || {
        for _ in 0..rounds {
            for outcome in &outcomes {
                let _ = black_box(Settlement::decide(black_box(&run), outcome.clone(), NOW, Jitter::ZERO));
            }
        }
    })
}

fn admit(types: Vec<TaskType>, per_type: Vec<(TaskType, usize)>) -> Work {
    let request = ClaimRequest {
        session: SessionId::from_random(3),
        claim: CLAIM,
        scope: Scope::of(types.clone()),
        capacity: Capacity { per_type, ..Capacity::of(TIMES) },
    };
    Work::new(TIMES, move || {
        let mut admission = Admission::new(black_box(&request), NOW);
        for task_type in types.iter().cycle().take(TIMES) {
            let queue = &QueueName::DEFAULT;
            let candidate = Candidate { queue, task_type, deadline_at: None, suspect: false, bytes: 100 };
            let _ = black_box(admission.admit(&candidate));
        }
    })
}

fn one_type() -> Work {
    admit(vec![TaskType::new("mail.welcome")], Vec::new())
}

/// Twenty types, each of which has a limit that is reached half way.
fn limited_types() -> Work {
    let types = (0..20).map(|number| TaskType::parse(format!("report.export_{number:02}")).expect("a name"));
    let types: Vec<_> = types.collect();
    let limits = types.iter().map(|name| (name.clone(), TIMES / 40)).collect();
    admit(types, limits)
}

const fn exponential() -> Backoff {
    Backoff::Exponential { base: Duration::from_secs(5), max: Duration::from_mins(10) }
}

fn backoffs() -> [Backoff; 3] {
    [Backoff::DEFAULT, Backoff::Fixed(Duration::from_secs(30)), exponential()]
}

fn delay() -> Work {
    let (backoffs, attempts, rounds) = (backoffs(), 10, 40);
    Work::new(rounds * backoffs.len() * usize::from(attempts), move || {
        for round in 0..rounds {
            for backoff in &backoffs {
                for attempt in 1..=attempts {
                    black_box(black_box(backoff).delay(attempt, Jitter::from_random((round as u64) << 40)));
                }
            }
        }
    })
}

/// To its stored form and back.
fn text() -> Work {
    let (backoffs, rounds) = (backoffs(), 300);
    Work::new(rounds * backoffs.len(), move || {
        for _ in 0..rounds {
            for backoff in &backoffs {
                let stored = black_box(backoff).stored().expect("short");
                let _ = black_box(stored.parse::<Backoff>());
            }
        }
    })
}
