//! Looking a store over: whether everything is as the queue needs it, and what to do where it is not.

use std::fmt::{self, Debug};
use std::time::Duration;

use async_trait::async_trait;

use crate::error::SchemaProblem;
use crate::store::SchemaStatus;
use crate::time::Timestamp;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// As it should be.
    Ok,
    /// The queue works; a person should know of it all the same. Also a check that could not be made.
    Warn,
    /// The queue does not work, or does not keep its promises.
    Fail,
}

impl Level {
    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check's stable name. A check may have several findings.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found, in a sentence. Never a payload or a password.
    pub detail: String,
    /// What to do about it; none where nothing is to be done.
    pub advice: Option<String>,
}

impl Finding {
    /// What is advised where the schema is missing or too old.
    pub const MIGRATE: &str = "queue migrate";

    /// As it should be.
    pub fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, detail: detail.into(), advice: None }
    }

    /// It works, and a person should know.
    pub fn warn(check: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, level: Level::Warn, detail: detail.into(), advice: Some(advice.into()) }
    }

    /// It does not work.
    pub fn fail(check: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, level: Level::Fail, detail: detail.into(), advice: Some(advice.into()) }
    }

    /// Whether the schema is one that this library may use.
    #[must_use]
    pub fn of_schema(status: &SchemaStatus) -> Self {
        match status.check() {
            Ok(()) => {
                Self::ok("schema", format!("version {}, as this program brings", status.found.unwrap_or_default()))
            }
            Err(problem @ SchemaProblem::TooNew { .. }) => {
                Self::fail("schema", problem.to_string(), "a newer version of this program")
            }
            Err(problem) => Self::fail("schema", problem.to_string(), Self::MIGRATE),
        }
    }
}

/// The worst level among the findings.
#[must_use]
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
}

/// What a store is looked over for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Examination {
    /// The wall clock of this machine.
    pub wall: Timestamp,
    /// The lease of the workers.
    pub lease: Duration,
    /// Tasks that the check of every task looks at, at most: the latest ones. None looks at all.
    pub tasks_max: Option<u64>,
}

impl Examination {
    /// Tasks that are looked at unless more is asked for.
    pub const TASKS_MAX: u64 = 1_000_000;

    /// An examination at this time, for workers with the usual lease.
    #[must_use]
    pub const fn at(wall: Timestamp) -> Self {
        Self { wall, lease: Duration::from_secs(30), tasks_max: Some(Self::TASKS_MAX) }
    }
}

/// A store that can be looked over.
#[async_trait]
pub trait Diagnose: Send + Sync + Debug {
    /// Makes every check and says what it found, the good as well, in an order that people like to read.
    ///
    /// # Contract
    ///
    /// Writes nothing that stays. A check that cannot be made, for want of a right say, is a [`Level::Warn`] that tells what is
    /// missing; nothing is an error. It may take a while on a large store, and never blocks what the workers do for longer than
    /// one of their own transactions would.
    async fn diagnose(&self, examination: Examination) -> Vec<Finding>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_usable_or_says_what_to_do() {
        let status = SchemaStatus { found: Some(2), supported: 2, min_compatible: Some(1) };
        assert_eq!(Finding::of_schema(&status), Finding::ok("schema", "version 2, as this program brings"));
        let missing = Finding::of_schema(&SchemaStatus { found: None, ..status });
        assert_eq!((missing.level, missing.advice.as_deref()), (Level::Fail, Some("queue migrate")));
        let newer = Finding::of_schema(&SchemaStatus { found: Some(4), supported: 2, min_compatible: Some(3) });
        assert_eq!(newer.advice.as_deref(), Some("a newer version of this program"), "migrating does not help");
    }

    #[test]
    fn the_worst_finding_counts() {
        let (ok, warn) = (Finding::ok("a", "fine"), Finding::warn("b", "odd", "look"));
        let fail = Finding::fail("c", "broken", "repair");
        assert_eq!(worst(&[]), Level::Ok);
        assert_eq!(worst(&[ok.clone(), warn.clone()]), Level::Warn);
        assert_eq!(worst(&[warn.clone(), fail.clone(), ok.clone()]), Level::Fail);
        let shown = [&ok, &warn, &fail].map(|finding| format!("{:5}|", finding.level));
        assert_eq!(shown, ["ok   |", "warn |", "fail |"]);
        assert_eq!((ok.advice, fail.advice.as_deref()), (None, Some("repair")));
        assert_eq!(Examination::at(Timestamp::from_micros(5)).tasks_max, Some(1_000_000));
    }
}
