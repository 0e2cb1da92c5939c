//! Tasks, as people and programs read them.

use queue_runtime::queue_core::AttemptRecord;
use queue_runtime::queue_core::payload::ContentType;
use queue_runtime::{Payload, Status, TaskRecord, TaskResult, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;

use super::escape::escaped;
use super::table::Columns;
use crate::duration;
use crate::time::rfc3339;

/// What is shown of a payload or a result to people, in characters; `--json` prints all of it.
const SHOWN_CHARS_MAX: usize = 2_000;
/// What is shown of an error in a list, in characters.
const ERROR_CHARS_MAX: usize = 60;

/// A task as JSON. These names are stable.
#[derive(Serialize)]
pub(crate) struct TaskJson<'a> {
    id: u64,
    #[serde(rename = "type")]
    task_type: &'a str,
    queue: &'a str,
    status: &'static str,
    priority: i8,
    attempt: u16,
    max_attempts: u16,
    run_at: String,
    deadline_at: Option<String>,
    created_at: String,
    started_at: Option<String>,
    completed_at: Option<String>,
    reason: Option<&'static str>,
    last_error: Option<&'a str>,
    progress: Option<u8>,
    progress_message: Option<&'a str>,
    worker: Option<&'a str>,
    payload: Box<RawValue>,
    result: Box<RawValue>,
    /// Only there when a result was too large to be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    result_dropped_bytes: Option<u64>,
    /// Only there when one task is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_attempts: Option<Vec<AttemptJson<'a>>>,
}

/// A failed attempt as JSON.
#[derive(Serialize)]
struct AttemptJson<'a> {
    attempt: u16,
    started_at: String,
    ended_at: String,
    outcome: &'a str,
    error: &'a str,
}

impl<'a> TaskJson<'a> {
    pub(crate) fn new(task: &'a TaskRecord) -> Self {
        let state = &task.state;
        Self {
            id: task.id.get(),
            task_type: task.task_type.as_str(),
            queue: task.queue.as_str(),
            status: state.status.as_str(),
            priority: task.priority.get(),
            attempt: state.attempt,
            max_attempts: state.max_attempts,
            run_at: rfc3339(state.run_at),
            deadline_at: state.deadline_at.map(rfc3339),
            created_at: rfc3339(state.created_at),
            started_at: state.started_at.map(rfc3339),
            completed_at: state.completed_at.map(rfc3339),
            reason: state.reason.map(|reason| reason.as_str()),
            last_error: task.last_error.as_ref().map(|error| error.as_str()),
            progress: task.progress.as_ref().map(|progress| progress.percent().get()),
            progress_message: task.progress.as_ref().and_then(|progress| progress.message()),
            worker: task.worker.as_deref(),
            payload: raw(task.payload.content_type(), task.payload.body()),
            result: match &task.result {
                TaskResult::Value(value) => raw(ContentType::Json, value),
                TaskResult::None | TaskResult::Dropped { .. } => RawValue::NULL.to_owned(),
            },
            result_dropped_bytes: match task.result {
                TaskResult::Dropped { bytes } => Some(bytes),
                TaskResult::None | TaskResult::Value(_) => None,
            },
            failed_attempts: None,
        }
    }

    pub(crate) fn with_attempts(mut self, attempts: &'a [AttemptRecord]) -> Self {
        let json = |attempt: &'a AttemptRecord| AttemptJson {
            attempt: attempt.attempt,
            started_at: rfc3339(attempt.started_at),
            ended_at: rfc3339(attempt.ended_at),
            outcome: &attempt.outcome,
            error: attempt.error.as_str(),
        };
        self.failed_attempts = Some(attempts.iter().map(json).collect());
        self
    }
}

