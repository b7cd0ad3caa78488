//! Whether a journal goes on behind a snapshot that was restored alone.

use lifeboat_core::{SnapshotInfo, Timestamp};
use lifeboat_postgres::{BaseBackup, Windows};
use lifeboat_redis::{BaseSnapshot, Windows as RedisWindows};

use super::{moment, recovery};
use crate::output::moment_at;
use crate::session::{Opened, Session};

/// Notes up to when the journal goes that begins with the snapshot, where it goes on. The restore is
/// done, so that what cannot be found out is left unsaid.
pub(super) async fn tell(info: &SnapshotInfo, opened: &Opened, session: &Session) {
    if let Some(until) = until(info, opened).await {
        session.output.note(&format!(
            "this is the snapshot alone: the journal goes on to {}, and --to-latest restores that \
             (--to-time any moment before)",
            moment_at(until)
        ));
    }
}

async fn until(info: &SnapshotInfo, opened: &Opened) -> Option<Timestamp> {
    match info.store.kind() {
        "redis" => {
            let base = BaseSnapshot::of(info)?;
            let journal = moment::journal(opened, &info.store).ok()?;
            let found = RedisWindows::of(&journal, std::slice::from_ref(&base)).await.ok()?;
            let longest = found.windows.iter().filter(|window| window.to > base.offset);
            longest.map(|window| window.to_time).max()
        }
        "postgres" => {
            let base = BaseBackup::of(info)?;
            let archive = recovery::archive(opened, &info.store).ok()?;
            let found = Windows::of(&archive, std::slice::from_ref(&base)).await.ok()?;
            let longest = found.windows.iter().filter(|window| window.to > base.stop);
            longest.filter_map(|window| window.to_time).filter(|at| *at > info.taken).max()
        }
        _ => None,
    }
}
