//! The dependency arrows: they point inwards, and the core stays pure by construction.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::process;
use crate::rust_source::without_comments;
use crate::workspace::Workspace;

/// Who may depend on whom. A new crate needs a row, and a reason that a module cannot serve.
const ROWS: &[Row] = &[
    Row { name: "queue-core", normal: &[], dev: &[] },
    Row { name: "queue-testkit", normal: &["queue-core"], dev: &[] },
    Row { name: "queue-mysql", normal: &["queue-core"], dev: &["queue-testkit"] },
    Row { name: "queue-sqlite", normal: &["queue-core"], dev: &["queue-testkit"] },
    Row { name: "queue-metrics", normal: &["queue-core"], dev: &["queue-testkit"] },
    Row {
        name: "queue-runtime",
        normal: &["queue-core", "queue-metrics", "queue-mysql", "queue-sqlite", "queue-testkit"],
        dev: &[],
    },
    Row { name: "queue-web", normal: &["queue-core", "queue-runtime"], dev: &["queue-testkit"] },
    Row { name: "queue-cli", normal: &["queue-runtime", "queue-web"], dev: &["queue-testkit"] },
    Row { name: "queue-benches", normal: &["queue-core", "queue-runtime"], dev: &[] },
    Row { name: "queue-tests", normal: EVERYTHING, dev: EVERYTHING },
    Row { name: "xtask", normal: &[], dev: &[] },
];
const EVERYTHING: &[&str] = &[
    "queue-cli",
    "queue-core",
    "queue-metrics",
    "queue-mysql",
    "queue-runtime",
    "queue-sqlite",
    "queue-testkit",
    "queue-web",
];

/// What the core must not reach, even through others: it does no I/O, knows no runtime and no SQL.
const IMPURE: &[&str] = &["tokio", "mio", "async-std", "sqlx", "sqlx-core", "rusqlite", "getrandom", "rand", "reqwest"];

/// Files of the runtime that may name an adapter: the composition root, and `lib.rs` where it re-exports.
const COMPOSITION_ROOT: &str = "connect";
const ADAPTERS: [&str; 2] = ["queue_mysql", "queue_sqlite"];

struct Row {
    name: &'static str,
    /// Ordinary (and build) dependencies.
    normal: &'static [&'static str],
    /// Those that its tests may have beyond the ordinary ones.
    dev: &'static [&'static str],
}

/// Holds the arrows of the workspace.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut wrong = Vec::new();
    for package in workspace.packages() {
        package_arrows(package, &mut wrong);
        inherited_lints(package, &mut wrong);
    }
    one_program(&workspace.metadata, &mut wrong);
    core_is_pure(workspace, &mut wrong)?;
    pool_names_no_adapter(&workspace.root.join("crates/queue-runtime/src"), &mut wrong)?;
    if !wrong.is_empty() {
        bail!("\n  {}", wrong.join("\n  "));
    }
    Ok(())
}

fn package_arrows(package: &Value, wrong: &mut Vec<String>) {
    let name = package["name"].as_str().unwrap_or_default();
    let Some(row) = ROWS.iter().find(|row| row.name == name) else {
        wrong.push(format!("{name} has no row in xtask/src/lint/arrows.rs"));
        return;
    };
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let other = dependency["name"].as_str().unwrap_or_default();
        let is_dev = dependency["kind"] == "dev";
        // A crate that is not of this workspace, or whose own tests turn on its features.
        if dependency["path"].is_null() || is_dev && other == name {
            continue;
        }
        if !(row.normal.contains(&other) || is_dev && row.dev.contains(&other)) {
            let kind = if is_dev { "tests of " } else { "" };
            wrong.push(format!("{kind}{name} must not depend on {other}"));
        }
        let must_be_optional = name == "queue-runtime" && other != "queue-core" && !is_dev;
        if must_be_optional && dependency["optional"] != true {
            wrong.push(format!("{name} must have {other} behind a feature"));
        }
    }
    if name == "queue-runtime" {
        testkit_is_for_testing(package, wrong);
    }
}

/// The reference store reaches a program through the feature `testing` alone, which is off by default.
fn testkit_is_for_testing(package: &Value, wrong: &mut Vec<String>) {
    for (feature, enables) in package["features"].as_object().into_iter().flatten() {
        for enabled in enables.as_array().into_iter().flatten().filter_map(Value::as_str) {
            let testkit = enabled.trim_start_matches("dep:").split(['/', '?']).next() == Some("queue-testkit");
            if testkit && feature != "testing" || enabled == "testing" {
                wrong.push(format!("queue-runtime's feature `{feature}` must not turn on `{enabled}`"));
            }
        }
    }
}

