//! One run of a program on one task.

use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{io, process};

use nix::sys::signal::Signal;
use queue_runtime::{Ctx, Payload, Result, TaskError, TaskResult};
use serde::de::IgnoredAny;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::time::{sleep, timeout};

use super::assignment::Program;
use super::guard;
use super::launcher::{Launcher, Running};
use super::streams::{Head, Tail};
use crate::args::URL_VARIABLE;
use crate::time::rfc3339;

/// EX_DATAERR of sysexits.h: the task itself is wrong, and trying again will not help.
const REJECT: i32 = 65;
/// How long streams are read on after the program's end: something it started may have left the group and hold them.
const STREAMS_GRACE: Duration = Duration::from_secs(1);
/// How long a program has after SIGTERM, if the pool does not take it away before.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// What every run shares.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) program: Program,
    pub(crate) launcher: Launcher,
    pub(crate) result_bytes_max: u64,
}

/// Runs the program on a task. Dropping the future kills it and everything it started.
pub(crate) async fn run(runner: Arc<Runner>, payload: Payload, cx: Ctx) -> Result<TaskResult> {
    let command = runner.command(&cx)?;
    let mut running =
        runner.launcher.launch(command).await.map_err(|error| format!("the program was not started: {error}"))?;
    let (mut output, mut errors) = (Head::new(runner.result_bytes_max), Tail::default());
    {
        let (stdin, stdout, stderr) = streams(&mut running)?;
        let talk = async {
            tokio::join!(
                feed(stdin, &payload),
                output.read(stdout),
                errors.read(stderr, |percent, message| cx.progress(percent, message)),
            )
        };
        tokio::pin!(talk);
        let mut talking = true;
        let end = until_end(&mut running, &cx);
        tokio::pin!(end);
        loop {
            tokio::select! {
                biased;
                // A program may close its streams and go on.
                _ = &mut talk, if talking => talking = false,
                ended = &mut end => break ended?,
            }
        }
        if talking {
            let _ = timeout(STREAMS_GRACE, talk).await;
        }
    }
    let status = running.end()?;
    conclude(status, output, &errors)
}

impl Runner {
    fn command(&self, cx: &Ctx) -> io::Result<Command> {
        let mut command = guard::myself()?;
        command.arg(guard::GUARD).arg(process::id().to_string()).arg(&self.program.path).args(&self.program.args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
            .env_remove(URL_VARIABLE)
            .env("QUEUE_TASK_ID", cx.task_id().to_string())
            .env("QUEUE_TASK_TYPE", cx.task_type().as_str())
            .env("QUEUE_ATTEMPT", cx.attempt().to_string())
            .env("QUEUE_FENCE", cx.fence().to_string());
        match cx.deadline() {
            Some(deadline) => command.env("QUEUE_DEADLINE", rfc3339(deadline)),
            None => command.env_remove("QUEUE_DEADLINE"),
        };
        Ok(command)
    }
}

fn streams(running: &mut Running) -> io::Result<(ChildStdin, ChildStdout, ChildStderr)> {
    let child =
        running.child_mut().and_then(|child| Some((child.stdin.take()?, child.stdout.take()?, child.stderr.take()?)));
    let (stdin, stdout, stderr) = child.ok_or_else(|| io::Error::other("the program has no streams"))?;
    Ok((ChildStdin::from_std(stdin)?, ChildStdout::from_std(stdout)?, ChildStderr::from_std(stderr)?))
}

/// Writes the payload and closes the stream. A program that does not want to read it all need not.
async fn feed(mut stdin: ChildStdin, payload: &Payload) {
    let _ = stdin.write_all(payload.body()).await;
    let _ = stdin.shutdown().await;
}

/// Waits for the program's end; when the run is cancelled, makes it end.
async fn until_end(running: &mut Running, cx: &Ctx) -> io::Result<()> {
    tokio::select! {
        biased;
        ended = running.ended() => return ended,
        () = cx.cancelled() => {}
    }
    running.signal(Signal::SIGTERM);
    tokio::select! {
        biased;
        ended = running.ended() => return ended,
        () = sleep(STOP_GRACE) => {}
    }
    running.signal(Signal::SIGKILL);
    running.ended().await
}

/// What an exit status comes to.
fn conclude(status: ExitStatus, output: Head, errors: &Tail) -> Result<TaskResult> {
    match status.code() {
        Some(0) => Ok(result(output)),
        Some(REJECT) => Err(TaskError::reject(errors.told("exit status 65"))),
        _ => Err(TaskError::retry(errors.told(&describe(status)))),
    }
}

/// What the program printed, if it is JSON; anything else is no result.
fn result(output: Head) -> TaskResult {
    match output.whole() {
        Ok(bytes) => {
            let json = bytes.trim_ascii();
            let is_json = !json.is_empty() && serde_json::from_slice::<IgnoredAny>(json).is_ok();
            if is_json { TaskResult::Value(json.to_vec().into()) } else { TaskResult::None }
        }
        Err(bytes) => TaskResult::Dropped { bytes },
    }
}

/// The guard tells of a signal as shells do, by an exit status over 128.
fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;

    let signal = status.signal().or(status.code().map(|code| code - 128));
    match signal.and_then(|number| Signal::try_from(number).ok()) {
        Some(signal) => format!("killed by {signal}"),
        None => match status.code() {
            Some(code) => format!("exit status {code}"),
            None => status.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn exited(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    async fn head(text: &str) -> Head {
        let mut head = Head::new(10);
        head.read(text.as_bytes()).await.unwrap();
        head
    }

    #[test]
    fn exit_statuses_are_described() {
        let told = [exited(1), exited(127), exited(137), exited(255), ExitStatus::from_raw(15)].map(describe);
        assert_eq!(
            told,
            ["exit status 1", "exit status 127", "killed by SIGKILL", "exit status 255", "killed by SIGTERM"]
        );
    }

    #[tokio::test]
    async fn the_status_decides() {
        let conclude = async |code, text: &str| conclude(exited(code), head(text).await, &Tail::default());
        assert_eq!(conclude(0, " {\"a\":1}\n").await.unwrap(), TaskResult::Value("{\"a\":1}".into()));
        assert_eq!(conclude(0, "done\n").await.unwrap(), TaskResult::None);
        assert_eq!(conclude(0, "").await.unwrap(), TaskResult::None);
        assert_eq!(conclude(0, "[1,2,3,4,5,6]").await.unwrap(), TaskResult::Dropped { bytes: 13 });
        assert!(conclude(65, "").await.unwrap_err().is_rejection());
        assert!(conclude(1, "1").await.unwrap_err().is_retryable());
        assert!(conclude(143, "1").await.unwrap_err().is_retryable());
    }

    proptest! {
        #[test]
        fn any_output_is_json_or_no_result(bytes in prop_oneof![
            "[\\[\\]{}\",:0-9a-z .eE+-]{0,12}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..12),
        ]) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut head = Head::new(10);
            runtime.block_on(head.read(bytes.as_slice())).unwrap();
            match result(head) {
                TaskResult::Value(json) => {
                    prop_assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
                    prop_assert_eq!(json.as_ref(), bytes.trim_ascii());
                }
                TaskResult::Dropped { bytes: total } => prop_assert_eq!(total, bytes.len() as u64),
                TaskResult::None => {}
            }
        }
    }
}
