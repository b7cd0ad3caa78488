//! One restore of a database.
//!
//! Entries come in the order in which they are needed, and are put side by side. Each waits until
//! everything before it is done, but for the rows: tables and their parts go in side by side, once
//! what must be there before them is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt, stream};
use lifeboat_core::{Attributes, Content, Context, Entry, EntryKind, EntryPath, Extent, Receipt};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio_postgres::error::SqlState;

use super::error::{DatabaseError, Result};
use super::large_objects;
use super::layout::{self, About, Parts, Total, Totals, attributes, facts};
use super::moment::about_table;
use super::name::{TableName, identifier, literal};
use super::restore::{DatabaseRestoreOptions, Keep};
use super::script::{Purpose, Statement, Statements};
use super::tally::Tally;
use super::target::Target;
use super::turns::Turns;
use crate::connect::{Session, failed};

/// So much of a script is looked at at a time.
const SLICE: usize = 16 << 10;

/// So many indexes at most wait to be built side by side.
const MOST_INDEXES: usize = 10_000;

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

/// What is known once the database is there.
#[derive(Debug)]
struct Begun {
    about: About,
    main: Session,
}

/// One restore.
#[derive(Debug)]
pub(super) struct Restoring {
    options: DatabaseRestoreOptions,
    context: Context,
    turns: Turns,
    /// Taken by whoever makes the database.
    admin: Mutex<Option<Session>>,
    target: OnceCell<Target>,
    begun: OnceCell<Begun>,
    /// Settings of the scripts, by name, for sessions that work beside the first.
    settings: Mutex<BTreeMap<String, String>>,
    /// Whether rows may come, and the tables that they may come for.
    tables: watch::Sender<Tables>,
    workers: Semaphore,
    idle: Mutex<Vec<Session>>,
    large_objects: Mutex<Option<Tally>>,
    /// How many rows were compared with what was counted at the backup.
    compared: Mutex<Option<u64>>,
    ended: Mutex<bool>,
}

#[derive(Debug, Default)]
struct Tables {
    ready: bool,
    known: HashMap<EntryPath, Arc<Known>>,
}

impl Restoring {
    pub(super) fn new(admin: Session, options: DatabaseRestoreOptions, context: Context) -> Self {
        let sessions = options.sessions();
        Self {
            options,
            context,
            turns: Turns::new(),
            admin: Mutex::new(Some(admin)),
            target: OnceCell::new(),
            begun: OnceCell::new(),
            settings: Mutex::default(),
            tables: watch::Sender::new(Tables::default()),
            workers: Semaphore::new(sessions),
            idle: Mutex::default(),
            large_objects: Mutex::default(),
            compared: Mutex::default(),
            ended: Mutex::new(false),
        }
    }

    pub(super) async fn put(&self, ordinal: u64, entry: Entry) -> Result<()> {
        let depth = entry.path.components().count();
        let top = entry.path.components().next().unwrap_or_default().to_vec();
        let is_rows = top == layout::ROWS.as_bytes();
        if is_rows && depth == 4 {
            self.rows(ordinal, entry).await?;
        } else if is_rows && depth == 3 && entry.kind == EntryKind::Directory {
            let known = Known::of(&entry)?;
            if self.options.occupied == super::restore::Occupied::Fill {
                self.turns.wait(ordinal).await;
                self.has_no_rows(&known.name).await?;
            }
            self.tables.send_modify(|tables| {
                tables.known.insert(entry.path.clone(), Arc::new(known));
            });
        } else {
            self.turns.wait(ordinal).await;
            self.in_turn(&top, depth, entry).await?;
        }
        self.turns.done(ordinal);
        Ok(())
    }

