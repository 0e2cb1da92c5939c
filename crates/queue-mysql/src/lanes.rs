//! Lanes: (queue, suspect, rank), each a run of rows in the order of claiming; and where each is to be read from.
//!
//! Rows that were claimed stay in the index until the server's purge has removed them, which takes as long as the oldest
//! snapshot lives (a backup, say). A claim that began at the head of a lane would walk over all of them each time. So this
//! process remembers up to where it has taken all there was, and looks at the head once a second only: for rows that were
//! written with an earlier time than others, or committed late, or given back by a claim that was rolled back.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use queue_core::time::micros;
use queue_core::{SessionId, TaskId, Timestamp};
use sqlx::mysql::MySqlRow;

use crate::connection::{Conn, Reply};
use crate::error::Failure;
use crate::inner::lock;
use crate::row::NEVER;
use crate::sql::{CLOCK, value};

/// How often the head of a lane is looked at.
const HEAD_EVERY: Duration = Duration::from_secs(1);
/// Rows this young are always looked at: their transaction may have committed after that of later ones.
const YOUNG: Duration = Duration::from_millis(200);
/// Marks kept, at most; beyond it all are forgotten, which costs time only.
const MARKS_MAX: usize = 10_000;
/// Lanes that a look does not look at from the head, at most. The server takes five times as long for each of them as for one that is
/// looked at from the head and has nothing to pass over, and a fiftieth of what one takes with thousands of rows to pass over; and the
/// statement must stay small, 190 bytes for each.
const BOUNDS_MAX: usize = 32;
/// A look from the head that takes so much longer than twice the usual time passes over more than a few rows.
const LOOK_SLOW: Duration = Duration::from_millis(3);
/// The quickest look is forgotten by one part in so many with each that comes after: the server may be another one by then.
const FORGETTING: u32 = 64;
/// After so many looks from the head, one after another, the quickest is forgotten altogether: all there were may have been slow, on
/// a busy server say. The next times twice as many, at most so many, as long as it was for nothing: where the server is far away, each
/// time costs a second in which what is committed late is seen late.
const HEADS: std::ops::RangeInclusive<u32> = 16..=1_024;
/// Lanes that are kept as those that have something due, at most.
const EXPECTED_MAX: usize = 64;
/// Rows that are passed over, at most.
const AVOIDED_MAX: usize = 10_000;

/// A lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Lane {
    pub(crate) queue_id: u32,
    pub(crate) suspect: bool,
    pub(crate) rank: i8,
}

impl Lane {
    /// The condition that a row is in this lane; before each column goes `of`.
    pub(crate) fn condition(self, of: &str) -> String {
        format!(
            "{of}queue_id = {} AND {of}suspect = {} AND {of}priority_rank = {}",
            self.queue_id,
            u8::from(self.suspect),
            self.rank
        )
    }
}

/// A place within a lane.
pub(crate) type Position = (i64, u64);

/// Where to begin to read a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// At its first row.
    Head,
    /// After this row.
    After(Position),
    /// At the first row that is due at this time or later.
    Due(i64),
}

impl Origin {
    /// The condition that a row is there, with `AND` before it; before each column goes `of`.
    pub(crate) fn condition(self, of: &str) -> String {
        match self {
            Self::Head => String::new(),
            Self::After((run_at, task)) => {
                format!(" AND ({of}run_at > {run_at} OR ({of}run_at = {run_at} AND {of}task_id > {task}))")
            }
            Self::Due(run_at) => format!(" AND {of}run_at >= {run_at}"),
        }
    }
}

/// What is remembered of a lane, for one choice of types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Everything up to here is taken or of no use for this choice.
    passed: Option<Position>,
    /// Where the look from the head has come to; from the head itself when `None`.
    swept: Option<Position>,
    /// When the head was looked at last.
    head_at: i64,
    /// When a claim looked at the lane last.
    at: i64,
}

