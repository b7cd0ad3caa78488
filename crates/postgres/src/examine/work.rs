//! One thing that is examined.

use parking_lot::Mutex;
use tokio_postgres::SimpleQueryMessage;

use super::keys::{self, ForeignKey};
use super::queries::shown;
use super::{Counted, Examination, ExpectedResult, Problem};
use crate::connect::Session;
use crate::error::{Error, Result};

/// Where the extension is put when the database has none. The cluster is thrown away afterwards.
const SCHEMA: &str = "lifeboat_scratch";
/// As much of what is wrong with one table is told.
const TOLD: usize = 20;

/// Tables, with whether they are the server's own. Rows of unlogged and temporary tables do not
/// come back.
const TABLES: &str = "
SELECT c.oid::regclass::text, c.oid, n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast'),
       c.relkind = 't'
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am a ON a.oid = c.relam
WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p' AND a.amname = 'heap'
  AND n.nspname <> 'lifeboat_scratch'
ORDER BY c.relpages DESC";

const INDEXES: &str = "
SELECT c.oid::regclass::text, c.oid
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
JOIN pg_class t ON t.oid = i.indrelid
WHERE a.amname = 'btree' AND i.indisvalid AND i.indisready AND c.relkind = 'i'
  AND c.relpersistence = 'p' AND t.relpersistence = 'p'
ORDER BY c.relpages DESC";

/// One thing that is examined.
#[derive(Debug, Clone)]
pub(super) enum Work {
    /// The pages of a table, by `verify_heapam` in this schema.
    Heap {
        table: String,
        oid: u32,
        schema: String,
    },
    /// The rows of a table.
    Rows {
        table: String,
    },
    /// An index, by `bt_index_check` in this schema.
    Index {
        index: String,
        oid: u32,
        schema: String,
    },
    ForeignKey(ForeignKey),
    Query(ExpectedResult),
}

/// All that is to be examined in a database, the large first.
pub(super) async fn plan(
    session: &Session,
    database: &str,
    report: &Mutex<Examination>,
) -> Result<Vec<Work>> {
    let schema = amcheck(session, database, report).await?;
    let mut work = Vec::new();
    for row in session.all("list the tables", TABLES, &[]).await? {
        let (table, oid): (String, u32) = (row.get(0), row.get(1));
        let (own, toast): (bool, bool) = (row.get(2), row.get(3));
        if let Some(schema) = &schema {
            work.push(Work::Heap { table: table.clone(), oid, schema: schema.clone() });
        }
        if !own && !toast {
            work.push(Work::Rows { table });
        }
    }
    if let Some(schema) = &schema {
        for row in session.all("list the indexes", INDEXES, &[]).await? {
            let (index, oid) = (row.get(0), row.get(1));
            work.push(Work::Index { index, oid, schema: schema.clone() });
        }
    }
    work.extend(keys::of(session).await?.into_iter().map(Work::ForeignKey));
    Ok(work)
}

/// The schema of the extension amcheck; `None` where it is not to be had.
async fn amcheck(
    session: &Session,
    database: &str,
    report: &Mutex<Examination>,
) -> Result<Option<String>> {
    const FIND: &str = "SELECT quote_ident(n.nspname) FROM pg_extension e \
                        JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'";
    let installed = session.all("look for amcheck", FIND, &[]).await?;
    let make = match installed.first() {
        Some(_) => "ALTER EXTENSION amcheck UPDATE".to_owned(),
        None => format!("CREATE SCHEMA {SCHEMA}; CREATE EXTENSION amcheck SCHEMA {SCHEMA}"),
    };
    if let Err(error) = session.client().batch_execute(&make).await {
        let why = error.as_db_error().map_or(error.to_string(), |said| said.message().to_owned());
        report.lock().unchecked.push(format!(
            "pages and indexes of the database {database}: the extension amcheck cannot be used: {why}"
        ));
        return Ok(None);
    }
    let installed = session.all("look for amcheck", FIND, &[]).await?;
    Ok(installed.first().map(|row| row.get(0)))
}

