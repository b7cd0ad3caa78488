//! Databases, table by table: how they are read, and where they are restored to.

use lifeboat_core::{EntryPath, Error, ErrorKind, Sink, SnapshotInfo};
use lifeboat_postgres::{
    ConnectOptions, DatabaseOptions, DatabaseRestoreOptions, DatabaseSink, DatabaseSource, Keep,
    Occupied, OlderServer, Others, Parts, Roles, TableName, TableOptions, TablePlace, TableSink,
};
use lifeboat_repository::Snapshot;

use super::backup::refuse_password;
use super::which::Reach;
use crate::args::{BackupDatabase, Database, KeptRoles, Owners, Restore};
use crate::failure::Failed;

/// The database as a source.
pub(super) fn source(arguments: &BackupDatabase) -> Result<DatabaseSource, Failed> {
    let options = options(&arguments.database)?;
    Ok(DatabaseSource::new(&arguments.taking.name, options))
}

/// What of the database is read, from the command line and from the variables of libpq.
pub(super) fn options(database: &Database) -> Result<DatabaseOptions, Failed> {
    let mut options = DatabaseOptions::new(connection(&database.conninfo)?);
    options.parts = match (database.schema_only, database.data_only) {
        (true, _) => Parts::Schema,
        (_, true) => Parts::Data,
        _ => Parts::Everything,
    };
    options.schemas.clone_from(&database.schemas);
    options.tables.clone_from(&database.tables);
    options.without_rows.clone_from(&database.without_rows);
    options.roles = match database.roles {
        None => Roles::LeaveOut,
        Some(KeptRoles::WithPasswords) => Roles::WithPasswords,
        Some(KeptRoles::WithoutPasswords) => Roles::WithoutPasswords,
    };
    if let Some(jobs) = database.jobs {
        options.jobs = jobs.into();
    }
    options.part_size = database.part_size.as_u64();
    options.lock_timeout = database.lock_timeout;
    options.programs.clone_from(&database.programs);
    Ok(options)
}

fn connection(conninfo: &str) -> Result<ConnectOptions, Failed> {
    refuse_password(conninfo)?;
    ConnectOptions::parse(conninfo)
        .and_then(ConnectOptions::with_environment)
        .map_err(Failed::argument)
}

/// Where a snapshot of a database is restored to.
pub(super) fn sink(
    info: &SnapshotInfo,
    reach: Option<&Reach>,
    arguments: &Restore,
) -> Result<Box<dyn Sink>, Failed> {
    let wrong = |what: &str, hint: &str| {
        let message = format!("{what}, and this is a snapshot of {}", info.store);
        Err(Failed::usage(message, hint))
    };
    if let Some(reach) = reach {
        let message = format!("restore snapshot {} of a database: {reach}", info.id.short());
        let hint = "name a whole one, see `lifeboat snapshots`; what this one has comes back with \
                    `lifeboat cat`";
        return Err(Failed::usage(message, hint));
    }
    if arguments.recovery.word().is_some() {
        let word = arguments.recovery.word().unwrap_or_default();
        return wrong(&format!("{word} is for a cluster"), "leave it out");
    }
    if !arguments.paths.is_empty() && arguments.database.table.is_none() {
        return wrong("--path is for files", "name a table with --table");
    }
    if !arguments.tablespaces.is_empty() {
        return wrong("--tablespace is for a cluster", "leave it out");
    }
    if arguments.owners != Owners::Numbers {
        return wrong("--owners is for files", "leave it out, or say --no-owner");
    }
    let words = &arguments.database;
    let Some(name) = arguments.to().to_str().filter(|name| !name.contains('/')) else {
        return wrong("--to names a database here, and no directory", "write --to NAME");
    };
    if let Some(table) = &words.table {
        return Ok(Box::new(table_sink(name, table, arguments)?));
    }
    let mut options = DatabaseRestoreOptions::new(connection(&words.conninfo)?, name)
        .with_facts(info.facts.clone());
    options.occupied = match (arguments.replace, words.fill, words.swap) {
        (true, _, _) => Occupied::Replace,
        (_, true, _) => Occupied::Fill,
        (_, _, true) => Occupied::Swap,
        _ => Occupied::Refuse,
    };
    if words.disconnect {
        if !arguments.replace && !words.swap {
            let hint = "say --swap or --replace as well, or leave it out";
            return Err(Failed::usage(
                "--disconnect ends sessions of a database that is replaced",
                hint,
            ));
        }
        options.others = Others::Disconnect;
    }
    let keep = |left_out: bool| if left_out { Keep::LeaveOut } else { Keep::Restore };
    options.owners = keep(words.no_owner);
    options.privileges = keep(words.no_privileges);
    options.roles = keep(!words.with_roles);
    if words.older_server {
        options.older_server = OlderServer::Try;
    }
    if let Some(jobs) = words.jobs {
        options.jobs = jobs.into();
    }
    Ok(Box::new(DatabaseSink::new(options)))
}

/// The database `name` of a server, into which one table is restored.
pub(super) fn table_sink(
    name: &str,
    table: &TableName,
    arguments: &Restore,
) -> Result<TableSink, Failed> {
    let words = &arguments.database;
    let place = match (&words.beside, arguments.replace) {
        (Some(other), _) => TablePlace::Beside(other.clone()),
        (None, true) => TablePlace::Replace,
        (None, false) => {
            let hint = "say --replace to put its rows in place of those that it has, or \
                        --beside SCHEMA.TABLE to make another table for them";
            return Err(Failed::usage("--table does not say where the rows go", hint));
        }
    };
    let connection = connection(&words.conninfo)?;
    let options = TableOptions::new(connection, name, table.clone(), place);
    Ok(TableSink::new(options))
}

/// The entries of a snapshot for a single table, with others as far as there are any.
pub(super) async fn entries_of(
    table: &TableName,
    needs: &[&str],
    snapshot: &Snapshot,
) -> Result<Vec<EntryPath>, Failed> {
    let info = snapshot.info();
    if info.store.kind() != DatabaseSource::KIND {
        let message = format!("--table is for databases, and this is a snapshot of {}", info.store);
        return Err(Failed::usage(message, "leave it out"));
    }
    let rows = table.path()?;
    if snapshot.entry(&rows).await?.is_none() {
        let message = format!("snapshot {} has no rows of {table}", info.id.short());
        let hint = "list its tables with `lifeboat ls`, beneath 4-rows; the rows of a partitioned \
                    table are in its partitions";
        return Err(Error::new(ErrorKind::NotFound, message).with_hint(hint).into());
    }
    let mut entries = vec![rows];
    for name in needs {
        let path = EntryPath::new(name)?;
        if snapshot.entry(&path).await?.is_some() {
            entries.push(path);
        }
    }
    Ok(entries)
}
