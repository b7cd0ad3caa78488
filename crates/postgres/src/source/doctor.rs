//! What stands in the way of a backup, and how to mend it.
//!
//! | code | severity | what it means |
//! |---|---|---|
//! | `version_unsupported` | blocker | not PostgreSQL 14 to 18 |
//! | `in_recovery` | blocker | a standby |
//! | `wal_level_minimal` | blocker | too little WAL for a backup |
//! | `backup_functions_denied` | blocker | the role may not begin or end a backup |
//! | `data_directory_hidden` | blocker | the role may not ask where the data directory is |
//! | `data_directory_unreadable` | blocker | it is not here, or this account may not read it |
//! | `data_directory_of_another_server` | blocker | connection and directory do not belong together |
//! | `control_file_unreadable` | blocker | `pg_control` cannot be understood |
//! | `linked_data` | blocker | a link stands where data should be |
//! | `files_unreadable` | blocker | something in the data directory cannot be listed |
//! | `checksums_off` | warning | damage on the disk goes unnoticed |
//! | `fsync_off`, `full_page_writes_off` | warning | a power cut damages the cluster |
//! | `archiving_fails` | warning | WAL piles up |
//! | `archive_discarded`, `archive_command_missing` | warning | WAL is thrown away, or piles up |
//! | `clock_differs` | warning | the server's clock and this host's are far apart |
//! | `slot_lost`, `slot_unused` | warning | a slot without its WAL, or with much of it for nobody |
//! | `slots_unlimited` | note | slots can fill the server's disk |
//! | `wal_senders_taken` | note | nobody can follow the server |
//! | `wal_not_reserved` | note | no replication slot can be taken for the time of the backup |
//! | `archiver_elsewhere` | note | another tool archives the WAL |
//! | `no_room_beside` | note | a restore on the same file system would not fit beside the cluster |
//! | `summaries_off` | note | changed files are read whole |
//! | `archive_off` | note | no recovery to moments between two backups |
//! | `configuration_elsewhere` | note | configuration files outside the data directory |
//! | `left_out` | note | something in the data directory is not part of a backup |
//! | `cannot_ask` | note | the role may not see something that would have been looked at |

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use lifeboat_core::{Attributes, EntryPath, Finding, Inspection, Severity, Value};
use rustix::fs::Stat;

use super::backup::{functions, grant};
use super::cluster::{Cluster, SUPPORTED, blocking};
use super::walk::{Found, ServerLogs, Visitor, walk};
use super::{ClusterOptions, facts, habits, slots};
use crate::accounts::Accounts;
use crate::connect::Session;
use crate::error::{Error, Result};

const WHAT: &str = "ask the server about itself";

/// Looks at everything, and goes on where something cannot be asked.
pub(super) async fn inspect(options: &ClusterOptions) -> Result<Inspection> {
    let session = Session::open(&options.connection).await?;
    let mut found = Findings::default();
    if !SUPPORTED.contains(&session.major()) {
        found.blocker(
            "version_unsupported",
            format!("the server is PostgreSQL {}; 14 to 18 are supported", session.version_text()),
            "upgrade the server, or use a release of Lifeboat that knows it",
        );
    }
    let about = About::ask(&session).await?;
    about.judge(&mut found);
    found.0.extend(slots::findings(&session).await?);
    found.0.extend(habits::findings(&session).await?);
    let mut inspection = Inspection {
        version: session.version_text().to_owned(),
        facts: about.facts(session.version_text()),
        ..Inspection::default()
    };
    // Without a supported version, the directory cannot be judged.
    if SUPPORTED.contains(&session.major()) {
        match Cluster::find(&session, options.data_directory.as_deref()).await {
            Ok(cluster) => {
                on_disk(cluster, options.server_logs, &mut inspection, &mut found).await?;
            }
            Err(error) => found.no_directory(error)?,
        }
    }
    // The worst first; among equals, in the order in which they were found.
    found.0.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    inspection.findings = found.0;
    Ok(inspection)
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        severity: Severity,
        code: &str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.0.push(Finding::new(severity, code, what, remedy));
    }

    fn blocker(&mut self, code: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.add(Severity::Blocker, code, what, remedy);
    }

    fn warning(&mut self, code: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.add(Severity::Warning, code, what, remedy);
    }

    fn note(&mut self, code: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.add(Severity::Note, code, what, remedy);
    }

    /// Why the data directory cannot be used; what is no situation of the directory stays an error.
    fn no_directory(&mut self, error: Error) -> Result<()> {
        let line = lifeboat_core::Error::from;
        match error {
            Error::DataDirectoryHidden => {
                // Its remedy comes with the other rights.
            }
            Error::DataDirectory { path, source } => {
                let remedy = how_to_read(&path, &source);
                let what =
                    format!("the data directory cannot be read: {}: {source}", path.display());
                self.blocker("data_directory_unreadable", what, remedy);
            }
            error @ Error::OtherServer { .. } => {
                let remedy = "correct the connection (host, port) or the data directory: they must be of one server";
                self.blocker("data_directory_of_another_server", error.to_string(), remedy);
            }
            error @ Error::Control { .. } => {
                let remedy = "see that this is the data directory of a supported version, and check the disk";
                self.blocker("control_file_unreadable", error.to_string(), remedy);
            }
            Error::Query { ref source, .. } if source.as_db_error().is_some() => {
                self.note("cannot_ask", line(error).one_line(), "");
            }
            other => return Err(other),
        }
        Ok(())
    }
}

