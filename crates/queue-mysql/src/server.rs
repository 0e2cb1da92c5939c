//! Which server answers, and the few places where servers differ.

use queue_core::StoreError;

use crate::options::MySqlOptions;
use crate::sql::CLOCK;

/// The kind of server. Statements are written in the words of MySQL; what another kind needs otherwise is told here, by the
/// methods, and nowhere else.
///
/// OceanBase is the furthest from MySQL. Beyond what the methods say, the other modules keep to what it can do:
///
/// * It has no charset `ascii` and no TLS, and works at READ COMMITTED by itself, which we ask for anyway.
/// * It works out every subquery, also in the branch of an `IF` that is not taken: [`guard`](crate::sql::guard).
/// * It takes the hints `FORCE INDEX` and `/*+ INDEX(…) */`, joins to derived tables and CHECK constraints as MySQL does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flavor {
    #[default]
    MySql,
    MariaDb,
    OceanBase,
}

/// OceanBase takes the time from a clock that it reads only every few milliseconds (100 of them were seen on a busy machine), so
/// that a later statement may get an earlier time. What it can be asked for exactly is the session's time; the difference
/// to the session's time of the cached clock brings that one up to date, whatever the session's time zone is.
const OCEANBASE_CLOCK: &str = "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6)) + \
     TIMESTAMPDIFF(MICROSECOND, NOW(6), SYSDATE(6)))";

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
            Flavor::MySql | Flavor::OceanBase => {
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
    /// A statement in the server's own words.
    pub(crate) fn say(self, sql: String) -> String {
        match self {
            Self::OceanBase => sql.replace(CLOCK, OCEANBASE_CLOCK),
            Self::MySql | Self::MariaDb => sql,
        }
    }

    /// Whether a connection must be opened in another way than one to a server of which nothing is known yet.
    pub(crate) const fn needs_own_settings(self) -> bool {
        matches!(self, Self::OceanBase)
    }

    /// What a session needs beyond the settings that all servers take, with a semicolon before it.
    pub(crate) fn settings(self, options: &MySqlOptions) -> String {
        match self {
            // The variables of InnoDB are there and do nothing.
            Self::OceanBase => format!(
                "; SET SESSION ob_trx_lock_timeout = {}, ob_query_timeout = {}",
                options.lock_wait.as_micros(),
                options.call_timeout.as_micros()
            ),
            Self::MySql | Self::MariaDb => String::new(),
        }
    }

    /// How many prepared statements a connection keeps, where the driver's own number is too many. OceanBase gives a session
    /// 50 cursors, and each of them is one.
    pub(crate) const fn statements_max(self) -> Option<usize> {
        match self {
            Self::OceanBase => Some(32),
            Self::MySql | Self::MariaDb => None,
        }
    }

    /// Whether `LIMIT` counts the rows that SKIP LOCKED then leaves out: few rows, or none, do not say that no more are free.
    pub(crate) const fn limits_before_skipping(self) -> bool {
        matches!(self, Self::OceanBase)
    }

    /// Whether a `DELETE` by runs of keys, and not by a list, can be kept to its index. OceanBase was never tried.
    pub(crate) const fn deletes_runs(self) -> bool {
        matches!(self, Self::MySql | Self::MariaDb)
    }

    /// Deletes by a condition on the primary key.
    pub(crate) fn delete_where(self, table: &str, condition: &str) -> String {
        match self {
            // It takes the hint for a comment, and gives FORCE INDEX no place but where several tables could be named.
            Self::MariaDb => format!("DELETE x FROM {table} AS x FORCE INDEX (PRIMARY) WHERE {condition}"),
            Self::MySql | Self::OceanBase => {
                format!("DELETE /*+ INDEX({table} PRIMARY) */ FROM {table} WHERE {condition}")
            }
        }
    }

    /// Whether a row can be locked for sharing. OceanBase locks it for this transaction alone when asked for that.
    pub(crate) const fn shares_locks(self) -> bool {
        !matches!(self, Self::OceanBase)
    }

    /// Whether a statement can lock the rows of one of its tables and read the others without locks.
    pub(crate) const fn locks_one_table(self) -> bool {
        matches!(self, Self::MySql)
    }

    /// Whether a statement that reads a table may also ask how many rows the one before it changed. OceanBase may have another of its
    /// machines run such a statement, and whether that one knows the count was not seen.
    pub(crate) const fn counts_beside_reads(self) -> bool {
        matches!(self, Self::MySql | Self::MariaDb)
    }

    /// An expression that tells servers apart, so that a clock is not compared with another's.
    pub(crate) const fn identity(self) -> &'static str {
        match self {
            // The same on all machines of one OceanBase, which keep their clocks together.
            Self::MySql | Self::OceanBase => "@@server_uuid",
            Self::MariaDb => "CONCAT(@@hostname, ':', @@port, '/', @@server_id)",
        }
    }

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
        let flavor = if lower.contains("oceanbase") {
            Flavor::OceanBase
        } else if lower.contains("mariadb") {
            Flavor::MariaDb
        } else {
            Flavor::MySql
        };
        let number = match flavor {
            // Its version is that of a MySQL which it resembles; its own is in the comment: `OceanBase_CE 4.3.5.0 (r…)`.
            Flavor::OceanBase => comment.find(|c: char| c.is_ascii_digit()).map_or("", |at| &comment[at..]),
            // MariaDB puts 5.5.5- before its version where old replicas look.
            Flavor::MySql | Flavor::MariaDb => version.strip_prefix("5.5.5-").unwrap_or(version),
        };
        let mut parts = number.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        let version = (next(), next(), next());
        let (floor, name) = match flavor {
            Flavor::MySql => ((8, 0, 20), "MySQL 8.0.20"),
            Flavor::MariaDb => ((10, 6, 0), "MariaDB 10.6"),
            Flavor::OceanBase => ((4, 3, 5), "OceanBase 4.3.5"),
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
            "the server ({}) cannot be used: {why}. MySQL 8.0.20 or later, MariaDB 10.6 or later and OceanBase 4.3.5 or \
             later can",
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
        assert_eq!(
            Flavor::MariaDb.delete_where("t", "a = 1"),
            "DELETE x FROM t AS x FORCE INDEX (PRIMARY) WHERE a = 1"
        );
        assert_eq!(Flavor::MySql.delete_where("t", "a = 1"), "DELETE /*+ INDEX(t PRIMARY) */ FROM t WHERE a = 1");
        let by_id = Flavor::MySql.delete_by_id("t", "id", "1,2");
        assert_eq!(by_id, "DELETE /*+ INDEX(t PRIMARY) */ FROM t WHERE (id) IN ((1),(2))");
    }

    #[test]
    fn the_exact_time_is_asked_for_where_the_clock_is_coarse() {
        let sql = format!("SELECT {CLOCK}, 1");
        assert_eq!(Flavor::MySql.say(sql.clone()), sql);
        assert_eq!(Flavor::OceanBase.say(sql), format!("SELECT {OCEANBASE_CLOCK}, 1"));
    }

    #[test]
    fn servers_below_the_floor_are_refused() {
        let parse = |version, comment| Server::parse(version, comment, "a`b");
        let mysql = parse("8.0.20-0ubuntu1", "(Ubuntu)").unwrap();
        assert_eq!((mysql.flavor, mysql.version, mysql.database.as_str()), (Flavor::MySql, (8, 0, 20), "`a``b`"));
        let maria = parse("5.5.5-10.6.1-MariaDB-log", "").unwrap();
        assert_eq!((maria.flavor, maria.version), (Flavor::MariaDb, (10, 6, 1)));
        assert_eq!(parse("9.7.4-2", "(Debian)").unwrap().version, (9, 7, 4));
        let comment = "OceanBase 4.3.5.3 seekdb (r1.4.0.0) (Built 1-d0cb Sep  8 2026)";
        let ocean = parse("5.7.25-OceanBase seekdb-v1.4.0.0", comment).unwrap();
        assert_eq!((ocean.flavor, ocean.version), (Flavor::OceanBase, (4, 3, 5)));
        let ocean =
            parse("5.7.25-OceanBase_CE-v4.4.2.0", "OceanBase_CE 4.4.2.0 (r104-2025) (Built Oct 20 2025)").unwrap();
        assert_eq!((ocean.flavor, ocean.version), (Flavor::OceanBase, (4, 4, 2)));
        for (version, comment, told) in [
            ("8.0.19", "MySQL", "8.0.20"),
            ("5.7.44-log", "", "8.0.20"),
            ("10.5.12-MariaDB", "", "10.6"),
            ("5.7.25-OceanBase_CE-v4.2.1.8", "OceanBase_CE 4.2.1.8 (r108)", "4.3.5"),
            ("5.7.25-OceanBase", "", "4.3.5"),
            ("8.0.11-TiDB-v7.5.0", "", "TiDB"),
            ("8.0.30-Vitess", "", "Vitess"),
        ] {
            let text = parse(version, comment).unwrap_err().to_string();
            assert!(text.contains(version) && text.contains(told), "{text}");
        }
    }
}
