//! A snapshot of a database as text: SQL for `psql`, or one table as CSV. Nobody is locked in.
//!
//! What is written is compared, as it passes, with what was counted at the backup. Whoever reads the
//! text while it is written learns of a difference only at its end, by the failure; a script says in
//! its last line that it is complete.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::{
    Attributes, Completion, Content, Context, Entry, EntryKind, EntryPath, Header, Lane, Receipt,
    Sink, Writing,
};
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::sync::Mutex as AsyncMutex;

use super::csv::Csv;
use super::error::{DatabaseError, Result};
use super::large_objects;
use super::layout::{self, About, Totals, facts};
use super::name::{identifier, literal};
use super::restore::Keep;
use super::script::Purpose;
use super::taken::{Known, Script, compare, data, gathered};
use super::tally::Tally;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ExportForm {
    /// A script for `psql`, which makes everything in an empty database. Roles are not in it.
    #[default]
    Sql,
    /// The rows of one table as CSV, with the names of the columns first, as the server's COPY
    /// writes it, in the encoding of the database.
    Csv,
}

/// How a snapshot is written as text.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ExportOptions {
    /// What is written.
    pub form: ExportForm,
    /// Whether the statements that say whose objects are, are written.
    pub owners: Keep,
    /// Whether the statements that say who may do what, are written.
    pub privileges: Keep,
}

/// Where the text goes.
type Out = BufWriter<Box<dyn AsyncWrite + Send + Unpin>>;

/// So much is gathered before it is written.
const BUFFER: usize = 256 << 10;

/// A text that a snapshot of a database is written into, or a part of it.
///
/// It takes all entries of a snapshot; or those of tables, with those that
/// [`ExportSink::NEEDS`] names. Facts of the receipt: `database.rows`.
pub struct ExportSink {
    options: ExportOptions,
    out: Mutex<Option<Out>>,
}

impl std::fmt::Debug for ExportSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExportSink").field("options", &self.options).finish_non_exhaustive()
    }
}

impl ExportSink {
    /// The entries that it needs besides those of tables.
    pub const NEEDS: [&str; 2] = [layout::ABOUT, layout::TOTALS];

    /// Into `out`, once.
    pub fn new(out: impl AsyncWrite + Send + Unpin + 'static, options: ExportOptions) -> Self {
        let out: Box<dyn AsyncWrite + Send + Unpin> = Box::new(out);
        Self { options, out: Mutex::new(Some(BufWriter::with_capacity(BUFFER, out))) }
    }
}

#[async_trait]
impl Sink for ExportSink {
    async fn write(
        &self,
        _: &Header,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Writing>> {
        context.check()?;
        let Some(out) = self.out.lock().take() else {
            let what = "what it is written into was used already".to_owned();
            return Err(DatabaseError::NotASnapshot { what }.into());
        };
        Ok(Box::new(Exporting(AsyncMutex::new(Text {
            options: self.options.clone(),
            out,
            about: None,
            word: chance(),
            tables: Vec::new(),
            open: false,
            csv: None,
            large_objects: None,
            rows: None,
        }))))
    }
}

/// A word that nobody can have known before.
fn chance() -> String {
    // The standard library keys its hashes by chance.
    let part = || format!("{:016x}", RandomState::new().build_hasher().finish());
    format!("{}{}", part(), part())
}

struct Exporting(AsyncMutex<Text>);

/// The text, up to where it is written.
struct Text {
    options: ExportOptions,
    out: Out,
    about: Option<About>,
    /// For `\restrict`.
    word: String,
    tables: Vec<Known>,
    /// Whether rows of the last table are being written.
    open: bool,
    csv: Option<Csv>,
    large_objects: Option<Tally>,
    rows: Option<u64>,
}

impl Text {
    async fn line(&mut self, line: &str) -> Result<()> {
        self.bytes(line.as_bytes()).await?;
        self.bytes(b"\n").await
    }

