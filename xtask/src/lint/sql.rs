//! Our SQL never takes the time from the session: `NOW()` and time defaults follow `time_zone`, and were measured
//! five hours wrong. Times are bound, or come from `UTC_TIMESTAMP(6)`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::rust_source::{literals, without_tests};

/// Words that follow the session's time zone; those with a parenthesis only count as a call.
const BANNED: &[&str] = &[
    "NOW(",
    "CURRENT_TIMESTAMP",
    "CURRENT_TIME",
    "CURRENT_DATE",
    "CURDATE(",
    "CURTIME(",
    "LOCALTIME",
    "LOCALTIMESTAMP",
    "SYSDATE(",
    "UNIX_TIMESTAMP(",
    "FROM_UNIXTIME(",
    "DEFAULT (DATETIME(",
    "DEFAULT (STRFTIME(",
    "DEFAULT (UNIXEPOCH(",
    "DEFAULT (JULIANDAY(",
    "DEFAULT (UTC_TIMESTAMP(",
];

/// The difference of two such times does not follow the zone. OceanBase needs it: see `Flavor` of queue-mysql.
const ALLOWED: &str = "TIMESTAMPDIFF(MICROSECOND, NOW(6), SYSDATE(6))";

/// Where our SQL is.
const PLACES: &[(&str, &str)] =
    &[("migrations", "sql"), ("crates/queue-mysql/src", "rs"), ("crates/queue-sqlite/src", "rs")];

/// Checks every place where the workspace at `root` keeps SQL.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    for (place, extension) in PLACES {
        let found = files(&root.join(place), &[extension])?;
        if found.is_empty() {
            bail!("no .{extension} file in {place}: did it move? then tell xtask/src/lint/sql.rs");
        }
        for path in found {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let relative = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            let sentences = if *extension == "rs" { of_rust(&text) } else { of_sql(&text) };
            for (line, sentence) in sentences {
                let sentence = sentence.replace(ALLOWED, "");
                wrong.extend(banned(&sentence).map(|word| format!("{relative}:{line}: {word}")));
            }
        }
    }
    if !wrong.is_empty() {
        bail!("these follow the session's time zone; bind a time or use UTC_TIMESTAMP(6):\n  {}", wrong.join("\n  "));
    }
    Ok(())
}

/// The files below `folder` that have one of `extensions`, sorted.
pub(crate) fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if path.is_dir() {
                folders.push(path);
            } else if extension.is_some_and(|extension| extensions.contains(&extension)) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn of_rust(source: &str) -> Vec<(usize, String)> {
    let literals = literals(without_tests(source));
    let lines = |(start, text): (usize, &str)| -> Vec<(usize, String)> {
        text.lines().enumerate().map(|(number, line)| (start + number, line.to_owned())).collect()
    };
    literals.into_iter().flat_map(|literal| lines((literal.line, literal.text))).collect()
}

fn of_sql(source: &str) -> Vec<(usize, String)> {
    let code = |line: &str| line.split("--").next().unwrap_or_default().to_owned();
    source.lines().enumerate().map(|(number, line)| (number + 1, code(line))).collect()
}

fn banned(sentence: &str) -> impl Iterator<Item = &'static str> {
    // One space between words, none before a parenthesis that opens a call.
    let words: Vec<_> = sentence.split_whitespace().collect();
    let text = words.join(" ").to_ascii_uppercase();
    let call = text.replace(" (", "(").replace("DEFAULT(", "DEFAULT (");
    BANNED.iter().copied().filter(move |word| {
        call.match_indices(word).any(|(at, _)| {
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let before = call[..at].chars().next_back().is_some_and(is_word);
            let after = !word.ends_with('(') && call[at + word.len()..].chars().next().is_some_and(is_word);
            !before && !after
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{banned, of_rust, of_sql};

    #[test]
    fn the_clock_of_the_session_is_found_however_it_is_written() {
        for sentence in [
            "select now (6)",
            "a BIGINT DEFAULT current_timestamp(6)",
            "default (datetime('now'))",
            "SELECT UNIX_TIMESTAMP()",
        ] {
            assert_eq!(banned(sentence).count(), 1, "{sentence}");
        }
        for sentence in ["SELECT UTC_TIMESTAMP(6)", "run_at <= ?", "known(1)", "select unixepoch('subsec')"] {
            assert_eq!(banned(sentence).count(), 0, "{sentence}");
        }
    }

    #[test]
    fn only_code_counts() {
        assert_eq!(of_sql("a\n-- NOW()\n")[1], (2, String::new()));
        let rust =
            "// NOW()\nlet at = clock.now();\nlet q = \"SELECT\n  NOW()\";\n#[cfg(test)]\nmod tests {\n\"NOW()\"\n}\n";
        let lines = of_rust(rust);
        let found: Vec<_> = lines.iter().filter(|(_, text)| banned(text).next().is_some()).collect();
        assert_eq!(found, [&(4, "  NOW()".to_owned())]);
    }
}
