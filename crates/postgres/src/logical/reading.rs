//! One reading of a database.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::{
    Attributes, Baseline, Completion, Context, Entry, EntryKind, EntryPath, Reading,
};
use parking_lot::Mutex;

use super::catalog::{self, Extension, Relation};
use super::error::{DatabaseError, Result};
use super::large_objects;
use super::layout::{self, About, Total, Totals, attributes, facts};
use super::moment::{Moment, Workers};
use super::name::{component, identifier};
use super::options::{DatabaseOptions, Roles};
use super::program::{Done, Found, Program, Run, Writes};
use super::rows::Rows;
use super::tally::Tally;
use crate::gate::Gate;
use crate::source::lineage;

/// What comes next.
enum Planned {
    Directory(EntryPath, Attributes),
    /// A file whose content is at hand.
    Text(EntryPath, Vec<u8>),
    /// What a program writes.
    Script(&'static str, Run),
    /// Rows of the table of this number, by this statement.
    Rows {
        path: EntryPath,
        table: usize,
        name: String,
        statement: String,
        bytes: u64,
    },
    /// The end: what was counted.
    Totals,
}

/// What is counted of one table, and of how many parts.
#[derive(Default)]
struct Counted {
    tally: Tally,
    parts: u64,
}

/// A table, or the large objects, of which rows are counted.
struct Counter {
    /// Schema and name; `None` for large objects.
    table: Option<(String, String)>,
    parts: u64,
    counted: Mutex<Counted>,
}

/// A reading, and what it holds at the server.
pub(super) struct DatabaseReading {
    moment: Moment,
    workers: Arc<Workers>,
    context: Context,
    rest: VecDeque<Planned>,
    counters: Arc<Vec<Counter>>,
    /// Scripts that were not read to their end yet.
    scripts: Arc<Mutex<usize>>,
    gate: Gate,
    facts: Attributes,
    rows: Option<u64>,
}

impl DatabaseReading {
    pub(super) async fn begin(
        options: &DatabaseOptions,
        since: Option<&dyn Baseline>,
        context: &Context,
    ) -> Result<Self> {
        context.phase("lock the tables");
        let moment = Moment::take(options).await?;
        let about = catalog::about(&moment.leader, options).await?;
        let workers = Arc::new(Workers::new(options, &moment.snapshot));
        let mut plan = Plan {
            options,
            moment: &moment,
            rest: VecDeque::new(),
            counters: Vec::new(),
            facts: about.to_facts(),
        };
        if let Some(system_id) = catalog::system_id(&moment.leader).await? {
            lineage::tell_of_another(since, facts::SYSTEM_ID, system_id, context);
            plan.facts.set(facts::SYSTEM_ID, system_id.to_string());
        }
        plan.make(&about, context).await?;
        let Plan { rest, counters, facts, .. } = plan;
        context.phase("read the rows");
        Ok(Self {
            moment,
            workers,
            context: context.clone(),
            rest,
            counters: Arc::new(counters),
            scripts: Arc::default(),
            gate: Gate::new(),
            facts,
            rows: None,
        })
    }

    async fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.moment.check()?;
        Ok(match self.rest.pop_front() {
            None => None,
            Some(Planned::Directory(path, known)) => {
                Some(Entry::new(path, EntryKind::Directory, known))
            }
            Some(Planned::Text(path, bytes)) => {
                self.context.count_read(bytes.len() as u64);
                Some(Entry::file(path, Attributes::new(), bytes))
            }
            Some(Planned::Script(name, run)) => {
                *self.scripts.lock() += 1;
                let scripts = Arc::clone(&self.scripts);
                let done: Done = Box::new(move || *scripts.lock() -= 1);
                let content = run.into_content(&self.context, self.gate.ticket(), done);
                Some(file(EntryPath::new(name)?).with_content(0, content))
            }
            Some(Planned::Rows { path, table, name, statement, bytes }) => {
                let counters = Arc::clone(&self.counters);
                let rows = Rows {
                    table: name,
                    statement,
                    workers: Arc::clone(&self.workers),
                    context: self.context.clone(),
                    ticket: self.gate.ticket(),
                    counted: Box::new(move |tally| {
                        let mut counted = counters[table].counted.lock();
                        counted.tally.merge(tally);
                        counted.parts += 1;
                    }),
                };
                Some(file(path).with_content(bytes, rows.into_content()))
            }
            Some(Planned::Totals) => {
                tokio::select! {
                    () = self.gate.idle() => {}
                    () = self.moment.ended() => self.moment.check()?,
                }
                let (totals, rows) = self.totals()?;
                self.rows = Some(rows);
                let bytes = layout::to_json(&totals)?;
                Some(Entry::file(EntryPath::new(layout::TOTALS)?, Attributes::new(), bytes))
            }
        })
    }

