//! `queue enqueue`

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _};

use queue_runtime::queue_core::StoreLimits;
use queue_runtime::{EnqueueAllError, EnqueueError, Enqueued, IdempotencyKey, Payload, Queue, Start, TaskSpec};
use serde_json::json;
use serde_json::value::RawValue;

use crate::args::Enqueue;
use crate::batch::{self, BatchError, Defaults, Lines};
use crate::database::{Database, Need};
use crate::duration;
use crate::failure::{Failure, Outcome};
use crate::output::{Output, tasks};
use crate::progress::Bar;
use crate::time::rfc3339;

pub(super) async fn run(database: &Database, args: Enqueue, output: &mut Output) -> Outcome {
    let defaults = Defaults {
        task_type: args.task_type.clone(),
        queue: args.queue,
        priority: args.priority,
        start: Defaults::start_of(args.delay, args.at),
        max_attempts: args.max_attempts,
        budget: args.budget.map(|budget| budget.0.map_or(queue_runtime::Budget::NONE, queue_runtime::Budget::of)),
    };
    match (args.task_type, args.batch) {
        (_, Some(source)) => Batch { database, defaults, source }.run(output).await,
        (Some(task_type), None) => {
            let payload = payload(args.payload.as_deref().unwrap_or("null"))?;
            let key = args.key.map(IdempotencyKey::parse).transpose();
            let key = key.map_err(|error| Failure::usage(error.to_string()))?;
            let spec = TaskSpec { key, ..defaults.spec(task_type, payload) };
            one(database, spec, output).await
        }
        (None, None) => Err(Failure::usage("name the type of the task").hint("queue enqueue TYPE --payload JSON")),
    }
}

/// The payload that the option names, checked to be JSON and otherwise kept byte by byte.
fn payload(option: &str) -> Outcome<Payload> {
    let (bytes, place) = match (option, option.strip_prefix('@')) {
        ("-", _) => (read_bounded(io::stdin().lock()), "standard input".to_owned()),
        (_, Some(path)) => (File::open(path).and_then(read_bounded), path.to_owned()),
        _ => (Ok(option.as_bytes().to_vec()), "--payload".to_owned()),
    };
    let bytes = bytes.map_err(|error| Failure::failed(format!("cannot read {place}: {error}")))?;
    let text = str::from_utf8(&bytes)
        .map_err(|error| Failure::usage(format!("{place} is not UTF-8 at byte {}", error.valid_up_to() + 1)))?;
    let json = serde_json::from_str::<&RawValue>(text).map_err(|error| {
        let failure = Failure::usage(format!("{place} is not JSON: {error}"));
        if place == "--payload" {
            failure.hint("--payload '{\"name\": \"Ada\"}', with the quotes of the shell around it")
        } else {
            failure
        }
    })?;
    Ok(Payload::json(json.get().to_owned()))
}

/// Reads what could be a payload, and no more, so that an endless stream is refused for its size.
fn read_bounded(reader: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let max = StoreLimits::DEFAULT.payload_bytes_max.saturating_mul(2);
    reader.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::other(format!("it has more than {max} bytes, and a payload has {} at most", max / 2)));
    }
    Ok(bytes)
}

async fn one(database: &Database, spec: TaskSpec, output: &mut Output) -> Outcome {
    // Checked before the database is made, so that nothing is left behind by a task that is refused.
    let (size, max) = (spec.payload.body().len() as u64, StoreLimits::DEFAULT.payload_bytes_max);
    if size > max {
        return Err(too_large(size, max));
    }
    let queue = database.open(Need::Write).await?;
    let (task_type, into, due) = (spec.task_type.clone(), spec.queue.clone(), due(spec.start));
    let enqueued = queue.enqueue_spec(spec).await.map_err(|error| refused(database, error))?;
    queue.announced().await;
    let (id, existing) = (enqueued.id(), matches!(enqueued, Enqueued::Existing(_)));
    if output.is_json() {
        return output.value(&json!({
            "id": id.get(), "type": task_type.as_str(), "queue": into.as_str(), "existing": existing,
        }));
    }
    output.line(if existing {
        format!("task {id} has this key already; nothing was written")
    } else {
        format!("enqueued task {id}: {task_type} in queue {into}{due}")
    })
}

