//! Single enqueues that meet share a write: while one is on its way to the store, those that come in gather for the next.
//!
//! A caller alone waits for nobody. Each caller is told of its own task: a conflict of keys, or a task that the store refuses,
//! is not the error of those that were written with it. What gathers is bounded, in tasks and in bytes; who comes when it is
//! full waits for room. The writes run in tasks of their own, so a caller that goes takes nobody with it; its own task, when
//! no write had begun, is not written.

use std::collections::{HashSet, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard};

use queue_core::{Enqueued, NewTask, StoreError, StoreLimits, TaskSpec};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::client::Shared;
use crate::enqueue::EnqueueError;
use crate::ids::retell;
use crate::lock::lock;
use crate::write;

/// Writes under way at once, at most; each takes a connection.
const FLIGHTS_MAX: usize = 4;
/// What may gather, in KiB of payloads; a task counts as one at least.
const ROOM_KIB: u32 = 16 * 1024;

/// What waits to be written.
#[derive(Debug)]
pub(crate) struct Gatherer {
    room: Arc<Semaphore>,
    buffer: Mutex<Buffer>,
}

#[derive(Debug, Default)]
struct Buffer {
    waiting: VecDeque<Parcel>,
    /// Writes under way.
    flights: usize,
}

type Answer = oneshot::Sender<Result<Enqueued, EnqueueError>>;

/// A task, and who waits for it.
#[derive(Debug)]
struct Parcel {
    spec: TaskSpec,
    answer: Answer,
    room: OwnedSemaphorePermit,
}

/// Tasks that have their ids, and who waits for them.
struct Addressed {
    answers: VecDeque<Answer>,
    batch: Arc<[NewTask]>,
    /// Given back when all are answered.
    _room: Vec<OwnedSemaphorePermit>,
}

/// Enqueues one task, together with others that are there.
pub(crate) async fn enqueue(shared: &Shared, spec: TaskSpec) -> Result<Enqueued, EnqueueError> {
    let (size, limit) = (write::bytes(&spec), shared.limits.payload_bytes_max);
    if size > limit {
        return Err(EnqueueError::TooLarge { size, limit });
    }
    let kib = u32::try_from(size / 1024 + 1).unwrap_or(u32::MAX).min(ROOM_KIB);
    let Ok(room) = Arc::clone(&shared.gatherer.room).acquire_many_owned(kib).await else {
        return Err(StoreError::other("nothing can be enqueued any more").into());
    };
    let (answer, answered) = oneshot::channel();
    if shared.gatherer.put(Parcel { spec, answer, room }) {
        let flight = Flight { gatherer: Arc::clone(&shared.gatherer), landed: false };
        tokio::spawn(fly(shared.clone(), flight));
    }
    match answered.await {
        Ok(answer) => answer,
        Err(_) => Err(StoreError::unknown_outcome("the runtime that was writing has ended").into()),
    }
}

impl Gatherer {
    pub(crate) fn new() -> Self {
        Self { room: Arc::new(Semaphore::new(ROOM_KIB as usize)), buffer: Mutex::default() }
    }

    /// Takes a task in. Whether a write shall begin.
    fn put(&self, parcel: Parcel) -> bool {
        let mut buffer = self.buffer();
        buffer.waiting.push_back(parcel);
        let leaves = buffer.flights < FLIGHTS_MAX;
        buffer.flights += usize::from(leaves);
        leaves
    }

    /// What the next write takes; nothing when nothing waits, and then the flight is over.
    fn take(&self, limits: &StoreLimits) -> Vec<Parcel> {
        let (mut batch, mut bytes, mut keys) = (Vec::new(), 0, HashSet::new());
        let mut buffer = self.buffer();
        while let Some(next) = buffer.waiting.front() {
            // Its caller has gone, and nothing of it was written.
            if next.answer.is_closed() {
                buffer.waiting.pop_front();
                continue;
            }
            bytes += write::bytes(&next.spec);
            let full = batch.len() >= limits.batch_max || bytes > limits.batch_bytes_max;
            // The same key twice: the second must be told of a task that is there.
            let key = next.spec.key.as_ref().map(|key| (next.spec.task_type.clone(), key.clone()));
            if (full && !batch.is_empty()) || key.is_some_and(|key| !keys.insert(key)) {
                break;
            }
            batch.extend(buffer.waiting.pop_front());
        }
        if batch.is_empty() {
            buffer.flights -= 1;
        }
        batch
    }

    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        lock(&self.buffer)
    }
}