fn how_to_read(path: &Path, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return "run Lifeboat on the host that has the data directory, and name the directory if it is mounted elsewhere; or have the server send its files, with --remote".into();
    }
    let owner = path.ancestors().find_map(|path| std::fs::metadata(path).ok());
    let accounts = Accounts::read();
    let name = owner.and_then(|owner| accounts.user_name(owner.uid()).map(str::to_owned));
    let name = name.filter(|name| name != "root").unwrap_or_else(|| "postgres".into());
    format!("run it as the account of the server: sudo -u {name} lifeboat …")
}

/// What the server says of itself.
struct About {
    /// Quoted as an identifier.
    role: String,
    major: u32,
    in_recovery: bool,
    wal_level: String,
    full_page_writes: bool,
    fsync: bool,
    checksums: bool,
    archive_mode: String,
    archiving_fails: bool,
    may_start: bool,
    may_read_settings: bool,
    may_replicate: bool,
    slots_left: i64,
    slots_limit: i64,
    /// Those that are not in the data directory.
    configuration: Vec<String>,
    databases: Vec<(u32, String)>,
    tablespaces: Vec<(u32, String)>,
}

impl About {
    async fn ask(session: &Session) -> Result<Self> {
        let (start, stop) = functions(session.major());
        let statement = format!(
            "SELECT quote_ident(current_user), pg_is_in_recovery(), current_setting('wal_level'),
                current_setting('full_page_writes')::bool, current_setting('fsync')::bool,
                current_setting('data_checksums') <> 'off', current_setting('archive_mode'),
                coalesce((SELECT last_failed_time > coalesce(last_archived_time, '-infinity') FROM pg_stat_archiver), false),
                has_function_privilege('{start}', 'execute') AND has_function_privilege('{stop}', 'execute'),
                pg_has_role('pg_read_all_settings', 'usage'),
                (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user),
                current_setting('max_replication_slots')::bigint - (SELECT count(*) FROM pg_replication_slots),
                current_setting('max_replication_slots')::bigint"
        );
        let row = session.one(WHAT, &statement, &[]).await?;
        let bad =
            |error: tokio_postgres::Error| Error::Answer { what: WHAT, why: error.to_string() };
        let mut about = Self {
            role: row.try_get(0).map_err(bad)?,
            major: session.major(),
            in_recovery: row.try_get(1).map_err(bad)?,
            wal_level: row.try_get(2).map_err(bad)?,
            full_page_writes: row.try_get(3).map_err(bad)?,
            fsync: row.try_get(4).map_err(bad)?,
            checksums: row.try_get(5).map_err(bad)?,
            archive_mode: row.try_get(6).map_err(bad)?,
            archiving_fails: row.try_get(7).map_err(bad)?,
            may_start: row.try_get(8).map_err(bad)?,
            may_read_settings: row.try_get(9).map_err(bad)?,
            may_replicate: row.try_get(10).map_err(bad)?,
            slots_left: row.try_get(11).map_err(bad)?,
            slots_limit: row.try_get(12).map_err(bad)?,
            configuration: Vec::new(),
            databases: Vec::new(),
            tablespaces: Vec::new(),
        };
        let rows = "SELECT oid, datname::text FROM pg_database ORDER BY oid";
        for row in session.all(WHAT, rows, &[]).await? {
            about.databases.push((row.try_get(0).map_err(bad)?, row.try_get(1).map_err(bad)?));
        }
        let rows = "SELECT oid, pg_tablespace_location(oid) FROM pg_tablespace
            WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid";
        for row in session.all(WHAT, rows, &[]).await? {
            about.tablespaces.push((row.try_get(0).map_err(bad)?, row.try_get(1).map_err(bad)?));
        }
        // Empty when the role may not see them.
        let rows = "SELECT file.setting FROM pg_settings file, pg_settings data
            WHERE file.name IN ('config_file', 'hba_file', 'ident_file') AND data.name = 'data_directory'
            AND NOT starts_with(file.setting, data.setting || '/') ORDER BY 1";
        for row in session.all(WHAT, rows, &[]).await? {
            about.configuration.push(row.try_get(0).map_err(bad)?);
        }
        Ok(about)
    }

