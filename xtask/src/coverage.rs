//! Line coverage: how builds are instrumented, what is counted, and the floors.
//!
//! Only our own crates are instrumented, by a wrapper around rustc, so the dependencies are those of any other
//! build. Counters live in files that are mapped into memory: a process that is killed has counted too.
//! Counted is code under `crates/`: not xtask, not the workspace's `tests`, not a file's test module.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::rust_source::without_tests;
use crate::tools::Llvm;
use crate::workspace::Workspace;

/// The crate of which every line is covered.
const WHOLE: &str = "queue-core";
/// The least share of all lines together, in percent. It only rises.
const FLOOR_PERCENT: f64 = 90.0;

/// What is said about coverage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// A table, and whether the floors hold.
    Floors,
    /// That, and each line that was not reached.
    Lines,
}

/// An instrumented build and what its processes count.
#[derive(Debug)]
pub(crate) struct Coverage {
    llvm: Llvm,
    home: PathBuf,
    wrapper: PathBuf,
}

impl Coverage {
    /// Gets the tools and forgets what earlier runs counted.
    pub(crate) fn new(workspace: &Workspace) -> Result<Self> {
        let llvm = Llvm::find(workspace)?;
        let home = workspace.target.join("coverage");
        let raw = home.join("raw");
        if raw.is_dir() {
            fs::remove_dir_all(&raw)?;
        }
        fs::create_dir_all(&raw)?;
        // A shell drops variables with a dash in their names: no program whose tests need `CARGO_BIN_EXE_…` may have one.
        // Cargo keeps what a wrapper built apart by the wrapper's path: another set of flags needs another name.
        let wrapper = home.join("rustc-instrumented-1");
        let script = "#!/bin/sh\nexec \"$@\" -C instrument-coverage -C llvm-args=-runtime-counter-relocation\n";
        if fs::read_to_string(&wrapper).ok().as_deref() != Some(script) {
            fs::write(&wrapper, script)?;
            fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { llvm, home, wrapper })
    }

    /// Makes `command` (a build, or a run of what was built) count.
    pub(crate) fn instrument(&self, command: &mut Command) {
        // %4m: four files for each program, shared by its processes; %c: counted in the file itself.
        command
            .env("RUSTC_WORKSPACE_WRAPPER", &self.wrapper)
            .env("LLVM_PROFILE_FILE", self.home.join("raw").join("%4m%c.profraw"));
    }

    /// Prints the table over what `programs` counted; with `floors`, fails where they do not hold.
    pub(crate) fn report(
        &self,
        workspace: &Workspace,
        programs: &[PathBuf],
        report: Report,
        floors: bool,
    ) -> Result<()> {
        let lines = self.lines(workspace, programs)?;
        let counted = Counted::new(lines, |path| fs::read_to_string(workspace.root.join(path)).ok());
        print!("{}", counted.table());
        if report == Report::Lines {
            let listing = counted.listing("");
            fs::write(self.home.join("uncovered.txt"), &listing)?;
            print!("\nlines that no test reached:\n{listing}");
            self.html(workspace, programs)?;
            println!("also: {}", self.home.join("html/index.html").display());
        }
        if !floors {
            println!("a filtered run: the floors are not held against it");
            return Ok(());
        }
        counted.hold()
    }

    fn lines(&self, workspace: &Workspace, programs: &[PathBuf]) -> Result<BTreeMap<String, Lines>> {
        let raw: Vec<_> = fs::read_dir(self.home.join("raw"))?
            .flatten()
            .filter(|entry| entry.metadata().is_ok_and(|file| file.len() > 0))
            .map(|entry| entry.path())
            .collect();
        if raw.is_empty() {
            bail!("no process counted anything: were the tests built without the wrapper?");
        }
        let mut merge = self.llvm.profdata.command();
        merge.args(["merge", "--sparse", "--failure-mode=all", "--output"]).arg(self.data()).args(&raw);
        process::output(&mut merge)?;
        let mut export = self.llvm.cov.command();
        export.args(["export", "--format=lcov", "--skip-functions"]);
        let lcov = process::output(self.sources(&mut export, workspace, programs)?)?;
        Ok(parse(&lcov, &workspace.root))
    }

