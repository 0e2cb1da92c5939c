//! The one place that says what an error of the server or of the connection means.

use std::error::Error;
use std::fmt;
use std::io;

use queue_core::StoreError;
use queue_core::error::SchemaProblem;
use sqlx::mysql::MySqlDatabaseError;

use crate::policy::Policy;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// The server rolled the transaction back, or we do: run it again. The name is the metric's label.
    Repeat(&'static str),
    /// The connection is gone or of no use any more: close it. What was not committed is not there.
    Lost,
    /// The server takes no writes (a replica, or a failover under way): close the connection, try later.
    ReadOnly,
    /// The server has no room for us right now.
    Busy,
    /// The account may not.
    Denied,
    /// There is no such database.
    NoDatabase,
    /// A table is not there: the schema was never made.
    NoTable,
    /// A row with this key is there already.
    Duplicate,
    /// A packet was larger than the server takes. It closes the connection.
    PacketTooLarge,
    /// The guard of a batch found another number of rows than it must be.
    Guard,
    /// Anything else.
    Other,
}

/// The server's error numbers. What is not named is of the class of its SQLSTATE.
const NUMBERS: &[(u16, Class)] = &[
    (1213, Class::Repeat("deadlock")),
    (1205, Class::Repeat("lock_timeout")),
    (3572, Class::Repeat("lock_timeout")), // NOWAIT
    (1020, Class::Repeat("record_changed")),
    (3101, Class::Repeat("certification")), // rolled back by the replication group
    (1180, Class::Repeat("commit_failed")),
    (1615, Class::Repeat("schema_changed")), // a prepared statement, again and again
    (1243, Class::Lost),                     // a prepared statement that the server does not know any more
    (1053, Class::Lost),                     // the server shuts down
    (1077, Class::Lost),
    (1079, Class::Lost),
    (1152, Class::Lost),
    (1158, Class::Lost),
    (1159, Class::Lost),
    (1160, Class::Lost),
    (1161, Class::Lost),
    (1184, Class::Lost),
    (1317, Class::Lost), // the query was interrupted: by an operator, or with its connection
    (1927, Class::Lost), // MariaDB: the connection was killed
    (3032, Class::Lost), // the server went into its offline mode, as a member does that left its group
    (3169, Class::Lost), // the session was killed
    (4031, Class::Lost), // idle for too long
    (1290, Class::ReadOnly),
    (1792, Class::ReadOnly),
    (1836, Class::ReadOnly),
    (3100, Class::ReadOnly), // a group member that may not write, or was cut off while it did
    (3796, Class::ReadOnly), // a group member that cannot keep its promise of consistency now
    (3797, Class::ReadOnly),
    (3798, Class::ReadOnly),
    (3799, Class::ReadOnly),
    (1047, Class::ReadOnly), // a Galera node that is not in its cluster's primary component
    (1040, Class::Busy),
    (1041, Class::Busy),
    (1135, Class::Busy),
    (1203, Class::Busy),
    (1226, Class::Busy),
    (1461, Class::Busy), // too many prepared statements
    (1129, Class::Busy), // the host is blocked after too many errors
    (1044, Class::Denied),
    (1045, Class::Denied),
    (1142, Class::Denied),
    (1143, Class::Denied),
    (1227, Class::Denied),
    (1251, Class::Denied), // the way to log in
    (1370, Class::Denied),
    (1396, Class::Denied),
    (1698, Class::Denied),
    (1820, Class::Denied), // the password has expired
    (1862, Class::Denied),
    (3118, Class::Denied), // the account is locked
    (4151, Class::Denied), // MariaDB: the account is locked
    (1049, Class::NoDatabase),
    (1146, Class::NoTable),
    (1022, Class::Duplicate),
    (1062, Class::Duplicate),
    (1586, Class::Duplicate),
    (1153, Class::PacketTooLarge),
    (1242, Class::Guard),
    // Of OceanBase.
    (6002, Class::Repeat("rolled_back")),    // also when the data's leader moved
    (6235, Class::Repeat("record_changed")), // since the snapshot of a transaction at REPEATABLE READ
    (5627, Class::Repeat("schema_changed")),
    (6005, Class::Repeat("lock_timeout")),
    (4012, Class::Lost), // no answer in the time for a query or a transaction
    (4064, Class::Lost), // the session was killed
    (5066, Class::Lost), // the session was killed: what its statement hears that is at work
    (4746, Class::Lost), // nobody knows what became of the packet
    (6222, Class::Lost), // nobody knows whether it was committed
    (6225, Class::Lost),
    (4038, Class::Lost), // the node does not lead the data any more
    (4013, Class::Busy), // no memory: more was changed than could be written out
    (4030, Class::Busy),
    (5930, Class::Busy), // too many prepared statements
];

