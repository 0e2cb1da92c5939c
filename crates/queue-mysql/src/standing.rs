//! What a server says of its part among others, and whether that makes it the one to write to.

use queue_core::StoreError;
use sqlx::mysql::MySqlRow;

use crate::server::{Flavor, Server};
use crate::sql::value;

/// What is asked of every server; those that do not know a variable leave it out.
pub(crate) const VARIABLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'version_comment', \
     'hostname', 'port', 'server_id', 'server_uuid', 'read_only', 'super_read_only', 'innodb_read_only', 'wsrep_on', \
     'group_replication_group_name', 'group_replication_single_primary_mode')";

/// Asked of a server that belongs to a replication group.
pub(crate) const MEMBERS: &str = "SELECT member_id, member_host, member_port, member_state, member_role \
     FROM performance_schema.replication_group_members";

/// Set on every connection to a member: a new primary first applies what the old one had committed. Without it a settle could
/// come before the claim it belongs to, and would count as stale.
pub(crate) const WAIT_FOR_BACKLOG: &str = "SET SESSION group_replication_consistency = 'BEFORE_ON_PRIMARY_FAILOVER'";

/// Said of a host that takes writes when another one does as well.
pub(crate) const ALSO_TAKES: &str = "takes writes, but so does another host; make all but one read-only";

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    version: String,
    comment: String,
    /// A mark that no other server has.
    pub(crate) id: String,
    /// The variable that forbids writes, if one does.
    read_only: Option<&'static str>,
    /// The replication group that it is set up for.
    pub(crate) group: Option<String>,
    many_primaries: bool,
    galera: bool,
    /// The group's members as this one sees them.
    pub(crate) members: Vec<Member>,
}

/// A member of a replication group, as one of them sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) place: String,
    pub(crate) state: String,
    pub(crate) role: String,
}

impl Member {
    /// Reads a row of the answer to [`MEMBERS`].
    pub(crate) fn of(row: &MySqlRow) -> Result<Self, sqlx::Error> {
        let port: Option<i64> = value(row, 2)?;
        let place = format!("{}:{}", text(row, 1)?, port.unwrap_or_default());
        Ok(Self { id: text(row, 0)?, place, state: text(row, 3)?, role: text(row, 4)? })
    }

    fn is_primary(&self) -> bool {
        self.state == "ONLINE" && self.role == "PRIMARY"
    }
}

/// Whether a server is the one to write to.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// By all that it says.
    Takes,
    /// Not now, and why.
    Not(String),
    /// Never.
    Unusable(StoreError),
}

impl Standing {
    /// Reads the rows of the answer to [`VARIABLES`].
    pub(crate) fn of(rows: &[MySqlRow]) -> Result<Self, sqlx::Error> {
        let variables = rows.iter().map(|row| Ok((text(row, 0)?, text(row, 1)?)));
        Ok(Self::read(&variables.collect::<Result<Vec<_>, sqlx::Error>>()?))
    }

    fn read(variables: &[(String, String)]) -> Self {
        let of = |name: &str| {
            let found = variables.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map_or("", |(_, value)| value.as_str())
        };
        let on = |name: &str| !matches!(of(name), "" | "OFF" | "0");
        let id = match of("server_uuid") {
            "" => format!("{}:{}/{}", of("hostname"), of("port"), of("server_id")),
            uuid => uuid.to_owned(),
        };
        Self {
            version: of("version").to_owned(),
            comment: of("version_comment").to_owned(),
            id,
            read_only: ["super_read_only", "read_only", "innodb_read_only"].into_iter().find(|name| on(name)),
            group: Some(of("group_replication_group_name").to_owned()).filter(|name| !name.is_empty()),
            many_primaries: of("group_replication_single_primary_mode") == "OFF",
            galera: on("wsrep_on"),
            members: Vec::new(),
        }
    }

    /// Refuses what could never be written to safely. `several` says whether the URL names several hosts.
    pub(crate) fn check(&self, several: bool) -> Result<(), StoreError> {
        let said = format!("{} {}", self.version, self.comment);
        let because = |why: &str| StoreError::Unsupported {
            reason: format!("the server ({}) cannot be used: {why}", said.trim()),
        };
        if self.group.is_some() && self.many_primaries {
            return Err(because(
                "its replication group takes writes on every member, and locks hold on one of them only, so tasks would run \
                 twice; switch the group to a single primary (SELECT group_replication_switch_to_single_primary_mode())",
            ));
        }
        if self.galera && several {
            return Err(because(
                "every node of a Galera cluster takes writes, and locks hold on one of them only, so tasks would run twice; \
                 name one node, the same in every process",
            ));
        }
        Ok(())
    }

