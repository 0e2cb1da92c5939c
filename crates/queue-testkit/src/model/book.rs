use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use queue_core::admin::{Filter, Pause, Selection};
use queue_core::claim::Capacity;
use queue_core::progress::ProgressUpdate;
use queue_core::session::SessionSpec;
use queue_core::settlement::Requeue;
use queue_core::{
    Backoff, Budget, ClaimId, ClaimReply, ClaimRequest, ClaimedTask, Entropy as _, IdempotencyKey, Jitter, NewTask,
    Nonce, Outcome, Payload, Percent, Priority, Progress, QueueName, Queues, Retry, Scope, SessionId, Settle,
    Settlement, Start, Store, TaskId, TaskResult, TaskSpec, TaskType, Timestamp,
};

use super::call::{Call, Reply};
use super::step::{Draft, End, Ending, Lease, Length, Pick, Reach, Step, Who, Wish};
use crate::SeededEntropy;

const KINDS: [TaskType; 3] = [TaskType::new("model.a"), TaskType::new("model.b"), TaskType::new("model.c")];
const QUEUES: [QueueName; 3] = [QueueName::new("a"), QueueName::new("b"), QueueName::new("c")];
const LEASE: Duration = Duration::from_secs(1_000 * 3_600);
const DAYS: Duration = Duration::from_secs(72 * 3_600);

/// What a sequence has made so far: what its steps refer to.
#[derive(Debug)]
pub(super) struct Book {
    /// Tells this sequence's keys from those of others in the same database.
    number: u64,
    entropy: SeededEntropy,
    begun: Timestamp,
    batches: Vec<Arc<[NewTask]>>,
    /// Every id, and one that nothing is enqueued under.
    ids: Vec<TaskId>,
    sessions: Vec<SessionSpec>,
    claims: Vec<(SessionId, ClaimId)>,
    held: Vec<ClaimedTask>,
}

impl Book {
    pub(super) async fn new(store: &dyn Store, number: u64, begun: Timestamp) -> Self {
        let unknown = store.reserve_ids(1).await.unwrap().collect();
        let entropy = SeededEntropy::new(number);
        let (batches, sessions, claims, held) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { number, entropy, begun, batches, ids: unknown, sessions, claims, held }
    }

    /// The calls of a step, in order; none when there is nothing to refer to.
    pub(super) async fn calls(&mut self, store: &dyn Store, step: &Step) -> Vec<Call> {
        if let Step::Enqueue(drafts) = step {
            return vec![Call::Enqueue(self.batch(store, drafts).await)];
        }
        self.simple(step).unwrap_or_default()
    }