/// When a task is due that is not due at once.
fn due(start: Start) -> String {
    match start {
        Start::Now => String::new(),
        Start::After(delay) => format!(", due in {}", duration::short(delay)),
        Start::At(at) => format!(", due at {}", rfc3339(at)),
    }
}

fn too_large(size: u64, max: u64) -> Failure {
    Failure::usage(format!("the payload has {size} bytes, and {max} are the most"))
        .hint("store it elsewhere and enqueue a reference to it")
}

fn refused(database: &Database, error: EnqueueError) -> Failure {
    match error {
        EnqueueError::TooLarge { size, limit } => too_large(size, limit),
        EnqueueError::KeyConflict { existing } => {
            Failure::failed(error.to_string()).hint(database.command(&format!("task show {existing}")))
        }
        EnqueueError::Store(error) => database.explain(&error),
        error => Failure::usage(error.to_string()),
    }
}

/// Many tasks out of a file.
struct Batch<'a> {
    database: &'a Database,
    defaults: Defaults,
    source: String,
}

/// Tasks written at once, with the lines that they come from.
#[derive(Default)]
struct Chunk {
    specs: Vec<TaskSpec>,
    lines: Vec<u64>,
    bytes: u64,
}

impl Chunk {
    fn is_full(&self, limits: &StoreLimits) -> bool {
        self.specs.len() >= limits.batch_max || self.bytes >= limits.batch_bytes_max / 2
    }
}

/// What was written so far.
#[derive(Debug, Default)]
struct Written {
    created: u64,
    existing: u64,
    first: Option<u64>,
    last: Option<u64>,
}

impl Written {
    fn add(&mut self, enqueued: &[Enqueued]) {
        for one in enqueued {
            match one {
                Enqueued::Created(id) => {
                    self.created += 1;
                    self.first.get_or_insert(id.get());
                    self.last = Some(id.get());
                }
                Enqueued::Existing(_) => self.existing += 1,
            }
        }
    }
}

