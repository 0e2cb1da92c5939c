//! What a program prints: read to the end, so that it never waits for a reader, and kept within bounds.

use std::io;

use queue_runtime::queue_core::text::ERROR_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest line that is looked at for progress, in bytes.
const LINE_BYTES_MAX: usize = 1024;
const CHUNK_BYTES: usize = 8 * 1024;

/// The beginning of a stream, up to a limit.
#[derive(Debug)]
pub(crate) struct Head {
    limit: u64,
    bytes: Vec<u8>,
    total: u64,
}

impl Head {
    pub(crate) const fn new(limit: u64) -> Self {
        Self { limit, bytes: Vec::new(), total: 0 }
    }

    /// Reads to the end.
    pub(crate) async fn read(&mut self, stream: impl AsyncRead + Unpin) -> io::Result<()> {
        each_chunk(stream, |chunk| self.take(chunk)).await
    }

    fn take(&mut self, chunk: &[u8]) {
        self.total = self.total.saturating_add(chunk.len() as u64);
        let room = usize::try_from(self.limit).unwrap_or(usize::MAX).saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&chunk[..room.min(chunk.len())]);
    }

    /// What was read, when it is within the limit; else how much there was.
    pub(crate) fn whole(self) -> Result<Vec<u8>, u64> {
        if self.total > self.limit { Err(self.total) } else { Ok(self.bytes) }
    }
}

/// The end of a stream of lines, without those that report progress.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    kept: Vec<u8>,
    cut: bool,
    line: Vec<u8>,
    /// The line at hand is too long to be looked at; what there was of it is in `kept`.
    long: bool,
}

impl Tail {
    /// Reads to the end, and tells of progress as it comes.
    pub(crate) async fn read(
        &mut self,
        stream: impl AsyncRead + Unpin,
        mut progress: impl FnMut(u8, &str),
    ) -> io::Result<()> {
        each_chunk(stream, |chunk| self.take(chunk, &mut progress)).await?;
        self.end_line(&mut progress);
        Ok(())
    }

    fn take(&mut self, chunk: &[u8], progress: &mut impl FnMut(u8, &str)) {
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.end_line(progress);
            } else if self.long || self.line.len() > LINE_BYTES_MAX {
                self.long = true;
                self.keep_line();
            }
        }
    }

    fn end_line(&mut self, progress: &mut impl FnMut(u8, &str)) {
        let report = if self.long { None } else { parse_progress(&self.line) };
        match report {
            Some((percent, message)) => {
                progress(percent, &message);
                self.line.clear();
            }
            None => self.keep_line(),
        }
        self.long = false;
    }

    fn keep_line(&mut self) {
        self.kept.append(&mut self.line);
        if self.kept.len() > 4 * ERROR_BYTES_MAX {
            self.kept.drain(..self.kept.len() - ERROR_BYTES_MAX);
            self.cut = true;
        }
    }

    /// The introduction with the end of the stream, cut at its front so that both fit into a stored error. What is not UTF-8
    /// is replaced.
    pub(crate) fn told(&self, introduction: &str) -> String {
        // What a line without an end holds has not been kept yet when reading was given up.
        let bytes = [self.kept.as_slice(), &self.line].concat();
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        if text.is_empty() {
            return introduction.to_owned();
        }
        let room = ERROR_BYTES_MAX.saturating_sub(introduction.len() + ": …".len());
        let start = text.ceil_char_boundary(text.len().saturating_sub(room));
        let mark = if start > 0 || self.cut { "…" } else { "" };
        format!("{introduction}: {mark}{}", &text[start..])
    }
}

