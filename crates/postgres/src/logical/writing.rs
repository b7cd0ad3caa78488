//! One restore of a database.
//!
//! Entries come in the order in which they are needed, and are put side by side. Each waits until
//! everything before it is done, but for the rows: tables and their parts go in side by side, once
//! what must be there before them is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lifeboat_core::{Attributes, Content, Context, Entry, EntryKind, EntryPath, Receipt};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio_postgres::error::SqlState;

use super::apart::apart;
use super::compared;
use super::error::{DatabaseError, Result};
use super::foreign_key::ForeignKey;
use super::large_objects;
use super::layout::{self, About, Parts, Totals, facts};
use super::moment::about_table;
use super::name::{TableName, identifier};
use super::restore::{DatabaseRestoreOptions, Keep};
use super::script::{Purpose, Statement};
use super::taken::{Known, Script, compare, copy, data, gathered};
use super::tally::Tally;
use super::target::Target;
use super::turns::Turns;
use crate::connect::{Session, failed};

/// So many statements at most wait to be run side by side.
const MOST_ALIKE: usize = 10_000;

/// Statements that follow one another and may run side by side.
#[derive(Debug, Default)]
struct Alike {
    purpose: Option<Purpose>,
    statements: Vec<Statement>,
}

impl Alike {
    /// Whether a statement may join them.
    fn takes(&self, purpose: Purpose) -> bool {
        self.purpose.is_none_or(|one| one == purpose) && self.statements.len() < MOST_ALIKE
    }

    fn add(&mut self, purpose: Purpose, statement: Statement) {
        self.purpose = Some(purpose);
        self.statements.push(statement);
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

    /// Runs a script. Indexes that follow one another are built side by side, and so are foreign
    /// keys checked.
    async fn script(&self, name: &'static str, content: Content) -> Result<()> {
        let main = &self.begun()?.main;
        let mut statements = Script::new(name, content);
        let mut alike = Alike::default();
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
            if !alike.takes(purpose) {
                self.side_by_side(std::mem::take(&mut alike)).await?;
            }
            let can_wait = matches!(purpose, Purpose::Index | Purpose::ForeignKey);
            if can_wait && self.options.sessions() > 1 {
                alike.add(purpose, statement);
            } else {
                self.one(main, statement, purpose).await?;
            }
        }
        self.side_by_side(alike).await
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

    async fn side_by_side(&self, alike: Alike) -> Result<()> {
        let items = match alike.purpose {
            Some(Purpose::ForeignKey) => self.with_tables(alike.statements).await?,
            _ => alike.statements.into_iter().map(|statement| (Vec::new(), statement)).collect(),
        };
        apart(items, self.options.sessions(), |statement: Statement| async move {
            let worker = self.worker().await?;
            let settings: Vec<_> = self.settings.lock().values().cloned().collect();
            worker.run("prepare the session", &settings.join(";")).await?;
            run(&worker, &statement).await?;
            self.idle.lock().push(worker);
            Ok(())
        })
        .await
    }

    /// Foreign keys with the tables that they lock; a partition stands for the whole.
    async fn with_tables(&self, keys: Vec<Statement>) -> Result<Vec<(Vec<u32>, Statement)>> {
        const WHAT: &str = "look for the tables of foreign keys";
        let tables: Vec<_> = keys
            .iter()
            .filter_map(|statement| ForeignKey::of(&statement.0))
            .flat_map(|key| [key.from, key.to])
            .collect();
        let query = "SELECT coalesce(pg_partition_root(c.oid), c.oid, 0::oid::regclass)::oid \
                     FROM unnest($1::text[]) WITH ORDINALITY AS t(name, number), \
                     LATERAL (SELECT to_regclass(t.name) AS oid) AS c ORDER BY t.number";
        let rows = self.begun()?.main.all(WHAT, query, &[&tables]).await?;
        let oid = |row: &tokio_postgres::Row| row.try_get(0);
        let oids: Vec<u32> =
            rows.iter().map(oid).collect::<Result<_, _>>().map_err(|error| failed(WHAT, error))?;
        // A table that is not there has the oid 0: such statements come one after the other.
        Ok(oids.chunks(2).map(<[u32]>::to_vec).zip(keys).collect())
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
        compared::leave(&begun.main).await;
        let target = self.target()?;
        let mut told = Attributes::new();
        if target.is_swap().await? {
            told = self.compared_with_live().await;
        }
        self.context.phase("give the database its name");
        let finished = match target.finish(&begun.about, &self.options, &self.context).await {
            Ok(finished) => finished,
            Err(error) => {
                *self.ended.lock() = error.leaves_whole();
                return Err(error);
            }
        };
        for (name, value) in finished.iter() {
            told.set(name.to_owned(), value.clone());
        }
        *self.ended.lock() = true;
        let tables = self.tables.borrow().known.len() as u64;
        let told = told
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

    /// Tells how what was restored differs from the database whose name it takes.
    async fn compared_with_live(&self) -> Attributes {
        let rows = |known: &Arc<Known>| (known.name.clone(), known.rows());
        let restored = self.tables.borrow().known.values().map(rows).collect();
        match compared::with_live(&self.options, &restored, &self.context).await {
            Ok(told) => told,
            Err(error) => {
                let why = lifeboat_core::Error::from(error).one_line();
                let told = format!("it was not compared with the database that is there: {why}");
                self.context.warn(&format!("database {}", self.options.into), told);
                Attributes::new()
            }
        }
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
