//! Looking for what a claim may take. It only reads: the idle poll ends here, without a lock and without a write.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use queue_core::admission::{Admission, Candidate, Verdict};
use queue_core::{ClaimRequest, Event, QueueName, StoreError, TaskId, TaskType, Timestamp, transition};
use rusqlite::params;

use crate::lanes::{Lane, QueueLanes, type_ids, waiting};
use crate::marks::{Key, Position, START, Walk};
use crate::runs::Move;
use crate::task::TaskRow;
use crate::work::{Result, Work, task_id};

/// The due rows of a lane after a position, in their order.
pub(crate) const DUE: &str = "SELECT run_at, task_id, type_id, deadline_at, bytes FROM queue_ready \
                              WHERE queue_id = ?1 AND suspect = ?2 AND rank = ?3 AND (run_at, task_id) > (?4, ?5) \
                              AND run_at <= ?6 ORDER BY run_at, task_id LIMIT ?7";
/// The first rows of a lane that are not due yet.
pub(crate) const LATER: &str = "SELECT run_at, type_id FROM queue_ready \
                                WHERE queue_id = ?1 AND suspect = ?2 AND rank = ?3 AND run_at > ?4 \
                                ORDER BY run_at, task_id LIMIT ?5";

/// Due rows read at a time: as many as are wanted and, where nothing wanted comes, more and more.
const CHUNK_MAX: usize = 256;
/// Rows looked at in a lane for the next due one of a served type. When none is among them, the answer is the due time of the
/// last one looked at: too early at worst, and the look then goes on from there.
const LATER_MAX: usize = 256;
/// Tasks' rows that are read at once, where their ids follow on one another. What is read of them and not taken is lost.
const AHEAD_MAX: usize = 64;

/// A task that may be taken, and the state it goes to.
#[derive(Debug)]
pub(crate) struct Taking {
    pub(crate) moving: Move,
    pub(crate) task_type: TaskType,
    pub(crate) queue: QueueName,
}

/// What a look found.
#[derive(Debug)]
pub(crate) struct Survey {
    /// What may be taken, in the order in which it should start; tasks that end without a run are among them.
    pub(crate) takings: Vec<Taking>,
    /// When the next of this scope is due.
    pub(crate) next_due: Option<Timestamp>,
    /// The queue of the last task that is to run.
    pub(crate) last_queue: Option<i64>,
}

/// How far to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Until something is found.
    First,
    /// Until nothing more fits.
    Full,
}

/// Looks for what the request may take; the queue after `last` comes first.
pub(crate) fn survey(work: &mut Work<'_>, request: &ClaimRequest, last: Option<i64>, depth: Depth) -> Result<Survey> {
    let scope = &request.scope;
    let queues = waiting(work, &scope.queues, false)?;
    let types = type_ids(work, &scope.types)?;
    let mut look = Look {
        request,
        depth,
        types,
        admission: Admission::new(request, work.now),
        takings: Vec::new(),
        ahead: VecDeque::new(),
        unnamed: HashMap::new(),
        closed: BTreeSet::new(),
        last_queue: None,
        more: false,
        full: false,
    };
    look.take(work, &queues, last)?;
    let next_due = if look.more { Some(work.now) } else { look.later(work, &queues)? };
    Ok(Survey { takings: look.takings, next_due, last_queue: look.last_queue })
}

struct Look<'r> {
    request: &'r ClaimRequest,
    depth: Depth,
    types: HashMap<i64, TaskType>,
    admission: Admission<'r>,
    takings: Vec<Taking>,
    /// Rows that were read together with one that is wanted, by their stored numbers.
    ahead: VecDeque<(i64, Result<TaskRow>)>,
    /// Types that are not served, met in queues that fail such tasks.
    unnamed: HashMap<i64, TaskType>,
    /// Types that have no room, as the core has said: rows of theirs are passed without asking again.
    closed: BTreeSet<i64>,
    last_queue: Option<i64>,
    /// There is more that is due.
    more: bool,
    /// Nothing more fits.
    full: bool,
}

