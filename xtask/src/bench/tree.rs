//! The two trees that a comparison builds: this one, and the files of a commit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::Workspace;

/// A tree that can be built, with a build directory of its own: in one directory the two would push each other out.
#[derive(Debug)]
pub(super) struct Tree {
    /// What it is called in tables and errors.
    pub(super) label: String,
    root: PathBuf,
    builds: PathBuf,
}

impl Tree {
    /// This tree, as it lies there.
    pub(super) fn here(workspace: &Workspace) -> Self {
        let builds = workspace.target.join("bench").join("here");
        Self { label: "this tree".to_owned(), root: workspace.root.clone(), builds }
    }

    /// The files of a commit, without touching anything that git tracks of this tree.
    pub(super) fn of_commit(workspace: &Workspace, name: &str) -> Result<Self> {
        let commit = resolve(&workspace.root, name)?;
        let home = workspace.target.join("bench");
        let root = home.join("tree");
        let present = home.join("tree-is");
        if fs::read_to_string(&present).ok().as_deref() != Some(&commit) {
            let _ = fs::remove_file(&present); // until the new one is whole
            check_out(&workspace.root, &root, &commit)?;
            fs::write(&present, &commit)?;
        }
        let label = commit.chars().take(12).collect();
        Ok(Self { label, root, builds: home.join("before") })
    }

    /// The command line of this tree, built as users get it.
    pub(super) fn queue(&self, workspace: &Workspace) -> Result<PathBuf> {
        self.build(workspace, "release", &["--package", "queue-cli", "--bin", "queue"])?;
        Ok(self.builds.join("release").join("queue"))
    }

    /// The suite of instruction counts of this tree.
    pub(super) fn counts(&self, workspace: &Workspace) -> Result<PathBuf> {
        self.build(workspace, "counts", &["--package", "queue-benches", "--bin", "queue_counts"])?;
        Ok(self.builds.join("counts").join("queue_counts"))
    }

    fn build(&self, workspace: &Workspace, profile: &str, what: &[&str]) -> Result<()> {
        println!("building {} (profile {profile})", self.label);
        let mut cargo = workspace.cargo("build");
        cargo.args(["--quiet", "--profile", profile]).args(what);
        cargo.arg("--target-dir").arg(&self.builds).current_dir(&self.root);
        process::run(&mut cargo).with_context(|| format!("{} does not build", self.label))
    }
}

fn resolve(root: &Path, name: &str) -> Result<String> {
    let mut git = Command::new("git");
    git.args(["rev-parse", "--quiet", "--verify", "--end-of-options", &format!("{name}^{{commit}}")]).current_dir(root);
    let hash = process::output(&mut git).with_context(|| format!("git knows no commit {name}"))?;
    Ok(hash.trim().to_owned())
}

fn check_out(root: &Path, tree: &Path, commit: &str) -> Result<()> {
    if tree.exists() {
        fs::remove_dir_all(tree).with_context(|| format!("cannot remove {}", tree.display()))?;
    }
    fs::create_dir_all(tree)?;
    let archive = tree.join("tree.tar");
    let mut git = Command::new("git");
    git.args(["archive", "--format=tar", "--output"]).arg(&archive).arg(commit).current_dir(root);
    process::output(&mut git)?;
    // The archive has the commit's time on every file, and Cargo builds what is younger than its last build: an older commit
    // would be measured with the binary of the one before.
    process::output(Command::new("tar").args(["--touch", "-xf"]).arg(&archive).arg("-C").arg(tree))?;
    fs::remove_file(&archive)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(folder: &Path, words: &[&str]) {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]);
        git.args(words).current_dir(folder).env("GIT_COMMITTER_DATE", "2001-01-01T00:00:00Z");
        process::output(&mut git).unwrap();
    }

    #[test]
    fn the_tree_is_the_one_that_was_asked_for_and_looks_new_to_cargo() {
        let folder = std::env::temp_dir().join(format!("queue-xtask-tree-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let root = folder.join("repository");
        git(&folder, &["init", "--quiet", "repository"]);
        for text in ["one", "two"] {
            fs::write(root.join("file"), text).unwrap();
            git(&root, &["add", "."]);
            git(&root, &["commit", "--quiet", "--message", text]);
        }
        fs::write(root.join("file"), "not committed").unwrap();
        let workspace =
            Workspace { root: root.clone(), target: folder.join("target"), metadata: serde_json::Value::Null };
        for (name, text) in [("HEAD", "two"), ("HEAD~1", "one"), ("HEAD~1", "one"), ("HEAD", "two")] {
            let tree = Tree::of_commit(&workspace, name).unwrap();
            let file = tree.root.join("file");
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
            let age = fs::metadata(&file).unwrap().modified().unwrap().elapsed().unwrap_or_default();
            assert!(age.as_secs() < 3_600 * 24 * 365, "{age:?}");
        }
        let error = format!("{:#}", Tree::of_commit(&workspace, "nonesuch").unwrap_err());
        assert!(error.starts_with("git knows no commit nonesuch"), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
