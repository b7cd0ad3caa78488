//! One table back, out of a snapshot of its database.
//!
//! All of it is one transaction: what is seen of the table is what was there before, or all rows of
//! the snapshot, compared with what was counted at the backup.
//!
//! Triggers of the user would change rows, or do again what they did; so they are off while the
//! rows come, and as they were afterwards. Foreign keys are checked: rows that refer to nothing
//! make the restore fail, and a table to which others refer is not emptied at all.

use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::{
    Attributes, Completion, Content, Context, Entry, EntryKind, EntryPath, Header, Lane, Receipt,
    Sink, Writing,
};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OnceCell};

use super::error::{DatabaseError, Result};
use super::layout::{self, About, Totals, facts};
use super::moment::{SETTINGS, about_table};
use super::name::{TableName, identifier};
use super::script::{Purpose, Statement};
use super::taken::{Known, Script, copy, gathered};
use crate::connect::{ConnectOptions, Session, failed};

/// Where the rows of a table go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TablePlace {
    /// Into the table itself, in place of the rows that it has.
    Replace,
    /// Into a new table of this name, made in the form that the table has; or, when it is not there
    /// any more, in the form that it had, without indexes and constraints that others depend on.
    Beside(TableName),
}

/// Which table is restored, and where to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TableOptions {
    /// The server and the role.
    pub connection: ConnectOptions,
    /// The database that has the table.
    pub database: String,
    /// The table.
    pub table: TableName,
    /// Where its rows go.
    pub place: TablePlace,
}

impl TableOptions {
    /// The rows of `table`, into `database`.
    pub fn new(
        connection: ConnectOptions,
        database: impl Into<String>,
        table: TableName,
        place: TablePlace,
    ) -> Self {
        Self { connection, database: database.into(), table, place }
    }
}

/// A database into which one table of a snapshot is restored.
///
/// It takes the entries of that table, and those that [`TableSink::NEEDS`] names; what else comes
/// is passed over. Facts of the receipt: `database.name`, `database.table`, `database.rows`.
#[derive(Debug)]
pub struct TableSink {
    options: TableOptions,
}

impl TableSink {
    /// The entries that it needs besides those of the table, as far as the snapshot has them: one
    /// of rows alone has no schema.
    pub const NEEDS: [&str; 3] = [layout::ABOUT, layout::BEFORE, layout::TOTALS];

    /// Everything comes in order: the session is one.
    const ONLY: Lane = Lane(0);

    /// Nothing is connected to yet.
    pub fn new(options: TableOptions) -> Self {
        Self { options }
    }

    async fn begin(&self) -> Result<Putting> {
        let connection = self.options.connection.with_database(&self.options.database);
        let session = Session::open(&connection).await?;
        let putting = Putting {
            options: self.options.clone(),
            path: self.options.table.path()?,
            session,
            state: AsyncMutex::default(),
            about: OnceCell::new(),
            rows: Mutex::default(),
        };
        putting.begin().await?;
        Ok(putting)
    }
}

#[async_trait]
impl Sink for TableSink {
    async fn look(&self, _: &Header, _: &Context) -> lifeboat_core::Result<()> {
        Ok(self.begin().await.map(drop)?)
    }

    async fn write(
        &self,
        _: &Header,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Writing>> {
        context.check()?;
        Ok(Box::new(self.begin().await?))
    }
}

/// Reads what nobody needs: a live source takes what was not read for a broken-off reading.
async fn pass_over(mut content: Content) -> Result<()> {
    while content.next().await?.is_some() {}
    Ok(())
}

/// One table on its way. The session's transaction ends with the session, however that ends.
#[derive(Debug)]
struct Putting {
    options: TableOptions,
    /// The table's directory in the snapshot.
    path: EntryPath,
    session: Session,
    state: AsyncMutex<State>,
    about: OnceCell<About>,
    /// How many rows were compared.
    rows: Mutex<Option<u64>>,
}

#[derive(Debug, Default)]
struct State {
    /// The statement that made the table, when it is not there any more.
    definition: Option<Statement>,
    known: Option<Known>,
    /// Triggers to be enabled again.
    triggers: Vec<String>,
}

impl Putting {
    /// Refuses what can be refused before rows come.
    async fn begin(&self) -> Result<()> {
        self.session.run("prepare the session", SETTINGS).await?;
        self.session.run("begin", "BEGIN").await?;
        let table = &self.options.table;
        match &self.options.place {
            TablePlace::Replace if !self.is_there(table).await? => Err(DatabaseError::NoSuch {
                database: self.options.database.clone(),
                what: "table",
                name: table.to_string(),
            }),
            TablePlace::Replace => match self.referring().await? {
                Some(by) => Err(DatabaseError::ReferredTo { table: table.to_string(), by }),
                None => Ok(()),
            },
            TablePlace::Beside(other) if self.is_there(other).await? => {
                let (database, table) = (self.options.database.clone(), other.to_string());
                Err(DatabaseError::TableThere { database, table })
            }
            TablePlace::Beside(other) if !self.has_schema(&other.schema).await? => {
                Err(DatabaseError::NoSuch {
                    database: self.options.database.clone(),
                    what: "schema",
                    name: other.schema.clone(),
                })
            }
            TablePlace::Beside(_) => Ok(()),
        }
    }

