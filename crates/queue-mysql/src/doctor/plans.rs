//! How the server would run each of our statements: by the right index, without walking over a table that grows, without
//! sorting.

use queue_core::diagnose::Finding;
use sqlx::Row as _;
use sqlx::mysql::MySqlRow;

use super::statements::{Sample, catalogue, expand};
use crate::connection::Conn;
use crate::error::{number, plain};
use crate::server::Flavor;

const CHECK: &str = "plans";

/// The tables that grow with what is kept. The others hold what runs right now, or a row for each name.
const GROWING: &[(&str, &[&str])] = &[
    ("queue_task", &["PRIMARY"]),
    ("queue_payload", &["PRIMARY"]),
    ("queue_ready", &["PRIMARY"]),
    ("queue_finished", &["PRIMARY"]),
    ("queue_attempt", &["PRIMARY"]),
    ("queue_result", &["PRIMARY"]),
    ("queue_idempotency", &["PRIMARY", "queue_idempotency_task", "queue_idempotency_expiry"]),
];

/// What statements may do all the same: how they begin, how they end, what they do, and why.
const ALLOWED: &[(&str, &str, Fault, &str)] = &[
    (
        "SELECT t.id, ",
        " ORDER BY t.id DESC LIMIT 100",
        Fault::Scan,
        "a list of all tasks is read from its end, until it is full",
    ),
    ("SELECT DISTINCT r.type_id", "", Fault::Scan, "only a worker that drains asks what waits, all of it"),
    (
        "SELECT queue_id, COUNT(*) ",
        " GROUP BY queue_id",
        Fault::Sort,
        "what runs is counted by queue, a thousand at a time",
    ),
];

/// A statement that only reads may walk over so many rows, or sort them, where the server thinks that quicker than to seek.
pub(super) const FEW_ROWS: u64 = 1_000;

/// What is wrong with a step of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It walks over the whole table.
    Scan,
    /// It uses an index that is not meant for it.
    WrongIndex,
    /// It sorts.
    Sort,
}

/// A step of a plan, as EXPLAIN tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    table: String,
    access: String,
    key: String,
    rows: u64,
    extra: String,
}

impl Step {
    fn read(row: &MySqlRow) -> Self {
        let text = |name: &str| {
            let bytes: Option<Vec<u8>> = row.try_get_unchecked(name).ok().flatten();
            String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
        };
        let rows = text("rows").parse().unwrap_or(0);
        Self { table: text("table"), access: text("type"), key: text("key"), rows, extra: text("Extra") }
    }

    /// The table of ours behind a name in a statement.
    fn table_in<'a>(&'a self, statement: &'a str) -> &'a str {
        let alias = format!(" AS {}", self.table);
        let is_end = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let mut places = statement.match_indices(&alias).map(|(at, _)| at);
        match places.find(|at| is_end(&statement[at + alias.len()..])) {
            Some(at) => statement[..at].rsplit([' ', '(']).next().unwrap_or_default(),
            None => &self.table,
        }
    }

    fn fault(&self, statement: &str, few_rows: u64) -> Option<Fault> {
        let table = self.table_in(statement);
        let (_, indexes) = GROWING.iter().find(|(growing, _)| *growing == table)?;
        let walks = self.access.eq_ignore_ascii_case("ALL") || self.access.eq_ignore_ascii_case("index");
        let matters = locks(statement, &self.table) || self.rows > few_rows;
        let fault = if walks && matters {
            Fault::Scan
        } else if !self.key.is_empty() && !indexes.contains(&self.key.as_str()) {
            Fault::WrongIndex
        } else if self.extra.contains("Using filesort") && matters && table != "queue_attempt" {
            // The failed attempts of one task are few.
            Fault::Sort
        } else {
            return None;
        };
        let is_allowed = ALLOWED.iter().any(|(begins, ends, allowed, _)| {
            *allowed == fault && statement.starts_with(begins) && statement.ends_with(ends)
        });
        (!is_allowed).then_some(fault)
    }
}

/// Whether a statement locks the rows of this table that it comes across, so that it would wait for others.
fn locks(statement: &str, table: &str) -> bool {
    if let Some((_, only)) = statement.split_once(" FOR SHARE OF ") {
        return only == table;
    }
    ["UPDATE", "DELETE"].iter().any(|verb| statement.starts_with(verb))
        || ["FOR UPDATE", "FOR SHARE", "LOCK IN SHARE MODE"].iter().any(|words| statement.contains(words))
}

/// What is wrong with how the server would run this statement.
pub(super) async fn examine(
    conn: &mut Conn,
    statement: &str,
    few_rows: u64,
) -> Result<Vec<(Fault, Step)>, sqlx::Error> {
    let rows = conn.run(format!("EXPLAIN FORMAT=TRADITIONAL {statement}")).await?.pop().unwrap_or_default().rows;
    // MySQL tells what an INSERT writes to as a step of its own.
    let reads =
        |row: &&MySqlRow| row.try_get_unchecked::<String, _>("select_type").is_ok_and(|select| select != "INSERT");
    let steps = rows.iter().filter(reads).map(Step::read);
    Ok(steps.filter_map(|step| Some((step.fault(statement, few_rows)?, step))).collect())
}

