//! Payloads and results as JSON. No error in here quotes a value: `serde_json` does, and these errors are stored and told.

use queue_core::payload::ContentType;
use queue_core::{Payload, TaskResult, TaskType};
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::error::Category;

use crate::task::Task;

/// A value that does not encode as JSON, such as a map whose keys are not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it does not encode as JSON; the keys of a map must be text, and no field's `Serialize` may fail")]
pub struct EncodeError(());

/// A payload that does not decode: only where and of what kind the trouble is, never a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("the payload does not decode as {task_type}: {category} error at line {line} column {column}")]
    Json { task_type: TaskType, category: &'static str, line: usize, column: usize },
    #[error("the payload does not decode as {task_type}: it is not JSON but {found}")]
    ContentType { task_type: TaskType, found: &'static str },
}

pub(crate) fn encode<T: Task>(task: &T) -> Result<Payload, EncodeError> {
    serde_json::to_vec(task).map(Payload::json).map_err(|_| EncodeError(()))
}

pub(crate) fn decode<T: Task>(payload: &Payload) -> Result<T, DecodeError> {
    if payload.content_type() != ContentType::Json {
        return Err(DecodeError::ContentType { task_type: T::TYPE, found: "binary" });
    }
    serde_json::from_slice(payload.body()).map_err(|error| DecodeError::Json {
        task_type: T::TYPE,
        category: match error.classify() {
            Category::Io => "input",
            Category::Syntax => "syntax",
            Category::Data => "data",
            Category::Eof => "end of input",
        },
        line: error.line(),
        column: error.column(),
    })
}

/// The output as a result; `null`, which `()` is, leaves none.
pub(crate) fn encode_output<O: Serialize>(output: &O, bytes_max: u64) -> Result<TaskResult, EncodeError> {
    let json = serde_json::to_vec(output).map_err(|_| EncodeError(()))?;
    Ok(if json == b"null" { TaskResult::None } else { TaskResult::bounded(json.into(), bytes_max) })
}

/// A result that was not made here: bounded, and refused when it is not JSON.
pub(crate) fn check_result(result: TaskResult, bytes_max: u64) -> Result<TaskResult, EncodeError> {
    let TaskResult::Value(json) = result else { return Ok(result) };
    match TaskResult::bounded(json, bytes_max) {
        TaskResult::Value(json) => {
            serde_json::from_slice::<IgnoredAny>(&json).map_err(|_| EncodeError(()))?;
            Ok(TaskResult::Value(json))
        }
        dropped => Ok(dropped),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Login {
        user: String,
        tries: u8,
    }

    impl Task for Login {
        const TYPE: TaskType = TaskType::new("auth.login");
        type Output = ();
    }

    #[test]
    fn payloads_round_trip() {
        let login = || Login { user: "ada".to_owned(), tries: 2 };
        assert_eq!(decode::<Login>(&encode(&login()).unwrap()).unwrap(), login());
    }

    #[test]
    fn a_decode_error_quotes_no_value() {
        let told = |body: &'static str| decode::<Login>(&Payload::json(body)).unwrap_err().to_string();
        let at = |what| format!("the payload does not decode as auth.login: {what}");
        assert_eq!(told(r#"{"user":"ada","tries":"hunter2"}"#), at("data error at line 1 column 31"));
        assert_eq!(told(r#"{"user":"ada","#), at("end of input error at line 1 column 14"));
        assert_eq!(told("hunter2"), at("syntax error at line 1 column 1"));
        let binary = Payload::new(ContentType::Binary, "{}");
        assert_eq!(decode::<Login>(&binary).unwrap_err().to_string(), at("it is not JSON but binary"));
    }

    #[test]
    fn results_are_bounded_and_nothing_is_none() {
        assert_eq!(encode_output(&(), 9), Ok(TaskResult::None));
        assert_eq!(encode_output(&"ab", 4), Ok(TaskResult::Value(Bytes::from_static(b"\"ab\""))));
        assert_eq!(encode_output(&"abc", 4), Ok(TaskResult::Dropped { bytes: 5 }));
        let keyed_by_list = BTreeMap::from([(vec![1], 1)]);
        assert_eq!(encode_output(&keyed_by_list, 9), Err(EncodeError(())));
    }

    #[test]
    fn raw_results_must_be_json() {
        let value = |text: &'static str| TaskResult::Value(Bytes::from_static(text.as_bytes()));
        assert_eq!(check_result(value("{}"), 2), Ok(value("{}")));
        assert_eq!(check_result(value("{} "), 2), Ok(TaskResult::Dropped { bytes: 3 }));
        assert_eq!(check_result(value("{"), 2), Err(EncodeError(())));
        assert_eq!(check_result(TaskResult::None, 2), Ok(TaskResult::None));
    }
}
