//! Which rows a claim looks at, in which order, and what the core says of them.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use queue_core::admission::{Admission, Candidate, Verdict};
use queue_core::{ClaimRequest, FailureReason, QueueName, SessionId, TaskId, Timestamp};

use super::take::Judged;
use crate::connection::{Conn, Reply};
use crate::error::Failure;
use crate::inner::Inner;
use crate::lanes::{Lane, Origin, Position, Seen, Survey};
use crate::row::ReadyKey;
use crate::server::Flavor;
use crate::sql::{list, maybe_time, value};

/// Rows that one claim looks at, at most.
const LOOK_MAX: usize = 20_000;
/// Rows that one look at types reads, at most.
const WINDOW_MAX: usize = 4_000;
/// Rounds of one claim, at most.
const ROUNDS_MAX: usize = 24;
/// Rows that are tried at once where all those before were held by others, at most.
const REACH_MAX: usize = 128;
/// Later rows looked at for the next due time, where types are chosen.
const LATER_MAX: usize = 1_000;

/// A lane as far as this claim has come in it.
#[derive(Debug)]
struct LaneWork {
    lane: Lane,
    /// When its first row is due.
    first: i64,
    /// Where the next read begins; the lane was not read yet when `None`.
    next: Option<Origin>,
    is_sweep: bool,
    /// No row that is due and free is left behind what was read.
    exhausted: bool,
    /// Everything up to `passed` was taken.
    intact: bool,
    passed: Option<Position>,
    last: Option<Position>,
    /// Rows that the next look at types reads: more each time that too little was found.
    window: usize,
    /// Rows to try next, at least: more each time that all of those tried were held by others, so that few rounds are
    /// enough to come past them.
    reach: usize,
    /// The types wanted when this claim began to read; `None` when all were.
    chosen: Option<Vec<u32>>,
}

/// What is to be locked of a lane.
#[derive(Debug)]
enum Ask {
    /// So many rows from where the lane has come to.
    Rows(usize),
    /// These rows, which were found without locks.
    These(Vec<Position>),
}

/// A queue's index, a lane's index in it, and what is asked of it.
type Plan = (usize, usize, Ask);

/// A queue with its lanes: suspects first, then by priority.
#[derive(Debug)]
struct QueueWork {
    id: u32,
    name: QueueName,
    /// Whether tasks of types that nobody registered here are failed.
    fails_others: bool,
    lanes: Vec<LaneWork>,
}

/// All that a claim looks at.
pub(super) struct Offer<'a> {
    request: &'a ClaimRequest,
    now: Timestamp,
    queues: Vec<QueueWork>,
    /// The types that this worker serves.
    served: Vec<u32>,
    /// Whether there are no others, so that they need not be asked for.
    serves_all: bool,
    /// Types that have a limit of their own, and how much of it is left.
    limited: Vec<(u32, usize)>,
    avoided: HashSet<TaskId>,
    looked: usize,
    begun: bool,
    /// The core said that no more fits.
    full: bool,
    last_queue: Option<u32>,
}

impl<'a> Offer<'a> {
    pub(super) fn new(inner: &Inner, request: &'a ClaimRequest, survey: &Survey) -> Self {
        let (scope, capacity) = (&request.scope, &request.capacity);
        let mut queues: Vec<QueueWork> = Vec::new();
        for &(lane, first) in &survey.lanes {
            let Some(name) = inner.names.queue(lane.queue_id).filter(|name| scope.queues.contains(name)) else {
                continue;
            };
            let work = LaneWork::new(lane, first);
            match queues.last_mut().filter(|queue| queue.id == lane.queue_id) {
                Some(queue) => queue.lanes.push(work),
                None => {
                    let fails_others = scope.fail_unregistered.contains(&name);
                    queues.push(QueueWork { id: lane.queue_id, name, fails_others, lanes: vec![work] });
                }
            }
        }
        for queue in &mut queues {
            queue.lanes.sort_by_key(|work| (!work.lane.suspect, work.lane.rank));
        }
        // Queues take turns: begin after the one that was served last.
        if let Some(turn) = inner.lanes.turn() {
            let after = queues.iter().position(|queue| queue.id > turn).unwrap_or(0);
            queues.rotate_left(after);
        }
        let limited: Vec<_> = capacity
            .per_type
            .iter()
            .filter_map(|(name, left)| inner.names.type_id(name).map(|id| (id, *left)))
            .collect();
        let serves_all = inner.names.all_types_in(&scope.types);
        let served = scope.types.iter().filter_map(|name| inner.names.type_id(name)).collect();
        let avoided = inner.lanes.avoided(survey.now).into_iter().collect();
        Self {
            request,
            now: survey.now,
            queues,
            served,
            serves_all,
            limited,
            avoided,
            looked: 0,
            begun: false,
            full: false,
            last_queue: None,
        }
    }