/// JSON as it was stored; bytes that are not JSON as `{"base64": …}`.
fn raw(content_type: ContentType, bytes: &[u8]) -> Box<RawValue> {
    let json = std::str::from_utf8(bytes).ok().filter(|_| content_type == ContentType::Json);
    if let Some(json) = json.and_then(|json| RawValue::from_string(json.to_owned()).ok()) {
        return json;
    }
    RawValue::from_string(format!("{{\"base64\":\"{}\"}}", base64(bytes))).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            if place <= group.len() {
                text.push(char::from(ALPHABET[(bits >> (18 - 6 * place) & 63) as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// Headings of a list.
pub(crate) fn list() -> Columns {
    Columns::new(&[">ID", "TYPE", "QUEUE", "STATUS", ">ATTEMPT", "WHEN", "NOTE"])
}

/// A task as a row of a list.
pub(crate) fn row(task: &TaskRecord) -> [String; 7] {
    let state = &task.state;
    let status = match state.reason {
        Some(reason) => format!("failed({reason})"),
        None => state.status.to_string(),
    };
    let when = match state.status {
        Status::Queued => state.run_at,
        Status::Running => state.started_at.unwrap_or(state.run_at),
        Status::Completed | Status::Failed => state.completed_at.unwrap_or(state.run_at),
    };
    [
        task.id.to_string(),
        task.task_type.to_string(),
        task.queue.to_string(),
        status,
        format!("{}/{}", state.attempt, state.max_attempts),
        seconds(when),
        note(task),
    ]
}

/// A time to the second: enough for a list.
fn seconds(at: Timestamp) -> String {
    let text = rfc3339(at);
    text.split_once('.').map_or_else(|| text.clone(), |(whole, _)| format!("{whole}Z"))
}

/// How far a running task is, or the error of others.
fn note(task: &TaskRecord) -> String {
    if task.state.status == Status::Running
        && let Some(progress) = &task.progress
    {
        let message = progress.message().map(|message| format!(" {}", escaped(message))).unwrap_or_default();
        return format!("{} %{message}", progress.percent());
    }
    match &task.last_error {
        Some(error) if task.state.status != Status::Completed => shortened(&escaped(error.as_str()), ERROR_CHARS_MAX),
        _ => String::new(),
    }
}

/// All that is known of a task, as lines of text.
pub(crate) fn details(task: &TaskRecord, attempts: &[AttemptRecord]) -> Vec<String> {
    let state = &task.state;
    let mut lines = vec![format!("task {}", task.id)];
    let mut field = |name: &str, value: String| lines.push(format!("  {name:<12}{value}"));
    field("type", task.task_type.to_string());
    field("queue", task.queue.to_string());
    field(
        "status",
        match state.reason {
            Some(reason) => format!("failed, {reason}"),
            None if state.cancel_requested => format!("{}, asked to stop", state.status),
            None => state.status.to_string(),
        },
    );
    field("priority", task.priority.to_string());
    field("attempt", format!("{} of {}", state.attempt, state.max_attempts));
    field("created", rfc3339(state.created_at));
    field("due", rfc3339(state.run_at));
    if let Some(started_at) = state.started_at {
        field("started", rfc3339(started_at));
    }
    if let Some(completed_at) = state.completed_at {
        let took = state.started_at.map(|started_at| completed_at.since(started_at));
        field(
            "ended",
            match took {
                Some(took) => format!("{}, {} after the start", rfc3339(completed_at), duration::short(took)),
                None => rfc3339(completed_at),
            },
        );
    }
    field("deadline", state.deadline_at.map_or_else(|| "none".to_owned(), rfc3339));
    if let Some(worker) = &task.worker {
        field("worker", escaped(worker).into_owned());
    }
    if let Some(progress) = &task.progress {
        let message = progress.message().map(|message| format!("  {}", escaped(message))).unwrap_or_default();
        field("progress", format!("{} %{message}", progress.percent()));
    }
    field("payload", body(&task.payload));
    match &task.result {
        TaskResult::None => {}
        TaskResult::Value(value) => field("result", body(&Payload::json(value.clone()))),
        TaskResult::Dropped { bytes } => field("result", format!("dropped: {bytes} bytes were too large to be kept")),
    }
    // The history has it too, when it has anything.
    if let Some(error) = task.last_error.as_ref().filter(|_| attempts.is_empty()) {
        lines.push("  last error".to_owned());
        indented(&mut lines, error.as_str());
    }
    for attempt in attempts {
        let ran = duration::short(attempt.ended_at.since(attempt.started_at));
        lines.push(format!(
            "  attempt {} began {}, ran {ran}: {}",
            attempt.attempt,
            rfc3339(attempt.started_at),
            escaped(&attempt.outcome)
        ));
        indented(&mut lines, attempt.error.as_str());
    }
    lines
}

fn indented(lines: &mut Vec<String>, text: &str) {
    lines.extend(text.lines().map(|line| format!("    {}", escaped(line))));
}

/// Bytes as text where they are text.
fn body(payload: &Payload) -> String {
    let bytes = payload.body();
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            let shown = shortened(&escaped(text), SHOWN_CHARS_MAX);
            let more = if shown.ends_with('…') {
                format!(" ({} bytes; --json prints all)", bytes.len())
            } else {
                String::new()
            };
            format!("{shown}{more}")
        }
        Err(_) => format!("{} bytes that are not text", bytes.len()),
    }
}

fn shortened(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_as_it_should_be() {
        let texts = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(texts, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }

    #[test]
    fn json_is_kept_and_the_rest_is_wrapped() {
        assert_eq!(raw(ContentType::Json, b"{\"a\": 1.0}").get(), "{\"a\": 1.0}");
        assert_eq!(raw(ContentType::Json, b"{").get(), "{\"base64\":\"ew==\"}");
        assert_eq!(raw(ContentType::Binary, b"1").get(), "{\"base64\":\"MQ==\"}");
        assert_eq!(raw(ContentType::Json, &[0xff]).get(), "{\"base64\":\"/w==\"}");
    }

    #[test]
    fn long_text_is_shortened_between_characters() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äöü…");
        assert!(body(&Payload::json("x".repeat(3_000))).ends_with("… (3000 bytes; --json prints all)"));
        assert_eq!(body(&Payload::json(vec![0xff])), "1 bytes that are not text");
    }
}
