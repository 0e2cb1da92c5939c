//! How many instructions the pure parts take (`benches/src/bin/counts`): the same on a busy machine as on a quiet one. They are
//! those of one compiler and one C library, so what is recorded holds where it was made with the same ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::tree::Tree;
use crate::process;
use crate::tools;
use crate::workspace::Workspace;

/// Where the counts are recorded.
const FILE: &str = "benches/counts.json";
/// By how much a count may grow, in percent. The same build counts the same; this is for what the compiler makes of an edit nearby.
const GROWTH_MAX_PERCENT: f64 = 1.0;
/// The function of the suite whose instructions count.
const COUNTED: &str = "--toggle-collect=*queue_counts*counted*";

/// Instructions a step, by case.
type Counts = BTreeMap<String, f64>;

/// Counts, and what they hold for.
#[derive(Debug, Clone, PartialEq)]
struct Recorded {
    made_with: String,
    counts: Counts,
}

/// Counts this tree's and fails when one takes more than was recorded.
pub(super) fn hold(workspace: &Workspace, here: &Tree) -> Result<()> {
    let now = count(workspace, here)?;
    let recorded = read(&workspace.root)?;
    let verdict = Verdict::of(&recorded.counts, &now, "recorded", "this tree");
    print!("{}", verdict.table);
    let made_with = made_with()?;
    if made_with != recorded.made_with {
        println!(
            "not held against what was recorded: that was with {}, and this is with {made_with}\n\
             try: cargo xtask bench --counts --compare COMMIT, which builds both here",
            recorded.made_with
        );
        return Ok(());
    }
    if !verdict.missing.is_empty() {
        bail!(
            "not in both the suite and {FILE}: {}\ntry: cargo xtask bench --counts --bless",
            verdict.missing.join(", ")
        );
    }
    if !verdict.grown.is_empty() {
        bail!(
            "over {GROWTH_MAX_PERCENT} % more instructions than recorded: {}\n\
             try: mend it or, when it is worth it, cargo xtask bench --counts --bless",
            verdict.grown.join(", ")
        );
    }
    println!("no count grew by more than {GROWTH_MAX_PERCENT} %");
    if !verdict.shrunk.is_empty() {
        println!(
            "fewer than recorded: {}; `cargo xtask bench --counts --bless` holds them there",
            verdict.shrunk.join(", ")
        );
    }
    Ok(())
}

/// Counts both trees' and fails when one of this tree's takes more.
pub(super) fn compare(workspace: &Workspace, before: &Tree, here: &Tree) -> Result<()> {
    let then = count(workspace, before)
        .with_context(|| format!("the suite of {} cannot be run (it may be older than the suite)", before.label))?;
    let now = count(workspace, here)?;
    let verdict = Verdict::of(&then, &now, &before.label, &here.label);
    print!("{}", verdict.table);
    if !verdict.grown.is_empty() {
        bail!("over {GROWTH_MAX_PERCENT} % more instructions than {}: {}", before.label, verdict.grown.join(", "));
    }
    println!("no count grew by more than {GROWTH_MAX_PERCENT} %");
    Ok(())
}

/// Records this tree's.
pub(super) fn bless(workspace: &Workspace, here: &Tree) -> Result<()> {
    let now = Recorded { made_with: made_with()?, counts: count(workspace, here)? };
    if let Ok(recorded) = read(&workspace.root) {
        print!("{}", Verdict::of(&recorded.counts, &now.counts, "recorded", "this tree").table);
    }
    fs::write(workspace.root.join(FILE), now.to_text()).with_context(|| format!("cannot write {FILE}"))?;
    println!("{FILE} is written");
    Ok(())
}

/// Runs each case once under valgrind.
fn count(workspace: &Workspace, tree: &Tree) -> Result<Counts> {
    let suite = tree.counts(workspace)?;
    let out = workspace.target.join("bench").join("callgrind.out");
    let cases = process::output(&mut Command::new(&suite))?;
    let mut counts = Counts::new();
    for line in cases.lines() {
        let (name, steps) = line.split_once(' ').with_context(|| format!("no case and its steps: {line}"))?;
        let steps: u64 = steps.parse().with_context(|| format!("no case and its steps: {line}"))?;
        let _ = fs::remove_file(&out); // of the case before
        let mut valgrind = tools::valgrind(workspace)?;
        valgrind.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out.display())).arg(COUNTED);
        process::output(valgrind.arg(&suite).arg(name))?;
        let told = fs::read_to_string(&out).with_context(|| format!("valgrind left no {}", out.display()))?;
        counts.insert(name.to_owned(), per_step(total(&told)?, steps));
    }
    Ok(counts)
}

/// The sum in what callgrind wrote.
fn total(told: &str) -> Result<u64> {
    let total = told.lines().find_map(|line| line.strip_prefix("totals:")).and_then(|total| total.trim().parse().ok());
    total.filter(|total| *total > 0).context("callgrind counted nothing: has the function `counted` another name?")
}

/// To a tenth of an instruction, so that the few that chance adds to millions are not seen.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn per_step(total: u64, steps: u64) -> f64 {
    (total as f64 * 10.0 / steps as f64).round() / 10.0
}

