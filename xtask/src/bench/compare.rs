//! Two programs measured in turn. A ratio is that of two figures of one round: what slows the machine down slows both.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::tree::Tree;
use crate::process;

/// Figures that say what was measured, and not how well it did.
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
    "latency_rate_per_second",
];

/// The figures of one run, by name.
type Figures = BTreeMap<String, f64>;

/// The other commit's figures and this tree's, of one round.
type Round = [Figures; 2];

/// Runs both so often. `command` makes the command of the first or the second.
pub(super) fn measure(trees: [&Tree; 2], rounds: u32, command: impl Fn(usize) -> Command) -> Result<Vec<Round>> {
    let start = process::now();
    let mut measured = Vec::new();
    for round in 1..=rounds {
        // Who goes first changes, so that neither always finds the other's caches.
        let mut order = [0, 1];
        if round % 2 == 0 {
            order.reverse();
        }
        let mut figures = Round::default();
        for side in order {
            let label = &trees[side].label;
            figures[side] = run(&mut command(side)).with_context(|| format!("{label} cannot be measured"))?;
            println!("round {round} of {rounds}: {label} is done after {} s", start.elapsed().as_secs());
        }
        measured.push(figures);
    }
    Ok(measured)
}

fn run(command: &mut Command) -> Result<Figures> {
    let Value::Object(told) = serde_json::from_str(&process::output(command)?).context("the bench printed no JSON")?
    else {
        bail!("the bench printed no object");
    };
    let figures = told.into_iter().filter_map(|(name, figure)| Some((name, figure.as_f64()?)));
    Ok(figures.filter(|(name, _)| !SETTINGS.contains(&name.as_str())).collect())
}

/// Prints the table, and fails when a rate is below `least` of the other's.
pub(super) fn report(trees: [&Tree; 2], rounds: &[Round], least: Option<f64>) -> Result<()> {
    let comparisons = comparisons(rounds);
    if comparisons.is_empty() {
        bail!("the two have no figure in common");
    }
    let count = rounds.len();
    println!("\nmedians of {count} round{}:", if count == 1 { "" } else { "s" });
    println!("{:<36} {:>14} {:>14} {:>7}  lowest to highest", "", trees[0].label, trees[1].label, "ratio");
    for comparison in &comparisons {
        println!("{}", comparison.line());
    }
    match least {
        Some(least) => hold(&comparisons, least),
        None => Ok(()),
    }
}

/// What became of one figure.
#[derive(Debug, PartialEq)]
struct Comparison {
    name: String,
    then: f64,
    now: f64,
    /// Median, lowest and highest of the rounds; none where the other's figure was zero.
    ratio: Option<[f64; 3]>,
}

impl Comparison {
    fn line(&self) -> String {
        let Self { name, then, now, ratio } = self;
        let (then, now) = (shown(*then), shown(*now));
        let line = format!("{name:<36} {then:>14} {now:>14}");
        let Some([median, low, high]) = ratio else { return line };
        // One round, or chance, may well go up and down; all of them on one side of 1 says something.
        let word = match is_rate(name) {
            _ if *low <= 1.0 && *high >= 1.0 => "",
            is_rate if is_rate == (*low > 1.0) => "  better each time",
            _ => "  worse each time",
        };
        format!("{line} {median:>7.2}  {low:.2} to {high:.2}{word}")
    }
}

/// Whether more is better: so it is for what is done in a second, and for no cost.
fn is_rate(name: &str) -> bool {
    name.ends_with("_per_second") && (name.starts_with("enqueue") || name.starts_with("drain"))
}

/// One for each figure that both have in some round.
fn comparisons(rounds: &[Round]) -> Vec<Comparison> {
    let mut pairs: BTreeMap<&String, Vec<(f64, f64)>> = BTreeMap::new();
    for [then, now] in rounds {
        for (name, then) in then {
            if let Some(now) = now.get(name) {
                pairs.entry(name).or_default().push((*then, *now));
            }
        }
    }
    let compared = pairs.into_iter().filter_map(|(name, pairs)| {
        let (then, now): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        let ratios: Vec<_> = pairs.iter().filter(|(then, _)| *then != 0.0).map(|(then, now)| now / then).collect();
        let ratio = median(&ratios).map(|middle| {
            let fold = |pick: fn(f64, f64) -> f64| ratios.iter().copied().fold(middle, pick);
            [middle, fold(f64::min), fold(f64::max)]
        });
        Some(Comparison { name: name.clone(), then: median(&then)?, now: median(&now)?, ratio })
    });
    compared.collect()
}

