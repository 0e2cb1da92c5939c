//! Pieces of SQL. Only integers that we made are ever written into a statement; text and bytes are bound.

use std::fmt::{Display, Write as _};

use queue_core::Timestamp;
use sqlx::mysql::{MySqlArguments, MySqlRow};
use sqlx::{Arguments as _, Decode, Encode, MySql, Row, Type};

/// The server's clock in microseconds, whatever its time zone.
pub(crate) const CLOCK: &str = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6))";

/// Goes after a statement that must change (match, that is) so many rows. With any other number it is an error of its own
/// ([`Class::Guard`](crate::error::Class::Guard)), which stops the rest and the commit: two rows where one may be. Whether there
/// are two hangs on a condition, and not on an `IF` around them, because OceanBase works out a subquery that nobody asks for.
pub(crate) fn guard(rows: usize) -> String {
    guard_and(rows, &[])
}

/// The same, and these columns after the first.
pub(crate) fn guard_and(rows: usize, asked: &[String]) -> String {
    let mut sql = format!("SELECT (SELECT 1 UNION ALL SELECT 2 FROM DUAL WHERE ROW_COUNT() <> {rows})");
    for column in asked {
        sql.push(',');
        sql.push_str(column);
    }
    sql
}

/// The items with commas between them.
pub(crate) fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for item in items {
        if !text.is_empty() {
            text.push(',');
        }
        let _ = write!(text, "{item}");
    }
    text
}

/// An optional integer.
pub(crate) struct Opt<T>(pub(crate) Option<T>);

impl<T: Display> Display for Opt<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("NULL"),
        }
    }
}

/// An optional point in time.
pub(crate) fn opt_time(time: Option<Timestamp>) -> Opt<i64> {
    Opt(time.map(Timestamp::as_micros))
}

/// `count` groups of `width` placeholders.
pub(crate) fn placeholders(count: usize, width: usize) -> String {
    let group = format!("({})", vec!["?"; width].join(","));
    vec![group.as_str(); count].join(",")
}

/// Adds an argument of a prepared statement.
pub(crate) fn add<'q, T>(arguments: &mut MySqlArguments, value: T) -> Result<(), sqlx::Error>
where
    T: Encode<'q, MySql> + Type<MySql> + 'q,
{
    arguments.add(value).map_err(sqlx::Error::Encode)
}

/// The statement with a number in the place of each `?`.
pub(crate) fn inlined(sql: &str, numbers: &[i64]) -> String {
    let mut parts = sql.split('?');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for (number, part) in numbers.iter().zip(parts) {
        let _ = write!(text, "{number}{part}");
    }
    text
}

/// The condition that a column is one of these ids, which rise. Where most of them follow on one another, as those of tasks that were
/// enqueued together do, it names first and last: less to send, to read and to plan, and one walk instead of many seeks.
pub(crate) fn within(column: &str, ids: &[u64]) -> String {
    let runs = runs(ids);
    if !are_few(runs.len(), ids.len()) {
        return format!("{column} IN ({})", list(ids));
    }
    let runs: Vec<_> = runs.iter().map(|run| within_run(column, *run)).collect();
    format!("({})", runs.join(" OR "))
}

/// The condition that a column is within a run of ids. The last one is named apart: a walk looks at one row more than it wants,
/// and would wait for that row's lock; a seek by the whole key does not.
fn within_run(column: &str, (first, last): (u64, u64)) -> String {
    if first == last {
        format!("{column} = {last}")
    } else {
        format!("{column} BETWEEN {first} AND {} OR {column} = {last}", last - 1)
    }
}

/// The rows that a condition is about on the average, at least, to be worth naming them by it and not one by one.
const RUN_MIN: usize = 4;

/// Whether so many conditions are worth it for so many rows.
pub(crate) const fn are_few(conditions: usize, rows: usize) -> bool {
    conditions * RUN_MIN <= rows
}

/// First and last of each run of ids that follow on one another.
pub(crate) fn runs(ids: &[u64]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for id in ids {
        match runs.last_mut().filter(|(_, last)| last.checked_add(1) == Some(*id)) {
            Some((_, last)) => *last = *id,
            None => runs.push((*id, *id)),
        }
    }
    runs
}

