//! Two processes that wake each other through a store's channel: two queues around one store in memory, each with its end of a
//! channel in memory. Their pools poll every ten minutes, so a task that nobody is woken for never starts.

#![cfg(feature = "testing")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use queue_core::{Due, QueueName, Scope, Store, TaskResult, TaskType, WakeChannel};
use queue_runtime::{Limits, Payload, Pool, Queue, RunningPool, TaskSpec};
use queue_testkit::MemoryStore;
use queue_testkit::around::{Around, Wrapped};
use tokio::sync::{Notify, mpsc, oneshot};

const A: TaskType = TaskType::new("wake.a");
const NEVER: Duration = Duration::from_secs(600);

/// Those that listen, and what they wait for.
#[derive(Debug, Default)]
struct Ether {
    listening: Mutex<Vec<(usize, Scope, oneshot::Sender<()>)>>,
    announced: Mutex<Vec<Due>>,
    changed: Notify,
}

/// One process's end.
#[derive(Debug)]
struct End {
    number: usize,
    ether: Arc<Ether>,
}

#[async_trait]
impl WakeChannel for End {
    async fn announce(&self, due: &Due) -> Duration {
        let mut listening = self.ether.listening.lock().unwrap();
        let of_another = |(number, scope, _): &(usize, Scope, _)| *number != self.number && due.concerns(scope);
        if let Some(place) = listening.iter().position(of_another) {
            let _ = listening.remove(place).2.send(());
        }
        self.ether.announced.lock().unwrap().push(due.clone());
        self.ether.changed.notify_waiters();
        Duration::ZERO
    }

    async fn listen(&self, scope: &Scope) {
        let (tell, told) = oneshot::channel();
        self.ether.listening.lock().unwrap().push((self.number, scope.clone(), tell));
        self.ether.changed.notify_waiters();
        told.await.unwrap();
    }
}

impl Ether {
    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if holds(self) {
                return;
            }
            changed.await;
        }
    }

    /// Waits until so many listen.
    async fn listeners(&self, count: usize) {
        self.until(|ether| ether.listening.lock().unwrap().len() == count).await;
    }
}

#[derive(Debug)]
struct Process {
    store: MemoryStore,
    end: Arc<End>,
}

#[async_trait]
impl Around for Process {
    fn inner(&self) -> &dyn Store {
        &self.store
    }

    fn wake_channel(&self) -> Option<Arc<dyn WakeChannel>> {
        Some(Arc::<End>::clone(&self.end) as _)
    }
}

/// So many processes that share a store.
fn processes(count: usize) -> (Arc<Ether>, Vec<Queue<Wrapped<Process>>>) {
    let (store, ether) = (MemoryStore::new(), Arc::new(Ether::default()));
    let end = |number| Arc::new(End { number, ether: Arc::clone(&ether) });
    let queue = |number| Queue::new(Wrapped(Process { store: store.clone(), end: end(number) }));
    let queues = (0..count).map(queue).collect();
    (ether, queues)
}

/// A pool with one slot that hardly ever polls. Its handler says that it runs, and ends when it is let go.
async fn pool(queue: &Queue<Wrapped<Process>>, started: mpsc::UnboundedSender<()>, go: Arc<Notify>) -> RunningPool {
    let handler = move |_, _| {
        let (started, go) = (started.clone(), Arc::clone(&go));
        async move {
            started.send(()).unwrap();
            go.notified().await;
            Ok(TaskResult::None)
        }
    };
    let pool = Pool::new(queue).handle_raw(A, handler, Limits::DEFAULT);
    pool.concurrency(1).prefetch(0).poll(NEVER, NEVER).start().await.unwrap()
}

fn task() -> TaskSpec {
    TaskSpec::new(A, Payload::json("1"))
}

#[tokio::test]
async fn another_process_is_woken_and_passes_on_what_it_cannot_take() {
    let (ether, queues) = processes(3);
    let (started, mut starts) = mpsc::unbounded_channel();
    let go = Arc::new(Notify::new());
    let pools =
        [pool(&queues[1], started.clone(), Arc::clone(&go)).await, pool(&queues[2], started, Arc::clone(&go)).await];
    ether.listeners(2).await;
    // One announcement, two tasks, and each pool takes one of them.
    queues[0].enqueue_specs([task(), task()]).await.unwrap();
    starts.recv().await.unwrap();
    starts.recv().await.unwrap();
    go.notify_waiters();
    ether.listeners(2).await;
    for pool in pools {
        pool.shutdown(Duration::from_secs(5)).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_announced_is_what_is_due_now_and_new() {
    let (ether, queues) = processes(1);
    let later = TaskSpec { start: queue_core::Start::After(NEVER), ..task() };
    queues[0].enqueue_spec(later).await.unwrap();
    queues[0].announced().await;
    assert!(ether.announced.lock().unwrap().is_empty());
    queues[0].enqueue_spec(task()).await.unwrap();
    queues[0].announced().await;
    queues[0].wake();
    queues[0].announced().await;
    let mut one = Due::default();
    one.add(&QueueName::DEFAULT, &A);
    assert_eq!(*ether.announced.lock().unwrap(), [one, Due::anything()]);
}

#[tokio::test]
async fn a_pool_that_stops_does_not_wait_for_a_wake_up() {
    let (ether, queues) = processes(2);
    let (started, _starts) = mpsc::unbounded_channel();
    let running = pool(&queues[1], started, Arc::default()).await;
    ether.listeners(1).await;
    running.shutdown(Duration::from_secs(60)).await.unwrap();
    ether.until(|ether| ether.listening.lock().unwrap().iter().all(|(_, _, tell)| tell.is_closed())).await;
}
