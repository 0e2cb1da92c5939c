//! Random histories: whatever happened, every task is in a place that makes sense, and in the end all are done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use queue_core::admin::{Action, Filter};
use queue_core::budget::Budget;
use queue_core::settlement::Requeue;
use queue_core::{
    ClaimReply, Entropy, FailureReason, Jitter, Outcome, Priority, Retry, SessionId, Settle, Settled, Settlement,
    Start, Status, TaskId, TaskSpec,
};

use super::Subject;
use super::subject::{OTHER, TYPE, complete, in_queue};
use crate::SeededEntropy;

/// What is done, and what must have come of it.
#[derive(Debug, Default)]
struct History {
    sessions: Vec<SessionId>,
    held: BTreeMap<TaskId, queue_core::ClaimedTask>,
    /// Claims that somebody else has ended: whatever is settled under them must be stale.
    stale: Vec<queue_core::ClaimedTask>,
    known: BTreeSet<TaskId>,
    completed: BTreeSet<TaskId>,
    fences: BTreeMap<TaskId, u32>,
}

impl History {
    async fn step(&mut self, store: &Subject, entropy: &SeededEntropy) {
        match entropy.below(12) {
            0 | 1 => self.enqueue(store, entropy).await,
            2..=4 => self.claim(store, entropy).await,
            5..=7 => self.settle(store, entropy).await,
            8 => self.settle_late(store, entropy).await,
            9 => self.act(store, entropy).await,
            10 => self.lose(store, entropy).await,
            _ => {
                for id in store.expire(5).await.unwrap().ended {
                    assert!(!self.held.contains_key(&id.id), "a running task was swept");
                }
            }
        }
    }

    async fn enqueue(&mut self, store: &Subject, entropy: &SeededEntropy) {
        let specs = (0..=entropy.below(5)).map(|_| TaskSpec {
            task_type: if entropy.per_mille(300) { OTHER } else { TYPE },
            priority: Priority::new(i8::try_from(entropy.below(3)).unwrap() - 1),
            start: if entropy.per_mille(200) { Start::After(Duration::from_millis(3)) } else { Start::Now },
            budget: if entropy.per_mille(100) { Budget::of(Duration::from_millis(20)) } else { Budget::DEFAULT },
            retry: Retry::fixed(Duration::ZERO).attempts(u16::try_from(entropy.below(3)).unwrap() + 1),
            ..in_queue(entropy.choose(&["a", "b"]).unwrap())
        });
        self.known.extend(store.put_all(specs.collect::<Vec<_>>()).await);
    }

    async fn claim(&mut self, store: &Subject, entropy: &SeededEntropy) {
        if self.sessions.len() < 3 {
            self.sessions.push(store.session().await);
        }
        let mut request = store.request(*entropy.choose(&self.sessions).unwrap(), 4);
        request.scope.types = [TYPE, OTHER].into();
        let ClaimReply::Claimed(claimed) = store.claim(request).await.unwrap() else {
            panic!("a live session is fenced")
        };
        for task in claimed.tasks {
            let fence = self.fences.insert(task.id, task.fence.get()).unwrap_or(0);
            assert_eq!(task.fence.get(), fence + 1, "a fence rises by one with each claim");
            assert!(task.attempt <= task.max_attempts && task.run_at <= claimed.now);
            assert!(self.held.insert(task.id, task).is_none(), "a task is held twice");
        }
        for ended in claimed.ended {
            assert!(!self.held.contains_key(&ended.id), "a running task ended without its run");
        }
    }

    async fn settle(&mut self, store: &Subject, entropy: &SeededEntropy) {
        let Some(&id) = entropy.choose(&self.held.keys().copied().collect::<Vec<_>>()) else { return };
        let task = self.held.remove(&id).unwrap();
        let outcome = match entropy.below(7) {
            0 => Outcome::Errored { error: "e".into(), delay: None },
            1 => Outcome::Rejected("r".into()),
            2 => Outcome::Panicked("p".into()),
            3 => Outcome::Snoozed(Duration::from_millis(1)),
            4 => Outcome::Released,
            _ => Outcome::Succeeded(queue_core::TaskResult::None),
        };
        let jitter = Jitter::from_random(entropy.next_u64());
        let settlement = Settlement::decide(&task.run(), outcome, store.now().await, jitter);
        if settlement.status() == Status::Completed {
            assert!(self.completed.insert(id), "completed twice");
        }
        store.end(&task, settlement.clone()).await;
        assert_eq!(store.record(id).await.state.status, settlement.status());
    }

    /// A holder whose task somebody else has ended.
    async fn settle_late(&mut self, store: &Subject, entropy: &SeededEntropy) {
        let Some(task) = entropy.choose(&self.stale) else { return };
        let before = store.get(task.id).await.unwrap();
        assert_eq!(store.settle_one(Settle::by_holder(task.id, task.claim, complete())).await, Settled::Stale);
        assert_eq!(store.get(task.id).await.unwrap(), before);
    }

    async fn act(&mut self, store: &Subject, entropy: &SeededEntropy) {
        let Some(&id) = entropy.choose(&self.known.iter().copied().collect::<Vec<_>>()) else { return };
        let action = *entropy.choose(&[Action::Cancel, Action::Retry, Action::Retry, Action::Delete]).unwrap();
        store.act_one(id, action).await;
        if store.get(id).await.unwrap().is_none() {
            assert!(!self.held.contains_key(&id), "a running task was deleted");
            self.known.remove(&id);
        }
    }

