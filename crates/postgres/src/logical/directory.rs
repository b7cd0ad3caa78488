//! A snapshot of a database as a directory archive, for `pg_restore`: whole, in parallel, or an
//! object at a time, with PostgreSQL's own tool.
//!
//! ```text
//! toc.dat          what there is, and what depends on what (see `toc`); written last
//! <id>.dat         the rows of one table, in COPY's text form, with the line that ends them
//! blobs.toc        the oids of the large objects, and their files
//! blob_<oid>.dat   one large object
//! ```
//!
//! Rows are compared with what was counted at the backup. The directory has a name of its own,
//! `<name>.partial`, until it is whole and on the disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use lifeboat_core::{
    Attributes, Completion, Content, Context, Entry, EntryKind, EntryPath, ErrorKind, Header, Lane,
    Receipt, Sink, Writing,
};
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::sync::Mutex;

use super::contents::{Contents, LARGE_OBJECTS};
use super::error::{DatabaseError, Result};
use super::large_objects;
use super::layout::{self, About, Totals, facts};
use super::taken::{Known, Script, compare, data, gathered};
use super::tally::Tally;
use super::toc;

/// So much is gathered before it is written.
const BUFFER: usize = 1 << 20;

/// What ends the rows of a table, as `pg_dump` writes it.
const END: &[u8] = b"\\.\n\n\n";

/// A new directory archive.
///
/// It takes all entries of a snapshot that has a schema. Roles are not in an archive. Facts of the
/// receipt: `database.rows`.
#[derive(Debug)]
pub struct DirectorySink {
    path: PathBuf,
}

impl DirectorySink {
    /// At this path, where nothing may be.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

#[async_trait]
impl Sink for DirectorySink {
    async fn write(
        &self,
        _: &Header,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Writing>> {
        context.check()?;
        let place = NewDirectory::make(&self.path).await?;
        Ok(Box::new(Archiving(Mutex::new(Archive {
            place,
            about: None,
            contents: None,
            tables: Vec::new(),
            rows: None,
            objects: Vec::new(),
            large_objects: None,
            total: None,
        }))))
    }
}

struct Archiving(Mutex<Archive>);

/// The archive, up to where it is written.
struct Archive {
    place: NewDirectory,
    about: Option<About>,
    contents: Option<Contents>,
    tables: Vec<Known>,
    /// The rows of the last table, while they come.
    rows: Option<NewFile>,
    /// The oids of the large objects, in order.
    objects: Vec<u32>,
    large_objects: Option<Tally>,
    total: Option<u64>,
}

fn wrong(what: impl Into<String>) -> DatabaseError {
    DatabaseError::NotASnapshot { what: what.into() }
}

impl Archive {
    async fn take(&mut self, entry: Entry) -> Result<()> {
        let path = entry.path.clone();
        let depth = path.components().count();
        let top = path.components().next().unwrap_or_default().to_vec();
        let is_rows = top == layout::ROWS.as_bytes();
        if is_rows && depth == 4 {
            return self.rows(entry.content).await;
        }
        self.close().await?;
        if is_rows && depth == 3 && entry.kind == EntryKind::Directory {
            return self.table(Known::of(&entry)?).await;
        }
        match std::str::from_utf8(&top).unwrap_or_default() {
            layout::ABOUT => {
                let about = gathered(layout::ABOUT, entry.content, About::MAX).await?;
                self.about = Some(About::parse(&about)?);
                Ok(())
            }
            layout::CONTENTS => {
                let bytes = gathered(layout::CONTENTS, entry.content, toc::LARGEST).await?;
                self.contents = Some(Contents::parse(&bytes)?);
                Ok(())
            }
            layout::SEQUENCES => {
                let mut script = Script::new(layout::SEQUENCES, entry.content);
                while let Some(statement) = script.next().await? {
                    self.contents()?.sequence(&statement)?;
                }
                Ok(())
            }
            layout::LARGE if path.name() == layout::OBJECTS.as_bytes() => {
                let mut script = Script::new(layout::LARGE, entry.content);
                while let Some(statement) = script.next().await? {
                    let made = self.contents()?.large_object(&statement)?;
                    self.objects.extend(made);
                }
                Ok(())
            }
            layout::LARGE if path.name() == layout::PAGES.as_bytes() => {
                self.pages(entry.content).await
            }
            layout::TOTALS => self.totals(entry.content).await,
            // The scripts say again what the table of contents says.
            _ => Ok(()),
        }
    }

