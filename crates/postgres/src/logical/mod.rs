//! Databases, table by table: what the server gives to any role that may read, and what any server
//! of the same major version or a newer one takes.
//!
//! # What a snapshot looks like
//!
//! ```text
//! 1-about.json                    the database: encoding, locale, owner, settings
//! 2-roles.sql                     the server's roles, when they were asked for
//! 3-pre-data.sql                  what must be there before the rows, by pg_dump
//! 3-toc.dump                      what depends on what in the schema, by pg_dump
//! 4-rows/<schema>/<table>/<part>  rows, in COPY's text form
//! 5-sequences.sql                 where the sequences stand
//! 6-large-objects/objects.sql     what makes them
//! 6-large-objects/pages           oid, offset and content, in COPY's text form
//! 7-post-data.sql                 indexes, constraints, triggers, by pg_dump
//! 8-totals.json                   rows and digest of each table
//! ```
//!
//! The order of the names is the order in which a restore needs them. Names of schemas and tables
//! are escaped, so that any name can be a part of a path; the true ones are attributes.
//!
//! # One moment
//!
//! All of it is read under one exported snapshot, by several sessions, with the tables locked
//! against everything that changes their form before the snapshot is taken. The server is asked for
//! every byte each time: it has no word for what did not change. But what did not change is the
//! same bytes in the same places, since tables are read in the order of their blocks, and large
//! ones in parts on a fixed grid of blocks; so the repository stores nothing for it.
//!
//! # What is checked
//!
//! Rows are counted and a digest is made of them that does not depend on their order: at the
//! backup, and again while they are restored. The server's own count of the rows that it took is a
//! third. See `tally` for what the digest is.
//!
//! # Limits
//!
//! - Rows of foreign tables are not read, only the definition; materialized views are filled anew
//!   by the restore.
//! - A single row is in memory as a whole, and a server allows it up to 1 GiB.
//! - The server's statistics are not kept: `ANALYZE` makes them anew.
//! - The tablespace of the database itself is not kept.

mod apart;
mod belongings;
mod catalog;
mod compared;
mod contents;
mod csv;
mod directory;
mod error;
mod export;
mod foreign_key;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod large_objects;
mod layout;
mod moment;
mod name;
mod options;
mod program;
mod reading;
mod restore;
mod roles;
mod rows;
mod script;
mod sink;
mod source;
mod swap;
mod table;
mod taken;
mod tally;
mod target;
mod toc;
mod turns;
mod writing;

pub use self::directory::DirectorySink;
pub use self::error::DatabaseError;
pub use self::export::{ExportForm, ExportOptions, ExportSink};
pub use self::layout::Parts;
pub use self::name::TableName;
pub use self::options::{DatabaseOptions, Roles};
pub use self::restore::{DatabaseRestoreOptions, Keep, Occupied, OlderServer, Others};
pub use self::sink::DatabaseSink;
pub use self::source::DatabaseSource;
pub use self::table::{TableOptions, TablePlace, TableSink};