/// `cargo run` in the root is the README's first command.
fn one_program(metadata: &Value, wrong: &mut Vec<String>) {
    let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let defaults = all(&metadata["workspace_default_members"]);
    let packages = all(&metadata["packages"]).into_iter().filter(|package| defaults.contains(&package["id"]));
    let targets = packages.flat_map(|package| all(&package["targets"]));
    let programs = targets.filter(|target| all(&target["kind"]).contains(&"bin".into()));
    let names: Vec<_> = programs.filter_map(|target| target["name"].as_str().map(str::to_owned)).collect();
    if names != ["queue"] {
        wrong.push(format!("`cargo run` must mean `queue`, and the default members have {}", names.join(", ")));
    }
}

fn inherited_lints(package: &Value, wrong: &mut Vec<String>) {
    let manifest = package["manifest_path"].as_str().unwrap_or_default();
    let text = fs::read_to_string(manifest).unwrap_or_default();
    if !text.contains("[lints]\nworkspace = true") {
        wrong.push(format!("{manifest} does not inherit the workspace's lints"));
    }
}

fn core_is_pure(workspace: &Workspace, wrong: &mut Vec<String>) -> Result<()> {
    let mut tree = workspace.cargo("tree");
    tree.args(["--package", "queue-core", "--edges", "normal", "--prefix", "none", "--all-features", "--format={p}"]);
    for line in process::output(&mut tree)?.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        if IMPURE.contains(&name) {
            wrong.push(format!(
                "queue-core must not reach {name}\n    try: cargo tree -p queue-core -e normal -i {name}"
            ));
        }
    }
    Ok(())
}

fn pool_names_no_adapter(source: &Path, wrong: &mut Vec<String>) -> Result<()> {
    for path in super::sql::files(source, &["rs"])? {
        let inside = path.strip_prefix(source).unwrap_or(&path);
        let first = inside.iter().next().map(|part| part.to_string_lossy().into_owned()).unwrap_or_default();
        if first.split('.').next() == Some(COMPOSITION_ROOT) {
            continue;
        }
        let text = without_comments(&fs::read_to_string(&path)?);
        for (number, line) in text.lines().enumerate() {
            let named = ADAPTERS.iter().any(|adapter| line.contains(adapter));
            let re_export = inside == Path::new("lib.rs") && line.trim_start().starts_with("pub use ");
            if named && !re_export {
                wrong.push(format!("{}:{}: only connect.rs may name an adapter", path.display(), number + 1));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{one_program, package_arrows};

    fn wrong(package: &serde_json::Value) -> Vec<String> {
        let mut wrong = Vec::new();
        package_arrows(package, &mut wrong);
        wrong
    }

    #[test]
    fn an_arrow_outwards_is_refused_and_one_for_tests_is_not() {
        let package = json!({"name": "queue-mysql", "dependencies": [
            {"name": "queue-core", "path": "/w", "kind": null},
            {"name": "queue-testkit", "path": "/w", "kind": "dev"},
            {"name": "sqlx", "path": null, "kind": null},
        ]});
        assert_eq!(wrong(&package), Vec::<String>::new());
        let package =
            json!({"name": "queue-core", "dependencies": [{"name": "queue-mysql", "path": "/w", "kind": null}]});
        assert_eq!(wrong(&package), ["queue-core must not depend on queue-mysql"]);
    }

    #[test]
    fn the_runtime_has_adapters_behind_features_and_the_testkit_behind_testing() {
        let package = json!({"name": "queue-runtime",
            "dependencies": [{"name": "queue-mysql", "path": "/w", "kind": null, "optional": false}],
            "features": {"default": ["testing"], "testing": ["dep:queue-testkit"], "mysql": ["queue-testkit/x"]}});
        assert_eq!(
            wrong(&package),
            [
                "queue-runtime must have queue-mysql behind a feature",
                "queue-runtime's feature `default` must not turn on `testing`",
                "queue-runtime's feature `mysql` must not turn on `queue-testkit/x`",
            ]
        );
    }

    #[test]
    fn cargo_run_has_one_meaning() {
        let package = |id: &str, name: &str| json!({"id": id, "targets": [{"kind": ["bin"], "name": name}, {"kind": ["lib"], "name": "l"}]});
        let mut metadata =
            json!({"workspace_default_members": ["a"], "packages": [package("a", "queue"), package("b", "chaos")]});
        let mut wrong = Vec::new();
        one_program(&metadata, &mut wrong);
        assert_eq!(wrong, Vec::<String>::new());
        metadata["workspace_default_members"] = json!(["a", "b"]);
        one_program(&metadata, &mut wrong);
        assert_eq!(wrong, ["`cargo run` must mean `queue`, and the default members have queue, chaos"]);
    }

    #[test]
    fn a_crate_without_a_row_is_named() {
        assert_eq!(wrong(&json!({"name": "queue-new"})), ["queue-new has no row in xtask/src/lint/arrows.rs"]);
    }
}
