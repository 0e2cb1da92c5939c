//! Whether the tables and their indexes are there, as the migrations make them.

use std::collections::BTreeMap;

use queue_core::diagnose::Finding;

use crate::connection::Conn;
use crate::sql::value;

/// Indexes by table and name.
pub(super) type Indexes = BTreeMap<(String, String), Index>;

/// An index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    unique: bool,
    /// In order, with commas between them.
    columns: String,
}

impl Index {
    /// As `ALTER TABLE` wants it.
    fn named(&self, name: &str) -> String {
        match name {
            "PRIMARY" => "PRIMARY KEY".to_owned(),
            name if self.unique => format!("UNIQUE KEY {name}"),
            name => format!("KEY {name}"),
        }
    }
}

const CHECK: &str = "tables";

/// What these steps of the schema make: the tables, each with its indexes.
pub(super) fn expected<'a>(steps: impl IntoIterator<Item = &'a str>) -> Indexes {
    let mut indexes = Indexes::new();
    let mut table = String::new();
    for line in steps.into_iter().flat_map(str::lines).map(str::trim) {
        if let Some(rest) = line.strip_prefix("CREATE TABLE IF NOT EXISTS ") {
            table = rest.trim_end_matches('(').trim().to_owned();
            continue;
        }
        let Some((name, index)) = index(line) else { continue };
        indexes.insert((table.clone(), name), index);
    }
    indexes
}

/// An index out of its line.
fn index(line: &str) -> Option<(String, Index)> {
    let line = line.trim_end_matches(',');
    let (head, columns) = line.split_once('(')?;
    let columns = columns.strip_suffix(')')?.replace(' ', "");
    let mut words = head.split_whitespace();
    let (name, unique) = match (words.next()?, words.next()?, words.next()) {
        ("PRIMARY", "KEY", None) => ("PRIMARY", true),
        ("UNIQUE", "KEY", Some(name)) => (name, true),
        ("KEY", name, None) => (name, false),
        _ => return None,
    };
    Some((name.to_owned(), Index { unique, columns }))
}

/// What is there.
pub(super) async fn found(conn: &mut Conn) -> Result<Indexes, sqlx::Error> {
    let sql = "SELECT table_name, index_name, column_name, non_unique FROM information_schema.statistics \
               WHERE table_schema = DATABASE() AND table_name LIKE 'queue\\_%' ORDER BY table_name, index_name, seq_in_index";
    let mut indexes = Indexes::new();
    for row in &conn.run(sql.to_owned()).await?.pop().unwrap_or_default().rows {
        let column: Option<String> = value(row, 2)?;
        let index = indexes.entry((value(row, 0)?, value(row, 1)?)).or_default();
        index.unique = value::<i64>(row, 3)? == 0;
        if !index.columns.is_empty() {
            index.columns.push(',');
        }
        index.columns.push_str(&column.unwrap_or_default());
    }
    Ok(indexes)
}

/// Holds one against the other, but for tables that this account may not see.
pub(super) fn compare(expected: &Indexes, found: &Indexes, hidden: &[&str]) -> Vec<Finding> {
    let is_there = |table: &str| found.keys().any(|(one, _)| one == table);
    let mut findings = Vec::new();
    let mut tables: Vec<&str> = expected.keys().map(|(table, _)| table.as_str()).collect();
    tables.dedup();
    tables.retain(|table| !hidden.contains(table));
    for table in tables.iter().filter(|table| !is_there(table)) {
        let advice = "restore it from a backup; an empty database is migrated with `queue migrate`";
        findings.push(Finding::fail(CHECK, format!("the table {table} is missing"), advice));
    }
    let mut indexes = 0;
    for ((table, name), index) in expected.iter().filter(|((table, _), _)| is_there(table)) {
        indexes += 1;
        let (named, columns) = (index.named(name), &index.columns);
        let add = format!("ADD {named} ({columns})");
        let (told, change) = match found.get(&(table.clone(), name.clone())) {
            Some(there) if there == index => continue,
            Some(there) => {
                let drop = if name == "PRIMARY" { "PRIMARY KEY".to_owned() } else { format!("KEY {name}") };
                let is = format!("is {} ({})", there.named(name), there.columns);
                (
                    format!("the index {name} of {table} {is} and must be {named} ({columns})"),
                    format!("DROP {drop}, {add}"),
                )
            }
            None => (format!("the index {name} of {table} is missing"), add),
        };
        findings.push(Finding::fail(CHECK, told, format!("ALTER TABLE {table} {change}")));
    }
    if findings.is_empty() {
        let told = format!("{} tables with {indexes} indexes are as the migrations made them", tables.len());
        findings.push(Finding::ok(CHECK, told));
    }
    findings
}

#[cfg(test)]
mod tests {
    use queue_core::diagnose::Level;

    use super::*;

    const SQL: &str = "-- why\nCREATE TABLE IF NOT EXISTS queue_a (\n    id INT,\n    PRIMARY KEY (id, x),\n    UNIQUE KEY a_x (x),\n    \
                       KEY a_y (y),\n    CONSTRAINT c CHECK (x = 1)\n) ENGINE = InnoDB;\n\
                       CREATE TABLE IF NOT EXISTS queue_b (\n    PRIMARY KEY (id)\n);\n";

    #[test]
    fn a_step_says_what_must_be_there() {
        let expected = expected([SQL]);
        let lines =
            expected.iter().map(|((table, name), index)| format!("{table}: {} ({})", index.named(name), index.columns));
        let lines: Vec<_> = lines.collect();
        assert_eq!(
            lines,
            [
                "queue_a: PRIMARY KEY (id,x)",
                "queue_a: UNIQUE KEY a_x (x)",
                "queue_a: KEY a_y (y)",
                "queue_b: PRIMARY KEY (id)"
            ]
        );
    }

    #[test]
    fn what_is_missing_comes_with_the_statement_that_mends_it() {
        let expected = expected([SQL]);
        assert_eq!(compare(&expected, &expected, &[])[0].level, Level::Ok);
        assert_eq!(compare(&expected, &Indexes::new(), &["queue_a", "queue_b"])[0].level, Level::Ok);
        let mut found = expected.clone();
        found.remove(&("queue_b".into(), "PRIMARY".into()));
        found.remove(&("queue_a".into(), "a_y".into()));
        found.insert(("queue_a".into(), "a_x".into()), Index { unique: false, columns: "y".into() });
        let told: Vec<_> = compare(&expected, &found, &[])
            .into_iter()
            .map(|finding| (finding.detail, finding.advice.unwrap_or_default()))
            .collect();
        assert_eq!(told.len(), 3);
        assert!(told[0].0.starts_with("the table queue_b is missing"), "{told:?}");
        assert_eq!(told[1].1, "ALTER TABLE queue_a DROP KEY a_x, ADD UNIQUE KEY a_x (x)");
        assert_eq!(
            told[2],
            ("the index a_y of queue_a is missing".into(), "ALTER TABLE queue_a ADD KEY a_y (y)".into())
        );
    }
}