/// What a claim found out about a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) lane: Lane,
    /// The choice of types, as a number.
    pub(crate) choice: u64,
    /// Everything up to here was taken or is of no use.
    pub(crate) passed: Option<Position>,
    /// Where a look from the head ended, when there was one; `Some(None)` when it came to the end.
    pub(crate) swept: Option<Option<Position>>,
    /// Whether more may be due and free in it.
    pub(crate) left: bool,
}

/// Where a look at a lane may begin, for a second after its head was looked at: everything before was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    lane: Lane,
    from: i64,
}

impl Bound {
    /// When the first row of the lane from there on is due: one seek, which MySQL makes while it plans. However the statement is
    /// written else, it reads the index from its beginning where its statistics say that the table is almost empty.
    const CASE_SQL: &str = "WHEN l.queue_id = ? AND l.priority_rank = ? THEN (SELECT MIN(run_at) FROM queue_ready \
                            WHERE queue_id = ? AND suspect = 0 AND priority_rank = ? AND run_at >= ?)";

    /// What stands for each `?` of it.
    fn numbers(self) -> [i64; 5] {
        let (queue, rank) = (self.lane.queue_id.into(), self.lane.rank.into());
        [queue, rank, queue, rank, self.from]
    }
}

/// What this process remembers of lanes and queues.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    marks: Mutex<BTreeMap<(Lane, u64), Mark>>,
    /// Rows that could not be claimed, and until when they are passed over.
    avoided: Mutex<HashMap<TaskId, i64>>,
    /// The queue that was served last.
    turn: Mutex<Option<u32>>,
    expected: Mutex<Expected>,
    usual: Mutex<Usual>,
}

/// How long a look takes.
#[derive(Debug)]
struct Usual {
    /// The quickest of the last looks.
    quickest: Option<Duration>,
    /// Looks from the head since one began further on.
    heads: u32,
    /// After how many of them the quickest is forgotten.
    patience: u32,
}

impl Default for Usual {
    fn default() -> Self {
        Self { quickest: None, heads: 0, patience: *HEADS.start() }
    }
}

impl Usual {
    /// A look took so long. Returns whether it passed over more than a few rows, as far as is known.
    fn is_slow(&mut self, took: Duration, is_from_head: bool) -> bool {
        self.heads = if is_from_head { self.heads + 1 } else { 0 };
        if self.heads > self.patience {
            (self.quickest, self.heads) = (None, 0);
            self.patience = (self.patience * 2).min(*HEADS.end());
        }
        let usual = self.quickest.map(|quickest| took.min(quickest + quickest / FORGETTING));
        self.quickest = usual.or(Some(took));
        let is_slow = is_from_head && took >= usual.unwrap_or_default() * 2 + LOOK_SLOW;
        if is_slow && usual.is_some() {
            self.patience = *HEADS.start();
        }
        is_slow
    }
}

/// Lanes that most likely have something due.
#[derive(Debug, Default)]
struct Expected {
    lanes: BTreeSet<Lane>,
    /// What the server's clock said last.
    now: i64,
}

/// Where the next look at a lane begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// Go on here.
    pub(crate) from: Origin,
    /// But first look from here on, up to where the lane was passed before: it is time to.
    pub(crate) sweep: Option<Origin>,
}

impl Lanes {
    /// Where to begin.
    pub(crate) fn start(&self, lane: Lane, choice: u64, now: Timestamp) -> Start {
        let mark = lock(&self.marks).get(&(lane, choice)).copied().unwrap_or_default();
        let Some(passed) = mark.passed else { return Start { from: Origin::Head, sweep: None } };
        let young = now.before(YOUNG).as_micros();
        let from = if passed.0 >= young { Origin::Due(young) } else { Origin::After(passed) };
        let due = now.as_micros().saturating_sub(mark.head_at) >= micros(HEAD_EVERY);
        Start { from, sweep: due.then(|| mark.swept.map_or(Origin::Head, Origin::After)) }
    }