    async fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).await.map_err(unwritten)
    }

    fn about(&self) -> Result<&About> {
        self.about.as_ref().ok_or_else(|| DatabaseError::NotASnapshot {
            what: format!("{} is not there, or not the first", layout::ABOUT),
        })
    }

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
        let is_sql = self.options.form == ExportForm::Sql;
        match std::str::from_utf8(&top).unwrap_or_default() {
            layout::ABOUT => {
                let about = gathered(layout::ABOUT, entry.content, About::MAX).await?;
                self.about = Some(About::parse(&about)?);
                if is_sql { self.begin().await } else { Ok(()) }
            }
            layout::BEFORE if is_sql => self.script(layout::BEFORE, entry.content).await,
            layout::SEQUENCES if is_sql => self.script(layout::SEQUENCES, entry.content).await,
            layout::LARGE if is_sql && path.name() == layout::OBJECTS.as_bytes() => {
                self.script(layout::LARGE, entry.content).await
            }
            layout::LARGE if is_sql && path.name() == layout::PAGES.as_bytes() => {
                self.pages(entry.content).await
            }
            layout::AFTER if is_sql => self.script(layout::AFTER, entry.content).await,
            layout::TOTALS => self.totals(entry.content).await,
            _ => Ok(()),
        }
    }

    async fn begin(&mut self) -> Result<()> {
        let about = self.about()?;
        let head = format!(
            "-- The database {} of PostgreSQL {}, out of a snapshot of Lifeboat.\n\
             -- Run it with psql in an empty database of the encoding {}.\n\n\
             \\restrict {}\n\n\
             SET client_encoding = 'UTF8';\n\
             SET standard_conforming_strings = on;\n\
             SET datestyle = 'ISO, YMD';\n\
             SET intervalstyle = 'postgres';\n\
             SET timezone = 'UTC';\n\
             SET xmloption = 'content';\n\
             SET row_security = off;\n",
            // A line's end in a name would end the comment.
            about.name.escape_debug(),
            about.version.escape_debug(),
            about.encoding.escape_debug(),
            self.word,
        );
        self.line(&head).await
    }

    /// A script, with what is left out of it left out.
    async fn script(&mut self, name: &'static str, mut content: Content) -> Result<()> {
        let all = self.options.owners == Keep::Restore && self.options.privileges == Keep::Restore;
        if all {
            while let Some(extent) = content.next().await? {
                let bytes = data(extent, name)?;
                self.bytes(&bytes).await?;
            }
            return self.line("").await;
        }
        let mut script = Script::new(name, content);
        while let Some(statement) = script.next().await? {
            let left_out = match statement.purpose() {
                Purpose::Owner => self.options.owners == Keep::LeaveOut,
                Purpose::Privilege => self.options.privileges == Keep::LeaveOut,
                _ => false,
            };
            if !left_out {
                self.line(&format!("{};\n", statement.0)).await?;
            }
        }
        Ok(())
    }

    async fn table(&mut self, known: Known) -> Result<()> {
        match self.options.form {
            ExportForm::Sql => {
                let columns: Vec<_> =
                    known.columns().iter().map(|column| identifier(column)).collect();
                let list = match columns.is_empty() {
                    true => String::new(),
                    false => format!(" ({})", columns.join(", ")),
                };
                // The statement is UTF-8 as all of the script, whatever the rows are.
                let with = match self.about()?.encoding.as_str() {
                    "UTF8" => String::new(),
                    other => format!(" WITH (ENCODING {})", literal(other)),
                };
                let line = format!("COPY {}{list} FROM stdin{with};", known.name.quoted());
                self.line(&line).await?;
            }
            ExportForm::Csv => {
                let mut header = Vec::new();
                Csv::header(known.columns(), &mut header);
                self.csv = Some(Csv::new(known.columns().len()));
                self.bytes(&header).await?;
            }
        }
        self.tables.push(known);
        self.open = true;
        Ok(())
    }

    async fn rows(&mut self, mut content: Content) -> Result<()> {
        let mut tally = Tally::default();
        let mut out = Vec::new();
        while let Some(extent) = content.next().await? {
            let bytes = data(extent, "a table")?;
            tally.feed(&bytes);
            match &mut self.csv {
                None => self.bytes(&bytes).await?,
                Some(csv) => {
                    csv.feed(&bytes, &mut out).ok_or_else(|| DatabaseError::NotASnapshot {
                        what: "a row cannot be understood".to_owned(),
                    })?;
                    self.bytes(&out).await?;
                    out.clear();
                }
            }
        }
        let Some(known) = self.tables.last().filter(|_| self.open) else {
            let what = "rows come before their table".to_owned();
            return Err(DatabaseError::NotASnapshot { what });
        };
        if !tally.is_whole() {
            return Err(DatabaseError::HalfRow { table: known.name.to_string() });
        }
        known.count(&tally);
        Ok(())
    }

    /// Ends the rows of a table.
    async fn close(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.open, false) && self.options.form == ExportForm::Sql {
            self.line("\\.\n").await?;
        }
        Ok(())
    }

    async fn pages(&mut self, mut content: Content) -> Result<()> {
        let mut tally = Tally::default();
        let mut rest: Vec<u8> = Vec::new();
        self.line("BEGIN;").await?;
        while let Some(extent) = content.next().await? {
            let bytes = data(extent, "the large objects")?;
            tally.feed(&bytes);
            rest.extend_from_slice(&bytes);
            let mut done = 0;
            while let Some(length) = rest[done..].iter().position(|byte| *byte == b'\n') {
                let wrong = || DatabaseError::NotASnapshot {
                    what: "a piece of a large object cannot be understood".to_owned(),
                };
                let (oid, at, piece) =
                    large_objects::piece(&rest[done..done + length]).ok_or_else(wrong)?;
                let digits: String = piece.iter().map(|byte| format!("{byte:02x}")).collect();
                let line = format!("SELECT pg_catalog.lo_put({oid}, {at}, '\\x{digits}');");
                self.line(&line).await?;
                done += length + 1;
            }
            rest.drain(..done);
        }
        self.large_objects = Some(tally);
        self.line("COMMIT;\n").await
    }

    async fn totals(&mut self, content: Content) -> Result<()> {
        let totals = Totals::parse(&gathered(layout::TOTALS, content, Totals::MAX).await?)?;
        let mut rows = 0;
        for table in &self.tables {
            rows += table.compare(totals.table(&table.name.schema, &table.name.name))?;
        }
        if let (Some(tally), Some(expected)) = (&self.large_objects, &totals.large_objects) {
            compare("the large objects", tally, Some(expected))?;
        }
        self.rows = Some(rows);
        Ok(())
    }

    async fn end(&mut self) -> Result<Receipt> {
        let Some(rows) = self.rows else {
            let what = format!("{} is not there", layout::TOTALS);
            return Err(DatabaseError::NotASnapshot { what });
        };
        if self.options.form == ExportForm::Sql {
            let line = format!("\\unrestrict {}\n\n-- Complete: {rows} rows.", self.word);
            self.line(&line).await?;
        }
        self.out.flush().await.map_err(unwritten)?;
        self.out.shutdown().await.map_err(unwritten)?;
        Ok(Receipt { snapshot: None, facts: Attributes::new().with(facts::ROWS, rows) })
    }
}

fn unwritten(error: std::io::Error) -> DatabaseError {
    lifeboat_core::Error::io("write what is exported", error).into()
}

#[async_trait]
impl Writing for Exporting {
    fn lane(&self, _: &EntryPath) -> Option<Lane> {
        Some(Lane(0))
    }

    async fn put(&self, _: u64, entry: Entry) -> lifeboat_core::Result<()> {
        Ok(self.0.lock().await.take(entry).await?)
    }

    async fn commit(self: Arc<Self>, _: Completion) -> lifeboat_core::Result<Receipt> {
        Ok(self.0.lock().await.end().await?)
    }

    async fn abort(self: Arc<Self>) {}
}
