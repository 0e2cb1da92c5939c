//! What may be varied.

use crate::Result;

/// The words that a variant is made of, and what they say.
pub(crate) const WORDS: &[(&str, &str)] = &[
    (
        "ours",
        "as the store does it: two round trips, the settle in the first; one statement locks what waits and reads it",
    ),
    ("of-ready", "that statement locks the rows of what waits alone (FOR UPDATE OF, MySQL only)"),
    (
        "two-reads",
        "what waits is locked and read by a statement each, the second in the trip that commits: two round trips",
    ),
    ("three-trips", "the same, and the commit has a trip of its own"),
    ("four-trips", "the same, and the look at the lanes has a trip of its own, the settle in it"),
    ("ticket", "a claim does not update the task's row; the settle writes all"),
    ("apart", "settling has a transaction of its own"),
    ("finished-values", "the list of what has ended is written row by row, not by INSERT ... SELECT"),
    ("finished-batch", "the list of what has ended has one row for each settle, with the members in it"),
    ("finished-none", "no list of what has ended"),
    ("delete", "what is completed is deleted at once, task and payload"),
    ("eager-mark", "the low-water mark is moved when rows are locked, not when the claim is committed"),
    ("head", "lanes are read from their head, without a low-water mark"),
    ("in-task", "a payload of at most 256 bytes and what belongs to it stand in the task's row"),
    ("in-ready", "all that a handler gets stands in the row of what waits as well, payloads of at most 256 bytes too"),
    ("claim-kept", "claims are not deleted"),
    ("no-members", "claims name no members"),
    ("no-checks", "no CHECK constraints"),
    ("compact", "ROW_FORMAT=COMPACT for what waits and for tasks"),
    ("page-zlib", "transparent page compression of payloads, zlib (MySQL COMPRESSION, MariaDB PAGE_COMPRESSED)"),
    ("page-lz4", "the same with lz4 (MySQL only)"),
    ("row-compressed", "ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8 for payloads"),
];

/// How what waits is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Ours,
    OfReady,
    TwoReads,
    ThreeTrips,
    FourTrips,
}

/// How the list of what has ended is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finished {
    Select,
    Values,
    Batch,
    None,
    Delete,
}

/// Where small payloads stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Apart,
    Task,
    Ready,
}

/// A shape of the schema and its statements.
#[derive(Clone, Debug)]
pub(crate) struct Variant {
    pub(crate) name: String,
    pub(crate) claim: Claim,
    pub(crate) ticket: bool,
    pub(crate) apart: bool,
    pub(crate) finished: Finished,
    pub(crate) head: bool,
    pub(crate) eager_mark: bool,
    pub(crate) place: Place,
    pub(crate) keeps_claims: bool,
    pub(crate) names_members: bool,
    /// What is done to the tables before they are filled: for MySQL, and for MariaDB.
    pub(crate) alter: Vec<[&'static str; 2]>,
}

impl Variant {
    /// Words with `+` between them.
    pub(crate) fn parse(name: &str) -> Result<Self> {
        let mut variant = Self {
            name: name.to_owned(),
            claim: Claim::Ours,
            ticket: false,
            apart: false,
            finished: Finished::Select,
            head: false,
            eager_mark: false,
            place: Place::Apart,
            keeps_claims: false,
            names_members: true,
            alter: Vec::new(),
        };
        for word in name.split('+') {
            match word {
                "ours" => {}
                "of-ready" => variant.claim = Claim::OfReady,
                "two-reads" => variant.claim = Claim::TwoReads,
                "three-trips" => variant.claim = Claim::ThreeTrips,
                "four-trips" => variant.claim = Claim::FourTrips,
                "ticket" => variant.ticket = true,
                "apart" => variant.apart = true,
                "finished-values" => variant.finished = Finished::Values,
                "finished-batch" => variant.finished = Finished::Batch,
                "finished-none" => variant.finished = Finished::None,
                "delete" => variant.finished = Finished::Delete,
                "head" => variant.head = true,
                "eager-mark" => variant.eager_mark = true,
                "in-task" => variant.place = Place::Task,
                "in-ready" => variant.place = Place::Ready,
                "claim-kept" => variant.keeps_claims = true,
                "no-members" => variant.names_members = false,
                "no-checks" => variant.both(
                    "ALTER TABLE queue_task DROP CONSTRAINT queue_task_reason, DROP CONSTRAINT queue_task_end, \
                     DROP CONSTRAINT queue_task_run",
                ),
                "compact" => {
                    variant.both("ALTER TABLE queue_task ROW_FORMAT = COMPACT");
                    variant.both("ALTER TABLE queue_ready ROW_FORMAT = COMPACT");
                }
                "page-zlib" => variant.alter.push([
                    "ALTER TABLE queue_payload COMPRESSION = 'zlib'",
                    "ALTER TABLE queue_payload PAGE_COMPRESSED = 1",
                ]),
                "page-lz4" => variant.both("ALTER TABLE queue_payload COMPRESSION = 'lz4'"),
                "row-compressed" => {
                    variant.both("ALTER TABLE queue_payload ROW_FORMAT = COMPRESSED KEY_BLOCK_SIZE = 8");
                }
                _ => return Err(format!("{word} is not a word of a variant; see --help").into()),
            }
        }
        if variant.ticket && variant.finished == Finished::Delete {
            return Err("a ticket that deletes is not written".into());
        }
        Ok(variant)
    }

    fn both(&mut self, sql: &'static str) {
        self.alter.push([sql; 2]);
    }
}