    fn contents(&mut self) -> Result<&mut Contents> {
        let has_schema = self.about.as_ref().is_none_or(|about| about.content.has_schema());
        self.contents.as_mut().ok_or(DatabaseError::NoContents {
            why: match has_schema {
                true => "it was taken by a version that did not keep what a directory needs",
                false => "it has rows and no schema",
            },
        })
    }

    async fn table(&mut self, known: Known) -> Result<()> {
        let Some(about) = &self.about else {
            let what = format!("{} is not there, or not the first", layout::ABOUT);
            return Err(wrong(what));
        };
        let encoding = about.encoding.clone();
        let name = self.contents()?.table(&known, &encoding)?;
        self.rows = Some(self.place.file(&name).await?);
        self.tables.push(known);
        Ok(())
    }

    async fn rows(&mut self, mut content: Content) -> Result<()> {
        let (Some(known), Some(file)) = (self.tables.last(), &mut self.rows) else {
            return Err(wrong("rows come before their table"));
        };
        let mut tally = Tally::default();
        while let Some(extent) = content.next().await? {
            let bytes = data(extent, "a table")?;
            tally.feed(&bytes);
            file.write(&bytes).await?;
        }
        if !tally.is_whole() {
            return Err(DatabaseError::HalfRow { table: known.name.to_string() });
        }
        known.count(&tally);
        Ok(())
    }

    /// Ends the rows of a table.
    async fn close(&mut self) -> Result<()> {
        if let Some(mut file) = self.rows.take() {
            file.write(END).await?;
            file.close().await?;
        }
        Ok(())
    }

    async fn pages(&mut self, mut content: Content) -> Result<()> {
        let mut tally = Tally::default();
        let mut rest: Vec<u8> = Vec::new();
        // They come by their oids; those without content have a file as well.
        let mut objects = self.objects.iter().copied();
        let mut file: Option<(u32, NewFile)> = None;
        let mut at = 0;
        while let Some(extent) = content.next().await? {
            let bytes = data(extent, "the large objects")?;
            tally.feed(&bytes);
            rest.extend_from_slice(&bytes);
            let mut done = 0;
            while let Some(length) = rest[done..].iter().position(|byte| *byte == b'\n') {
                let wrong = || wrong("a piece of a large object cannot be understood");
                let (oid, from, piece) =
                    large_objects::piece(&rest[done..done + length]).ok_or_else(wrong)?;
                while file.as_ref().is_none_or(|(open, _)| *open != oid) {
                    if let Some((_, file)) = file.take() {
                        file.close().await?;
                    }
                    let next = objects.next().ok_or_else(wrong)?;
                    file = Some((next, self.place.file(&blob(next)).await?));
                    at = 0;
                }
                let Some((_, file)) = file.as_mut().filter(|_| from == at) else {
                    return Err(wrong());
                };
                file.write(&piece).await?;
                at += piece.len() as i64;
                done += length + 1;
            }
            rest.drain(..done);
        }
        if let Some((_, file)) = file {
            file.close().await?;
        }
        for oid in objects {
            self.place.file(&blob(oid)).await?.close().await?;
        }
        let mut list = self.place.file(LARGE_OBJECTS).await?;
        for oid in &self.objects {
            list.write(format!("{oid} {}\n", blob(*oid)).as_bytes()).await?;
        }
        list.close().await?;
        self.large_objects = Some(tally);
        self.contents()?.large_objects()
    }

    async fn totals(&mut self, content: Content) -> Result<()> {
        let totals = Totals::parse(&gathered(layout::TOTALS, content, Totals::MAX).await?)?;
        let counted: usize = totals.tables.values().map(BTreeMap::len).sum();
        if counted != self.tables.len() {
            let came = self.tables.len();
            return Err(wrong(format!("rows of {came} tables came, of {counted}")));
        }
        let mut rows = 0;
        for table in &self.tables {
            rows += table.compare(totals.table(&table.name.schema, &table.name.name))?;
        }
        if let Some(expected) = &totals.large_objects {
            let counted = self.large_objects.take().unwrap_or_default();
            compare("the large objects", &counted, Some(expected))?;
        }
        self.total = Some(rows);
        Ok(())
    }

