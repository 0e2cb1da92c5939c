//! Debian packages of any suite, unpacked and run where they lie: no root, nothing installed.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// What `dpkg -x` made of some packages and everything that they need, the C library and its loader included.
#[derive(Debug, Clone)]
pub(crate) struct Unpacked {
    prefix: PathBuf,
}

/// A program and what must stand before it on the command line.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    words: Vec<OsString>,
}

impl Program {
    /// A program that runs as it is.
    pub(crate) fn plain(path: impl Into<OsString>) -> Self {
        Self { words: vec![path.into()] }
    }

    /// A program with what stands before and after it.
    pub(crate) const fn of(words: Vec<OsString>) -> Self {
        Self { words }
    }

    /// A command that starts it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        // The caller's libraries are not the ones that these programs were built with.
        command.args(&self.words[1..]).env_remove("LD_LIBRARY_PATH");
        command
    }

    /// The command line so far.
    pub(crate) fn words(&self) -> &[OsString] {
        &self.words
    }
}

impl Unpacked {
    /// Unpacks `packages` of `suite` under `prefix`, or uses what an earlier run left there.
    pub(crate) fn fetch(suite: &str, prefix: &Path, packages: &[&str]) -> Result<Self> {
        if !prefix.is_dir() {
            println!("unpacking {} of Debian {suite} (once)", packages.join(", "));
            let parent = prefix.parent().context("a prefix has a parent")?;
            fs::create_dir_all(parent)?;
            // Under a name of its own until it is whole: a run that is cut short leaves nothing that looks done,
            // and of two runs at once the first to finish wins.
            let work = Scratch::new(parent)?;
            unpack(suite, &work.0, packages).with_context(|| format!("cannot unpack Debian {suite}"))?;
            if let Err(error) = fs::rename(work.0.join("root"), prefix)
                && !prefix.is_dir()
            {
                return Err(error).with_context(|| format!("cannot create {}", prefix.display()));
            }
        }
        Ok(Self { prefix: prefix.to_owned() })
    }

    /// A path inside.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.prefix.join(relative)
    }

    /// The program at `relative`, run by the unpacked loader with the unpacked libraries and those in `libraries`.
    pub(crate) fn program(&self, relative: &str, libraries: &[&str]) -> Result<Program> {
        let program = self.path(relative);
        if !program.is_file() {
            bail!("the unpacked packages hold no {relative}; remove {} and try again", self.prefix.display());
        }
        let mut paths = Vec::new();
        for base in ["usr/lib", "lib"] {
            for entry in fs::read_dir(self.path(base)).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().contains("-linux-") {
                    paths.push(entry.path());
                }
            }
        }
        let loader = paths
            .iter()
            .flat_map(|path| fs::read_dir(path).into_iter().flatten().flatten())
            .find(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.starts_with("ld-linux") || name.starts_with("ld64.so")
            })
            .with_context(|| format!("no loader under {}", self.prefix.display()))?;
        let extra: Vec<_> = libraries
            .iter()
            .flat_map(|library| {
                let of_arch = paths.iter().map(move |path| path.join(library));
                of_arch.chain([self.path(library)])
            })
            .filter(|path| path.is_dir())
            .collect();
        paths.extend(extra);
        let path = std::env::join_paths(paths).context("a library path with a colon in it")?;
        Ok(Program { words: vec![loader.path().into(), "--library-path".into(), path, program.into()] })
    }
}

/// A folder that goes away with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> Result<Self> {
        let path = parent.join(format!("unpacking-{}-{:?}", std::process::id(), std::thread::current().id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path.canonicalize()?))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // at worst a folder under target/ stays
    }
}

fn unpack(suite: &str, work: &Path, packages: &[&str]) -> Result<()> {
    let mirror = mirror()?;
    for folder in ["lists/partial", "cache/archives/partial", "parts", "debs", "root"] {
        fs::create_dir_all(work.join(folder))?;
    }
    // An empty list of installed packages makes apt resolve as if nothing were installed, else it mixes suites.
    fs::write(work.join("status"), "")?;
    fs::write(
        work.join("parts/suite.sources"),
        format!(
            "Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        ),
    )?;
    let user = process::output(Command::new("id").arg("-un"))?;
    let options: Vec<OsString> = [
        ("Dir::State::status", work.join("status").into_os_string()),
        ("Dir::Etc::SourceList", "/dev/null".into()),
        ("Dir::Etc::SourceParts", work.join("parts").into()),
        ("Dir::State::Lists", work.join("lists").into()),
        ("Dir::Cache", work.join("cache").into()),
        ("APT::Sandbox::User", user.trim().into()),
        ("Acquire::Languages", "none".into()),
        ("Acquire::Retries", "3".into()),
    ]
    .into_iter()
    .flat_map(|(name, value)| {
        let mut option = OsString::from(name);
        option.push("=");
        option.push(value);
        ["-o".into(), option]
    })
    .collect();

    process::output(Command::new("apt-get").args(&options).args(["update", "-qq"]))?;
    let mut depends = Command::new("apt-cache");
    depends.args(&options).args(["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts"]);
    depends.args(["--no-breaks", "--no-replaces", "--no-enhances"]).args(packages);
    let answer = process::output(&mut depends)?;
    let wanted = needed(&answer);
    let debs = work.join("debs");
    process::output(Command::new("apt-get").args(&options).args(["download", "-qq"]).args(&wanted).current_dir(&debs))?;
    for entry in fs::read_dir(&debs)? {
        let deb = entry?.path();
        if deb.extension().is_some_and(|extension| extension == "deb") {
            process::output(Command::new("dpkg").arg("-x").arg(&deb).arg(work.join("root")))?;
        }
    }
    Ok(())
}

/// The mirror that this machine's apt uses already: the project names none.
fn mirror() -> Result<String> {
    let format = "$(SITE) $(RELEASE)";
    let targets = process::output(Command::new("apt-get").args(["indextargets", "--format", format]))
        .context("this machine has no apt-get of Debian's")?;
    targets
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(_, release)| !release.contains("security") && !release.contains("updates"))
        .map(|(site, _)| site.to_owned())
        .context("apt has no source: is /etc/apt/sources.list.d empty?")
}

/// The package names in the output of `apt-cache depends --recurse`, without those that no program of ours runs.
fn needed(depends: &str) -> Vec<&str> {
    let mut names: Vec<_> = depends
        .lines()
        .filter(|line| line.starts_with(|first: char| first.is_ascii_alphanumeric()))
        .filter(|name| !name.contains(':'))
        .filter(|name| !matches!(*name, "perl" | "perl-base"))
        .filter(|name| !name.starts_with("perl-modules") && !name.starts_with("debconf"))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::needed;

    #[test]
    fn names_are_taken_and_virtual_foreign_and_script_packages_left() {
        let depends = "mysql-server-core\n  Depends: libc6\n |Depends: debconf\n  Depends: <awk>\nlibc6\n<awk>\nperl\n\
                       perl-modules-5.36\nlibc6:i386\nlibc6\ndebconf-2.0\n";
        assert_eq!(needed(depends), ["libc6", "mysql-server-core"]);
    }
}
