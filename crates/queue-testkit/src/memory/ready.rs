//! What waits to be claimed, in the order of claiming.
//!
//! Each queue has lanes by priority, each lane a run of tasks for each type, ordinary tasks apart from suspects. So a claim
//! never walks over what it may not take: a type or the suspects that have no room cost one look, however many wait.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque, btree_map, btree_set};
use std::ops::Bound;

use queue_core::admission::Verdict;
use queue_core::{QueueName, Scope, TaskId, TaskType, Timestamp};

type Run = BTreeSet<(Timestamp, TaskId)>;
/// Ordinary tasks, then suspects.
type Lane = BTreeMap<TaskType, [Run; 2]>;
type Lanes = BTreeMap<i8, Lane>;

/// A queued task, by what it is ordered by.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    pub(super) queue: &'a QueueName,
    pub(super) rank: i8,
    pub(super) task_type: &'a TaskType,
    pub(super) suspect: bool,
    pub(super) run_at: Timestamp,
    pub(super) id: TaskId,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ready {
    queues: BTreeMap<QueueName, Lanes>,
}

impl Ready {
    pub(super) fn insert(&mut self, task: &Waiting<'_>) {
        // Looked up before the names are cloned: nearly always they are there.
        if !self.queues.contains_key(task.queue) {
            self.queues.insert(task.queue.clone(), Lanes::new());
        }
        let Some(lanes) = self.queues.get_mut(task.queue) else { return };
        let lane = lanes.entry(task.rank).or_default();
        if !lane.contains_key(task.task_type) {
            lane.insert(task.task_type.clone(), Default::default());
        }
        if let Some(runs) = lane.get_mut(task.task_type) {
            runs[usize::from(task.suspect)].insert((task.run_at, task.id));
        }
    }

    pub(super) fn remove(&mut self, task: &Waiting<'_>) {
        let Some(lanes) = self.queues.get_mut(task.queue) else { return };
        let Some(lane) = lanes.get_mut(&task.rank) else { return };
        let Some(runs) = lane.get_mut(task.task_type) else { return };
        runs[usize::from(task.suspect)].remove(&(task.run_at, task.id));
        if runs.iter().all(BTreeSet::is_empty) {
            lane.remove(task.task_type);
        }
        if lane.is_empty() {
            lanes.remove(&task.rank);
        }
        if lanes.is_empty() {
            self.queues.remove(task.queue);
        }
    }

    /// Offers due tasks to `judge`, one of each queue in turn, beginning after the queue `turn`, until it says that it is full
    /// or nothing due is left. Returns the queue whose task ran last.
    pub(super) fn offer(
        &self,
        now: Timestamp,
        turn: Option<&QueueName>,
        open: impl Fn(&QueueName) -> bool,
        mut judge: impl FnMut(TaskId) -> Verdict,
    ) -> Option<QueueName> {
        let after = turn.map_or(Bound::Unbounded, Bound::Excluded);
        let before = turn.map(|turn| self.queues.range::<QueueName, _>((Bound::Unbounded, Bound::Included(turn))));
        let mut unseen = self
            .queues
            .range::<QueueName, _>((after, Bound::Unbounded))
            .chain(before.into_iter().flatten())
            .filter(|(queue, _)| open(queue));
        let mut seen = VecDeque::new();
        let mut last: Option<&QueueName> = None;
        while let Some((queue, mut cursor)) =
            unseen.next().map(|(queue, lanes)| (queue, Cursor::new(lanes))).or_else(|| seen.pop_front())
        {
            while let Some((id, source)) = cursor.next(now) {
                match judge(id) {
                    Verdict::Full => return last.cloned(),
                    // The rest of the run is of the same type and just as suspect.
                    Verdict::Skip => {}
                    Verdict::Expire | Verdict::Unregister => cursor.refill(source, now),
                    Verdict::Run => {
                        cursor.refill(source, now);
                        last = Some(queue);
                        seen.push_back((queue, cursor));
                        break;
                    }
                }
            }
        }
        last.cloned()
    }

    /// When the next task within reach of this scope is due; the search ends with the first that is due at `now`.
    pub(super) fn next_due(
        &self,
        scope: &Scope,
        now: Timestamp,
        open: impl Fn(&QueueName) -> bool,
    ) -> Option<Timestamp> {
        let mut next: Option<Timestamp> = None;
        for (queue, lanes) in self.queues.iter().filter(|(queue, _)| open(queue)) {
            for (_, runs) in lanes.values().flatten().filter(|(task_type, _)| scope.reaches(queue, task_type)) {
                let first = runs.iter().filter_map(|run| run.first().map(|&(run_at, _)| run_at)).min();
                next = [next, first].into_iter().flatten().min();
                if next.is_some_and(|next| next <= now) {
                    return next;
                }
            }
        }
        next
    }
}

