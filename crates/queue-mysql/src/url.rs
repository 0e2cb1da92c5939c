//! Reading the database's URL, without ever telling its password.

use std::fmt;

use queue_core::StoreError;
use sqlx::mysql::MySqlConnectOptions;

const FORM: &str = "write mysql://user:password@host:3306/database, or several hosts with commas between them";
/// What may stand behind the question mark.
const KNOWN: &[&str] =
    &["ssl-mode", "sslmode", "ssl-ca", "sslca", "ssl-cert", "sslcert", "ssl-key", "sslkey", "socket", "wake"];

/// Hosts of one URL, at most.
const HOSTS_MAX: usize = 16;

/// One server of those that the URL names, and who we are there.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) options: MySqlConnectOptions,
    /// Host and port, or the socket.
    pub(crate) place: String,
}

/// Where the servers are. Several are one database: the one among them that takes writes is found by asking.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) hosts: Vec<Host>,
    /// The URL without its password, for errors.
    pub(crate) shown: String,
    /// Whether processes wake each other, where the URL says so or says no.
    pub(crate) wake: Option<bool>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Target {
    /// Reads the URL.
    pub(crate) fn parse(url: &str) -> Result<Self, StoreError> {
        let scheme = url.split_once("://").map(|(scheme, _)| scheme).unwrap_or_default();
        if scheme != "mysql" && scheme != "mariadb" {
            return Err(refused("its scheme is not mysql:// or mariadb://"));
        }
        let mut wake = None;
        if let Some((_, query)) = url.split_once('?') {
            for pair in query.split('&').filter(|pair| !pair.is_empty()) {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                if name == "wake" {
                    wake = Some(match value {
                        "on" => true,
                        "off" => false,
                        _ => return Err(refused("its option wake is neither on nor off")),
                    });
                }
                if !KNOWN.contains(&name) {
                    let name: String =
                        name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
                    return Err(refused(&format!(
                        "it has the unknown option {name:?}; known are {}",
                        KNOWN.join(", ")
                    )));
                }
            }
        }
        let mut hosts: Vec<Host> = Vec::new();
        let urls = one_for_each_host(url)?;
        let several = urls.len() > 1;
        for url in &urls {
            let host = Host::parse(url)?;
            if several && host.options.get_socket().is_some() {
                return Err(refused("it names several hosts and a socket"));
            }
            // Named twice is asked once.
            if hosts.iter().all(|known| known.place != host.place) {
                hosts.push(host);
            }
        }
        let Some(Host { options, .. }) = hosts.first() else { return Err(refused("it names no host")) };
        let places: Vec<_> = hosts.iter().map(|host| host.place.as_str()).collect();
        let (user, database) = (options.get_username(), options.get_database().unwrap_or_default());
        let shown = format!("mysql://{user}@{}/{database}", places.join(","));
        Ok(Self { hosts, shown, wake })
    }
}

impl Host {
    /// Reads a URL of one host.
    fn parse(url: &str) -> Result<Self, StoreError> {
        // The parser's own error never quotes the URL, but nothing here depends on that staying so.
        let options: MySqlConnectOptions = url.parse().map_err(|error| match &error {
            sqlx::Error::Configuration(_) if !leaks(url, &error) => refused(&error.to_string()),
            _ => refused("it cannot be read"),
        })?;
        if options.get_database().is_none() {
            return Err(refused("it names no database"));
        }
        let place = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        // The store sets what it needs by itself, once for each connection.
        let options = options.timezone(None).pipes_as_concat(false).no_engine_substitution(false);
        Ok(Self { options, place })
    }
}

/// The URL once for each host in it: `mysql://user@h1:3306,h2:3306/database` are two.
fn one_for_each_host(url: &str) -> Result<Vec<String>, StoreError> {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    // A comma in the name or the password is not between hosts.
    let hosts_from = url[start..end].rfind('@').map_or(start, |at| start + at + 1);
    let (before, hosts, after) = (&url[..hosts_from], &url[hosts_from..end], &url[end..]);
    let hosts: Vec<_> = hosts.split(',').collect();
    if hosts.len() > HOSTS_MAX {
        return Err(refused(&format!("it names more than {HOSTS_MAX} hosts")));
    }
    if hosts.len() > 1 && hosts.iter().any(|host| host.is_empty() || host.starts_with(':')) {
        return Err(refused("one of its hosts is empty"));
    }
    Ok(hosts.iter().map(|host| format!("{before}{host}{after}")).collect())
}

