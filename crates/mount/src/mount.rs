//! Mounting and unmounting.

use std::io;
use std::path::{Path, PathBuf};

use fuser::{Config, MountOption, Session, SessionACL, SessionUnmounter};
use lifeboat_core::{Context, StoreRef};
use lifeboat_repository::Repository;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::attributes::Owner;
use crate::error::{Error, Result};
use crate::filesystem::SnapshotFilesystem;
use crate::layout::Layout;
use crate::node::MAX_SNAPSHOTS;
use crate::view::View;

/// Who may look into the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Access {
    /// Who mounts it, and nobody else. He may read everything.
    #[default]
    Owner,
    /// Everybody, as the recorded owners and modes allow. Without root rights the system must
    /// permit this: `user_allow_other` in `/etc/fuse.conf`.
    Everybody,
}

/// How snapshots are mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MountOptions {
    /// Only the snapshots of this store.
    pub store: Option<StoreRef>,
    /// Who may look into it.
    pub access: Access,
}

/// Mounts the snapshots of a repository on the directory `place`.
///
/// Snapshots that cannot be read are warnings in `context`, as is later what turns out to be
/// damaged. Must be called on a Tokio runtime, which then does the work.
///
/// # Errors
/// When the snapshots cannot be listed, or the system refuses the mount.
pub async fn mount(
    repository: &Repository,
    place: &Path,
    options: &MountOptions,
    context: &Context,
) -> Result<Mount> {
    let list = repository.snapshots().await?;
    for (object, what) in &list.damaged {
        context.warn(object, format!("this snapshot cannot be read: {what}"));
    }
    let mut snapshots = list.snapshots;
    snapshots.retain(|info| options.store.as_ref().is_none_or(|store| info.store == *store));
    // The newest ones, of more than anybody has.
    snapshots.drain(..snapshots.len().saturating_sub(MAX_SNAPSHOTS));
    let count = snapshots.len();
    let owner =
        Owner { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() };
    let view = View::new(repository.clone(), Layout::new(snapshots), owner, context.clone());
    let filesystem = SnapshotFilesystem::new(view, tokio::runtime::Handle::current());
    let config = config(options.access);
    let at = place.to_owned();
    let starting = tokio::task::spawn_blocking(move || start(filesystem, &at, &config));
    let (unmounter, ended) = starting.await.map_err(|error| Error::Mount {
        place: place.display().to_string(),
        source: io::Error::other(error),
    })??;
    let (place, unmounter) = (place.to_owned(), Mutex::new(unmounter));
    Ok(Mount { place, snapshots: count, unmounter, ended })
}

fn config(access: Access) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("lifeboat".to_owned()),
        MountOption::Subtype("lifeboat".to_owned()),
        MountOption::RO,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoAtime,
    ];
    if access == Access::Everybody {
        config.acl = SessionACL::All;
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    config
}

type Ended = oneshot::Receiver<io::Result<()>>;

fn start(
    filesystem: SnapshotFilesystem,
    place: &Path,
    config: &Config,
) -> Result<(SessionUnmounter, Ended)> {
    let shown = place.display().to_string();
    if !place.is_dir() {
        return Err(Error::NoDirectory { place: shown });
    }
    let refused = |source| Error::Mount { place: shown.clone(), source };
    let mut session = Session::new(filesystem, place, config).map_err(refused)?;
    let unmounter = session.unmount_callable();
    let (tell, ended) = oneshot::channel();
    let serving = std::thread::Builder::new().name("lifeboat-mount".to_owned());
    let serving = serving.spawn(move || {
        // Nobody listening any more means that the mount was dropped.
        let _ = tell.send(session.run());
    });
    serving.map_err(refused)?;
    Ok((unmounter, ended))
}

/// Mounted snapshots. Dropping it unmounts them.
pub struct Mount {
    place: PathBuf,
    snapshots: usize,
    unmounter: Mutex<SessionUnmounter>,
    ended: Ended,
}

impl Mount {
    /// How many snapshots are shown.
    pub fn snapshots(&self) -> usize {
        self.snapshots
    }

    /// Returns when somebody has unmounted it, as with `fusermount3 -u`.
    ///
    /// # Errors
    /// When the kernel could not be answered any more.
    pub async fn ended(&mut self) -> Result<()> {
        match (&mut self.ended).await {
            Ok(Err(source)) => {
                Err(Error::Serve { place: self.place.display().to_string(), source })
            }
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    /// Unmounts. What is open beneath it stays readable while this process lives; nothing else
    /// can be opened any more.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn unmount(self) -> Result<()> {
        let unmounting = tokio::task::spawn_blocking(move || self.take_away());
        unmounting.await.unwrap_or(Ok(()))
    }

    fn take_away(&self) -> Result<()> {
        match self.unmounter.lock().unmount() {
            // Somebody stands in it. A mount that nobody serves would be worse than none.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                let flags = rustix::mount::UnmountFlags::DETACH;
                rustix::mount::unmount(&self.place, flags).map_err(io::Error::from)
            }
            other => other,
        }
        .map_err(|source| Error::Unmount { place: self.place.display().to_string(), source })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.take_away() {
            tracing::warn!("{error}");
        }
    }
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Mount").field(&self.place).finish()
    }
}
