//! Identities: of tasks, sessions and claims.

use std::fmt;
use std::num::NonZeroU64;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(NonZeroU64);

        impl $name {
            /// The id of this number; `None` for zero, which no store hands out.
            #[must_use]
            pub const fn new(id: u64) -> Option<Self> {
                match NonZeroU64::new(id) {
                    Some(id) => Some(Self(id)),
                    None => None,
                }
            }

            /// The id as a number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0.get()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

macro_rules! random_id {
    ($name:ident) => {
        impl $name {
            /// An id out of random bits. It stays below 2⁶³, which every database's signed integer can hold.
            #[must_use]
            pub const fn from_random(bits: u64) -> Self {
                match Self::new(bits >> 1) {
                    Some(id) => id,
                    None => Self(NonZeroU64::MIN),
                }
            }
        }
    };
}

id! {
    /// A task's id, unique in its database and rising in the order of reservation.
    TaskId
}

id! {
    /// A session: one running pool, known to the database by one row with a lease. The caller makes it up at random, so
    /// that opening it twice after a lost acknowledgement is the same session.
    SessionId
}
random_id!(SessionId);

id! {
    /// A claim: the random fencing token under which a batch of tasks was taken. Every later write about these tasks
    /// carries it and writes nothing where it is no longer current.
    ClaimId
}
random_id!(ClaimId);

/// How often a task has been claimed. It only ever rises, over retries, refunds and an operator's retry as well, so a
/// handler can hand it to its own downstream systems as a fencing token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(u32);

impl Fence {
    /// The fence after `claims` claims.
    #[must_use]
    pub const fn new(claims: u32) -> Self {
        Self(claims)
    }

    /// The number of claims so far.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The fence of the next claim.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Random bits that go with a reserved [`TaskId`], so that an enqueue repeated after a lost acknowledgement is told apart
/// from another task under the same id (as after a restored backup).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nonce(u32);

impl Nonce {
    /// The nonce of these random bits.
    #[must_use]
    pub const fn new(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A run of task ids reserved by one process: it alone may use them, and no two reservations overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdBlock {
    next: u64,
    end: u64,
}

impl IdBlock {
    /// The `count` ids from `first` on. Ids past `u64::MAX` do not exist and are left out.
    #[must_use]
    pub const fn new(first: TaskId, count: u64) -> Self {
        Self { next: first.get(), end: first.get().saturating_add(count) }
    }

    /// How many ids are left.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.end - self.next
    }
}

impl Iterator for IdBlock {
    type Item = TaskId;

    fn next(&mut self) -> Option<TaskId> {
        if self.next == self.end {
            return None;
        }
        let id = TaskId::new(self.next);
        self.next += 1;
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_id() {
        assert_eq!(TaskId::new(0), None);
        assert_eq!(ClaimId::from_random(1), ClaimId::new(1).unwrap());
        assert_eq!(SessionId::from_random(u64::MAX).get(), u64::MAX >> 1);
        assert_eq!(format!("{:?} {0}", TaskId::new(7).unwrap()), "TaskId(7) 7");
    }

    #[test]
    fn a_block_hands_out_each_id_once() {
        let mut block = IdBlock::new(TaskId::new(5).unwrap(), 2);
        assert_eq!(block.remaining(), 2);
        assert_eq!(block.by_ref().map(TaskId::get).collect::<Vec<_>>(), [5, 6]);
        assert_eq!((block.next(), block.remaining()), (None, 0));
    }

    #[test]
    fn a_fence_only_rises() {
        assert!(Fence::new(1).next() > Fence::new(1));
        assert_eq!(Fence::new(u32::MAX).next().get(), u32::MAX);
        assert_eq!(Fence::default().next().to_string(), "1");
        assert_eq!(Nonce::new(9).get(), 9);
    }
}
