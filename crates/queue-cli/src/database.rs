//! Which database a command works on, and what is said when it cannot.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::args::{DEFAULT_URL, Global, URL_VARIABLE};
use crate::failure::{Failure, Outcome};
use crate::url::{file_of, hosts, redacted};
use queue_runtime::queue_core::error::SchemaProblem;
use queue_runtime::queue_core::{Examination, Finding};
use queue_runtime::{MySqlStore, Queue, SqliteOptions, StoreError, connect, diagnose};

/// A database that was named, not yet connected to.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    url: String,
    /// The file, when it is SQLite.
    file: Option<PathBuf>,
    source: Source,
}

/// Who named it, so that a hint can name it in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Option,
    File(PathBuf),
    Variable,
    Default,
}

/// What a command needs of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// To look at what is there: nothing is made.
    Look,
    /// To write: an SQLite file is made and migrated, a server's schema must be there.
    Write,
    /// To see to the schema itself.
    Migrate,
}

impl Database {
    /// The database that the command line or the environment names.
    pub(crate) fn named(global: &Global) -> Outcome<Self> {
        let named = |url: &str, source| {
            let url = url.trim();
            if url.is_empty() {
                let said = match &source {
                    Source::Variable => format!("{URL_VARIABLE} is set, but empty"),
                    Source::File(file) => format!("{} holds no URL, it is empty", file.display()),
                    Source::Option | Source::Default => "the database URL is empty".to_owned(),
                };
                return Err(Failure::usage(said).hint(format!("--database-url {DEFAULT_URL}")));
            }
            Ok(Self::at(url.to_owned(), source))
        };
        match (&global.database_url, &global.database_url_file) {
            (Some(_), Some(_)) => {
                Err(Failure::usage("--database-url and --database-url-file both name the database; give one of them"))
            }
            (Some(url), None) => named(url, Source::Option),
            (None, Some(file)) => {
                let text = fs::read_to_string(file)
                    .map_err(|error| Failure::failed(format!("cannot read {}: {error}", file.display())))?;
                named(&text, Source::File(file.clone()))
            }
            (None, None) => match env::var(URL_VARIABLE) {
                Ok(url) => named(&url, Source::Variable),
                Err(env::VarError::NotPresent) => named(DEFAULT_URL, Source::Default),
                Err(env::VarError::NotUnicode(_)) => Err(Failure::usage(format!("{URL_VARIABLE} is not UTF-8"))),
            },
        }
    }

    fn at(url: String, source: Source) -> Self {
        Self { file: file_of(&url), url, source }
    }