/// The due tasks of one queue in order: lane by lane, within a lane by due time and id over all of its runs.
#[derive(Debug)]
struct Cursor<'a> {
    lanes: btree_map::Values<'a, i8, Lane>,
    sources: Vec<btree_set::Iter<'a, (Timestamp, TaskId)>>,
    heads: BinaryHeap<Reverse<(Timestamp, TaskId, usize)>>,
}

impl<'a> Cursor<'a> {
    fn new(lanes: &'a Lanes) -> Self {
        Self { lanes: lanes.values(), sources: Vec::new(), heads: BinaryHeap::new() }
    }

    /// The next due task and the run that it came from, which goes on only when it is [refilled](Self::refill).
    fn next(&mut self, now: Timestamp) -> Option<(TaskId, usize)> {
        while self.heads.is_empty() {
            let lane = self.lanes.next()?;
            self.sources.clear();
            self.sources.extend(lane.values().flatten().map(BTreeSet::iter));
            for source in 0..self.sources.len() {
                self.refill(source, now);
            }
        }
        self.heads.pop().map(|Reverse((_, id, source))| (id, source))
    }

    fn refill(&mut self, source: usize, now: Timestamp) {
        if let Some(&(run_at, id)) = self.sources[source].next()
            && run_at <= now
        {
            self.heads.push(Reverse((run_at, id, source)));
        }
    }
}

#[cfg(test)]
mod tests {
    use queue_core::Queues;

    use super::*;

    fn ready(tasks: &[(&'static str, i8, &'static str, i64)]) -> Ready {
        let mut ready = Ready::default();
        for (index, (queue, rank, task_type, run_at)) in tasks.iter().enumerate() {
            ready.insert(&Waiting {
                queue: &QueueName::new(queue),
                rank: *rank,
                task_type: &TaskType::new(task_type),
                suspect: false,
                run_at: Timestamp::from_micros(*run_at),
                id: TaskId::new(index as u64 + 1).unwrap(),
            });
        }
        ready
    }

    fn offered(
        ready: &Ready,
        turn: Option<&QueueName>,
        verdict: impl Fn(u64) -> Verdict,
    ) -> (Vec<u64>, Option<QueueName>) {
        let mut ids = Vec::new();
        let last = ready.offer(
            Timestamp::from_micros(10),
            turn,
            |_| true,
            |id| {
                ids.push(id.get());
                verdict(id.get())
            },
        );
        (ids, last)
    }

    #[test]
    fn queues_take_turns_and_lanes_are_strict() {
        let ready =
            ready(&[("a", 0, "x", 2), ("a", 0, "y", 1), ("a", -5, "x", 9), ("b", 0, "x", 1), ("a", 0, "x", 11)]);
        let (ids, last) = offered(&ready, None, |_| Verdict::Run);
        assert_eq!(ids, [3, 4, 2, 1]);
        assert_eq!(last, Some(QueueName::new("a")));
        let (ids, _) = offered(&ready, Some(&QueueName::new("a")), |_| Verdict::Run);
        assert_eq!(ids, [4, 3, 2, 1]);
    }

    #[test]
    fn a_skipped_run_is_not_walked_and_full_ends_it() {
        let ready = ready(&[("a", 0, "x", 1), ("a", 0, "x", 2), ("a", 0, "y", 3), ("a", 0, "y", 4)]);
        let (ids, last) = offered(&ready, None, |id| if id == 1 { Verdict::Skip } else { Verdict::Run });
        assert_eq!((ids, last), (vec![1, 3, 4], Some(QueueName::new("a"))));
        let (ids, last) = offered(&ready, None, |id| if id == 1 { Verdict::Expire } else { Verdict::Full });
        assert_eq!((ids, last), (vec![1, 2], None));
    }

    #[test]
    fn what_is_removed_leaves_nothing_behind() {
        let mut one = ready(&[("a", 0, "x", 1)]);
        one.remove(&Waiting {
            queue: &QueueName::new("a"),
            rank: 0,
            task_type: &TaskType::new("x"),
            suspect: false,
            run_at: Timestamp::from_micros(1),
            id: TaskId::new(1).unwrap(),
        });
        assert_eq!(one, Ready::default());
    }

    #[test]
    fn the_next_due_time_is_that_of_the_scope() {
        let ready = ready(&[("a", 0, "x", 30), ("a", 3, "x", 20), ("b", 0, "y", 15)]);
        let due = |scope: &Scope| ready.next_due(scope, Timestamp::from_micros(10), |_| true).map(Timestamp::as_micros);
        assert_eq!(due(&Scope::of([TaskType::new("x")])), Some(20));
        assert_eq!(due(&Scope::of([TaskType::new("z")])), None);
        let strict = Scope { fail_unregistered: Queues::All, ..Scope::of([TaskType::new("z")]) };
        assert_eq!(due(&strict), Some(15));
    }
}
