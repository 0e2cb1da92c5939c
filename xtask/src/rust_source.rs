//! Just enough of Rust's syntax for the checks: string literals apart from code and comments, and where a file's
//! tests begin.

/// A string literal and the line on which it begins, from 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Literal<'a> {
    pub(crate) line: usize,
    pub(crate) text: &'a str,
}

/// The part of `source` before its `#[cfg(test)]` module; tests come last in a file (style rule 14).
pub(crate) fn without_tests(source: &str) -> &str {
    let mut end = source.len();
    let mut offset = 0;
    let mut marked = None;
    for line in source.split_inclusive('\n') {
        let text = line.trim();
        if text == "#[cfg(test)]" {
            marked = Some(offset);
        } else if let Some(start) = marked {
            if text.starts_with("mod ") && text.ends_with('{') {
                end = start;
                break;
            }
            if !text.starts_with("#[") {
                marked = None;
            }
        }
        offset += line.len();
    }
    &source[..end]
}

/// The string literals of `source`, raw and byte strings included.
pub(crate) fn literals(source: &str) -> Vec<Literal<'_>> {
    let mut found = Vec::new();
    scan(source, |range, line| found.push(Literal { line, text: &source[range] }), |_| ());
    found
}

/// `source` with its comments blanked, line breaks kept.
pub(crate) fn without_comments(source: &str) -> String {
    let mut bytes = source.as_bytes().to_vec();
    scan(
        source,
        |_, _| (),
        |range| bytes[range].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' '),
    );
    String::from_utf8(bytes).expect("whole characters were replaced")
}

/// Walks over `source` and reports the inside of each string literal and the whole of each comment.
fn scan(
    source: &str,
    mut literal: impl FnMut(std::ops::Range<usize>, usize),
    mut comment: impl FnMut(std::ops::Range<usize>),
) {
    let bytes = source.as_bytes();
    let line_of = |at: usize| 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &source[at..];
        let end = if rest.starts_with("//") {
            let end = at + rest.find('\n').unwrap_or(rest.len());
            comment(at..end);
            end
        } else if rest.starts_with("/*") {
            let end = at + block_comment(rest);
            comment(at..end);
            end
        } else if let Some(hashes) = raw_string(source, at) {
            let start = at + 2 + hashes;
            let close = format!("\"{}", "#".repeat(hashes));
            let end = start + source[start..].find(&close).unwrap_or(source.len() - start);
            literal(start..end, line_of(start));
            end + close.len()
        } else if let Some(inside) = rest.strip_prefix('"') {
            let end = at + 1 + quoted(inside);
            literal(at + 1..end, line_of(at));
            end + 1
        } else if rest.starts_with('\'') {
            at + character(rest)
        } else {
            at + rest.chars().next().map_or(1, char::len_utf8)
        };
        at = end;
    }
}

/// The number of `#` of the raw string that begins at `at` with its `r`.
fn raw_string(source: &str, at: usize) -> Option<usize> {
    let before = source[..at].chars().next_back();
    let rest = source[at..].strip_prefix('r')?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let is_word = before.is_some_and(|c| (c.is_alphanumeric() && c != 'b' && c != 'c') || c == '_');
    (rest[hashes..].starts_with('"') && !is_word).then_some(hashes)
}

/// The length of a quoted string up to its closing quote.
fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at,
            _ => (),
        }
    }
    rest.len()
}

/// The length of a character literal, or 1 for the quote of a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            let _escaped = chars.next();
            chars.find(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 1)
        }
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 1),
        None => 1,
    }
}

/// The length of a block comment, nested ones included.
fn block_comment(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let (mut depth, mut at) = (0, 0);
    while at < bytes.len() {
        match &bytes[at..bytes.len().min(at + 2)] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::{literals, without_comments, without_tests};

    const SOURCE: &str = r##"
let a = "one \" two"; // "not"
/* "nor /* this */ " */ let c = '"'; let l: &'static str = r#"raw "x" here"#;
let b = b"bytes"; let e = '\''; let var = "last";
"##;

    #[test]
    fn literals_are_told_from_comments_characters_and_lifetimes() {
        let found: Vec<_> = literals(SOURCE).into_iter().map(|literal| (literal.line, literal.text)).collect();
        assert_eq!(found, [(2, "one \\\" two"), (3, "raw \"x\" here"), (4, "bytes"), (4, "last")]);
    }

    #[test]
    fn comments_go_and_lines_stay() {
        let code = without_comments(SOURCE);
        assert_eq!(code.lines().count(), SOURCE.lines().count());
        assert!(!code.contains("not") && !code.contains("nor") && code.contains("one"));
    }

    #[test]
    fn tests_begin_at_their_module_and_not_at_a_lone_attribute() {
        assert_eq!(without_tests("fn a() {}\n#[cfg(test)]\nmod tests {\n}\n"), "fn a() {}\n");
        assert_eq!(without_tests("#[cfg(test)]\n#[allow(x)]\nmod tests {\n}\n"), "");
        let other = "#[cfg(test)]\nuse x;\nfn a() {}\nmod inner {\n}\n";
        assert_eq!(without_tests(other), other);
    }
}