    /// A database made by the program itself.
    pub(crate) fn own(url: String) -> Self {
        Self::at(url, Source::Option)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Whether the command line names it, and not only the environment.
    pub(crate) const fn is_named_by_option(&self) -> bool {
        matches!(self.source, Source::Option | Source::File(_))
    }

    /// Whether it is a file.
    pub(crate) fn is_file(&self) -> bool {
        self.file().is_some()
    }

    /// The URL without its password.
    pub(crate) fn shown_url(&self) -> String {
        redacted(&self.url).into_owned()
    }

    /// The file, when it is SQLite.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Whether the URL names the members of a group and not one server.
    pub(crate) fn names_several_hosts(&self) -> bool {
        self.file().is_none() && self.url[hosts(&self.url)].contains(',')
    }

    /// Whether there can be something to look at: a server, or a file that exists.
    pub(crate) fn is_there(&self) -> bool {
        self.file().is_none_or(Path::exists)
    }

    /// How people call it.
    pub(crate) fn shown(&self) -> String {
        match self.file() {
            Some(file) => file.display().to_string(),
            None => redacted(&self.url).into_owned(),
        }
    }

    /// A command line that works on the same database.
    pub(crate) fn command(&self, command: &str) -> String {
        match &self.source {
            Source::Option => format!("queue {command} --database-url {}", redacted(&self.url)),
            Source::File(file) => format!("queue {command} --database-url-file {}", file.display()),
            Source::Variable | Source::Default => format!("queue {command}"),
        }
    }

    /// Connects, and makes sure of the schema.
    pub(crate) async fn open(&self, need: Need) -> Outcome<Queue> {
        self.check_url()?;
        if need == Need::Look && !self.is_there() {
            return Err(self.missing());
        }
        let queue = connect(&self.url).await.map_err(|error| self.explain(&error))?;
        if need == Need::Migrate {
            return Ok(queue);
        }
        let schema = queue.schema().await.map_err(|error| self.explain(&error))?;
        match schema.check() {
            Ok(()) => {}
            Err(SchemaProblem::Missing | SchemaProblem::TooOld { .. })
                if need == Need::Write && self.file().is_some() =>
            {
                queue.migrate().await.map_err(|error| self.explain(&error))?;
            }
            Err(problem) => return Err(self.explain(&problem.into())),
        }
        Ok(queue)
    }

    /// Looks it over. That there is no connection is a finding as well.
    pub(crate) async fn diagnose(&self, examination: Examination) -> Outcome<Vec<Finding>> {
        self.check_url()?;
        let failure = if self.is_there() {
            match diagnose(&self.url, examination).await {
                Ok(mut findings) => {
                    // The adapter does not know how the database was named.
                    for advice in findings.iter_mut().filter_map(|finding| finding.advice.as_mut()) {
                        if advice == Finding::MIGRATE {
                            *advice = self.command("migrate");
                        }
                    }
                    return Ok(findings);
                }
                Err(error) => self.explain(&error),
            }
        } else {
            self.missing()
        };
        Ok(vec![Finding {
            advice: failure.help().map(str::to_owned),
            ..Finding::fail("connection", failure.message(), "")
        }])
    }

    /// Where the file would be, when there is no such directory.
    pub(crate) fn missing_directory(&self) -> Option<&Path> {
        let directory = self.file()?.parent()?;
        (!directory.as_os_str().is_empty() && !directory.exists()).then_some(directory)
    }

    fn missing(&self) -> Failure {
        Failure::failed(format!("there is no {} yet", self.shown())).hint(self.command("migrate"))
    }

    /// A URL that cannot be read is a mistake of the command line, and no other try helps.
    fn check_url(&self) -> Outcome {
        self.check_scheme()?;
        if self.file() == Some(Path::new(":memory:")) {
            return Err(Failure::usage("a database in memory would end with this command; name a file")
                .hint(format!("--database-url {DEFAULT_URL}")));
        }
        let checked = match self.file() {
            Some(_) => SqliteOptions::from_url(&self.url).map(drop),
            None => MySqlStore::check_url(&self.url),
        };
        checked.map_err(|error| match error {
            StoreError::Other { source } => Failure::usage(source.to_string()),
            error => Failure::usage(error.to_string()),
        })
    }

    pub(crate) fn check_scheme(&self) -> Outcome {
        let known = ["sqlite:", "mysql:", "mariadb:"];
        if known.iter().any(|scheme| self.url.starts_with(scheme)) {
            return Ok(());
        }
        let said = match self.url.split_once("://") {
            Some((scheme, _))
                if !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c)) =>
            {
                format!("there is no backend for {scheme}:// URLs")
            }
            _ => "the database is not named by a URL".to_owned(),
        };
        Err(Failure::usage(format!("{said}; use sqlite:// or mysql://")).hint(format!("--database-url {DEFAULT_URL}")))
    }

    /// Says what went wrong with this database, and what helps.
    pub(crate) fn explain(&self, error: &StoreError) -> Failure {
        let shown = self.shown();
        let file = self.file().is_some();
        match error {
            StoreError::Unavailable { source } if file => Failure::failed(format!("cannot use {shown}: {source}")),
            StoreError::Unavailable { source } => {
                let hint = if self.names_several_hosts() {
                    "name every member of the replication group in the URL, and see that it has a primary"
                } else {
                    "start the server, or correct the host and port of the URL"
                };
                Failure::failed(format!("cannot reach {shown}: {}", without_place(&source.to_string()))).hint(hint)
            }
            StoreError::Denied { source } if file => {
                Failure::failed(format!("cannot write to {shown}: {source}")).hint(format!("chmod u+w {shown}"))
            }
            StoreError::Denied { source } => {
                Failure::failed(format!("{shown} refuses access: {}", without_place(&source.to_string())))
                    .hint("correct the user and the password of the URL, or grant the user rights on the database")
            }
            StoreError::Schema { problem: SchemaProblem::Missing } => {
                Failure::failed(format!("{shown} has no queue schema yet")).hint(self.command("migrate"))
            }
            StoreError::Schema { problem: SchemaProblem::TooOld { found, needed } } => Failure::failed(format!(
                "the schema of {shown} is version {found}, and this program needs version {needed}"
            ))
            .hint(self.command("migrate")),
            StoreError::Other { source } if file && source.to_string().contains(&shown) => {
                let failure = Failure::failed(source.to_string());
                match self.missing_directory() {
                    Some(directory) => failure.hint(format!("mkdir -p {}", directory.display())),
                    None => failure,
                }
            }
            StoreError::Other { source } => Failure::failed(format!("{shown}: {}", without_place(&source.to_string()))),
            _ => Failure::failed(format!("{shown}: {}", without_place(&error.to_string()))),
        }
    }
}

