//! What is printed when a command fails: one line that says what, and one that says what helps.

use std::fmt;
use std::io::{self, Write as _};

use crate::output::escape::escaped;
use crate::url::redacted;

/// The documented exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// 0: nobody reads any more.
    Quiet = 0,
    /// 1: it was tried and did not work.
    Failed = 1,
    /// 2: the command line or the input is not valid; nothing was done.
    Usage = 2,
    /// 3: there is no such task.
    NotFound = 3,
}

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    message: String,
    hint: Option<String>,
}

/// What commands return.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// Exit code 1.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Code::Failed, message)
    }

    /// Exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    /// The reader of standard output has gone: there is nobody to tell, and nothing is wrong.
    pub(crate) const fn quiet() -> Self {
        Self { code: Code::Quiet, message: String::new(), hint: None }
    }

    /// Adds what helps: a command, or what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) const fn code(&self) -> Code {
        self.code
    }

    /// What helps, when there is something.
    pub(crate) fn help(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// What went wrong, as it was given.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |text: &str| escaped(&redacted(&one_line(text))).into_owned();
        write!(f, "error: {}", line(&self.message))?;
        match &self.hint {
            Some(hint) => write!(f, "\n  try: {}", line(hint)),
            None => Ok(()),
        }
    }
}

/// Prints a failure to standard error. When that is closed there is nobody to tell.
pub(crate) fn tell(failure: &Failure) {
    let _ = writeln!(io::stderr(), "{failure}");
}

/// Joins the lines of a message, with one space where there was a break.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_one_line_each_without_secrets() {
        let failure = Failure::failed("cannot reach mysql://app:secret@db/shop:\n  refused\u{1b}[0m").hint("ping\ndb");
        assert_eq!(
            failure.to_string(),
            "error: cannot reach mysql://app:***@db/shop: refused\\u{1b}[0m\n  try: ping db"
        );
        assert_eq!(Failure::usage("no").to_string(), "error: no");
        assert_eq!([Code::Failed, Code::Usage, Code::NotFound].map(|code| code as u8), [1, 2, 3]);
    }
}
