//! Which program works on which type: `--exec TYPE=PROGRAM`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{env, fs, io};

use queue_runtime::TaskType;

use crate::failure::Failure;

/// One `--exec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) task_type: TaskType,
    pub(crate) program: Program,
}

/// A program with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<OsString>,
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (task_type, program) =
            text.split_once('=').ok_or("it reads TYPE=PROGRAM, such as mail.welcome=./send-welcome")?;
        let task_type = TaskType::parse(task_type).map_err(|error| error.to_string())?;
        Ok(Self { task_type, program: Program::parse(program)? })
    }
}

impl Program {
    /// The whole text when there is a file of that name; else its first word, and the further words are arguments.
    fn parse(text: &str) -> Result<Self, String> {
        if Path::new(text).is_file() {
            return Ok(Self { path: text.into(), args: Vec::new() });
        }
        let mut words = text.split_whitespace();
        let path = words.next().ok_or("it names no program after the =")?;
        Ok(Self { path: path.into(), args: words.map(OsString::from).collect() })
    }

    /// Whether it can be run, as far as one can tell before: it is there, in PATH when it is a bare name, and executable.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let shown = self.path.display();
        let bare = self.path.components().count() == 1 && !self.path.as_os_str().to_string_lossy().contains('/');
        if bare {
            let found = env::var_os("PATH")
                .is_some_and(|paths| env::split_paths(&paths).any(|dir| runnable(&dir.join(&self.path)).is_ok()));
            if found {
                return Ok(());
            }
            let failure = Failure::failed(format!("cannot run {shown}: there is no such program in PATH"));
            return Err(if runnable(&self.path).is_ok() {
                failure.hint(format!("--exec TYPE=./{shown}"))
            } else {
                failure
            });
        }
        runnable(&self.path).map_err(|error| {
            let failure = Failure::failed(format!("cannot run {shown}: {error}"));
            match error.kind() {
                io::ErrorKind::PermissionDenied => failure.hint(format!("chmod +x {shown}")),
                _ => failure,
            }
        })
    }
}

fn runnable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    let found = fs::metadata(path)?;
    if found.is_dir() {
        return Err(io::Error::other("it is a directory"));
    }
    if found.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not executable"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn program(text: &str) -> Program {
        text.parse::<Assignment>().unwrap().program
    }

    #[test]
    fn words_after_the_program_are_its_arguments() {
        let found = program("hash=/usr/bin/env  python3 -u hash.py a=b");
        assert_eq!(found.path, Path::new("/usr/bin/env"));
        assert_eq!(found.args, ["python3", "-u", "hash.py", "a=b"]);
        let dir = tempfile::tempdir().unwrap();
        let spaced = dir.path().join("my program");
        fs::write(&spaced, "").unwrap();
        assert_eq!(program(&format!("a={}", spaced.display())), Program { path: spaced, args: Vec::new() });
    }

    #[test]
    fn what_is_no_assignment_says_why() {
        for (text, error) in [
            ("cat", "it reads TYPE=PROGRAM"),
            ("a b=cat", "a name must not contain"),
            ("a=", "it names no program"),
            ("a= ", "it names no"),
        ] {
            let found = text.parse::<Assignment>().unwrap_err();
            assert!(found.starts_with(error), "{text}: {found}");
        }
    }

    #[test]
    fn a_program_that_cannot_be_run_is_found_before() {
        assert!(program("a=cat").check().is_ok());
        assert!(program("a=/bin/cat -n").check().is_ok());
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain");
        fs::write(&plain, "").unwrap();
        for (path, says) in [
            ("no-such-program-anywhere".to_owned(), "there is no such program in PATH"),
            (format!("{}/none", dir.path().display()), "No such file"),
            (dir.path().display().to_string(), "it is a directory"),
            (plain.display().to_string(), "chmod +x"),
        ] {
            let failure = program(&format!("a={path}")).check().unwrap_err().to_string();
            assert!(failure.contains(says), "{failure}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in any::<String>()) {
            let _ = text.parse::<Assignment>();
        }
    }
}
