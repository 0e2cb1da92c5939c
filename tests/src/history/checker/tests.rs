//! Each violation is found, and nobody is accused without reason.

use std::slice::from_ref;

use super::*;
use crate::history::event::{Answer, Event, How, Operation, To};
use crate::history::final_state::FinalTask;

const TASK: u64 = 7;
const LEASE: u64 = 1_000;

/// A history that is written line by line, at a time that each line gives.
#[derive(Default)]
struct Script {
    events: Vec<Event>,
}

impl Script {
    fn at(mut self, at: u64, process: u32, fact: Fact) -> Self {
        self.events.push(Event { at, process, fact });
        self
    }

    fn enqueued(self) -> Self {
        self.at(0, 0, Fact::Enqueuing { task: TASK, job: Some(1) }).at(0, 0, Fact::Enqueued { task: TASK })
    }

    fn opened(self, at: u64, session: u64) -> Self {
        let process = u32::try_from(session).unwrap();
        self.at(at, process, Fact::SessionOpened { session, lease_us: LEASE, since: at })
    }

    /// Claimed and started at once, by the process and in the session of this number. A claim is its fence times ten.
    fn run(self, at: u64, who: u32, fence: u32, attempt: u16) -> Self {
        self.claimed(at, who, fence, attempt).at(at, who, Fact::Started { task: TASK, fence, attempt, max_attempts: 3 })
    }

    fn claimed(self, at: u64, who: u32, fence: u32, attempt: u16) -> Self {
        let (claim, session) = (u64::from(fence) * 10, u64::from(who));
        self.at(at, who, Fact::Claimed { task: TASK, claim, session, fence, attempt, max_attempts: 3 })
    }

    fn ended(self, at: u64, who: u32, fence: u32, how: How) -> Self {
        self.at(at, who, Fact::Ended { task: TASK, fence, how })
    }

    fn sent(self, at: u64, who: u32, fence: u32, to: To) -> Self {
        let by_reaper = who == 9;
        self.at(at, who, Fact::Settling { task: TASK, claim: u64::from(fence) * 10, to, by_reaper })
    }

    fn settled(self, at: u64, who: u32, fence: u32, to: To, answer: Answer) -> Self {
        let (claim, by_reaper) = (u64::from(fence) * 10, who == 9);
        self.sent(at, who, fence, to).at(at, who, Fact::Settled { task: TASK, claim, to, by_reaper, since: at, answer })
    }

    fn succeeds(self, at: u64, who: u32, fence: u32) -> Self {
        self.ended(at, who, fence, How::Succeeded).settled(at, who, fence, To::Completed, Answer::Applied)
    }

    fn check(self, end: &[FinalTask]) -> Verdict {
        let end = FinalState { tasks: end.to_vec(), ghosts: Vec::new() };
        super::check(&History::new(self.events), &end)
    }

    fn finds(self, status: &str, attempt: u16) -> Vec<Violation> {
        self.check(&[stands(TASK, status, attempt)]).violations
    }
}

fn stands(id: u64, status: &str, attempt: u16) -> FinalTask {
    FinalTask {
        id,
        job: None,
        status: status.to_owned(),
        reason: None,
        attempt,
        max_attempts: 3,
        fence: 9,
        attempts: Vec::new(),
    }
}

fn begin() -> Script {
    Script::default().enqueued().opened(1, 1).opened(1, 2)
}

#[test]
fn a_life_without_trouble_is_good() {
    let life = begin()
        .run(10, 1, 1, 1)
        .ended(20, 1, 1, How::Errored)
        .settled(20, 1, 1, To::Retried, Answer::Applied)
        .run(30, 1, 2, 2)
        .ended(40, 1, 2, How::Snoozed)
        .settled(40, 1, 2, To::Snoozed, Answer::Already)
        .run(50, 2, 3, 2)
        .succeeds(60, 2, 3);
    let verdict = life.check(&[stands(TASK, "completed", 2)]);
    assert_eq!(verdict.violations, []);
    let tally = Tally { acknowledged: 1, starts: 3, reruns: 2, completed: 1, ..Tally::default() };
    assert_eq!((verdict.tally, verdict.is_good()), (tally, true));
    assert_eq!(
        verdict.tally.to_string(),
        "1 tasks acknowledged, 1 completed, 0 failed; 3 starts, 2 reruns explained, 0 runs recovered, 0 settlements stale"
    );
}