    fn totals(&self) -> Result<(Totals, u64)> {
        if *self.scripts.lock() > 0 {
            return Err(DatabaseError::Unfinished);
        }
        let mut totals = Totals::default();
        let mut rows = 0;
        for counter in &*self.counters {
            let counted = counter.counted.lock();
            if counted.parts != counter.parts {
                return Err(DatabaseError::Unfinished);
            }
            let (count, digest) = (counted.tally.rows(), counted.tally.digest());
            let total = Total { rows: count, digest };
            match &counter.table {
                None => totals.large_objects = Some(total),
                Some((schema, table)) => {
                    rows += count;
                    totals.tables.entry(schema.clone()).or_default().insert(table.clone(), total);
                }
            }
        }
        Ok((totals, rows))
    }

    fn complete(mut self) -> Result<Completion> {
        let Some(rows) = self.rows else {
            return Err(DatabaseError::Unfinished);
        };
        if !self.rest.is_empty() {
            return Err(DatabaseError::Unfinished);
        }
        // What was read last was read under the locks only if they are still held.
        self.moment.check()?;
        self.facts.set(facts::ROWS, rows);
        Ok(Completion {
            taken: self.moment.taken,
            position: std::mem::take(&mut self.moment.position),
            facts: self.facts,
        })
    }
}

#[async_trait]
impl Reading for DatabaseReading {
    async fn next(&mut self) -> lifeboat_core::Result<Option<Entry>> {
        self.context.check()?;
        Ok(self.next_entry().await?)
    }

    async fn finish(self: Box<Self>) -> lifeboat_core::Result<Completion> {
        Ok(self.complete()?)
    }
}

fn file(path: EntryPath) -> Entry {
    Entry::new(path, EntryKind::File, Attributes::new())
}

/// What is to be read, in the order of the paths.
struct Plan<'a> {
    options: &'a DatabaseOptions,
    moment: &'a Moment,
    rest: VecDeque<Planned>,
    counters: Vec<Counter>,
    facts: Attributes,
}

