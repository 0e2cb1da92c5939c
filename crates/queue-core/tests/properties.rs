//! Properties of the state machine over random sequences of events: what the docs promise, whatever happens.

use std::borrow::Cow;
use std::time::Duration;

use proptest::prelude::*;
use queue_core::{
    Backoff, Budget, ClaimId, ErrorText, Event, Jitter, Outcome, Run, Settlement, Status, TaskResult, TaskState,
    Timestamp, TransitionError, transition,
};

/// One step of a task's life. Which claim a settle names is relative to the one that is current.
#[derive(Clone, Debug)]
enum Step {
    Claim,
    End { outcome: Outcome, stale: bool, by_reaper: bool, cancel_seen: bool, jitter: u64 },
    Expire,
    Unregister,
    Cancel,
    Retry,
    Wait(Duration),
}

fn any_duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::MAX),
        (0..10_000_000_u64).prop_map(Duration::from_micros),
        any::<u64>().prop_map(Duration::from_micros),
    ]
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    let error = || Just(ErrorText::from("e"));
    prop_oneof![
        1 => Just(Outcome::Succeeded(TaskResult::None)),
        4 => (error(), proptest::option::of(any_duration())).prop_map(|(error, delay)| Outcome::Errored { error, delay }),
        1 => error().prop_map(Outcome::Rejected),
        1 => error().prop_map(Outcome::Panicked),
        2 => any_duration().prop_map(Outcome::Snoozed),
        2 => Just(Outcome::Released),
        1 => Just(Outcome::Cancelled),
        1 => Just(Outcome::OutOfBudget),
        4 => Just(Outcome::Lost),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Claim),
        6 => (any_outcome(), prop::bool::weighted(0.2), any::<bool>(), any::<bool>(), any::<u64>()).prop_map(
            |(outcome, stale, by_reaper, cancel_seen, jitter)| {
                Step::End { outcome, stale, by_reaper, cancel_seen, jitter }
            }
        ),
        1 => Just(Step::Expire),
        1 => Just(Step::Unregister),
        1 => Just(Step::Cancel),
        2 => Just(Step::Retry),
        4 => any_duration().prop_map(Step::Wait),
    ]
}

fn any_backoff() -> impl Strategy<Value = Backoff> {
    prop_oneof![
        Just(Backoff::DEFAULT),
        any_duration().prop_map(Backoff::Fixed),
        (any_duration(), any_duration()).prop_map(|(base, max)| Backoff::Exponential { base, max }),
        proptest::collection::vec(any_duration(), 0..4).prop_map(|steps| Backoff::Steps(Cow::Owned(steps))),
    ]
}

fn any_clock() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        4 => (0..2_000_000_000_000_000_i64).prop_map(Timestamp::from_micros),
        1 => Just(Timestamp::from_micros(i64::MIN)),
        1 => Just(Timestamp::MAX),
        1 => any::<i64>().prop_map(Timestamp::from_micros),
    ]
}

fn claim(number: u64) -> ClaimId {
    ClaimId::from_random(number << 1)
}