/// One of the writers. Dropping it before its time, with the runtime, leaves nobody waiting for it.
struct Flight {
    gatherer: Arc<Gatherer>,
    landed: bool,
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.landed {
            return;
        }
        let mut buffer = self.gatherer.buffer();
        buffer.flights -= 1;
        let stranded = if buffer.flights == 0 { mem::take(&mut buffer.waiting) } else { VecDeque::new() };
        drop(buffer);
        for parcel in stranded {
            let _ = parcel.answer.send(Err(StoreError::unavailable("the runtime that was to write has ended").into()));
        }
    }
}

/// Writes until nothing waits.
async fn fly(shared: Shared, mut flight: Flight) {
    loop {
        let parcels = shared.gatherer.take(&shared.limits);
        if parcels.is_empty() {
            flight.landed = true;
            return;
        }
        if let Some(addressed) = address(&shared, parcels).await {
            deliver(&shared, addressed).await;
        }
    }
}

/// Gives the tasks their ids.
async fn address(shared: &Shared, parcels: Vec<Parcel>) -> Option<Addressed> {
    let (mut specs, mut answers, mut room) = (Vec::new(), VecDeque::new(), Vec::new());
    for parcel in parcels {
        specs.push(parcel.spec);
        answers.push_back(parcel.answer);
        room.push(parcel.room);
    }
    match write::number(shared, specs).await {
        Ok(batch) => Some(Addressed { answers, batch: batch.into(), _room: room }),
        Err(error) => {
            tell_all(answers, error);
            None
        }
    }
}

/// Writes a batch, and tells each caller of its own.
async fn deliver(shared: &Shared, mut addressed: Addressed) {
    while !addressed.batch.is_empty() {
        match write::batch(shared, Arc::clone(&addressed.batch)).await {
            Ok(enqueued) => {
                shared.wake();
                for (answer, enqueued) in addressed.answers.into_iter().zip(enqueued) {
                    let _ = answer.send(Ok(enqueued));
                }
                return;
            }
            // Nothing was written. The one is told, the others go again as they are.
            Err(error @ StoreError::KeyConflict { index, .. }) if index < addressed.batch.len() => {
                if let Some(answer) = addressed.answers.remove(index) {
                    let _ = answer.send(Err(error.into()));
                }
                let others = addressed.batch.iter().enumerate().filter(|(place, _)| *place != index);
                addressed.batch = others.map(|(_, task)| task.clone()).collect();
            }
            Err(error) if addressed.batch.len() > 1 && is_of_one(&error) => return one_by_one(shared, addressed).await,
            Err(error) => return tell_all(addressed.answers, error),
        }
    }
}

/// Whether one task of a batch may be what the store refuses, so that the others must not suffer for it.
const fn is_of_one(error: &StoreError) -> bool {
    matches!(error, StoreError::TooLarge { .. } | StoreError::Corrupt { .. } | StoreError::Other { .. })
}

/// Nothing was written: each goes alone.
async fn one_by_one(shared: &Shared, addressed: Addressed) {
    for (task, answer) in addressed.batch.iter().zip(addressed.answers) {
        let written = write::batch(shared, Arc::from([task.clone()])).await;
        if written.is_ok() {
            shared.wake();
        }
        let _ = answer.send(written.map_err(Into::into).and_then(write::single));
    }
}

/// The same error for all of them, the last one first-hand.
fn tell_all(mut answers: VecDeque<Answer>, error: StoreError) {
    let last = answers.pop_back();
    for answer in answers {
        let _ = answer.send(Err(retell(&error).into()));
    }
    if let Some(answer) = last {
        let _ = answer.send(Err(error.into()));
    }
}