    fn html(&self, workspace: &Workspace, programs: &[PathBuf]) -> Result<()> {
        let mut show = self.llvm.cov.command();
        show.args(["show", "--format=html", "--output-dir"]).arg(self.home.join("html"));
        process::output(self.sources(&mut show, workspace, programs)?).map(drop)
    }

    fn sources<'c>(
        &self,
        command: &'c mut Command,
        workspace: &Workspace,
        programs: &[PathBuf],
    ) -> Result<&'c mut Command> {
        let mut data = std::ffi::OsString::from("--instr-profile=");
        data.push(self.data());
        let (first, others) = programs.split_first().context("no test program was built")?;
        command.arg(data).arg(first);
        for program in others {
            command.arg("--object").arg(program);
        }
        Ok(command.arg("--sources").arg(workspace.root.join("crates")))
    }

    fn data(&self) -> PathBuf {
        self.home.join("all.profdata")
    }
}

/// How often each line ran.
type Lines = BTreeMap<usize, u64>;

/// The lines that count, by file.
#[derive(Debug)]
struct Counted {
    files: BTreeMap<String, Lines>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    lines: usize,
    covered: usize,
}

impl Sum {
    fn percent(self) -> f64 {
        if self.lines == 0 {
            return 100.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "lines of code stay far below 2^52")]
        let share = self.covered as f64 / self.lines as f64;
        share * 100.0
    }
}

impl Counted {
    /// Drops the lines of test modules from `files`; `read` returns a file's text.
    fn new(mut files: BTreeMap<String, Lines>, read: impl Fn(&str) -> Option<String>) -> Self {
        files.retain(|path, lines| {
            let Some(source) = read(path) else { return false };
            let end = without_tests(&source).lines().count();
            lines.retain(|line, _| *line <= end);
            let in_tests = path.contains("/tests/") || path.ends_with("/tests.rs") || path.contains("/examples/");
            !in_tests && !lines.is_empty()
        });
        Self { files }
    }

    fn sums(&self) -> BTreeMap<&str, Sum> {
        let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
        for (path, lines) in &self.files {
            let sum = sums.entry(crate_of(path)).or_default();
            sum.lines += lines.len();
            sum.covered += lines.values().filter(|count| **count > 0).count();
        }
        sums
    }

    fn total(&self) -> Sum {
        let add = |a: Sum, b: Sum| Sum { lines: a.lines + b.lines, covered: a.covered + b.covered };
        self.sums().into_values().fold(Sum::default(), add)
    }

    fn table(&self) -> String {
        let mut table = String::from("\ncoverage            lines  covered        %\n");
        for (name, sum) in self.sums().into_iter().chain([("all (without xtask)", self.total())]) {
            // Rounded down, so that 100.00 means every line.
            let percent = (sum.percent() * 100.0).floor() / 100.0;
            let _ = writeln!(table, "{name:<19} {:>5} {:>8} {percent:>8.2}", sum.lines, sum.covered);
        }
        table
    }

    /// The lines that were not reached in files whose path begins with `prefix`, as `path: 1-3 7`.
    fn listing(&self, prefix: &str) -> String {
        let mut listing = String::new();
        for (path, lines) in self.files.iter().filter(|(path, _)| path.starts_with(prefix)) {
            let missed: Vec<_> = lines.iter().filter(|(_, count)| **count == 0).map(|(line, _)| *line).collect();
            if !missed.is_empty() {
                let _ = writeln!(listing, "  {path}: {}", ranges(&missed));
            }
        }
        listing
    }

