//! How what is enqueued reaches the store: checked as a whole, cut into batches, repeated where that is safe.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use queue_core::{
    Enqueued, Jitter, NewTask, Nonce, Observation, StoreError, StoreLimits, TaskSpec, TaskType, Transactional,
};

use crate::client::{Queue, Shared};
use crate::enqueue::{EnqueueAllError, EnqueueError, at_fault};

/// How often a call is made before its error is the caller's.
const TRIES_MAX: u32 = 5;
/// The longest wait after the first failed call; it doubles with each.
const WAIT_BASE: Duration = Duration::from_millis(100);

/// Writes tasks in the store's own transactions, one for each batch.
pub(crate) async fn alone(shared: &Shared, specs: Vec<TaskSpec>) -> Result<Vec<Enqueued>, EnqueueAllError> {
    let mut written = Vec::with_capacity(specs.len());
    for chunk in chunks(specs, &shared.limits)? {
        match write_chunk(shared, chunk).await {
            Ok(answers) => written.extend(answers),
            Err(error) => return Err(told(error, written)),
        }
        shared.wake();
    }
    Ok(written)
}

async fn write_chunk(shared: &Shared, chunk: Vec<TaskSpec>) -> Result<Vec<Enqueued>, StoreError> {
    let numbered = number(shared, chunk).await?.into();
    batch(shared, numbered).await
}

/// Writes a batch that the store takes as a whole.
pub(crate) async fn batch(shared: &Shared, batch: Arc<[NewTask]>) -> Result<Vec<Enqueued>, StoreError> {
    let answers = repeat(shared, || shared.store.enqueue(Arc::clone(&batch))).await?;
    let answers = checked(shared, &batch, answers)?;
    shared.herald.written(&batch, &answers);
    Ok(answers)
}

/// Writes tasks in the user's transaction. Nothing is repeated in it.
pub(crate) async fn within<S: Transactional>(
    queue: &Queue<S>,
    tx: &mut S::Conn,
    specs: Vec<TaskSpec>,
) -> Result<Vec<Enqueued>, EnqueueAllError> {
    let (shared, store) = (queue.shared(), queue.store());
    let mut batches = Vec::new();
    for chunk in chunks(specs, &shared.limits)? {
        let prepared = async {
            let batch = number(shared, chunk).await?;
            repeat(shared, || store.prepare(&batch)).await.map(|()| batch)
        };
        batches.push(prepared.await.map_err(|error| told(error, Vec::new()))?);
    }
    let mut written = Vec::new();
    for batch in batches {
        let answers = store.enqueue_in(tx, &batch).await.inspect_err(|error| failed(shared, error));
        match answers.and_then(|answers| checked(shared, &batch, answers)) {
            Ok(answers) => {
                shared.herald.written_within(&batch, &answers);
                written.extend(answers);
            }
            Err(error) => return Err(told(error, written)),
        }
    }
    Ok(written)
}

/// The one answer to the one task asked for.
pub(crate) fn single(answers: Vec<Enqueued>) -> Result<Enqueued, EnqueueError> {
    answers.into_iter().next().ok_or_else(|| StoreError::other("the store answered nothing to an enqueue").into())
}

