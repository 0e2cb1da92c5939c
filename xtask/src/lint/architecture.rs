//! docs/ARCHITECTURE.md is a map: it names every crate, and only what is there.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

const MAP: &str = "docs/ARCHITECTURE.md";

/// Holds the map against the workspace.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let text = fs::read_to_string(workspace.root.join(MAP)).with_context(|| format!("cannot read {MAP}"))?;
    let names: Vec<_> = workspace.packages().filter_map(|package| package["name"].as_str()).collect();
    let mut wrong = unnamed(&text, &names);
    let folder = workspace.root.join("docs");
    for (line, path) in paths(&text) {
        let there = |base: &Path| base.join(path.trim_end_matches('/')).exists();
        if !there(&workspace.root) && !there(&folder) {
            wrong.push(format!("{MAP}:{line}: there is no {path}"));
        }
    }
    if !wrong.is_empty() {
        bail!("\n  {}", wrong.join("\n  "));
    }
    Ok(())
}

fn unnamed(text: &str, names: &[&str]) -> Vec<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    let words: Vec<_> = text.split(|c| !is_name(c)).collect();
    let missing = names.iter().filter(|name| {
        // The folder of the workspace's tests is what people call that crate.
        let short = name.strip_prefix("queue-").filter(|short| *short == "tests");
        !words.contains(name) && !short.is_some_and(|short| words.contains(&short))
    });
    missing.map(|name| format!("{MAP} does not name {name}")).collect()
}

/// What looks like a path of this repository, with its line: in backticks or as a link's target, with a slash in
/// it, from the root (or, in a link, from docs/).
fn paths(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let quoted = line.split('`').skip(1).step_by(2);
        let linked = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let is_path = |word: &&str| {
            let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
            let rooted = !word.starts_with('/') && word.contains('/');
            plain && rooted && !word.contains("//") && !is_media_type(word)
        };
        found.extend(quoted.chain(linked).filter(is_path).map(|path| (number + 1, path)));
    }
    found
}

fn is_media_type(word: &str) -> bool {
    matches!(word.split('/').next(), Some("application" | "text" | "image"))
}

#[cfg(test)]
mod tests {
    use super::{paths, unnamed};

    #[test]
    fn paths_are_told_from_other_words() {
        let text = "See `crates/queue-core/src/` and [adr](adr/0001.md#why),\nnot `/metrics`, `a b/c`, `queue-core`, \
                    `text/plain` or [web](https://example.org/x).";
        assert_eq!(paths(text), [(1, "crates/queue-core/src/"), (1, "adr/0001.md")]);
    }

    #[test]
    fn a_crate_must_be_named_in_full() {
        let missing =
            unnamed("queue-core-extra, tests/ and queue-mysql.", &["queue-core", "queue-mysql", "queue-tests"]);
        assert_eq!(missing, ["docs/ARCHITECTURE.md does not name queue-core"]);
    }
}
