//! Batch files: one task a line, as JSON. A batch is checked as a whole before any of it is written.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufRead, Read};
use std::time::Duration;

use queue_runtime::queue_core::payload::PayloadDigest;
use queue_runtime::{
    Budget, IdempotencyKey, Payload, Priority, QueueName, Retry, Start, TaskSpec, TaskType, Timestamp,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::args::parse_positive;
use crate::{duration, time};

/// What a line may have beside its payload, in bytes.
const LINE_MARGIN: u64 = 64 * 1024;

/// What holds for lines that do not say otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct Defaults {
    pub(crate) task_type: Option<TaskType>,
    pub(crate) queue: Option<QueueName>,
    pub(crate) priority: Option<Priority>,
    pub(crate) start: Start,
    pub(crate) max_attempts: Option<u16>,
    pub(crate) budget: Option<Budget>,
}

impl Defaults {
    /// When tasks that say nothing of it are due.
    pub(crate) const fn start_of(delay: Option<Duration>, at: Option<Timestamp>) -> Start {
        match (delay, at) {
            (Some(delay), _) => Start::After(delay),
            (None, Some(at)) => Start::At(at),
            (None, None) => Start::Now,
        }
    }

    /// A task of this type with these defaults.
    pub(crate) fn spec(&self, task_type: TaskType, payload: Payload) -> TaskSpec {
        let plain = TaskSpec::new(task_type, payload);
        TaskSpec {
            queue: self.queue.clone().unwrap_or_default(),
            priority: self.priority.unwrap_or_default(),
            start: self.start,
            retry: self.max_attempts.map_or(Retry::DEFAULT, |attempts| Retry::DEFAULT.attempts(attempts)),
            budget: self.budget.unwrap_or_default(),
            ..plain
        }
    }
}

/// A line that is no task, or a batch that cannot be read.
#[derive(Debug)]
pub(crate) enum BatchError {
    /// What is wrong with a line.
    Line { number: u64, defect: String },
    /// The file cannot be read any further.
    Read(io::Error),
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { number, defect } => write!(f, "line {number}: {defect}"),
            Self::Read(error) => write!(f, "{error}"),
        }
    }
}

/// The tasks of a batch, read line by line.
pub(crate) struct Lines<'d, R> {
    reader: R,
    defaults: &'d Defaults,
    payload_bytes_max: u64,
    buffer: Vec<u8>,
    number: u64,
}

impl<'d, R: BufRead> Lines<'d, R> {
    pub(crate) const fn new(reader: R, defaults: &'d Defaults, payload_bytes_max: u64) -> Self {
        Self { reader, defaults, payload_bytes_max, buffer: Vec::new(), number: 0 }
    }

    /// The next task with the number of its line. Blank lines are passed over.
    pub(crate) fn next_task(&mut self) -> Result<Option<(u64, TaskSpec)>, BatchError> {
        loop {
            self.buffer.clear();
            let line_bytes_max = self.payload_bytes_max.saturating_add(LINE_MARGIN);
            let mut bounded = self.reader.by_ref().take(line_bytes_max.saturating_add(1));
            let read = bounded.read_until(b'\n', &mut self.buffer).map_err(BatchError::Read)?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if read as u64 > line_bytes_max {
                let max = self.payload_bytes_max;
                return Err(self.defect(format!("it is too long; a payload has {max} bytes at most")));
            }
            let line = if self.number == 1 { without_mark(&self.buffer) } else { &self.buffer };
            if line.trim_ascii().is_empty() {
                continue;
            }
            let spec = parse_line(line.trim_ascii(), self.defaults).map_err(|defect| self.defect(defect))?;
            let size = spec.payload.body().len() as u64;
            if size > self.payload_bytes_max {
                let max = self.payload_bytes_max;
                return Err(self.defect(format!("its payload has {size} bytes, and {max} are the most")));
            }
            return Ok(Some((self.number, spec)));
        }
    }