    /// Other tables that refer to the table.
    async fn referring(&self) -> Result<Option<String>> {
        const WHAT: &str = "look for foreign keys";
        let query = "SELECT string_agg(DISTINCT conrelid::regclass::text, ', ') FROM pg_constraint \
                     WHERE contype = 'f' AND confrelid = to_regclass($1) \
                       AND conrelid <> confrelid AND conparentid = 0";
        let row = self.session.one(WHAT, query, &[&self.options.table.quoted()]).await?;
        Ok(row.try_get(0).map_err(|error| failed(WHAT, error))?)
    }

    async fn has_schema(&self, schema: &str) -> Result<bool> {
        const WHAT: &str = "look for the schema";
        let query = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1::text::name)";
        let row = self.session.one(WHAT, query, &[&schema]).await?;
        Ok(row.try_get(0).map_err(|error| failed(WHAT, error))?)
    }

    async fn is_there(&self, table: &TableName) -> Result<bool> {
        const WHAT: &str = "look for the table";
        let query = "SELECT to_regclass($1) IS NOT NULL";
        let row = self.session.one(WHAT, query, &[&table.quoted()]).await?;
        Ok(row.try_get(0).map_err(|error| failed(WHAT, error))?)
    }

    /// The table that takes the rows.
    fn into(&self) -> &TableName {
        match &self.options.place {
            TablePlace::Replace => &self.options.table,
            TablePlace::Beside(other) => other,
        }
    }

    async fn run(&self, doing: &str, statement: &str) -> Result<()> {
        let done = self.session.client().batch_execute(statement).await;
        done.map_err(|error| about_table(format!("{doing} {}", self.into()), error))
    }

    async fn take(&self, entry: Entry) -> Result<()> {
        let name = entry.path.to_string();
        let mut state = self.state.lock().await;
        match name.as_str() {
            layout::ABOUT => {
                let about = About::parse(&gathered(&name, entry.content, About::MAX).await?)?;
                let _ = self.about.set(about);
            }
            layout::BEFORE => {
                let beside = matches!(&self.options.place, TablePlace::Beside(_));
                if beside && !self.is_there(&self.options.table).await? {
                    state.definition = self.definition(entry).await?;
                } else {
                    pass_over(entry.content).await?;
                }
            }
            layout::TOTALS => {
                let bytes = gathered(&name, entry.content, Totals::MAX).await?;
                let (totals, table) = (Totals::parse(&bytes)?, &self.options.table);
                let Some(known) = &state.known else {
                    let what = format!("it has no rows of {table}");
                    return Err(DatabaseError::NotASnapshot { what });
                };
                let rows = known.compare(totals.table(&table.schema, &table.name))?;
                *self.rows.lock() = Some(rows);
            }
            _ if entry.path == self.path && entry.kind == EntryKind::Directory => {
                state.known = Some(Known::of(&entry)?);
                self.prepare(&mut state).await?;
            }
            _ if entry.path.parent().as_ref() == Some(&self.path) => {
                let (Some(known), Some(about)) = (&state.known, self.about.get()) else {
                    let what = format!("rows come before {} or the table", layout::ABOUT);
                    return Err(DatabaseError::NotASnapshot { what });
                };
                let statement = known.statement(self.into(), &about.encoding);
                let table = self.into().to_string();
                let tally = copy(&self.session, &statement, &table, entry.content).await?;
                known.count(&tally);
            }
            _ => pass_over(entry.content).await?,
        }
        Ok(())
    }

