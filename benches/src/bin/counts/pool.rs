//! Client and pool over a store that answers at once, on one thread in paused time: codec and batching, as users meet them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use queue_benches::{AtOnce, TYPE};
use queue_core::{Clock, Entropy, TaskResult, Timestamp};
use queue_runtime::ports::{OneRuntime, Ports};
use queue_runtime::{Ctx, Limits, Payload, Pool, Queue, Result, Task, TaskType, TokioClock};
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};

use crate::{Case, Work};

pub(crate) const CASES: &[Case] = &[
    ("enqueue/one_caller", one_caller),
    ("enqueue/64_callers", many_callers),
    ("enqueue/in_bulk", in_bulk),
    ("pool/raw_handler", raw_handler),
    ("pool/typed_handler", typed_handler),
];

const TASKS: usize = 2_048;
const CALLERS: usize = 64;

#[derive(Serialize, Deserialize)]
struct Mail {
    account: u64,
    to: String,
    subject: String,
    urgent: bool,
    tags: Vec<String>,
}

impl Task for Mail {
    const TYPE: TaskType = TYPE;
    type Output = u64;
}

fn mail() -> Mail {
    Mail {
        account: 40_217,
        to: "ada@example.com".to_owned(),
        subject: "Welcome aboard".to_owned(),
        urgent: false,
        tags: vec!["welcome".to_owned(), "first week".to_owned()],
    }
}

async fn handle(mail: Mail, _: Ctx) -> Result<u64> {
    Ok(mail.account)
}

async fn handle_raw(_: Payload, _: Ctx) -> Result<TaskResult> {
    Ok(TaskResult::None)
}

/// Bits that differ, and are the same each time.
#[derive(Debug, Default)]
struct Sequence(AtomicU64);

impl Entropy for Sequence {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// A runtime that never waits, and a queue on it.
fn ready(tasks: usize, payload: Payload) -> (Runtime, Queue<AtOnce>, Ports) {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let entered = runtime.enter();
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(Timestamp::EPOCH));
    let ports =
        Ports { clock: Arc::clone(&clock), entropy: Arc::new(Sequence::default()), spawn: Arc::new(OneRuntime) };
    let queue = Queue::with_ports(AtOnce::new(tasks as u64, payload), clock, Arc::clone(&ports.entropy));
    drop(entered);
    (runtime, queue, ports)
}

fn one_caller() -> Work {
    let (runtime, queue, _) = ready(0, Payload::default());
    let (mail, tasks) = (mail(), TASKS / 8);
    Work::new(tasks, move || {
        runtime.block_on(async {
            for _ in 0..tasks {
                queue.enqueue(&mail).await.expect("it is taken");
            }
        });
    })
}

fn many_callers() -> Work {
    let (runtime, queue, _) = ready(0, Payload::default());
    let mail = mail();
    Work::new(TASKS, move || {
        let caller = async || {
            for _ in 0..TASKS / CALLERS {
                queue.enqueue(&mail).await.expect("it is taken");
            }
        };
        runtime.block_on(join_all((0..CALLERS).map(|_| caller())));
    })
}

fn in_bulk() -> Work {
    let (runtime, queue, _) = ready(0, Payload::default());
    let mails: Vec<_> = std::iter::repeat_with(mail).take(TASKS).collect();
    Work::new(TASKS, move || {
        let enqueued = runtime.block_on(async { queue.enqueue_all(&mails).await }).expect("they are taken");
        assert_eq!(enqueued.len(), TASKS);
    })
}

fn drain(payload: Payload, handled: impl FnOnce(Pool) -> Pool + 'static) -> Work {
    let (runtime, queue, ports) = ready(TASKS, payload);
    Work::new(TASKS, move || {
        let pool = handled(Pool::new(&queue).ports(ports).concurrency(CALLERS));
        let done = runtime.block_on(async { pool.drain().await }).expect("it drains");
        assert_eq!(done.completed, TASKS as u64);
    })
}

fn raw_handler() -> Work {
    drain(Payload::default(), |pool| pool.handle_raw(TYPE, handle_raw, Limits::DEFAULT))
}

/// The payload is decoded, and what the handler returns is encoded.
fn typed_handler() -> Work {
    let payload = Payload::json(
        r#"{"account":40217,"to":"ada@example.com","subject":"Welcome aboard","urgent":false,"tags":["welcome","first week"]}"#,
    );
    drain(payload, |pool| pool.handle(handle))
}
