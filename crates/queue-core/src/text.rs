//! Text that comes from handlers and is kept with a task.

use std::fmt;

/// The longest error text kept, in bytes.
pub const ERROR_BYTES_MAX: usize = 4096;

/// The beginning of a text, at most this many bytes, cut at a character's boundary.
#[must_use]
pub fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// The text of a handler's error, cut to [`ERROR_BYTES_MAX`] bytes at a character's boundary.
///
/// It may quote what the handler worked on: it is stored, and shown to who may see the task, but never logged. Its
/// `Debug` form tells only the length.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ErrorText(String);

impl ErrorText {
    /// The text, cut where it is too long.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.truncate(text.floor_char_boundary(ERROR_BYTES_MAX));
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ErrorText {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for ErrorText {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for ErrorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ErrorText({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_cut_between_characters() {
        assert_eq!([cut("aé", 2), cut("aé", 3), cut("aé", 99), cut("é", 0)], ["a", "aé", "aé", ""]);
    }

    #[test]
    fn is_cut_between_characters_and_hidden_in_debug() {
        let text = ErrorText::from(format!("{}é", "x".repeat(ERROR_BYTES_MAX - 1)));
        assert_eq!(text.as_str().len(), ERROR_BYTES_MAX - 1);
        assert_eq!(format!("{:?}", ErrorText::from("secret")), "ErrorText(6 bytes)");
    }
}
