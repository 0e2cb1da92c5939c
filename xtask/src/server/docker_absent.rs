//! Stands in for `docker.rs` where xtask was built without the feature `docker`.

use anyhow::{Result, bail};

use super::{Kind, Server};

/// Cannot be reached: a run that wants a container starts xtask again with the feature.
pub(crate) fn start(kind: Kind) -> Result<Server> {
    bail!("xtask was built without its feature `docker`, so {kind} cannot run in a container")
}
