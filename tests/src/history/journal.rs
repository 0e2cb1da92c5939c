//! Notes are taken in a [`Journal`]; all that was noted is a [`History`].

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use queue_runtime::Ctx;

use super::event::{Event, Fact, How};

/// How often each task was started and finished, by id.
pub type Starts = BTreeMap<u64, (u32, u32)>;

/// Takes events, and knows the time.
pub trait Sink: Send + Sync + fmt::Debug {
    /// Microseconds on the clock of the history.
    fn now(&self) -> u64;

    /// Writes down what happened.
    fn record(&self, process: u32, fact: Fact);
}

/// The notes of one process: appended to a file of its own, a line of JSON each, so that not even SIGKILL takes back what was
/// written. Any other [`Sink`] will do as well. Clones write the same journal.
#[derive(Clone, Debug)]
pub struct Journal {
    process: u32,
    sink: Arc<dyn Sink>,
}

impl Journal {
    /// The journal of this process, in this folder.
    ///
    /// # Panics
    ///
    /// When the folder cannot be written to.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        let process = std::process::id();
        let path = folder.join(format!("{process}.history"));
        let file = OpenOptions::new().create(true).append(true).open(path).expect("a history can be written");
        Self::new(process, Arc::new(Lines { file: Mutex::new(file) }))
    }

    /// The notes of this process go there.
    #[must_use]
    pub fn new(process: u32, sink: Arc<dyn Sink>) -> Self {
        Self { process, sink }
    }

    /// The same journal, for notes about another process.
    #[must_use]
    pub fn about(&self, process: u32) -> Self {
        Self { process, sink: Arc::clone(&self.sink) }
    }

    /// Writes down what happened.
    pub fn record(&self, fact: Fact) {
        self.sink.record(self.process, fact);
    }

    /// Microseconds on the clock of the history.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.sink.now()
    }

    /// A handler begins.
    pub fn started<S>(&self, cx: &Ctx<S>) {
        let (task, fence) = (cx.task_id().get(), cx.fence().get());
        self.record(Fact::Started { task, fence, attempt: cx.attempt(), max_attempts: cx.max_attempts() });
    }

    /// A handler is about to return.
    pub fn ended<S>(&self, cx: &Ctx<S>, how: How) {
        self.record(Fact::Ended { task: cx.task_id().get(), fence: cx.fence().get(), how });
    }
}

/// A file of lines.
#[derive(Debug)]
struct Lines {
    file: Mutex<File>,
}

impl Sink for Lines {
    #[expect(clippy::disallowed_methods, reason = "several processes need one clock, and this is a test")]
    fn now(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn record(&self, process: u32, fact: Fact) {
        // The time is read under the lock, so that the lines of a process are in order.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = serde_json::to_vec(&Event { at: self.now(), process, fact }).expect("an event is JSON");
        line.push(b'\n');
        file.write_all(&line).expect("the history can be written");
    }
}

/// What happened in all processes, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    events: Vec<Event>,
}

impl History {
    /// The history of these events. Those of the same time stay in the order in which they are given.
    #[must_use]
    pub fn new(events: impl IntoIterator<Item = Event>) -> Self {
        let mut events = events.into_iter().collect::<Vec<_>>();
        events.sort_by_key(|event| event.at);
        Self { events }
    }

    /// The journals of all processes of this folder.
    ///
    /// # Panics
    ///
    /// When a journal cannot be read. A last line that was cut short by a kill is left out.
    #[must_use]
    pub fn read(folder: &Path) -> Self {
        let mut events = Vec::new();
        for path in files(folder) {
            let text = fs::read_to_string(&path).expect("a history can be read");
            for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
                events.push(serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
            }
        }
        Self::new(events)
    }

    /// The events, in order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// How often each task was started, and ended well.
    #[must_use]
    pub fn starts(&self) -> Starts {
        let mut starts = Starts::new();
        for event in &self.events {
            match event.fact {
                Fact::Started { task, .. } => starts.entry(task).or_default().0 += 1,
                Fact::Ended { task, how: How::Succeeded, .. } => starts.entry(task).or_default().1 += 1,
                _ => {}
            }
        }
        starts
    }

    /// A line for each event, for people; with `tasks`, only those about one of them or about no task.
    #[must_use]
    pub fn text(&self, tasks: Option<&[u64]>) -> String {
        let mut text = String::new();
        for event in &self.events {
            if tasks.is_some_and(|tasks| event.fact.task().is_some_and(|task| !tasks.contains(&task))) {
                continue;
            }
            let (seconds, micros) = (event.at / 1_000_000, event.at % 1_000_000);
            let _ = writeln!(text, "{seconds:>5}.{micros:06} p{:<3} {:?}", event.process, event.fact);
        }
        text
    }
}

impl Fact {
    /// The task that it is about.
    #[must_use]
    pub const fn task(&self) -> Option<u64> {
        match self {
            Self::Enqueuing { task, .. }
            | Self::Enqueued { task }
            | Self::Claimed { task, .. }
            | Self::Started { task, .. }
            | Self::Ended { task, .. }
            | Self::Settling { task, .. }
            | Self::Settled { task, .. }
            | Self::Acting { task, .. }
            | Self::Acted { task, .. } => Some(*task),
            _ => None,
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder can be read");
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    let mut files =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "history")).collect::<Vec<_>>();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journals_of_a_folder_make_one_history_even_if_one_was_cut_short() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::in_folder(folder.path());
        journal.record(Fact::Enqueued { task: 3 });
        journal.about(9).record(Fact::ProcessKilled);
        let early = r#"{"at":1,"process":4,"fact":"started","task":3,"fence":1,"attempt":1,"max_attempts":3}"#;
        fs::write(folder.path().join("4.history"), format!("{early}\n{{\"at\":2,\"proc")).unwrap();
        fs::write(folder.path().join("notes.txt"), "not a history").unwrap();

        let history = History::read(folder.path());
        assert_eq!(history.events().iter().map(|event| event.process).collect::<Vec<_>>(), [4, std::process::id(), 9]);
        assert_eq!(history.starts(), Starts::from([(3, (1, 0))]));
        let text = history.text(Some(&[5]));
        assert_eq!((text.lines().count(), history.text(None).lines().count()), (1, 3));
        assert!(text.trim_end().ends_with("p9   ProcessKilled"), "{text}");
    }
}
