//! Child processes: each leads a group of its own, so that one signal ends it and all that it started.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::interrupt::{self, Group};

/// Runs `command` with this terminal's output and fails if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    command.stdin(Stdio::null());
    let (mut child, _group) = spawn(command)?;
    let status = child.wait().with_context(|| describe(command))?;
    interrupt::check()?;
    if !status.success() {
        bail!("`{}` failed ({status})", describe(command));
    }
    Ok(())
}

/// Runs `command`, hands each line of its standard output to `line`, and says whether it succeeded.
pub(crate) fn lines(command: &mut Command, mut line: impl FnMut(&str)) -> Result<bool> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let (mut child, _group) = spawn(command)?;
    let stdout = child.stdout.take().expect("piped just above");
    let mut reader = BufReader::new(stdout);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).with_context(|| describe(command))? > 0 {
        line(String::from_utf8_lossy(&bytes).trim_end_matches('\n'));
        bytes.clear();
    }
    let status = child.wait().with_context(|| describe(command))?;
    interrupt::check()?;
    Ok(status.success())
}

/// Runs `command` quietly and returns its standard output; its standard error is in the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = collect(command, None)?.expect("no limit was set");
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", describe(command), output.status, stderr.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` printed no UTF-8", describe(command)))
}

/// Runs `command` quietly; `None` if it did not end in time or could not be started.
pub(crate) fn output_within(command: &mut Command, limit: Duration) -> Result<Option<Output>> {
    match collect(command, Some(limit)) {
        Ok(output) => Ok(output),
        Err(_) => interrupt::check().map(|()| None),
    }
}

/// The command as a person would type it, near enough for a message, and without what only its user shall know.
pub(crate) fn describe(command: &Command) -> String {
    let mut words: Vec<_> = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(OsStr::to_string_lossy).map(without_user));
    words[0] = words[0].rsplit('/').next().unwrap_or_default().to_owned().into();
    let line = words.join(" ");
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// A URL without user and password.
fn without_user(word: Cow<'_, str>) -> Cow<'_, str> {
    match (word.split_once("://"), word.rsplit_once('@')) {
        (Some((scheme, rest)), Some((_, after))) if rest.contains('@') => format!("{scheme}://…@{after}").into(),
        _ => word,
    }
}

/// The time, for limits and for figures that people read.
#[expect(clippy::disallowed_methods, reason = "a developer's tool runs on wall time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

fn spawn(command: &mut Command) -> Result<(Child, Group)> {
    interrupt::check()?;
    let child = command.process_group(0).spawn().with_context(|| format!("cannot start `{}`", describe(command)))?;
    let group = Group::watch(child.id());
    Ok((child, group))
}

fn collect(command: &mut Command, limit: Option<Duration>) -> Result<Option<Output>> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (child, group) = spawn(command)?;
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = match limit {
        None => receiver.recv().ok(),
        Some(limit) => receiver.recv_timeout(limit).ok(),
    };
    drop(group); // what did not end in time ends here
    interrupt::check()?;
    output.transpose().with_context(|| describe(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_in_no_message() {
        let mut command = Command::new("/usr/bin/queue");
        command.args([
            "bench",
            "--database-url",
            "mysql://app:p@ss/w@h1,h2/shop",
            "--database-url=mysql://app:b@h",
            "x@y",
            "a://b",
        ]);
        let told = "queue bench --database-url mysql://…@h1,h2/shop --database-url=mysql://…@h x@y a://b";
        assert_eq!(describe(&command), told);
    }
}