    fn judge(&self, found: &mut Findings) {
        if self.in_recovery {
            found.blocker(
                "in_recovery",
                "the server is a standby, or is still recovering; a backup beside the server is taken from a primary",
                "connect to the primary, on its own host; or have the standby send its files, with --remote",
            );
        }
        if self.wal_level == "minimal" {
            found.blocker(
                "wal_level_minimal",
                "wal_level is minimal: the server writes too little WAL for a backup",
                "ALTER SYSTEM SET wal_level = replica; then restart the server",
            );
        }
        self.judge_rights(found);
        if !self.checksums {
            found.warning(
                "checksums_off",
                "data pages carry no checksums: damage on the disk is copied without being noticed",
                "stop the server and run pg_checksums --enable -D <data directory>",
            );
        }
        if !self.fsync {
            found.warning(
                "fsync_off",
                "fsync is off: a crash of the machine damages the cluster",
                "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf();",
            );
        }
        if !self.full_page_writes {
            found.warning(
                "full_page_writes_off",
                "full_page_writes is off: outside backups, a crash of the machine can tear pages",
                "ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf();",
            );
        }
        if self.archiving_fails {
            found.warning(
                "archiving_fails",
                "the server's last attempt to archive WAL failed: pg_wal grows until it succeeds",
                "see the server's log for what archive_command or archive_library said",
            );
        } else if self.archive_mode == "off" {
            found.note(
                "archive_off",
                "archive_mode is off: unless the server is followed, what was written after a backup cannot be recovered",
                "follow it: `lifeboat follow postgres`",
            );
        }
        if !self.configuration.is_empty() {
            found.note(
                "configuration_elsewhere",
                format!(
                    "these files are outside the data directory, and not part of its backup: {}",
                    self.configuration.join(", ")
                ),
                "back up their directory with `lifeboat backup files`",
            );
        }
    }

    fn judge_rights(&self, found: &mut Findings) {
        let Self { role, .. } = self;
        if !self.may_start {
            found.blocker(
                "backup_functions_denied",
                format!("the role {role} may not begin and end a backup"),
                grant(self.major, role),
            );
        }
        if !self.may_read_settings {
            found.blocker(
                "data_directory_hidden",
                format!("the role {role} may not ask where the data directory is"),
                format!("GRANT pg_read_all_settings TO {role}; or name the data directory"),
            );
        }
        if !self.may_replicate {
            found.note(
                "wal_not_reserved",
                format!("the role {role} may not take a replication slot, so the server can remove WAL that a running backup needs; the backup fails then"),
                format!("ALTER ROLE {role} REPLICATION;"),
            );
        } else if self.slots_left < 1 {
            found.note(
                "wal_not_reserved",
                "no replication slot is free, so the server can remove WAL that a running backup needs; the backup fails then",
                format!(
                    "ALTER SYSTEM SET max_replication_slots = {}; then restart the server",
                    self.slots_limit + 5
                ),
            );
        }
    }