impl Plan<'_> {
    async fn make(&mut self, about: &About, context: &Context) -> Result<()> {
        let parts = self.options.parts;
        let dump = match parts.has_schema() {
            true => Some(self.program(Program::Dump, about).await?),
            false => None,
        };
        if let Some(dump) = &dump {
            self.facts.set(facts::DUMP_PROGRAM, dump.version.as_str());
        }
        self.ready(layout::ABOUT, layout::to_json(about)?)?;
        if self.options.roles != Roles::LeaveOut {
            let program = self.program(Program::DumpAll, about).await?;
            let run = self.run(program, self.roles_arguments(), Writes::Script)?;
            self.rest.push_back(Planned::Script(layout::ROLES, run));
        }
        let script = Writes::Script;
        let before = self.schema(dump.as_ref(), &["pre-data"], script).await?;
        self.rest.extend(before.map(|run| Planned::Script(layout::BEFORE, run)));
        let both = ["pre-data", "post-data"];
        let contents = self.schema(dump.as_ref(), &both, Writes::Archive).await?;
        self.rest.extend(contents.map(|run| Planned::Script(layout::CONTENTS, run)));
        let tables = catalog::with_rows(&self.moment.relations, self.options)?;
        self.facts.set(facts::TABLES, tables.len() as u64);
        self.tables(&tables, about, context).await?;
        if parts.has_rows() {
            let script = catalog::sequences(&self.moment.leader, &self.moment.relations).await?;
            self.ready(layout::SEQUENCES, script)?;
            if !self.options.is_selection() {
                self.large_objects().await?;
            }
        }
        let after = self.schema(dump.as_ref(), &["post-data"], script).await?;
        self.rest.extend(after.map(|run| Planned::Script(layout::AFTER, run)));
        self.rest.push_back(Planned::Totals);
        Ok(())
    }

    fn ready(&mut self, name: &str, bytes: Vec<u8>) -> Result<()> {
        self.rest.push_back(Planned::Text(EntryPath::new(name)?, bytes));
        Ok(())
    }

    async fn program(&self, program: Program, about: &About) -> Result<Found> {
        program.find(self.options.programs.as_deref(), about.major()).await
    }

    fn run(&self, found: Found, arguments: Vec<OsString>, writes: Writes) -> Result<Run> {
        let environment = self.options.connection.libpq_environment()?;
        Ok(Run { found, arguments, writes, environment })
    }

    fn lock_wait(&self) -> OsString {
        let limit = self.options.lock_timeout.as_millis().clamp(1, i32::MAX as u128);
        format!("--lock-wait-timeout={limit}").into()
    }

    fn roles_arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec![
            "--globals-only".into(),
            "--no-password".into(),
            "--encoding=UTF8".into(),
            // Which database it looks at first makes no difference, but there must be one.
            format!("--database={}", self.options.connection.database()).into(),
        ];
        if self.options.roles == Roles::WithoutPasswords {
            arguments.push("--no-role-passwords".into());
        }
        arguments
    }

    async fn schema(
        &self,
        dump: Option<&Found>,
        sections: &[&str],
        writes: Writes,
    ) -> Result<Option<Run>> {
        /// What the arguments of a program may hold, on every system.
        const MOST: usize = 2000;
        let Some(found) = dump else {
            return Ok(None);
        };
        let mut arguments: Vec<OsString> = match writes {
            Writes::Script => vec!["--format=plain".into()],
            Writes::Archive => vec!["--format=custom".into(), "--compress=0".into()],
        };
        arguments.extend(sections.iter().map(|section| format!("--section={section}").into()));
        arguments.extend([
            format!("--snapshot={}", self.moment.snapshot).into(),
            "--encoding=UTF8".into(),
            "--no-password".into(),
            "--no-blobs".into(),
            self.lock_wait(),
        ]);
        for schema in catalog::schemas(&self.moment.leader, self.options).await? {
            arguments.push(format!("--schema={}", identifier(&schema)).into());
        }
        if !self.options.tables.is_empty() {
            let count = self.moment.relations.len();
            if count > MOST {
                return Err(DatabaseError::TooManyNamed { count, most: MOST });
            }
            // Named as they are, so that both choose the same.
            for relation in &self.moment.relations {
                arguments.push(format!("--table={}", relation.name.quoted()).into());
            }
        }
        Ok(Some(self.run(found.clone(), arguments, writes)?))
    }

    async fn tables(
        &mut self,
        tables: &[Relation],
        about: &About,
        context: &Context,
    ) -> Result<()> {
        if tables.is_empty() {
            return Ok(());
        }
        let sizes = sizes(self.moment, tables).await?;
        let rows = EntryPath::new(layout::ROWS)?;
        self.rest.push_back(Planned::Directory(rows.clone(), Attributes::new()));
        let mut schema = None;
        for (table, (bytes, blocks)) in tables.iter().zip(sizes) {
            if schema != Some(&table.name.schema) {
                let path = rows.join(component(&table.name.schema))?;
                self.rest.push_back(Planned::Directory(path, Attributes::new()));
                schema = Some(&table.name.schema);
            }
            self.table(table, bytes, blocks, about)?;
            context.expect(bytes);
        }
        Ok(())
    }

    /// The parts of a table: stretches of its blocks, on a grid that does not move when the table
    /// grows, so that what did not change is the same parts again.
    fn table(&mut self, table: &Relation, bytes: u64, blocks: u64, about: &About) -> Result<()> {
        let directory = table.name.path()?;
        let mut known = Attributes::new()
            .with(attributes::SCHEMA, table.name.schema.as_str())
            .with(attributes::TABLE, table.name.name.as_str());
        if !table.columns.is_empty() {
            known.set(attributes::COLUMNS, table.columns.join("\0").into_bytes());
        }
        self.rest.push_back(Planned::Directory(directory.clone(), known));

        let block = bytes.checked_div(blocks).unwrap_or(8192).max(1);
        let step = (self.options.part_bytes() / block).max(1);
        let count = blocks.div_ceil(step).max(1);
        let number = self.counters.len();
        for part in 0..count {
            let last = part + 1 == count;
            let stretch =
                (count > 1).then_some((part * step, (!last).then_some((part + 1) * step)));
            self.rest.push_back(Planned::Rows {
                path: directory.join(format!("{part:08}"))?,
                table: number,
                name: table.name.to_string(),
                statement: statement(table, stretch, &about.encoding),
                bytes: bytes / count,
            });
        }
        self.counters.push(Counter {
            table: Some((table.name.schema.clone(), table.name.name.clone())),
            parts: count,
            counted: Mutex::default(),
        });
        Ok(())
    }

    async fn large_objects(&mut self) -> Result<()> {
        let (count, script) = large_objects::objects(&self.moment.leader).await?;
        self.facts.set(facts::LARGE_OBJECTS, count);
        if count == 0 {
            return Ok(());
        }
        let directory = EntryPath::new(layout::LARGE)?;
        self.rest.push_back(Planned::Directory(directory.clone(), Attributes::new()));
        self.rest.push_back(Planned::Text(directory.join(layout::OBJECTS)?, script));
        self.rest.push_back(Planned::Rows {
            path: directory.join(layout::PAGES)?,
            table: self.counters.len(),
            name: "the large objects".to_owned(),
            statement: large_objects::statement(),
            bytes: 0,
        });
        self.counters.push(Counter { table: None, parts: 1, counted: Mutex::default() });
        Ok(())
    }
}