    /// A pool dies: its session is fenced, and what it held is recovered.
    async fn lose(&mut self, store: &Subject, entropy: &SeededEntropy) {
        let Some(&session) = entropy.choose(&self.sessions) else { return };
        self.sessions.retain(|one| *one != session);
        store.close_session(session).await.unwrap();
        let lost = store.lost(100).await.unwrap();
        for task in lost.tasks {
            let held = self.held.remove(&task.id).expect("only what was held is lost");
            assert_eq!(held.claim, task.claim);
            let settlement = Settlement::decide(&task.run, Outcome::Lost, lost.now, Jitter::ZERO);
            let reap = Settle::by_reaper(task.id, task.claim, store.claim_id(), settlement);
            assert_eq!(store.settle_one(reap).await, Settled::Applied);
            self.stale.push(held);
        }
    }

    /// Every task is where its status says, in every list and count that the ports show.
    async fn check(&self, store: &Subject) {
        let listed: BTreeSet<_> = store.ids(Filter::default()).await.into_iter().collect();
        assert_eq!(listed, self.known);
        let mut by_status: BTreeMap<Status, BTreeSet<TaskId>> = BTreeMap::new();
        for &id in &self.known {
            let state = store.record(id).await.state;
            by_status.entry(state.status).or_default().insert(id);
            match self.held.get(&id) {
                Some(task) => assert_eq!((state.status, state.claim), (Status::Running, Some(task.claim))),
                None => assert_ne!(state.status, Status::Running, "task {id} runs and nobody holds it"),
            }
        }
        for status in Status::ALL {
            let listed: BTreeSet<_> =
                store.ids(Filter { status: Some(*status), ..Filter::default() }).await.into_iter().collect();
            assert_eq!(listed, by_status.remove(status).unwrap_or_default(), "{status}");
        }
        let running: u64 = store.sessions().await.unwrap().iter().map(|session| session.running).sum();
        assert_eq!(running, self.held.len() as u64);
    }

    /// Runs everything that is left; nothing is forgotten in a corner from which no claim takes it.
    async fn drain(&mut self, store: &Subject) {
        let session = store.session().await;
        for (_, task) in std::mem::take(&mut self.held) {
            store.end(&task, complete()).await;
        }
        let types: std::sync::Arc<[_]> = [TYPE, OTHER].into();
        let scope = queue_core::Scope { types, ..queue_core::Scope::of([]) };
        store
            .until("everything to end", async |store| {
                let mut request = store.request(session, 50);
                request.scope = scope.clone();
                for task in store.ask(request).await.tasks {
                    store.end(&task, complete()).await;
                }
                store.ids(Filter { status: Some(Status::Queued), ..Filter::default() }).await.is_empty()
            })
            .await;
        assert!(!store.is_busy(scope).await.unwrap());
        self.check(store).await;
    }
}

async fn play(store: &Subject, seed: u64, steps: usize) {
    let entropy = SeededEntropy::new(seed);
    let mut history = History::default();
    for step in 0..steps {
        history.step(store, &entropy).await;
        if step % 40 == 39 {
            history.check(store).await;
        }
    }
    history.drain(store).await;
}

/// One long history.
pub async fn a_long_history_leaves_no_ghosts(store: Subject) {
    play(&store, 1, 240).await;
}

/// Another, so that no single order of events is what a store happens to get right.
pub async fn another_history_leaves_no_ghosts(store: Subject) {
    play(&store, 2, 240).await;
}

/// Many tasks lost, released and retried in turn: attempts, losses and fences add up in the end.
pub async fn attempts_and_fences_add_up(store: Subject) {
    let id = store.put(TaskSpec { retry: Retry::fixed(Duration::ZERO).attempts(20), ..in_queue("a") }).await;
    let session = store.session().await;
    let (mut attempt, mut losses) = (0, 0);
    for fence in 1..=18 {
        let task = store.grab_one(session).await;
        attempt += 1;
        assert_eq!((task.id, task.attempt, task.losses, task.fence.get()), (id, attempt, losses, fence));
        let kind = match fence % 4 {
            0 => Requeue::Retry { error: "e".into() },
            1 => Requeue::Recover { error: "lost".into() },
            2 => Requeue::Release,
            _ => Requeue::Snooze,
        };
        attempt -= u16::from(kind.refunds());
        losses = match kind {
            Requeue::Recover { .. } => losses + 1,
            Requeue::Release => losses,
            _ => 0,
        };
        store.end(&task, Settlement::Requeue { delay: Duration::ZERO, kind }).await;
        let state = store.record(id).await.state;
        assert_eq!((state.attempt, state.losses, state.fence.get()), (attempt, losses, fence));
    }
    let task = store.grab_one(session).await;
    store.end(&task, Settlement::Fail { reason: FailureReason::Exhausted, error: None }).await;
    assert_eq!(store.act_one(id, Action::Retry).await, queue_core::admin::Acted::Done);
    let task = store.grab_one(session).await;
    assert_eq!((task.attempt, task.fence.get()), (1, 20));
}
