//! Proptest strategies for what goes into a store and what comes of it. Feature `proptest`.
//!
//! Ordinary values come often, extreme ones now and then: the first and last points in time, the longest delays, empty and
//! binary payloads, names of one and of 64 bytes.

use std::ops::Range;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use queue_core::payload::ContentType;
use queue_core::settlement::Run;
use queue_core::{
    Backoff, Budget, ClaimId, ErrorText, Event, IdempotencyKey, Jitter, Outcome, Payload, Percent, Priority, Progress,
    QueueName, Retry, Settlement, Start, TaskResult, TaskSpec, TaskState, TaskType, Timestamp, transition,
};

/// Names as texts: short ones that are likely to be equal, and any that are allowed.
fn names() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[abcAB]", 2 => "[a-z]{1,8}\\.[a-z]{1,8}", 1 => "[A-Za-z0-9._-]{1,64}"]
}

/// Task types.
pub fn task_types() -> impl Strategy<Value = TaskType> {
    names().prop_map(|name| TaskType::parse(name).expect("the pattern allows no other"))
}

/// Queue names, the default one among them.
pub fn queue_names() -> impl Strategy<Value = QueueName> {
    let named = names().prop_map(|name| QueueName::parse(name).expect("the pattern allows no other"));
    prop_oneof![1 => Just(QueueName::DEFAULT), 2 => named]
}

/// Idempotency keys, which are any text.
pub fn keys() -> impl Strategy<Value = IdempotencyKey> {
    let texts = prop_oneof![4 => "[kK ]{1,2}", 1 => "\\PC{1,32}"];
    texts.prop_map(|text| IdempotencyKey::parse(text).expect("32 characters are at most 128 bytes"))
}

/// Every priority.
pub fn priorities() -> impl Strategy<Value = Priority> {
    let all = (-100..=100_i8).prop_map(Priority::new);
    prop_oneof![Just(Priority::NORMAL), Just(Priority::LOWEST), Just(Priority::HIGHEST), all]
}

/// Durations, from none to the longest. Stores keep whole microseconds.
pub fn durations() -> impl Strategy<Value = Duration> {
    prop_oneof![
        2 => Just(Duration::ZERO),
        6 => (0..10_000_000_u64).prop_map(Duration::from_micros),
        1 => (0..=i64::MAX as u64).prop_map(Duration::from_micros),
        1 => Just(Duration::MAX),
    ]
}

/// Durations that a store can keep exactly.
pub fn kept_durations() -> impl Strategy<Value = Duration> {
    durations().prop_map(|duration| Timestamp::EPOCH.after(duration).since(Timestamp::EPOCH))
}

/// Points in time: mostly of this century, with the first and the last that can be told.
pub fn timestamps() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        6 => (0..4_000_000_000_000_000_i64).prop_map(Timestamp::from_micros),
        1 => any::<i64>().prop_map(Timestamp::from_micros),
        1 => Just(Timestamp::from_micros(i64::MIN)),
        1 => Just(Timestamp::MAX),
    ]
}

/// When a task is first due.
pub fn starts() -> impl Strategy<Value = Start> {
    prop_oneof![3 => Just(Start::Now), 1 => durations().prop_map(Start::After), 1 => timestamps().prop_map(Start::At)]
}

/// Backoffs of each kind, with delays that a store can keep.
pub fn backoffs() -> impl Strategy<Value = Backoff> {
    prop_oneof![
        Just(Backoff::DEFAULT),
        kept_durations().prop_map(Backoff::Fixed),
        (kept_durations(), kept_durations()).prop_map(|(base, max)| Backoff::Exponential { base, max }),
        vec(kept_durations(), 0..5).prop_map(|steps| Backoff::Steps(steps.into())),
    ]
}

/// Retry policies, of few attempts mostly.
pub fn retries() -> impl Strategy<Value = Retry> {
    let attempts = prop_oneof![6 => 1..6_u16, 1 => Just(u16::MAX)];
    (backoffs(), attempts).prop_map(|(backoff, attempts)| Retry::new(backoff).attempts(attempts))
}

/// Budgets, none among them, of lengths that a store can keep.
pub fn budgets() -> impl Strategy<Value = Budget> {
    prop_oneof![Just(Budget::NONE), Just(Budget::DEFAULT), kept_durations().prop_map(Budget::of)]
}

/// Payloads of so many bytes: JSON, bytes, and what is said to be JSON and is not.
pub fn payloads(bytes: Range<usize>) -> impl Strategy<Value = Payload> {
    let content_types = prop_oneof![Just(ContentType::Json), Just(ContentType::Binary)];
    let bodies = (content_types, vec(any::<u8>(), bytes)).prop_map(|(kind, body)| Payload::new(kind, body));
    prop_oneof![1 => Just(Payload::json("{\"a\": [1, null]}")), 3 => bodies]
}

/// Texts of errors: any characters, quotes and line ends among them.
pub fn error_texts() -> impl Strategy<Value = ErrorText> {
    "(?s).{0,40}".prop_map(ErrorText::new)
}

/// Results: none, small values, dropped ones.
pub fn results() -> impl Strategy<Value = TaskResult> {
    prop_oneof![
        Just(TaskResult::None),
        "\\[[0-9]{1,9}\\]".prop_map(|json| TaskResult::Value(json.into())),
        (65_537..1_u64 << 40).prop_map(|bytes| TaskResult::Dropped { bytes }),
    ]
}