#[test]
fn what_was_acknowledged_must_end() {
    let lost = |status: Option<&str>| vec![Violation::Lost { task: TASK, status: status.map(str::to_owned) }];
    assert_eq!(begin().check(&[]).violations, lost(None));
    assert_eq!(begin().finds("queued", 0), lost(Some("queued")));
    assert_eq!(begin().run(10, 1, 1, 1).finds("running", 1), lost(Some("running")));
    assert_eq!(begin().finds("failed", 0), []);
    let unacknowledged = Script::default().at(0, 0, Fact::Enqueuing { task: TASK, job: Some(1) });
    assert_eq!(unacknowledged.check(&[]).violations, []);
    let deleted = begin().at(5, 0, Fact::Acting { task: TASK, operation: Operation::Delete });
    assert_eq!(deleted.check(&[]).violations, []);
    let undone = begin().run(10, 1, 1, 1).succeeds(20, 1, 1).finds("failed", 1);
    assert_eq!(undone, [Violation::Undone { task: TASK, status: Some("failed".to_owned()) }]);
}

#[test]
fn a_job_is_one_task() {
    let mut end = [stands(TASK, "completed", 0), stands(8, "completed", 0)];
    end[1].job = Some(1);
    let twice = Violation::EnqueuedTwice { job: 1, tasks: vec![TASK, 8] };
    assert_eq!(begin().check(&end).violations, [twice]);
}

#[test]
fn a_second_start_needs_a_reason() {
    let again = Violation::UnexplainedRerun { task: TASK, fences: (1, 2) };
    let run = || begin().run(10, 1, 1, 1);
    assert_eq!(run().run(20, 2, 2, 2).succeeds(30, 2, 2).finds("completed", 2), from_ref(&again));
    // A settlement that was refused explains nothing; one that was never answered may.
    let stale = run().ended(15, 1, 1, How::Errored).settled(15, 1, 1, To::Retried, Answer::Stale);
    assert_eq!(stale.run(20, 2, 2, 2).succeeds(30, 2, 2).finds("completed", 2), from_ref(&again));
    let unknown = run().ended(15, 1, 1, How::Errored).sent(15, 1, 1, To::Retried);
    assert_eq!(unknown.run(20, 2, 2, 2).succeeds(30, 2, 2).finds("completed", 2), []);
    // Nor does one that came after it.
    let late = run().run(20, 2, 2, 2).ended(25, 1, 1, How::Errored).sent(25, 1, 1, To::Retried);
    assert_eq!(late.succeeds(30, 2, 2).finds("completed", 2), from_ref(&again));
    // One that the store repeated by itself, and of which it only said that the repeat came too late, may explain it as well.
    let repeated = |at| {
        let sent = run().ended(15, 1, 1, How::Dropped).sent(at, 1, 1, To::Released).run(20, 2, 2, 1);
        let unclear = Fact::Settled {
            task: TASK,
            claim: 10,
            to: To::Released,
            by_reaper: false,
            since: at,
            answer: Answer::Unclear,
        };
        sent.at(25, 1, unclear).succeeds(30, 2, 2)
    };
    assert_eq!(repeated(15).finds("completed", 1), []);
    assert_eq!(repeated(22).finds("completed", 1), [again], "it was sent too late for that");
    let twice = run().at(12, 1, Fact::Started { task: TASK, fence: 1, attempt: 1, max_attempts: 3 });
    let same = Violation::UnexplainedRerun { task: TASK, fences: (1, 1) };
    assert_eq!(twice.succeeds(20, 1, 1).finds("completed", 1), [same]);
}

