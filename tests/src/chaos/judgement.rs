//! What the notes of all processes and the tables come to.

use std::collections::BTreeSet;

use super::tables::Tables;
use super::witness::{killed, unrecorded};
use super::work::{Kind, REFUSED};
use crate::history::{Event, Fact, FinalState, History, Verdict, check};

/// How much is shown of the history of tasks that went wrong, in bytes.
const EVIDENCE_MAX: usize = 30_000;
/// How much is shown of what was before and after, in microseconds.
const AROUND_US: u64 = 5_000_000;

/// The verdict on the tasks of worker processes of ours, which take notes of all that they ask of the store, and that on the
/// tasks of `queue work`, which does not.
pub(super) fn judge(history: &History, tables: &Tables) -> (Verdict, Verdict) {
    let is_exec = |task: &u64| tables.works.get(task).is_some_and(|work| work.kind == Kind::Exec);
    let (exec, native): (Vec<_>, Vec<_>) = tables.tasks.iter().cloned().partition(|task| is_exec(&task.id));
    let of_native = history.events().iter().filter(|event| event.fact.task().is_none_or(|task| !is_exec(&task)));
    let of_exec: Vec<_> = history
        .events()
        .iter()
        .filter(|event| match event.fact {
            // Those of reapers: of the holders' nothing is known.
            Fact::Settling { .. } | Fact::Settled { .. } => false,
            _ => event.fact.task().is_none_or(|task| is_exec(&task)),
        })
        .cloned()
        .collect();
    let dead = killed(&of_exec);
    let (native, exec) =
        (FinalState { tasks: native, ghosts: tables.ghosts.clone() }, FinalState { tasks: exec, ghosts: Vec::new() });
    let of_native = of_native.cloned().chain(unrecorded(history, &native.tasks));
    (check(&History::new(of_native), &native), check(&History::new(of_exec.into_iter().chain(dead)), &exec))
}

/// The numbers of tasks whose producers were told that nothing was written.
pub(super) fn refused(history: &History) -> BTreeSet<u64> {
    let told = history.events().iter().filter_map(|event| match &event.fact {
        Fact::Note { text } => text.strip_prefix(REFUSED)?.parse().ok(),
        _ => None,
    });
    told.collect()
}

/// What happened to these tasks, and around them.
pub(super) fn evidence(history: &History, tasks: &BTreeSet<u64>) -> String {
    if tasks.is_empty() {
        return String::new();
    }
    let is_theirs = |event: &&Event| event.fact.task().is_some_and(|task| tasks.contains(&task));
    let processes: BTreeSet<_> = history.events().iter().filter(is_theirs).map(|event| event.process).collect();
    let times = || history.events().iter().filter(is_theirs).map(|event| event.at);
    let (from, until) = (times().min().unwrap_or(0).saturating_sub(AROUND_US), times().max().unwrap_or(0) + AROUND_US);
    let tells = |event: &&Event| match &event.fact {
        _ if !(from..=until).contains(&event.at) => false,
        Fact::Note { text } => !text.starts_with(REFUSED),
        Fact::Renewed { .. } => false,
        Fact::ClockMoved { .. } | Fact::SessionFenced { .. } => true,
        fact => fact.task().map_or_else(|| processes.contains(&event.process), |task| tasks.contains(&task)),
    };
    let mut text = History::new(history.events().iter().filter(tells).cloned()).text(None);
    text.truncate(text.floor_char_boundary(EVIDENCE_MAX));
    format!("\nthe history of tasks {tasks:?}:\n{text}")
}