/// Checks one accepted transition against what is promised.
fn check(before: &TaskState, after: &TaskState, event: &Event<'_>) {
    assert_eq!(after.defect(), None, "{event:?}: {before:?} -> {after:?}");
    assert!(after.attempt <= after.max_attempts, "attempts passed their limit");
    assert!(after.fence >= before.fence, "the fence fell");
    if before.status.is_terminal() {
        assert!(matches!(event, Event::Retry), "an ended task moved by {event:?}");
        assert_eq!((before.status, after.attempt), (Status::Failed, 0));
    }
    if matches!(event, Event::Claim(_)) {
        assert!(after.fence > before.fence && after.attempt == before.attempt + 1);
        assert!(
            before.deadline_at.is_none_or(|deadline| after.started_at.unwrap() < deadline),
            "ran past its deadline"
        );
    }
    if let Event::Settle { settlement: Settlement::Requeue { .. }, .. } = event {
        assert!(after.deadline_at.is_none_or(|deadline| after.run_at < deadline), "a retry landed past the deadline");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_events_breaks_a_promise(
        start in any_clock(),
        delay in any_duration(),
        max_attempts in 1..6_u16,
        budget in prop_oneof![Just(Budget::NONE), any_duration().prop_map(Budget::of)],
        backoff in any_backoff(),
        steps in proptest::collection::vec(any_step(), 1..40),
    ) {
        let mut now = start;
        let mut claims = 0;
        let mut task = TaskState::enqueued(now, now.after(delay), max_attempts, budget);
        prop_assert_eq!(task.defect(), None);
        for step in steps {
            let settlement;
            let event = match step {
                Step::Wait(wait) => {
                    now = now.after(wait);
                    continue;
                }
                Step::Claim => {
                    claims += 1;
                    Event::Claim(claim(claims))
                }
                Step::End { outcome, stale, by_reaper, cancel_seen, jitter } => {
                    let run = Run {
                        attempt: task.attempt,
                        max_attempts: task.max_attempts,
                        backoff: backoff.clone(),
                        deadline_at: task.deadline_at,
                        cancel_requested: cancel_seen && task.cancel_requested,
                    };
                    settlement = Settlement::decide(&run, outcome, now, Jitter::from_random(jitter));
                    let holder = if stale { claim(u64::MAX >> 2) } else { task.claim.unwrap_or(claim(1 << 40)) };
                    let leaves = if by_reaper { claim((1 << 41) + claims) } else { holder };
                    Event::Settle { claim: holder, leaves, settlement: &settlement }
                }
                Step::Expire => Event::Expire,
                Step::Unregister => Event::Unregister,
                Step::Cancel => Event::Cancel,
                Step::Retry => Event::Retry,
            };
            match transition(&task, &event, now) {
                Ok(next) => {
                    check(&task, &next, &event);
                    if let Event::Settle { claim, .. } = &event {
                        prop_assert_eq!(task.claim, Some(*claim), "a stale settle was accepted");
                        // The same settle again finds its own id.
                        let again = transition(&next, &event, now);
                        prop_assert_eq!(again, Err(TransitionError::AlreadySettled));
                    }
                    task = next;
                }
                Err(error) => {
                    let settle = matches!(event, Event::Settle { .. });
                    let illegal = matches!(error, TransitionError::Illegal { .. });
                    prop_assert!(!(settle && illegal), "a settle is applied, repeated or stale, never illegal");
                }
            }
        }
    }

    #[test]
    fn delays_follow_the_policy(backoff in any_backoff(), failed in 1..100_u16, bits in any::<u64>()) {
        let delay = backoff.delay(failed, Jitter::from_random(bits));
        let expected_most = match &backoff {
            Backoff::Fixed(fixed) => *fixed,
            Backoff::Steps(steps) => steps.get(usize::from(failed) - 1).or(steps.last()).copied().unwrap_or_default(),
            Backoff::Exponential { base, max } => {
                let doubled = (1..failed).fold(*base, |bound, _| bound.saturating_mul(2).min(*max));
                doubled.min(*max)
            }
            _ => unreachable!("a kind of backoff that this test does not know"),
        };
        prop_assert!(delay <= expected_most);
        if !matches!(backoff, Backoff::Exponential { .. }) {
            prop_assert_eq!(delay, expected_most);
        }
    }

    #[test]
    fn every_backoff_reads_back(backoff in any_backoff()) {
        let read: Backoff = backoff.stored().unwrap().parse().unwrap();
        prop_assert_eq!(read.to_string(), backoff.to_string());
        prop_assert_eq!(&read, &backoff.kept());
        prop_assert_eq!(read.stored().unwrap().parse::<Backoff>().unwrap(), read);
    }

    #[test]
    fn no_text_breaks_the_reading_of_a_backoff(text in "(steps|fixed|exponential|[a-z]{0,3}):?[-+0-9,. ]{0,50}") {
        if let Ok(read) = text.parse::<Backoff>() {
            prop_assert_eq!(read.to_string().parse::<Backoff>().unwrap(), read);
        }
    }

    #[test]
    fn attempts_are_used_up_after_exactly_their_number(max_attempts in 1..20_u16) {
        let mut now = Timestamp::from_micros(0);
        let mut task = TaskState::enqueued(now, now, max_attempts, Budget::NONE);
        let mut runs = 0;
        while task.status == Status::Queued {
            now = task.run_at;
            task = transition(&task, &Event::Claim(claim(1)), now).unwrap();
            runs += 1;
            let run = Run {
                attempt: task.attempt,
                max_attempts,
                backoff: Backoff::DEFAULT,
                deadline_at: None,
                cancel_requested: false,
            };
            let outcome = Outcome::Errored { error: ErrorText::from("e"), delay: None };
            let settlement = Settlement::decide(&run, outcome, now, Jitter::ZERO);
            let settle = Event::Settle { claim: claim(1), leaves: claim(1), settlement: &settlement };
            task = transition(&task, &settle, now).unwrap();
        }
        prop_assert_eq!(runs, max_attempts);
    }
}
