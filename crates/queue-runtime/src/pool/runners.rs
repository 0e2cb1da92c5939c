//! Who runs handlers: each slot has a runner, a future that is there from the slot's first task on and takes one job after the
//! other, so that what a run needs room for is made once and not for each.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::executor::{Executor, Job};

/// The runners of one pool. They end with it, each as soon as the handler has ended that it runs.
#[derive(Debug)]
pub(crate) struct Runners {
    executor: Arc<Executor>,
    /// By slot.
    inboxes: Vec<Arc<Inbox>>,
}

impl Runners {
    pub(crate) const fn new(executor: Arc<Executor>) -> Self {
        Self { executor, inboxes: Vec::new() }
    }

    /// Starts a run; the last one in its slot is over.
    pub(crate) fn start(&mut self, job: Job) {
        let slot = job.slot;
        while self.inboxes.len() <= slot {
            let inbox = Arc::new(Inbox::default());
            let runner = work(Arc::clone(&self.executor), Arc::clone(&inbox));
            self.executor.config.spawn.spawn("runner", Box::pin(runner));
            self.inboxes.push(inbox);
        }
        self.inboxes[slot].put(Mail::Job(job));
    }
}

impl Drop for Runners {
    fn drop(&mut self) {
        self.inboxes.iter().for_each(|inbox| inbox.put(Mail::Over));
    }
}

async fn work(executor: Arc<Executor>, inbox: Arc<Inbox>) {
    while let Some(job) = inbox.next().await {
        executor.run(job).await;
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
        *self.lock() = mail;
        self.filled.notify_one();
    }

    /// The next job; `None` when none will come.
    async fn next(&self) -> Option<Job> {
        loop {
            let mail = std::mem::take(&mut *self.lock());
            match mail {
                Mail::Nothing => self.filled.notified().await,
                Mail::Job(job) => return Some(job),
                Mail::Over => return None,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        // Nothing panics under the lock; were it so, what it guards would still be whole.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