/// Reads `progress: 40 halfway`, also `progress: 40% halfway`. More than 100 is 100.
fn parse_progress(line: &[u8]) -> Option<(u8, String)> {
    let line = String::from_utf8_lossy(line);
    let rest = line.strip_prefix("progress:")?.trim();
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, message) = rest.split_at(digits);
    if number.is_empty() {
        return None;
    }
    // A number too large to be read is more than 100.
    let percent = number.parse::<u64>().map_or(100, |number| number.min(100));
    let message = message.strip_prefix('%').unwrap_or(message);
    if !message.is_empty() && !message.starts_with(char::is_whitespace) {
        return None;
    }
    Some((u8::try_from(percent).unwrap_or(100), message.trim().to_owned()))
}

async fn each_chunk(mut stream: impl AsyncRead + Unpin, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match stream.read(&mut chunk).await? {
            0 => return Ok(()),
            read => each(&chunk[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tail(chunks: &[&[u8]]) -> (Tail, Vec<(u8, String)>) {
        let (mut tail, mut reports) = (Tail::default(), Vec::new());
        let mut progress = |percent, message: &str| reports.push((percent, message.to_owned()));
        for chunk in chunks {
            tail.take(chunk, &mut progress);
        }
        tail.end_line(&mut progress);
        (tail, reports)
    }

    #[test]
    fn the_head_is_bounded() {
        let mut head = Head::new(4);
        head.take(b"abc");
        head.take(b"d");
        assert_eq!(head.bytes, b"abcd");
        head.take(b"ef");
        assert_eq!((head.bytes.len(), head.whole()), (4, Err(6)));
    }

    #[test]
    fn progress_is_reported_and_not_kept() {
        let (tail, reports) =
            tail(&[b"hello\nprog", b"ress: 40 half", b"way\nprogress: 250%\nprogress: soon\n", b"progress: 100"]);
        assert_eq!(reports, [(40, "halfway".to_owned()), (100, String::new()), (100, String::new())]);
        assert_eq!(tail.told("exit status 1"), "exit status 1: hello\nprogress: soon");
    }

    #[test]
    fn the_tail_is_bounded_and_readable() {
        let long = [b"x".repeat(9_000), b"\n".to_vec(), "é".repeat(9_000).into_bytes(), vec![0xff, b'\n']].concat();
        let (tail, _) = tail(&[&long]);
        let told = tail.told("exit status 1");
        assert!(told.len() <= ERROR_BYTES_MAX && told.len() > ERROR_BYTES_MAX - 8, "{}", told.len());
        assert!(told.starts_with("exit status 1: …é") && told.ends_with("é\u{fffd}"), "{told}");
        assert_eq!(Tail::default().told("exit status 1"), "exit status 1");
    }

    #[test]
    fn a_line_that_was_not_ended_is_told() {
        let mut tail = Tail::default();
        tail.take(b"half a li", &mut |_, _| {});
        assert_eq!(tail.told("exit status 1"), "exit status 1: half a li");
    }

    #[test]
    fn a_long_line_is_no_progress() {
        let line = [b"progress: 1 ".to_vec(), b"y".repeat(3_000), b"\nprogress: 2\n".to_vec()].concat();
        let (_, reports) = tail(&[&line[..2_000], &line[2_000..]]);
        assert_eq!(reports, [(2, String::new())]);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_taken(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3_000), 0..12)) {
            let chunks = chunks.iter().map(Vec::as_slice).collect::<Vec<_>>();
            let (tail, _) = tail(&chunks);
            prop_assert!(tail.kept.len() <= 4 * ERROR_BYTES_MAX + LINE_BYTES_MAX);
            prop_assert!(tail.told("exit status 1").len() <= ERROR_BYTES_MAX);
        }

        #[test]
        fn pieces_do_not_matter(text in "(progress: [0-9]{1,3} [a-z]{0,5}\n|[a-z ]{0,20}\n){0,8}", at in 0_usize..100) {
            let at = at.min(text.len());
            let (whole, reports) = tail(&[text.as_bytes()]);
            let (pieces, same) = tail(&[&text.as_bytes()[..at], &text.as_bytes()[at..]]);
            prop_assert_eq!(whole.kept, pieces.kept);
            prop_assert_eq!(reports, same);
        }
    }
}