/// Explains every statement.
pub(super) async fn check(conn: &mut Conn, flavor: Flavor, sample: Sample) -> Result<Vec<Finding>, sqlx::Error> {
    if flavor == Flavor::OceanBase {
        return Ok(vec![Finding::ok(CHECK, "the plans of OceanBase are not looked at")]);
    }
    let mut findings = Vec::new();
    let (mut explained, mut unclear) = (0, Vec::new());
    for template in catalogue(flavor) {
        let statement = expand(template, sample);
        match examine(conn, &statement, FEW_ROWS).await {
            Ok(faults) => {
                explained += 1;
                findings.extend(faults.first().map(|(fault, step)| finding(*fault, step, template)));
            }
            Err(error) => match number(&error) {
                Some(1176) => findings.push(Finding::fail(
                    CHECK,
                    format!("an index is missing that this statement names: {}", short(template)),
                    "see `tables` for the statement that makes it again",
                )),
                // Rights and tables are told by their own checks.
                Some(1142..=1143 | 1044 | 1146) => unclear.push(plain(&error)),
                Some(_) => {
                    let told = format!("the server cannot explain: {} ({})", short(template), plain(&error));
                    findings.push(Finding::warn(CHECK, told, "report it, with the server's version"));
                }
                None => return Err(error),
            },
        }
    }
    if let Some(why) = unclear.first() {
        let told = format!("{} statements could not be explained, the first because {why}", unclear.len());
        findings.push(Finding::warn(CHECK, told, "see `privileges` and `tables`"));
    }
    if findings.is_empty() {
        findings
            .push(Finding::ok(CHECK, format!("{explained} statements find their rows by the right index, unsorted")));
    }
    Ok(findings)
}

fn finding(fault: Fault, step: &Step, template: &str) -> Finding {
    let table = step.table_in(template);
    let what = match fault {
        Fault::Scan => format!("walks over all of {table}"),
        Fault::WrongIndex => format!("uses the index {} of {table}", step.key),
        Fault::Sort => format!("sorts rows of {table}"),
    };
    let advice = format!("ANALYZE TABLE {table}; when that does not help, report it with the server's version");
    if locks(template, &step.table) {
        let told = format!("a statement that locks rows {what}, and would wait for others: {}", short(template));
        return Finding::fail(CHECK, told, advice);
    }
    Finding::warn(CHECK, format!("a statement {what}: {}", short(template)), advice)
}

fn short(template: &str) -> String {
    let mut text: String = template.chars().take(100).collect();
    if text.len() < template.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use queue_core::diagnose::Level;

    use super::*;

    fn step(table: &str, access: &str, key: &str, extra: &str) -> Step {
        Step { table: table.into(), access: access.into(), key: key.into(), rows: 9, extra: extra.into() }
    }

    #[test]
    fn a_bad_step_is_seen_through_its_alias() {
        let sql = "UPDATE queue_task AS t SET a = 1 WHERE t.id IN ([#])";
        for (access, key, extra, fault) in [
            ("ALL", "", "", Some(Fault::Scan)),
            ("index", "PRIMARY", "", Some(Fault::Scan)),
            ("ref", "by_status", "", Some(Fault::WrongIndex)),
            ("range", "PRIMARY", "Using where; Using filesort", Some(Fault::Sort)),
            ("range", "PRIMARY", "Using where", None),
            ("", "", "no matching row in const table", None),
        ] {
            assert_eq!(step("t", access, key, extra).fault(sql, FEW_ROWS), fault, "{access} {key} {extra}");
        }
        assert_eq!(step("queue_type", "ALL", "", "").fault("SELECT id FROM queue_type", 0), None);
        assert_eq!(step("<derived2>", "ALL", "", "").fault(sql, FEW_ROWS), None);
        let read = "SELECT t.id, x FROM queue_task AS t ORDER BY t.id";
        let walk = step("t", "index", "PRIMARY", "");
        assert_eq!((walk.fault(read, 9), walk.fault(read, 8)), (None, Some(Fault::Scan)));
        assert_eq!(walk.fault(&format!("{read} DESC LIMIT 100"), 0), None, "allowed");
        let sort = step("t", "ref", "PRIMARY", "Using filesort");
        assert_eq!((sort.fault(read, 9), sort.fault(read, 8)), (None, Some(Fault::Sort)));
        let told = finding(Fault::Scan, &step("t", "ALL", "", ""), sql);
        assert_eq!(told.level, Level::Fail);
        assert!(told.detail.contains("walks over all of queue_task"), "{told:?}");
        let read = finding(Fault::WrongIndex, &step("t", "ref", "x", ""), "SELECT 1 FROM queue_task AS t WHERE x = 1");
        assert_eq!((read.level, short(&"x".repeat(101)).chars().count()), (Level::Warn, 101));
        assert!(finding(Fault::Sort, &step("t", "", "", ""), sql).detail.contains("sorts rows"));
        let one = "SELECT 1 FROM queue_session AS s JOIN queue_task AS t ON t.id = s.id FOR SHARE OF s";
        assert_eq!(walk.fault(one, 9), None, "it locks no task");
        assert_eq!(walk.fault(&one.replace("OF s", "OF t"), 9), Some(Fault::Scan));
    }
}