    fn hold(&self) -> Result<()> {
        let whole = self.sums().get(WHOLE).copied().unwrap_or_default();
        let total = self.total();
        if whole.lines == 0 {
            bail!("no line of {WHOLE} was counted");
        }
        let mut broken = Vec::new();
        if whole.covered < whole.lines {
            let missing = whole.lines - whole.covered;
            let listing = self.listing(&format!("crates/{WHOLE}/"));
            broken.push(format!("every line of {WHOLE} must be covered, {missing} are not:\n{listing}"));
        }
        if total.percent() < FLOOR_PERCENT {
            let percent = total.percent();
            broken.push(format!("{percent:.2} % of all lines are covered, the floor is {FLOOR_PERCENT} %\n"));
        }
        if !broken.is_empty() {
            bail!("{}try: cargo xtask coverage, which lists what is missing", broken.concat());
        }
        println!("floors hold: every line of {WHOLE}, {FLOOR_PERCENT} % of the workspace");
        Ok(())
    }
}

fn crate_of(path: &str) -> &str {
    path.split('/').nth(1).unwrap_or(path)
}

/// The line counts in an lcov report, by path relative to `root`; files outside are left out.
fn parse(lcov: &str, root: &Path) -> BTreeMap<String, Lines> {
    let mut files: BTreeMap<String, Lines> = BTreeMap::new();
    let mut current = None;
    for line in lcov.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            current = Path::new(path).strip_prefix(root).ok().map(|path| path.to_string_lossy().into_owned());
        } else if let (Some(path), Some(entry)) = (&current, line.strip_prefix("DA:")) {
            let mut numbers = entry.split(',').map(str::parse::<u64>);
            if let (Some(Ok(line)), Some(Ok(count))) = (numbers.next(), numbers.next())
                && let Ok(line) = usize::try_from(line)
            {
                *files.entry(path.clone()).or_default().entry(line).or_default() += count;
            }
        }
    }
    files
}

fn ranges(lines: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &line in lines {
        match ranges.last_mut() {
            Some((_, end)) if *end + 1 == line => *end = line,
            _ => ranges.push((line, line)),
        }
    }
    let words =
        ranges.iter().map(|(start, end)| if start == end { start.to_string() } else { format!("{start}-{end}") });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Counted, parse, ranges};

    const LCOV: &str = "SF:/w/crates/queue-core/src/a.rs\nDA:1,4\nDA:2,0\nDA:5,0\nend_of_record\n\
                        SF:/w/crates/queue-sqlite/src/b.rs\nDA:1,1\nend_of_record\n\
                        SF:/elsewhere/c.rs\nDA:1,0\nend_of_record\n";

    fn counted(core: &str) -> Counted {
        Counted::new(parse(LCOV, Path::new("/w")), |path| {
            Some(if path.contains("core") { core } else { "x" }.to_owned())
        })
    }

    #[test]
    fn a_missed_line_of_the_core_breaks_the_floor_and_is_named() {
        let error = counted("1\n2\n3\n4\n5\n").hold().unwrap_err().to_string();
        assert!(error.contains("crates/queue-core/src/a.rs: 2 5"), "{error}");
    }

    #[test]
    fn test_modules_do_not_count_and_the_rest_of_the_workspace_has_its_own_floor() {
        let counted = counted("1\n#[cfg(test)]\nmod tests {\n4\n5\n");
        assert_eq!(counted.total().lines, 2);
        counted.hold().unwrap();
    }

    #[test]
    fn a_workspace_below_its_floor_fails() {
        let lcov = "SF:/w/crates/queue-core/src/a.rs\nDA:1,4\nSF:/w/crates/q/src/b.rs\nDA:1,0\n";
        let counted = Counted::new(parse(lcov, Path::new("/w")), |_| Some("x".to_owned()));
        assert!(counted.hold().unwrap_err().to_string().contains("50.00 %"));
    }

    #[test]
    fn neighbours_are_joined() {
        assert_eq!(ranges(&[1, 2, 3, 7, 9, 10]), "1-3 7 9-10");
    }
}