    fn simple(&mut self, step: &Step) -> Option<Vec<Call>> {
        let of = |pick: Pick, book: &Self| pick.of(&book.sessions).cloned();
        Some(vec![match step {
            Step::Enqueue(_) | Step::AtOnce(..) => return None,
            Step::EnqueueAgain(pick) => Call::Enqueue(pick.of(&self.batches)?.clone()),
            Step::Open(lease) => {
                let id = SessionId::from_random(self.entropy.next_u64());
                let name = format!("worker {}", self.sessions.len() + 1);
                let spec = SessionSpec { id, name, host: "host".into(), version: "1".into(), lease: long(*lease) };
                self.sessions.push(spec.clone());
                Call::Open(spec)
            }
            Step::Reopen(pick, lease) => Call::Open(SessionSpec { lease: long(*lease), ..of(*pick, self)? }),
            Step::Renew(pick, lease) => Call::Renew(of(*pick, self)?.id, long(*lease)),
            Step::Close(pick) => Call::Close(of(*pick, self)?.id),
            Step::Claim(wish) => Call::Claim(self.request(wish)?),
            Step::ClaimVoid(wish) => {
                let request = self.request(wish)?;
                return Some(vec![Call::Resolve(request.session, request.claim), Call::ClaimVoid(request)]);
            }
            Step::Resolve(pick) => {
                let &(session, claim) = pick.of(&self.claims)?;
                Call::Resolve(session, claim)
            }
            Step::Settle(ends) => Call::Settle(self.settles(ends)?),
            Step::Trip(ends, wish) => Call::Trip(self.settles(ends).unwrap_or_default(), self.request(wish)?),
            Step::Progress(updates) => {
                let of = |&(pick, percent): &(Pick, u8)| {
                    let held = pick.of(&self.held)?;
                    let progress = Progress::new(Percent::new(percent), "x".repeat(usize::from(percent % 3)));
                    Some(ProgressUpdate { task: held.id, claim: held.claim, progress })
                };
                Call::Progress(updates.iter().map(of).collect::<Option<_>>()?)
            }
            Step::Fence(limit) => Call::Fence(*limit),
            Step::Reap(limit) => Call::Lost(*limit),
            Step::Sweep(limit) => Call::Sweep(*limit),
            Step::Act(picks, action) => {
                let ids = picks.iter().filter_map(|pick| pick.of(&self.ids).copied()).collect();
                Call::Act(Selection::Ids(ids), *action)
            }
            Step::ActOn(status, limit, action) => {
                let filter = Filter { status: Some(*status), ..Filter::default() };
                Call::Act(Selection::Matching { filter, limit: *limit }, *action)
            }
            Step::Pause(queue, pauses) => {
                let pause = Pause { by: "ana".into(), why: "outage".into(), at: Timestamp::EPOCH };
                Call::Pause(one(&QUEUES, *queue), pauses.then_some(pause))
            }
            Step::Drain(pick) => Call::Drain(of(*pick, self)?.id),
            Step::Prune(status, old, limit) => Call::Prune(*status, if *old { DAYS } else { Duration::ZERO }, *limit),
            Step::List(status, queue, limit) => {
                let queue = queue.map(|queue| one(&QUEUES, queue));
                Call::List(Filter { status: *status, queue, ..Filter::default() }, *limit)
            }
            Step::Busy(reach) => Call::Busy(scope(reach)),
        }])
    }

    /// Remembers what a call has made, and says which calls follow from the answer.
    pub(super) fn note(&mut self, call: &Call, reply: &Reply) -> Vec<Call> {
        match (call, reply) {
            (Call::Claim(request) | Call::ClaimVoid(request), Reply::Claim(ClaimReply::Claimed(claimed))) => {
                self.claims.push((request.session, request.claim));
                self.held.extend(claimed.tasks.iter().cloned());
            }
            (Call::Trip(_, request), Reply::Trip(both)) => {
                return self.note(&Call::Claim(request.clone()), &both.1);
            }
            (Call::Lost(_), Reply::Lost(lost)) if !lost.tasks.is_empty() => {
                let reaper = ClaimId::from_random(self.entropy.next_u64());
                let settles = lost.tasks.iter().map(|task| {
                    let settlement = Settlement::decide(&task.run, Outcome::Lost, lost.now, Jitter::ZERO);
                    Settle::by_reaper(task.id, task.claim, reaper, settlement)
                });
                return vec![Call::Settle(settles.collect())];
            }
            _ => {}
        }
        Vec::new()
    }

    pub(super) fn ids(&self) -> &[TaskId] {
        &self.ids
    }

    async fn batch(&mut self, store: &dyn Store, drafts: &[Draft]) -> Arc<[NewTask]> {
        let ids = store.reserve_ids(u32::try_from(drafts.len()).unwrap()).await.unwrap();
        let named = ids.zip(drafts).map(|(id, draft)| {
            let key = draft.key.map(|key| IdempotencyKey::parse(format!("{}-{key}", self.number)).unwrap());
            let spec = TaskSpec { key, ..spec(draft) };
            NewTask { id, nonce: Nonce::new(self.entropy.next_u64() as u32), spec }
        });
        let batch: Arc<[NewTask]> = named.collect();
        self.ids.extend(batch.iter().map(|task| task.id));
        self.batches.push(batch.clone());
        batch
    }

    fn request(&mut self, wish: &Wish) -> Option<ClaimRequest> {
        let session = wish.session.of(&self.sessions)?.id;
        let claim = ClaimId::from_random(self.entropy.next_u64());
        let capacity = Capacity {
            tasks: wish.tasks,
            bytes: wish.bytes.unwrap_or(u64::MAX),
            suspects: wish.suspects,
            per_type: wish.of_kind.map(|(kind, most)| (one(&KINDS, kind), most)).into_iter().collect(),
        };
        Some(ClaimRequest { session, claim, scope: scope(&wish.reach), capacity })
    }

