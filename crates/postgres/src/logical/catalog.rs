//! What the database has: relations, sequences, large objects, and what is known of itself.

use std::collections::HashSet;

use super::belongings::Belongings;
use super::error::{DatabaseError, Result};
use super::layout::{About, FORMAT, Parts};
use super::name::{Glob, TableName, literal};
use super::options::DatabaseOptions;
use crate::connect::{Session, failed};

/// What kind of relation it is, as far as that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelationKind {
    /// It has rows of its own.
    Table,
    /// Its rows are in its partitions.
    Partitioned,
    Sequence,
    /// A view, a materialized view, a foreign table: only its definition is kept.
    Defined,
}

/// A relation of the database.
#[derive(Debug, Clone)]
pub(crate) struct Relation {
    pub(crate) oid: u32,
    pub(crate) name: TableName,
    pub(crate) kind: RelationKind,
    /// Its columns that have values of their own, in order.
    pub(crate) columns: Vec<String>,
    /// How an extension wants its rows to be kept.
    pub(crate) extension: Extension,
    /// The partitioned table whose part it is.
    parent: Option<u32>,
    /// The table whose column a sequence belongs to.
    owner: Option<u32>,
}

/// Whose the rows of a relation are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Extension {
    /// The user's.
    None,
    /// An extension's, which brings them.
    Owned,
    /// An extension's settings; the user's are those that fit the condition, when there is one.
    Settings(String),
}

impl Relation {
    /// Whether its rows belong into a snapshot.
    pub(crate) fn has_rows(&self) -> bool {
        self.kind == RelationKind::Table && self.extension != Extension::Owned
    }

    /// Whether it is locked while it is read.
    pub(crate) fn is_locked(&self) -> bool {
        matches!(self.kind, RelationKind::Table | RelationKind::Partitioned)
    }
}

