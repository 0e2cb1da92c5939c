use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::Union;
use proptest_state_machine::ReferenceStateMachine;
use queue_core::Status;
use queue_core::admin::Action;

use super::step::{Draft, End, Ending, Lease, Length, Pick, Reach, Step, Who, Wish};

/// How far a sequence has come, as far as it matters for what may come next: no more settling than claiming.
#[derive(Clone, Copy, Debug, Default)]
pub struct Life {
    tasks: usize,
    sessions: usize,
    claims: usize,
}

/// The strategy of sequences: pairs of the client that makes a step, and the step.
#[derive(Clone, Copy, Debug)]
pub struct Steps;

impl ReferenceStateMachine for Steps {
    type State = Life;
    type Transition = (u8, Step);

    fn init_state() -> BoxedStrategy<Life> {
        Just(Life::default()).boxed()
    }

    fn transitions(life: &Life) -> BoxedStrategy<(u8, Step)> {
        (0..2_u8, steps(life)).boxed()
    }

    fn apply(mut life: Life, (_, step): &(u8, Step)) -> Life {
        match step {
            Step::Enqueue(drafts) => life.tasks += drafts.len(),
            Step::Open(_) => life.sessions += 1,
            Step::Close(_) => life.sessions = life.sessions.saturating_sub(1),
            Step::Claim(wish) => life.claims += wish.tasks,
            Step::Settle(ends) => life.claims = life.claims.saturating_sub(ends.len()),
            _ => {}
        }
        life
    }
}

fn steps(life: &Life) -> Union<BoxedStrategy<Step>> {
    let few = usize::from(life.tasks < 4);
    let (held, open) = (usize::from(life.claims > 0), usize::from(life.sessions > 0));
    let at_once = (vec(short(), 1..4), vec(short(), 1..4)).prop_map(|(left, right)| Step::AtOnce(left, right));
    let all = [
        (4 + 10 * few, vec(drafts(), 1..5).prop_map(Step::Enqueue).boxed()),
        (1, picks().prop_map(Step::EnqueueAgain).boxed()),
        (2 + 20 * (1 - open), leases().prop_map(Step::Open).boxed()),
        (1, (picks(), leases()).prop_map(|(pick, lease)| Step::Reopen(pick, lease)).boxed()),
        (2, (picks(), leases()).prop_map(|(pick, lease)| Step::Renew(pick, lease)).boxed()),
        (1, picks().prop_map(Step::Close).boxed()),
        (1 + 9 * open, wishes().prop_map(Step::Claim).boxed()),
        (1, wishes().prop_map(Step::ClaimVoid).boxed()),
        (held, picks().prop_map(Step::Resolve).boxed()),
        (8 * held, vec(ends(), 1..4).prop_map(Step::Settle).boxed()),
        (3 * held, (vec(ends(), 0..3), wishes()).prop_map(|(ends, wish)| Step::Trip(ends, wish)).boxed()),
        (2 * held, vec((picks(), any::<u8>()), 1..4).prop_map(Step::Progress).boxed()),
        (2, limits().prop_map(Step::Fence).boxed()),
        (3, limits().prop_map(Step::Reap).boxed()),
        (2, (1..4_usize).prop_map(Step::Sweep).boxed()),
        (4, (vec(picks(), 1..4), actions()).prop_map(|(picks, action)| Step::Act(picks, action)).boxed()),
        (2, (statuses(), limits(), actions()).prop_map(|(of, limit, action)| Step::ActOn(of, limit, action)).boxed()),
        (2, (0..3_u8, any::<bool>()).prop_map(|(queue, on)| Step::Pause(queue, on)).boxed()),
        (1, picks().prop_map(Step::Drain).boxed()),
        (
            1,
            (option::of(statuses()), prop::bool::weighted(0.3), limits())
                .prop_map(|(status, old, limit)| Step::Prune(status, old, limit))
                .boxed(),
        ),
        (
            2,
            (option::of(statuses()), option::weighted(0.3, 0..3_u8), limits())
                .prop_map(|(status, queue, limit)| Step::List(status, queue, limit))
                .boxed(),
        ),
        (1, reaches().prop_map(Step::Busy).boxed()),
        (3 * held, at_once.boxed()),
    ];
    let weighted = all.into_iter().filter(|(weight, _)| *weight > 0);
    Union::new_weighted(weighted.map(|(weight, step)| (u32::try_from(weight).unwrap_or(1), step)).collect())
}

