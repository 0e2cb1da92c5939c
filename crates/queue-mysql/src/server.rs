//! Which server answers, and the few places where servers differ.

use queue_core::StoreError;

/// The kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavor {
    MySql,
    MariaDb,
}

/// Rows to be deleted by the values of an index, without ever looking at another row: a scan would wait for the locks of
/// others, and they for its own. Neither server can be asked for that in the other's words.
#[derive(Debug)]
pub(crate) struct Deletion<'a> {
    pub(crate) table: &'static str,
    /// The index, of which the columns below are the first ones.
    pub(crate) index: &'static str,
    /// Columns that have one value in all of the rows, with `AND` between them; empty when there is none.
    pub(crate) fixed: &'a str,
    pub(crate) columns: &'a [&'static str],
    /// Their values: `(1,2),(3,4)`.
    pub(crate) rows: &'a str,
}

impl Deletion<'_> {
    /// The statement.
    pub(crate) fn sql(&self, flavor: Flavor) -> String {
        let Self { table, index, fixed, columns, rows } = self;
        let and = if fixed.is_empty() { "" } else { " AND " };
        let names = columns.join(", ");
        match flavor {
            Flavor::MySql => {
                format!("DELETE /*+ INDEX({table} {index}) */ FROM {table} WHERE {fixed}{and}({names}) IN ({rows})")
            }
            // It takes the hint for a comment, and gives FORCE INDEX no place in this statement; but it joins to a list of keys
            // one seek each.
            Flavor::MariaDb => {
                let on: Vec<_> = columns.iter().map(|column| format!("x.{column} = k.{column}")).collect();
                format!(
                    "DELETE x FROM (WITH k ({names}) AS (VALUES {rows}) SELECT * FROM k) AS k STRAIGHT_JOIN {table} AS x \
                     FORCE INDEX ({index}) ON {fixed}{and}{}",
                    on.join(" AND ")
                )
            }
        }
    }
}

impl Flavor {
    /// Deletes rows by their one-column key; the ids with commas between them.
    pub(crate) fn delete_by_id(self, table: &'static str, column: &'static str, ids: &str) -> String {
        let rows = format!("({})", ids.replace(',', "),("));
        Deletion { table, index: "PRIMARY", fixed: "", columns: &[column], rows: &rows }.sql(self)
    }
}

/// The server that was found at connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) flavor: Flavor,
    pub(crate) version: (u32, u32, u32),
    /// The database's name, quoted.
    pub(crate) database: String,
}

impl Server {
    /// Judges what the server says of itself.
    pub(crate) fn parse(version: &str, comment: &str, database: &str) -> Result<Self, StoreError> {
        let said = format!("{version} {comment}");
        let lower = said.to_ascii_lowercase();
        for (mark, why) in [
            ("tidb", "TiDB takes SELECT … FOR UPDATE SKIP LOCKED for a plain lock and would run tasks twice"),
            ("vitess", "Vitess spreads tables over shards that our transactions cannot span"),
        ] {
            if lower.contains(mark) {
                return Err(unsupported(&said, why));
            }
        }
        let flavor = if lower.contains("mariadb") { Flavor::MariaDb } else { Flavor::MySql };
        // MariaDB puts 5.5.5- before its version where old replicas look.
        let number = version.strip_prefix("5.5.5-").unwrap_or(version);
        let mut parts = number.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        let version = (next(), next(), next());
        let (floor, name) = match flavor {
            Flavor::MySql => ((8, 0, 20), "MySQL 8.0.20"),
            Flavor::MariaDb => ((10, 6, 0), "MariaDB 10.6"),
        };
        if version < floor {
            return Err(unsupported(&said, &format!("it lacks SKIP LOCKED as we need it; use {name} or later")));
        }
        Ok(Self { flavor, version, database: format!("`{}`", database.replace('`', "``")) })
    }
}

fn unsupported(said: &str, why: &str) -> StoreError {
    StoreError::Unsupported {
        reason: format!(
            "the server ({}) cannot be used: {why}. MySQL 8.0.20 or later and MariaDB 10.6 or later can",
            said.trim()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_is_asked_in_its_own_words() {
        let deletion =
            Deletion { table: "t", index: "PRIMARY", fixed: "a = 1", columns: &["b", "c"], rows: "(1,2),(3,4)" };
        assert_eq!(
            deletion.sql(Flavor::MySql),
            "DELETE /*+ INDEX(t PRIMARY) */ FROM t WHERE a = 1 AND (b, c) IN ((1,2),(3,4))"
        );
        assert_eq!(
            deletion.sql(Flavor::MariaDb),
            "DELETE x FROM (WITH k (b, c) AS (VALUES (1,2),(3,4)) SELECT * FROM k) AS k STRAIGHT_JOIN t AS x \
             FORCE INDEX (PRIMARY) ON a = 1 AND x.b = k.b AND x.c = k.c"
        );
        let by_id = Flavor::MySql.delete_by_id("t", "id", "1,2");
        assert_eq!(by_id, "DELETE /*+ INDEX(t PRIMARY) */ FROM t WHERE (id) IN ((1),(2))");
    }

    #[test]
    fn servers_below_the_floor_are_refused() {
        let parse = |version, comment| Server::parse(version, comment, "a`b");
        let mysql = parse("8.0.20-0ubuntu1", "(Ubuntu)").unwrap();
        assert_eq!((mysql.flavor, mysql.version, mysql.database.as_str()), (Flavor::MySql, (8, 0, 20), "`a``b`"));
        let maria = parse("5.5.5-10.6.1-MariaDB-log", "").unwrap();
        assert_eq!((maria.flavor, maria.version), (Flavor::MariaDb, (10, 6, 1)));
        assert_eq!(parse("9.7.4-2", "(Debian)").unwrap().version, (9, 7, 4));
        for (version, comment, told) in [
            ("8.0.19", "MySQL", "8.0.20"),
            ("5.7.44-log", "", "8.0.20"),
            ("10.5.12-MariaDB", "", "10.6"),
            ("8.0.11-TiDB-v7.5.0", "", "TiDB"),
            ("8.0.30-Vitess", "", "Vitess"),
        ] {
            let text = parse(version, comment).unwrap_err().to_string();
            assert!(text.contains(version) && text.contains(told), "{text}");
        }
    }
}
