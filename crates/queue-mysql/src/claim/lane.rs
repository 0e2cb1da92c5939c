//! A lane as one claim works it off.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use queue_core::Timestamp;

use crate::inner::Inner;
use crate::lanes::{Lane, Origin, Position, Seen};

/// A lane as far as this claim has come in it.
#[derive(Clone, Debug)]
pub(super) struct LaneWork {
    pub(super) lane: Lane,
    /// When its first row is due.
    pub(super) first: i64,
    /// Where the next read begins; the lane was not read yet when `None`.
    pub(super) next: Option<Origin>,
    is_sweep: bool,
    /// No row that is due and free is left behind what was read.
    pub(super) exhausted: bool,
    /// Everything up to `passed` was taken.
    pub(super) intact: bool,
    pub(super) passed: Option<Position>,
    pub(super) last: Option<Position>,
    /// Rows that the next look at types reads: more each time that too little was found.
    pub(super) window: usize,
    /// Rows to try next, at least: more each time that all of those tried were held by others, so that few rounds are
    /// enough to come past them.
    pub(super) reach: usize,
    /// Rows that the limit let through, whoever holds them, where the server limits before it skips.
    pub(super) there: usize,
    /// The types wanted when this claim began to read; `None` when all were.
    pub(super) chosen: Option<Vec<u32>>,
}

impl LaneWork {
    pub(super) const fn new(lane: Lane, first: i64) -> Self {
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
            there: 0,
            chosen: None,
        }
    }

    /// Where to read; at first where the lane was passed before, or from the head when it is time to look there again.
    pub(super) fn begin(&mut self, inner: &Inner, wanted: Option<&[u32]>, now: Timestamp) -> Origin {
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

    /// Goes on with what another work at the same lane has begun.
    pub(super) fn take_over(&mut self, begun: &Self) {
        self.next = begun.next;
        self.is_sweep = begun.is_sweep;
    }

    /// Notes that a row is of no use, where nothing before it is left.
    pub(super) fn pass(&mut self, position: Position, is_next: bool) {
        if is_next && self.intact {
            self.passed = Some(position);
        }
    }

    /// What was found out about the lane, if it was read.
    pub(super) fn seen(&self) -> Option<Seen> {
        self.next.map(|_| Seen {
            lane: self.lane,
            choice: choice(self.chosen.as_deref()),
            passed: self.passed,
            swept: self.is_sweep.then_some(if self.exhausted { None } else { self.last }),
            left: !self.exhausted,
        })
    }
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
