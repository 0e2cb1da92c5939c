//! What the doctor found, as people and programs read it.

use queue_runtime::queue_core::diagnose::{Finding, Level};
use serde::Serialize;

use super::escape::escaped;
use crate::url::redacted;

/// A finding as JSON. These names are stable.
#[derive(Serialize)]
pub(crate) struct FindingJson<'a> {
    check: &'a str,
    level: &'a str,
    detail: String,
    advice: Option<String>,
}

impl<'a> FindingJson<'a> {
    pub(crate) fn new(finding: &'a Finding) -> Self {
        Self {
            check: finding.check,
            level: finding.level.as_str(),
            detail: redacted(&finding.detail).into_owned(),
            advice: finding.advice.as_deref().map(|advice| redacted(advice).into_owned()),
        }
    }
}

/// A line for each finding, and one below it for what to do.
pub(crate) fn lines(findings: &[Finding]) -> Vec<String> {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let shown = |text: &str| escaped(&redacted(text)).into_owned();
    let mut lines = Vec::new();
    for finding in findings {
        lines.push(format!("{:4}  {:width$}  {}", finding.level, finding.check, shown(&finding.detail)));
        if let Some(advice) = &finding.advice {
            lines.push(format!("      {:width$}  → {}", "", shown(advice)));
        }
    }
    lines
}

/// `11 ok, 2 warnings, 1 failure`.
pub(crate) fn summary(findings: &[Finding]) -> String {
    let count = |level: Level| findings.iter().filter(|finding| finding.level == level).count();
    let counted = |level: Level, name: &str| match count(level) {
        0 => None,
        1 => Some(format!("1 {name}")),
        many => Some(format!("{many} {name}s")),
    };
    let ok = Some(format!("{} ok", count(Level::Ok)));
    let parts = [counted(Level::Fail, "failure"), counted(Level::Warn, "warning"), ok];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_lines_and_programs_json() {
        let findings = [
            Finding::ok("server", "MySQL 9.7.4 at mysql://a:secret@b/c"),
            Finding::warn("durability", "sync_binlog is 0\u{1b}[2J", "SET PERSIST sync_binlog = 1"),
            Finding::fail("tables", "an index is missing", "ALTER TABLE"),
            Finding::fail("tables", "another one", "ALTER TABLE"),
        ];
        assert_eq!(
            lines(&findings),
            [
                "ok    server      MySQL 9.7.4 at mysql://a:***@b/c",
                "warn  durability  sync_binlog is 0\\u{1b}[2J",
                "                  → SET PERSIST sync_binlog = 1",
                "fail  tables      an index is missing",
                "                  → ALTER TABLE",
                "fail  tables      another one",
                "                  → ALTER TABLE",
            ]
        );
        assert_eq!(summary(&findings), "2 failures, 1 warning, 1 ok");
        assert_eq!(summary(&findings[..1]), "1 ok");
        let json = serde_json::to_value(FindingJson::new(&findings[1])).unwrap();
        assert_eq!((&json["check"], &json["level"]), (&"durability".into(), &"warn".into()));
        assert_eq!(serde_json::to_value(FindingJson::new(&findings[0])).unwrap()["advice"], serde_json::Value::Null);
    }
}
