//! `lifeboat export`: a snapshot of a database as text, or as a directory for `pg_restore`.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use lifeboat_core::{Error, ErrorKind, Sink, Summary, TransferOptions, transfer};
use lifeboat_postgres::{
    DatabaseSource, DirectorySink, ExportForm, ExportOptions, ExportSink, Keep,
};
use lifeboat_repository::{Selection, ThawNeed};
use serde::Serialize;

use super::which::find;
use super::{database, thaw};
use crate::args::{Export, Form};
use crate::exit::Exit;
use crate::failure::Failed;
use crate::output::{duration, number, size};
use crate::session::Session;

/// The event `summary` of an export.
#[derive(Serialize)]
struct Exported {
    snapshot: String,
    store: String,
    target: Option<String>,
    rows: u64,
    bytes: u64,
    seconds: f64,
    warnings: u64,
    exit: u8,
}

pub(super) async fn run(arguments: Export, session: &Session) -> Result<Exit, Failed> {
    if session.output.is_json() && arguments.to.is_none() {
        let hint = "name a file with --to, or leave --json out";
        return Err(Failed::usage("`export` writes text to standard output, and no events", hint));
    }
    let goes = Goes::of(&arguments)?;
    let opened = session.repository().await?;
    let info = find(&arguments.which, &opened, session).await?;
    if info.store.kind() != DatabaseSource::KIND {
        let message =
            format!("only databases are exported, and this is a snapshot of {}", info.store);
        return Err(Failed::usage(
            message,
            "take one with `lifeboat backup database`, or `restore` this",
        ));
    }
    let opening = session.unless_cancelled(opened.repository.snapshot(&info.id)).await?;
    let snapshot = opening.map_err(|error| opened.failed(error))?;
    let paths = match &arguments.table {
        Some(table) => database::entries_of(table, &ExportSink::NEEDS, &snapshot).await?,
        None => Vec::new(),
    };
    let selection = Selection::paths(paths);
    let need = ThawNeed::Content(vec![(info.id, selection.clone())]);
    thaw::see(&opened, &need, &arguments.thawing, session).await?;
    let mut file = None;
    let sink: Box<dyn Sink> = match goes {
        Goes::Directory(path) => Box::new(DirectorySink::new(path)),
        Goes::Text(Some(path), options) => {
            let new = file.insert(NewFile::make(path).await?);
            Box::new(ExportSink::new(new.open().await?, options))
        }
        Goes::Text(None, options) => Box::new(ExportSink::new(standard_output()?, options)),
    };
    session.context.phase("export");
    let source = snapshot.source(&selection);
    let transfer_options = TransferOptions::default();
    let moving = transfer(&source, &*sink, &transfer_options, &session.context);
    let summary = match Box::pin(moving).await {
        Ok(summary) => summary,
        Err(error) if is_gone(&error) && arguments.to.is_none() => return Ok(Exit::Complete),
        Err(error) => return Err(opened.of_store(error)),
    };
    if let Some(file) = file {
        file.keep().await?;
    }
    session.output.finish();
    let exit = Exit::with_warnings(summary.warnings);
    let rows = summary.receipt.facts.unsigned("database.rows").unwrap_or_default();
    let target = arguments.to.as_ref().map(|path| path.display().to_string());
    let event = Exported {
        snapshot: info.id.to_string(),
        store: info.store.to_string(),
        target,
        rows,
        bytes: summary.progress.read,
        seconds: summary.elapsed.as_secs_f64(),
        warnings: summary.warnings,
        exit: exit.code(),
    };
    session.output.event("summary", &event);
    tell(&event, &summary, session);
    Ok(exit)
}

fn tell(event: &Exported, summary: &Summary, session: &Session) {
    session.output.say(&format!(
        "exported {}: {}, from {} in {}",
        event.store,
        number(event.rows, "row", "rows"),
        size(event.bytes),
        duration(summary.elapsed)
    ));
}

/// Where it goes.
enum Goes<'a> {
    Text(Option<&'a Path>, ExportOptions),
    Directory(&'a Path),
}

impl<'a> Goes<'a> {
    fn of(arguments: &'a Export) -> Result<Self, Failed> {
        let to = arguments.to.as_deref();
        let mut options = ExportOptions::default();
        options.form = match (arguments.form, &arguments.table) {
            (Some(Form::Directory), _) => return Self::directory(arguments),
            (Some(Form::Sql), _) | (None, None) => ExportForm::Sql,
            (Some(Form::Csv) | None, Some(_)) => ExportForm::Csv,
            (Some(Form::Csv), None) => {
                return Err(Failed::usage("CSV holds one table", "name it with --table"));
            }
        };
        let keep = |left_out: bool| if left_out { Keep::LeaveOut } else { Keep::Restore };
        options.owners = keep(arguments.no_owner);
        options.privileges = keep(arguments.no_privileges);
        Ok(Self::Text(to, options))
    }

    fn directory(arguments: &'a Export) -> Result<Self, Failed> {
        let said = [
            (arguments.table.is_some(), "--table"),
            (arguments.no_owner, "--no-owner"),
            (arguments.no_privileges, "--no-privileges"),
        ];
        if let Some((_, word)) = said.into_iter().find(|(is_said, _)| *is_said) {
            let message = format!("{word} is not for a directory, which has everything");
            return Err(Failed::usage(message, "say it to pg_restore, which has the same word"));
        }
        match arguments.to.as_deref() {
            Some(path) => Ok(Self::Directory(path)),
            None => Err(Failed::usage("a directory has a name", "name a new one with --to")),
        }
    }
}

/// Standard output as a file, which the runtime's own threads need not wait for.
fn standard_output() -> Result<tokio::fs::File, Failed> {
    let owned = std::io::stdout().as_fd().try_clone_to_owned();
    let owned = owned.map_err(|error| Error::io("write to standard output", error))?;
    Ok(tokio::fs::File::from_std(std::fs::File::from(owned)))
}

/// Whether whoever read standard output has gone away.
fn is_gone(error: &Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(one) = cause {
        if let Some(io) = one.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::BrokenPipe;
        }
        cause = one.source();
    }
    false
}

/// A file that is new, under a name of its own until it is whole.
struct NewFile {
    path: PathBuf,
    partial: PathBuf,
    kept: bool,
}

impl NewFile {
    async fn make(path: &Path) -> Result<Self, Failed> {
        if tokio::fs::symlink_metadata(path).await.is_ok() {
            let message = format!("write {}: it exists already", path.display());
            let error = Error::new(ErrorKind::AlreadyExists, message);
            return Err(error.with_hint("name a new file").into());
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        Ok(Self { path: path.to_owned(), partial: partial.into(), kept: false })
    }

    async fn open(&self) -> Result<tokio::fs::File, Failed> {
        let mut options = tokio::fs::File::options();
        let opening = options.write(true).create_new(true).open(&self.partial);
        Ok(opening.await.map_err(|error| self.failed("make", error))?)
    }

    async fn keep(mut self) -> Result<(), Failed> {
        let file = tokio::fs::File::open(&self.partial).await;
        let synced = match file {
            Ok(file) => file.sync_all().await,
            Err(error) => Err(error),
        };
        synced.map_err(|error| self.failed("write", error))?;
        let renamed = tokio::fs::rename(&self.partial, &self.path).await;
        renamed.map_err(|error| self.failed("name", error))?;
        self.kept = true;
        Ok(())
    }

    fn failed(&self, doing: &str, error: std::io::Error) -> Error {
        Error::io(format!("{doing} {}", self.partial.display()), error)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.kept {
            // What is half written is of no use; where it cannot be removed, its name says so.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}
