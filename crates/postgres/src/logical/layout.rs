//! How a snapshot of a database is laid out, and what is written down in it.
//!
//! Whoever reads a snapshot trusts none of it before it is bounded: the texts here are small, and
//! what holds more is refused.

use std::collections::BTreeMap;

use lifeboat_core::Attributes;
use serde::{Deserialize, Serialize};

use super::belongings::Belongings;
use super::error::{DatabaseError, Result};
use super::tally::Digest;

/// The kind of store.
pub(crate) const KIND: &str = "database";

/// The form of what is described here.
pub(crate) const FORMAT: u32 = 1;

/// What the database is: an [`About`] in JSON.
pub(crate) const ABOUT: &str = "1-about.json";
/// The roles, as `pg_dumpall` writes them.
pub(crate) const ROLES: &str = "2-roles.sql";
/// What must be there before the rows, as `pg_dump` writes it.
pub(crate) const BEFORE: &str = "3-pre-data.sql";
/// What depends on what in the schema: the table of contents of an archive of `pg_dump`, without
/// which there is no directory for `pg_restore`. Snapshots of older versions have none.
pub(crate) const CONTENTS: &str = "3-toc.dump";
/// `4-rows/<schema>/<table>/<part>`: rows in COPY's text form.
pub(crate) const ROWS: &str = "4-rows";
/// Where the sequences stand: one `setval` a line.
pub(crate) const SEQUENCES: &str = "5-sequences.sql";
/// The large objects: [`OBJECTS`] and [`PAGES`] in it.
pub(crate) const LARGE: &str = "6-large-objects";
/// What makes the large objects, without their content.
pub(crate) const OBJECTS: &str = "objects.sql";
/// Their content: oid, offset and bytes, in COPY's text form.
pub(crate) const PAGES: &str = "pages";
/// What comes after the rows, as `pg_dump` writes it.
pub(crate) const AFTER: &str = "7-post-data.sql";
/// How many rows there are, and their digests: a [`Totals`] in JSON.
pub(crate) const TOTALS: &str = "8-totals.json";

/// Attributes of the directory of a table, and of its parts.
pub(crate) mod attributes {
    /// The schema's name. Text.
    pub(crate) const SCHEMA: &str = "database.schema";
    /// The table's name. Text.
    pub(crate) const TABLE: &str = "database.table";
    /// The names of the columns that the rows have, in their order, with NUL between them. Bytes;
    /// not there when the table has no columns.
    pub(crate) const COLUMNS: &str = "database.columns";
}

/// Facts of a snapshot.
///
/// | fact | value |
/// |---|---|
/// | `database.name` | the database |
/// | `database.system_id` | the cluster that the database is in; left out where nobody may ask |
/// | `database.version`, `database.version_number` | the server's version: `15.18`, 150018 |
/// | `database.encoding` | the encoding of the database, `UTF8` |
/// | `database.content` | what was asked for: `everything`, `schema` or `data` |
/// | `database.tables`, `database.rows` | how many tables with rows were read, and their rows |
/// | `database.large_objects` | how many large objects |
/// | `database.dump_program` | the version of the `pg_dump` that wrote the schema |
pub(crate) mod facts {
    pub(crate) const NAME: &str = "database.name";
    pub(crate) const SYSTEM_ID: &str = "database.system_id";
    pub(crate) const VERSION: &str = "database.version";
    pub(crate) const VERSION_NUMBER: &str = "database.version_number";
    pub(crate) const ENCODING: &str = "database.encoding";
    pub(crate) const CONTENT: &str = "database.content";
    pub(crate) const TABLES: &str = "database.tables";
    pub(crate) const ROWS: &str = "database.rows";
    /// Of the receipt of a restore of one table.
    pub(crate) const TABLE: &str = "database.table";
    pub(crate) const LARGE_OBJECTS: &str = "database.large_objects";
    pub(crate) const DUMP_PROGRAM: &str = "database.dump_program";
    /// Of the receipt of a restore.
    pub(crate) const NEXT: &str = "database.next";
    /// Of the receipt of a swap: what the database that was there is called now.
    pub(crate) const KEPT: &str = "database.kept";
    /// How it is removed.
    pub(crate) const NOTE_KEPT: &str = "database.note.kept";
    /// How it gets its name back.
    pub(crate) const NOTE_BACK: &str = "database.note.back";
}

/// What of a database a snapshot has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Parts {
    /// The schema and the rows.
    #[default]
    Everything,
    /// The schema without rows.
    Schema,
    /// The rows without what they are kept in. It needs no `pg_dump`.
    Data,
}

impl Parts {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Everything => "everything",
            Self::Schema => "schema",
            Self::Data => "data",
        }
    }

    pub(crate) fn has_schema(self) -> bool {
        self != Self::Data
    }

    pub(crate) fn has_rows(self) -> bool {
        self != Self::Schema
    }
}

/// What is known of the database itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// [`FORMAT`].
    pub(crate) format: u32,
    pub(crate) name: String,
    /// The server's version, as it calls itself.
    pub(crate) version: String,
    /// 150018, 180004, …
    pub(crate) version_number: u32,
    pub(crate) encoding: String,
    pub(crate) collate: String,
    pub(crate) ctype: String,
    /// `libc`, `icu` or `builtin`.
    pub(crate) provider: String,
    /// Of a provider other than libc.
    pub(crate) locale: Option<String>,
    pub(crate) icu_rules: Option<String>,
    #[serde(flatten)]
    pub(crate) belongings: Belongings,
    pub(crate) content: Parts,
    /// Whether only some schemas or tables were asked for.
    pub(crate) selected: bool,
}

impl About {
    /// No description is larger.
    pub(crate) const MAX: usize = 1 << 20;

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let about: Self = parse(ABOUT, bytes)?;
        if about.format != FORMAT {
            return Err(DatabaseError::NewerForm { found: about.format });
        }
        Ok(about)
    }

    pub(crate) fn major(&self) -> u32 {
        self.version_number / 10_000
    }

    pub(crate) fn to_facts(&self) -> Attributes {
        Attributes::new()
            .with(facts::NAME, self.name.as_str())
            .with(facts::VERSION, self.version.as_str())
            .with(facts::VERSION_NUMBER, self.version_number)
            .with(facts::ENCODING, self.encoding.as_str())
            .with(facts::CONTENT, self.content.as_str())
    }
}

/// How many rows there are of something, and their digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Total {
    pub(crate) rows: u64,
    pub(crate) digest: Digest,
}

/// All that was counted: by schema and table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) tables: BTreeMap<String, BTreeMap<String, Total>>,
    /// The pages of large objects; `None` when there are none.
    pub(crate) large_objects: Option<Total>,
}

impl Totals {
    /// A million tables with long names.
    pub(crate) const MAX: usize = 256 << 20;

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        parse(TOTALS, bytes)
    }

    pub(crate) fn table(&self, schema: &str, table: &str) -> Option<&Total> {
        self.tables.get(schema)?.get(table)
    }
}

/// JSON for people and programs.
pub(crate) fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| DatabaseError::NotASnapshot { what: error.to_string() })?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn parse<'a, T: Deserialize<'a>>(name: &str, bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| DatabaseError::NotASnapshot { what: format!("{name}: {error}") })
}
