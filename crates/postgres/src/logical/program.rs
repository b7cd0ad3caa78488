//! `pg_dump` and `pg_dumpall`: found, checked, run.
//!
//! The schema is written by PostgreSQL's own program, since nothing else knows every form that an
//! object can take. It must be of the server's major version or of a newer one; the nearest that is
//! there is taken. Its connection comes by environment variables, so that no password stands in a
//! list of arguments.
//!
//! Recent programs put `\restrict` and `\unrestrict` with a word made by chance around a script, so
//! that `psql` runs no other command of its own in it. They are taken out: the same schema shall be
//! the same bytes each time, and what runs the script here knows no such commands. An export to
//! `psql` puts them back. For the same reason the time of creation is taken out of an archive.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use lifeboat_core::{Content, Context, Extent};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::error::{DatabaseError, Result};
use super::toc;
use crate::gate::Ticket;

/// So much of a script is read at a time.
const PIECE: usize = 256 << 10;
/// So much of what a program says on standard error is kept.
const SAID: usize = 16 << 10;
/// How long a program may take to say its version.
const VERSION_LIMIT: Duration = Duration::from_secs(30);

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Dump,
    DumpAll,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Dump => "pg_dump",
            Self::DumpAll => "pg_dumpall",
        }
    }
}

/// A program that runs here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    program: Program,
    path: PathBuf,
    major: u32,
    /// `15.18`.
    pub(crate) version: String,
}

impl Program {
    /// The best one for a server of `major`: in `directory` when that is named, else wherever
    /// PostgreSQL's programs usually are.
    pub(crate) async fn find(self, directory: Option<&Path>, major: u32) -> Result<Found> {
        let places = match directory {
            Some(directory) => vec![directory.to_owned()],
            None => tokio::task::spawn_blocking(usual_places).await.unwrap_or_default(),
        };
        let mut found = Vec::new();
        for place in places {
            let path = place.join(self.name());
            match self.probe(&path).await {
                Ok(Some(one)) => found.push(one),
                Ok(None) => {}
                // What was named must run; elsewhere, one may be broken and another not.
                Err(source) if directory.is_some() => {
                    return Err(DatabaseError::ProgramRun { path, source });
                }
                Err(_) => {}
            }
        }
        let fits = found.iter().filter(|one| one.major >= major);
        if let Some(best) = fits.min_by_key(|one| one.major) {
            return Ok(best.clone());
        }
        let old: Vec<_> =
            found.iter().map(|one| format!("{} at {}", one.version, one.path.display())).collect();
        Err(DatabaseError::NoProgram {
            program: self.name(),
            major,
            found: if old.is_empty() { String::new() } else { format!(": {}", old.join(", ")) },
        })
    }

    async fn probe(self, path: &Path) -> std::io::Result<Option<Found>> {
        let run = Command::new(path)
            .arg("--version")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(VERSION_LIMIT, run)
            .await
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
        let text = String::from_utf8_lossy(&output.stdout);
        let found = || {
            let version = version_in(&text, self.name())?;
            let major = version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
            Some(Found { program: self, path: path.to_owned(), major, version: version.to_owned() })
        };
        Ok(if output.status.success() { found() } else { None })
    }
}

fn version_in<'a>(text: &'a str, program: &str) -> Option<&'a str> {
    let rest = text.trim().strip_prefix(program)?.strip_prefix(" (PostgreSQL) ")?;
    rest.split(' ').next()
}

/// Where distributions put the programs, and then the search path, whose `pg_dump` may be a wrapper
/// that chooses by what it thinks of the local servers. Blocks.
fn usual_places() -> Vec<PathBuf> {
    let beneath = |root: &str, fits: fn(&str) -> bool| {
        let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
        entries
            .filter(|entry| fits(&entry.file_name().to_string_lossy()))
            .map(|entry| entry.path().join("bin"))
            .collect::<Vec<_>>()
    };
    let mut places = beneath("/usr/lib/postgresql", |_| true);
    places.extend(beneath("/usr", |name| name.starts_with("pgsql-")));
    places.push("/usr/local/pgsql/bin".into());
    if let Some(path) = std::env::var_os("PATH") {
        places.extend(std::env::split_paths(&path));
    }
    places.retain(|place| place.is_absolute());
    places
}

/// What a program writes, by which it is known what must be taken out so that the same schema is the
/// same bytes each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    /// A script.
    Script,
    /// An archive in custom format.
    Archive,
}

/// A run of a program whose standard output is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) found: Found,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) writes: Writes,
    pub(crate) environment: Vec<(&'static str, OsString)>,
}

