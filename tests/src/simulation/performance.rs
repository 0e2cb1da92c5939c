//! What handlers do in the simulation.

use std::panic::resume_unwind;
use std::time::Duration;

use queue_core::{NewTask, Payload, TaskResult};
use queue_runtime::{Ctx, Result, TaskError};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::plan::{Act, JobPlan};
use super::process::Body;
use super::world::Message;
use crate::history::{How, Journal};

/// What a task works on.
#[derive(Debug, Serialize, Deserialize)]
struct Work {
    job: u64,
    acts: Vec<Act>,
}

/// What a task of this job works on.
pub(super) fn payload(job: &JobPlan) -> Payload {
    let work = Work { job: job.number, acts: job.acts.clone() };
    Payload::json(serde_json::to_vec(&work).expect("acts are JSON"))
}

/// The job of a task.
pub(super) fn job(task: &NewTask) -> Option<u64> {
    serde_json::from_slice::<Work>(task.spec.payload.body()).ok().map(|work| work.job)
}

/// Where handlers of one process run.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) body: Body,
    pub(super) journal: Journal,
    pub(super) process: u32,
    pub(super) tell: mpsc::UnboundedSender<Message>,
}

/// Notes that a handler was dropped, unless something else was noted before.
struct Performance<'a> {
    cx: &'a Ctx<Stage>,
    noted: bool,
}

impl Performance<'_> {
    fn note(&mut self, how: How) {
        // A process that is gone notes nothing.
        if !std::mem::replace(&mut self.noted, true) && !self.cx.state().body.is_dead() {
            self.cx.state().journal.ended(self.cx, how);
        }
    }
}

impl Drop for Performance<'_> {
    fn drop(&mut self) {
        self.note(How::Dropped);
    }
}

/// The handler of every type.
pub(super) async fn perform(payload: Payload, cx: Ctx<Stage>) -> Result<TaskResult> {
    let work = serde_json::from_slice::<Work>(payload.body()).map_err(|_| TaskError::reject("not a job"))?;
    let mut performance = Performance { cx: &cx, noted: false };
    cx.state().journal.started(&cx);
    // Each claim is another run, whatever became of the one before.
    let run = usize::try_from(cx.fence().get()).unwrap_or(usize::MAX).saturating_sub(1);
    let act = match (work.acts.get(run), work.acts.last()) {
        (Some(act), _) => *act,
        // Whoever snoozes for ever never ends.
        (None, Some(Act::Snooze { .. }) | None) => Act::Succeed { ms: 1 },
        (None, Some(last)) => *last,
    };
    let result = play(act, &cx, &mut performance).await;
    performance.note(match &result {
        Ok(_) => How::Succeeded,
        Err(error) if error.snoozed_for().is_some() => How::Snoozed,
        Err(_) => How::Errored,
    });
    result
}

async fn play(act: Act, cx: &Ctx<Stage>, performance: &mut Performance<'_>) -> Result<TaskResult> {
    match act {
        Act::Succeed { ms } => sleep(Duration::from_millis(ms)).await,
        Act::Fail { ms } => {
            sleep(Duration::from_millis(ms)).await;
            return Err(TaskError::retry("failed as planned"));
        }
        Act::Reject { ms } => {
            sleep(Duration::from_millis(ms)).await;
            return cx.reject("rejected as planned");
        }
        Act::Panic { ms } => {
            sleep(Duration::from_millis(ms)).await;
            performance.note(How::Panicked);
            // Past the panic hook, which would print each of them.
            resume_unwind(Box::new("panicked as planned"));
        }
        Act::Snooze { ms, for_ms } => {
            sleep(Duration::from_millis(ms)).await;
            return cx.snooze(Duration::from_millis(for_ms));
        }
        Act::Progress { steps, ms } => {
            for step in 1..=steps {
                sleep(Duration::from_millis(ms)).await;
                cx.progress(u8::try_from(100 * step / steps).unwrap_or(100), "step by step");
            }
        }
        Act::Hang => std::future::pending().await,
        Act::Polite => {
            cx.cancelled().await;
            return Err(TaskError::retry("told to stop"));
        }
        Act::Stubborn { ms } => {
            cx.cancelled().await;
            sleep(Duration::from_millis(ms)).await;
        }
        Act::Crash { ms } => {
            sleep(Duration::from_millis(ms)).await;
            // The world kills the process: what stands for it cannot drop itself.
            let _ = cx.state().tell.send(Message::Crash { process: cx.state().process });
            std::future::pending().await
        }
    }
    Ok(TaskResult::None)
}
