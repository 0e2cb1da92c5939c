//! Which rows a claim looks at, in which order, and what the core says of them.

use std::collections::HashSet;

use queue_core::admission::{Admission, Candidate, Verdict};
use queue_core::{ClaimRequest, FailureReason, QueueName, SessionId, TaskId, Timestamp};

use super::found::{Found, Unusable, find_sql};
use super::guess::Guess;
use super::lane::LaneWork;
use super::take::Judged;
use crate::connection::{Conn, Reply};
use crate::error::Failure;
use crate::inner::Inner;
use crate::lanes::{Lane, Origin, Position, Seen, Survey};
use crate::row::ReadyKey;
use crate::server::Flavor;
use crate::sql::{list, value};

/// Rows that one claim looks at, at most.
const LOOK_MAX: usize = 20_000;
/// Rows that one look at types reads, at most.
const WINDOW_MAX: usize = 4_000;
/// Rounds of one claim, at most.
const ROUNDS_MAX: usize = 24;
/// Rows that are tried at once where all those before were held by others, at most.
const REACH_MAX: usize = 128;
/// What a queue gets of a claim, at least, where the claim has room for as much.
const SHARE_MIN: usize = 128;
/// Later rows looked at for the next due time, where types are chosen.
const LATER_MAX: usize = 1_000;
/// Larger payloads are read once it is known that they fit.
const INLINE_MAX: u64 = 16 << 10;

/// What is to be locked of a lane.
#[derive(Debug)]
pub(super) enum Ask {
    /// So many rows from where the lane has come to.
    Rows(usize),
    /// These rows, which were found without locks.
    These(Vec<Position>),
}

impl Ask {
    /// How many rows it is about.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Rows(limit) => *limit,
            Self::These(these) => these.len(),
        }
    }
}

/// A queue's index, a lane's index in it, and what is asked of it.
pub(super) type Plan = (usize, usize, Ask);

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
    /// The core said of a row that no more fits: this is when that one is due.
    full_at: Option<i64>,
    last_queue: Option<u32>,
    left: Vec<Lane>,
}

impl<'a> Offer<'a> {
    pub(super) fn new(inner: &Inner, request: &'a ClaimRequest, survey: &Survey, turn: Option<u32>) -> Self {
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
        if let Some(turn) = turn {
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
            full_at: None,
            last_queue: None,
            left: Vec::new(),
        }
    }

    /// The transaction is open already, and holds the session's row for sharing.
    pub(super) const fn begun(mut self) -> Self {
        self.begun = true;
        self
    }

    /// Whether a transaction is open.
    pub(super) const fn is_begun(&self) -> bool {
        self.begun
    }

    /// The queue that was served last.
    pub(super) const fn last_queue(&self) -> Option<u32> {
        self.last_queue
    }

    /// Takes what was locked on a guess, as far as this would have asked for it as well. The rest of what it would have asked for is
    /// to be read next.
    pub(super) async fn take_over(
        &mut self,
        inner: &Inner,
        conn: &mut Conn,
        guess: &Guess,
        found: Vec<Reply>,
        admission: &mut Admission<'_>,
        judged: &mut Judged,
    ) -> Result<Vec<Plan>, Failure> {
        let hungry: Vec<_> = self.hungry(admission.suspect_room()).collect();
        let (mut rest, mut replies) = (self.plan(admission), Vec::new());
        for ((begun, asked), mut reply) in guess.lanes().zip(found) {
            let is_same = |(queue, lane): &(usize, usize)| self.queues[*queue].lanes[*lane].lane == begun.lane;
            let Some((queue, lane)) = hungry.iter().copied().find(|at| is_same(at) && self.wanted(at.0).is_none())
            else {
                self.left.push(begun.lane);
                continue;
            };
            // Other queues may have something as well, of which the guess did not know. Where it is not this one's turn at all, it
            // is taken nevertheless: the others are known now, and come next.
            let planned = rest.iter().position(|plan| (plan.0, plan.1) == (queue, lane));
            let limit = planned.map_or(*asked, |index| rest.remove(index).2.rows().min(*asked));
            if reply.rows.len() > limit {
                reply.rows.truncate(limit);
                self.left.push(begun.lane);
            }
            self.queues[queue].lanes[lane].take_over(begun);
            replies.push(((queue, lane, Ask::Rows(limit)), reply));
        }
        self.judge(inner, conn, replies, admission, judged).await?;
        Ok(rest)
    }

