//! What the server is set to, as our own connections see it, and what we are set to.

use std::collections::BTreeMap;
use std::time::Duration;

use queue_core::diagnose::Finding;
use sqlx::mysql::MySqlRow;

use crate::connection::URGENT_CONNECTIONS;
use crate::options::MySqlOptions;
use crate::server::Flavor;
use crate::sql::value;

/// The variables that are looked at. A server that lacks one answers without it.
const NAMES: &[&str] = &[
    "binlog_format",
    "innodb_deadlock_detect",
    "innodb_doublewrite",
    "innodb_flush_log_at_trx_commit",
    "innodb_lock_wait_timeout",
    "innodb_read_only",
    "lock_wait_timeout",
    "log_bin",
    "max_allowed_packet",
    "max_connections",
    "max_user_connections",
    "offline_mode",
    "read_only",
    "super_read_only",
    "sync_binlog",
    "transaction_isolation",
    "tx_isolation",
    "wait_timeout",
    "wsrep_on",
];

/// Bytes that a row of a bulk insert takes beside its payload, generously.
const ROW_BYTES: u64 = 256;

/// The variables of one of our connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings(BTreeMap<String, String>);

impl Settings {
    /// Asks for them.
    pub(crate) fn sql() -> String {
        let names: Vec<_> = NAMES.iter().map(|name| format!("'{name}'")).collect();
        format!("SHOW SESSION VARIABLES WHERE Variable_name IN ({})", names.join(","))
    }

