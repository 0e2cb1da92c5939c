//! The first packet of the MySQL protocol: it says that a server is ready and which version it is, before any
//! login, so xtask needs no client library.

use std::io::Read;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const PATIENCE: Duration = Duration::from_secs(5);

/// The version in the greeting of the server at `url`.
pub(crate) fn version_at(url: &str) -> Result<String> {
    let address = host_and_port(url).with_context(|| format!("not a URL of MySQL's form: {}", redact(url)))?;
    greeting(&address).with_context(|| format!("no MySQL server answers at {address}"))
}

/// The version in the greeting of the server at `address`.
pub(crate) fn greeting(address: &str) -> Result<String> {
    let resolved = address.to_socket_addrs()?.next().context("the name has no address")?;
    let mut stream = TcpStream::connect_timeout(&resolved, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    let length = usize::from(header[0]) | usize::from(header[1]) << 8;
    let mut body = vec![0; length.min(1024)];
    stream.read_exact(&mut body)?;
    version_of(&body)
}

/// `major.minor.patch` out of a version string.
pub(crate) fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?))
}

fn version_of(body: &[u8]) -> Result<String> {
    let Some((&10, rest)) = body.split_first() else {
        bail!("it refuses connections: {}", String::from_utf8_lossy(body.get(3..).unwrap_or_default()));
    };
    let text = rest.split(|&byte| byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    // MariaDB before 11 pretends to be 5.5.5 for the sake of old replicas.
    Ok(text.strip_prefix("5.5.5-").unwrap_or(&text).to_owned())
}

fn host_and_port(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    (!host.is_empty()).then(|| if has_port { host.to_owned() } else { format!("{host}:3306") })
}

fn redact(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(start), Some(end)) if start < end => format!("{}://…{}", &url[..start], &url[end..]),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{host_and_port, numbers, redact, version_of};

    #[test]
    fn greeting_names_the_version_and_mariadb_loses_its_disguise() {
        assert_eq!(version_of(b"\x0a9.7.0\0rest").unwrap(), "9.7.0");
        assert_eq!(version_of(b"\x0a5.5.5-10.11.14-MariaDB-0+deb12u2\0").unwrap(), "10.11.14-MariaDB-0+deb12u2");
        assert!(version_of(b"\xff\x10\x04Too many connections").unwrap_err().to_string().contains("Too many"));
    }

    #[test]
    fn addresses_come_out_of_urls_and_passwords_do_not() {
        assert_eq!(host_and_port("mysql://a:p@h:1/db?x=y").unwrap(), "h:1");
        assert_eq!(host_and_port("mysql://h").unwrap(), "h:3306");
        assert_eq!(host_and_port("nonsense"), None);
        assert_eq!(redact("mysql://app:secret@h:1"), "mysql://…@h:1");
    }

    #[test]
    fn versions_have_three_numbers() {
        assert_eq!(numbers("10.11.14-MariaDB-0"), Some((10, 11, 14)));
        assert_eq!(numbers("9.7.0"), Some((9, 7, 0)));
        assert_eq!(numbers("unknown"), None);
    }
}
