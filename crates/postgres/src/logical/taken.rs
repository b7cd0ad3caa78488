//! What is taken out of the entries of a snapshot, and how it is checked on its way: tables and
//! their rows, scripts, and what is small. Restores and exports share it.

use bytes::Bytes;
use futures_util::SinkExt;
use lifeboat_core::{Content, Entry, Extent};
use parking_lot::Mutex;

use super::error::{DatabaseError, Result};
use super::layout::{Total, attributes};
use super::moment::about_table;
use super::name::{TableName, identifier, literal};
use super::script::{Statement, Statements};
use super::tally::Tally;
use crate::connect::Session;

/// So much of a script is looked at at a time.
const SLICE: usize = 16 << 10;

/// A table whose rows come.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: TableName,
    columns: Vec<String>,
    counted: Mutex<Tally>,
}

impl Known {
    /// What the directory of a table says of it.
    pub(super) fn of(entry: &Entry) -> Result<Self> {
        let missing = || DatabaseError::NotASnapshot {
            what: format!("{} does not say which table it is", entry.path),
        };
        let text = |name| entry.attributes.text(name).ok_or_else(missing);
        let name = TableName::new(text(attributes::SCHEMA)?, text(attributes::TABLE)?);
        let columns = match entry.attributes.bytes(attributes::COLUMNS) {
            None => Vec::new(),
            Some(bytes) => {
                let joined = std::str::from_utf8(bytes).map_err(|_| missing())?;
                joined.split('\0').map(str::to_owned).collect()
            }
        };
        if name.path()? != entry.path {
            return Err(missing());
        }
        Ok(Self { name, columns, counted: Mutex::default() })
    }

    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The statement that takes its rows, into the table of this name.
    pub(super) fn statement(&self, into: &TableName, encoding: &str) -> String {
        let columns: Vec<_> = self.columns.iter().map(|column| identifier(column)).collect();
        let list = match columns.is_empty() {
            true => String::new(),
            false => format!(" ({})", columns.join(", ")),
        };
        let encoding = literal(encoding);
        format!("COPY {}{list} FROM STDIN (FORMAT text, ENCODING {encoding})", into.quoted())
    }

    pub(super) fn count(&self, tally: &Tally) {
        self.counted.lock().merge(tally);
    }

    /// How many rows came.
    pub(super) fn rows(&self) -> u64 {
        self.counted.lock().rows()
    }

    /// An error unless just those rows came that were counted at the backup.
    pub(super) fn compare(&self, expected: Option<&Total>) -> Result<u64> {
        let counted = self.counted.lock();
        compare(&self.name.to_string(), &counted, expected)
    }
}

/// An error unless just that was counted which was counted at the backup.
pub(super) fn compare(table: &str, counted: &Tally, expected: Option<&Total>) -> Result<u64> {
    let found = Total { rows: counted.rows(), digest: counted.digest() };
    let shown = |total: &Total| format!("{} rows with the digest {}", total.rows, total.digest);
    match expected {
        Some(expected) if *expected == found => Ok(found.rows),
        expected => Err(DatabaseError::Differs {
            table: table.to_owned(),
            found: shown(&found),
            expected: expected.map_or_else(|| "nothing".to_owned(), shown),
        }),
    }
}

/// The statements of a script, as its content comes.
pub(super) struct Script {
    content: Content,
    /// What has come and was not looked at.
    piece: Bytes,
    statements: Statements,
    ended: bool,
}

impl Script {
    pub(super) fn new(name: &'static str, content: Content) -> Self {
        Self { content, piece: Bytes::new(), statements: Statements::new(name), ended: false }
    }

    pub(super) async fn next(&mut self) -> Result<Option<Statement>> {
        loop {
            if self.ended {
                return self.statements.rest();
            }
            if let Some(statement) = self.statements.next()? {
                return Ok(Some(statement));
            }
            if self.piece.is_empty() {
                match self.content.next().await? {
                    Some(extent) => self.piece = data(extent, "a script")?,
                    None => {
                        self.ended = true;
                        continue;
                    }
                }
            }
            let slice = self.piece.split_to(self.piece.len().min(SLICE));
            self.statements.feed(&slice)?;
        }
    }
}

/// Gives rows to the server, and sees that it took all of them.
pub(super) async fn copy(
    session: &Session,
    statement: &str,
    table: &str,
    mut content: Content,
) -> Result<Tally> {
    let failed = |error| about_table(format!("restore {table}"), error);
    let sink = session.client().copy_in::<_, Bytes>(statement).await.map_err(failed)?;
    let mut sink = std::pin::pin!(sink);
    let mut tally = Tally::default();
    while let Some(extent) = content.next().await? {
        let bytes = data(extent, table)?;
        tally.feed(&bytes);
        if let Err(error) = sink.feed(bytes).await {
            // The server's own reason is in its answer, which comes at the end.
            return Err(match sink.as_mut().finish().await {
                Err(reason) => failed(reason),
                Ok(_) => failed(error),
            });
        }
    }
    let taken = sink.finish().await.map_err(failed)?;
    let table = table.to_owned();
    if !tally.is_whole() {
        return Err(DatabaseError::HalfRow { table });
    }
    if taken != tally.rows() {
        return Err(DatabaseError::Taken { table, taken, given: tally.rows() });
    }
    Ok(tally)
}

/// The bytes of an extent: nothing here has holes.
pub(super) fn data(extent: Extent, what: &str) -> Result<Bytes> {
    match extent {
        Extent::Data(bytes) => Ok(bytes),
        Extent::Unchanged(_) | Extent::Hole(_) => {
            Err(DatabaseError::NotASnapshot { what: format!("{what} has a hole") })
        }
    }
}

/// All of a content that is small.
pub(super) async fn gathered(name: &str, mut content: Content, most: usize) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(extent) = content.next().await? {
        let bytes = data(extent, name)?;
        if all.len() + bytes.len() > most {
            let what = format!("{name} has more than {most} bytes");
            return Err(DatabaseError::NotASnapshot { what });
        }
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}