    fn settles(&self, ends: &[End]) -> Option<Arc<[Settle]>> {
        ends.iter().map(|end| self.settle(end)).collect()
    }

    fn settle(&self, end: &End) -> Option<Settle> {
        let task = end.held.of(&self.held)?;
        let mut run = task.run();
        run.cancel_requested = end.cancelled;
        let error = || "it failed: 'é' \"quoted\"\n".into();
        let outcome = match end.ending {
            Ending::Succeeded(0) => Outcome::Succeeded(TaskResult::None),
            Ending::Succeeded(bytes) => Outcome::Succeeded(TaskResult::Value(vec![b'1'; bytes as usize].into())),
            Ending::Errored(delay) => Outcome::Errored { error: error(), delay: delay.map(Length::duration) },
            Ending::Rejected => Outcome::Rejected(error()),
            Ending::Panicked => Outcome::Panicked(error()),
            Ending::Snoozed(delay) => Outcome::Snoozed(delay.duration()),
            Ending::Released => Outcome::Released,
            Ending::Cancelled => Outcome::Cancelled,
            Ending::OutOfBudget => Outcome::OutOfBudget,
            Ending::Lost => Outcome::Lost,
            Ending::RetryAnyway => {
                let kind = Requeue::Retry { error: error() };
                let settlement = Settlement::Requeue { delay: Duration::ZERO, kind };
                return Some(Settle::by_holder(task.id, task.claim, settlement));
            }
        };
        // The recovery's own jitter would be due within the test; half of hours is not.
        let jitter = if outcome == Outcome::Lost { Jitter::ZERO } else { Jitter::from_random(1 << 63) };
        let settlement = Settlement::decide(&run, outcome, self.begun, jitter);
        let stranger = ClaimId::from_random(self.number);
        Some(match end.who {
            Who::Holder => Settle::by_holder(task.id, task.claim, settlement),
            Who::Reaper => Settle::by_reaper(task.id, task.claim, stranger, settlement),
            Who::Stranger => Settle::by_holder(task.id, stranger, settlement),
        })
    }
}

const fn long(lease: Lease) -> Duration {
    match lease {
        Lease::Over => Duration::ZERO,
        Lease::Long => LEASE,
    }
}

fn one<T: Clone>(all: &[T; 3], number: u8) -> T {
    all[usize::from(number) % 3].clone()
}

fn scope(reach: &Reach) -> Scope {
    let named = |numbers: &[u8]| Queues::Named(numbers.iter().map(|&number| one(&QUEUES, number)).collect());
    let queues = |numbers: &Option<Vec<u8>>| numbers.as_ref().map_or(Queues::All, |numbers| named(numbers));
    Scope {
        queues: queues(&reach.queues),
        types: reach.kinds.iter().map(|&kind| one(&KINDS, kind)).collect(),
        fail_unregistered: queues(&reach.fails),
    }
}

/// A task as it is drafted, without its key.
fn spec(draft: &Draft) -> TaskSpec {
    let hours = |hours: u64| Duration::from_secs(hours * 3_600);
    let backoff = match draft.backoff % 7 {
        0 => Backoff::Fixed(Duration::ZERO),
        1 => Backoff::Fixed(hours(50)),
        2 => Backoff::Steps(vec![Duration::ZERO, hours(2)].into()),
        3 => Backoff::Steps(Vec::new().into()),
        4 => Backoff::Exponential { base: hours(2), max: hours(100) },
        5 => Backoff::Fixed(Duration::MAX),
        _ => Backoff::Exponential { base: Duration::MAX, max: Duration::MAX },
    };
    let body: Bytes = vec![draft.bytes; usize::from(draft.bytes.max(1))].into();
    TaskSpec {
        queue: one(&QUEUES, draft.queue),
        priority: Priority::new(draft.priority),
        start: match draft.delay {
            Some(Length::Zero) => Start::Now,
            Some(length) => Start::After(length.duration()),
            None => Start::At(Timestamp::EPOCH),
        },
        retry: Retry::new(backoff).attempts(draft.attempts),
        budget: draft.budget.map_or(Budget::NONE, |length| Budget::of(length.duration())),
        ..TaskSpec::new(one(&KINDS, draft.kind), Payload::new(queue_core::payload::ContentType::Binary, body))
    }
}