/// Where the look stands in one queue.
struct Turn<'q> {
    queue_id: i64,
    queue: &'q QueueName,
    lanes: std::slice::Iter<'q, Lane>,
    /// The lane it is in, and how far nothing wanted was met in it.
    lane: Option<(Lane, Walk)>,
    position: Position,
    fails_unregistered: bool,
}

/// What became of a due row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    /// It is to run.
    Runs,
    /// It ends without a run, or is corrupt.
    Done,
    /// There is no room for its type.
    TypeClosed,
    /// There is no room for suspects.
    LaneClosed,
    /// Nothing more fits.
    Full,
}

impl<'r> Look<'r> {
    /// Takes from the queues in turn, an equal share from each, until nothing more fits or nothing more is due.
    fn take(&mut self, work: &mut Work<'_>, queues: &[QueueLanes], last: Option<i64>) -> Result<()> {
        let mut turns = queues
            .iter()
            .filter(|queue| queue.lanes.iter().any(|lane| lane.first <= work.now))
            .map(|queue| Turn {
                queue_id: queue.id,
                queue: &queue.queue,
                lanes: queue.lanes.iter(),
                lane: None,
                position: START,
                fails_unregistered: self.request.scope.fail_unregistered.contains(&queue.queue),
            })
            .collect::<Vec<_>>();
        let after_last = turns.iter().position(|turn| Some(turn.queue_id) > last);
        turns.rotate_left(after_last.unwrap_or_default());
        while !turns.is_empty() && !self.full {
            let share = self.admission.room().div_ceil(turns.len()).max(1);
            let mut unfinished = Vec::with_capacity(turns.len());
            for mut turn in turns {
                if self.full || self.take_share(work, &mut turn, share)? {
                    unfinished.push(turn);
                }
            }
            turns = unfinished;
        }
        Ok(())
    }

    /// Takes up to `share` tasks from a queue; `false` when nothing of it is left.
    fn take_share(&mut self, work: &mut Work<'_>, turn: &mut Turn<'_>, share: usize) -> Result<bool> {
        let mut left = share;
        let mut chunk = left.saturating_add(1).min(CHUNK_MAX);
        while let Some((lane, mut walk)) = self.lane(work, turn) {
            let due = due(work, &lane, turn.position, chunk)?;
            let mut is_over = due.len() < chunk;
            let mut is_wanted = false;
            for (index, row) in due.iter().enumerate() {
                let position = (row.run_at, row.task);
                if !self.wants(turn, row.type_id) {
                    turn.position = position;
                    walk.pass(position);
                    continue;
                }
                walk.end(&mut work.memory.marks);
                if left == 0 {
                    turn.lane = Some((lane, walk));
                    return Ok(true);
                }
                (turn.position, is_wanted) = (position, true);
                match self.meet(work, &lane, turn, &due[index..])? {
                    Met::Runs => left -= 1,
                    Met::Done => {}
                    Met::Full => return Ok(true),
                    Met::LaneClosed => {
                        is_over = true;
                        break;
                    }
                    Met::TypeClosed => {
                        // Less is wanted now: what an earlier walk for just that has passed need not be walked again.
                        self.closed.insert(row.type_id);
                        walk = Walk::begin(&work.memory.marks, self.key(turn, &lane), position, work.now);
                        if walk.position() > position {
                            (turn.position, is_over) = (walk.position(), false);
                            break;
                        }
                    }
                }
            }
            if is_over {
                walk.end(&mut work.memory.marks);
                (turn.lane, turn.position) = (None, START);
            } else {
                turn.lane = Some((lane, walk));
            }
            chunk = if is_wanted { left.saturating_add(1) } else { chunk * 2 }.min(CHUNK_MAX);
        }
        Ok(false)
    }

