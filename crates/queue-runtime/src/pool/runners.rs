//! Who runs handlers: futures that stay and take one job after the other, so that what a run needs room for is made once and not
//! for each. There are as many as handlers ever ran at once.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use tokio::sync::Notify;

use super::executor::{Executor, Job};
use crate::lock::lock;

/// The runners of one pool. They end with it, each as soon as the handler has ended that it runs.
#[derive(Debug)]
pub(crate) struct Runners {
    executor: Arc<Executor>,
    inboxes: Vec<Arc<Inbox>>,
    /// Those that have nothing to do; the last one that ran is the first to run again.
    idle: Vec<usize>,
    /// Which one runs the job of a slot.
    of_slot: Vec<Option<usize>>,
}

impl Runners {
    pub(crate) const fn new(executor: Arc<Executor>) -> Self {
        Self { executor, inboxes: Vec::new(), idle: Vec::new(), of_slot: Vec::new() }
    }

    /// Starts a run. The one before it in its slot must have been [released](Self::release).
    pub(crate) fn start(&mut self, job: Job) {
        let slot = job.slot;
        let runner = self.idle.pop().unwrap_or_else(|| self.add());
        if self.of_slot.len() <= slot {
            self.of_slot.resize(slot + 1, None);
        }
        self.of_slot[slot] = Some(runner);
        self.inboxes[runner].put(Mail::Job(job));
    }

    /// The run in this slot is over: its runner may take another.
    pub(crate) fn release(&mut self, slot: usize) {
        self.idle.extend(self.of_slot.get_mut(slot).and_then(Option::take));
    }

    fn add(&mut self) -> usize {
        let inbox = Arc::new(Inbox::default());
        let runner = work(Arc::clone(&self.executor), Arc::clone(&inbox));
        self.executor.config.spawn.spawn("runner", Box::pin(runner));
        self.inboxes.push(inbox);
        self.inboxes.len() - 1
    }
}

/// What has not begun does not begin any more.
impl Drop for Runners {
    fn drop(&mut self) {
        self.inboxes.iter().for_each(|inbox| inbox.put(Mail::Over));
    }
}

async fn work(executor: Arc<Executor>, inbox: Arc<Inbox>) {
    while let Some(job) = inbox.next().await {
        // What handlers panic with never comes here. A subscriber of spans may panic as well, and costs no job but this one.
        let _ = AssertUnwindSafe(executor.run(job)).catch_unwind().await;
    }
}

/// What a runner is told.
#[derive(Debug, Default)]
enum Mail {
    #[default]
    Nothing,
    Job(Job),
    /// Nothing will come any more.
    Over,
}

/// Where a runner is told what to do next.
#[derive(Debug, Default)]
struct Inbox {
    mail: Mutex<Mail>,
    filled: Notify,
}

impl Inbox {
    fn put(&self, mail: Mail) {
        // A job that never began is dropped after the lock, not under it.
        let before = std::mem::replace(&mut *lock(&self.mail), mail);
        drop(before);
        self.filled.notify_one();
    }

    /// The next job; `None` when none will come.
    async fn next(&self) -> Option<Job> {
        loop {
            let mail = std::mem::take(&mut *lock(&self.mail));
            match mail {
                Mail::Nothing => self.filled.notified().await,
                Mail::Job(job) => return Some(job),
                Mail::Over => return None,
            }
        }
    }
}