impl Run {
    /// What it writes, as content: the program begins when the content is asked for, and ends with
    /// it. It counts as under way until the ticket is dropped.
    pub(crate) fn into_content(self, context: &Context, ticket: Ticket, done: Done) -> Content {
        let context = context.clone();
        let start = State::Start(Box::new((self, ticket, done)));
        Content::stream(futures_util::stream::try_unfold(start, move |state| {
            let context = context.clone();
            async move { Ok(state.step(&context).await?) }
        }))
    }

    fn spawn(&self) -> Result<Child> {
        let mut command = Command::new(&self.found.path);
        // What is said here, and nothing that another connection of this user would use.
        let inherited = std::env::vars_os().map(|(name, _)| name);
        for name in inherited.filter(|name| name.to_string_lossy().starts_with("PG")) {
            // The search for certificates and for a service file depends on no variable of libpq
            // that is not set below.
            command.env_remove(name);
        }
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
            .spawn()
            .map_err(|source| DatabaseError::ProgramRun { path: self.found.path.clone(), source })
    }
}

/// Called with the end of a content that was read whole.
pub(crate) type Done = Box<dyn FnOnce() + Send>;

enum State {
    Start(Box<(Run, Ticket, Done)>),
    Reading(Box<Running>),
}

struct Running {
    run: Run,
    child: Child,
    said: JoinHandle<String>,
    filter: Filter,
    _ticket: Ticket,
    done: Done,
}

impl State {
    async fn step(self, context: &Context) -> Result<Option<(Extent, Self)>> {
        let mut running = match self {
            Self::Reading(running) => running,
            Self::Start(start) => {
                let (run, ticket, done) = *start;
                let mut child = run.spawn()?;
                let said = tokio::spawn(last_words(child.stderr.take()));
                let filter = match run.writes {
                    Writes::Script => Filter::Script(Unrestricted::default()),
                    Writes::Archive => Filter::Archive(Undated::default()),
                };
                Box::new(Running { run, child, said, filter, _ticket: ticket, done })
            }
        };
        loop {
            let mut buffer = context.budget().buffer(PIECE).await;
            let read = running.read(buffer.data_mut()).await?;
            if read == 0 {
                running.end().await?;
                return Ok(None);
            }
            context.count_read(buffer.data_mut().len() as u64);
            let kept = buffer.freeze();
            if !kept.is_empty() {
                return Ok(Some((Extent::Data(kept), Self::Reading(running))));
            }
        }
    }
}

impl Running {
    /// Fills `into`; the result is 0 at the end, and else says nothing of how much was kept.
    async fn read(&mut self, into: &mut Vec<u8>) -> Result<usize> {
        let failed =
            |source| DatabaseError::ProgramRun { path: self.run.found.path.clone(), source };
        let Some(stdout) = &mut self.child.stdout else {
            return Ok(0);
        };
        let mut piece = vec![0; PIECE / 4];
        let read = stdout.read(&mut piece).await.map_err(failed)?;
        self.filter.take(&piece[..read], into);
        if read == 0 {
            self.filter.end(into);
            self.child.stdout = None;
            return Ok(into.len());
        }
        Ok(read)
    }

    async fn end(mut self: Box<Self>) -> Result<()> {
        let path = self.run.found.path.clone();
        let status =
            self.child.wait().await.map_err(|source| DatabaseError::ProgramRun { path, source })?;
        if status.success() {
            (self.done)();
            return Ok(());
        }
        let said = self.said.await.unwrap_or_default();
        let said = match said.trim() {
            "" => "it said nothing".to_owned(),
            said => said.replace('\n', "; "),
        };
        Err(DatabaseError::ProgramFailed {
            program: self.run.found.program.name(),
            status: status.to_string(),
            said,
        })
    }
}

