//! Where a store lives and how it is opened.

use std::path::{Path, PathBuf};
use std::time::Duration;

use queue_core::{StoreError, StoreLimits, Timestamp};

use crate::clock::Now;

/// Where a store lives and how it is opened.
///
/// As a URL: `sqlite://queue.db` (relative), `sqlite:///var/lib/app/queue.db` (absolute), `sqlite::memory:`. The one parameter
/// is `mode`: `rwc` (the default: made when it is missing), `rw` (must be there) or `ro` (only looked at). Bytes that a URL
/// cannot have are written as `%20`.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    pub(crate) place: Place,
    pub(crate) mode: Mode,
    pub(crate) limits: StoreLimits,
    pub(crate) busy_timeout: Duration,
    pub(crate) now: Now,
}

/// Where a store lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Memory,
    File(PathBuf),
}

/// What opening may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    ReadOnly,
    ReadWrite,
    Create,
}

impl SqliteOptions {
    /// This file, made when it is missing.
    #[must_use]
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self::at(Place::File(path.as_ref().to_owned()))
    }

    /// A database in memory, of this store alone.
    #[must_use]
    pub fn memory() -> Self {
        Self::at(Place::Memory)
    }

    const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

    fn at(place: Place) -> Self {
        Self {
            place,
            mode: Mode::Create,
            limits: StoreLimits::DEFAULT,
            busy_timeout: Self::BUSY_TIMEOUT,
            now: Now::machine(),
        }
    }

    /// What a URL says.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] when it is not a SQLite URL or has a parameter that is not known.
    pub fn from_url(url: &str) -> Result<Self, StoreError> {
        let rest = url.strip_prefix("sqlite:").ok_or_else(|| refused("a SQLite URL reads sqlite://queue.db"))?;
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (path, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let path = decoded(path)?;
        let mut options = match path.as_str() {
            "" => return Err(refused("the SQLite URL names no file; it reads sqlite://queue.db")),
            ":memory:" => Self::memory(),
            path => Self::file(path),
        };
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            options.mode = match parameter.split_once('=').unwrap_or((parameter, "")) {
                ("mode", "ro") => Mode::ReadOnly,
                ("mode", "rw") => Mode::ReadWrite,
                ("mode", "rwc") => Mode::Create,
                ("mode", _) => return Err(refused("the mode in a SQLite URL is ro, rw or rwc")),
                (name, _) => {
                    return Err(refused(format!(
                        "the SQLite URL has the parameter {name:?}; the only one known is mode"
                    )));
                }
            };
        }
        if options.place == Place::Memory && options.mode == Mode::ReadOnly {
            return Err(refused("a SQLite database in memory cannot be read-only"));
        }
        Ok(options)
    }

    /// Only looks: every write is refused as [`StoreError::Denied`].
    #[must_use]
    pub const fn read_only(mut self) -> Self {
        self.mode = Mode::ReadOnly;
        self
    }

    /// The file must be there already.
    #[must_use]
    pub const fn existing(mut self) -> Self {
        if matches!(self.mode, Mode::Create) {
            self.mode = Mode::ReadWrite;
        }
        self
    }

    /// With these bounds.
    #[must_use]
    pub const fn limits(mut self, limits: StoreLimits) -> Self {
        self.limits = limits;
        self
    }

    /// How long a write waits for another process's transaction before it is tried again; 5 s. After three tries it
    /// is [`StoreError::Unavailable`].
    #[must_use]
    pub const fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// With another clock than the machine's: for tests and simulations, in which time is moved by hand.
    #[must_use]
    pub fn clock(mut self, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.now = Now::new(now);
        self
    }
}

impl SqliteOptions {
    /// What is said to be the server.
    pub(crate) fn server(&self) -> String {
        match &self.place {
            Place::Memory => "sqlite memory".to_owned(),
            Place::File(path) => format!("sqlite {}", path.display()),
        }
    }
}

fn refused(reason: impl Into<String>) -> StoreError {
    StoreError::Unsupported { reason: reason.into() }
}

/// The path of a URL with its `%20` resolved.
fn decoded(path: &str) -> Result<String, StoreError> {
    let bad =
        || refused("the path in the SQLite URL has a % that is not followed by two hexadecimal digits of UTF-8 text");
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = (digit().ok_or_else(bad)?, digit().ok_or_else(bad)?);
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| bad())?);
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> (Place, Mode) {
        let options = SqliteOptions::from_url(url).unwrap();
        (options.place, options.mode)
    }

    #[test]
    fn urls_name_files_or_memory() {
        let file = |path: &str| Place::File(path.into());
        assert_eq!(parse("sqlite://queue.db"), (file("queue.db"), Mode::Create));
        assert_eq!(parse("sqlite:queue.db"), (file("queue.db"), Mode::Create));
        assert_eq!(parse("sqlite://../a/q.db?mode=rw"), (file("../a/q.db"), Mode::ReadWrite));
        assert_eq!(parse("sqlite:///abs/my%20q.db?mode=ro"), (file("/abs/my q.db"), Mode::ReadOnly));
        assert_eq!(parse("sqlite:///abs/q.db?mode=rwc"), (file("/abs/q.db"), Mode::Create));
        assert_eq!(SqliteOptions::file("q.db").existing().mode, Mode::ReadWrite);
        assert_eq!(SqliteOptions::file("q.db").read_only().existing().mode, Mode::ReadOnly);
        assert_eq!(parse("sqlite::memory:"), (Place::Memory, Mode::Create));
        assert_eq!(parse("sqlite://:memory:"), (Place::Memory, Mode::Create));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let told = [
            "mysql://localhost/x",
            "sqlite://",
            "sqlite://a%2",
            "sqlite://a%ff",
            "sqlite://q.db?cache=shared",
            "sqlite://q.db?mode=fast",
            "sqlite://q.db?mode",
            "sqlite::memory:?mode=ro",
        ]
        .map(|url| SqliteOptions::from_url(url).unwrap_err().to_string());
        assert_eq!(
            told,
            [
                "a SQLite URL reads sqlite://queue.db",
                "the SQLite URL names no file; it reads sqlite://queue.db",
                "the path in the SQLite URL has a % that is not followed by two hexadecimal digits of UTF-8 text",
                "the path in the SQLite URL has a % that is not followed by two hexadecimal digits of UTF-8 text",
                "the SQLite URL has the parameter \"cache\"; the only one known is mode",
                "the mode in a SQLite URL is ro, rw or rwc",
                "the mode in a SQLite URL is ro, rw or rwc",
                "a SQLite database in memory cannot be read-only",
            ]
        );
    }
}