    /// Judges it as one of several hosts. `flavor` is what the store began on.
    pub(crate) fn verdict(&self, flavor: Option<Flavor>) -> Verdict {
        if let Err(error) = self.check(true) {
            return Verdict::Unusable(error);
        }
        match Server::parse(&self.version, &self.comment, "") {
            Err(error) => return Verdict::Unusable(error),
            Ok(server) if flavor.is_some_and(|flavor| flavor != server.flavor) => {
                return Verdict::Not(format!("is {:?} and not what the others are", server.flavor));
            }
            Ok(_) => {}
        }
        if self.group.is_some()
            && let Some(why) = self.member_trouble()
        {
            return Verdict::Not(why);
        }
        match self.read_only {
            Some(variable) => Verdict::Not(format!("is a replica ({variable} is on)")),
            None => Verdict::Takes,
        }
    }

    /// Why this member of a group is not its primary. One that has not joined takes writes like any server alone: they would
    /// be lost to the group.
    fn member_trouble(&self) -> Option<String> {
        let Some(own) = self.members.iter().find(|member| member.id == self.id) else {
            return Some("has not joined its replication group".to_owned());
        };
        if own.state == "OFFLINE" {
            return Some("has not joined its replication group".to_owned());
        }
        if own.state != "ONLINE" {
            return Some(format!("is {} in its replication group", own.state));
        }
        let reached = self.members.iter().filter(|member| member.state != "UNREACHABLE").count();
        if reached * 2 <= self.members.len() {
            return Some("cannot reach the majority of its replication group".to_owned());
        }
        match self.members.iter().find(|member| member.is_primary()) {
            Some(primary) if primary.id == self.id => None,
            Some(primary) => Some(format!("is a replica (the primary is {})", primary.place)),
            None => Some("is a replica of a group without a primary".to_owned()),
        }
    }

    /// The member that this one takes for the primary.
    fn primary(&self) -> Option<&str> {
        self.members.iter().find(|member| member.is_primary()).map(|member| member.id.as_str())
    }
}

/// Which of the hosts that take writes is the one to write to.
///
/// `takes` are those by their own word, `all` is what every host said that answered. A primary that was cut off may not
/// know yet that its group has gone on without it: so the members have a vote. Two servers that are no group and both take
/// writes are a mistake that must not be guessed about.
pub(crate) fn choose(takes: &[&Standing], all: &[&Standing]) -> Option<usize> {
    let first = takes.first()?;
    if takes.iter().all(|standing| standing.id == first.id) {
        return Some(0); // one server under several names
    }
    if first.group.is_none() || takes.iter().any(|standing| standing.group != first.group) {
        return None;
    }
    let votes = |of: &Standing| all.iter().filter(|standing| standing.primary() == Some(of.id.as_str())).count();
    let most = takes.iter().map(|standing| votes(standing)).max()?;
    let mut elected = takes.iter().enumerate().filter(|(_, standing)| votes(standing) == most);
    let (index, winner) = elected.next()?;
    elected.all(|(_, standing)| standing.id == winner.id).then_some(index)
}