    /// The statement that makes the table, out of the schema.
    async fn definition(&self, entry: Entry) -> Result<Option<Statement>> {
        let mut script = Script::new(layout::BEFORE, entry.content);
        let table = &self.options.table;
        let mut found = None;
        while let Some(statement) = script.next().await? {
            if statement.purpose() == Purpose::Other && statement.makes_table(table) {
                found = Some(statement);
            }
        }
        Ok(found)
    }

    /// Makes the table ready for the rows.
    async fn prepare(&self, state: &mut State) -> Result<()> {
        let (table, into) = (&self.options.table, self.into());
        match (&self.options.place, &state.definition) {
            (TablePlace::Replace, _) => {
                self.run("lock", &format!("LOCK TABLE ONLY {}", into.quoted())).await?;
                self.run("empty", &format!("TRUNCATE ONLY {}", into.quoted())).await?;
            }
            (TablePlace::Beside(_), None) => {
                let like = format!(
                    "CREATE TABLE {} (LIKE {} INCLUDING ALL)",
                    into.quoted(),
                    table.quoted()
                );
                self.run("make", &like).await?;
            }
            (TablePlace::Beside(_), Some(definition)) => {
                self.run("make", &definition.0).await?;
                if table.name != into.name {
                    let name = identifier(&into.name);
                    let rename = format!("ALTER TABLE {} RENAME TO {name}", table.quoted());
                    self.run("name", &rename).await?;
                }
                if table.schema != into.schema {
                    let moved = TableName::new(&table.schema, &into.name).quoted();
                    let schema = identifier(&into.schema);
                    self.run("name", &format!("ALTER TABLE {moved} SET SCHEMA {schema}")).await?;
                }
            }
        }
        state.triggers = self.triggers_off().await?;
        Ok(())
    }

    /// Turns the user's triggers off; the result turns them on as they were.
    async fn triggers_off(&self) -> Result<Vec<String>> {
        const WHAT: &str = "list the triggers";
        let query = "SELECT tgname::text, tgenabled::text FROM pg_trigger \
                     WHERE tgrelid = to_regclass($1) AND NOT tgisinternal AND tgenabled IN ('O', 'A')";
        let quoted = self.into().quoted();
        let mut on = Vec::new();
        for row in self.session.all(WHAT, query, &[&quoted]).await? {
            let read = || -> Result<(String, String), tokio_postgres::Error> {
                Ok((row.try_get(0)?, row.try_get(1)?))
            };
            let (name, state) = read().map_err(|error| failed(WHAT, error))?;
            let name = identifier(&name);
            self.run("change", &format!("ALTER TABLE ONLY {quoted} DISABLE TRIGGER {name}"))
                .await?;
            let always = if state == "A" { "ALWAYS " } else { "" };
            on.push(format!("ALTER TABLE ONLY {quoted} ENABLE {always}TRIGGER {name}"));
        }
        Ok(on)
    }

    async fn end(&self) -> Result<Receipt> {
        let Some(rows) = *self.rows.lock() else {
            let what = format!("{} is not there", layout::TOTALS);
            return Err(DatabaseError::NotASnapshot { what });
        };
        let state = self.state.lock().await;
        for statement in &state.triggers {
            self.run("change", statement).await?;
        }
        self.run("commit", "COMMIT").await?;
        let told = Attributes::new()
            .with(facts::NAME, self.options.database.as_str())
            .with(facts::ROWS, rows)
            .with(facts::TABLE, self.into().to_string());
        Ok(Receipt { snapshot: None, facts: told })
    }
}

#[async_trait]
impl Writing for Putting {
    fn lane(&self, _: &EntryPath) -> Option<Lane> {
        Some(TableSink::ONLY)
    }

    async fn put(&self, _: u64, entry: Entry) -> lifeboat_core::Result<()> {
        Ok(self.take(entry).await?)
    }

    async fn commit(self: Arc<Self>, _: Completion) -> lifeboat_core::Result<Receipt> {
        Ok(self.end().await?)
    }

    async fn abort(self: Arc<Self>) {
        // The table is as it was when the transaction ends, at the latest with the session.
        let _ = self.session.run("roll back", "ROLLBACK").await;
    }
}