/// Said by a group member whose commit went wrong: it may have reached the others.
const UNSURE: &[u16] = &[3100, 3797, 3798];

/// The server's number of an error.
pub(crate) fn number(error: &sqlx::Error) -> Option<u16> {
    match error {
        sqlx::Error::Database(database) => {
            database.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
        }
        _ => None,
    }
}

/// Whether the server answered with an error, so that it is known that the commit was not reached: it stops at the first
/// error. A server that ends the connection may have come further than it says.
pub(crate) fn is_refusal(error: &sqlx::Error) -> bool {
    number(error).is_some_and(|number| !UNSURE.contains(&number)) && classify(error) != Class::Lost
}

/// What kind of error this is.
pub(crate) fn classify(error: &sqlx::Error) -> Class {
    match error {
        sqlx::Error::Database(database) => {
            let named = number(error).and_then(|number| NUMBERS.iter().find(|(known, _)| *known == number));
            named.map_or_else(|| class_of_state(database.code().as_deref()), |(_, class)| *class)
        }
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => Class::Lost,
        sqlx::Error::Configuration(_) if error.to_string().contains("RSA") => Class::Denied,
        sqlx::Error::Tls(_) => Class::Denied,
        _ => Class::Other,
    }
}

/// What the SQL standard's classes of states say about a number that is not named: 08 is a failed connection, 40 a transaction
/// that the server rolled back.
fn class_of_state(state: Option<&str>) -> Class {
    match state {
        // Nobody knows whether what was asked for last was done.
        Some("40003") => Class::Lost,
        Some(state) if state.starts_with("08") => Class::Lost,
        Some(state) if state.starts_with("40") => Class::Repeat("rolled_back"),
        _ => Class::Other,
    }
}

/// Why one try of an operation did not come to its end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server or the connection said no.
    Sql(sqlx::Error),
    /// The answer is known, and it is an error. The transaction is rolled back.
    Store(StoreError),
    /// Another process was faster: roll back and look again. The name is the metric's label.
    Again(&'static str),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Failure {
    /// Which class of server error it is.
    pub(crate) fn class(&self) -> Option<Class> {
        match self {
            Self::Sql(error) => Some(classify(error)),
            Self::Store(_) | Self::Again(_) => None,
        }
    }

    /// The error of the port, where no commit was under way.
    pub(crate) fn told(self, place: &str) -> StoreError {
        match self {
            Self::Sql(error) => to_store_error(&error, false, place),
            Self::Store(error) => error,
            Self::Again(what) => StoreError::unavailable(what),
        }
    }
}

/// What goes into a [`StoreError`]: the server's words and ours, never a statement.
#[derive(Debug)]
pub(crate) struct Told(pub(crate) String);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Told {}

