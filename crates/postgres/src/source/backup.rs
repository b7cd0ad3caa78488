//! Backup mode at the server: begun and ended in one session.

use jiff::Timestamp;

use super::cluster::Cluster;
use super::label::Label;
use crate::connect::{Session, parsed};
use crate::error::{Error, Result};
use crate::lsn::Lsn;

/// How the checkpoint is done with which a backup begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Checkpoint {
    /// At once, with all the I/O that takes. The backup begins within seconds.
    #[default]
    Fast,
    /// As slowly as the server's own checkpoints (`checkpoint_completion_target`): the backup
    /// begins after minutes, and nobody notices it.
    Spread,
}

/// How often a backup is begun, when other checkpoints come between.
const ATTEMPTS: u32 = 10;

/// A server in backup mode. Dropping it ends the session, and with it the backup mode.
#[derive(Debug)]
pub(super) struct Backup {
    session: Session,
    start: Lsn,
}

/// What the server said when the backup ended.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) label: Label,
    pub(super) label_text: String,
    /// Empty when there are no tablespaces.
    pub(super) tablespace_map: String,
    pub(super) stop: Lsn,
    /// By the server's clock.
    pub(super) at: Timestamp,
}

impl Backup {
    /// Begins. `cluster` then holds the `pg_control` of the checkpoint
    /// with which the backup begins. That it shows exactly this checkpoint proves once more that
    /// the directory is the server's own, and no copy and no volume that stopped following it.
    pub(super) async fn start(
        session: Session,
        cluster: &mut Cluster,
        label: &str,
        checkpoint: Checkpoint,
    ) -> Result<Self> {
        const WHAT: &str = "begin a backup";
        let statement = if session.major() >= 15 {
            "SELECT pg_catalog.pg_backup_start($1, $2)::text"
        } else {
            "SELECT pg_catalog.pg_start_backup($1, $2, false)::text"
        };
        // The server takes up to 1023 bytes, in one line.
        let mut label: String = label.chars().filter(|c| !c.is_control()).collect();
        while label.len() > 512 {
            label.pop();
        }
        let fast = checkpoint == Checkpoint::Fast;
        for attempt in 1.. {
            let row = session.one_cancellable(WHAT, statement, &[&label, &fast]).await?;
            let start = parsed(WHAT, row.try_get(0))?;
            let control = cluster.control_now().await?;
            if control.redo == start {
                cluster.control = control;
                return Ok(Self { session, start });
            }
            if attempt == ATTEMPTS || control.redo < start {
                return Err(Error::OtherServer {
                    path: cluster.directory.clone(),
                    target: session.target().to_owned(),
                    why: format!(
                        "its last checkpoint begins at {}, the backup at {start}",
                        control.redo
                    ),
                });
            }
            // Another checkpoint came right after ours. What ours says of transactions must be
            // known, so the backup begins anew.
            let stop = format!("SELECT 1 FROM {}", stop_function(session.major()));
            session.one(WHAT, &stop, &[]).await?;
        }
        Err(Error::Unfinished)
    }

    /// Refuses at once what would otherwise fail after hours, at the end of the backup.
    pub(super) async fn may_be_taken(session: &Session) -> Result<()> {
        const WHAT: &str = "ask whether the server can be backed up";
        let (start, stop) = functions(session.major());
        let statement = format!(
            "SELECT pg_is_in_recovery(), current_setting('wal_level'), quote_ident(current_user),
                has_function_privilege('{start}', 'execute') AND has_function_privilege('{stop}', 'execute')"
        );
        let row = session.one(WHAT, &statement, &[]).await?;
        let answer =
            |error: tokio_postgres::Error| Error::Answer { what: WHAT, why: error.to_string() };
        if row.try_get(0).map_err(answer)? {
            return Err(Error::InRecovery { target: session.target().to_owned() });
        }
        if row.try_get::<_, String>(1).map_err(answer)? == "minimal" {
            return Err(Error::WalLevel);
        }
        let role: String = row.try_get(2).map_err(answer)?;
        if !row.try_get::<_, bool>(3).map_err(answer)? {
            let grant = grant(session.major(), &role);
            return Err(Error::MayNot { role, grant });
        }
        Ok(())
    }

    /// Where recovery from this backup begins to read WAL.
    pub(super) fn starts_at(&self) -> Lsn {
        self.start
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Ends the backup mode. The session stays, since the WAL is kept for as long as it lives.
    pub(super) async fn stop(&self) -> Result<Ended> {
        const WHAT: &str = "end the backup";
        self.session.same_process().await?;
        // The WAL is copied by us, so nobody waits for an archive.
        let function = stop_function(self.session.major());
        let statement = format!(
            "SELECT lsn::text, labelfile, coalesce(spcmapfile, ''), \
             (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM {function}"
        );
        let row = self.session.one(WHAT, &statement, &[]).await?;
        let answer = |why: String| Error::Answer { what: WHAT, why };
        let column = |error: tokio_postgres::Error| answer(error.to_string());
        let stop: Lsn = parsed(WHAT, row.try_get(0))?;
        let label_text: String = row.try_get(1).map_err(column)?;
        let label = Label::parse(&label_text).map_err(answer)?;
        if label.start != self.start {
            let why =
                format!("backup_label begins at {}, the backup at {}", label.start, self.start);
            return Err(answer(why));
        }
        if stop <= label.start {
            return Err(Error::Backwards { start: label.start, stop });
        }
        let micros: i64 = row.try_get(3).map_err(column)?;
        Ok(Ended {
            label,
            label_text,
            tablespace_map: row.try_get(2).map_err(column)?,
            stop,
            at: Timestamp::from_microsecond(micros).map_err(|error| answer(error.to_string()))?,
        })
    }
}

/// The call that ends a backup.
fn stop_function(major: u32) -> &'static str {
    if major >= 15 {
        "pg_catalog.pg_backup_stop(false)"
    } else {
        "pg_catalog.pg_stop_backup(false, false)"
    }
}

/// The functions that begin and end a backup in a major version.
pub(super) fn functions(major: u32) -> (&'static str, &'static str) {
    if major >= 15 {
        ("pg_backup_start(text, boolean)", "pg_backup_stop(boolean)")
    } else {
        ("pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)")
    }
}

/// The statement that lets a role call them.
pub(super) fn grant(major: u32, role: &str) -> String {
    let (start, stop) = functions(major);
    format!("GRANT EXECUTE ON FUNCTION {start}, {stop} TO {role};")
}

/// Takes a temporary replication slot, so that the server keeps the WAL of this backup until the
/// session ends. A role without REPLICATION, or a server without a free slot, does without: then
/// the WAL can be removed under a heavy load, which is noticed when it is copied.
pub(super) async fn keep_wal(session: &Session) -> Result<()> {
    let statement = "SELECT pg_catalog.pg_create_physical_replication_slot(\
        'lifeboat_' || pg_catalog.pg_backend_pid(), true, true)::text";
    match session.one("reserve WAL for the backup", statement, &[]).await {
        Ok(_) => Ok(()),
        Err(Error::Query { source, .. }) => {
            tracing::info!(%source, "no replication slot: the WAL of this backup is not reserved");
            Ok(())
        }
        Err(error) => Err(error),
    }
}