/// What is done at the same time as others: each of these is one whole, so that some order of them must explain what came of it.
fn short() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => vec(drafts(), 1..4).prop_map(Step::Enqueue),
        1 => picks().prop_map(Step::EnqueueAgain),
        1 => (picks(), leases()).prop_map(|(pick, lease)| Step::Renew(pick, lease)),
        1 => picks().prop_map(Step::Close),
        4 => wishes().prop_map(Step::Claim),
        4 => vec(ends(), 1..4).prop_map(Step::Settle),
        3 => (picks(), actions()).prop_map(|(pick, action)| Step::Act(vec![pick], action)),
        1 => (0..3_u8, any::<bool>()).prop_map(|(queue, on)| Step::Pause(queue, on)),
    ]
}

fn picks() -> impl Strategy<Value = Pick> {
    prop_oneof![4 => 0..4_u8, 1 => any::<u8>()].prop_map(Pick)
}

fn limits() -> impl Strategy<Value = usize> {
    prop_oneof![1 => 1..3_usize, 2 => Just(100)]
}

fn leases() -> impl Strategy<Value = Lease> {
    prop_oneof![4 => Just(Lease::Long), 1 => Just(Lease::Over)]
}

fn lengths() -> impl Strategy<Value = Length> {
    prop_oneof![5 => Just(Length::Zero), 2 => (1..60_u8).prop_map(Length::Hours), 1 => Just(Length::Longest)]
}

fn statuses() -> impl Strategy<Value = Status> {
    prop::sample::select(Status::ALL)
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![2 => Just(Action::Cancel), 2 => Just(Action::Retry), 1 => Just(Action::Delete)]
}

fn drafts() -> impl Strategy<Value = Draft> {
    let names = (0..3_u8, 0..3_u8, prop_oneof![3 => Just(0), 1 => -1..2_i8, 1 => -100..=100_i8]);
    let times = (
        prop_oneof![8 => lengths().prop_map(Some), 1 => Just(None)],
        prop_oneof![3 => Just(Some(Length::Hours(1))), 1 => option::weighted(0.8, lengths())],
    );
    let rest = (1..4_u16, 0..7_u8, option::weighted(0.2, 0..3_u8), prop_oneof![3 => Just(1), 1 => 1..40_u8]);
    (names, times, rest).prop_map(|((kind, queue, priority), (delay, budget), (attempts, backoff, key, bytes))| Draft {
        kind,
        queue,
        priority,
        delay,
        attempts,
        backoff,
        budget,
        key,
        bytes,
    })
}

fn reaches() -> impl Strategy<Value = Reach> {
    let queues = option::weighted(0.3, vec(0..3_u8, 0..3));
    let kinds = prop_oneof![3 => Just(vec![0, 1, 2]), 1 => vec(0..3_u8, 0..3)];
    let fails = prop_oneof![6 => Just(Some(Vec::new())), 1 => Just(None), 1 => vec(0..3_u8, 1..2).prop_map(Some)];
    (queues, kinds, fails).prop_map(|(queues, kinds, fails)| Reach { queues, kinds, fails })
}

fn wishes() -> impl Strategy<Value = Wish> {
    let tasks = prop_oneof![1 => 0..4_usize, 1 => Just(20)];
    let bytes = option::weighted(0.2, 1..60_u64);
    let suspects = prop_oneof![3 => Just(20), 1 => 0..2_usize];
    let of_kind = option::weighted(0.2, (0..3_u8, 0..3_usize));
    (prop_oneof![4 => Just(Pick(0)), 1 => picks()], reaches(), tasks, bytes, suspects, of_kind).prop_map(
        |(session, reach, tasks, bytes, suspects, of_kind)| Wish { session, reach, tasks, bytes, suspects, of_kind },
    )
}

fn ends() -> impl Strategy<Value = End> {
    let who = prop_oneof![8 => Just(Who::Holder), 1 => Just(Who::Reaper), 1 => Just(Who::Stranger)];
    let endings = prop_oneof![
        4 => prop_oneof![3 => 0..9_u32, 1 => Just(70_000)].prop_map(Ending::Succeeded),
        4 => option::weighted(0.3, lengths()).prop_map(Ending::Errored),
        1 => Just(Ending::Rejected),
        1 => Just(Ending::Panicked),
        2 => lengths().prop_map(Ending::Snoozed),
        2 => Just(Ending::Released),
        1 => Just(Ending::Cancelled),
        1 => Just(Ending::OutOfBudget),
        2 => Just(Ending::Lost),
        1 => Just(Ending::RetryAnyway),
    ];
    (picks(), who, endings, prop::bool::weighted(0.1)).prop_map(|(held, who, ending, cancelled)| End {
        held,
        who,
        ending,
        cancelled,
    })
}