#[test]
fn nothing_is_held_or_completed_twice() {
    let held = begin().claimed(10, 1, 1, 1).run(20, 2, 2, 2).succeeds(30, 2, 2);
    assert_eq!(held.finds("completed", 2), [Violation::TwoClaims { task: TASK, fences: (1, 2) }]);
    let one_fence = begin().claimed(10, 1, 1, 1).at(
        11,
        2,
        Fact::Claimed { task: TASK, claim: 99, session: 2, fence: 1, attempt: 1, max_attempts: 3 },
    );
    assert_eq!(one_fence.finds("failed", 1), [Violation::TwoClaims { task: TASK, fences: (1, 1) }]);

    let twice = begin().run(10, 1, 1, 1).run(20, 2, 2, 2).succeeds(30, 1, 1).succeeds(40, 2, 2);
    assert_eq!(
        twice.finds("completed", 2),
        [
            Violation::Duplicated { task: TASK, fences: vec![1, 2] },
            Violation::UnexplainedRerun { task: TASK, fences: (1, 2) },
            Violation::StaleAccepted { task: TASK, fence: 1 },
        ]
    );
    let again = begin().run(10, 1, 1, 1).succeeds(20, 1, 1).settled(30, 1, 1, To::Completed, Answer::Applied);
    assert_eq!(again.finds("completed", 1), [Violation::StaleAccepted { task: TASK, fence: 1 }]);
    let repeated = begin().run(10, 1, 1, 1).succeeds(20, 1, 1).settled(30, 1, 1, To::Completed, Answer::Already);
    assert_eq!(repeated.finds("completed", 1), []);
    let both = begin().run(10, 1, 1, 1).succeeds(20, 1, 1).settled(30, 9, 1, To::Failed, Answer::Applied);
    assert_eq!(both.finds("completed", 1), [Violation::StaleAccepted { task: TASK, fence: 1 }]);
    let unearned = begin().run(10, 1, 1, 1).ended(20, 1, 1, How::Errored);
    let unearned = unearned.settled(20, 1, 1, To::Completed, Answer::Applied);
    assert_eq!(unearned.finds("completed", 1), [Violation::Unearned { task: TASK, fence: 1 }]);
}

#[test]
fn attempts_are_counted() {
    let wrong = |attempt| Violation::WrongAttempt { task: TASK, fence: 2, attempt, before: 1 };
    let second = |how, to, attempt| {
        let first = begin().run(10, 1, 1, 1).ended(20, 1, 1, how).settled(20, 1, 1, to, Answer::Applied);
        first.run(30, 1, 2, attempt).succeeds(40, 1, 2).finds("completed", attempt)
    };
    assert_eq!(second(How::Errored, To::Retried, 1), [wrong(1)]);
    assert_eq!(second(How::Dropped, To::Released, 2), [wrong(2)]);
    assert_eq!(second(How::Dropped, To::Released, 1), []);
    let over = Violation::OverLimit { task: TASK, attempt: 4, max_attempts: 3 };
    assert_eq!(second(How::Errored, To::Retried, 4), [over, wrong(4)]);
    assert_eq!(begin().finds("failed", 4), [Violation::OverLimit { task: TASK, attempt: 4, max_attempts: 3 }]);
    let mut early = stands(TASK, "failed", 2);
    early.reason = Some("crashed".to_owned());
    let given_up = Violation::GivenUpEarly { task: TASK, attempt: 2, max_attempts: 3 };
    assert_eq!(begin().check(&[early]).violations, [given_up]);
    // Nobody knows what the holds in between came to.
    let gap = begin().run(10, 1, 1, 1).run(90, 1, 4, 2).succeeds(95, 1, 4);
    assert_eq!(gap.finds("completed", 2), []);
    let reset = begin().run(10, 1, 1, 3).ended(20, 1, 1, How::Errored).settled(20, 1, 1, To::Failed, Answer::Applied);
    let reset = reset.at(25, 0, Fact::Acting { task: TASK, operation: Operation::Retry });
    assert_eq!(reset.run(30, 1, 2, 1).succeeds(40, 1, 2).finds("completed", 1), []);
}