    async fn in_turn(&self, top: &[u8], depth: usize, entry: Entry) -> Result<()> {
        let name = std::str::from_utf8(top).unwrap_or_default();
        match (name, depth) {
            (layout::ABOUT, 1) => self.begin(entry.content).await,
            (layout::ROLES, 1) if self.options.roles == Keep::LeaveOut => Ok(()),
            (layout::ROLES, 1) => self.roles(entry.content).await,
            (layout::BEFORE, 1) => {
                self.context.phase("make the tables");
                self.script(layout::BEFORE, entry.content).await
            }
            (layout::ROWS, 1) => {
                self.context.phase("fill the tables");
                self.begun()?;
                self.tables.send_modify(|tables| tables.ready = true);
                Ok(())
            }
            (layout::SEQUENCES, 1) => self.script(layout::SEQUENCES, entry.content).await,
            (layout::LARGE, 2) if entry.path.name() == layout::OBJECTS.as_bytes() => {
                self.script(layout::LARGE, entry.content).await
            }
            (layout::LARGE, 2) if entry.path.name() == layout::PAGES.as_bytes() => {
                self.pages(entry.content).await
            }
            (layout::AFTER, 1) => {
                self.context.phase("build indexes and constraints");
                self.script(layout::AFTER, entry.content).await
            }
            (layout::TOTALS, 1) => self.totals(entry.content).await,
            // Directories; and what a later version adds without another form is of no matter.
            _ => Ok(()),
        }
    }

    fn begun(&self) -> Result<&Begun> {
        self.begun.get().ok_or_else(not_begun)
    }

    fn target(&self) -> Result<&Target> {
        self.target.get().ok_or_else(not_begun)
    }

    async fn begin(&self, content: Content) -> Result<()> {
        let about = About::parse(&gathered(layout::ABOUT, content, About::MAX).await?)?;
        let Some(admin) = self.admin.lock().take() else {
            return Err(DatabaseError::NotASnapshot { what: "it describes two databases".into() });
        };
        self.context.phase("make the database");
        // Nobody else begins: the first entry is alone.
        let made = async { Target::new(admin, &about, &self.options) };
        let target = self.target.get_or_try_init(|| made).await?;
        target.make(&about, &self.options).await?;
        let main = target.session(&self.options).await?;
        let _ = self.begun.set(Begun { about, main });
        Ok(())
    }

    /// Makes the roles that are not there. What is said of those that are there is left out.
    async fn roles(&self, content: Content) -> Result<()> {
        let main = &self.begun()?.main;
        let rows = main.all("list the roles", "SELECT rolname::text FROM pg_roles", &[]).await?;
        let mut there = std::collections::HashSet::new();
        for row in rows {
            let name: String = row.try_get(0).map_err(|error| failed("list the roles", error))?;
            there.insert(name);
        }
        let mut statements = Script::new(layout::ROLES, content);
        while let Some(statement) = statements.next().await? {
            match super::roles::meant(&statement) {
                Some(role) if there.contains(&role) => {}
                Some(_) => run(main, &statement).await?,
                None if statement.purpose() == Purpose::Setting => run(main, &statement).await?,
                // Tablespaces belong to a host.
                None => {}
            }
        }
        Ok(())
    }

    /// Runs a script, building indexes that follow one another side by side.
    async fn script(&self, name: &'static str, content: Content) -> Result<()> {
        let main = &self.begun()?.main;
        let mut statements = Script::new(name, content);
        let mut indexes = Vec::new();
        while let Some(statement) = statements.next().await? {
            self.context.check()?;
            let purpose = statement.purpose();
            let left_out = match purpose {
                Purpose::Owner => self.options.owners == Keep::LeaveOut,
                Purpose::Privilege => self.options.privileges == Keep::LeaveOut,
                _ => false,
            };
            if left_out {
                continue;
            }
            if purpose == Purpose::Index && self.options.sessions() > 1 {
                indexes.push(statement);
                if indexes.len() < MOST_INDEXES {
                    continue;
                }
                self.build(std::mem::take(&mut indexes)).await?;
                continue;
            }
            self.build(std::mem::take(&mut indexes)).await?;
            self.one(main, statement, purpose).await?;
        }
        self.build(indexes).await
    }

