//! Marks: how far a lane was walked without meeting anything wanted, so that a worker of rare types, or one whose busiest type is
//! full, does not walk over a long backlog of other types at each look.
//!
//! What comes to wait is due at its writer's now or later, and now is read under the write lock, so nothing comes in behind a
//! mark but where a clock was set back. That is found as well, because a mark is forgotten after a while.

use std::collections::BTreeMap;
use std::time::Duration;

use queue_core::Timestamp;

/// A place in a lane: due time and task.
pub(crate) type Position = (i64, i64);

/// Before every row of a lane.
pub(crate) const START: Position = (i64::MIN, i64::MIN);

/// Walks shorter than this are not worth a mark.
const WALKED_MIN: u32 = 64;
/// A mark is forgotten after this long or, where the walk was long, after twenty times of what it took.
const KEPT: Duration = Duration::from_secs(1);
const KEPT_PER_ROW: Duration = Duration::from_micros(20);
/// When there are more marks, a thread starts afresh.
const MARKS_MAX: usize = 1_000;

/// A lane, and a digest of what is wanted from it.
pub(crate) type Key = (i64, bool, i64, u64);

/// What a thread remembers of its walks.
#[derive(Debug, Default)]
pub(crate) struct Marks(BTreeMap<Key, Mark>);

#[derive(Clone, Copy, Debug)]
struct Mark {
    position: Position,
    /// When the walk began at the lane's head.
    since: Timestamp,
    walked: u32,
}

impl Mark {
    fn is_fresh(&self, now: Timestamp) -> bool {
        now >= self.since && now.since(self.since) <= KEPT.max(KEPT_PER_ROW * self.walked)
    }
}

/// A walk under way: nothing wanted was met up to its position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    key: Key,
    mark: Mark,
}

impl Walk {
    /// Begins at `from`, before which nothing wanted is left, or further on where a mark says so.
    pub(crate) fn begin(marks: &Marks, key: Key, from: Position, now: Timestamp) -> Self {
        let known = marks.0.get(&key).filter(|mark| mark.is_fresh(now) && mark.position > from);
        let mark = known.copied().unwrap_or(Mark { position: from, since: now, walked: 0 });
        Self { key, mark }
    }

    pub(crate) const fn position(&self) -> Position {
        self.mark.position
    }

    /// Passes a row that is not wanted.
    pub(crate) const fn pass(&mut self, position: Position) {
        self.mark.position = position;
        self.mark.walked = self.mark.walked.saturating_add(1);
    }

    /// Ends before a row that is wanted, or where nothing more is due.
    pub(crate) fn end(self, marks: &mut Marks) {
        if self.mark.walked < WALKED_MIN {
            return;
        }
        if marks.0.len() >= MARKS_MAX {
            marks.0.clear();
        }
        marks.0.insert(self.key, self.mark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = (1, false, 0, 7);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::EPOCH.after(Duration::from_secs(seconds))
    }

    fn walked(marks: &mut Marks, rows: i64, now: Timestamp) {
        let mut walk = Walk::begin(marks, KEY, START, now);
        (0..rows).for_each(|row| walk.pass((row, row)));
        walk.end(marks);
    }

    #[test]
    fn a_long_walk_is_not_repeated_for_a_while() {
        let mut marks = Marks::default();
        walked(&mut marks, 100, at(10));
        assert_eq!(Walk::begin(&marks, KEY, START, at(11)).position(), (99, 99));
        assert_eq!(Walk::begin(&marks, KEY, (200, 0), at(11)).position(), (200, 0));
        assert_eq!(Walk::begin(&marks, (2, false, 0, 7), START, at(11)).position(), START);
        assert_eq!(Walk::begin(&marks, KEY, START, at(12)).position(), START);
        assert_eq!(Walk::begin(&marks, KEY, START, at(9)).position(), START);
    }

    #[test]
    fn going_on_from_a_mark_does_not_make_it_younger() {
        let mut marks = Marks::default();
        walked(&mut marks, 100, at(10));
        let mut walk = Walk::begin(&marks, KEY, START, at(11));
        walk.pass((500, 1));
        walk.end(&mut marks);
        assert_eq!(Walk::begin(&marks, KEY, START, at(11)).position(), (500, 1));
        assert_eq!(Walk::begin(&marks, KEY, START, at(12)).position(), START);
    }

    #[test]
    fn a_short_walk_leaves_no_mark_and_a_longer_one_lasts_longer() {
        let mut marks = Marks::default();
        walked(&mut marks, 63, at(10));
        assert_eq!(Walk::begin(&marks, KEY, START, at(10)).position(), START);
        walked(&mut marks, 200_000, at(10));
        assert_eq!(Walk::begin(&marks, KEY, START, at(14)).position(), (199_999, 199_999));
        assert_eq!(Walk::begin(&marks, KEY, START, at(15)).position(), START);
    }

    #[test]
    fn marks_are_bounded() {
        let mut marks = Marks::default();
        for queue in 0..3_000 {
            let mut walk = Walk::begin(&marks, (queue, false, 0, 0), START, at(1));
            (0..64).for_each(|row| walk.pass((row, row)));
            walk.end(&mut marks);
        }
        assert!((1..=MARKS_MAX).contains(&marks.0.len()));
    }
}
