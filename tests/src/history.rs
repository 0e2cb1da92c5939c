use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// How often each task was started and finished, by id.
pub type Starts = BTreeMap<u64, (u32, u32)>;

/// What happened in the processes of one test: each of them appends to a file of its own, so that not even SIGKILL takes
/// back what was written.
#[derive(Debug)]
pub struct History {
    file: Mutex<File>,
}

impl History {
    /// The history of this process, in this folder.
    ///
    /// # Panics
    ///
    /// When the folder cannot be written to.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        let path = folder.join(format!("{}.history", std::process::id()));
        let file = OpenOptions::new().create(true).append(true).open(path).expect("a history can be written");
        Self { file: Mutex::new(file) }
    }

    /// A handler begins.
    pub fn started(&self, task: u64) {
        self.append('S', task);
    }

    /// A handler is about to return.
    pub fn finished(&self, task: u64) {
        self.append('F', task);
    }

    fn append(&self, what: char, task: u64) {
        let mut file = self.file.lock().expect("no writer panicked");
        file.write_all(format!("{what} {task}\n").as_bytes()).expect("the history can be written");
    }

    /// The histories of all processes of this folder, added up.
    ///
    /// # Panics
    ///
    /// When a history cannot be read.
    #[must_use]
    pub fn read(folder: &Path) -> Starts {
        let mut starts = Starts::new();
        for path in files(folder) {
            let text = fs::read_to_string(path).expect("a history can be read");
            for (what, task) in text.lines().filter_map(|line| line.split_once(' ')) {
                let (started, finished) = starts.entry(task.parse().expect("a task's id")).or_default();
                match what {
                    "S" => *started += 1,
                    _ => *finished += 1,
                }
            }
        }
        starts
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder can be read");
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "history")).collect()
}