/// Whether the text quotes the password.
fn leaks(url: &str, error: &sqlx::Error) -> bool {
    let credentials = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map(|(user, _)| user);
    credentials
        .and_then(|user| user.split_once(':'))
        .is_some_and(|(_, password)| !password.is_empty() && error.to_string().contains(password))
}

fn refused(why: &str) -> StoreError {
    StoreError::other(format!("the database URL is refused: {why}; {FORM}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(url: &str) -> String {
        Target::parse(url).expect_err("refused").to_string()
    }

    #[test]
    fn a_good_url_is_shown_without_its_password() {
        let target = Target::parse("mysql://ana:s3cret%40@db9:3307/shop?ssl-mode=required").unwrap();
        assert_eq!(target.shown, "mysql://ana@db9:3307/shop");
        assert_eq!(format!("{target:?}"), target.shown);
        let socket = Target::parse("mariadb://ana@localhost/shop?socket=/run/mysqld.sock").unwrap();
        assert_eq!(socket.shown, "mysql://ana@/run/mysqld.sock/shop");
    }

    #[test]
    fn a_url_says_whether_processes_wake_each_other() {
        let wake = |query: &str| Target::parse(&format!("mysql://ana@db/shop{query}")).map(|target| target.wake);
        assert_eq!(wake("").unwrap(), None);
        assert_eq!(wake("?ssl-mode=disabled&wake=on").unwrap(), Some(true));
        assert_eq!(wake("?wake=off").unwrap(), Some(false));
        assert!(wake("?wake").unwrap_err().to_string().contains("its option wake is neither on nor off"));
    }

    #[test]
    fn a_url_may_name_several_hosts() {
        let target =
            Target::parse("mysql://ana:a,b%40c@db1,db2:3307,[::1]:3308,db1:3306/shop?ssl-mode=required").unwrap();
        assert_eq!(target.shown, "mysql://ana@db1:3306,db2:3307,[::1]:3308/shop");
        let places: Vec<_> = target.hosts.iter().map(|host| host.place.as_str()).collect();
        assert_eq!(places, ["db1:3306", "db2:3307", "[::1]:3308"]);
        for host in &target.hosts {
            assert_eq!((host.options.get_username(), host.options.get_database()), ("ana", Some("shop")));
        }
        for (url, says) in [
            ("mysql://ana:s3cret@db1,,db2/shop", "one of its hosts is empty"),
            ("mysql://ana:s3cret@db1,:3306/shop", "one of its hosts is empty"),
            ("mysql://ana:s3cret@db1,db2/shop?socket=/run/s3.sock", "several hosts and a socket"),
            ("mysql://ana:s3cret@db1,db2:99999/shop", "port"),
            (&format!("mysql://ana:s3cret@{}db/shop", "db,".repeat(HOSTS_MAX)), "more than 16 hosts"),
        ] {
            let text = error(url);
            assert!(text.contains(says) && !text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn bad_urls_are_refused_without_their_password() {
        let urls = [
            "postgres://ana:s3cret@db9/shop",
            "mysql://ana:s3cret@db9:99999/shop",
            "mysql://ana:s3cret@db9",
            "mysql://ana:s3cret@db9/shop?charset=latin1",
            "mysql://ana:s3cret@db9/shop?ssl-mode=s3cret",
            "mysql://ana:s3cret@",
            "s3cret",
        ];
        for url in urls {
            let text = error(url);
            assert!(!text.contains("s3cret"), "{text}");
            assert!(text.contains(FORM), "{text}");
        }
        assert!(error(urls[3]).contains("unknown option \"charset\""));
        assert!(error(urls[2]).contains("no database"));
    }

    proptest! {
        #[test]
        fn any_url_is_taken_and_none_tells_its_password(
            scheme in "(mysql|mariadb|sqlite|[a-z:/]{0,6})(://)?",
            password in "[A-Za-z0-9:/?#&%=.-]{0,12}",
            rest in "(@[a-z0-9.\\[\\]:]{0,12})?(/[a-zA-Z0-9%]{0,6})?(\\?[a-z=&%-]{0,20})?",
        ) {
            let secret = format!("Q{password}Q");
            let url = format!("{scheme}ana:{secret}{rest}");
            let told = match Target::parse(&url) {
                Ok(target) => format!("{target:?} {}", target.shown),
                Err(error) => format!("{error} {error:?}"),
            };
            // Without a place behind it, what looks like a password is one no more.
            prop_assert!(!rest.starts_with('@') || !told.contains(&secret), "{}", told);
        }

        #[test]
        fn any_text_is_taken(url in "\\PC{0,60}") {
            let _ = Target::parse(&url);
        }
    }
}
