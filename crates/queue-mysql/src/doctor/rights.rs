//! The rights that the accounts need: one that migrates, one that runs. What is asked for here, `docs/OPERATIONS.md` tells, and
//! the tests run with.

use queue_core::diagnose::Finding;

use crate::connection::Conn;
use crate::error::{number, plain};
use crate::sql::value;

const CHECK: &str = "privileges";

/// A right on a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    Select,
    Insert,
    Update,
    Delete,
}

use Right::{Delete, Insert, Select, Update};

/// What the runtime's account needs, table by table, with the column that stands first in it.
pub(super) const RUNTIME: &[(&str, &str, &[Right])] = &[
    ("queue_attempt", "task_id", &[Select, Insert, Delete]),
    ("queue_audit", "id", &[Select, Insert, Update]),
    ("queue_claim", "id", &[Select, Insert, Delete]),
    ("queue_finished", "status", &[Select, Insert, Delete]),
    ("queue_id_block", "one", &[Select, Update]),
    ("queue_idempotency", "type_id", &[Select, Insert, Update, Delete]),
    ("queue_lane", "queue_id", &[Select, Insert]),
    ("queue_payload", "task_id", &[Select, Insert, Delete]),
    ("queue_policy", "id", &[Select, Insert]),
    ("queue_queue", "id", &[Select, Insert, Update]),
    ("queue_ready", "queue_id", &[Select, Insert, Delete]),
    ("queue_result", "task_id", &[Select, Insert, Delete]),
    ("queue_schema", "one", &[Select]),
    ("queue_session", "id", &[Select, Insert, Update, Delete]),
    ("queue_signal", "session_id", &[Select, Insert, Update, Delete]),
    ("queue_task", "id", &[Select, Insert, Update, Delete]),
    ("queue_type", "id", &[Select, Insert]),
];

impl Right {
    const fn word(self) -> &'static str {
        match self {
            Self::Select => "SELECT",
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }

    /// A statement that needs this right and does nothing: it is explained and not run.
    fn probe(self, table: &str, column: &str) -> String {
        match self {
            Self::Select => format!("EXPLAIN SELECT {column} FROM {table} WHERE 1 = 0"),
            Self::Insert => format!("EXPLAIN INSERT INTO {table} ({column}) VALUES (0)"),
            Self::Update => format!("EXPLAIN UPDATE {table} SET {column} = 0 WHERE 1 = 0"),
            Self::Delete => format!("EXPLAIN DELETE FROM {table} WHERE 1 = 0"),
        }
    }
}

/// The rights as a GRANT has them.
fn words(rights: &[Right]) -> String {
    rights.iter().map(|right| right.word()).collect::<Vec<_>>().join(", ")
}

/// The statement that gives an account these rights on a table.
pub(super) fn grant(rights: &[Right], database: &str, table: &str, account: &str) -> String {
    format!("GRANT {} ON {database}.{table} TO {account}", words(rights))
}

/// The account as a GRANT names it: `'queue'@'%'`.
fn account(current_user: &str) -> String {
    let (user, host) = current_user.rsplit_once('@').unwrap_or((current_user, "%"));
    format!("'{}'@'{}'", user.replace('\'', "''"), host.replace('\'', "''"))
}

/// What was found out about the rights of our account.
#[derive(Debug, Default)]
pub(super) struct Rights {
    /// What is missing, table by table.
    missing: Vec<(&'static str, Vec<Right>)>,
    /// What could not be found out, and why.
    unclear: Option<String>,
    account: String,
}

impl Rights {
    /// Tries each right without using it.
    pub(super) async fn find(conn: &mut Conn) -> Result<Self, sqlx::Error> {
        let rows = conn.run("SELECT CURRENT_USER()".to_owned()).await?.pop().unwrap_or_default().rows;
        let current: String = rows.first().map_or_else(|| Ok(String::new()), |row| value(row, 0))?;
        let mut found = Self { account: account(&current), ..Self::default() };
        for (table, column, rights) in RUNTIME {
            let mut missing = Vec::new();
            for right in *rights {
                match conn.run(right.probe(table, column)).await {
                    Ok(_) => {}
                    Err(error) => match number(&error) {
                        Some(1142..=1143 | 1044) => missing.push(*right),
                        // What is not there is told by the check of the tables.
                        Some(1146) => {}
                        Some(_) => found.unclear = Some(plain(&error)),
                        None => return Err(error),
                    },
                }
            }
            if !missing.is_empty() {
                found.missing.push((table, missing));
            }
        }
        Ok(found)
    }

    /// Tables of which this account sees nothing.
    pub(super) fn hidden(&self) -> Vec<&'static str> {
        let needed = |table: &str| RUNTIME.iter().find(|(one, _, _)| *one == table).map_or(0, |(_, _, all)| all.len());
        self.missing.iter().filter(|(table, missing)| missing.len() == needed(table)).map(|(table, _)| *table).collect()
    }

    pub(super) fn findings(&self, database: &str) -> Vec<Finding> {
        let mut findings: Vec<_> = self
            .missing
            .iter()
            .map(|(table, missing)| {
                let told = format!("{} may not {} {table}", self.account, words(missing));
                Finding::fail(CHECK, told, grant(missing, database, table, &self.account))
            })
            .collect();
        if let Some(said) = &self.unclear {
            let told = format!("the rights of {} cannot all be tried: {said}", self.account);
            findings.push(Finding::warn(CHECK, told, "compare SHOW GRANTS with docs/OPERATIONS.md"));
        }
        if findings.is_empty() {
            findings.push(Finding::ok(CHECK, format!("{} may do all that workers and producers do", self.account)));
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use queue_core::diagnose::Level;

    use super::*;

    #[test]
    fn what_is_missing_is_a_ready_statement() {
        let rights = Rights {
            missing: vec![("queue_schema", vec![Select]), ("queue_task", vec![Insert, Update])],
            unclear: Some("odd (1)".into()),
            account: account("o'brien@10.%"),
        };
        let findings = rights.findings("`shop`");
        assert_eq!(findings[1].detail, "'o''brien'@'10.%' may not INSERT, UPDATE queue_task");
        assert_eq!(
            findings[1].advice.as_deref(),
            Some("GRANT INSERT, UPDATE ON `shop`.queue_task TO 'o''brien'@'10.%'")
        );
        assert_eq!((findings[2].level, findings.len()), (Level::Warn, 3));
        assert_eq!(rights.hidden(), ["queue_schema"]);
    }

    #[test]
    fn each_table_is_asked_for_and_the_recipe_tells_the_same() {
        let steps = crate::migrate::steps().chain([crate::migrate::MAKE]);
        let mut tables: Vec<_> = super::super::schema::expected(steps).into_keys().map(|(table, _)| table).collect();
        tables.dedup();
        assert_eq!(tables, RUNTIME.iter().map(|(table, _, _)| *table).collect::<Vec<_>>());
        let recipe = include_str!("../../../../docs/OPERATIONS.md");
        for (table, _, rights) in RUNTIME {
            let line = format!("{};", grant(rights, "`shop`", table, "'queue'@'%'"));
            assert!(recipe.contains(&line), "docs/OPERATIONS.md lacks: {line}");
        }
    }
}