    fn defect(&self, defect: impl Into<String>) -> BatchError {
        BatchError::Line { number: self.number, defect: defect.into() }
    }
}

/// Reads all of a batch and returns how many tasks it has, or what is wrong with its first bad line.
pub(crate) fn check(reader: impl BufRead, defaults: &Defaults, payload_bytes_max: u64) -> Result<u64, BatchError> {
    let mut lines = Lines::new(reader, defaults, payload_bytes_max);
    let mut keys = HashMap::<PayloadDigest, (PayloadDigest, u64)>::new();
    let mut count = 0;
    while let Some((number, spec)) = lines.next_task()? {
        count += 1;
        if let Some(key) = &spec.key {
            let payload = spec.payload.digest();
            let (first, line) = *keys.entry(owner(&spec.task_type, key)).or_insert((payload, number));
            if first != payload {
                return Err(lines.defect(format!("its key is that of line {line}, which has another payload")));
            }
        }
    }
    Ok(count)
}

/// A small mark of a type and a key: a million keys are not kept.
fn owner(task_type: &TaskType, key: &IdempotencyKey) -> PayloadDigest {
    Payload::json([task_type.as_str(), "\n", key.as_str()].concat()).digest()
}

/// A line as it is written. A payload that is missing is refused, so that a misspelt one is not taken for `null`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(rename = "type")]
    task_type: Option<String>,
    #[serde(borrow)]
    payload: &'a RawValue,
    queue: Option<String>,
    priority: Option<i64>,
    delay: Option<String>,
    at: Option<String>,
    max_attempts: Option<u16>,
    budget: Option<String>,
    key: Option<String>,
}

fn parse_line(line: &[u8], defaults: &Defaults) -> Result<TaskSpec, String> {
    let text = std::str::from_utf8(line).map_err(|error| format!("byte {} is not UTF-8", error.valid_up_to() + 1))?;
    let line: Line<'_> = serde_json::from_str(text).map_err(|error| json_defect(&error))?;
    let task_type = match line.task_type {
        Some(name) => TaskType::parse(name).map_err(|error| format!("type: {error}"))?,
        None => defaults.task_type.clone().ok_or("it has no type, and none is on the command line")?,
    };
    let mut spec = defaults.spec(task_type, Payload::json(line.payload.get().to_owned()));
    if let Some(queue) = line.queue {
        spec.queue = QueueName::parse(queue).map_err(|error| format!("queue: {error}"))?;
    }
    if let Some(priority) = line.priority {
        spec.priority = Priority::parse(priority).map_err(|error| error.to_string())?;
    }
    spec.start = match (line.delay, line.at) {
        (None, None) => spec.start,
        (Some(delay), None) => Start::After(duration::parse(&delay).map_err(|error| format!("delay: {error}"))?),
        (None, Some(at)) => Start::At(time::parse(&at).map_err(|error| format!("at: {error}"))?),
        (Some(_), Some(_)) => return Err("it has both delay and at".to_owned()),
    };
    match line.max_attempts {
        Some(0) => return Err("max_attempts: it is 1 or more".to_owned()),
        Some(attempts) => spec.retry = Retry::DEFAULT.attempts(attempts),
        None => {}
    }
    if let Some(budget) = line.budget {
        spec.budget = parse_budget(&budget)?;
    }
    if let Some(key) = line.key {
        spec.key = Some(IdempotencyKey::parse(key).map_err(|error| error.to_string())?);
    }
    Ok(spec)
}

fn parse_budget(text: &str) -> Result<Budget, String> {
    match text {
        "none" => Ok(Budget::NONE),
        text => parse_positive(text).map(Budget::of).map_err(|error| format!("budget: {error}")),
    }
}

/// What `serde_json` says, with the column alone: the line within this one line is always the first.
fn json_defect(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
    match error.column() {
        0 => said.to_owned(),
        column => format!("{said} (column {column})"),
    }
}

