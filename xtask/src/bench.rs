//! `cargo xtask bench`: the bench of this tree, and beside it that of another commit. On a machine whose speed drifts, two
//! figures compare only when they were measured in turn, so what is told of two commits is ratios.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::process;
use crate::workspace::Workspace;

/// Figures that say what was measured, and not how fast it was.
const SETTINGS: &[&str] = &[
    "tasks",
    "payload_bytes",
    "concurrency",
    "types",
    "priorities",
    "queues",
    "processes",
    "backlog",
    "scheduled",
    "history",
];

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// Run the bench of this commit as well, in turn with this tree's, and print the ratios
    #[arg(long, value_name = "COMMIT")]
    compare: Option<String>,
    /// How often each is run
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// What `queue bench` is told: `-- --database-url URL --tasks N …`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    bench: Vec<String>,
}

/// The figures of several rounds, by name.
type Rounds = BTreeMap<String, Vec<f64>>;

pub(crate) fn run(workspace: &Workspace, args: &BenchArgs) -> Result<()> {
    let Some(commit) = &args.compare else {
        let queue = build(workspace, &workspace.root, "here")?;
        return process::run(Command::new(queue).arg("bench").args(&args.bench));
    };
    let _lock = workspace.lock("bench")?;
    let commit = resolve(workspace, commit)?;
    let tree = workspace.target.join("bench").join("tree");
    check_out(workspace, &tree, &commit)?;
    let (before, now) = (build(workspace, &tree, "before")?, build(workspace, &workspace.root, "here")?);
    let (mut then, mut here) = (Rounds::new(), Rounds::new());
    for round in 1..=args.rounds {
        println!("round {round} of {}", args.rounds);
        // Who goes first changes, so that neither always finds the other's caches.
        let mut pair = [(&before, &mut then), (&now, &mut here)];
        if round % 2 == 0 {
            pair.reverse();
        }
        for (queue, figures) in pair {
            measure(queue, &args.bench, figures)?;
        }
    }
    println!("{:<36} {:>14} {:>14} {:>8}", "median of each", &commit[..commit.len().min(12)], "this tree", "ratio");
    for line in table(&then, &here) {
        println!("{line}");
    }
    Ok(())
}

fn resolve(workspace: &Workspace, commit: &str) -> Result<String> {
    let mut git = Command::new("git");
    git.args(["rev-parse", "--verify", "--end-of-options", &format!("{commit}^{{commit}}")])
        .current_dir(&workspace.root);
    Ok(process::output(&mut git).with_context(|| format!("there is no commit {commit}"))?.trim().to_owned())
}

/// Brings the commit's files to `tree`, without touching anything that git tracks of this tree.
fn check_out(workspace: &Workspace, tree: &Path, commit: &str) -> Result<()> {
    if tree.exists() {
        fs::remove_dir_all(tree).with_context(|| format!("cannot remove {}", tree.display()))?;
    }
    fs::create_dir_all(tree)?;
    let archive = tree.join("tree.tar");
    let mut git = Command::new("git");
    git.args(["archive", "--format=tar", "--output"]).arg(&archive).arg(commit).current_dir(&workspace.root);
    process::run(&mut git)?;
    process::run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(tree))
}

/// Builds the command line of a tree, in a folder of its own so that the two do not push each other out. Returns the binary.
fn build(workspace: &Workspace, tree: &Path, name: &str) -> Result<PathBuf> {
    let target = workspace.target.join("bench").join(name);
    let mut cargo = workspace.cargo("build");
    cargo.args(["--release", "--quiet", "-p", "queue-cli", "--target-dir"]).arg(&target).current_dir(tree);
    process::run(&mut cargo)?;
    Ok(target.join("release").join("queue"))
}

fn measure(queue: &Path, args: &[String], figures: &mut Rounds) -> Result<()> {
    let printed = process::output(Command::new(queue).args(["--json", "bench"]).args(args))?;
    let Value::Object(told) = serde_json::from_str(&printed).context("the bench printed no JSON")? else {
        bail!("the bench printed no object");
    };
    for (name, figure) in told {
        if let Some(figure) = figure.as_f64().filter(|_| !SETTINGS.contains(&name.as_str())) {
            figures.entry(name).or_default().push(figure);
        }
    }
    Ok(())
}

/// A line for each figure that both have.
fn table(then: &Rounds, here: &Rounds) -> Vec<String> {
    let both = then.iter().filter_map(|(name, before)| Some((name, median(before)?, median(here.get(name)?)?)));
    both.map(|(name, before, now)| {
        let ratio = if before == 0.0 { String::new() } else { format!("{:.2}", now / before) };
        format!("{name:<36} {before:>14.2} {now:>14.2} {ratio:>8}")
    })
    .collect()
}

fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_make_the_ratio() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 2.0]), median(&[])), (Some(2.0), Some(3.0), None));
        let rounds = |figures: &[f64]| Rounds::from([("drain_per_second".to_owned(), figures.to_vec())]);
        let lines = table(&rounds(&[100.0, 90.0, 200.0]), &rounds(&[150.0, 160.0, 140.0]));
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("drain_per_second ") && lines[0].ends_with(" 1.50"), "{lines:?}");
        assert_eq!(table(&rounds(&[1.0]), &Rounds::new()), Vec::<String>::new());
    }
}