    /// Reads and judges until there is no room or nothing more to read, this first. `false` when the session is fenced.
    pub(super) async fn work_off(
        &mut self,
        inner: &Inner,
        conn: &mut Conn,
        admission: &mut Admission<'_>,
        judged: &mut Judged,
        mut first: Vec<Plan>,
    ) -> Result<bool, Failure> {
        for _ in 0..ROUNDS_MAX {
            if admission.room() == 0 || self.full_at.is_some() || self.looked >= LOOK_MAX {
                break;
            }
            let plans = if first.is_empty() { self.plan(admission) } else { std::mem::take(&mut first) };
            if plans.is_empty() {
                break;
            }
            let plans = self.look(inner, conn, plans).await?;
            if plans.is_empty() {
                continue;
            }
            if !self.lock(inner, conn, plans, admission, judged).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One lane of each queue that has something due, and how much to read of it, so that together they fill the room. Where the
    /// room is large, few queues share it, and the others come with the next claims.
    pub(super) fn plan(&self, admission: &Admission<'_>) -> Vec<Plan> {
        let (room, suspects) = (admission.room(), admission.suspect_room());
        let sharers = if room < SHARE_MIN { room } else { room / SHARE_MIN };
        let hungry: Vec<_> = self.hungry(suspects).take(sharers).collect();
        let share = room.div_ceil(hungry.len().max(1));
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

    /// The first lane of each queue that has something due, in the order of the queues' turns.
    fn hungry(&self, suspects: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let now = self.now.as_micros();
        let open = move |work: &LaneWork| work.first <= now && !work.exhausted && (!work.lane.suspect || suspects > 0);
        let queues = self.queues.iter().enumerate();
        queues.filter_map(move |(queue, work)| work.lanes.iter().position(open).map(|lane| (queue, lane)))
    }

    /// The lanes that the next claim may guess.
    pub(super) fn likely(&self, suspects: usize) -> Vec<Lane> {
        let lanes = self.hungry(suspects).map(|(queue, lane)| self.queues[queue].lanes[lane].lane);
        lanes.filter(|lane| !lane.suspect).collect()
    }

    /// The lanes of which rows were locked and not taken, so that others may have passed over them.
    pub(super) fn left(&self) -> &[Lane] {
        &self.left
    }

    /// The types that are wanted of this queue; `None` when all are.
    pub(super) fn wanted(&self, queue: usize) -> Option<Vec<u32>> {
        if self.queues[queue].fails_others {
            return None;
        }
        let spent = |id: u32| self.limited.iter().any(|(limited, left)| *limited == id && *left == 0);
        if self.serves_all && self.limited.iter().all(|(_, left)| *left > 0) {
            return None;
        }
        Some(self.served.iter().copied().filter(|id| !spent(*id)).collect())
    }

    /// The lanes that are planned for, each begun.
    pub(super) fn begin(&mut self, inner: &Inner, plans: &[Plan]) -> Vec<LaneWork> {
        let now = self.now;
        let lanes = plans.iter().map(|(queue, lane, _)| {
            let work = &mut self.queues[*queue].lanes[*lane];
            work.begin(inner, None, now);
            work.clone()
        });
        lanes.collect()
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
                work.lane.condition(""),
                origin.condition(""),
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

    /// The statements that lock what is planned and read it, for rows that are due at `due`.
    pub(super) fn lock_sql(&self, flavor: Flavor, plans: &[Plan], due: &str) -> Vec<String> {
        let rows: usize = plans.iter().map(|(_, _, ask)| ask.rows()).sum();
        let inline = (self.request.capacity.bytes / (rows.max(1) as u64)).min(INLINE_MAX);
        let mut sql = Vec::new();
        for (queue, lane, ask) in plans {
            let work = &self.queues[*queue].lanes[*lane];
            let origin = work.next.unwrap_or(Origin::Head);
            let rows = match ask {
                Ask::Rows(limit) => {
                    if flavor.limits_before_skipping() {
                        // How many rows the limit lets through and where they end, whoever holds them.
                        sql.push(format!(
                            "SELECT run_at, task_id, COUNT(*) OVER () FROM (SELECT run_at, task_id FROM queue_ready \
                             FORCE INDEX (PRIMARY) WHERE {}{} AND run_at <= {due} ORDER BY run_at, task_id LIMIT {limit}) AS w \
                             ORDER BY run_at DESC, task_id DESC LIMIT 1",
                            work.lane.condition(""),
                            origin.condition(""),
                        ));
                    }
                    format!(
                        "{} AND r.run_at <= {due} ORDER BY r.run_at, r.task_id LIMIT {limit}",
                        origin.condition("r.")
                    )
                }
                Ask::These(these) => format!(
                    " AND (r.run_at, r.task_id) IN ({}) ORDER BY r.run_at, r.task_id",
                    list(these.iter().map(|(run_at, task)| format!("({run_at},{task})")))
                ),
            };
            sql.push(find_sql(&format!("{}{rows}", work.lane.condition("r.")), inline));
        }
        sql
    }

    /// Locks and judges. `false` when the session is fenced.
    async fn lock(
        &mut self,
        inner: &Inner,
        conn: &mut Conn,
        plans: Vec<Plan>,
        admission: &mut Admission<'_>,
        judged: &mut Judged,
    ) -> Result<bool, Failure> {
        let flavor = inner.server.flavor;
        let sql = self.lock_sql(flavor, &plans, &self.now.as_micros().to_string());
        let replies = if self.begun {
            conn.run_all(sql).await?
        } else {
            self.begun = true;
            let alive = alive_sql(flavor, self.request.session);
            let mut replies = conn.begin_all(std::iter::once(alive).chain(sql).collect()).await?;
            if !is_alive(&replies.remove(0))? {
                return Ok(false);
            }
            replies
        };
        let mut replies = replies.into_iter();
        let mut found = Vec::with_capacity(plans.len());
        let mut ends = Vec::new();
        for (queue, lane, ask) in plans {
            if matches!(ask, Ask::Rows(_)) && flavor.limits_before_skipping() {
                let reply = replies.next().unwrap_or_default();
                if let Some(row) = reply.rows.first() {
                    let there = value::<i64>(row, 2)?.try_into().unwrap_or(0);
                    ends.push((queue, lane, (value(row, 0)?, value(row, 1)?), there));
                }
            }
            found.push(((queue, lane, ask), replies.next().unwrap_or_default()));
        }
        for (queue, lane, _, there) in &ends {
            self.queues[*queue].lanes[*lane].there = *there;
        }
        self.judge(inner, conn, found, admission, judged).await?;
        // The rest of these rows others hold, as if the server had skipped them.
        for (queue, lane, end, _) in ends {
            let work = &mut self.queues[queue].lanes[lane];
            work.there = 0;
            if self.full_at.is_none() {
                work.last = work.last.max(Some(end));
                work.next = work.last.map(Origin::After);
            }
        }
        Ok(true)
    }

    /// Judges what was locked.
    async fn judge(
        &mut self,
        inner: &Inner,
        conn: &mut Conn,
        replies: Vec<(Plan, Reply)>,
        admission: &mut Admission<'_>,
        judged: &mut Judged,
    ) -> Result<(), Failure> {
        let mut is_refreshed = false;
        for ((queue, lane, ask), reply) in replies {
            let work = &mut self.queues[queue];
            let lane_work = &mut work.lanes[lane];
            let tried = match ask {
                Ask::Rows(limit) => {
                    let found = reply.rows.len().max(lane_work.there);
                    self.looked += found.max(1);
                    lane_work.exhausted = found < limit;
                    // Others may have locked more than they take: what is passed here must be looked at again.
                    lane_work.intact &= reply.rows.len() >= lane_work.there;
                    limit
                }
                Ask::These(ref these) => these.len(),
            };
            lane_work.reach = if reply.rows.is_empty() { (tried * 2).min(REACH_MAX) } else { 0 };
            for row in &reply.rows {
                let found = Found::read(row)?;
                let position = found.position;
                if position.0 > self.now.as_micros() {
                    // It became due after the clock was read.
                    lane_work.exhausted = true;
                    break;
                }
                if matches!(ask, Ask::Rows(_)) {
                    lane_work.next = Some(Origin::After(position));
                    lane_work.last = Some(position);
                }
                let Some(id) = TaskId::new(position.1).filter(|id| !self.avoided.contains(id)) else {
                    lane_work.intact = false;
                    continue;
                };
                if !is_refreshed && !found.is_known(inner) {
                    inner.names.refresh(conn).await?;
                    is_refreshed = true;
                }
                let found = match found.usable(inner) {
                    Ok(found) => found,
                    Err(unusable) => {
                        lane_work.intact = false;
                        unusable.leave(inner, id, self.now);
                        continue;
                    }
                };
                let type_id = found.row.type_id;
                let verdict = admission.admit(&Candidate {
                    queue: &work.name,
                    task_type: &found.names.task_type,
                    deadline_at: found.row.state.deadline_at,
                    suspect: lane_work.lane.suspect,
                    bytes: found.row.body_bytes,
                });
                let runs = verdict == Verdict::Run;
                let verdict = match verdict {
                    Verdict::Run => {
                        let key = ReadyKey {
                            queue_id: work.id,
                            suspect: lane_work.lane.suspect,
                            rank: lane_work.lane.rank,
                            run_at: position.0,
                            task: id,
                        };
                        judged.run(key, found, self.request.claim, self.now)
                    }
                    Verdict::Expire => judged.end(found, FailureReason::BudgetExceeded, self.now),
                    Verdict::Unregister => judged.end(found, FailureReason::Unregistered, self.now),
                    Verdict::Skip => {
                        lane_work.intact = false;
                        continue;
                    }
                    Verdict::Full => {
                        lane_work.intact = false;
                        lane_work.exhausted = false;
                        self.left.push(lane_work.lane);
                        self.full_at.get_or_insert(position.0);
                        break;
                    }
                };
                if let Err(defect) = verdict {
                    lane_work.intact = false;
                    Unusable::Defect(defect).leave(inner, id, self.now);
                    continue;
                }
                self.last_queue = Some(work.id);
                let limited = self.limited.iter_mut().find(|(limited, _)| runs && *limited == type_id);
                if let Some((_, left)) = limited {
                    *left = left.saturating_sub(1);
                }
                if lane_work.intact {
                    lane_work.passed = Some(position);
                }
            }
        }
        Ok(())
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

    /// The columns that ask when the next task that this scope could take is due, one for each lane of which that is not known, and
    /// what is known without them.
    pub(super) fn next_due_sql(&self) -> (Vec<String>, Option<i64>) {
        let now = self.now.as_micros();
        let is_spent = self.limited.iter().any(|(id, left)| *left == 0 && self.served.contains(id));
        let mut asks = Vec::new();
        let mut known = self.full_at;
        for (queue, work) in self.queues.iter().enumerate() {
            let condition = self.reach(queue);
            for work in &work.lanes {
                if work.next.is_none() && condition.is_empty() {
                    known = Some(known.map_or(work.first, |known| known.min(work.first)));
                    continue;
                }
                let place = if is_spent {
                    // What was left because its type has no room is due all the same.
                    String::new()
                } else if work.exhausted {
                    format!(" AND run_at > {now}")
                } else {
                    work.next.unwrap_or(Origin::Head).condition("")
                };
                let lane = work.lane.condition("");
                let from =
                    format!("FROM queue_ready FORCE INDEX (PRIMARY) WHERE {lane}{place} ORDER BY run_at, task_id");
                asks.push(if condition.is_empty() {
                    format!("(SELECT run_at {from} LIMIT 1)")
                } else {
                    let ahead = format!("SELECT run_at, type_id {from} LIMIT {LATER_MAX}");
                    format!("(SELECT MIN(run_at) FROM ({ahead}) AS ahead WHERE TRUE{condition})")
                });
            }
        }
        // Whatever else is due comes after what is.
        if known.is_some_and(|known| known <= now) {
            asks.clear();
        }
        (asks, known)
    }

    /// What was found out about the lanes, once the claim is committed.
    pub(super) fn seen(&self) -> impl Iterator<Item = Seen> + '_ {
        self.queues.iter().flat_map(|queue| &queue.lanes).filter_map(LaneWork::seen)
    }
}

/// Locks a session's row for sharing: it cannot be fenced before the claim is committed.
pub(super) fn alive_sql(flavor: Flavor, session: SessionId) -> String {
    let lock = if flavor.shares_locks() { " LOCK IN SHARE MODE" } else { "" };
    format!("SELECT fenced_at IS NULL FROM queue_session WHERE id = {session}{lock}")
}

/// A look at the lanes that holds the session's row like [`alive_sql`]; the last statement answers it.
pub(super) fn alive_and_look_sql(flavor: Flavor, session: SessionId, look: String) -> Vec<String> {
    if flavor.locks_one_table() {
        vec![format!("{look} FOR SHARE OF s")]
    } else {
        vec![alive_sql(flavor, session), look]
    }
}

/// What [`alive_sql`] answered; `false` when the session is fenced or gone.
fn is_alive(reply: &Reply) -> Result<bool, sqlx::Error> {
    Ok(reply.rows.first().map_or(Ok(0_i64), |row| value(row, 0))? == 1)
}
