//! Names of types and queues and texts of policies, each kept once in the database and known by number elsewhere.

use std::collections::HashMap;
use std::hash::Hash;

use queue_core::{Backoff, QueueName, StoreError, TaskType};
use rusqlite::{Connection, OptionalExtension as _};

use crate::work::Result;

/// Names of one kind that a thread remembers; when there are more, it starts afresh.
const KNOWN_MAX: usize = 10_000;

/// Something that is kept once and has a number.
pub(crate) trait Named: Clone + Eq + Hash {
    const FIND: &'static str;
    const ADD: &'static str;
    const READ: &'static str;

    fn text(&self) -> String;
    fn parse(text: String) -> Option<Self>;
    fn known(names: &mut Names) -> &mut Known<Self>;
}

macro_rules! named {
    ($named:ty, $known:ident, $table:literal, $column:literal, $parse:expr) => {
        impl Named for $named {
            const FIND: &'static str = concat!("SELECT id FROM ", $table, " WHERE ", $column, " = ?1");
            const ADD: &'static str = concat!("INSERT INTO ", $table, " (", $column, ") VALUES (?1)");
            const READ: &'static str = concat!("SELECT ", $column, " FROM ", $table, " WHERE id = ?1");

            fn text(&self) -> String {
                self.to_string()
            }

            fn parse(text: String) -> Option<Self> {
                $parse(text)
            }

            fn known(names: &mut Names) -> &mut Known<Self> {
                &mut names.$known
            }
        }
    };
}

named!(TaskType, types, "queue_type", "name", |text| Self::parse(text).ok());
named!(QueueName, queues, "queue_queue", "name", |text| Self::parse(text).ok());
// The default is a constant, which costs nothing to clone.
named!(Backoff, policies, "queue_policy", "backoff", |text: String| {
    text.parse().ok().map(|parsed| if parsed == Self::DEFAULT { Self::DEFAULT } else { parsed })
});

/// What a thread knows of the names in the database. Rows of names are only ever added, so what was committed stays true.
#[derive(Debug, Default)]
pub(crate) struct Names {
    types: Known<TaskType>,
    queues: Known<QueueName>,
    policies: Known<Backoff>,
}

#[derive(Debug)]
pub(crate) struct Known<N> {
    ids: HashMap<N, i64>,
    names: HashMap<i64, N>,
    /// The one that was asked for last: most often it is asked for again.
    last: Option<(i64, N)>,
}

impl<N> Default for Known<N> {
    fn default() -> Self {
        Self { ids: HashMap::new(), names: HashMap::new(), last: None }
    }
}

impl<N: Named> Known<N> {
    fn id(&mut self, name: &N) -> Option<i64> {
        match &self.last {
            Some((id, last)) if last == name => Some(*id),
            _ => {
                let id = *self.ids.get(name)?;
                self.last = Some((id, name.clone()));
                Some(id)
            }
        }
    }

    fn name(&mut self, id: i64) -> Option<N> {
        match &self.last {
            Some((last, name)) if *last == id => Some(name.clone()),
            _ => {
                let name = self.names.get(&id)?;
                self.last = Some((id, name.clone()));
                Some(name.clone())
            }
        }
    }

    fn learn(&mut self, id: i64, name: N) {
        if self.ids.len() >= KNOWN_MAX {
            *self = Self::default();
        }
        self.ids.insert(name.clone(), id);
        self.names.insert(id, name);
    }
}

impl Names {
    /// The number of a name that is in the database.
    pub(crate) fn find<N: Named>(&mut self, conn: &Connection, name: &N) -> Result<Option<i64>> {
        if let Some(id) = N::known(self).id(name) {
            return Ok(Some(id));
        }
        let id = conn.prepare_cached(N::FIND)?.query_row([name.text()], |row| row.get(0)).optional()?;
        if let Some(id) = id {
            N::known(self).learn(id, name.clone());
        }
        Ok(id)
    }

    /// The number of a name, which is added when it is not there.
    pub(crate) fn intern<N: Named>(&mut self, conn: &Connection, name: &N) -> Result<i64> {
        if let Some(id) = self.find(conn, name)? {
            return Ok(id);
        }
        let text = name.text();
        // What could not be read back must not be written.
        if N::parse(text.clone()).is_none_or(|parsed| parsed.text() != text) {
            return Err(StoreError::other(format!("{text} cannot be stored, because it would not read back")).into());
        }
        let id = conn.prepare_cached(N::ADD)?.insert([text])?;
        N::known(self).learn(id, name.clone());
        Ok(id)
    }

    /// The name of a number.
    pub(crate) fn name<N: Named>(&mut self, conn: &Connection, id: i64) -> Result<Option<N>> {
        if let Some(name) = N::known(self).name(id) {
            return Ok(Some(name));
        }
        let text: Option<String> = conn.prepare_cached(N::READ)?.query_row([id], |row| row.get(0)).optional()?;
        let name = text.and_then(N::parse);
        if let Some(name) = &name {
            N::known(self).learn(id, name.clone());
        }
        Ok(name)
    }

    /// Forgets everything: numbers of names that were added by a transaction that was rolled back will be given again.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}