    fn facts(&self, version: &str) -> Attributes {
        let pairs = |rows: &[(u32, String)]| {
            let rows = rows
                .iter()
                .map(|(oid, text)| (oid.to_string().into_bytes(), text.clone().into_bytes()));
            Value::from(rows.collect::<Vec<_>>())
        };
        Attributes::new()
            .with(facts::VERSION, version)
            .with(facts::DATABASES, pairs(&self.databases))
            .with(facts::TABLESPACES, pairs(&self.tablespaces))
            .with(facts::ARCHIVE_MODE, self.archive_mode.as_str())
    }
}

/// What can be seen of the data directory itself.
async fn on_disk(
    cluster: Cluster,
    logs: ServerLogs,
    inspection: &mut Inspection,
    found: &mut Findings,
) -> Result<()> {
    let control = &cluster.control;
    inspection.identity = control.system_id.to_string();
    inspection.facts.set(facts::SYSTEM_ID, control.system_id.to_string());
    inspection.facts.set(facts::CATALOG_VERSION, control.catalog_version);
    inspection.facts.set(facts::BLOCK_SIZE, control.block_size);
    inspection.facts.set(facts::SEGMENT_SIZE, control.segment_size.bytes());
    inspection.facts.set(facts::CHECKSUM_VERSION, control.checksum_version);
    inspection.facts.set(facts::TIMELINE, control.timeline);
    let directory = cluster.directory.display().to_string();
    inspection.facts.set(facts::DIRECTORY, directory);

    let cluster = Arc::new(cluster);
    let looked = blocking(move || -> Result<_> {
        let mut look = Look { bytes: 0, left_out: Vec::new() };
        let walked = walk(&cluster, logs, &mut look);
        let path = cluster.directory.join("pg_wal");
        let wal =
            std::fs::read_dir(&path).map_err(|source| Error::File { what: "list", path, source });
        let room = rustix::fs::statvfs(&cluster.directory).ok();
        let room = room.and_then(|room| room.f_bavail.checked_mul(room.f_frsize));
        Ok((look, room, walked.and(wal.map(drop))))
    });
    let (look, room, outcome) = looked.await?;
    match outcome {
        Ok(()) => {
            inspection.size = Some(look.bytes);
            if let Some(room) = room.filter(|room| *room < look.bytes) {
                found.note(
                    "no_room_beside",
                    format!(
                        "a restore beside the cluster would not fit: it takes {} MiB, and {} MiB are free",
                        look.bytes >> 20,
                        room >> 20
                    ),
                    "restore onto another disk, or make room before it is needed",
                );
            }
        }
        Err(error @ Error::LinkedData { .. }) => found.blocker(
            "linked_data",
            error.to_string(),
            "move the data back into the data directory, or into a tablespace",
        ),
        Err(Error::File { what, path, source }) => {
            let remedy = how_to_read(&path, &source);
            found.blocker(
                "files_unreadable",
                format!("cannot {what} {}: {source}", path.display()),
                remedy,
            );
        }
        Err(error) => return Err(error),
    }
    for (path, why) in look.left_out {
        found.note("left_out", format!("{path}: {why}"), "");
    }
    Ok(())
}

struct Look {
    bytes: u64,
    left_out: Vec<(EntryPath, String)>,
}

impl Visitor for Look {
    fn directory(&mut self, _: EntryPath, _: &Stat, _: Option<Vec<u8>>) -> Result<()> {
        Ok(())
    }

    fn link(&mut self, _: EntryPath, _: &Stat, _: Vec<u8>) -> Result<()> {
        Ok(())
    }

    fn file(&mut self, file: Found<'_>) -> Result<()> {
        self.bytes += u64::try_from(file.stat.st_size).unwrap_or_default();
        Ok(())
    }

    fn skipped(&mut self, path: &EntryPath, why: &str) {
        // A person reads them; a few will do.
        if self.left_out.len() < 20 {
            self.left_out.push((path.clone(), why.to_owned()));
        }
    }
}
