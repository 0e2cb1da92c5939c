//! Tells other processes what may be due, where the store has a way for that: beside the enqueue, never before it or instead of it.
//!
//! One announcement is under way at a time; what comes in meanwhile gathers into one more. Nobody waits for it and nothing fails
//! by it. How often announcements are made is the channel's affair.

use std::mem;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use queue_core::{Clock, Due, Enqueued, NewTask, Start, TaskSpec, WakeChannel};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::lock::lock;

/// How long the end of an announcement is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who announces.
#[derive(Debug)]
pub(crate) struct Herald {
    channel: Option<Arc<dyn WakeChannel>>,
    clock: Arc<dyn Clock>,
    news: Mutex<News>,
    /// Fires when nothing is left to be announced.
    silent: Notify,
}

#[derive(Debug, Default)]
struct News {
    /// What the next announcement says.
    due: Due,
    /// Whether one is being made.
    announcing: bool,
    /// Whether a flight is there that will make the next.
    flying: bool,
    /// What was written in transactions of the user's, of which only the user knows when they are committed.
    uncommitted: Due,
}

impl Herald {
    pub(crate) fn new(channel: Option<Arc<dyn WakeChannel>>, clock: Arc<dyn Clock>) -> Self {
        Self { channel, clock, news: Mutex::default(), silent: Notify::new() }
    }

    /// What wakes this process's pools from afar.
    pub(crate) const fn channel(&self) -> Option<&Arc<dyn WakeChannel>> {
        self.channel.as_ref()
    }

    /// Tasks were written, and committed.
    pub(crate) fn written(self: &Arc<Self>, batch: &[NewTask], answers: &[Enqueued]) {
        if self.channel.is_some() {
            self.announce(due_now(batch, answers));
        }
    }

    /// Tasks were written in a transaction that is still open.
    pub(crate) fn written_within(&self, batch: &[NewTask], answers: &[Enqueued]) {
        if self.channel.is_some() {
            self.news().uncommitted.merge(due_now(batch, answers));
        }
    }

    /// A transaction of the user's was committed: one of those written in, or another one.
    pub(crate) fn committed(self: &Arc<Self>) {
        let due = mem::take(&mut self.news().uncommitted);
        self.announce(if due.is_nothing() { Due::anything() } else { due });
    }

    /// Announces what is due as soon as may be.
    pub(crate) fn announce(self: &Arc<Self>, due: Due) {
        let Some(channel) = self.channel.as_ref().filter(|_| !due.is_nothing()) else { return };
        // Outside a runtime there is nobody to do it.
        let Ok(runtime) = Handle::try_current() else { return };
        let leaves = {
            let mut news = self.news();
            news.due.merge(due);
            !mem::replace(&mut news.flying, true)
        };
        if leaves {
            runtime.spawn(Flight { herald: Arc::clone(self), landed: false }.fly(Arc::clone(channel)));
        }
    }

    /// Waits until all that is known now has been announced; a second at most.
    pub(crate) async fn silence(&self) {
        let silence = async {
            loop {
                let mut silent = pin!(self.silent.notified());
                silent.as_mut().enable();
                if self.news().is_silent() {
                    return;
                }
                silent.await;
            }
        };
        tokio::select! {
            biased;
            () = silence => {}
            () = self.clock.sleep(PATIENCE) => {}
        }
    }

    fn news(&self) -> MutexGuard<'_, News> {
        lock(&self.news)
    }
}

impl News {
    fn is_silent(&self) -> bool {
        !self.flying || (self.due.is_nothing() && !self.announcing)
    }
}

/// Announcements, one after another. Dropped before its time, with the runtime, it leaves the way free for the next.
struct Flight {
    herald: Arc<Herald>,
    landed: bool,
}

impl Flight {
    async fn fly(mut self, channel: Arc<dyn WakeChannel>) {
        while let Some(due) = self.next() {
            let pause = channel.announce(&due).await;
            self.herald.news().announcing = false;
            self.herald.silent.notify_waiters();
            self.herald.clock.sleep(pause).await;
        }
    }

    /// What to announce next; the flight is over when that is nothing.
    fn next(&mut self) -> Option<Due> {
        let mut news = self.herald.news();
        let due = mem::take(&mut news.due);
        let more = !due.is_nothing();
        (news.announcing, news.flying, self.landed) = (more, more, !more);
        more.then_some(due)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.landed {
            let mut news = self.herald.news();
            (news.announcing, news.flying) = (false, false);
        }
        self.herald.silent.notify_waiters();
    }
}

/// Of a batch, what is new and may be due at once. Whether a point in time is past, only the store knows.
fn due_now(batch: &[NewTask], answers: &[Enqueued]) -> Due {
    let mut due = Due::default();
    for (task, answer) in batch.iter().zip(answers) {
        let TaskSpec { queue, task_type, start, .. } = &task.spec;
        let later = matches!(start, Start::After(delay) if !delay.is_zero());
        if matches!(answer, Enqueued::Created(_)) && !later {
            due.add(queue, task_type);
        }
    }
    due
}