    async fn end(&mut self, taken: Timestamp) -> Result<Receipt> {
        let Some(rows) = self.total else {
            return Err(wrong(format!("{} is not there", layout::TOTALS)));
        };
        // The error that says why there is none.
        self.contents()?;
        if let Some(contents) = self.contents.take() {
            let mut file = self.place.file("toc.dat").await?;
            file.write(&contents.finish(taken)).await?;
            file.close().await?;
        }
        self.place.keep().await?;
        Ok(Receipt { snapshot: None, facts: Attributes::new().with(facts::ROWS, rows) })
    }
}

fn blob(oid: u32) -> String {
    format!("blob_{oid}.dat")
}

#[async_trait]
impl Writing for Archiving {
    fn lane(&self, _: &EntryPath) -> Option<Lane> {
        Some(Lane(0))
    }

    async fn put(&self, _: u64, entry: Entry) -> lifeboat_core::Result<()> {
        Ok(self.0.lock().await.take(entry).await?)
    }

    async fn commit(self: Arc<Self>, completion: Completion) -> lifeboat_core::Result<Receipt> {
        Ok(self.0.lock().await.end(completion.taken).await?)
    }

    async fn abort(self: Arc<Self>) {}
}

/// A directory that is new, under a name of its own until it is whole.
struct NewDirectory {
    path: PathBuf,
    partial: PathBuf,
    kept: bool,
}

impl NewDirectory {
    async fn make(path: &Path) -> Result<Self> {
        if tokio::fs::symlink_metadata(path).await.is_ok() {
            let message = format!("write {}: it exists already", path.display());
            let error = lifeboat_core::Error::new(ErrorKind::AlreadyExists, message);
            return Err(error.with_hint("name a new directory").into());
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let mut builder = tokio::fs::DirBuilder::new();
        // What was in the database is for whoever writes it, as with pg_dump.
        builder.mode(0o700);
        builder.create(&partial).await.map_err(|error| failed("make", &partial, error))?;
        Ok(Self { path: path.to_owned(), partial, kept: false })
    }

    async fn file(&self, name: &str) -> Result<NewFile> {
        let path = self.partial.join(name);
        let file = File::options().write(true).create_new(true).open(&path).await;
        let file = file.map_err(|error| failed("make", &path, error))?;
        Ok(NewFile { path, out: BufWriter::with_capacity(BUFFER, file) })
    }

    /// Gives it its name, once all of it is on the disk.
    async fn keep(&mut self) -> Result<()> {
        sync(&self.partial).await?;
        let renamed = tokio::fs::rename(&self.partial, &self.path).await;
        renamed.map_err(|error| failed("name", &self.partial, error))?;
        self.kept = true;
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync(parent).await,
            _ => sync(Path::new(".")).await,
        }
    }
}

impl Drop for NewDirectory {
    fn drop(&mut self) {
        if !self.kept {
            // What is half written is of no use; where it cannot be removed, its name says so.
            let _ = std::fs::remove_dir_all(&self.partial);
        }
    }
}

async fn sync(path: &Path) -> Result<()> {
    let synced = async { File::open(path).await?.sync_all().await };
    synced.await.map_err(|error| failed("write", path, error))
}

/// A file of the directory.
struct NewFile {
    path: PathBuf,
    out: BufWriter<File>,
}

impl NewFile {
    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).await.map_err(|error| failed("write", &self.path, error))
    }

    async fn close(mut self) -> Result<()> {
        let closed = async {
            self.out.flush().await?;
            self.out.get_ref().sync_all().await
        };
        closed.await.map_err(|error| failed("write", &self.path, error))
    }
}

fn failed(doing: &str, path: &Path, error: std::io::Error) -> DatabaseError {
    lifeboat_core::Error::io(format!("{doing} {}", path.display()), error).into()
}
