//! Database URLs, as they may be shown: never with a password.

use std::borrow::Cow;
use std::ffi::OsString;
use std::ops::Range;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// The text with the password of every URL in it replaced by `***`.
///
/// A URL reaches to the next white space or quote, and what identifies the user to its last `@`, so that a password that
/// holds a `/` or an `@` it should have escaped is hidden as a whole.
pub(crate) fn redacted(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(scheme) = rest.find("://") {
        let (before, url) = rest.split_at(scheme + 3);
        shown.push_str(before);
        let end =
            url.find(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`' | '<' | '>')).unwrap_or(url.len());
        let (url, after) = url.split_at(end);
        // Of a list of URLs each is looked at alone. What might as well be a password is none.
        let (url, after) = match url.find("://") {
            Some(second) => {
                let start =
                    url[..second].rfind(|c: char| !c.is_ascii_alphanumeric() && c != '+').map_or(0, |at| at + 1);
                let first = &url[..start];
                let is_list = first.ends_with([',', ';', '|']) && (first.contains('@') || !first.contains(':'));
                if is_list { rest[before.len()..].split_at(start) } else { (url, after) }
            }
            None => (url, after),
        };
        match url.rfind('@') {
            Some(at) => {
                let user = url[..at].split(':').next().unwrap_or_default();
                shown.push_str(user);
                if user.len() < at {
                    shown.push_str(":***");
                }
                push_query(&mut shown, &url[at..]);
            }
            None => push_query(&mut shown, url),
        }
        rest = after;
    }
    shown.push_str(rest);
    Cow::Owned(shown)
}

/// The URL of a SQLite file.
pub(crate) fn file_url(path: &Path) -> String {
    let path = path.display().to_string().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    format!("sqlite://{path}")
}

/// The file of a SQLite URL, of which [`file_url`] makes one; nothing of any other.
pub(crate) fn file_of(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite:")?;
    let path = path.strip_prefix("//").unwrap_or(path).split('?').next().unwrap_or_default();
    let (mut bytes, mut rest) = (Vec::with_capacity(path.len()), path.as_bytes());
    while let [byte, after @ ..] = rest {
        let digits = after.get(..2).filter(|digits| *byte == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let escaped = digits.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(*byte));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    Some(PathBuf::from(OsString::from_vec(bytes)))
}

/// Where the host, or several, with their ports stand in the URL of a server. A password may hold a slash that it should have
/// escaped: the hosts begin after the last `@`.
pub(crate) fn hosts(url: &str) -> Range<usize> {
    let before = url.split('?').next().unwrap_or(url);
    let start = before.find("://").map_or(0, |at| at + 3);
    let start = before[start..].rfind('@').map_or(start, |at| start + at + 1);
    start..before[start..].find('/').map_or(before.len(), |at| start + at)
}

/// Some drivers take a password as a parameter too.
fn push_query(shown: &mut String, url: &str) {
    for (index, part) in url.split_inclusive(['?', '&']).enumerate() {
        let name = part.split('=').next().unwrap_or_default();
        if index > 0 && name.len() < part.len() && name.to_ascii_lowercase().contains("pass") {
            shown.push_str(name);
            shown.push_str("=***");
            if part.ends_with('&') {
                shown.push('&');
            }
        } else {
            shown.push_str(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn passwords_are_hidden() {
        for (text, shown) in [
            ("sqlite://queue.db", "sqlite://queue.db"),
            ("no url at all", "no url at all"),
            ("mysql://app:secret@127.0.0.1:3306/shop", "mysql://app:***@127.0.0.1:3306/shop"),
            ("mysql://app:se,cret@db1:3306,db2,db3:3307/shop", "mysql://app:***@db1:3306,db2,db3:3307/shop"),
            ("mysql://app@db/shop", "mysql://app@db/shop"),
            ("mysql://app:se/cr@t@db/shop", "mysql://app:***@db/shop"),
            ("mysql://:secret@db", "mysql://:***@db"),
            ("mysql://app:a://b@db/shop", "mysql://app:***@db/shop"),
            ("mysql://app:a,b://c@db/shop", "mysql://app:***@db/shop"),
            ("mysql://app:a@b://c@db/shop", "mysql://app:***@db/shop"),
            ("at 'mysql://a:b@c/d' and mysql://e:f@g/h.", "at 'mysql://a:***@c/d' and mysql://e:***@g/h."),
            ("mysql://a:b@c/d,mysql://e:f@g/h", "mysql://a:***@c/d,mysql://e:***@g/h"),
            ("mysql://db/x?password=abc&tls=on", "mysql://db/x?password=***&tls=on"),
        ] {
            assert_eq!(redacted(text), shown);
        }
    }

    #[test]
    fn a_file_and_its_url_name_the_same() {
        for name in ["queue.db", "/a b/q.db", "50%/what?#.db", "%2", "%zz"] {
            assert_eq!(file_of(&file_url(Path::new(name))), Some(PathBuf::from(name)));
        }
        let file = |url| file_of(url).map(|file| file.display().to_string());
        assert_eq!(file("sqlite:my%20db.db?mode=ro").as_deref(), Some("my db.db"));
        assert_eq!(file("mysql://app@db/shop"), None);
    }

    proptest! {
        #[test]
        fn no_password_survives(password in "[A-Za-z0-9@:/?&=%#!]{1,30}", before in "[a-z ]{0,9}") {
            let secret = format!("Q{password}Q");
            let shown = redacted(&format!("{before}mysql://app:{secret}@host/db refused")).into_owned();
            prop_assert!(!shown.contains(&secret), "{}", shown);
        }

        #[test]
        fn any_text_is_taken(text in "\\PC{0,200}") {
            let _ = redacted(&text);
        }
    }
}