    async fn one(&self, main: &Session, statement: Statement, purpose: Purpose) -> Result<()> {
        let refused = match run(main, &statement).await {
            Err(DatabaseError::Statement { statement: shown, source }) => (shown, source),
            Ok(()) => {
                if purpose == Purpose::Setting {
                    let name = statement.setting().unwrap_or("search_path").to_owned();
                    self.settings.lock().insert(name, statement.0);
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let (shown, source) = refused;
        let code = source.code();
        match purpose {
            // A newer pg_dump sets what an older server does not know, and does not need.
            Purpose::Setting if code == Some(&SqlState::UNDEFINED_OBJECT) => Ok(()),
            Purpose::ExtensionComment if code == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                let told = "only the extension's owner may comment on it; the comment is left out";
                self.context.note(&shown, told);
                Ok(())
            }
            _ => Err(DatabaseError::Statement { statement: shown, source }),
        }
    }

    async fn build(&self, indexes: Vec<Statement>) -> Result<()> {
        stream::iter(indexes.into_iter().map(Ok))
            .try_for_each_concurrent(self.options.sessions(), |statement| async move {
                let worker = self.worker().await?;
                let settings: Vec<_> = self.settings.lock().values().cloned().collect();
                worker.run("prepare the session", &settings.join(";")).await?;
                run(&worker, &statement).await?;
                self.idle.lock().push(worker);
                Ok(())
            })
            .await
    }

    /// A session in the database, beside the first.
    async fn worker(&self) -> Result<Session> {
        let idle = self.idle.lock().pop();
        if let Some(session) = idle {
            return Ok(session);
        }
        let begun = self.begun()?;
        let session = self.target()?.session(&self.options).await?;
        if begun.about.content == Parts::Data {
            // Rows come in no order that foreign keys or triggers would like.
            let statement = Statement("SET session_replication_role = replica".to_owned());
            run(&session, &statement).await?;
        }
        Ok(session)
    }

    async fn has_no_rows(&self, table: &TableName) -> Result<()> {
        let query = format!("SELECT EXISTS (SELECT FROM ONLY {})", table.quoted());
        let row = self.begun()?.main.client().query_one(&query, &[]).await;
        let row = row.map_err(|error| about_table(format!("look into {table}"), error))?;
        if row.try_get::<_, bool>(0).map_err(|error| failed("look into a table", error))? {
            let database = self.options.into.clone();
            return Err(DatabaseError::NotEmpty { database, what: format!("rows in {table}") });
        }
        Ok(())
    }

    async fn rows(&self, ordinal: u64, entry: Entry) -> Result<()> {
        let Some(directory) = entry.path.parent() else {
            return Ok(());
        };
        let known = {
            let mut tables = self.tables.subscribe();
            let find =
                |tables: &Tables| tables.known.get(&directory).filter(|_| tables.ready).cloned();
            tokio::select! {
                // The sender lives in this value, so waiting cannot fail.
                there = tables.wait_for(|tables| find(tables).is_some()) => {
                    there.ok().and_then(|tables| find(&tables))
                }
                // What was not said by then is never said.
                () = self.turns.wait(ordinal) => find(&self.tables.borrow()),
            }
        };
        let Some(known) = known else {
            let what = format!("there are rows at {}, and nothing says of which table", entry.path);
            return Err(DatabaseError::NotASnapshot { what });
        };
        // The semaphore is never closed.
        let _permit = self.workers.acquire().await.ok();
        let worker = self.worker().await?;
        let statement = known.statement(&known.name, &self.begun()?.about.encoding);
        let tally = copy(&worker, &statement, &known.name.to_string(), entry.content).await?;
        known.count(&tally);
        self.idle.lock().push(worker);
        Ok(())
    }

    async fn pages(&self, mut content: Content) -> Result<()> {
        let main = &self.begun()?.main;
        let put = main.client().prepare("SELECT pg_catalog.lo_put($1, $2, $3)").await;
        let put = put.map_err(|error| failed("fill the large objects", error))?;
        let mut tally = Tally::default();
        let mut rest: Vec<u8> = Vec::new();
        main.run("begin", "BEGIN").await?;
        while let Some(extent) = content.next().await? {
            let bytes = data(extent, "the large objects")?;
            tally.feed(&bytes);
            rest.extend_from_slice(&bytes);
            let mut done = 0;
            while let Some(length) = rest[done..].iter().position(|byte| *byte == b'\n') {
                let line = &rest[done..done + length];
                let wrong = || DatabaseError::NotASnapshot {
                    what: "a piece of a large object cannot be understood".to_owned(),
                };
                let (oid, at, bytes) = large_objects::piece(line).ok_or_else(wrong)?;
                let written = main.client().execute(&put, &[&oid, &at, &bytes]).await;
                written
                    .map_err(|error| about_table(format!("fill the large object {oid}"), error))?;
                done += length + 1;
            }
            rest.drain(..done);
        }
        main.run("commit", "COMMIT").await?;
        *self.large_objects.lock() = Some(tally);
        Ok(())
    }

    async fn totals(&self, content: Content) -> Result<()> {
        let totals = Totals::parse(&gathered(layout::TOTALS, content, Totals::MAX).await?)?;
        let known: Vec<_> = self.tables.borrow().known.values().cloned().collect();
        let mut rows = 0;
        for table in &known {
            rows += table.compare(totals.table(&table.name.schema, &table.name.name))?;
        }
        let counted: usize = totals.tables.values().map(BTreeMap::len).sum();
        if counted != known.len() {
            let what =
                format!("rows of {} tables came, of {counted} that were backed up", known.len());
            return Err(DatabaseError::NotASnapshot { what });
        }
        if let Some(expected) = &totals.large_objects {
            let counted = self.large_objects.lock().take().unwrap_or_default();
            compare("the large objects", &counted, Some(expected))?;
        }
        *self.compared.lock() = Some(rows);
        Ok(())
    }

    pub(super) async fn commit(&self) -> Result<Receipt> {
        let begun = self.begun()?;
        let Some(rows) = *self.compared.lock() else {
            let what = format!("{} is not there", layout::TOTALS);
            return Err(DatabaseError::NotASnapshot { what });
        };
        self.idle.lock().clear();
        // The name of a database changes when nobody is in it, this session included.
        self.leave(&begun.main).await;
        let finished = self.target()?.finish(&begun.about, &self.options).await?;
        for told in finished {
            self.context.warn(&format!("database {}", self.options.into), told);
        }
        *self.ended.lock() = true;
        let tables = self.tables.borrow().known.len() as u64;
        let told = Attributes::new()
            .with(facts::NAME, self.options.into.as_str())
            .with(
                facts::NEXT,
                format!(
                    "ANALYZE in the database {}, so that its queries are planned well",
                    identifier(&self.options.into)
                ),
            )
            .with(facts::ROWS, rows)
            .with(facts::TABLES, tables);
        Ok(Receipt { snapshot: None, facts: told })
    }

    /// Ends a session that others cannot be dropped from.
    async fn leave(&self, session: &Session) {
        let end = "SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())";
        // The answer is the end of the session, which is an error to it.
        let _ = session.run("leave the database", end).await;
    }

    /// Removes what was made.
    pub(super) async fn abort(&self) {
        if std::mem::replace(&mut *self.ended.lock(), true) {
            return;
        }
        self.idle.lock().clear();
        if let Some(target) = self.target.get() {
            target.remove().await;
            if target.stays() {
                let told = "the restore failed, and what it had written stays in the database; \
                            drop the database before you restore into it again";
                self.context.warn(&format!("database {}", self.options.into), told);
            }
        }
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

fn not_begun() -> DatabaseError {
    let what = format!("{} is not there, or not the first", layout::ABOUT);
    DatabaseError::NotASnapshot { what }
}

async fn run(session: &Session, statement: &Statement) -> Result<()> {
    match session.client().batch_execute(&statement.0).await {
        Ok(()) => Ok(()),
        Err(source) if crate::error::ends_session(&source) => {
            Err(crate::error::Error::SessionLost.into())
        }
        Err(source) => {
            Err(DatabaseError::Statement { statement: statement.shown(), source: Box::new(source) })
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
