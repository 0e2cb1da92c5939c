//! The statements that the adapter runs, as a catalogue that the doctor can explain: written down by `recording.rs` while every
//! call of the store runs, so that it is the statements themselves and nothing like them. A test holds it against a fresh
//! record.
//!
//! A template is a statement in which `#` stands for an id, `~` for a point in time, `?` for a bound value, and `[…]` for as many
//! as there are in a batch.

use crate::server::Flavor;

/// What stands for the placeholders of a template.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// The first id; those of a list follow it.
    pub(super) id: u64,
    /// The first point in time; those of a list follow it.
    pub(super) time: i64,
    /// How many a list has.
    pub(super) list: u64,
}

/// The templates for this kind of server.
pub(super) fn catalogue(flavor: Flavor) -> impl Iterator<Item = &'static str> {
    let text = match flavor {
        Flavor::MySql => include_str!("statements/mysql.sql"),
        Flavor::MariaDb => include_str!("statements/mariadb.sql"),
        // Its plans read otherwise, and nothing of it was held against them yet.
        Flavor::OceanBase => "",
    };
    text.lines().filter(|line| !line.is_empty() && !line.starts_with("--"))
}

/// A statement out of a template.
pub(super) fn expand(template: &str, sample: Sample) -> String {
    let mut sql = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('[') {
        let (item, after) = after.split_once(']').unwrap_or((after, ""));
        sql.push_str(&fill(before, sample, 0));
        let items: Vec<_> = (0..sample.list).map(|index| fill(item, sample, index)).collect();
        sql.push_str(&items.join(","));
        rest = after;
    }
    sql.push_str(&fill(rest, sample, 0));
    sql
}

fn fill(text: &str, sample: Sample, index: u64) -> String {
    let time = sample.time.saturating_add_unsigned(index);
    text.replace('#', &(sample.id + index).to_string()).replace('~', &time.to_string()).replace('?', "'1'")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Numbers from here on are ids, in what is recorded: smaller ones are codes, counts and limits.
    const IDS_FROM: u128 = 1_000;
    /// Limits below this are those of small batches: all the same.
    const LIMITS_FROM: u128 = 1_000;
    /// Numbers from here on are points in time.
    const TIMES_FROM: u128 = 1_000_000_000_000_000;

    /// The statements of a text, each as a template, as far as they read tables of ours.
    pub(crate) fn templates(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for statement in text.split("; ") {
            let writes_rows = statement.contains("VALUES") && !statement.contains(" FROM ");
            let verb = statement.split(' ').next().unwrap_or_default();
            let explains = matches!(verb, "SELECT" | "UPDATE" | "DELETE" | "INSERT");
            if explains && !writes_rows && statement.contains("queue_") {
                let template = collapse(&placeholders(statement));
                found.push(template.replace("priority_rank = -0", "priority_rank = 0"));
            }
        }
        found
    }

    /// Puts placeholders for what differs from call to call, and takes the database's name away.
    fn placeholders(statement: &str) -> String {
        let mut text = String::new();
        let mut chars = statement.char_indices().peekable();
        let mut word = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                '`' => {
                    chars.by_ref().find(|(_, c)| *c == '`');
                    assert!(chars.next().is_some_and(|(_, c)| c == '.'), "a quoted name that is no database");
                }
                '\'' => {
                    let end = statement[at + 1..].find('\'').unwrap() + at + 1;
                    text.push_str(&statement[at..=end]);
                    chars.by_ref().find(|(at, _)| *at == end);
                }
                '0'..='9' if !text.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '@') => {
                    let mut end = at + 1;
                    while chars.peek().is_some_and(|(_, c)| c.is_ascii_alphanumeric()) {
                        end = chars.next().unwrap().0 + 1;
                    }
                    let number = &statement[at..end];
                    let is_limit = word == "LIMIT";
                    let is_any = ["priority_rank = ", "priority_rank = -", "suspect = ", "ROW_COUNT() <> "]
                        .iter()
                        .any(|end| text.ends_with(end));
                    match number.parse::<u128>() {
                        Ok(number) if is_limit && number < LIMITS_FROM => text.push_str("100"),
                        // How far a sweep looks hangs on how many lanes there are.
                        Ok(number) if word == "OFFSET" && number > 300 => text.push_str("4999"),
                        Ok(_) if is_any => text.push('0'),
                        Ok(number) if word != "LIMIT" && number >= TIMES_FROM => text.push('~'),
                        Ok(number) if word != "LIMIT" && number >= IDS_FROM => text.push('#'),
                        _ => text.push_str(number),
                    }
                }
                c => {
                    if c.is_ascii_uppercase() {
                        if !text.ends_with(|c: char| c.is_ascii_alphanumeric()) {
                            word.clear();
                        }
                        word.push(c);
                    } else if c != ' ' {
                        word.clear();
                    }
                    text.push(c);
                }
            }
        }
        text
    }

    /// Makes a list of like items into one item in brackets.
    fn collapse(text: &str) -> String {
        let mut found = text.to_owned();
        for item in ["#", "~", "?", "(#)", "(?)", "(~,#)", "(#,#)", "(?,?)", "(2,~,#)", "(3,~,#)", "(#,#,#)"] {
            for (open, close) in [("IN (", ")"), ("VALUES ", ")")] {
                let mut from = 0;
                while let Some(at) = found[from..].find(&format!("{open}{item}")).map(|at| from + at + open.len()) {
                    let mut end = at + item.len();
                    while found[end..].starts_with(&format!(",{item}")) {
                        end += item.len() + 1;
                    }
                    from = at;
                    if found[end..].starts_with(close) {
                        found.replace_range(at..end, &format!("[{item}]"));
                    }
                }
            }
        }
        found
    }

    /// Whether it reads a lane, or looks at some of them from further on: from where, depends on how much time went by since the lane
    /// was read last, and how long a look took.
    pub(crate) fn reads_a_lane(template: &str) -> bool {
        template.contains("FROM queue_ready FORCE INDEX (PRIMARY) WHERE queue_id") || looks_further_on(template)
    }

    /// Whether it looks at some lanes from further on.
    pub(crate) fn looks_further_on(template: &str) -> bool {
        template.contains("CASE WHEN l.queue_id")
    }

    #[test]
    fn a_statement_becomes_a_template_and_back() {
        let sql = "START TRANSACTION; UPDATE `a`.queue_task SET x = '7000' WHERE id IN (1001,1002) AND status = 1 AND at < \
                   1700000000000000; SELECT run_at, t9000 FROM queue_ready WHERE (run_at, task_id) IN \
                   ((1700000000000000,1001),(1700000000000001,1002)) LIMIT 5000; INSERT INTO queue_x (a) VALUES (1001); COMMIT";
        let templates = templates(sql);
        assert_eq!(
            templates,
            [
                "UPDATE queue_task SET x = '7000' WHERE id IN ([#]) AND status = 1 AND at < ~",
                "SELECT run_at, t9000 FROM queue_ready WHERE (run_at, task_id) IN ([(~,#)]) LIMIT 5000",
            ]
        );
        let sample = Sample { id: 5, time: 90, list: 2 };
        assert_eq!(
            templates.iter().map(|template| expand(template, sample)).collect::<Vec<_>>(),
            [
                "UPDATE queue_task SET x = '7000' WHERE id IN (5,6) AND status = 1 AND at < 90",
                "SELECT run_at, t9000 FROM queue_ready WHERE (run_at, task_id) IN ((90,5),(91,6)) LIMIT 5000",
            ]
        );
    }
}