/// Progress, with and without a message.
pub fn progress() -> impl Strategy<Value = Progress> {
    (any::<u8>(), "(?s).{0,20}").prop_map(|(percent, message)| Progress::new(Percent::new(percent), message))
}

/// All that a producer may say of a task.
pub fn specs() -> impl Strategy<Value = TaskSpec> {
    let names = (task_types(), queue_names(), priorities());
    let rest = (payloads(0..200), starts(), retries(), budgets(), option::weighted(0.2, keys()));
    (names, rest).prop_map(|((task_type, queue, priority), (payload, start, retry, budget, key))| TaskSpec {
        task_type,
        queue,
        priority,
        payload,
        start,
        retry,
        budget,
        key,
    })
}

/// Every way in which a run can end.
pub fn outcomes() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        2 => results().prop_map(Outcome::Succeeded),
        4 => (error_texts(), option::of(durations())).prop_map(|(error, delay)| Outcome::Errored { error, delay }),
        1 => error_texts().prop_map(Outcome::Rejected),
        1 => error_texts().prop_map(Outcome::Panicked),
        2 => durations().prop_map(Outcome::Snoozed),
        2 => Just(Outcome::Released),
        1 => Just(Outcome::Cancelled),
        1 => Just(Outcome::OutOfBudget),
        2 => Just(Outcome::Lost),
    ]
}

/// What the core decides of a run that ends in one way or another, at `now`.
pub fn settlements(run: Run, now: Timestamp) -> impl Strategy<Value = Settlement> {
    (outcomes(), any::<u64>())
        .prop_map(move |(outcome, bits)| Settlement::decide(&run, outcome, now, Jitter::from_random(bits)))
}

/// A step in a task's life.
#[derive(Clone, Debug)]
enum Step {
    Claim,
    End(Outcome, u64),
    Expire,
    Unregister,
    Cancel,
    Retry,
    Wait(Duration),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Claim),
        6 => (outcomes(), any::<u64>()).prop_map(|(outcome, bits)| Step::End(outcome, bits)),
        1 => Just(Step::Expire),
        1 => Just(Step::Unregister),
        1 => Just(Step::Cancel),
        2 => Just(Step::Retry),
        6 => kept_durations().prop_map(Step::Wait),
    ]
}

/// States that a task can really be in, and the store's clock at that moment: each comes of a random life from enqueueing on, by
/// the core's own transitions.
pub fn task_states() -> impl Strategy<Value = (TaskState, Timestamp)> {
    (timestamps(), durations(), retries(), budgets(), vec(steps(), 0..25)).prop_map(
        |(start, delay, retry, budget, steps)| {
            let mut now = start;
            let mut state = TaskState::enqueued(now, now.after(delay), retry.max_attempts(), budget);
            for (step, bits) in steps.into_iter().zip(1..) {
                let claim = ClaimId::from_random(bits << 1);
                state = live(&state, step, claim, retry.backoff(), &mut now);
            }
            (state, now)
        },
    )
}

/// The state after a step; the same where the step does not apply.
fn live(state: &TaskState, step: Step, claim: ClaimId, backoff: &Backoff, now: &mut Timestamp) -> TaskState {
    let settlement;
    let event = match step {
        Step::Wait(length) => {
            *now = now.after(length);
            return state.clone();
        }
        Step::Claim => Event::Claim(claim),
        Step::End(outcome, bits) => {
            let run = Run {
                attempt: state.attempt,
                max_attempts: state.max_attempts,
                backoff: backoff.clone(),
                deadline_at: state.deadline_at,
                cancel_requested: state.cancel_requested,
            };
            settlement = Settlement::decide(&run, outcome, *now, Jitter::from_random(bits));
            let holder = state.claim.unwrap_or(claim);
            Event::Settle { claim: holder, leaves: holder, settlement: &settlement }
        }
        Step::Expire => Event::Expire,
        Step::Unregister => Event::Unregister,
        Step::Cancel => Event::Cancel,
        Step::Retry => Event::Retry,
    };
    transition(state, &event, *now).unwrap_or_else(|_| state.clone())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    use queue_core::Status;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn states_are_ones_that_can_be((state, _) in task_states()) {
            prop_assert_eq!(state.defect(), None);
        }

        #[test]
        fn what_is_kept_reads_back(backoff in backoffs(), budget in budgets(), spec in specs()) {
            prop_assert_eq!(backoff.to_string().parse::<Backoff>().unwrap(), backoff);
            let length = budget.length().unwrap_or_default();
            prop_assert_eq!(Duration::from_micros(u64::try_from(queue_core::time::micros(length)).unwrap()), length);
            prop_assert!(spec.payload.body().len() < 200);
        }

        #[test]
        fn a_run_is_settled_as_the_core_decides(
            settlement in settlements(
                Run {
                    attempt: 1,
                    max_attempts: 1,
                    backoff: Backoff::DEFAULT,
                    deadline_at: None,
                    cancel_requested: false,
                },
                Timestamp::EPOCH,
            ),
            progress in progress(),
        ) {
            let retried = settlement.label() == "retried";
            prop_assert!(!retried, "the only attempt was retried: {settlement:?}");
            prop_assert!(progress.percent().get() <= 100);
        }
    }

    #[test]
    fn every_status_comes_up() {
        let mut runner = TestRunner::deterministic();
        let seen: BTreeSet<_> =
            (0..500).map(|_| task_states().new_tree(&mut runner).unwrap().current().0.status).collect();
        assert_eq!(seen, Status::ALL.iter().copied().collect());
    }
}