/// Cuts the tasks into batches that the store takes, and refuses all of them when one is too large.
fn chunks(specs: Vec<TaskSpec>, limits: &StoreLimits) -> Result<Vec<Vec<TaskSpec>>, EnqueueAllError> {
    let limit = limits.payload_bytes_max;
    if let Some((index, size)) = specs.iter().map(bytes).enumerate().find(|(_, size)| *size > limit) {
        return Err(at_fault(index, EnqueueError::TooLarge { size, limit }));
    }
    let (mut chunks, mut chunk, mut chunk_bytes) = (Vec::new(), Vec::new(), 0_u64);
    for spec in specs {
        let bytes = bytes(&spec);
        if chunk.len() >= limits.batch_max || (!chunk.is_empty() && chunk_bytes + bytes > limits.batch_bytes_max) {
            chunks.push(std::mem::take(&mut chunk));
            chunk_bytes = 0;
        }
        chunk_bytes += bytes;
        chunk.push(spec);
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    Ok(chunks)
}

pub(crate) fn bytes(spec: &TaskSpec) -> u64 {
    spec.payload.body().len() as u64
}

/// Gives tasks their ids, and one nonce, which tells this batch from any other under the same ids.
///
/// Tasks of one queue and priority get ids that follow on one another, in the order of the batch: they are claimed together, and a
/// store that keeps rows by id then finds them side by side. Queues are worked off side by side as well, so next to them come those of
/// the same priority in other queues.
pub(crate) async fn number(shared: &Shared, specs: Vec<TaskSpec>) -> Result<Vec<NewTask>, StoreError> {
    let reserve = |count| repeat(shared, move || shared.store.reserve_ids(count));
    let ids = shared.ids.take(specs.len(), reserve).await?;
    let nonce = Nonce::new((shared.entropy.next_u64() >> 32) as u32);
    let mut places: Vec<_> = (0..specs.len()).collect();
    places.sort_by_key(|place| (specs[*place].priority, &specs[*place].queue));
    let mut numbered: Vec<_> = places.into_iter().zip(ids).collect();
    numbered.sort_unstable_by_key(|(place, _)| *place);
    Ok(numbered.into_iter().zip(specs).map(|((_, id), spec)| NewTask { id, nonce, spec }).collect())
}

/// Makes a call that may be made again, a bounded number of times.
async fn repeat<T, F, Fut>(shared: &Shared, call: F) -> Result<T, StoreError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    let mut unknown = false;
    let mut tries = 0;
    loop {
        tries += 1;
        let error = match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        failed(shared, &error);
        unknown |= matches!(error, StoreError::UnknownOutcome { .. });
        if tries >= TRIES_MAX || !error.is_transient() {
            return Err(if unknown { still_unknown(error) } else { error });
        }
        tracing::debug!(kind = error.kind().as_str(), tries, "an enqueue failed and is repeated");
        let longest = WAIT_BASE * (1 << (tries - 1));
        let jitter = Jitter::from_random(shared.entropy.next_u64());
        shared.clock.sleep(longest / 2 + jitter.of(longest / 2)).await;
    }
}

/// Once an earlier try may have written, a later error tells what became of it only when it looked at the batch itself.
fn still_unknown(error: StoreError) -> StoreError {
    match error {
        StoreError::UnknownOutcome { .. } | StoreError::KeyConflict { .. } | StoreError::TooLarge { .. } => error,
        error => StoreError::unknown_outcome(error),
    }
}

fn failed(shared: &Shared, error: &StoreError) {
    shared.observer.observe(&Observation::StoreFailed(error.kind()));
}

/// Counts what was written, after it was.
fn checked(shared: &Shared, batch: &[NewTask], answers: Vec<Enqueued>) -> Result<Vec<Enqueued>, StoreError> {
    if answers.len() != batch.len() {
        let (asked, told) = (batch.len(), answers.len());
        return Err(StoreError::other(format!("the store gave {told} answers to {asked} enqueued tasks")));
    }
    let mut counts = BTreeMap::<&TaskType, u64>::new();
    for (task, answer) in batch.iter().zip(&answers) {
        if matches!(answer, Enqueued::Created(_)) {
            *counts.entry(&task.spec.task_type).or_default() += 1;
        }
    }
    for (task_type, count) in counts {
        shared.observer.observe(&Observation::Enqueued { task_type, count });
    }
    Ok(answers)
}

/// A store's error as that of a batch of which so much was written before.
fn told(error: StoreError, written: Vec<Enqueued>) -> EnqueueAllError {
    let index = match &error {
        StoreError::KeyConflict { index, .. } => Some(written.len() + index),
        _ => None,
    };
    EnqueueAllError { written, index, source: error.into() }
}