    /// The lane that the turn is in or, when it is in none, the next one that is due.
    fn lane(&self, work: &Work<'_>, turn: &mut Turn<'_>) -> Option<(Lane, Walk)> {
        if turn.lane.is_none() {
            let lane = *turn.lanes.find(|lane| lane.first <= work.now)?;
            let walk = Walk::begin(&work.memory.marks, self.key(turn, &lane), START, work.now);
            (turn.lane, turn.position) = (Some((lane, walk)), walk.position());
        }
        turn.lane
    }

    /// Whether a row of this type is worth asking the core about.
    fn wants(&self, turn: &Turn<'_>, type_id: i64) -> bool {
        (turn.fails_unregistered || self.types.contains_key(&type_id)) && !self.closed.contains(&type_id)
    }

    /// The lane, and what is [wanted](Self::wants) from it.
    fn key(&self, turn: &Turn<'_>, lane: &Lane) -> Key {
        let mut wanted = self.types.keys().filter(|id| !self.closed.contains(id)).collect::<Vec<_>>();
        wanted.sort_unstable();
        let mut hash = DefaultHasher::new();
        (turn.fails_unregistered, wanted).hash(&mut hash);
        if turn.fails_unregistered {
            self.closed.hash(&mut hash);
        }
        (lane.queue_id, lane.suspect, lane.rank, hash.finish())
    }

    /// Judges the first of some due rows.
    fn meet(&mut self, work: &mut Work<'_>, lane: &Lane, turn: &Turn<'_>, rows: &[Due]) -> Result<Met> {
        let Some(row) = rows.first().filter(|row| !work.memory.avoids(row.task, work.now)) else {
            return Ok(Met::Done);
        };
        let unregistered = !self.types.contains_key(&row.type_id);
        if unregistered && !self.unnamed.contains_key(&row.type_id) {
            let name = work.memory.names.name(work.conn, row.type_id).and_then(|name: Option<TaskType>| {
                let corrupt = || StoreError::corrupt(TaskId::new(row.task.cast_unsigned()), "its type is not known");
                Ok(name.ok_or_else(corrupt)?)
            });
            let Some(name) = work.pass_over_corrupt(name)? else { return Ok(Met::Done) };
            self.unnamed.insert(row.type_id, name);
        }
        let names = if unregistered { &self.unnamed } else { &self.types };
        let Some(task_type) = names.get(&row.type_id).cloned() else { return Ok(Met::Done) };
        let candidate = Candidate {
            queue: turn.queue,
            task_type: &task_type,
            deadline_at: row.deadline_at.map(Timestamp::from_micros),
            suspect: lane.suspect,
            bytes: row.bytes,
        };
        let verdict = self.admission.judge(&candidate);
        let event = match verdict {
            Verdict::Run => Event::Claim(self.request.claim),
            Verdict::Expire => Event::Expire,
            Verdict::Unregister => Event::Unregister,
            // What has no room now is still there.
            Verdict::Skip => {
                self.more = true;
                let no_suspects = lane.suspect && self.admission.suspect_room() == 0;
                return Ok(if no_suspects { Met::LaneClosed } else { Met::TypeClosed });
            }
            Verdict::Full => {
                (self.more, self.full) = (true, true);
                return Ok(Met::Full);
            }
        };
        let moving = self.row(work, turn, rows).and_then(|found| moved(work, lane, row, found, &event));
        let Some(moving) = work.pass_over_corrupt(moving)? else { return Ok(Met::Done) };
        // A row that cannot be has taken no room, or a few of them would keep the rest from running.
        self.admission.take(&candidate, verdict);
        let runs = matches!(event, Event::Claim(_));
        if runs {
            self.last_queue = Some(turn.queue_id);
        }
        self.takings.push(Taking { moving, task_type, queue: turn.queue.clone() });
        if self.depth == Depth::First {
            (self.more, self.full) = (true, true);
            return Ok(Met::Full);
        }
        Ok(if runs { Met::Runs } else { Met::Done })
    }

