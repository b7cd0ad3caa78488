//! A home for one test: a repository to be, its passphrase, and the program to run on them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lifeboat_objstore::{Intent, StoreOptions};
use lifeboat_repository::{Repository, Secret};
use lifeboat_testbed::process::{self, Finished};
use serde_json::Value;

/// Long: the machine may be busy with other tests.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// Odd enough to be found wherever it should not be.
pub(crate) const PASSPHRASE: &str = "correct-horse-8a61f0";

/// A directory with a passphrase file, and room for a repository and what is backed up.
pub(crate) struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    /// Without a repository.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("passphrase"), format!("{PASSPHRASE}\n")).unwrap();
        Self { dir }
    }

    /// With a repository.
    pub(crate) fn new() -> Self {
        let home = Self::empty();
        home.run(&["init"]).expect(0);
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The path as an argument.
    pub(crate) fn arg(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    /// A small tree to back up.
    pub(crate) fn tree(&self) -> String {
        let tree = self.path("tree");
        fs::create_dir_all(tree.join("sub/deeper")).unwrap();
        fs::write(tree.join("greeting"), "hello").unwrap();
        fs::write(tree.join("sub/data"), vec![7; 300_000]).unwrap();
        let _ = std::os::unix::fs::symlink("greeting", tree.join("link"));
        tree.to_str().unwrap().to_owned()
    }

    /// The program, with nothing in its environment but what this home says.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare(arguments);
        command.env("LIFEBOAT_REPO", self.repo());
        command.env("LIFEBOAT_PASSPHRASE_FILE", self.path("passphrase"));
        command.env("LIFEBOAT_OTHER_PASSPHRASE_FILE", self.path("passphrase"));
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments))
    }
}

/// Opens the repository of a home from Rust, for what no command makes.
pub(crate) fn library<T>(home: &Home, work: impl AsyncFnOnce(Repository) -> T) -> T {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let location = home.arg("repo").parse().unwrap();
        let place = lifeboat_objstore::open(&location, &StoreOptions::new(Intent::Existing));
        let secret = Secret::passphrase(PASSPHRASE);
        work(Repository::open(place.unwrap(), &secret).await.unwrap()).await
    })
}

/// The program, without a repository and without a passphrase.
pub(crate) fn bare(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    command.args(arguments).stdin(std::process::Stdio::null()).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap());
    command
}

pub(crate) fn run(command: &mut Command) -> Ran {
    Ran(process::run(command, LIMIT).unwrap())
}

/// What the program did.
#[derive(Debug)]
pub(crate) struct Ran(pub(crate) Finished);

impl Ran {
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.0.status.code(), Some(code), "{self}");
        self
    }

    /// The one line that says why it failed.
    #[track_caller]
    pub(crate) fn error(&self) -> &str {
        let lines: Vec<_> =
            self.0.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(lines.len(), 1, "one line says what failed: {self}");
        let last = self.0.stderr.lines().last();
        assert_eq!(last, Some(lines[0]), "it is the last line: {self}");
        lines[0]
    }

    /// Fails unless the error says all of this.
    #[track_caller]
    pub(crate) fn error_says(&self, words: &[&str]) {
        let line = self.error();
        for word in words {
            assert!(line.contains(word), "\"{word}\" is not in: {line}");
        }
    }

    /// The events, each of which is checked for what all have.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<Value> {
        let parse = |line: &str| -> Value {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|error| {
                panic!("{error}: {line}");
            });
            assert_eq!(event["v"], 1, "{line}");
            assert!(event["event"].is_string() && event["time"].is_string(), "{line}");
            event
        };
        self.0.stdout.lines().map(parse).collect()
    }

    /// The events of one name.
    #[track_caller]
    pub(crate) fn events_of(&self, name: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["event"] == name).collect()
    }

    /// The last event, which has the exit code.
    #[track_caller]
    pub(crate) fn end(&self) -> Value {
        let end = self.events().pop().unwrap_or_else(|| panic!("no events: {self}"));
        assert_eq!(end["exit"].as_i64(), self.0.status.code().map(i64::from), "{end}");
        end
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Finished { command, status, stdout, stderr, .. } = &self.0;
        write!(f, "{command}: {status}\n{stdout}\n{stderr}")
    }
}

/// Every file beneath a directory, with its content.
pub(crate) fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            found.extend(contents(&path));
        } else if path.is_file() {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}
