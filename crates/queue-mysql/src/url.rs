//! Reading the database's URL, without ever telling its password.

use std::fmt;

use queue_core::StoreError;
use sqlx::mysql::MySqlConnectOptions;

const FORM: &str = "write mysql://user:password@host:3306/database";
/// What may stand behind the question mark.
const KNOWN: &[&str] =
    &["ssl-mode", "sslmode", "ssl-ca", "sslca", "ssl-cert", "sslcert", "ssl-key", "sslkey", "socket"];

/// Where the server is, and who we are there.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) options: MySqlConnectOptions,
    /// The URL without its password, for errors.
    pub(crate) shown: String,
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
        if let Some((_, query)) = url.split_once('?') {
            for pair in query.split('&').filter(|pair| !pair.is_empty()) {
                let name = pair.split('=').next().unwrap_or_default();
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
        // The parser's own error never quotes the URL, but nothing here depends on that staying so.
        let options: MySqlConnectOptions = url.parse().map_err(|error| match &error {
            sqlx::Error::Configuration(_) if !leaks(url, &error) => refused(&error.to_string()),
            _ => refused("it cannot be read"),
        })?;
        let Some(database) = options.get_database().map(str::to_owned) else {
            return Err(refused("it names no database"));
        };
        let place = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let shown = format!("mysql://{}@{place}/{database}", options.get_username());
        // The store sets what it needs by itself, once for each connection.
        let options = options.timezone(None).pipes_as_concat(false).no_engine_substitution(false);
        Ok(Self { options, shown })
    }
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