    /// The task's row of the first of some due rows, for which those after it are read as well, as far as their ids follow.
    fn row(&mut self, work: &Work<'_>, turn: &Turn<'_>, rows: &[Due]) -> Result<Option<TaskRow>> {
        let Some(id) = rows.first().map(|row| row.task) else { return Ok(None) };
        while self.ahead.front().is_some_and(|(ahead, _)| *ahead < id) {
            self.ahead.pop_front();
        }
        if self.ahead.front().is_none_or(|(ahead, _)| *ahead != id) {
            let most = if self.depth == Depth::First { 1 } else { AHEAD_MAX.min(self.admission.room()) };
            let follows = |(row, id): &(&Due, i64)| row.task == *id && self.wants(turn, row.type_id);
            let run = rows.iter().zip(id..).take(most).take_while(follows).count();
            if run < 2 {
                return TaskRow::load(work, task_id(id)?);
            }
            self.ahead = TaskRow::load_run(work, id, rows[run - 1].task)?.into();
        }
        match self.ahead.front() {
            Some((ahead, _)) if *ahead == id => self.ahead.pop_front().map(|(_, row)| row).transpose(),
            _ => Ok(None),
        }
    }

    /// When the next row of a served type is due, of those that are not yet.
    fn later(&self, work: &Work<'_>, queues: &[QueueLanes]) -> Result<Option<Timestamp>> {
        let mut next: Option<Timestamp> = None;
        for QueueLanes { queue, lanes, .. } in queues {
            let any = self.request.scope.fail_unregistered.contains(queue);
            for lane in lanes {
                if next.is_some_and(|next| next <= lane.first) {
                    continue;
                }
                let rows = work.all(
                    LATER,
                    params![lane.queue_id, lane.suspect, lane.rank, work.now.as_micros(), LATER_MAX as i64],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )?;
                let served = rows.iter().find(|(_, type_id)| any || self.types.contains_key(type_id));
                let cut = (rows.len() == LATER_MAX).then(|| rows.last()).flatten();
                let due = served.or(cut).map(|&(run_at, _): &(i64, i64)| Timestamp::from_micros(run_at));
                next = [next, due].into_iter().flatten().min();
            }
        }
        Ok(next)
    }
}

struct Due {
    run_at: i64,
    task: i64,
    type_id: i64,
    deadline_at: Option<i64>,
    bytes: u64,
}

fn due(work: &Work<'_>, lane: &Lane, (run_at, task): Position, limit: usize) -> Result<Vec<Due>> {
    work.all(
        DUE,
        params![lane.queue_id, lane.suspect, lane.rank, run_at, task, work.now.as_micros(), limit as i64],
        |row| {
            Ok(Due {
                run_at: row.get(0)?,
                task: row.get(1)?,
                type_id: row.get(2)?,
                deadline_at: row.get(3)?,
                bytes: row.get::<_, i64>(4)?.unsigned_abs(),
            })
        },
    )
}

/// The task's row and the state that the event leads to. A row that waits without being a task that waits just there is corrupt.
fn moved(work: &Work<'_>, lane: &Lane, due: &Due, row: Option<TaskRow>, event: &Event<'_>) -> Result<Move> {
    let id = task_id(due.task)?;
    let corrupt = |defect: String| StoreError::corrupt(Some(id), defect);
    let row = row.ok_or_else(|| corrupt("it waits, and there is no such task".into()))?;
    let waits = (lane.queue_id, lane.suspect, lane.rank, due.run_at, due.type_id);
    let rank = i64::from(row.priority.rank());
    if waits != (row.queue_id, row.state.is_suspect(), rank, row.state.run_at.as_micros(), row.type_id) {
        return Err(corrupt("what waits for it is not what it says".into()).into());
    }
    let to = transition(&row.state, event, work.now).map_err(|error| corrupt(format!("it waits, but: {error}")))?;
    Ok(Move { row, to })
}