/// What an adapter says, without the place that it begins with and that was named already.
fn without_place(said: &str) -> &str {
    match said.split_once(": ") {
        Some((place, rest)) if place.contains("://") && !place.contains(' ') => rest,
        _ => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    fn global(url: &str) -> Global {
        Global { database_url: Some(url.to_owned()), database_url_file: None, json: false }
    }

    fn named(url: &str) -> Database {
        Database::named(&global(url)).unwrap()
    }

    #[test]
    fn a_hint_names_the_same_database_without_its_password() {
        let server = named("mysql://app:secret@db/shop");
        assert_eq!(server.command("migrate"), "queue migrate --database-url mysql://app:***@db/shop");
        let failure = server.explain(&SchemaProblem::Missing.into()).to_string();
        assert_eq!(
            failure,
            "error: mysql://app:***@db/shop has no queue schema yet\n  try: queue migrate --database-url mysql://app:***@db/shop"
        );
        let file = Database { source: Source::Default, ..named(DEFAULT_URL) };
        assert_eq!((file.command("migrate").as_str(), file.shown().as_str()), ("queue migrate", "queue.db"));
    }

    #[test]
    fn a_url_comes_from_one_place() {
        let both = Global { database_url_file: Some("f".into()), ..global("sqlite://a.db") };
        assert!(Database::named(&both).unwrap_err().message().contains("give one of them"));
        assert!(Database::named(&global(" ")).unwrap_err().message().contains("is empty"));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("url");
        fs::write(&file, "sqlite://x.db\n").unwrap();
        let from_file = Global { database_url: None, database_url_file: Some(file), json: false };
        assert_eq!(Database::named(&from_file).unwrap().url(), "sqlite://x.db");
    }

    #[test]
    fn a_place_is_named_once() {
        let server = named("mysql://app:secret@db/shop");
        let gone = server.explain(&StoreError::unavailable("mysql://app@db:3306/shop: connection refused"));
        assert_eq!(gone.message(), "cannot reach mysql://app:***@db/shop: connection refused");
        let group = named("mysql://app:se,cret@db1,db2:3307/shop");
        let told = "mysql://app@db1:3306,db2:3307/shop: none of its hosts takes writes: db1:3306: connection refused";
        assert_eq!(
            group.explain(&StoreError::unavailable(told)).to_string(),
            "error: cannot reach mysql://app:***@db1,db2:3307/shop: none of its hosts takes writes: db1:3306: connection refused\n  \
             try: name every member of the replication group in the URL, and see that it has a primary"
        );
        assert!(!named("mysql://app:se,cret@db1/shop").names_several_hosts());
        let odd = server.explain(&StoreError::other("odd: very"));
        assert_eq!(odd.to_string(), "error: mysql://app:***@db/shop: odd: very");
    }

    #[test]
    fn a_url_that_cannot_be_read_is_a_mistake_of_the_command_line() {
        for (url, says) in [
            ("mysql://app:hunter2@db", "it names no database"),
            ("mysql://app:hunter2@db/shop?colour=red", "unknown option \"colour\""),
            ("sqlite://", "names no file"),
            ("sqlite://a.db?mode=memory", "ro, rw or rwc"),
            ("sqlite::memory:", "in memory would end with this command"),
        ] {
            let failure = named(url).check_url().unwrap_err();
            assert!(failure.code() == Code::Usage && failure.message().contains(says), "{failure}");
            assert!(!failure.to_string().contains("hunter2"), "{failure}");
        }
        assert!(named("mysql://app:hunter2@db/shop").check_url().is_ok() && named("sqlite:a.db").check_url().is_ok());
    }

    #[test]
    fn unknown_schemes_are_refused() {
        for (url, says) in [
            ("postgres://db/shop", "there is no backend for postgres:// URLs; use sqlite:// or mysql://"),
            ("queue.db", "the database is not named by a URL; use sqlite:// or mysql://"),
        ] {
            assert_eq!(named(url).check_scheme().unwrap_err().message(), says);
        }
    }
}
