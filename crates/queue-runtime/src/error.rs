//! How a handler ends without a value.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use queue_core::text::ERROR_BYTES_MAX;
use queue_core::{ErrorText, Outcome};

/// What a handler returns.
///
/// The second parameter is there so that a glob import does not break a program's own two-parameter `Result`s.
pub type Result<T = (), E = TaskError> = std::result::Result<T, E>;

/// Why a handler returns no value: an error to be retried, a final one, or the wish to run later.
///
/// It does not implement [`Error`], so that `?` turns *any* error into one, those of `anyhow` included. The error's
/// text is kept with its chain of sources, as `a: b: c`, and cut to 4 KiB. It is stored with the task and shown to who may see the
/// task, so the `Debug` form, which ends up in logs, tells only its length.
#[must_use]
pub struct TaskError {
    kind: Kind,
    text: ErrorText,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Retry(Option<Duration>),
    Reject,
    Snooze(Duration),
}

impl TaskError {
    /// An error after which the task is tried again, as far as its attempts allow.
    pub fn retry(error: impl Into<Self>) -> Self {
        error.into().with_kind(Kind::Retry(None))
    }

    /// An error that is final: the task fails as `rejected`, however many attempts are left.
    pub fn reject(error: impl Into<Self>) -> Self {
        error.into().with_kind(Kind::Reject)
    }

    /// No error: the task is to be run again after `delay`, and this attempt is refunded.
    pub fn snooze(delay: Duration) -> Self {
        Self { kind: Kind::Snooze(delay), text: ErrorText::from("snoozed") }
    }

    /// Tries the task again after this delay instead of its retry policy's, as far as its attempts allow.
    pub fn retry_in(self, delay: Duration) -> Self {
        self.with_kind(Kind::Retry(Some(delay)))
    }

    /// Whether the task is tried again as long as attempts are left.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, Kind::Retry(_))
    }

    /// Whether it is final.
    #[must_use]
    pub fn is_rejection(&self) -> bool {
        self.kind == Kind::Reject
    }

    /// The delay after which the task wants to be run again, when it was snoozed.
    #[must_use]
    pub fn snoozed_for(&self) -> Option<Duration> {
        match self.kind {
            Kind::Snooze(delay) => Some(delay),
            Kind::Retry(_) | Kind::Reject => None,
        }
    }

    /// The text that is kept.
    #[must_use]
    pub fn text(&self) -> &str {
        self.text.as_str()
    }

    /// A snooze stays one, because it is not an error.
    fn with_kind(self, kind: Kind) -> Self {
        match self.kind {
            Kind::Snooze(_) => self,
            Kind::Retry(_) | Kind::Reject => Self { kind, ..self },
        }
    }

    pub(crate) fn into_outcome(self) -> Outcome {
        match self.kind {
            Kind::Retry(delay) => Outcome::Errored { error: self.text, delay },
            Kind::Reject => Outcome::Rejected(self.text),
            Kind::Snooze(delay) => Outcome::Snoozed(delay),
        }
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for TaskError {
    fn from(error: E) -> Self {
        let error: Box<dyn Error + Send + Sync> = error.into();
        Self { kind: Kind::Retry(None), text: chain(error.as_ref()) }
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskError({:?}, {:?})", self.kind, self.text)
    }
}

/// `a: b: c`. A source whose text an error repeats at its own end, as many do, is not told twice.
fn chain(error: &dyn Error) -> ErrorText {
    let mut text = error.to_string();
    let mut last = text.clone();
    let mut source = error.source();
    while let Some(error) = source
        && text.len() <= ERROR_BYTES_MAX
    {
        let told = error.to_string();
        if !last.ends_with(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        last = told;
        source = error.source();
    }
    ErrorText::new(text)
}

/// Says of an error, where it occurs, what shall become of the task.
pub trait ResultExt<T> {
    /// Makes an error final: the task fails as `rejected`, however many attempts are left.
    ///
    /// # Errors
    ///
    /// The error, as a final one.
    fn or_reject(self) -> Result<T>;

    /// Tries the task again after this delay instead of its retry policy's, as far as its attempts allow.
    ///
    /// # Errors
    ///
    /// The error, as one with a delay.
    fn or_retry_in(self, delay: Duration) -> Result<T>;
}

impl<T, E: Into<TaskError>> ResultExt<T> for std::result::Result<T, E> {
    fn or_reject(self) -> Result<T> {
        self.map_err(TaskError::reject)
    }

    fn or_retry_in(self, delay: Duration) -> Result<T> {
        self.map_err(|error| error.into().retry_in(delay))
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot send: {0}")]
    struct Repeats(#[source] std::num::ParseIntError);

    fn parse(text: &str) -> std::result::Result<u8, std::num::ParseIntError> {
        text.parse()
    }

    #[test]
    fn any_error_becomes_one_with_its_chain() {
        fn handler() -> Result<u8> {
            Ok(parse("x")?)
        }
        fn contexts() -> anyhow::Result<u8> {
            parse("x").context("reading").context("loading")
        }
        fn deep() -> Result<u8> {
            Ok(contexts()?)
        }
        fn text() -> Result {
            Err("just so")?
        }

        assert_eq!(handler().unwrap_err().text(), "invalid digit found in string");
        assert_eq!(deep().unwrap_err().to_string(), "loading: reading: invalid digit found in string");
        assert_eq!(text().unwrap_err().text(), "just so");
        let repeats = TaskError::from(Repeats(parse("x").unwrap_err()));
        assert_eq!(repeats.text(), "cannot send: invalid digit found in string");
    }

    #[test]
    fn the_text_is_cut_and_hidden() {
        let error = TaskError::from("x".repeat(ERROR_BYTES_MAX + 1));
        assert_eq!(error.text().len(), ERROR_BYTES_MAX);
        assert_eq!(format!("{error:?}"), "TaskError(Retry(None), ErrorText(4096 bytes))");
    }

    #[test]
    fn errors_lead_to_outcomes() {
        let delay = Duration::from_secs(9);
        let errored = |delay| Outcome::Errored { error: ErrorText::from("invalid digit found in string"), delay };
        let rejected = Outcome::Rejected(ErrorText::from("invalid digit found in string"));

        assert_eq!(TaskError::retry(parse("x").unwrap_err()).into_outcome(), errored(None));
        assert_eq!(parse("x").or_retry_in(delay).unwrap_err().into_outcome(), errored(Some(delay)));
        assert_eq!(parse("x").or_reject().unwrap_err().into_outcome(), rejected);
        assert_eq!(TaskError::snooze(delay).into_outcome(), Outcome::Snoozed(delay));
    }

    #[test]
    fn a_snooze_is_not_an_error_to_reject() {
        let delay = Duration::from_secs(9);
        let snoozed = || Err::<(), _>(TaskError::snooze(delay));
        for error in [snoozed().or_reject(), snoozed().or_retry_in(Duration::ZERO)].map(Result::unwrap_err) {
            assert_eq!(error.snoozed_for(), Some(delay));
            assert!(!error.is_rejection() && !error.is_retryable());
        }
        assert!(TaskError::reject("no").is_rejection() && TaskError::retry("no").is_retryable());
        assert_eq!(TaskError::reject("no").snoozed_for(), None);
    }
}