    /// Where looks may begin: in the ordinary lanes of which tasks of all types were taken last, and whose heads were looked at
    /// lately.
    pub(crate) fn bounds(&self) -> Vec<Bound> {
        let now = Timestamp::from_micros(lock(&self.expected).now);
        let young = now.before(YOUNG).as_micros();
        let marks = lock(&self.marks);
        let taken = marks.iter().filter(|((lane, choice), _)| *choice == 0 && !lane.suspect);
        let mut bounds: Vec<_> = taken
            .filter(|(_, mark)| now.as_micros() - mark.head_at < micros(HEAD_EVERY))
            .filter_map(|((lane, _), mark)| Some((mark.at, Bound { lane: *lane, from: mark.passed?.0.min(young) })))
            .collect();
        if bounds.len() > BOUNDS_MAX {
            bounds.sort_unstable_by_key(|(at, bound)| (Reverse(*at), bound.lane));
            bounds.truncate(BOUNDS_MAX);
        }
        bounds.into_iter().map(|(_, bound)| bound).collect()
    }

    /// The server's clock says this.
    pub(crate) fn tell(&self, now: Timestamp) {
        let mut expected = lock(&self.expected);
        expected.now = expected.now.max(now.as_micros());
    }

    /// A look on its own took so long. Where it took long from the heads of the lanes, because much lies there that was removed and
    /// cannot be purged, the looks of the next second begin behind that. Else none does: what is committed late would be seen later.
    pub(crate) fn looked(&self, survey: &Survey, took: Duration) {
        // The first look has none to be held against. Those that follow a bound show how long one takes that has little to pass over.
        if !lock(&self.usual).is_slow(took, !survey.heads.is_empty()) {
            return;
        }
        let young = survey.now.before(YOUNG).as_micros();
        let mut marks = lock(&self.marks);
        for (lane, first) in &survey.heads {
            let clear = Some((first.unwrap_or(young).min(young), 0));
            let mark = marks.entry((*lane, 0)).or_default();
            // What comes before is for a claim to find, which begins at the head as well.
            if mark.passed <= clear {
                *mark = Mark { passed: clear, swept: None, head_at: survey.now.as_micros(), at: mark.at };
            }
        }
    }

    /// What a committed claim found out.
    pub(crate) fn saw(&self, seen: impl IntoIterator<Item = Seen>, now: Timestamp) {
        let (mut marks, mut expected) = (lock(&self.marks), lock(&self.expected));
        if marks.len() > MARKS_MAX {
            marks.clear();
        }
        for seen in seen {
            if !seen.left {
                expected.lanes.remove(&seen.lane);
            }
            let mark = marks.entry((seen.lane, seen.choice)).or_default();
            if mark.passed.is_none() {
                mark.head_at = now.as_micros();
            }
            mark.at = mark.at.max(now.as_micros());
            mark.passed = mark.passed.max(seen.passed);
            if let Some(swept) = seen.swept {
                mark.head_at = now.as_micros();
                // Once it has caught up, the next look begins at the head again.
                mark.swept = swept.filter(|swept| mark.passed.is_some_and(|passed| *swept < passed));
            }
        }
    }

    /// Something due was committed to these lanes.
    pub(crate) fn expect(&self, lanes: impl IntoIterator<Item = Lane>) {
        let mut expected = lock(&self.expected);
        for lane in lanes {
            if expected.lanes.len() < EXPECTED_MAX {
                expected.lanes.insert(lane);
            }
        }
    }

    /// A look has shown these lanes to have something due that comes first in its queue, and no others.
    pub(crate) fn expect_these(&self, lanes: impl IntoIterator<Item = Lane>) {
        lock(&self.expected).lanes = lanes.into_iter().take(EXPECTED_MAX).collect();
    }