/// Text, empty where there is none.
fn text(row: &MySqlRow, index: usize) -> Result<String, sqlx::Error> {
    Ok(crate::sql::text(row, index)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(variables: &[(&str, &str)]) -> Standing {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut all: Vec<_> = [("version", "9.7.4"), ("version_comment", "(Debian)")].iter().map(owned).collect();
        all.extend(variables.iter().map(owned));
        Standing::read(&all)
    }

    /// A member `id` of a group that sees these members, each by id, state and role.
    fn member(id: &str, sees: &[(&str, &str, &str)]) -> Standing {
        let mut standing = standing(&[("server_uuid", id), ("group_replication_group_name", "g")]);
        standing.members = sees
            .iter()
            .map(|(id, state, role)| Member {
                id: (*id).to_owned(),
                place: format!("{id}:3306"),
                state: (*state).to_owned(),
                role: (*role).to_owned(),
            })
            .collect();
        standing
    }

    fn told(standing: &Standing) -> String {
        match standing.verdict(None) {
            Verdict::Takes => "takes".to_owned(),
            Verdict::Not(why) => why,
            Verdict::Unusable(error) => error.to_string(),
        }
    }

    #[test]
    fn a_server_alone_is_judged_by_its_switches() {
        assert_eq!(told(&standing(&[("read_only", "OFF"), ("super_read_only", "OFF")])), "takes");
        let both = standing(&[("read_only", "ON"), ("super_read_only", "ON")]);
        assert_eq!(told(&both), "is a replica (super_read_only is on)");
        assert_eq!(told(&standing(&[("read_only", "READ_ONLY")])), "is a replica (read_only is on)");
        assert_eq!(told(&standing(&[("innodb_read_only", "ON")])), "is a replica (innodb_read_only is on)");
        let maria = standing(&[("hostname", "h"), ("port", "3306"), ("server_id", "7")]);
        assert_eq!(maria.id, "h:3306/7");
        assert!(matches!(
            maria.verdict(Some(Flavor::MariaDb)),
            Verdict::Not(why) if why == "is MySql and not what the others are"
        ));
    }

    #[test]
    fn a_member_must_be_online_primary_and_in_the_majority() {
        let (up, cut) = ("ONLINE", "UNREACHABLE");
        let (first, second) = ("PRIMARY", "SECONDARY");
        let sees = |b, c| [("a", up, first), ("b", b, second), ("c", c, second)];
        assert_eq!(told(&member("a", &sees(up, up))), "takes");
        assert_eq!(told(&member("a", &sees(up, cut))), "takes");
        assert_eq!(told(&member("a", &sees(cut, cut))), "cannot reach the majority of its replication group");
        assert_eq!(told(&member("b", &sees(up, up))), "is a replica (the primary is a:3306)");
        assert_eq!(
            told(&member("b", &[("a", cut, first), ("b", up, second), ("c", up, second)])),
            "is a replica of a group without a primary"
        );
        assert_eq!(told(&member("b", &sees("RECOVERING", up))), "is RECOVERING in its replication group");
        let absent = "has not joined its replication group";
        assert_eq!(told(&member("a", &[("", "OFFLINE", "")])), absent);
        assert_eq!(told(&member("a", &[("a", "OFFLINE", "")])), absent);
        let mut demoted = member("a", &sees(up, up));
        demoted.read_only = Some("super_read_only");
        assert_eq!(told(&demoted), "is a replica (super_read_only is on)");
    }

    #[test]
    fn where_locks_hold_on_one_node_only_is_refused() {
        let group = [("group_replication_group_name", "g"), ("group_replication_single_primary_mode", "OFF")];
        let text = standing(&group).check(false).unwrap_err().to_string();
        assert!(text.starts_with("the server (9.7.4 (Debian)) cannot be used: its replication group"), "{text}");
        assert!(told(&standing(&group)).contains("group_replication_switch_to_single_primary_mode()"));
        // The plugin is loaded, but there is no group.
        assert_eq!(standing(&group[1..]).check(false).map_err(|error| error.to_string()), Ok(()));
        let galera = standing(&[("wsrep_on", "ON")]);
        assert!(galera.check(false).is_ok());
        assert!(told(&galera).contains("name one node, the same in every process"));
    }

    #[test]
    fn the_group_decides_between_two_that_call_themselves_primary() {
        let up = "ONLINE";
        let old = member("a", &[("a", up, "PRIMARY"), ("b", up, "SECONDARY"), ("c", up, "SECONDARY")]);
        let new = member("b", &[("b", up, "PRIMARY"), ("c", up, "SECONDARY")]);
        let witness = member("c", &[("b", up, "PRIMARY"), ("c", up, "SECONDARY")]);
        assert_eq!(choose(&[&old, &new], &[&old, &new, &witness]), Some(1));
        assert_eq!(choose(&[&old, &new], &[&old, &new]), None, "without a witness nobody knows");
        assert_eq!(choose(&[&old, &old], &[&old]), Some(0));
        assert_eq!(choose(&[], &[&witness]), None);
        let alone = standing(&[("server_uuid", "d")]);
        assert_eq!(choose(&[&alone, &new], &[&alone, &new, &witness]), None);
        assert_eq!(choose(&[&alone, &standing(&[("server_uuid", "e")])], &[]), None);
    }

    #[test]
    fn the_documentation_quotes_what_is_said() {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let page = words(include_str!("../../../docs/SCALING.md"));
        let group = [("group_replication_group_name", "g"), ("group_replication_single_primary_mode", "OFF")];
        let mut said = vec![
            standing(&group).check(false).unwrap_err().to_string(),
            standing(&[("wsrep_on", "ON")]).check(true).unwrap_err().to_string(),
            format!("db1:3306 {ALSO_TAKES}"),
        ];
        for (version, comment) in [("8.0.19", ""), ("8.0.11-TiDB-v7.5.0", ""), ("8.0.30-Vitess", "")] {
            said.push(Server::parse(version, comment, "").unwrap_err().to_string());
        }
        for text in said {
            // Without the version before it and the list of what would do after it.
            let text = text.split_once("cannot be used: ").map_or(text.as_str(), |(_, why)| why);
            let text = text.split(". MySQL").next().unwrap_or_default();
            assert!(page.contains(text), "docs/SCALING.md does not quote: {text}");
        }
    }
}