    /// Reads the answer to [`sql`](Self::sql).
    pub(crate) fn of(rows: &[MySqlRow]) -> Result<Self, sqlx::Error> {
        let mut settings = BTreeMap::new();
        for row in rows {
            let (name, value): (String, String) = (value(row, 0)?, value(row, 1)?);
            settings.insert(name.to_ascii_lowercase(), value);
        }
        Ok(Self(settings))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    fn is_on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("ON"))
    }

    /// What the server must be set to for the queue to work at all.
    pub(super) fn needed(&self, options: &MySqlOptions) -> Vec<Finding> {
        vec![self.isolation(), self.binlog_format(), self.read_only(), self.packet(options)]
    }

    /// What else is worth knowing.
    pub(super) fn others(&self, flavor: Flavor, options: &MySqlOptions, lease: Duration) -> Vec<Finding> {
        let mut findings = vec![self.lock_wait(options)];
        findings.extend(self.durability(flavor));
        findings.extend(self.galera());
        findings.extend(self.configuration(options, lease));
        findings
    }

    fn isolation(&self) -> Finding {
        let isolation = self.get("transaction_isolation").or_else(|| self.get("tx_isolation")).unwrap_or("unknown");
        if isolation == "READ-COMMITTED" {
            return Finding::ok("isolation", "our connections run at READ COMMITTED");
        }
        Finding::fail(
            "isolation",
            format!("our connections run at {isolation} although they ask for READ COMMITTED: claims would lock gaps"),
            "look for a proxy or an init_connect that changes the isolation of sessions",
        )
    }

    fn binlog_format(&self) -> Finding {
        if !self.is_on("log_bin") {
            return Finding::ok("binlog", "no binary log is written, so nothing is replicated");
        }
        match self.get("binlog_format").unwrap_or("ROW") {
            "STATEMENT" => Finding::fail(
                "binlog",
                "binlog_format is STATEMENT: the server refuses every write at READ COMMITTED",
                "SET GLOBAL binlog_format = 'ROW', and in the server's configuration file; then reconnect",
            ),
            format => Finding::ok("binlog", format!("binlog_format is {format}")),
        }
    }

    fn read_only(&self) -> Finding {
        let on: Vec<_> = ["super_read_only", "read_only", "innodb_read_only", "offline_mode"]
            .into_iter()
            .filter(|name| self.is_on(name))
            .collect();
        if on.is_empty() {
            return Finding::ok("read_only", "the server takes writes");
        }
        Finding::fail(
            "read_only",
            format!("the server takes no writes: {} is on", on.join(" and ")),
            "name the primary in the URL; if this is the primary, SET GLOBAL read_only = OFF",
        )
    }

    fn packet(&self, options: &MySqlOptions) -> Finding {
        let limits = &options.limits;
        let batch = limits.batch_bytes_max.max(limits.payload_bytes_max);
        let needed = batch + limits.batch_max as u64 * ROW_BYTES + (64 << 10);
        let Some(packet) = self.number("max_allowed_packet") else {
            return Finding::warn("packet", "max_allowed_packet is not told", "look it up on the server");
        };
        if packet < needed {
            let advice = format!(
                "SET GLOBAL max_allowed_packet = {}, and in the server's configuration file; then reconnect",
                needed.next_power_of_two()
            );
            let told = format!("max_allowed_packet is {packet} bytes; a full batch of {batch} needs {needed}");
            return Finding::fail("packet", told, advice);
        }
        Finding::ok(
            "packet",
            format!("max_allowed_packet is {} MiB, a full batch needs {}", packet >> 20, needed >> 20),
        )
    }

    fn lock_wait(&self, options: &MySqlOptions) -> Finding {
        let (ours, wanted) = (self.number("innodb_lock_wait_timeout"), options.lock_wait.as_secs().max(1));
        if !self.is_on("innodb_deadlock_detect") && self.get("innodb_deadlock_detect").is_some() {
            return Finding::warn(
                "lock_wait",
                format!("innodb_deadlock_detect is off: a deadlock is only ended by the lock wait of {wanted} s"),
                "SET GLOBAL innodb_deadlock_detect = ON",
            );
        }
        match ours {
            Some(ours) if ours == wanted => {
                Finding::ok("lock_wait", format!("our statements wait {ours} s for a row's lock"))
            }
            other => Finding::warn(
                "lock_wait",
                format!("our statements wait {} s for a row's lock, not {wanted} s", Told(other)),
                "look for a proxy or an init_connect that changes innodb_lock_wait_timeout",
            ),
        }
    }

    fn durability(&self, flavor: Flavor) -> Vec<Finding> {
        let set = |name: &str, value: &str| match flavor {
            Flavor::MySql => format!("SET PERSIST {name} = {value}"),
            Flavor::MariaDb | Flavor::OceanBase => {
                format!("SET GLOBAL {name} = {value}, and in the server's configuration file")
            }
        };
        let mut findings = Vec::new();
        if let Some(flush) = self.number("innodb_flush_log_at_trx_commit").filter(|flush| *flush != 1) {
            findings.push(Finding::warn(
                "durability",
                format!(
                    "innodb_flush_log_at_trx_commit is {flush}: a crash of the machine loses up to a second of \
                     acknowledged tasks and outcomes"
                ),
                set("innodb_flush_log_at_trx_commit", "1"),
            ));
        }
        if let Some(sync) = self.number("sync_binlog").filter(|sync| *sync != 1 && self.is_on("log_bin")) {
            findings.push(Finding::warn(
                "durability",
                format!(
                    "sync_binlog is {sync}: after a crash of the machine the binary log may lack acknowledged tasks, and \
                     replicas with it"
                ),
                set("sync_binlog", "1"),
            ));
        }
        if self.get("innodb_doublewrite").is_some_and(|value| value.eq_ignore_ascii_case("OFF") || value == "0") {
            findings.push(Finding::warn(
                "durability",
                "innodb_doublewrite is off: a crash of the machine may tear a page, and all in it is lost",
                "innodb_doublewrite = ON in the server's configuration file; restart the server",
            ));
        }
        if findings.is_empty() {
            findings.push(Finding::ok("durability", "what was acknowledged survives a crash of the machine"));
        }
        findings
    }

    fn galera(&self) -> Option<Finding> {
        self.is_on("wsrep_on").then(|| {
            Finding::warn(
                "galera",
                "this is a Galera node: its locks are its own, so two nodes may both give out a task until one fails to commit",
                "let all workers and producers use one node",
            )
        })
    }

    fn configuration(&self, options: &MySqlOptions, lease: Duration) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut warn = |detail: String, advice: &str| findings.push(Finding::warn("configuration", detail, advice));
        let tick = lease / 3;
        if options.call_timeout >= lease {
            warn(
                format!(
                    "a call may take {:?}, the lease is {lease:?}: one that hangs costs the lease",
                    options.call_timeout
                ),
                "set call_timeout below the lease, or a longer lease",
            );
        }
        if options.lock_wait >= options.call_timeout {
            warn(
                format!("a lock may be waited for {:?}, a call may take {:?}", options.lock_wait, options.call_timeout),
                "set lock_wait below call_timeout, so that the server gives up first and its connection is kept",
            );
        }
        if options.lock_wait + options.connect_timeout >= lease {
            warn(
                format!("connecting and waiting for a lock may take longer than the lease of {lease:?}"),
                "set a longer lease, or a shorter connect_timeout and lock_wait",
            );
        }
        if let Some(idle) = self.number("wait_timeout").filter(|idle| Duration::from_secs(*idle) <= tick) {
            warn(
                format!("the server closes connections that are idle for {idle} s; a lease is renewed every {tick:?}"),
                "raise wait_timeout on the server to a minute or more",
            );
        }
        let connections = (options.connections_max + URGENT_CONNECTIONS) as u64;
        for name in ["max_connections", "max_user_connections"] {
            if let Some(max) = self.number(name).filter(|max| *max > 0 && connections > *max) {
                warn(
                    format!("one process may open {connections} connections, and {name} of the server is {max}"),
                    "raise it on the server, or lower max_connections of the store",
                );
            }
        }
        if findings.is_empty() {
            let told =
                format!("lease {lease:?}, call timeout {:?}, lock wait {:?}", options.call_timeout, options.lock_wait);
            findings.push(Finding::ok("configuration", told));
        }
        findings
    }
}