    /// Rows of these lanes were locked and not taken: claims that came by meanwhile have passed over them. The next one looks from
    /// the head.
    pub(crate) fn look_again(&self, lanes: &[Lane]) {
        if lanes.is_empty() {
            return;
        }
        let mut marks = lock(&self.marks);
        for (_, mark) in marks.iter_mut().filter(|((lane, _), _)| lanes.contains(lane)) {
            (mark.head_at, mark.swept) = (0, None);
        }
    }

    /// The lanes that most likely have something due, and what the server's clock said last; `None` when there are none.
    pub(crate) fn expected(&self) -> Option<(Timestamp, Vec<Lane>)> {
        let expected = lock(&self.expected);
        let is_known = expected.now > 0 && !expected.lanes.is_empty();
        is_known.then(|| (Timestamp::from_micros(expected.now), expected.lanes.iter().copied().collect()))
    }

    /// Passes over this row until then.
    pub(crate) fn avoid(&self, task: TaskId, until: Timestamp) {
        let mut avoided = lock(&self.avoided);
        if avoided.len() >= AVOIDED_MAX {
            avoided.clear();
        }
        avoided.insert(task, until.as_micros());
    }

    /// The rows to pass over.
    pub(crate) fn avoided(&self, now: Timestamp) -> Vec<TaskId> {
        let mut avoided = lock(&self.avoided);
        avoided.retain(|_, until| *until > now.as_micros());
        avoided.keys().copied().collect()
    }

    /// The queue that was served last.
    pub(crate) fn turn(&self) -> Option<u32> {
        *lock(&self.turn)
    }

    pub(crate) fn set_turn(&self, queue: u32) {
        *lock(&self.turn) = Some(queue);
    }
}

/// When the first row of lane `l` is due: one seek. The order names the whole key, because MySQL does not see that the columns
/// of the condition are the same for all rows, and would sort the lane.
pub(crate) fn first_of_lane(suspect: u8) -> String {
    format!(
        "(SELECT r.run_at FROM queue_ready AS r FORCE INDEX (PRIMARY) WHERE r.queue_id = l.queue_id AND r.suspect = {suspect} \
         AND r.priority_rank = l.priority_rank ORDER BY r.queue_id, r.suspect, r.priority_rank, r.run_at LIMIT 1)"
    )
}

/// The lanes in which something waits, whether their queues are paused or not, and when the first of it is due.
pub(crate) async fn waiting(conn: &mut Conn) -> Result<Vec<(Lane, i64)>, sqlx::Error> {
    let sql =
        format!("SELECT l.queue_id, l.priority_rank, {}, {} FROM queue_lane AS l", first_of_lane(0), first_of_lane(1));
    let mut lanes = Vec::new();
    for row in &conn.run(sql).await?.pop().unwrap_or_default().rows {
        read_firsts(row, 2, (value(row, 0)?, value(row, 1)?), &mut lanes)?;
    }
    lanes.sort_unstable();
    Ok(lanes)
}

/// Reads when the first task of a lane is due; none where nothing stands there but the row at its end.
pub(crate) fn read_first(row: &MySqlRow, column: usize) -> Result<Option<i64>, sqlx::Error> {
    Ok(value::<Option<i64>>(row, column)?.filter(|first| *first < NEVER))
}

/// Reads when the first ordinary task and the first suspect of this queue and rank are due, from this column on.
fn read_firsts(
    row: &MySqlRow,
    column: usize,
    (queue_id, rank): (u32, i8),
    lanes: &mut Vec<(Lane, i64)>,
) -> Result<(), sqlx::Error> {
    for (suspect, column) in [(false, column), (true, column + 1)] {
        if let Some(first) = read_first(row, column)? {
            lanes.push((Lane { queue_id, suspect, rank }, first));
        }
    }
    Ok(())
}

/// What waits, lane by lane: a look without any lock.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) now: Timestamp,
    /// The highest type number in the database.
    pub(crate) type_id_max: u32,
    /// The lanes of queues that are not paused in which something waits, and when the first of it is due.
    pub(crate) lanes: Vec<(Lane, i64)>,
    /// The ordinary lanes that were looked at, whether something waits or not; none where not all were looked at from the head.
    pub(crate) heads: Vec<(Lane, Option<i64>)>,
}