impl Work {
    /// What it is about.
    pub(super) fn object(&self) -> String {
        match self {
            Self::Heap { table, .. } | Self::Rows { table } => format!("table {table}"),
            Self::Index { index, .. } => format!("index {index}"),
            Self::ForeignKey(key) => format!("foreign key {}", key.name),
            Self::Query(query) => query.sql.clone(),
        }
    }

    /// Examines it. An error is what the server says of it.
    pub(super) async fn run(
        &self,
        session: &Session,
        database: &str,
        report: &Mutex<Examination>,
    ) -> Result<()> {
        let problem = |what: String| {
            let (database, object) = (database.to_owned(), self.object());
            report.lock().problem(Problem { database, object, what });
        };
        match self {
            Self::Heap { oid, schema, .. } => {
                let statement = format!(
                    "SELECT blkno, offnum::int, msg FROM {schema}.verify_heapam($1::oid::regclass, \
                     check_toast := true) LIMIT {TOLD}"
                );
                for row in session.all("check the pages", &statement, &[oid]).await? {
                    let (page, row_at): (Option<i64>, Option<i32>) = (row.get(0), row.get(1));
                    let said: String = row.get(2);
                    let (page, row_at) = (page.unwrap_or(-1), row_at.unwrap_or(-1));
                    problem(format!("page {page}, row {row_at}: {said}"));
                }
            }
            Self::Rows { table } => {
                let statement = format!("SELECT count(*) FROM ONLY {table}");
                let row = session.one("read all rows", &statement, &[]).await?;
                let rows = row.get::<_, i64>(0).unsigned_abs();
                let mut report = report.lock();
                report.tables += 1;
                report.rows += rows;
                let (database, table) = (database.to_owned(), table.clone());
                report.counts.push(Counted { database, table, rows });
            }
            Self::Index { oid, schema, .. } => {
                let statement = format!("SELECT {schema}.bt_index_check($1::oid::regclass, true)");
                session.all("check the index", &statement, &[oid]).await?;
                report.lock().indexes += 1;
            }
            Self::ForeignKey(key) => {
                let row = session.one("check the foreign key", &key.query, &[]).await?;
                report.lock().foreign_keys += 1;
                let wrong: i64 = row.get(0);
                if wrong > 0 {
                    problem(format!("{wrong} rows refer to nothing"));
                }
            }
            Self::Query(query) => {
                report.lock().queries += 1;
                let rows = answers(session, &query.sql).await?;
                if rows != query.rows {
                    let (found, expected) = (shown(&rows), shown(&query.rows));
                    problem(format!("it answers {found}, and should answer {expected}"));
                }
            }
        }
        Ok(())
    }
}

/// The rows of the last statement that gives any. The path on which its names are found is the
/// usual one.
async fn answers(session: &Session, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
    let what = "ask the query";
    let failed = |source| Error::Query { what, source: Box::new(source) };
    let client = session.client();
    client.batch_execute("RESET search_path").await.map_err(failed)?;
    let answered = client.simple_query(sql).await;
    // An error may have left a transaction open; the next piece of work needs none.
    let _ = client.batch_execute("ROLLBACK").await;
    client.batch_execute("SET search_path = pg_catalog").await.map_err(failed)?;
    let mut rows = Vec::new();
    for message in answered.map_err(failed)? {
        match message {
            SimpleQueryMessage::RowDescription(_) => rows.clear(),
            SimpleQueryMessage::Row(row) => {
                let value = |at| row.get(at).map(str::to_owned);
                rows.push((0..row.len()).map(value).collect());
            }
            _ => {}
        }
    }
    Ok(rows)
}

/// What the server said, without the words around it.
pub(super) fn said(error: &Error) -> String {
    if let Error::Query { source, .. } = error
        && let Some(said) = source.as_db_error()
    {
        let detail = said.detail().map_or(String::new(), |detail| format!(": {detail}"));
        return format!("{}{detail}", said.message());
    }
    error.to_string()
}
