//! Whether a history kept the promises.

use std::collections::BTreeMap;

use queue_core::Status;

use super::chain::{Chain, Known};
use super::event::Fact;
use super::final_state::FinalState;
use super::journal::History;
use super::sessions::Sessions;
use super::verdict::{Tally, Verdict, Violation};

/// Checks a history against how everything stands after it.
pub fn check(history: &History, end: &FinalState) -> Verdict {
    let events = history.events();
    let mut chains = BTreeMap::<u64, Chain>::new();
    for event in events {
        if let Some(task) = event.fact.task() {
            chains.entry(task).or_default().take(event);
        }
    }
    let known = Known {
        sessions: Sessions::of(events),
        settlements: events.iter().any(|event| matches!(event.fact, Fact::Settling { .. })),
        ends: events.iter().any(|event| matches!(event.fact, Fact::Ended { .. })),
        over_at: events.last().map_or(0, |event| event.at),
    };
    let ends = end.tasks.iter().map(|task| (task.id, task)).collect::<BTreeMap<_, _>>();

    let mut violations = known.sessions.stolen();
    let mut tally = Tally::default();
    for (task, chain) in &chains {
        chain.check(*task, ends.get(task).copied(), &known, &mut violations);
        chain.count(&mut tally);
    }
    for task in &end.tasks {
        match Status::from_name(&task.status) {
            Some(Status::Completed) => tally.completed += 1,
            Some(Status::Failed) => tally.failed += 1,
            Some(Status::Queued | Status::Running) | None => {}
        }
    }
    enqueued_twice(&chains, end, &mut violations);
    violations.extend(end.ghosts.iter().cloned().map(Violation::Ghost));
    violations.sort();
    violations.dedup();
    Verdict { violations, tally }
}

/// Whether a job became several tasks, by what the store holds of it, or by what was sent under an id that it holds.
fn enqueued_twice(chains: &BTreeMap<u64, Chain>, end: &FinalState, violations: &mut Vec<Violation>) {
    let mut tasks_of = BTreeMap::<u64, Vec<u64>>::new();
    for task in &end.tasks {
        let sent = chains.get(&task.id).and_then(|chain| chain.jobs().next());
        if let Some(job) = task.job.or(sent) {
            tasks_of.entry(job).or_default().push(task.id);
        }
    }
    for (job, tasks) in tasks_of {
        if tasks.len() > 1 {
            violations.push(Violation::EnqueuedTwice { job, tasks });
        }
    }
}

#[cfg(test)]
mod tests;