impl Survey {
    /// The statement, and the number for each `?` in it: two seeks for each lane that was ever used. An idle server takes most of its
    /// time for coming to know the statement and the tables in it, so these are few, and it is best prepared.
    pub(crate) fn sql(session: SessionId, bounds: &[Bound]) -> (String, Vec<i64>) {
        let mut first = first_of_lane(0);
        if !bounds.is_empty() {
            first = format!("CASE {} ELSE {first} END", vec![Bound::CASE_SQL; bounds.len()].join(" "));
        }
        let sql = format!(
            "SELECT {CLOCK}, (SELECT MAX(id) FROM queue_type), s.fenced_at IS NULL, l.queue_id, l.priority_rank, {first}, {} \
             FROM queue_session AS s LEFT JOIN queue_queue AS q ON q.paused_at IS NULL \
             LEFT JOIN queue_lane AS l FORCE INDEX (PRIMARY) ON l.queue_id = q.id WHERE s.id = ?",
            first_of_lane(1)
        );
        let numbers = bounds.iter().flat_map(|bound| bound.numbers());
        (sql, numbers.chain([session.get().cast_signed()]).collect())
    }

    /// Reads the answer to [`sql`](Self::sql); `None` when the session is fenced or gone.
    pub(crate) fn read(reply: &Reply, bounds: &[Bound]) -> Result<Option<Self>, Failure> {
        let Some(row) = reply.rows.first() else { return Ok(None) };
        if value::<i64>(row, 2)? != 1 {
            return Ok(None);
        }
        let (now, type_id_max) = (crate::sql::time(row, 0)?, value::<Option<u32>>(row, 1)?.unwrap_or(0));
        let (mut lanes, mut heads) = (Vec::new(), Vec::new());
        for row in &reply.rows {
            // Not where a queue has no lane, or there is no queue.
            let Some(rank) = value::<Option<i8>>(row, 4)? else { continue };
            let queue_id = value(row, 3)?;
            read_firsts(row, 5, (queue_id, rank), &mut lanes)?;
            if bounds.is_empty() {
                heads.push((Lane { queue_id, suspect: false, rank }, read_first(row, 5)?));
            }
        }
        lanes.sort_unstable();
        Ok(Some(Self { now, type_id_max, lanes, heads }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: Lane = Lane { queue_id: 1, suspect: false, rank: 0 };
    const SECOND: i64 = 1_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * SECOND)
    }

    fn seen(passed: Position, swept: Option<Option<Position>>) -> Seen {
        Seen { lane: LANE, choice: 0, passed: Some(passed), swept, left: false }
    }

    #[test]
    fn a_lane_is_read_on_from_where_it_was_passed() {
        let lanes = Lanes::default();
        assert_eq!(lanes.start(LANE, 0, at(10)), Start { from: Origin::Head, sweep: None });
        lanes.saw([seen((5, 7), None)], at(10));
        assert_eq!(lanes.start(LANE, 0, at(10)), Start { from: Origin::After((5, 7)), sweep: None });
        assert_eq!(lanes.start(LANE, 1, at(10)).from, Origin::Head);
        lanes.saw([seen((4, 9), None)], at(10));
        assert_eq!(lanes.start(LANE, 0, at(10)).from, Origin::After((5, 7)));
    }

    #[test]
    fn young_rows_are_always_looked_at() {
        let lanes = Lanes::default();
        lanes.saw([seen((at(10).as_micros(), 7), None)], at(10));
        let young = at(10).as_micros() - 200_000;
        assert_eq!(lanes.start(LANE, 0, at(10)).from, Origin::Due(young));
    }

    #[test]
    fn the_head_is_looked_at_once_a_second_in_parts() {
        let lanes = Lanes::default();
        lanes.saw([seen((500, 7), None)], at(10));
        assert_eq!(lanes.start(LANE, 0, at(11)).sweep, Some(Origin::Head));
        lanes.saw([seen((500, 7), Some(Some((100, 1))))], at(11));
        assert_eq!(lanes.start(LANE, 0, at(11)).sweep, None);
        assert_eq!(lanes.start(LANE, 0, at(12)).sweep, Some(Origin::After((100, 1))));
        lanes.saw([seen((500, 7), Some(Some((600, 1))))], at(12));
        assert_eq!(lanes.start(LANE, 0, at(13)).sweep, Some(Origin::Head));
    }

    #[test]
    fn a_look_begins_where_everything_before_was_taken() {
        let lanes = Lanes::default();
        assert_eq!(lanes.bounds(), []);
        lanes.saw([seen((500, 7), None)], at(10));
        lanes.saw([Seen { choice: 9, ..seen((900, 7), None) }], at(10));
        let suspects = Lane { suspect: true, ..LANE };
        lanes.saw([Seen { lane: suspects, ..seen((500, 7), None) }], at(10));
        lanes.tell(at(10));
        assert_eq!(lanes.bounds(), [Bound { lane: LANE, from: 500 }]);
        let (sql, numbers) = Survey::sql(SessionId::new(9).unwrap(), &lanes.bounds());
        assert!(sql.contains("CASE WHEN l.queue_id = ? ") && sql.contains(" ELSE (SELECT "), "{sql}");
        assert_eq!(numbers, [1, 0, 1, 0, 500, 9]);
        // It is time to look at the head again.
        lanes.tell(at(11));
        assert_eq!(lanes.bounds(), []);
    }

    /// A look that shows when the first row of [`LANE`] is due.
    fn survey(first: Option<i64>) -> Survey {
        Survey { now: at(10), type_id_max: 0, lanes: Vec::new(), heads: vec![(LANE, first)] }
    }

    #[test]
    fn looks_begin_behind_what_cannot_be_purged_where_the_head_took_long() {
        let (quick, slow) = (Duration::from_millis(1), Duration::from_millis(9));
        let lanes = Lanes::default();
        lanes.looked(&survey(None), quick);
        lanes.tell(at(10));
        assert_eq!(lanes.bounds(), []);
        lanes.looked(&survey(None), slow);
        let young = at(10).as_micros() - 200_000;
        assert_eq!(lanes.bounds(), [Bound { lane: LANE, from: young }]);
        lanes.tell(at(11));
        assert_eq!(lanes.bounds(), [], "it is time to look at the head again");

        let lanes = Lanes::default();
        lanes.tell(at(10));
        lanes.looked(&survey(None), quick);
        lanes.looked(&survey(Some(500)), slow);
        assert_eq!(lanes.bounds(), [Bound { lane: LANE, from: 500 }], "what waits is seen");

        let lanes = Lanes::default();
        lanes.tell(at(10));
        lanes.looked(&survey(None), slow);
        assert_eq!(lanes.bounds(), [Bound { lane: LANE, from: young }], "nothing says that this is usual");
    }

    #[test]
    fn where_all_looks_were_slow_a_bounded_one_is_tried_now_and_then() {
        let lanes = Lanes::default();
        lanes.tell(at(10));
        let bounded = Survey { heads: Vec::new(), ..survey(None) };
        lanes.looked(&bounded, Duration::from_millis(12)); // the server was busy
        let mut seconds = 10;
        let mut looks_to_a_try = |lanes: &Lanes| {
            seconds += 1;
            let now = at(seconds);
            lanes.tell(now);
            let is_tried = |_: &u32| {
                lanes.looked(&Survey { now, ..survey(None) }, Duration::from_millis(25));
                !lanes.bounds().is_empty()
            };
            (1..5_000).find(is_tried)
        };
        assert_eq!(looks_to_a_try(&lanes), Some(17));
        // It was for nothing.
        lanes.looked(&bounded, Duration::from_millis(25));
        assert_eq!(looks_to_a_try(&lanes), Some(33));
        for _ in 0..9 {
            lanes.looked(&bounded, Duration::from_millis(25));
            looks_to_a_try(&lanes);
        }
        lanes.looked(&bounded, Duration::from_millis(25));
        assert_eq!(looks_to_a_try(&lanes), Some(1_025));
        // It was not.
        lanes.looked(&bounded, Duration::from_millis(1));
        assert_eq!(looks_to_a_try(&lanes), Some(1));
        lanes.looked(&bounded, Duration::from_millis(25));
        lock(&lanes.usual).quickest = Some(Duration::from_millis(12));
        assert_eq!(looks_to_a_try(&lanes), Some(17));
    }

    #[test]
    fn a_row_before_what_was_passed_is_left_to_a_look_from_the_head() {
        let lanes = Lanes::default();
        lanes.saw([seen((700, 7), None)], at(9));
        lanes.tell(at(10));
        lanes.looked(&survey(None), Duration::from_millis(1));
        lanes.looked(&survey(Some(500)), Duration::from_millis(9));
        assert_eq!(lanes.bounds(), []);
        assert_eq!(lanes.start(LANE, 0, at(10)).sweep, Some(Origin::Head));
    }

    #[test]
    fn a_server_far_away_is_not_taken_for_one_with_much_to_purge() {
        let lanes = Lanes::default();
        lanes.tell(at(10));
        lanes.looked(&survey(None), Duration::from_millis(1));
        let bounded = Survey { heads: Vec::new(), ..survey(None) };
        for _ in 0..200 {
            lanes.looked(&bounded, Duration::from_millis(9));
        }
        lanes.looked(&survey(None), Duration::from_millis(9));
        assert_eq!(lanes.bounds(), []);
    }

    #[test]
    fn few_looks_are_bounded_those_of_the_lanes_that_were_taken_from_last() {
        let lanes = Lanes::default();
        for rank in 0..40 {
            let lane = Lane { rank, ..LANE };
            lanes.saw([Seen { lane, ..seen((500, 7), None) }], Timestamp::from_micros(10 * SECOND + i64::from(rank)));
        }
        lanes.tell(at(10));
        let ranks: Vec<_> = lanes.bounds().iter().map(|bound| bound.lane.rank).collect();
        assert_eq!(ranks, (8..40).rev().collect::<Vec<_>>());
    }

    #[test]
    fn more_is_expected_where_a_look_has_shown_it_or_some_was_just_put() {
        let lanes = Lanes::default();
        let other = Lane { rank: 3, ..LANE };
        lanes.expect([other]);
        assert_eq!(lanes.expected(), None, "nothing is known of the server's clock");
        lanes.tell(at(10));
        assert_eq!(lanes.expected(), Some((at(10), vec![other])));
        lanes.expect_these([LANE]);
        lanes.saw([Seen { left: true, ..seen((500, 7), None) }], at(10));
        assert_eq!(lanes.expected(), Some((at(10), vec![LANE])));
        lanes.saw([seen((900, 7), None)], at(11));
        assert_eq!(lanes.expected(), None);
    }

    #[test]
    fn what_was_locked_and_not_taken_is_looked_for_from_the_head() {
        let lanes = Lanes::default();
        lanes.saw([seen((500, 7), None)], at(10));
        lanes.tell(at(10));
        lanes.look_again(&[LANE]);
        assert_eq!(lanes.start(LANE, 0, at(10)).sweep, Some(Origin::Head));
        assert_eq!(lanes.bounds(), []);
    }

    #[test]
    fn a_row_is_avoided_for_a_while() {
        let lanes = Lanes::default();
        let task = TaskId::new(3).unwrap();
        lanes.avoid(task, at(6));
        assert_eq!(lanes.avoided(at(5)), [task]);
        assert_eq!(lanes.avoided(at(6)), []);
    }
}
