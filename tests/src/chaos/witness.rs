//! What nobody took notes of and yet is known: `queue work` keeps no journal. That it reaped is told by the tables, that it
//! killed its program by the program's silence.

use std::collections::BTreeMap;

use crate::history::{Answer, Event, Fact, FinalTask, History, How, To};

/// Letters of one claim that settle its task as *tried again*, or that might have.
#[derive(Debug, Default)]
struct Letters {
    sent: usize,
    first_sent: u64,
    answered: usize,
    may_be_written: bool,
}

/// The settlements by reapers without a journal, as far as failed attempts tell of them: each such attempt left a row, and no
/// process that takes notes wrote it.
pub(super) fn unrecorded(history: &History, tasks: &[FinalTask]) -> Vec<Event> {
    let mut claims = BTreeMap::<(u64, u32), u64>::new();
    let mut known_at = BTreeMap::<(u64, u32), u64>::new();
    let mut letters = BTreeMap::<(u64, u64), Letters>::new();
    for Event { at, fact, .. } in history.events() {
        match *fact {
            Fact::Claimed { task, claim, fence, .. } => {
                claims.insert((task, fence), claim);
                known_at.entry((task, fence)).or_insert(*at);
            }
            Fact::Started { task, fence, .. } => {
                known_at.entry((task, fence)).or_insert(*at);
            }
            Fact::Settling { task, claim, to, .. } if spends(to) => {
                let letters = letters.entry((task, claim)).or_insert(Letters { first_sent: *at, ..Letters::default() });
                letters.sent += 1;
            }
            Fact::Settled { task, claim, to, answer, .. } if spends(to) => {
                let letters = letters.entry((task, claim)).or_default();
                letters.answered += 1;
                letters.may_be_written |= answer != Answer::Stale;
            }
            _ => {}
        }
    }
    let over_at = history.events().last().map_or(0, |event| event.at);
    let mut found = Vec::new();
    for (task, fence) in tasks
        .iter()
        .flat_map(|task| task.attempts.iter().filter(|(_, how)| how == "retried").map(|row| (task.id, row.0)))
    {
        let Some(&claim) = claims.get(&(task, fence)) else { continue };
        // Not later than this: the task was claimed again.
        let next = known_at.range((task, fence + 1)..(task + 1, 0)).map(|(_, at)| *at).next().unwrap_or(over_at);
        let in_time = letters.get(&(task, claim)).filter(|one| one.first_sent <= next);
        let told = in_time.is_some_and(|one| one.may_be_written || one.sent > one.answered);
        if !told {
            let at = next.saturating_sub(1);
            let (to, by_reaper) = (To::Recovered, true);
            found.push(Event { at, process: 0, fact: Fact::Settling { task, claim, to, by_reaper } });
            let answer = Answer::Applied;
            found.push(Event { at, process: 0, fact: Fact::Settled { task, claim, to, by_reaper, since: at, answer } });
        }
    }
    found
}

/// The ends of programs that `queue work` killed, because it stopped, lost its lease or died: one that lives says how it ends.
pub(super) fn killed(events: &[Event]) -> Vec<Event> {
    let mut open = BTreeMap::<(u64, u32), Event>::new();
    let mut found = Vec::new();
    for event in events {
        match event.fact {
            Fact::Started { task, fence, .. } => {
                open.insert((task, fence), event.clone());
                // Whatever ran before was dead when the task was given to another.
                for (&(_, before), started) in open.range((task, 0)..(task, fence)) {
                    let fact = Fact::Ended { task, fence: before, how: How::Dropped };
                    found.push(Event {
                        at: event.at.saturating_sub(1).max(started.at),
                        process: started.process,
                        fact,
                    });
                }
                open.retain(|&(other, before), _| other != task || before == fence);
            }
            // It may be told after the next start: then it was not dead, and nothing may be made up.
            Fact::Ended { task, fence, .. } => {
                open.remove(&(task, fence));
                found.retain(
                    |one| !matches!(one.fact, Fact::Ended { task: t, fence: f, .. } if (t, f) == (task, fence)),
                );
            }
            _ => {}
        }
    }
    found
}

const fn spends(to: To) -> bool {
    to.requeues() && !to.refunds()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(at: u64, claim: u64, fence: u32) -> Event {
        let fact = Fact::Claimed { task: 5, claim, session: 1, fence, attempt: 1, max_attempts: 3 };
        Event { at, process: 1, fact }
    }

    fn sent(at: u64, to: To) -> Event {
        Event { at, process: 1, fact: Fact::Settling { task: 5, claim: 70, to, by_reaper: false } }
    }

    fn found(letters: &[Event]) -> Vec<Event> {
        let events = [claimed(10, 70, 1), claimed(30, 71, 2)].into_iter().chain(letters.iter().cloned());
        let task = FinalTask {
            id: 5,
            job: None,
            status: "completed".to_owned(),
            reason: None,
            attempt: 2,
            max_attempts: 3,
            fence: 2,
            attempts: vec![(1, "retried".to_owned())],
        };
        unrecorded(&History::new(events), &[task])
    }

    #[test]
    fn a_failed_attempt_that_nobody_noted_was_a_reapers() {
        let found = found(&[sent(20, To::Released)]);
        assert_eq!(found.iter().map(|event| event.at).collect::<Vec<_>>(), [29, 29]);
        assert!(matches!(found[1].fact, Fact::Settled { claim: 70, to: To::Recovered, by_reaper: true, .. }));
    }

    #[test]
    fn a_program_that_says_nothing_before_the_next_start_was_killed() {
        let started = |at, process, fence| {
            let fact = Fact::Started { task: 5, fence, attempt: 1, max_attempts: 3 };
            Event { at, process, fact }
        };
        let ended = |at, fence| Event { at, process: 1, fact: Fact::Ended { task: 5, fence, how: How::Succeeded } };
        let silent = [started(10, 1, 1), started(20, 2, 2), ended(30, 2)];
        let dropped = Fact::Ended { task: 5, fence: 1, how: How::Dropped };
        assert_eq!(killed(&silent), [Event { at: 19, process: 1, fact: dropped }]);
        assert_eq!(killed(&[started(10, 1, 1), ended(15, 1), started(20, 2, 2)]), []);
        assert_eq!(killed(&[started(10, 1, 1), started(20, 2, 2), ended(25, 1)]), [], "it lived, and ran on");
    }

    #[test]
    fn one_that_was_noted_is_not_made_up_again() {
        assert_eq!(found(&[sent(20, To::Retried)]), [], "unanswered, so it may have been written");
        let to = To::Retried;
        let answered = |answer| Fact::Settled { task: 5, claim: 70, to, by_reaper: false, since: 20, answer };
        let event = |answer| Event { at: 25, process: 1, fact: answered(answer) };
        assert_eq!(found(&[sent(20, to), event(Answer::Applied)]), []);
        assert_eq!(
            found(&[sent(20, to), event(Answer::Unclear)]),
            [],
            "a try before the last one may have been written"
        );
        assert_eq!(found(&[sent(20, to), event(Answer::Stale)]).len(), 2);
        assert_eq!(found(&[sent(40, to)]).len(), 2, "the task had been claimed again when it was sent");
    }
}
