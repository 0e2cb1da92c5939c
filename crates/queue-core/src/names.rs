//! Names of task types and queues: short, printable, safe in a label, a path and a log line.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// The longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name is empty.
    #[error("a name must not be empty; use 1 to 64 of A-Z a-z 0-9 . _ -")]
    Empty,
    /// The name is longer than [`NAME_BYTES_MAX`].
    #[error("a name of {length} bytes is too long; use 1 to 64 of A-Z a-z 0-9 . _ -")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// A character that names may not have.
    #[error("a name must not contain what is at its byte {}; use 1 to 64 of A-Z a-z 0-9 . _ -", .position + 1)]
    Character {
        /// The offending byte's position, from 0.
        position: usize,
    },
}

const fn check(name: &str) -> Result<(), NameError> {
    let bytes = name.as_bytes();
    if bytes.is_empty() {
        return Err(NameError::Empty);
    }
    if bytes.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { length: bytes.len() });
    }
    let mut position = 0;
    while position < bytes.len() {
        if !matches!(bytes[position], b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-') {
            return Err(NameError::Character { position });
        }
        position += 1;
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Cow<'static, str>);

        impl $name {
            /// The name, checked; in a `const` it is checked when compiled.
            ///
            /// # Panics
            ///
            /// When the name is not 1 to 64 of `A-Z a-z 0-9 . _ -`.
            #[must_use]
            pub const fn new(name: &'static str) -> Self {
                assert!(check(name).is_ok(), "a name is 1 to 64 of A-Z a-z 0-9 . _ -");
                Self(Cow::Borrowed(name))
            }

            /// The name, checked at run time.
            ///
            /// # Errors
            ///
            /// When the name is not 1 to 64 of `A-Z a-z 0-9 . _ -`.
            pub fn parse(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                check(&name)?;
                Ok(Self(Cow::Owned(name)))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::parse(name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// What kind of work a task is, for example `mail.welcome`. Written by hand, never derived from a Rust name, so
    /// that renaming a type cannot orphan stored tasks.
    TaskType
}

name! {
    /// The queue a task waits in, for example `reports`.
    QueueName
}

impl QueueName {
    /// The queue of tasks that name none.
    pub const DEFAULT: Self = Self::new("default");
}

impl Default for QueueName {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(TaskType::parse("mail.welcome-2_b").unwrap().to_string(), "mail.welcome-2_b");
        assert_eq!(TaskType::parse(""), Err(NameError::Empty));
        assert_eq!(QueueName::parse("x".repeat(65)), Err(NameError::TooLong { length: 65 }));
        assert_eq!("a b".parse::<QueueName>(), Err(NameError::Character { position: 1 }));
        assert_eq!(QueueName::default().as_ref(), "default");
        assert_eq!(format!("{:?} {:<4}|", TaskType::new("a"), TaskType::new("a")), "\"a\" a   |");
    }

    #[test]
    #[should_panic(expected = "1 to 64")]
    fn a_bad_constant_panics() {
        let _ = TaskType::new("no spaces");
    }
}