/// The port's error for an error of the server. `committing` says whether the commit was under way.
pub(crate) fn to_store_error(error: &sqlx::Error, committing: bool, place: &str) -> StoreError {
    let told = |hint: &str| Told(format!("{place}: {}{hint}", plain(error)));
    match classify(error) {
        class if class.policy(committing) == Policy::Unknown => StoreError::unknown_outcome(told("")),
        Class::Lost | Class::Busy => StoreError::unavailable(told("")),
        // In a transaction of the caller's it may be gone already, and what comes next would commit by itself.
        Class::Repeat(_) => {
            StoreError::unavailable(told("; roll back and run the transaction again from its beginning"))
        }
        Class::ReadOnly => StoreError::unavailable(told("; it takes no writes, being a replica or in a failover")),
        Class::Denied => StoreError::denied(told(denied_hint(error))),
        Class::NoDatabase => StoreError::other(told("; create the database, or name another in the URL")),
        Class::NoTable => SchemaProblem::Missing.into(),
        Class::PacketTooLarge => StoreError::other(told("; raise max_allowed_packet on the server")),
        Class::Duplicate | Class::Guard | Class::Other => StoreError::other(told("")),
    }
}

fn denied_hint(error: &sqlx::Error) -> &'static str {
    match error {
        sqlx::Error::Configuration(_) => {
            "; the server wants the password over an encrypted connection (caching_sha2_password with a cold cache): turn TLS \
             on at the server, or use its Unix socket"
        }
        sqlx::Error::Tls(_) => "; check ssl-mode and ssl-ca of the URL against the server's certificate",
        _ => "",
    }
}

/// The error in few words. The server's messages quote values of a row only where a key is double or a value does not fit, so
/// of those only the number is told.
pub(crate) fn plain(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(database) => {
            let Some(error) = database.try_downcast_ref::<MySqlDatabaseError>() else { return "a server error".into() };
            let quotes_values = matches!(error.number(), 1062 | 1022 | 1586 | 1264 | 1292 | 1366 | 1406 | 1064 | 1690);
            if quotes_values {
                format!("server error {} ({})", error.number(), error.code().unwrap_or("HY000"))
            } else {
                format!("{} ({})", error.message(), error.number())
            }
        }
        sqlx::Error::Io(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => "connection refused; is the server running there?".into(),
            io::ErrorKind::UnexpectedEof => "the connection was closed".into(),
            _ => error.to_string(),
        },
        sqlx::Error::Configuration(_) => "the password cannot be sent".into(),
        sqlx::Error::Tls(error) => format!("TLS: {error}"),
        sqlx::Error::Protocol(_) => "the connection is out of step".into(),
        sqlx::Error::ColumnDecode { index, .. } => format!("column {index} cannot be read"),
        _ => "the driver failed".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_named_once() {
        let mut numbers: Vec<_> = NUMBERS.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), NUMBERS.len());
    }

    #[test]
    fn a_number_that_is_not_named_is_of_the_class_of_its_state() {
        let classes = ["08S01", "40003", "40000", "HY000", "4"].map(|state| class_of_state(Some(state)));
        let rolled_back = Class::Repeat("rolled_back");
        assert_eq!(classes, [Class::Lost, Class::Lost, rolled_back, Class::Other, Class::Other]);
        assert_eq!(class_of_state(None), Class::Other);
    }

    #[test]
    fn a_lost_connection_is_unknown_only_around_the_commit() {
        let error = || sqlx::Error::Io(io::ErrorKind::UnexpectedEof.into());
        let before = to_store_error(&error(), false, "mysql://a@b/c");
        assert_eq!(before.to_string(), "the store is unavailable: mysql://a@b/c: the connection was closed");
        assert!(matches!(to_store_error(&error(), true, ""), StoreError::UnknownOutcome { .. }));
    }

    #[test]
    fn a_cold_password_cache_is_explained() {
        let error = sqlx::Error::Configuration("RSA auth backend disabled".into());
        let text = to_store_error(&error, false, "mysql://a@b/c").to_string();
        assert!(text.contains("turn TLS on") && text.starts_with("access denied"), "{text}");
        let tls = sqlx::Error::Tls("bad certificate".into());
        assert!(to_store_error(&tls, false, "x").to_string().contains("ssl-ca"));
    }
}
