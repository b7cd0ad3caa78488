//! The `lifeboat` command, as it is typed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use crate::page;

/// The passphrase of a repository that lives for a minute.
const PASSPHRASE: &str = "only for the demo";

/// The `lifeboat` command, with the environment that a user would have.
pub(crate) struct Lifeboat<'a> {
    program: &'a Path,
    repository: PathBuf,
    log: &'a Log,
}

impl<'a> Lifeboat<'a> {
    /// The program, for a repository in this directory. Shows the variables that it will have.
    pub(crate) fn new(program: &'a Path, repository: PathBuf, log: &'a Log) -> Self {
        page::command(&format!("export LIFEBOAT_REPO={}", repository.display()));
        page::command(&format!("export LIFEBOAT_PASSPHRASE='{PASSPHRASE}'"));
        Self { program, repository, log }
    }

    /// Runs it, shows what it says, and returns the summary that it has for programs.
    pub(crate) async fn run(&self, words: &[&str]) -> Result<Value> {
        page::command(&typed(words));
        // With --json, what people read stays as it is, and programs get their own stream beside.
        let mut words = words.to_vec();
        words.push("--json");
        let said = self.output(&words).await?;
        let events = || {
            let lines = said.programs.lines();
            lines.filter_map(|line| serde_json::from_str::<Value>(line).ok())
        };
        // On a terminal, a bar that goes away says which phase it is.
        let phases: Vec<Value> = events()
            .filter(|event| event["event"] == "phase")
            .map(|event| event["name"].clone())
            .collect();
        for line in said.people.lines() {
            if !phases.iter().any(|phase| phase == line) {
                page::said(line);
            }
        }
        let summary = events().find(|event| event["event"] == "summary");
        summary.with_context(|| format!("`{}` said no summary", typed(&words)))
    }

    /// Runs it, and shows the list that was asked for.
    pub(crate) async fn list(&self, words: &[&str]) -> Result<()> {
        page::command(&typed(words));
        let said = self.output(words).await?;
        page::said(&said.programs);
        Ok(())
    }

    async fn output(&self, words: &[&str]) -> Result<Said> {
        let typed = typed(words);
        let running = || format!("run {}", self.program.display());
        let mut child = Attended(self.command(words).spawn().with_context(running)?);
        let (stdout, stderr) = (child.0.stdout.take(), child.0.stderr.take());
        let (status, programs, people) =
            tokio::try_join!(child.0.wait(), read(stdout), read(stderr)).with_context(running)?;
        self.log.write(&format!("$ {typed}\n{people}{programs}{status}\n\n"));
        if !status.success() {
            page::said(&people);
            bail!("`{typed}` ended with {status}");
        }
        Ok(Said { programs, people })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("PG") || name.starts_with("LIFEBOAT_") {
                command.env_remove(&*name);
            }
        }
        command
            .args(words)
            .env("LIFEBOAT_REPO", &self.repository)
            .env("LIFEBOAT_PASSPHRASE", PASSPHRASE)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// What a run said.
struct Said {
    programs: String,
    people: String,
}

async fn read(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A program that does not outlive this value: whoever removes its files next must be alone.
struct Attended(Child);

impl Drop for Attended {
    fn drop(&mut self) {
        let _ = self.0.start_kill();
        while matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The command line as a person would type it.
fn typed(words: &[&str]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@".contains(c);
    let mut line = String::from("lifeboat");
    for word in words {
        if !word.is_empty() && word.chars().all(plain) {
            line += &format!(" {word}");
        } else {
            line += &format!(" '{word}'");
        }
    }
    line
}

/// A file in which everything that was said is kept, for when something fails.
pub(crate) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// A new, empty one.
    pub(crate) fn create(path: PathBuf) -> Result<Self> {
        let file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path, file })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds to it.
    pub(crate) fn write(&self, text: &str) {
        // It helps when something fails; that it cannot be written is no failure of the demo.
        let _ = (&self.file).write_all(text.as_bytes());
    }

    /// Removes it: nothing failed.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}
