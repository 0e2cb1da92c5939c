//! What can go wrong in a store, by what the caller does next.

use std::error::Error;
use std::fmt;

use crate::ids::TaskId;

/// The backend's own error. It never holds a payload or a password.
pub type Source = Box<dyn Error + Send + Sync>;

/// What can go wrong in a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store cannot be reached or is busy, and nothing was written. Try again later.
    #[error("the store is unavailable: {source}")]
    Unavailable {
        /// What the backend said.
        source: Source,
    },
    /// The connection died around the commit: the write may be there or not. Repeat what is idempotent, resolve a claim by
    /// its id.
    #[error("the outcome is unknown, because the connection was lost around the commit: {source}")]
    UnknownOutcome {
        /// What the backend said.
        source: Source,
    },
    /// The store refuses the account, or the account lacks a right, or the database is read-only. A person must help.
    #[error("access denied: {source}")]
    Denied {
        /// What the backend said.
        source: Source,
    },
    /// The idempotency key of a task in the batch belongs to a task with another payload. Nothing was written.
    #[error("the idempotency key of task {index} of the batch belongs to task {existing}, which has another payload")]
    KeyConflict {
        /// The position in the batch, from 0.
        index: usize,
        /// The task that has the key.
        existing: TaskId,
    },
    /// A payload or a batch is too large. Nothing was written.
    #[error("{what}: {size} is over the limit of {limit}")]
    TooLarge {
        /// What is too large, with its unit: `a payload in bytes`.
        what: &'static str,
        /// How large it is.
        size: u64,
        /// How large it may be.
        limit: u64,
    },
    /// A stored row is one that cannot be. It is left alone, others go on.
    #[error("{}: {defect}", CorruptRow(*.task))]
    Corrupt {
        /// The task, where it is known.
        task: Option<TaskId>,
        /// What is wrong with it.
        defect: String,
    },
    /// The schema is missing, or too old, or too new for this library.
    #[error("{problem}")]
    Schema {
        /// What is wrong.
        problem: SchemaProblem,
    },
    /// The server is one that the adapter cannot use.
    #[error("{reason}")]
    Unsupported {
        /// Why, and what would do.
        reason: String,
    },
    /// Anything else. Repeating it will not help.
    #[error("the store failed: {source}")]
    Other {
        /// What the backend said.
        source: Source,
    },
}

struct CorruptRow(Option<TaskId>);

impl fmt::Display for CorruptRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(task) => write!(f, "the stored rows of task {task} are corrupt"),
            None => f.write_str("a stored row is corrupt"),
        }
    }
}

/// What is wrong with a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaProblem {
    /// There is none.
    #[error("the database has no queue schema yet; migrate it first")]
    Missing,
    /// It is older than this library needs.
    #[error("the schema is version {found}, this library needs {needed}; migrate it first")]
    TooOld {
        /// The schema's version.
        found: u32,
        /// The version needed.
        needed: u32,
    },
    /// It was migrated by a newer library, which says that this one may not use it any more.
    #[error(
        "the schema needs a library of schema version {min_compatible} or newer, this one has {supported}; upgrade it"
    )]
    TooNew {
        /// The oldest schema version that a library must know.
        min_compatible: u32,
        /// The version this library knows.
        supported: u32,
    },
}

/// The closed set of error kinds, for metrics labels and decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// [`StoreError::Unavailable`].
    Unavailable,
    /// [`StoreError::UnknownOutcome`].
    UnknownOutcome,
    /// [`StoreError::Denied`].
    Denied,
    /// [`StoreError::KeyConflict`].
    KeyConflict,
    /// [`StoreError::TooLarge`].
    TooLarge,
    /// [`StoreError::Corrupt`].
    Corrupt,
    /// [`StoreError::Schema`].
    Schema,
    /// [`StoreError::Unsupported`].
    Unsupported,
    /// [`StoreError::Other`].
    Other,
}

impl ErrorKind {
    /// The stable label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::UnknownOutcome => "unknown_outcome",
            Self::Denied => "denied",
            Self::KeyConflict => "key_conflict",
            Self::TooLarge => "too_large",
            Self::Corrupt => "corrupt",
            Self::Schema => "schema",
            Self::Unsupported => "unsupported",
            Self::Other => "other",
        }
    }
}

impl StoreError {
    /// Nothing was written; try again later.
    pub fn unavailable(source: impl Into<Source>) -> Self {
        Self::Unavailable { source: source.into() }
    }

    /// It may have been written or not.
    pub fn unknown_outcome(source: impl Into<Source>) -> Self {
        Self::UnknownOutcome { source: source.into() }
    }

    /// The account may not.
    pub fn denied(source: impl Into<Source>) -> Self {
        Self::Denied { source: source.into() }
    }

    /// A row that cannot be.
    pub fn corrupt(task: Option<TaskId>, defect: impl Into<String>) -> Self {
        Self::Corrupt { task, defect: defect.into() }
    }

    /// Anything else.
    pub fn other(source: impl Into<Source>) -> Self {
        Self::Other { source: source.into() }
    }

    /// Which kind it is.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::UnknownOutcome { .. } => ErrorKind::UnknownOutcome,
            Self::Denied { .. } => ErrorKind::Denied,
            Self::KeyConflict { .. } => ErrorKind::KeyConflict,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Schema { .. } => ErrorKind::Schema,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Other { .. } => ErrorKind::Other,
        }
    }

    /// Whether the same call may succeed later: nothing was written, or it cannot be known.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::UnknownOutcome { .. })
    }
}

impl From<SchemaProblem> for StoreError {
    fn from(problem: SchemaProblem) -> Self {
        Self::Schema { problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_says_what_it_is() {
        let task = TaskId::new(7);
        let errors = [
            StoreError::unavailable("refused"),
            StoreError::unknown_outcome("gone"),
            StoreError::denied("no"),
            StoreError::KeyConflict { index: 2, existing: task.unwrap() },
            StoreError::TooLarge { what: "a payload in bytes", size: 9, limit: 8 },
            StoreError::corrupt(task, "no status"),
            StoreError::from(SchemaProblem::Missing),
            StoreError::Unsupported { reason: "MySQL 5.7 is too old".into() },
            StoreError::other("odd"),
            StoreError::corrupt(None, "no id"),
        ];
        let told = errors.iter().map(|error| format!("{}: {error}", error.kind().as_str())).collect::<Vec<_>>();
        insta::assert_snapshot!(told.join("\n"));
        assert_eq!(errors.iter().filter(|error| error.is_transient()).count(), 2);
    }
}
