//! What commands print. Text that was stored is escaped on its way out.

pub(crate) mod doctor;
pub(crate) mod escape;
pub(crate) mod stats;
pub(crate) mod table;
pub(crate) mod task;
pub(crate) mod worker;

use std::io::{self, IsTerminal as _, StdoutLock, Write as _};

use serde::Serialize;

use crate::failure::{Failure, Outcome};

/// Standard output. When its reader has gone, printing ends the program quietly, as `queue task list | head -1` shall.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: io::BufWriter<StdoutLock<'static>>,
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { stdout: io::BufWriter::new(io::stdout().lock()), json }
    }

    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a line of text, which must be safe to print as it is.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> Outcome {
        let written = writeln!(self.stdout, "{}", text.as_ref());
        check(written)
    }

    /// Prints a value as a line of JSON.
    pub(crate) fn value(&mut self, value: &impl Serialize) -> Outcome {
        let json = serde_json::to_string(value).map_err(|error| Failure::failed(format!("cannot print: {error}")))?;
        self.line(escape::escaped_json(&json))
    }

    /// Makes sure that everything is out.
    pub(crate) fn flush(&mut self) -> Outcome {
        let flushed = self.stdout.flush();
        check(flushed)
    }
}

fn check(written: io::Result<()>) -> Outcome {
    match written {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::quiet()),
        Err(error) => Err(Failure::failed(format!("cannot write to standard output: {error}"))),
    }
}

/// Whether a person looks at what goes to standard error, so that progress may be shown there.
pub(crate) fn watched() -> bool {
    io::stderr().is_terminal()
}

/// `1 task`, `2 tasks`, `12,041 tasks`.
pub(crate) fn tasks(count: u64) -> String {
    format!("{} task{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// A number with its thousands set apart: `12,041`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1_000, 12_041, 1_234_567].map(grouped), ["0", "999", "1,000", "12,041", "1,234,567"]);
        assert_eq!([1, 2, 3_000].map(tasks), ["1 task", "2 tasks", "3,000 tasks"]);
    }
}
