//! Control characters in stored text must not reach a terminal: they could move its cursor, retitle it or hide text.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character could do something to a terminal other than show: C0, DEL, C1, and those that turn the
/// direction of text around.
fn acts(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text on one line, with every such character written as an escape.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if acts(c) => write!(shown, "\\u{{{:x}}}", c as u32).expect("writing to a string works"),
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// JSON on one line, with every such character written as JSON writes it. In valid JSON they stand in strings only, or,
/// as white space, between tokens.
pub(crate) fn escaped_json(json: &str) -> Cow<'_, str> {
    if !json.contains(acts) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match c {
            '\n' | '\r' | '\t' => shown.push(' '),
            c if acts(c) => write!(shown, "\\u{:04x}", c as u32).expect("writing to a string works"),
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_acts_is_escaped() {
        assert_eq!(escaped("plain é ✓"), "plain é ✓");
        assert_eq!(escaped("a\nb\tc\r\u{1b}[2J\u{9b}\u{7f}\u{202e}"), "a\\nb\\tc\\r\\u{1b}[2J\\u{9b}\\u{7f}\\u{202e}");
        assert_eq!(escaped_json("{\n\"a\":\t\"\u{9b}\u{7f}\"}"), "{ \"a\": \"\\u009b\\u007f\"}");
    }

    proptest! {
        #[test]
        fn nothing_that_acts_is_left(text in any::<String>()) {
            prop_assert!(!escaped(&text).contains(acts));
        }

        #[test]
        fn escaped_json_means_the_same(text in any::<String>()) {
            let json = serde_json::to_string_pretty(&[&text]).unwrap();
            let shown = escaped_json(&json);
            prop_assert!(!shown.contains(acts));
            prop_assert_eq!(serde_json::from_str::<Vec<String>>(&shown).unwrap(), vec![text]);
        }
    }
}
