//! Where the bench runs: a database of its own, which goes when the bench ends.

use std::path::Path;

use queue_runtime::queue_core::Entropy as _;
use queue_runtime::{OsEntropy, Queue};
use tempfile::TempDir;

use super::server::{Counters, Server, with_database};
use super::workload::failed;
use crate::database::{Database, Need};
use crate::failure::{Failure, Outcome};
use crate::url::file_url;

/// A database that belongs to the bench.
#[derive(Debug)]
pub(super) struct Place {
    database: Database,
    own: Own,
}

#[derive(Debug)]
enum Own {
    /// A directory, removed when it is dropped.
    File(TempDir),
    /// A database of this name on the server.
    Database(String, Box<Server>),
}

impl Place {
    /// Makes a database beside the one that was named.
    pub(super) async fn make(named: &Database) -> Outcome<Self> {
        named.check_scheme()?;
        if let Some(directory) = named.missing_directory().map(Path::display) {
            let missing = Failure::failed(format!("the directory {directory} does not exist"));
            return Err(missing.hint(format!("mkdir -p {directory}")));
        }
        if let Some(file) = named.file() {
            let beside = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let dir = tempfile::Builder::new().prefix("queue-bench-").tempdir_in(beside);
            let dir = dir.map_err(|error| failed("cannot make a directory for the bench", error))?;
            let database = Database::own(file_url(&dir.path().join("bench.db")));
            return Ok(Self { database, own: Own::File(dir) });
        }
        if named.names_several_hosts() {
            let refused = Failure::usage("the bench takes one server, and not the members of a group");
            return Err(refused.hint("name the primary alone"));
        }
        let mut server = Server::connect(named).await?;
        let name = format!("queue_bench_{}_{:08x}", std::process::id(), OsEntropy.next_u64() >> 32);
        server.create(&name).await?;
        let database = Database::own(with_database(named.url(), &name));
        Ok(Self { database, own: Own::Database(name, Box::new(server)) })
    }

    /// Connects to it, and makes the schema.
    pub(super) async fn open(&self) -> Outcome<Queue> {
        let queue = self.database.open(Need::Migrate).await?;
        queue.migrate().await.map_err(|error| self.database.explain(&error))?;
        Ok(queue)
    }

    pub(super) const fn database(&self) -> &Database {
        &self.database
    }

    /// The server, when there is one.
    pub(super) fn server(&mut self) -> Option<&mut Server> {
        match &mut self.own {
            Own::File(_) => None,
            Own::Database(_, server) => Some(server),
        }
    }

    /// What the server has done until now; nothing where there is none.
    pub(super) async fn counters(&mut self) -> Outcome<Option<Counters>> {
        match self.server() {
            None => Ok(None),
            Some(server) => server.counters().await.map(Some),
        }
    }

    /// What it runs on, for people.
    pub(super) fn engine(&self) -> String {
        match &self.own {
            Own::File(_) => "SQLite".to_owned(),
            Own::Database(_, server) if server.version.contains("MariaDB") => server.version.clone(),
            Own::Database(_, server) => format!("MySQL {}", server.version),
        }
    }

    /// Removes it.
    pub(super) async fn remove(self) -> Outcome {
        match self.own {
            Own::File(dir) => {
                let path = dir.path().display().to_string();
                dir.close().map_err(|error| failed(&format!("{path} is left behind"), error))
            }
            Own::Database(name, mut server) => {
                server.drop_database(&name).await?;
                server.close().await;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_group_is_no_place() {
        let group = Database::own("mysql://app:a,b/c@h1:3306,h2:3307/shop".to_owned());
        let refused = Place::make(&group).await.unwrap_err();
        assert_eq!(refused.message(), "the bench takes one server, and not the members of a group");
        assert_eq!(refused.help(), Some("name the primary alone"));
    }
}
