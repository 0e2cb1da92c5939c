//! A server in a container, through testcontainers; the container goes with the run.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use testcontainers::core::IntoContainerPort;
use testcontainers::runners::SyncRunner;
use testcontainers::{GenericImage, ImageExt};

use super::{Kind, PASSWORD, Server, USER, url, wire};
use crate::{interrupt, process};

const START_LIMIT: Duration = Duration::from_secs(120);

/// Starts the image of `kind`, which must be on this machine.
pub(crate) fn start(kind: Kind) -> Result<Server> {
    let reference = kind.image();
    let (name, tag) = reference.rsplit_once(':').unwrap_or((&reference, "latest"));
    let of_engine = if kind.is_mariadb() { "MARIADB" } else { "MYSQL" };
    let grant = format!("GRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION;\n");
    // The greeting is what we wait for: the images log "ready" twice, first for a server that sets up the other.
    let container = GenericImage::new(name, tag)
        .with_exposed_port(3306.tcp())
        .with_env_var(format!("{of_engine}_ROOT_PASSWORD"), PASSWORD)
        .with_env_var(format!("{of_engine}_USER"), USER)
        .with_env_var(format!("{of_engine}_PASSWORD"), PASSWORD)
        .with_copy_to("/docker-entrypoint-initdb.d/queue.sql", grant.into_bytes())
        .with_startup_timeout(START_LIMIT)
        .start()
        .with_context(|| format!("cannot start a container of {reference}"))?;
    let port = container.get_host_port_ipv4(3306).context("the container shows no port")?;
    let start = process::now();
    while let Err(error) = wire::greeting(&format!("127.0.0.1:{port}")) {
        interrupt::check()?;
        if start.elapsed() > START_LIMIT {
            bail!("{reference} does not answer after {} s: {error:#}", START_LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Server::reach(kind, url(port), format!("container of {reference}"), Some(Box::new(container)))
}