struct Told(Option<u64>);

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(number) => number.fmt(f),
            None => f.write_str("an unknown number of"),
        }
    }
}

#[cfg(test)]
mod tests {
    use queue_core::diagnose::{Level, worst};

    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    /// Variables that differ from a healthy server's.
    type Changed<'a> = &'a [(&'a str, &'a str)];

    fn settings(changed: &[(&str, &str)]) -> Settings {
        let healthy = [
            ("binlog_format", "ROW"),
            ("innodb_deadlock_detect", "ON"),
            ("innodb_doublewrite", "ON"),
            ("innodb_flush_log_at_trx_commit", "1"),
            ("innodb_lock_wait_timeout", "3"),
            ("log_bin", "ON"),
            ("max_allowed_packet", "67108864"),
            ("max_connections", "151"),
            ("max_user_connections", "0"),
            ("read_only", "OFF"),
            ("sync_binlog", "1"),
            ("transaction_isolation", "READ-COMMITTED"),
            ("wait_timeout", "28800"),
        ];
        Settings(healthy.iter().chain(changed).map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    fn all(settings: &Settings, options: &MySqlOptions, lease: Duration) -> Vec<Finding> {
        let mut findings = settings.needed(options);
        findings.extend(settings.others(Flavor::MySql, options, lease));
        findings
    }

    fn bad(changed: &[(&str, &str)]) -> Vec<(Level, String)> {
        let findings = all(&settings(changed), &MySqlOptions::default(), LEASE);
        findings
            .into_iter()
            .filter(|finding| finding.level != Level::Ok)
            .inspect(|finding| assert!(finding.advice.is_some()))
            .map(|finding| (finding.level, format!("{}: {}", finding.check, finding.detail)))
            .collect()
    }

    #[test]
    fn a_healthy_server_has_nothing_to_tell() {
        let findings = all(&settings(&[]), &MySqlOptions::default(), LEASE);
        assert_eq!(worst(&findings), Level::Ok, "{findings:#?}");
        let maria = Settings(
            settings(&[("tx_isolation", "READ-COMMITTED"), ("log_bin", "OFF")])
                .0
                .into_iter()
                .filter(|(name, _)| name != "transaction_isolation" && name != "innodb_deadlock_detect")
                .collect(),
        );
        assert_eq!(worst(&all(&maria, &MySqlOptions::default(), LEASE)), Level::Ok);
    }

    #[test]
    fn each_bad_setting_is_found() {
        let cases: &[(Changed<'_>, Level, &str)] = &[
            (
                &[("transaction_isolation", "REPEATABLE-READ")],
                Level::Fail,
                "isolation: our connections run at REPEATABLE-READ",
            ),
            (&[("binlog_format", "STATEMENT")], Level::Fail, "binlog: binlog_format is STATEMENT"),
            (&[("super_read_only", "ON"), ("read_only", "ON")], Level::Fail, "super_read_only and read_only is on"),
            (&[("max_allowed_packet", "1048576")], Level::Fail, "packet: max_allowed_packet is 1048576 bytes"),
            (&[("max_allowed_packet", "?")], Level::Warn, "packet: max_allowed_packet is not told"),
            (&[("innodb_deadlock_detect", "OFF")], Level::Warn, "lock_wait: innodb_deadlock_detect is off"),
            (&[("innodb_lock_wait_timeout", "50")], Level::Warn, "wait 50 s for a row's lock, not 3 s"),
            (&[("innodb_lock_wait_timeout", "")], Level::Warn, "wait an unknown number of s"),
            (&[("sync_binlog", "0")], Level::Warn, "durability: sync_binlog is 0"),
            (&[("innodb_flush_log_at_trx_commit", "2")], Level::Warn, "innodb_flush_log_at_trx_commit is 2"),
            (&[("innodb_doublewrite", "OFF")], Level::Warn, "innodb_doublewrite is off"),
            (&[("wsrep_on", "ON")], Level::Warn, "galera: this is a Galera node"),
            (&[("wait_timeout", "8")], Level::Warn, "idle for 8 s; a lease is renewed every 10s"),
            (
                &[("max_user_connections", "5")],
                Level::Warn,
                "may open 12 connections, and max_user_connections of the server is 5",
            ),
        ];
        for (changed, level, told) in cases {
            let found = bad(changed);
            assert!(
                matches!(found.as_slice(), [(found, text)] if found == level && text.contains(told)),
                "{changed:?}: {found:?}"
            );
        }
        assert_eq!(bad(&[("sync_binlog", "0"), ("log_bin", "OFF")]), []);
    }

    #[test]
    fn timeouts_that_do_not_fit_the_lease_are_told() {
        let told = |options: &MySqlOptions, lease| {
            let findings = settings(&[]).configuration(options, lease);
            findings.iter().map(|finding| finding.detail.clone()).collect::<Vec<_>>().join("; ")
        };
        let seconds = Duration::from_secs;
        let options = MySqlOptions::default();
        assert!(told(&options, seconds(10)).contains("a call may take 20s, the lease is 10s"));
        assert!(told(&options.clone().lock_wait(seconds(50)), LEASE).contains("a lock may be waited for 50s"));
        assert!(told(&options, seconds(8)).contains("connecting and waiting for a lock may take longer"));
    }

    #[test]
    fn advice_is_in_the_servers_own_words() {
        let sync = settings(&[("sync_binlog", "0")]);
        assert_eq!(sync.durability(Flavor::MySql)[0].advice.as_deref(), Some("SET PERSIST sync_binlog = 1"));
        let maria = sync.durability(Flavor::MariaDb)[0].advice.clone().unwrap();
        assert!(maria.starts_with("SET GLOBAL sync_binlog = 1"), "{maria}");
    }
}