#[test]
fn lost_work_was_lost_and_live_work_is_not_stolen() {
    // The session's lease is over at 1,001.
    let killed = || begin().run(10, 1, 1, 1).at(20, 1, Fact::ProcessKilled);
    let fence = |script: Script, at| script.at(at, 9, Fact::SessionFenced { session: 1 });
    let recovered = |script: Script, at| script.settled(at, 9, 1, To::Recovered, Answer::Applied);
    let rerun = |script: Script| script.opened(1_400, 2).run(1_500, 2, 2, 2).succeeds(1_600, 2, 2);

    let verdict = rerun(recovered(fence(killed(), 1_100), 1_200)).check(&[stands(TASK, "completed", 2)]);
    assert_eq!((verdict.violations, verdict.tally.recovered), (vec![], 1));

    let refunded = fence(killed(), 1_100).settled(1_200, 9, 1, To::Released, Answer::Applied);
    let refunded = refunded.opened(1_400, 2).run(1_500, 2, 2, 1).succeeds(1_600, 2, 2);
    let wrong = Violation::WrongAttempt { task: TASK, fence: 2, attempt: 1, before: 1 };
    assert_eq!(refunded.finds("completed", 1), [wrong]);

    let stolen = |task| Violation::LiveWorkStolen { session: 1, task };
    assert_eq!(rerun(recovered(fence(killed(), 700), 1_200)).finds("completed", 2), [stolen(None)]);
    let moved = killed().at(600, 0, Fact::ClockMoved { by_ms: 9 });
    assert_eq!(rerun(recovered(fence(moved, 700), 1_200)).finds("completed", 2), []);

    // Fenced before anybody claimed under it, gone, and opened again by its owner.
    let again = fence(killed(), 1_100).at(1_150, 1, Fact::SessionOpened { session: 1, lease_us: LEASE, since: 1_120 });
    assert_eq!(rerun(recovered(again, 1_200)).finds("completed", 2), []);

    // Taken for lost without being fenced: it is renewed afterwards, and its handler goes on beside the other one.
    let alive = recovered(begin().run(10, 1, 1, 1), 400).at(410, 1, Fact::Renewed { session: 1, since: 405 });
    let alive = alive.run(500, 2, 2, 2).succeeds(600, 2, 2).ended(700, 1, 1, How::Succeeded);
    let overlap = Violation::Overlap { task: TASK, fences: (1, 2) };
    assert_eq!(alive.finds("completed", 2), [overlap.clone(), stolen(Some(TASK))]);

    // A handler that does not stop when its session is gone, unless it slept meanwhile.
    let runs_on = |script: Script| {
        rerun(recovered(fence(script.run(10, 1, 1, 1), 1_100), 1_200)).ended(2_500, 1, 1, How::Succeeded)
    };
    let ran_on = Violation::RanOn { task: TASK, fence: 1, session: 1 };
    assert_eq!(runs_on(begin()).finds("completed", 2), [overlap, ran_on]);
    let frozen = begin().at(5, 1, Fact::ProcessFrozen).at(2_400, 1, Fact::ProcessThawed);
    assert_eq!(runs_on(frozen).finds("completed", 2), []);
}

#[test]
fn without_notes_of_settlements_handlers_and_kills_must_do() {
    let start = |script: Script, at, who, fence, attempt| {
        script.at(at, who, Fact::Started { task: TASK, fence, attempt, max_attempts: 3 })
    };
    let run = || start(begin(), 10, 1, 1, 1);
    let again = |script, attempt| start(script, 30, 2, 2, attempt).ended(40, 2, 2, How::Succeeded);
    let unexplained = Violation::UnexplainedRerun { task: TASK, fences: (1, 2) };
    assert_eq!(again(run(), 2).finds("completed", 2), [unexplained]);
    assert_eq!(again(run().at(20, 1, Fact::ProcessKilled), 2).finds("completed", 2), []);
    assert_eq!(again(run().ended(20, 1, 1, How::Errored), 2).finds("completed", 2), []);
    assert_eq!(again(run().ended(20, 1, 1, How::Snoozed), 1).finds("completed", 1), []);
    let wrong = Violation::WrongAttempt { task: TASK, fence: 2, attempt: 2, before: 1 };
    assert_eq!(again(run().ended(20, 1, 1, How::Snoozed), 2).finds("completed", 2), [wrong]);
    let mut told = stands(TASK, "completed", 2);
    told.attempts.push((1, "retried".to_owned()));
    assert_eq!(again(run(), 2).check(&[told]).violations, []);
}

#[test]
fn ghosts_are_told_as_they_are() {
    let end = FinalState { ghosts: vec!["task 3 is queued and not ready".to_owned()], ..FinalState::default() };
    let verdict = super::check(&History::default(), &end);
    assert_eq!(verdict.violations, [Violation::Ghost("task 3 is queued and not ready".to_owned())]);
    assert_eq!(verdict.violations[0].tasks(), [0_u64; 0]);
    assert_eq!(Violation::Lost { task: 4, status: None }.tasks(), [4]);
}
