//! A program to measure.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use lifeboat_testbed::{home::Account, process};

/// Preparing takes less than this, or hangs.
const LIMIT: Duration = Duration::from_secs(600);

/// What a program is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Back up into an empty repository.
    First,
    /// Back up once more; nothing has changed.
    Unchanged,
    /// Bring the last backup back, into an empty directory.
    Restore,
    /// See that all is there that backups need.
    Check,
    /// Read and check every byte in the repository.
    Verify,
    /// Forget all backups but the last, and remove what only they needed: not much.
    Prune,
}

impl Step {
    pub(crate) const ALL: [Self; 6] =
        [Self::First, Self::Unchanged, Self::Restore, Self::Check, Self::Verify, Self::Prune];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::First => "first backup",
            Self::Unchanged => "unchanged backup",
            Self::Restore => "restore",
            Self::Check => "check",
            Self::Verify => "verify all",
            Self::Prune => "forget and prune",
        }
    }
}

/// A program, as what one would type into a shell. Each step is one command line; an empty one
/// means that the program has no such thing.
///
/// In the environment: `SOURCE`, what to back up; `REPO`, where to; `OUT`, where to restore into, an
/// empty directory; `DIR`, the program's own directory, with the other two in it. And what belongs
/// to the scene, such as how to reach a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    /// Prints its version in the first line.
    pub(crate) version: &'static str,
    /// Makes an empty repository.
    pub(crate) init: &'static str,
    pub(crate) first: &'static str,
    pub(crate) unchanged: &'static str,
    pub(crate) restore: &'static str,
    pub(crate) check: &'static str,
    pub(crate) verify: &'static str,
    pub(crate) prune: &'static str,
    /// Run before and after each step, and not measured.
    pub(crate) before: &'static str,
    pub(crate) after: &'static str,
}

impl Tool {
    pub(crate) fn line(&self, step: Step) -> &'static str {
        match step {
            Step::First => self.first,
            Step::Unchanged => self.unchanged,
            Step::Restore => self.restore,
            Step::Check => self.check,
            Step::Verify => self.verify,
            Step::Prune => self.prune,
        }
    }

    /// The directory that it gets within the scene.
    pub(crate) fn directory(&self) -> String {
        self.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
    }
}

/// Where programs are run: the same for all.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) source: PathBuf,
    pub(crate) variables: Vec<(&'static str, String)>,
    /// Whom they run as; `None` for whoever runs this program.
    pub(crate) account: Option<Account>,
    /// The database server that they talk to.
    pub(crate) server: Option<u32>,
}

impl Scene {
    /// A command line in a shell, in an environment with nothing of the caller's settings.
    pub(crate) fn shell(&self, line: &str, dir: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-ec", line]).stdin(Stdio::null()).current_dir(dir).env_clear();
        command.env("PATH", env::var_os("PATH").unwrap_or_default());
        command.env("LANG", "C.UTF-8").env("TZ", "UTC").env("HOME", dir).env("DIR", dir);
        command.env("SOURCE", &self.source);
        command.env("REPO", dir.join("repo")).env("OUT", dir.join("out"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(account) = &self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    /// Runs a command line that is not measured. Returns what it printed.
    pub(crate) fn prepare(&self, line: &str, dir: &Path) -> Result<String> {
        if line.is_empty() {
            return Ok(String::new());
        }
        Ok(process::run(&mut self.shell(line, dir), LIMIT)?.success()?.stdout)
    }
}
