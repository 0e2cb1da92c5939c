//! Pieces of SQL, as the store makes them.

/// The server's clock in microseconds.
pub(crate) const CLOCK: &str = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6))";
/// The one lane that is used here.
pub(crate) const LANE: &str = "queue_id = 1 AND suspect = 0 AND priority_rank = 0";

/// When the row at the end of a lane is due.
pub(crate) const NEVER: i64 = i64::MAX;

/// Fails the rest of the packet unless the statement before changed so many rows.
pub(crate) fn guard(rows: usize) -> String {
    format!("SELECT (SELECT 1 UNION ALL SELECT 2 FROM DUAL WHERE ROW_COUNT() <> {rows})")
}

/// The same, and this column beside it.
pub(crate) fn guard_and(rows: usize, asked: &str) -> String {
    format!("{}, {asked}", guard(rows))
}

pub(crate) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

/// The condition that a column is one of these ids, which rise: by first and last of each run.
pub(crate) fn within(column: &str, ids: &[u64]) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for id in ids {
        match runs.last_mut().filter(|(_, last)| last + 1 == *id) {
            Some((_, last)) => *last = *id,
            None => runs.push((*id, *id)),
        }
    }
    if runs.len() * 4 > ids.len() {
        return format!("{column} IN ({})", list(ids));
    }
    let run = |(first, last): &(u64, u64)| match first {
        _ if first == last => format!("{column} = {last}"),
        _ => format!("{column} BETWEEN {first} AND {} OR {column} = {last}", last - 1),
    };
    format!("({})", runs.iter().map(run).collect::<Vec<_>>().join(" OR "))
}

/// Deletes what waits at these places, which rise by time and then by id.
pub(crate) fn delete_ready(is_mariadb: bool, keys: &[(i64, u64)]) -> String {
    let mut runs = Vec::new();
    for keys in keys.chunk_by(|a, b| a.0 == b.0) {
        let ids: Vec<u64> = keys.iter().map(|(_, id)| *id).collect();
        runs.push(format!("run_at = {} AND {}", keys[0].0, within("task_id", &ids)));
    }
    let condition = format!("{LANE} AND ({})", runs.join(" OR "));
    match is_mariadb {
        true => format!("DELETE x FROM queue_ready AS x FORCE INDEX (PRIMARY) WHERE {condition}"),
        false => format!("DELETE /*+ INDEX(queue_ready PRIMARY) */ FROM queue_ready WHERE {condition}"),
    }
}

/// Deletes rows by their one-column key.
pub(crate) fn delete_by_id(is_mariadb: bool, table: &str, column: &str, ids: &[u64], and: &str) -> String {
    if is_mariadb {
        let rows = list(ids.iter().map(|id| format!("({id})")));
        return format!(
            "DELETE x FROM (WITH k (k) AS (VALUES {rows}) SELECT * FROM k) AS k STRAIGHT_JOIN {table} AS x \
             FORCE INDEX (PRIMARY) ON x.{column} = k.k{and}"
        );
    }
    format!("DELETE /*+ INDEX({table} PRIMARY) */ FROM {table} WHERE {}{and}", within(column, ids))
}
