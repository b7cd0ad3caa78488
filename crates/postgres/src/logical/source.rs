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
        if self.options.parts.has_rows() && !self.options.is_selection() {
            findings.extend(unreadable_objects(&session).await?);
        }
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

/// Large objects that the role may not read. What it was granted is in their lists: there is no
/// function to ask before version 18.
async fn unreadable_objects(session: &Session) -> Result<Option<Finding>> {
    const WHAT: &str = "ask which large objects may be read";
    let query = "SELECT count(*) FROM pg_largeobject_metadata m, pg_roles r \
                 WHERE r.rolname = current_user AND NOT r.rolsuper \
                   AND NOT pg_has_role(m.lomowner, 'USAGE') \
                   AND NOT current_setting('lo_compat_privileges')::bool \
                   AND NOT EXISTS (SELECT FROM aclexplode(m.lomacl) a \
                       WHERE a.privilege_type = 'SELECT' \
                         AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE')))";
    let row = session.one(WHAT, query, &[]).await?;
    let count: i64 = row.try_get(0).map_err(|error| failed(WHAT, error))?;
    let noun = if count == 1 { "large object" } else { "large objects" };
    Ok((count > 0).then(|| {
        Finding::new(
            Severity::Blocker,
            "large_objects_unreadable",
            format!("the role may not read {count} {noun}"),
            "make the role a member of their owners, or GRANT SELECT ON LARGE OBJECT … to it; \
             pg_read_all_data does not hold for large objects",
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
        since: Option<Arc<dyn Baseline>>,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Reading>> {
        let since = since.as_deref();
        Ok(Box::new(DatabaseReading::begin(&self.options, since, context).await?))
    }
}
