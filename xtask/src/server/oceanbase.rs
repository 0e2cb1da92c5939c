//! OceanBase's one-node build, seekdb: the server comes as a program in a Python wheel.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

const DISTRIBUTION: &str = "pylibseekdb";
const VERSION: &str = "1.4.0.post1";
/// Where it comes from, in words.
pub(super) const SOURCE: &str = "seekdb 1.4.0.post1, a wheel of PyPI";
/// What it may take. It asks for more than a small machine has, if it is not told.
const LIMITS: [&str; 3] = ["datafile_size=512M", "log_disk_size=2G", "memory_limit=3G"];

/// Fetches it into a folder under `servers`, once, and gives the command line that starts it, without what it serves.
pub(super) fn program(servers: &Path) -> Result<Vec<OsString>> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("the wheel {DISTRIBUTION} is for Linux on x86-64");
    }
    let home = servers.join(format!("{DISTRIBUTION}-{VERSION}"));
    let folder = home.join(DISTRIBUTION);
    if !folder.join("seekdb").is_file() {
        println!("fetching {DISTRIBUTION} {VERSION} (once, 54 MB)");
        // Under another name until it is whole.
        let work = servers.join(format!("{DISTRIBUTION}-{}", std::process::id()));
        let fetched = fetch(&work).and_then(|()| Ok(fs::rename(&work, &home)?));
        if fetched.is_err() && !folder.is_dir() {
            let _ = fs::remove_dir_all(&work); // the error matters more
            fetched?;
        }
    }
    let program = folder.join("seekdb");
    let mut libraries = OsString::from("LD_LIBRARY_PATH=");
    libraries.push(&folder);
    Ok(vec!["env".into(), libraries, program.into()])
}

/// The wheel is for one version of Python, but the program in it needs none.
fn fetch(work: &Path) -> Result<()> {
    fs::create_dir_all(work)?;
    process::output(
        Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"])
            .args(["--only-binary=:all:", "--implementation=cp", "--python-version=3.11", "--abi=cp311"])
            .args(["--platform=manylinux_2_28_x86_64", "--target"])
            .arg(work)
            .arg(format!("{DISTRIBUTION}=={VERSION}")),
    )
    .with_context(|| format!("cannot fetch {DISTRIBUTION} from PyPI (python3 with pip does it)"))?;
    let program = work.join(DISTRIBUTION).join("seekdb");
    make_executable(&program).with_context(|| format!("the wheel holds no {}", program.display()))
}

fn make_executable(program: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755))
}

/// What follows the program: it serves `home` on `port`, to this machine alone although it listens on all addresses.
pub(super) fn options(home: &Path, port: u16) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["--nodaemon".into(), "--port".into(), port.to_string().into()];
    words.extend(["--base-dir".into(), home.join("data").into()]);
    words.extend(["--variable".into(), "ob_tcp_invited_nodes=127.0.0.1".into()]);
    words.extend(LIMITS.iter().flat_map(|limit| ["--parameter".into(), (*limit).into()]));
    words
}