impl Batch<'_> {
    async fn run(self, output: &mut Output) -> Outcome {
        let mut file = self.spool()?;
        let payload_bytes_max = StoreLimits::DEFAULT.payload_bytes_max;
        let total = batch::check(BufReader::new(&mut file), &self.defaults, payload_bytes_max)
            .map_err(|error| self.bad(error))?;
        file.rewind().map_err(|error| self.bad(BatchError::Read(error)))?;
        let queue = self.database.open(Need::Write).await?;
        let written = self.write(&queue, BufReader::new(file), total).await?;
        queue.announced().await;
        if output.is_json() {
            return output.value(&json!({
                "enqueued": written.created, "existing": written.existing,
                "first_id": written.first, "last_id": written.last,
            }));
        }
        let existing = match written.existing {
            0 => String::new(),
            existing => format!("; {} had their keys already", tasks(existing)),
        };
        output.line(match (written.first, written.last) {
            (Some(first), Some(last)) if first != last => {
                format!("enqueued {}, {first} to {last}{existing}", tasks(written.created))
            }
            (Some(first), _) => format!("enqueued 1 task, {first}{existing}"),
            _ => format!("enqueued 0 tasks{existing}"),
        })
    }

    /// The batch as a file that can be read twice: what comes through a pipe is kept aside first.
    fn spool(&self) -> Outcome<File> {
        let spool = || -> io::Result<File> {
            let mut source: Box<dyn io::Read> = if self.source == "-" {
                Box::new(io::stdin().lock())
            } else {
                let file = File::open(&self.source)?;
                if file.metadata()?.is_file() {
                    return Ok(file);
                }
                Box::new(file)
            };
            let mut kept = tempfile::tempfile()?;
            io::copy(&mut source, &mut kept)?;
            kept.rewind()?;
            Ok(kept)
        };
        spool().map_err(|error| Failure::failed(format!("cannot read {}: {error}", self.place())))
    }

    fn place(&self) -> &str {
        if self.source == "-" { "standard input" } else { &self.source }
    }

    /// What is wrong before anything was written.
    fn bad(&self, error: BatchError) -> Failure {
        match error {
            BatchError::Line { .. } => Failure::usage(format!("{}, {error}; nothing was written", self.place())),
            BatchError::Read(error) => {
                Failure::failed(format!("cannot read {}: {error}; nothing was written", self.place()))
            }
        }
    }

    async fn write(&self, queue: &Queue, reader: BufReader<File>, total: u64) -> Outcome<Written> {
        let limits = queue.erased_store().limits();
        let bar = Bar::start("enqueueing", total);
        let mut lines = Lines::new(reader, &self.defaults, StoreLimits::DEFAULT.payload_bytes_max);
        let mut written = Written::default();
        let mut chunk = Chunk::default();
        loop {
            // It was read before; it can only have changed meanwhile.
            let next = lines.next_task().map_err(|error| {
                Failure::failed(format!("{} changed while it was read: {error}; the lines before were enqueued as far as they stood in full batches", self.place()))
            })?;
            let ended = next.is_none();
            if let Some((line, spec)) = next {
                chunk.bytes += spec.payload.body().len() as u64;
                chunk.specs.push(spec);
                chunk.lines.push(line);
            }
            if chunk.is_full(&limits) || (ended && !chunk.specs.is_empty()) {
                let Chunk { specs, lines, .. } = std::mem::take(&mut chunk);
                let enqueued = queue.enqueue_specs(specs).await.map_err(|error| self.stopped(error, &lines))?;
                written.add(&enqueued);
                bar.advance(lines.len() as u64);
            }
            if ended {
                return Ok(written);
            }
        }
    }

    /// What stopped it half way, and where to go on.
    fn stopped(&self, error: EnqueueAllError, lines: &[u64]) -> Failure {
        let next = lines.get(error.written.len()).copied().unwrap_or_default();
        let at =
            error.index.and_then(|index| lines.get(index)).map(|line| format!("line {line}: ")).unwrap_or_default();
        let unknown = matches!(&error.source, EnqueueError::Store(queue_runtime::StoreError::UnknownOutcome { .. }));
        let cause = refused(self.database, error.source);
        let said = format!("{}, {at}{}", self.place(), cause.message());
        let last = next.saturating_sub(1);
        let failure = match (unknown, next) {
            (true, _) => Failure::failed(format!(
                "{said}; everything before line {next} was enqueued, and it is not known whether the lines from {next} on were"
            )),
            (false, 0 | 1) => Failure::failed(format!("{said}; nothing was written")),
            (false, _) => Failure::failed(format!("{said}; lines 1 to {last} were enqueued")),
        };
        if next <= 1 || unknown || self.source == "-" {
            return failure;
        }
        failure.hint(format!("tail -n +{next} {} | {}", self.source, self.database.command("enqueue --batch -")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_kept_byte_by_byte() {
        assert_eq!(payload(" {\"a\":  1.0}\n").unwrap().body().as_ref(), b"{\"a\":  1.0}");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.json");
        std::fs::write(&file, "[1, 2]\n").unwrap();
        assert_eq!(payload(&format!("@{}", file.display())).unwrap().body().as_ref(), b"[1, 2]");
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let bare = payload("{name: 1}").unwrap_err();
        assert!(bare.message().starts_with("--payload is not JSON: key must be a string"), "{bare}");
        assert!(
            payload("@/no/such/file").unwrap_err().message().starts_with("cannot read /no/such/file: No such file")
        );
        assert!(payload("").unwrap_err().message().contains("EOF"));
    }

    #[test]
    fn an_endless_payload_is_refused() {
        assert!(read_bounded(io::repeat(b'x')).unwrap_err().to_string().contains("a payload has 1048576 at most"));
    }
}