fn hold(comparisons: &[Comparison], least: f64) -> Result<()> {
    let rates = comparisons.iter().filter(|comparison| is_rate(&comparison.name));
    let rates: Vec<_> = rates.filter_map(|one| Some((&one.name, one.ratio?[0]))).collect();
    if rates.is_empty() {
        bail!("no rate was measured, so --fail-below {least} has nothing to hold");
    }
    let low: Vec<_> = rates.iter().filter(|(_, ratio)| *ratio < least).collect();
    if !low.is_empty() {
        let words: Vec<_> = low.iter().map(|(name, ratio)| format!("{name} {ratio:.2}")).collect();
        bail!("below {least} of the other commit's: {}", words.join(", "));
    }
    println!("every rate is at least {least} of the other commit's");
    Ok(())
}

fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) })
}

fn shown(figure: f64) -> String {
    match figure.abs() {
        0.0 => "0".to_owned(),
        100.0.. => format!("{figure:.0}"),
        0.1.. => format!("{figure:.2}"),
        _ => format!("{figure:.5}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(name: &str, pairs: &[(f64, f64)]) -> Vec<Round> {
        let figures = |figure| Figures::from([(name.to_owned(), figure)]);
        pairs.iter().map(|(then, now)| [figures(*then), figures(*now)]).collect()
    }

    #[test]
    fn medians_are_of_odd_and_even_numbers() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 2.0]), median(&[])), (Some(2.0), Some(3.0), None));
    }

    #[test]
    fn a_ratio_is_that_of_a_round() {
        // The machine halves its speed in the middle: the medians say 1.00, the rounds do not.
        let compared = comparisons(&rounds("drain_per_second", &[(100.0, 90.0), (50.0, 45.0), (100.0, 90.0)]));
        let line = compared[0].line();
        assert!(line.ends_with(" 100          90.00    0.90  0.90 to 0.90  worse each time"), "{line}");
        assert_eq!(compared[0].ratio, Some([0.9, 0.9, 0.9]));
        let drifting = comparisons(&rounds("drain_per_second", &[(100.0, 110.0), (50.0, 45.0), (80.0, 80.0)]));
        assert_eq!(drifting[0].ratio, Some([1.0, 0.9, 1.1]));
        assert!(drifting[0].line().ends_with("1.00  0.90 to 1.10"), "{}", drifting[0].line());
    }

    #[test]
    fn less_of_a_cost_is_better() {
        let cost = |now| comparisons(&rounds("statements_per_task", &[(0.02, now)]))[0].line();
        assert!(cost(0.01).ends_with("0.50 to 0.50  better each time"), "{}", cost(0.01));
        assert!(cost(0.03).ends_with("1.50 to 1.50  worse each time"), "{}", cost(0.03));
        assert!(!is_rate("idle_statements_per_second") && is_rate("enqueue_single_per_second"));
    }

    #[test]
    fn what_only_one_of_them_has_or_what_was_zero_has_no_ratio() {
        let mut one_sided = rounds("retries", &[(0.0, 2.0)]);
        one_sided[0][1].insert("new".to_owned(), 1.0);
        let compared = comparisons(&one_sided);
        assert_eq!(compared.len(), 1);
        assert_eq!(compared[0].ratio, None);
        assert!(compared[0].line().ends_with("2.00"), "{}", compared[0].line());
    }

    #[test]
    fn a_rate_that_fell_too_far_fails_and_a_cost_does_not() {
        let mut slower = comparisons(&rounds("drain_per_second", &[(100.0, 80.0)]));
        slower.extend(comparisons(&rounds("latency_p50_ms", &[(10.0, 1.0)])));
        let error = hold(&slower, 0.9).unwrap_err().to_string();
        assert_eq!(error, "below 0.9 of the other commit's: drain_per_second 0.80");
        hold(&slower, 0.8).unwrap();
        assert!(hold(&slower[1..], 0.9).unwrap_err().to_string().contains("nothing to hold"));
    }
}