const RELATIONS: &str = "
    SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text,
        ARRAY(SELECT a.attname::text FROM pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                AND a.attgenerated = '' ORDER BY a.attnum),
        EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                AND d.objsubid = 0 AND d.deptype = 'e'),
        (SELECT coalesce(e.extcondition[array_position(e.extconfig, c.oid)], '')
         FROM pg_extension e WHERE c.oid = ANY (e.extconfig) LIMIT 1),
        CASE WHEN c.relispartition
             THEN (SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = c.oid LIMIT 1) END,
        (SELECT d.refobjid FROM pg_depend d
         WHERE c.relkind = 'S' AND d.classid = 'pg_class'::regclass AND d.objid = c.oid
           AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') LIMIT 1)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
      -- A standby does not have the rows of unlogged tables.
      AND NOT (c.relpersistence = 'u' AND pg_is_in_recovery())
      AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// The cluster that the database is in; `None` when the role may not ask.
pub(crate) async fn system_id(session: &Session) -> Result<Option<u64>> {
    const WHAT: &str = "ask for the system identifier";
    // A refused question would end the transaction.
    let query = "SELECT coalesce(has_function_privilege(to_regprocedure(\
                 'pg_catalog.pg_control_system()'), 'EXECUTE'), false)";
    let row = session.one(WHAT, query, &[]).await?;
    if !row.try_get::<_, bool>(0).map_err(|error| failed(WHAT, error))? {
        return Ok(None);
    }
    let query = "SELECT system_identifier FROM pg_catalog.pg_control_system()";
    let row = session.one(WHAT, query, &[]).await?;
    let id: i64 = row.try_get(0).map_err(|error| failed(WHAT, error))?;
    Ok(Some(id.cast_unsigned()))
}

/// All relations of the database, by name.
pub(crate) async fn relations(session: &Session) -> Result<Vec<Relation>> {
    const WHAT: &str = "list the tables";
    let mut found = Vec::new();
    for row in session.all(WHAT, RELATIONS, &[]).await? {
        let read = || -> Result<Relation, tokio_postgres::Error> {
            let kind: String = row.try_get(3)?;
            let (member, condition): (bool, Option<String>) = (row.try_get(5)?, row.try_get(6)?);
            Ok(Relation {
                oid: row.try_get(0)?,
                name: TableName::new(row.try_get::<_, String>(1)?, row.try_get::<_, String>(2)?),
                kind: match kind.as_str() {
                    "r" => RelationKind::Table,
                    "p" => RelationKind::Partitioned,
                    "S" => RelationKind::Sequence,
                    _ => RelationKind::Defined,
                },
                columns: row.try_get(4)?,
                extension: match (member, condition) {
                    (_, Some(condition)) => Extension::Settings(condition),
                    (true, None) => Extension::Owned,
                    (false, None) => Extension::None,
                },
                parent: row.try_get(7)?,
                owner: row.try_get(8)?,
            })
        };
        found.push(read().map_err(|error| failed(WHAT, error))?);
    }
    found.sort_by(|one, two| one.name.cmp(&two.name));
    Ok(found)
}

/// The relations that the options mean.
pub(crate) fn chosen(
    mut relations: Vec<Relation>,
    options: &DatabaseOptions,
) -> Result<Vec<Relation>> {
    if !options.is_selection() {
        return Ok(relations);
    }
    let database = options.connection.database();
    let mut meant = HashSet::new();
    for schema in &options.schemas {
        let glob = Glob::new(schema);
        // An empty schema is a schema, too; pg_dump says so when there is none.
        let fits = relations.iter().filter(|relation| glob.matches(&relation.name.schema));
        meant.extend(fits.map(|relation| relation.oid));
    }
    for text in &options.tables {
        let fits = matching(&relations, text)?;
        if fits.is_empty() {
            return Err(DatabaseError::NoSuch { database, what: "table", name: text.clone() });
        }
        meant.extend(fits);
    }
    // Partitions of what is meant, and theirs; and the sequences of columns.
    loop {
        let before = meant.len();
        let more: Vec<_> = relations
            .iter()
            .filter(|relation| {
                let through = relation.parent.or(relation.owner);
                through.is_some_and(|through| meant.contains(&through))
            })
            .map(|relation| relation.oid)
            .collect();
        meant.extend(more);
        if meant.len() == before {
            break;
        }
    }
    relations.retain(|relation| meant.contains(&relation.oid));
    Ok(relations)
}

/// The oids of the relations that a name with `*` and `?` means.
pub(crate) fn matching(relations: &[Relation], text: &str) -> Result<Vec<u32>> {
    let name = TableName::parse(text)
        .map_err(|why| DatabaseError::BadName { text: text.to_owned(), why })?;
    let (schema, table) = (Glob::new(&name.schema), Glob::new(&name.name));
    let fits = relations.iter().filter(|relation| {
        schema.matches(&relation.name.schema) && table.matches(&relation.name.name)
    });
    Ok(fits.map(|relation| relation.oid).collect())
}

/// The names of all schemas that a name with `*` and `?` means.
pub(crate) async fn schemas(session: &Session, options: &DatabaseOptions) -> Result<Vec<String>> {
    const WHAT: &str = "list the schemas";
    if options.schemas.is_empty() {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for row in session.all(WHAT, "SELECT nspname::text FROM pg_namespace", &[]).await? {
        all.push(row.try_get::<_, String>(0).map_err(|error| failed(WHAT, error))?);
    }
    let mut found = Vec::new();
    for text in &options.schemas {
        let glob = Glob::new(text);
        let fits: Vec<_> = all
            .iter()
            .filter(|name| glob.matches(name))
            .filter(|name| !name.starts_with("pg_") && *name != "information_schema")
            .cloned()
            .collect();
        if fits.is_empty() {
            let database = options.connection.database();
            return Err(DatabaseError::NoSuch { database, what: "schema", name: text.clone() });
        }
        found.extend(fits);
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Where the sequences stand, as statements that put others there.
pub(crate) async fn sequences(session: &Session, relations: &[Relation]) -> Result<Vec<u8>> {
    const WHAT: &str = "read where the sequences stand";
    let mut script = String::new();
    let sequences: Vec<_> = relations
        .iter()
        .filter(|relation| {
            relation.kind == RelationKind::Sequence && relation.extension != Extension::Owned
        })
        .collect();
    for some in sequences.chunks(100) {
        let each: Vec<_> = some
            .iter()
            .map(|sequence| format!("SELECT last_value, is_called FROM {}", sequence.name.quoted()))
            .collect();
        let rows = session.all(WHAT, &each.join(" UNION ALL "), &[]).await?;
        for (sequence, row) in some.iter().zip(rows) {
            let value: i64 = row.try_get(0).map_err(|error| failed(WHAT, error))?;
            let called: bool = row.try_get(1).map_err(|error| failed(WHAT, error))?;
            let name = literal(&sequence.name.quoted());
            script += &format!("SELECT pg_catalog.setval({name}, {value}, {called});\n");
        }
    }
    Ok(script.into_bytes())
}

const ABOUT: &str = "
    SELECT d.datname::text, pg_encoding_to_char(d.encoding)::text, d.datcollate::text,
        d.datctype::text, to_jsonb(d) ->> 'datlocprovider',
        coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
        to_jsonb(d) ->> 'daticurules'
    FROM pg_database d WHERE d.datname = current_database()";

/// What is known of the database itself. Columns that only some versions have are asked for by way
/// of JSON, which has what there is.
pub(crate) async fn about(session: &Session, options: &DatabaseOptions) -> Result<About> {
    const WHAT: &str = "ask for the database";
    let row = session.one(WHAT, ABOUT, &[]).await?;
    let name: String = row.try_get(0).map_err(|error| failed(WHAT, error))?;
    let belongings = Belongings::of(session, &name).await?;
    let read = || -> Result<About, tokio_postgres::Error> {
        let provider: Option<String> = row.try_get(4)?;
        Ok(About {
            format: FORMAT,
            name,
            version: session.version_text().to_owned(),
            version_number: session.version_number(),
            encoding: row.try_get(1)?,
            collate: row.try_get(2)?,
            ctype: row.try_get(3)?,
            provider: match provider.as_deref() {
                Some("i") => "icu",
                Some("b") => "builtin",
                _ => "libc",
            }
            .to_owned(),
            locale: row.try_get(5)?,
            icu_rules: row.try_get(6)?,
            belongings,
            content: options.parts,
            selected: options.is_selection(),
        })
    };
    Ok(read().map_err(|error| failed(WHAT, error))?)
}

/// The rows of these relations, in the order of their paths.
pub(crate) fn with_rows(
    relations: &[Relation],
    options: &DatabaseOptions,
) -> Result<Vec<Relation>> {
    if options.parts == Parts::Schema {
        return Ok(Vec::new());
    }
    let mut without = HashSet::new();
    for text in &options.without_rows {
        let fits = matching(relations, text)?;
        if fits.is_empty() {
            let database = options.connection.database();
            return Err(DatabaseError::NoSuch { database, what: "table", name: text.clone() });
        }
        without.extend(fits);
    }
    let wanted =
        relations.iter().filter(|relation| relation.has_rows() && !without.contains(&relation.oid));
    let mut named = Vec::new();
    for relation in wanted {
        named.push((relation.name.path()?, relation.clone()));
    }
    named.sort_by(|one, two| one.0.cmp(&two.0));
    Ok(named.into_iter().map(|(_, relation)| relation).collect())
}