/// The end of what a program says; all of it is read, so that the program does not wait.
async fn last_words(from: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut from) = from else {
        return String::new();
    };
    let mut said = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        said.extend_from_slice(&piece[..read]);
        if said.len() > SAID {
            said.drain(..said.len() - SAID);
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// What is taken out of what a program writes.
enum Filter {
    Script(Unrestricted),
    Archive(Undated),
}

impl Filter {
    fn take(&mut self, bytes: &[u8], into: &mut Vec<u8>) {
        match self {
            Self::Script(filter) => filter.take(bytes, into),
            Self::Archive(filter) => filter.take(bytes, into),
        }
    }

    fn end(&mut self, into: &mut Vec<u8>) {
        match self {
            Self::Script(filter) => filter.end(into),
            Self::Archive(filter) => filter.end(into),
        }
    }
}

/// Takes the time of creation out of an archive.
#[derive(Debug, Default)]
struct Undated {
    /// The beginning, as long as it may be in it.
    held: Vec<u8>,
    passed: bool,
}

impl Undated {
    fn take(&mut self, bytes: &[u8], into: &mut Vec<u8>) {
        if self.passed {
            into.extend_from_slice(bytes);
            return;
        }
        self.held.extend_from_slice(bytes);
        if self.held.len() >= toc::DATED {
            self.end(into);
        }
    }

    fn end(&mut self, into: &mut Vec<u8>) {
        self.passed = true;
        toc::undate(&mut self.held);
        into.append(&mut self.held);
    }
}

/// Takes the lines `\restrict WORD` and `\unrestrict WORD` out of a script.
///
/// Only the first such line before any statement counts, and a line that ends it with the same
/// word: no text inside of a statement can be taken for one of them.
#[derive(Debug, Default)]
struct Unrestricted {
    /// The beginning of a line that may be one of them.
    held: Vec<u8>,
    /// Whether what comes next is inside of a line that is none.
    inside: bool,
    word: Option<Vec<u8>>,
    /// Whether something other than comments and empty lines came.
    began: bool,
}

/// Words have 63 characters; no line of ours is longer.
const LONGEST: usize = 256;

impl Unrestricted {
    fn take(&mut self, mut bytes: &[u8], into: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
            let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            bytes = rest;
            if self.inside {
                into.extend_from_slice(line);
            } else {
                self.held.extend_from_slice(line);
                let undecided = self.held.len() < 2 || self.held[0] == b'\\';
                if end.is_none() && undecided && self.held.len() < LONGEST {
                    continue;
                }
                self.release(into);
            }
            self.inside = end.is_none();
        }
    }

    fn end(&mut self, into: &mut Vec<u8>) {
        self.release(into);
    }

    fn release(&mut self, into: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.held);
        if self.is_ours(&line) {
            return;
        }
        let is_comment = line.starts_with(b"--") || line.trim_ascii().is_empty();
        self.began |= !is_comment;
        into.extend_from_slice(&line);
    }

    fn is_ours(&mut self, line: &[u8]) -> bool {
        if let Some(word) = line.strip_prefix(b"\\restrict ")
            && self.word.is_none()
            && !self.began
        {
            self.word = Some(word.trim_ascii().to_vec());
            return true;
        }
        match (line.strip_prefix(b"\\unrestrict "), &self.word) {
            (Some(word), Some(ours)) => word.trim_ascii() == ours,
            _ => false,
        }
    }
}

/// A script with the lines of [`Unrestricted`] taken out.
#[cfg(test)]
fn unrestricted(script: &[u8], cut: usize) -> Vec<u8> {
    let mut filter = Unrestricted::default();
    let mut out = Vec::new();
    script.chunks(cut).for_each(|piece| filter.take(piece, &mut out));
    filter.end(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_programs_print_them() {
        let debian = "pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n";
        assert_eq!(version_in(debian, "pg_dump"), Some("15.18"));
        assert_eq!(version_in("pg_dump (PostgreSQL) 19beta1\n", "pg_dump"), Some("19beta1"));
        assert_eq!(version_in("psql (PostgreSQL) 15.18", "pg_dump"), None);
    }

    #[test]
    fn only_the_lines_of_the_program_are_taken_out() {
        let script = b"--\n-- x\n--\n\n\\restrict abc\n\nSELECT '\n\\unrestrict abcd\n\\restrict abc\n';\n\n\\unrestrict abc\n\n";
        let rest = b"--\n-- x\n--\n\n\nSELECT '\n\\unrestrict abcd\n\\restrict abc\n';\n\n\n";
        for cut in 1..40 {
            assert_eq!(&unrestricted(script, cut)[..], rest, "{cut}");
        }
        // Without a beginning there is no end, and a statement before it is not a header.
        for script in [&b"SELECT 1;\n\\restrict abc\n"[..], b"\\unrestrict abc\n", b"\\restrict"] {
            assert_eq!(&unrestricted(script, 3)[..], script);
        }
    }

    #[test]
    fn archives_come_in_any_pieces() {
        let archive = [&b"PGDMP\x01\x10\x00\x04\x08\x01\x00"[..], &[7; 35], b"and so on"].concat();
        let mut expected = archive.clone();
        toc::undate(&mut expected);
        assert_ne!(archive, expected);
        for archive in [&archive[..], &archive[..20]] {
            for cut in 1..archive.len() + 1 {
                let (mut filter, mut out) = (Undated::default(), Vec::new());
                archive.chunks(cut).for_each(|piece| filter.take(piece, &mut out));
                filter.end(&mut out);
                let expected = if archive.len() > 20 { &expected } else { archive };
                assert_eq!(out, expected, "{cut}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let empty = tempfile::tempdir().unwrap();
        let error = Program::Dump.find(Some(empty.path()), 15).await.unwrap_err();
        assert!(matches!(error, DatabaseError::ProgramRun { .. }), "{error}");
    }
}