/// What decides over a count besides the code: rustc, the machine it builds for, and the C library, which allocates, and copies in
/// the way that suits the processor.
fn made_with() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let verbose = process::output(Command::new(rustc).arg("-vV"))?;
    let host = verbose.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not name its host")?;
    let libc = process::output(Command::new("getconf").arg("GNU_LIBC_VERSION"));
    let libc = libc.unwrap_or_else(|_| "another C library".to_owned());
    let told = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    Ok(format!("{}, {host}, {}, {}", verbose.lines().next().unwrap_or_default(), libc.trim(), processor(&told)))
}

/// The processor's name and numbers, as Linux tells of it.
fn processor(told: &str) -> String {
    let field = |name| {
        let mut fields = told.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(key, _)| key.trim() == name).map_or("?", |(_, value)| value.trim())
    };
    format!("{} {}/{}", field("model name"), field("cpu family"), field("model"))
}

fn read(root: &Path) -> Result<Recorded> {
    let text = fs::read_to_string(root.join(FILE));
    Recorded::from_text(
        &text.with_context(|| format!("cannot read {FILE}; `cargo xtask bench --counts --bless` writes it"))?,
    )
}

impl Recorded {
    fn from_text(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).with_context(|| format!("{FILE} is no JSON"))?;
        let made_with =
            value["made_with"].as_str().with_context(|| format!("{FILE} does not say what it was made with"))?;
        let counts = value["instructions_per_step"].as_object().with_context(|| format!("{FILE} has no counts"))?;
        let counts = counts.iter().map(|(name, count)| {
            Ok((name.clone(), count.as_f64().with_context(|| format!("{FILE}: {name} is no number"))?))
        });
        Ok(Self { made_with: made_with.to_owned(), counts: counts.collect::<Result<_>>()? })
    }

    fn to_text(&self) -> String {
        let value = json!({ "made_with": self.made_with, "instructions_per_step": self.counts });
        format!("{value:#}\n")
    }
}

/// What two sets of counts come to.
#[derive(Debug, Default)]
struct Verdict {
    table: String,
    grown: Vec<String>,
    shrunk: Vec<String>,
    /// In one of them only.
    missing: Vec<String>,
}

impl Verdict {
    fn of(then: &Counts, now: &Counts, then_label: &str, now_label: &str) -> Self {
        let mut verdict = Self {
            table: format!("\n{:<28} {then_label:>14} {now_label:>14} {:>8}\n", "instructions a step", "ratio"),
            ..Self::default()
        };
        let names: std::collections::BTreeSet<_> = then.keys().chain(now.keys()).collect();
        for name in names {
            let shown = |count: Option<&f64>| count.map_or_else(|| "–".to_owned(), |count| format!("{count:.1}"));
            let (before, after) = (then.get(name), now.get(name));
            verdict.table += &format!("{name:<28} {:>14} {:>14}", shown(before), shown(after));
            if let (Some(before), Some(after)) = (before, after) {
                let ratio = after / before;
                verdict.table += &format!(" {ratio:>8.3}\n");
                let growth = (ratio - 1.0) * 100.0;
                let told = || format!("{name} ({growth:+.1} %)");
                if growth > GROWTH_MAX_PERCENT {
                    verdict.grown.push(told());
                } else if growth < -GROWTH_MAX_PERCENT {
                    verdict.shrunk.push(told());
                }
            } else {
                verdict.table += "\n";
                verdict.missing.push(name.clone());
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(&str, f64)]) -> Counts {
        pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn the_sum_is_found_and_nothing_is_an_error() {
        assert_eq!(total("events: Ir\nfn=(1) x\n1 2\n\ntotals: 1234\n").unwrap(), 1_234);
        assert!(total("events: Ir\ntotals: 0\n").unwrap_err().to_string().contains("counted nothing"));
        assert!(total("").is_err());
        assert_eq!((per_step(16_212_398, 2_048), per_step(16_212_401, 2_048)), (7_916.2, 7_916.2));
    }

    #[test]
    fn what_grows_beyond_the_tolerance_is_named() {
        let then = counts(&[("a", 100.0), ("b", 100.0), ("c", 100.0), ("gone", 1.0)]);
        let now = counts(&[("a", 100.9), ("b", 101.2), ("c", 90.0), ("new", 1.0)]);
        let verdict = Verdict::of(&then, &now, "recorded", "this tree");
        assert_eq!((verdict.grown, verdict.shrunk), (vec!["b (+1.2 %)".to_owned()], vec!["c (-10.0 %)".to_owned()]));
        assert_eq!(verdict.missing, ["gone", "new"]);
        assert!(verdict.table.contains("1.012") && verdict.table.contains('–'), "{}", verdict.table);
    }

    #[test]
    fn a_processor_is_told_by_name_and_numbers() {
        let told =
            "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nmodel\t\t: 2\n";
        assert_eq!(processor(told), "AMD EPYC 25/1");
        assert_eq!(processor(""), "? ?/?");
    }

    #[test]
    fn the_record_reads_back() {
        let recorded = Recorded { made_with: "rustc 1".to_owned(), counts: counts(&[("b", 2.5), ("a", 1.0)]) };
        let text = recorded.to_text();
        assert_eq!(Recorded::from_text(&text).unwrap(), recorded);
        assert!(text.find("\"a\"") < text.find("\"b\""), "sorted, so that differences are small: {text}");
        assert!(Recorded::from_text("{}").is_err() && Recorded::from_text("x").is_err());
        assert!(Recorded::from_text(r#"{"made_with": "x", "instructions_per_step": {"a": "1"}}"#).is_err());
    }
}