    /// The transaction is open already, and holds the session's row for sharing.
    pub(super) const fn begun(mut self) -> Self {
        self.begun = true;
        self
    }

    /// The queue that was served last.
    pub(super) const fn last_queue(&self) -> Option<u32> {
        self.last_queue
    }

    /// Reads and judges until there is no room or nothing more to read. `false` when the session is fenced.
    pub(super) async fn work_off(
        &mut self,
        inner: &Inner,
        conn: &mut Conn,
        admission: &mut Admission<'_>,
        judged: &mut Judged,
    ) -> Result<bool, Failure> {
        for _ in 0..ROUNDS_MAX {
            if admission.room() == 0 || self.full || self.looked >= LOOK_MAX {
                break;
            }
            let plans = self.plan(admission);
            if plans.is_empty() {
                break;
            }
            let plans = self.look(inner, conn, plans).await?;
            if plans.is_empty() {
                continue;
            }
            if !self.lock(inner, conn, &plans, admission, judged).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One lane of each queue that has something due, and how much to read of it, so that together they fill the room.
    fn plan(&self, admission: &Admission<'_>) -> Vec<Plan> {
        let now = self.now.as_micros();
        let suspects = admission.suspect_room();
        let open = |work: &LaneWork| work.first <= now && !work.exhausted && (!work.lane.suspect || suspects > 0);
        let hungry: Vec<_> = self
            .queues
            .iter()
            .enumerate()
            .filter_map(|(queue, work)| work.lanes.iter().position(open).map(|lane| (queue, lane)))
            .take(admission.room())
            .collect();
        let share = admission.room().div_ceil(hungry.len().max(1));
        let limit =
            |queue: usize, lane: usize| if self.queues[queue].lanes[lane].lane.suspect { suspects } else { share };
        hungry
            .into_iter()
            .map(|(queue, lane)| {
                let reach = self.queues[queue].lanes[lane].reach;
                (queue, lane, Ask::Rows((limit(queue, lane) + self.avoided.len()).max(reach)))
            })
            .collect()
    }

    /// The types that are wanted of this queue; `None` when all are.
    fn wanted(&self, queue: usize) -> Option<Vec<u32>> {
        if self.queues[queue].fails_others {
            return None;
        }
        let spent = |id: u32| self.limited.iter().any(|(limited, left)| *limited == id && *left == 0);
        if self.serves_all && self.limited.iter().all(|(_, left)| *left > 0) {
            return None;
        }
        Some(self.served.iter().copied().filter(|id| !spent(*id)).collect())
    }

    /// Where types are chosen, first looks without locks: rows of others that were locked on the way to ours would be missed
    /// by the claims that they are for. Each look reads a bounded part.
    async fn look(&mut self, inner: &Inner, conn: &mut Conn, mut plans: Vec<Plan>) -> Result<Vec<Plan>, Failure> {
        let now = self.now;
        let mut asked = Vec::new();
        let mut sql = Vec::new();
        for (index, (queue, lane, ask)) in plans.iter().enumerate() {
            let wanted = self.wanted(*queue);
            let work = &mut self.queues[*queue].lanes[*lane];
            let origin = work.begin(inner, wanted.as_deref(), now);
            let (Some(wanted), Ask::Rows(limit)) = (wanted, ask) else { continue };
            work.window = (work.window * 4).clamp(limit * 4, WINDOW_MAX);
            sql.push(format!(
                "SELECT run_at, task_id, type_id FROM queue_ready FORCE INDEX (PRIMARY) WHERE {}{} AND run_at <= {} \
                 ORDER BY run_at, task_id LIMIT {}",
                work.lane.condition(),
                origin.condition(),
                now.as_micros(),
                work.window
            ));
            asked.push((index, wanted, *limit));
        }
        if sql.is_empty() {
            return Ok(plans);
        }
        let replies = conn.run(sql.join("; ")).await?;
        for ((index, wanted, limit), reply) in asked.into_iter().zip(&replies) {
            let (queue, lane, ask) = &mut plans[index];
            let work = &mut self.queues[*queue].lanes[*lane];
            work.exhausted = reply.rows.len() < work.window;
            let mut these = Vec::new();
            for row in &reply.rows {
                if these.len() == limit {
                    work.exhausted = false;
                    break;
                }
                self.looked += 1;
                let (position, type_id) = ((value(row, 0)?, value(row, 1)?), value::<u32>(row, 2)?);
                work.last = Some(position);
                let is_avoided = TaskId::new(position.1).is_none_or(|id| self.avoided.contains(&id));
                if is_avoided {
                    work.intact = false;
                } else if wanted.contains(&type_id) {
                    these.push(position);
                } else if work.chosen.as_ref().is_some_and(|chosen| !chosen.contains(&type_id)) {
                    work.pass(position, these.is_empty());
                } else {
                    work.intact = false;
                }
            }
            work.next = work.last.map(Origin::After).or(work.next);
            *ask = Ask::These(these);
        }
        plans.retain(|(_, _, ask)| !matches!(ask, Ask::These(these) if these.is_empty()));
        Ok(plans)
    }

    /// Locks and judges. `false` when the session is fenced.
    async fn lock(
        &mut self,
        inner: &Inner,
        conn: &mut Conn,
        plans: &[Plan],
        admission: &mut Admission<'_>,
        judged: &mut Judged,
    ) -> Result<bool, Failure> {
        let flavor = inner.server.flavor;
        let mut sql = Vec::new();
        for (queue, lane, ask) in plans {
            let work = &self.queues[*queue].lanes[*lane];
            let place = || {
                let origin = work.next.unwrap_or(Origin::Head).condition();
                format!("{origin} AND run_at <= {} ORDER BY run_at, task_id", self.now.as_micros())
            };
            let rows = match ask {
                Ask::Rows(limit) => {
                    if flavor.limits_before_skipping() {
                        // How many rows the limit lets through and where they end, whoever holds them.
                        sql.push(format!(
                            "SELECT run_at, task_id, COUNT(*) OVER () FROM (SELECT run_at, task_id FROM queue_ready \
                             FORCE INDEX (PRIMARY) WHERE {}{} LIMIT {limit}) AS w ORDER BY run_at DESC, task_id DESC LIMIT 1",
                            work.lane.condition(),
                            place()
                        ));
                    }
                    format!("{} LIMIT {limit}", place())
                }
                Ask::These(these) => format!(
                    " AND (run_at, task_id) IN ({}) ORDER BY run_at, task_id",
                    list(these.iter().map(|(run_at, task)| format!("({run_at},{task})")))
                ),
            };
            sql.push(format!(
                "SELECT run_at, task_id, type_id, deadline_at, body_bytes FROM queue_ready FORCE INDEX (PRIMARY) \
                 WHERE {}{rows} FOR UPDATE SKIP LOCKED",
                work.lane.condition(),
            ));
        }
        let mut replies = if self.begun {
            conn.run(sql.join("; ")).await?
        } else {
            self.begun = true;
            let alive = alive_sql(flavor, self.request.session);
            let mut replies = conn.begin(&format!("{alive}; {}", sql.join("; "))).await?;
            if !is_alive(&replies.remove(0))? {
                return Ok(false);
            }
            replies
        };
        let mut is_refreshed = false;
        let mut replies = replies.drain(..);
        for (queue, lane, ask) in plans {
            let (queue, lane) = (*queue, *lane);
            let mut end: Option<Position> = None;
            let mut there = 0;
            if matches!(ask, Ask::Rows(_)) && flavor.limits_before_skipping() {
                let reply = replies.next().unwrap_or_default();
                if let Some(row) = reply.rows.first() {
                    end = Some((value(row, 0)?, value(row, 1)?));
                    there = value::<i64>(row, 2)?.try_into().unwrap_or(0);
                }
            }
            let reply = replies.next().unwrap_or_default();
            let lane_work = &mut self.queues[queue].lanes[lane];
            let tried = match ask {
                Ask::Rows(limit) => {
                    let found = reply.rows.len().max(there);
                    self.looked += found.max(1);
                    lane_work.exhausted = found < *limit;
                    // Others may have locked more than they take: what is passed here must be looked at again.
                    lane_work.intact &= reply.rows.len() >= there;
                    *limit
                }
                Ask::These(these) => these.len(),
            };
            lane_work.reach = if reply.rows.is_empty() { (tried * 2).min(REACH_MAX) } else { 0 };
            for row in &reply.rows {
                let (run_at, task): (i64, u64) = (value(row, 0)?, value(row, 1)?);
                let Some(id) = TaskId::new(task) else { continue };
                let type_id: u32 = value(row, 2)?;
                if inner.names.task_type(type_id).is_none() && !is_refreshed {
                    inner.names.refresh(conn).await?;
                    is_refreshed = true;
                }
                let work = &mut self.queues[queue];
                let lane_work = &mut work.lanes[lane];
                if matches!(ask, Ask::Rows(_)) {
                    lane_work.next = Some(Origin::After((run_at, task)));
                    lane_work.last = Some((run_at, task));
                }
                let Some(task_type) = inner.names.task_type(type_id).filter(|_| !self.avoided.contains(&id)) else {
                    lane_work.intact = false;
                    continue;
                };
                let verdict = admission.admit(&Candidate {
                    queue: &work.name,
                    task_type: &task_type,
                    deadline_at: maybe_time(row, 3)?,
                    suspect: lane_work.lane.suspect,
                    bytes: value::<u32>(row, 4)?.into(),
                });
                let key = ReadyKey {
                    queue_id: work.id,
                    suspect: lane_work.lane.suspect,
                    rank: lane_work.lane.rank,
                    run_at,
                    task: id,
                };
                match verdict {
                    Verdict::Run => {
                        judged.runs.push(key);
                        self.last_queue = Some(work.id);
                        if let Some((_, left)) = self.limited.iter_mut().find(|(limited, _)| *limited == type_id) {
                            *left = left.saturating_sub(1);
                        }
                    }
                    Verdict::Expire => judged.ends.push((id, FailureReason::BudgetExceeded)),
                    Verdict::Unregister => judged.ends.push((id, FailureReason::Unregistered)),
                    Verdict::Skip => lane_work.intact = false,
                    Verdict::Full => {
                        lane_work.intact = false;
                        lane_work.exhausted = false;
                        self.full = true;
                        break;
                    }
                }
                if lane_work.intact {
                    lane_work.passed = Some((run_at, task));
                }
            }
            // The rest of these rows others hold, as if the server had skipped them.
            if let Some(end) = end.filter(|_| !self.full) {
                let work = &mut self.queues[queue].lanes[lane];
                work.last = work.last.max(Some(end));
                work.next = work.last.map(Origin::After);
            }
        }
        Ok(true)
    }

    /// The condition that a task of this queue is within the scope, with `AND` before it.
    fn reach(&self, queue: usize) -> String {
        if self.serves_all || self.queues[queue].fails_others {
            String::new()
        } else if self.served.is_empty() {
            " AND FALSE".to_owned()
        } else {
            format!(" AND type_id IN ({})", list(&self.served))
        }
    }

    /// When the next task that this scope could take is due, in the same round trip as the commit, before which `last`
    /// stands.
    pub(super) async fn next_due_and_commit(
        &self,
        conn: &mut Conn,
        last: Option<String>,
    ) -> Result<Option<Timestamp>, Failure> {
        let now = self.now.as_micros();
        let is_spent = self.limited.iter().any(|(id, left)| *left == 0 && self.served.contains(id));
        let lanes = || {
            let queues = self.queues.iter().enumerate();
            queues.flat_map(|(queue, work)| work.lanes.iter().map(move |lane| (queue, lane)))
        };
        let mut sql = Vec::new();
        let mut next: Option<i64> = None;
        for (queue, work) in lanes() {
            let condition = self.reach(queue);
            if work.next.is_none() && condition.is_empty() {
                next = Some(next.map_or(work.first, |next| next.min(work.first)));
                continue;
            }
            let place = if is_spent {
                // What was left because its type has no room is due all the same.
                String::new()
            } else if work.exhausted {
                format!(" AND run_at > {now}")
            } else {
                work.next.unwrap_or(Origin::Head).condition()
            };
            let ahead = format!(
                "SELECT run_at, type_id FROM queue_ready FORCE INDEX (PRIMARY) WHERE {}{place} \
                 ORDER BY run_at, task_id LIMIT {}",
                work.lane.condition(),
                if condition.is_empty() { 1 } else { LATER_MAX }
            );
            sql.push(format!("SELECT MIN(run_at) FROM ({ahead}) AS ahead WHERE TRUE{condition}"));
        }
        let asked = sql.len();
        let replies = match (self.begun, sql.is_empty()) {
            (true, _) => {
                sql.extend(last);
                conn.run_and_commit(&sql.join("; ")).await?
            }
            (false, true) => Vec::new(),
            (false, false) => conn.run(sql.join("; ")).await?,
        };
        for reply in replies.iter().take(asked) {
            let first: Option<i64> = reply.rows.first().map_or(Ok(None), |row| value(row, 0))?;
            next = [next, first].into_iter().flatten().min();
        }
        Ok(next.map(Timestamp::from_micros))
    }

    /// What was found out about the lanes, once the claim is committed.
    pub(super) fn seen(&self) -> Vec<Seen> {
        let read = self.queues.iter().flat_map(|queue| &queue.lanes).filter(|work| work.next.is_some());
        read.map(|work| Seen {
            lane: work.lane,
            choice: choice(work.chosen.as_deref()),
            passed: work.passed,
            swept: work.is_sweep.then_some(if work.exhausted { None } else { work.last }),
        })
        .collect()
    }
}

/// Locks a session's row for sharing: it cannot be fenced before the claim is committed.
pub(super) fn alive_sql(flavor: Flavor, session: SessionId) -> String {
    let lock = if flavor.shares_locks() { " LOCK IN SHARE MODE" } else { "" };
    format!("SELECT fenced_at IS NULL FROM queue_session WHERE id = {session}{lock}")
}

/// What [`alive_sql`] answered; `false` when the session is fenced or gone.
pub(super) fn is_alive(reply: &Reply) -> Result<bool, sqlx::Error> {
    Ok(reply.rows.first().map_or(Ok(0_i64), |row| value(row, 0))? == 1)
}

/// The number of a choice of types; 0 is all of them.
fn choice(wanted: Option<&[u32]>) -> u64 {
    let Some(wanted) = wanted else { return 0 };
    let mut types = wanted.to_vec();
    types.sort_unstable();
    let mut hasher = DefaultHasher::new();
    types.hash(&mut hasher);
    hasher.finish() | 1
}

impl LaneWork {
    const fn new(lane: Lane, first: i64) -> Self {
        Self {
            lane,
            first,
            next: None,
            is_sweep: false,
            exhausted: false,
            intact: true,
            passed: None,
            last: None,
            window: 0,
            reach: 0,
            chosen: None,
        }
    }

    /// Notes that a row is of no use, where nothing before it is left.
    fn pass(&mut self, position: Position, is_next: bool) {
        if is_next && self.intact {
            self.passed = Some(position);
        }
    }

    /// Where to read; at first where the lane was passed before, or from the head when it is time to look there again.
    fn begin(&mut self, inner: &Inner, wanted: Option<&[u32]>, now: Timestamp) -> Origin {
        if let Some(next) = self.next {
            return next;
        }
        let start = inner.lanes.start(self.lane, choice(wanted), now);
        self.chosen = wanted.map(<[u32]>::to_vec);
        self.is_sweep = start.sweep.is_some();
        let origin = start.sweep.unwrap_or(start.from);
        self.next = Some(origin);
        origin
    }
}