/// Conditions on a time and a `task_id` that name these pairs, which rise, by first and last of each run.
pub(crate) fn timed_runs(time: &str, pairs: &[(i64, u64)]) -> Vec<String> {
    let mut conditions = Vec::new();
    for pairs in pairs.chunk_by(|a, b| a.0 == b.0) {
        let ids: Vec<_> = pairs.iter().map(|(_, id)| *id).collect();
        let at = pairs[0].0;
        conditions
            .extend(runs(&ids).into_iter().map(|run| format!("{time} = {at} AND ({})", within_run("task_id", run))));
    }
    conditions
}

/// How many rows the next prepared statement takes, out of few sizes, so that few statements are ever prepared.
pub(crate) fn chunk(left: usize) -> usize {
    const SIZES: &[usize] = &[1000, 500, 250, 170, 128, 100, 64, 32, 16];
    SIZES.iter().copied().find(|size| *size <= left).unwrap_or(left)
}

/// A column's value, whatever the server declares its type to be.
pub(crate) fn value<'r, T: Decode<'r, MySql>>(row: &'r MySqlRow, index: usize) -> Result<T, sqlx::Error> {
    row.try_get_unchecked(index)
}

/// Text, whatever the column's type and collation.
pub(crate) fn text(row: &MySqlRow, index: usize) -> Result<Option<String>, sqlx::Error> {
    let bytes: Option<Vec<u8>> = value(row, index)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// A point in time.
pub(crate) fn time(row: &MySqlRow, index: usize) -> Result<Timestamp, sqlx::Error> {
    Ok(Timestamp::from_micros(value(row, index)?))
}

/// An optional point in time.
pub(crate) fn maybe_time(row: &MySqlRow, index: usize) -> Result<Option<Timestamp>, sqlx::Error> {
    Ok(value::<Option<i64>>(row, index)?.map(Timestamp::from_micros))
}

/// A point in time in a column that is 0 where there is none.
pub(crate) fn time_unless_0(row: &MySqlRow, index: usize) -> Result<Option<Timestamp>, sqlx::Error> {
    Ok(Some(time(row, index)?).filter(|time| *time != Timestamp::EPOCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_fit_together() {
        assert_eq!(list([1, 2, 3]), "1,2,3");
        assert_eq!(list(Vec::<u8>::new()), "");
        assert_eq!(placeholders(2, 3), "(?,?,?),(?,?,?)");
        assert_eq!(format!("{} {}", Opt(Some(-1)), Opt::<u8>(None)), "-1 NULL");
    }

    #[test]
    fn ids_that_follow_on_one_another_are_named_by_first_and_last() {
        assert_eq!(runs(&[1, 2, 3, 7, 9, 10]), [(1, 3), (7, 7), (9, 10)]);
        assert_eq!(runs(&[u64::MAX]), [(u64::MAX, u64::MAX)]);
        assert_eq!(within("id", &[1, 2, 3, 4, 5, 6, 7, 9]), "(id BETWEEN 1 AND 6 OR id = 7 OR id = 9)");
        assert_eq!(within("t.id", &[1, 2, 3, 5]), "t.id IN (1,2,3,5)");
        assert_eq!(within("id", &[4]), "id IN (4)");
        assert_eq!(
            timed_runs("run_at", &[(7, 1), (7, 2), (7, 5), (9, 1)]),
            [
                "run_at = 7 AND (task_id BETWEEN 1 AND 1 OR task_id = 2)",
                "run_at = 7 AND (task_id = 5)",
                "run_at = 9 AND (task_id = 1)"
            ]
        );
    }

    #[test]
    fn any_number_of_rows_is_made_of_few_sizes() {
        let mut sizes = std::collections::BTreeSet::new();
        for total in 1..=1000 {
            let mut left = total;
            while left > 0 {
                sizes.insert(chunk(left));
                left -= chunk(left);
            }
        }
        assert!(sizes.len() <= 24, "{sizes:?}");
    }
}
