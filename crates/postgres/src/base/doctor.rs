//! What stands in the way of a base backup over the network, and how to mend it.
//!
//! | code | severity | what it means |
//! |---|---|---|
//! | `checksums_off` | warning | damage on the disk goes unnoticed |
//! | `standby` | note | a standby: what it is worth depends on how far it is |
//! | `wal_not_reserved` | note | no replication slot can be taken for the time of the backup |
//! | `archive_off` | note | no recovery to moments between two backups |
//!
//! What keeps the server from being asked at all (no line in `pg_hba.conf`, a role without
//! `REPLICATION`, no free WAL sender, another version) is an error, which says the remedy.

use lifeboat_core::{Finding, Inspection, Result, Severity};

use super::server::Server;
use crate::connect::ConnectOptions;
use crate::source::facts;

/// Asks as a backup would.
pub(super) async fn inspect(connection: &ConnectOptions) -> Result<Inspection> {
    let server = Server::open(connection).await?;
    let about = &server.about;
    let mut findings = Vec::new();
    let mut find = |severity, code: &str, what: &str, remedy: &str| {
        findings.push(Finding::new(severity, code, what, remedy));
    };
    if !about.checksums {
        let what = "data checksums are off: damage on the disk goes unnoticed";
        let remedy = "stop the server, and run pg_checksums --enable";
        find(Severity::Warning, "checksums_off", what, remedy);
    }
    if about.standby {
        let what = "the server is a standby: a backup shows what it has replayed";
        find(Severity::Note, "standby", what, "");
    }
    if !server.keeps_wal {
        let what =
            "no replication slot can be taken: the server may remove WAL that a backup needs";
        let remedy = "raise max_replication_slots, or drop a slot that nobody uses";
        find(Severity::Note, "wal_not_reserved", what, remedy);
    }
    if about.archive_mode.as_deref() == Some("off") {
        let what = "archive_mode is off: there is no recovery to moments between two backups, unless somebody follows the server";
        find(
            Severity::Note,
            "archive_off",
            what,
            "run lifeboat follow postgres, or archive the WAL",
        );
    }
    let facts = server
        .facts()
        .with(facts::SYSTEM_ID, about.identity.system_id.to_string())
        .with(facts::TIMELINE, about.identity.timeline)
        .with(facts::BLOCK_SIZE, about.page_size)
        .with(facts::SEGMENT_SIZE, about.segment_size.bytes());
    Ok(Inspection {
        version: about.version.clone(),
        identity: about.identity.system_id.to_string(),
        size: None,
        facts,
        findings,
    })
}
