//! Workers, as people and programs read them.

use queue_runtime::Timestamp;
use queue_runtime::queue_core::session::SessionRecord;
use serde::Serialize;

use super::escape::escaped;
use super::grouped;
use super::table::Columns;
use crate::time::{brief, rfc3339};

/// A worker as JSON. These names are stable.
#[derive(Serialize)]
pub(crate) struct WorkerJson<'a> {
    /// As text: it has more digits than some programs keep of a number.
    id: String,
    name: &'a str,
    host: &'a str,
    version: &'a str,
    state: &'static str,
    running: u64,
    opened_at: String,
    lease_until: String,
}

impl<'a> WorkerJson<'a> {
    pub(crate) fn new(session: &'a SessionRecord, now: Timestamp) -> Self {
        Self {
            id: session.id.to_string(),
            name: &session.name,
            host: &session.host,
            version: &session.version,
            state: state(session, now),
            running: session.running,
            opened_at: rfc3339(session.opened_at),
            lease_until: rfc3339(session.lease_until),
        }
    }
}

/// What becomes of a worker that was told to drain.
pub(crate) fn drained(session: &SessionRecord, told: bool) -> String {
    let name = escaped(&session.name);
    if told {
        format!("worker {name} is told to drain with its next heartbeat; it runs {}", grouped(session.running))
    } else {
        format!("worker {name} has just ended")
    }
}

/// All of them as lines of text.
pub(crate) fn lines(sessions: &[SessionRecord], now: Timestamp) -> Vec<String> {
    if sessions.is_empty() {
        return vec!["no workers".to_owned()];
    }
    let mut columns = Columns::new(&["NAME", "HOST", "VERSION", "STATE", ">RUNNING", "SINCE", "ID"]);
    for session in sessions {
        columns.row([
            escaped(&session.name).into_owned(),
            escaped(&session.host).into_owned(),
            escaped(&session.version).into_owned(),
            state(session, now).to_owned(),
            grouped(session.running),
            brief(session.opened_at, now),
            session.id.to_string(),
        ]);
    }
    columns.lines()
}

/// `alive`; `late`, when its lease is over and nobody has fenced it yet; `fenced`, when its tasks are being recovered.
fn state(session: &SessionRecord, now: Timestamp) -> &'static str {
    match session.fenced_at {
        Some(_) => "fenced",
        None if session.lease_until <= now => "late",
        None => "alive",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use queue_runtime::queue_core::SessionId;

    use super::*;

    fn sessions(now: Timestamp) -> Vec<SessionRecord> {
        let session = |id, lease_until, fenced_at| SessionRecord {
            id: SessionId::new(id).unwrap(),
            name: format!("db\n1:{id}"),
            host: "db1".into(),
            version: "0.1.0".into(),
            opened_at: now.before(Duration::from_secs(540)),
            lease_until,
            fenced_at,
            running: 1_200,
        };
        let (before, after) = (now.before(Duration::from_secs(1)), now.after(Duration::from_secs(20)));
        vec![session(31, after, None), session(32, before, None), session(33, before, Some(now))]
    }

    #[test]
    fn people_and_programs_read_them() {
        let now = Timestamp::from_micros(1_769_850_000_000_000);
        assert_eq!(
            lines(&sessions(now), now),
            [
                "NAME      HOST  VERSION  STATE   RUNNING  SINCE  ID",
                "db\\n1:31  db1   0.1.0    alive     1,200  08:51  31",
                "db\\n1:32  db1   0.1.0    late      1,200  08:51  32",
                "db\\n1:33  db1   0.1.0    fenced    1,200  08:51  33",
            ]
        );
        assert_eq!(lines(&[], now), ["no workers"]);
        let json = serde_json::to_value(WorkerJson::new(&sessions(now)[0], now)).unwrap();
        assert_eq!((&json["id"], &json["state"], &json["running"]), (&"31".into(), &"alive".into(), &1_200.into()));
    }
}