/// The statement that reads a table, or a stretch of its blocks: from the first, to before the
/// second or the end. The bytes are those of the database's encoding, so that nothing is converted
/// and nothing refused.
fn statement(table: &Relation, stretch: Option<(u64, Option<u64>)>, encoding: &str) -> String {
    let name = table.name.quoted();
    let columns: Vec<_> = table.columns.iter().map(|column| identifier(column)).collect();
    let columns = columns.join(", ");
    let options = format!("TO STDOUT (FORMAT text, ENCODING {})", super::name::literal(encoding));
    let condition = match &table.extension {
        Extension::Settings(condition) if !condition.is_empty() => Some(condition.as_str()),
        _ => None,
    };
    match (stretch, condition) {
        (None, None) if columns.is_empty() => format!("COPY {name} {options}"),
        (None, None) => format!("COPY {name} ({columns}) {options}"),
        // The condition begins with WHERE, as the extension's script gave it.
        (None, Some(condition)) => {
            format!("COPY (SELECT {columns} FROM ONLY {name} {condition}) {options}")
        }
        (Some((from, to)), condition) => {
            let mut range = format!("ctid >= '({from},0)'::tid");
            if let Some(to) = to {
                range += &format!(" AND ctid < '({to},0)'::tid");
            }
            let inner = match condition {
                None => format!("ONLY {name}"),
                Some(condition) => {
                    format!("(SELECT ctid, * FROM ONLY {name} {condition}) AS chosen")
                }
            };
            format!("COPY (SELECT {columns} FROM {inner} WHERE {range}) {options}")
        }
    }
}

/// How many bytes and blocks the file of each table has.
async fn sizes(moment: &Moment, tables: &[Relation]) -> Result<Vec<(u64, u64)>> {
    const WHAT: &str = "ask for the sizes of the tables";
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let rows = moment
        .leader
        .all(
            WHAT,
            "SELECT coalesce(pg_relation_size(t.oid::regclass), 0), \
             coalesce(pg_relation_size(t.oid::regclass), 0) / current_setting('block_size')::int8 \
             FROM unnest($1::oid[]) WITH ORDINALITY AS t(oid, number) ORDER BY t.number",
            &[&oids],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let read = || -> Result<_, tokio_postgres::Error> {
                let (file, blocks): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
                Ok((file.max(0) as u64, blocks.max(0) as u64))
            };
            read().map_err(|error| crate::connect::failed(WHAT, error).into())
        })
        .collect()
}