fn without_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<(u64, TaskSpec)>, String> {
        let defaults = Defaults { task_type: Some(TaskType::new("mail")), ..Defaults::default() };
        let mut lines = Lines::new(text.as_bytes(), &defaults, 100);
        let mut tasks = Vec::new();
        while let Some(task) = lines.next_task().map_err(|error| error.to_string())? {
            tasks.push(task);
        }
        Ok(tasks)
    }

    fn check_all(text: &str) -> Result<u64, String> {
        check(text.as_bytes(), &Defaults::default(), 100).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_says_all_that_an_option_says() {
        let text = "\u{feff}{\"payload\": {\"b\" : 1.0,  \"a\":1e2}}\r\n\n  \n{\"type\":\"t\",\"payload\":null,\"queue\":\"q\",\
            \"priority\":-3,\"delay\":\"1m\",\"max_attempts\":7,\"budget\":\"none\",\"key\":\"k\"}\n\
            {\"payload\":1,\"at\":\"2026-01-31T09:00:00Z\",\"budget\":\"2h\"}";
        let tasks = read(text).unwrap();
        assert_eq!(tasks.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 4, 5]);
        let [(_, first), (_, second), (_, third)] = tasks.as_slice() else { panic!("three tasks") };
        assert_eq!(first.payload.body().as_ref(), b"{\"b\" : 1.0,  \"a\":1e2}", "byte by byte");
        assert_eq!(*first, TaskSpec::new(TaskType::new("mail"), first.payload.clone()));
        assert_eq!((second.task_type.as_str(), second.queue.as_str(), second.priority.get()), ("t", "q", -3));
        assert_eq!(second.start, Start::After(Duration::from_secs(60)));
        assert_eq!((second.retry.max_attempts(), second.budget), (7, Budget::NONE));
        assert_eq!(second.key.as_ref().map(IdempotencyKey::as_str), Some("k"));
        assert_eq!(third.start, Start::At(Timestamp::from_micros(1_769_850_000_000_000)));
        assert_eq!(third.budget.length(), Some(Duration::from_secs(7_200)));
    }

    #[test]
    fn a_bad_line_is_named() {
        for (line, defect) in [
            ("{", "line 2: EOF while parsing an object (column 1)"),
            ("{\"payload\":1,\"priorty\":1}", "line 2: unknown field `priorty`"),
            ("{\"payload\":1,\"payload\":1}", "line 2: duplicate field `payload`"),
            ("{\"type\":\"a\"}", "line 2: missing field `payload`"),
            ("{\"payload\":1,\"type\":\"a b\"}", "line 2: type: a name must not contain"),
            ("{\"payload\":1,\"queue\":\"\"}", "line 2: queue: a name must not be empty"),
            ("{\"payload\":1,\"priority\":101}", "line 2: a priority of 101 is out of range"),
            ("{\"payload\":1,\"delay\":\"-5s\"}", "line 2: delay: a duration cannot be negative"),
            ("{\"payload\":1,\"delay\":\"5s\",\"at\":\"2026-01-31T09:00:00Z\"}", "line 2: it has both delay and at"),
            ("{\"payload\":1,\"at\":\"soon\"}", "line 2: at: not a time"),
            ("{\"payload\":1,\"max_attempts\":0}", "line 2: max_attempts: it is 1 or more"),
            ("{\"payload\":1,\"max_attempts\":65536}", "line 2: invalid value: integer `65536`, expected u16"),
            ("{\"payload\":1,\"budget\":\"5\"}", "line 2: budget: each number of a duration needs a unit"),
            ("{\"payload\":1,\"key\":\"\"}", "line 2: an idempotency key has 1 to 128 bytes, not 0"),
            ("{\"payload\":1} x", "line 2: trailing characters"),
            ("[]", "line 2: invalid"),
        ] {
            let error = read(&format!("{{\"payload\":1}}\n{line}\n")).unwrap_err();
            assert!(error.starts_with(defect), "{line}: {error}");
        }
        assert_eq!(
            check_all("{\"payload\":1}").unwrap_err(),
            "line 1: it has no type, and none is on the command line"
        );
    }

    #[test]
    fn sizes_are_bounded() {
        let payload = |bytes: usize| format!("{{\"type\":\"t\",\"payload\":\"{}\"}}", "x".repeat(bytes - 2));
        assert_eq!(check_all(&payload(100)), Ok(1));
        assert_eq!(check_all(&payload(101)), Err("line 1: its payload has 101 bytes, and 100 are the most".to_owned()));
        let endless = check_all(&payload(70_000)).unwrap_err();
        assert_eq!(endless, "line 1: it is too long; a payload has 100 bytes at most");
    }

    #[test]
    fn a_key_with_two_payloads_is_refused() {
        let line =
            |task_type, key, payload| format!("{{\"type\":\"{task_type}\",\"key\":\"{key}\",\"payload\":{payload}}}\n");
        let same = [line("a", "k", 1), line("a", "k", 1), line("b", "k", 2), line("a", "l", 3)].concat();
        assert_eq!(check_all(&same), Ok(4));
        let other = [line("a", "k", 1), line("b", "k", 1), line("a", "k", 2)].concat();
        assert_eq!(check_all(&other), Err("line 3: its key is that of line 1, which has another payload".to_owned()));
    }

    /// A good batch with a few bytes of it changed, left out or put in: nearly right is where parsers go wrong.
    fn bent() -> impl Strategy<Value = Vec<u8>> {
        const GOOD: &str = "{\"type\":\"t\",\"payload\":{\"a\":[1.5e3,\"\\u00e9\"]},\"queue\":\"q\",\"priority\":-3,\"delay\":\"1h30m\",\
             \"max_attempts\":7,\"budget\":\"none\",\"key\":\"k\"}\n{\"type\":\"t\",\"payload\":null,\
             \"at\":\"2026-01-31T09:00:00Z\",\"budget\":\"2h\"}\r\n\n{\"payload\":1,\"type\":\"u\"}";
        let bytes = prop_oneof![any::<u8>(), prop::sample::select(b"\"\\{}[]:,0129.eE+-\n\r \0\xff".to_vec())];
        let change = (0..GOOD.len(), 0..3_u8, bytes);
        proptest::collection::vec(change, 1..4).prop_map(|changes| {
            let mut bent = GOOD.as_bytes().to_vec();
            for (at, how, byte) in changes {
                let at = at.min(bent.len() - 1);
                match how {
                    0 => bent[at] = byte,
                    1 => bent.insert(at, byte),
                    _ => bent.truncate(at.max(1)),
                }
            }
            bent
        })
    }

    proptest! {
        #[test]
        fn what_passes_the_check_is_read_in_full(batch in bent()) {
            let defaults = Defaults::default();
            if let Ok(count) = check(batch.as_slice(), &defaults, 100) {
                let mut lines = Lines::new(batch.as_slice(), &defaults, 100);
                for _ in 0..count {
                    let (_, task) = lines.next_task().unwrap().unwrap();
                    prop_assert!(serde_json::from_slice::<serde_json::Value>(task.payload.body()).is_ok());
                    prop_assert!(task.payload.body().len() <= 100);
                }
                prop_assert!(lines.next_task().unwrap().is_none());
            }
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = check(bytes.as_slice(), &Defaults::default(), 100);
        }

        #[test]
        fn any_json_is_taken_and_payloads_are_kept(payload in "[\\[\\]{}\",:0-9a-z \\\\]{0,20}") {
            let line = format!("{{\"payload\":{payload}}}");
            if let Ok(tasks) = read(&line) {
                let body = tasks[0].1.payload.body();
                prop_assert_eq!(std::str::from_utf8(body).unwrap(), payload.trim());
            }
        }
    }
}
