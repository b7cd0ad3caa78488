//! A database as a source.

use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::{Baseline, Context, Finding, Inspection, Reading, Severity, Source, StoreRef};

use super::catalog::{self, RelationKind};
use super::error::Result;
use super::layout::KIND;
use super::moment;
use super::options::DatabaseOptions;
use super::program::Program;
use super::reading::DatabaseReading;
use crate::connect::{Session, failed};

/// So many tables are named in one finding.
const NAMED: usize = 5;

/// A database of a running server, as a source: its schema and its rows, as of one moment.
///
/// Facts of a snapshot: `database.name`, `.version`, `.version_number`, `.encoding`, `.content`
/// (`everything`, `schema` or `data`), `.tables` (how many have rows of their own), `.rows`,
/// `.large_objects`, `.dump_program`.
#[derive(Debug)]
pub struct DatabaseSource {
    store: StoreRef,
    options: DatabaseOptions,
}

impl DatabaseSource {
    /// The kind of store.
    pub const KIND: &str = KIND;

    /// The database that the options name, as the store `name`. Nothing is connected to yet.
    pub fn new(name: &str, options: DatabaseOptions) -> Self {
        Self { store: StoreRef::new(KIND, name), options }
    }

    async fn look(&self) -> Result<Inspection> {
        let session = moment::session(&self.options).await?;
        let about = catalog::about(&session, &self.options).await?;
        let relations = catalog::chosen(catalog::relations(&session).await?, &self.options)?;
        let mut findings = Vec::new();
        if self.options.parts.has_schema()
            && let Err(error) =
                Program::Dump.find(self.options.programs.as_deref(), about.major()).await
        {
            findings.push(Finding::new(
                Severity::Blocker,
                "dump_program_missing",
                error.to_string(),
                lifeboat_core::Failure::hint(&error).unwrap_or_default(),
            ));
        }
        let tables: Vec<u32> = relations
            .iter()
            .filter(|relation| relation.is_locked() || relation.kind == RelationKind::Sequence)
            .map(|relation| relation.oid)
            .collect();
        findings.extend(unreadable(&session, &tables).await?);
        findings.extend(hidden(&session, &tables).await?);
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        const WHAT: &str = "ask for the size of the database";
        let row = session.one(WHAT, "SELECT pg_database_size(current_database())", &[]).await?;
        let size: i64 = row.try_get(0).map_err(|error| failed(WHAT, error))?;
        Ok(Inspection {
            version: about.version.clone(),
            identity: about.name.clone(),
            size: u64::try_from(size).ok(),
            facts: about.to_facts(),
            findings,
        })
    }
}

/// Tables that the role may not read.
async fn unreadable(session: &Session, tables: &[u32]) -> Result<Option<Finding>> {
    const WHAT: &str = "ask which tables may be read";
    let query = "SELECT t.oid::regclass::text FROM unnest($1::oid[]) AS t(oid) \
                 WHERE NOT has_table_privilege(t.oid, 'SELECT') ORDER BY 1";
    let names = names(WHAT, session, query, tables).await?;
    Ok(named(&names).map(|what| {
        Finding::new(
            Severity::Blocker,
            "tables_unreadable",
            format!("the role may not read {what}"),
            "GRANT pg_read_all_data to the role",
        )
    }))
}

/// Tables of which policies would hide rows from the role.
async fn hidden(session: &Session, tables: &[u32]) -> Result<Option<Finding>> {
    const WHAT: &str = "ask for row security";
    let query = "SELECT c.oid::regclass::text FROM pg_class c, pg_roles r \
                 WHERE c.oid = ANY ($1::oid[]) AND r.rolname = current_user \
                   AND c.relrowsecurity AND NOT r.rolsuper AND NOT r.rolbypassrls \
                   AND (c.relforcerowsecurity OR NOT pg_has_role(c.relowner, 'USAGE')) ORDER BY 1";
    let names = names(WHAT, session, query, tables).await?;
    Ok(named(&names).map(|what| {
        Finding::new(
            Severity::Blocker,
            "rows_hidden",
            format!("policies of row security hide rows from the role: {what}"),
            "ALTER ROLE … BYPASSRLS, as a superuser",
        )
    }))
}

async fn names(
    what: &'static str,
    session: &Session,
    query: &str,
    tables: &[u32],
) -> Result<Vec<String>> {
    let rows = session.all(what, query, &[&tables]).await?;
    let name = |row: &tokio_postgres::Row| row.try_get(0);
    Ok(rows.iter().map(name).collect::<Result<_, _>>().map_err(|error| failed(what, error))?)
}

fn named(names: &[String]) -> Option<String> {
    let first: Vec<_> = names.iter().take(NAMED).map(String::as_str).collect();
    match names.len() {
        0 => None,
        count if count > NAMED => Some(format!("{} and {} more", first.join(", "), count - NAMED)),
        _ => Some(first.join(", ")),
    }
}

#[async_trait]
impl Source for DatabaseSource {
    fn store(&self) -> &StoreRef {
        &self.store
    }

    async fn inspect(&self) -> lifeboat_core::Result<Inspection> {
        Ok(self.look().await?)
    }

    async fn read(
        &self,
        _: Option<Arc<dyn Baseline>>,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Reading>> {
        Ok(Box::new(DatabaseReading::begin(&self.options, context).await?))
    }
}
