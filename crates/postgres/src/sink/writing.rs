//! One restore.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::local::{Head, Root, patch_file};
use lifeboat_core::{
    Attributes, Bytes, Completion, Content, Entry, EntryKind, EntryPath, Lane, Receipt, Result,
    Writing, names,
};
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, Gid, Mode, Uid};

use super::former::{self, Former};
use super::goes::{Goes, Note, not_restorable};
use super::owner::Owners;
use super::tablespace::{Place, Tablespaces};
use super::{Archiving, ClusterSink, Existing, RestoreOptions, target};
use crate::error::Error;
use crate::gate::Gate;
use crate::recovery::RecoverySettings;
use crate::source::{CLUSTER, blocking, facts};

/// A file up to this size is made, written and finished in one go.
const SMALL: u64 = 256 * 1024;

/// `backup_label`, `pg_control` and `tablespace_map` are smaller than this.
const LARGEST_NOTE: usize = 1 << 20;

const MARKER_TEXT: &str = "\
This directory is being restored, or a restore into it was broken off. No server can start here as
long as there is no global/pg_control. Empty the directory and restore again; or, where there is a
directory lifeboat-restore-former, run the same restore with --delta again.
";

/// A cluster being restored.
pub(super) struct ClusterWriting(Arc<Restore>);

pub(super) struct Restore {
    pub(super) root: Root,
    /// Whether the target was made by this restore.
    pub(super) made: bool,
    /// The cluster that was in the target, when its files are used again.
    pub(super) former: Option<Former>,
    pub(super) tablespaces: Tablespaces,
    pub(super) owners: Owners,
    pub(super) recovery: RecoverySettings,
    pub(super) histories: Vec<(u32, Bytes)>,
    pub(super) archiving: Archiving,
    pub(super) state: Mutex<State>,
    /// Work on blocking threads, which goes on when a put is dropped.
    pub(super) working: Gate,
}

#[derive(Default)]
pub(super) struct State {
    /// Attributes of the data directory itself.
    pub(super) top: Attributes,
    pub(super) label: Option<Vec<u8>>,
    pub(super) control: Option<Vec<u8>>,
    pub(super) tablespace_map: Option<Vec<u8>>,
    /// WAL segments and history files, and their lengths.
    pub(super) wal: BTreeMap<Vec<u8>, u64>,
    /// The content of `PG_VERSION`.
    pub(super) version: bool,
    pub(super) configured: bool,
    /// Bytes that former files had already.
    pub(super) kept: u64,
}

pub(super) fn marker() -> Result<EntryPath> {
    EntryPath::new(ClusterSink::MARKER)
}

/// What is known of a target before it is touched.
pub(super) struct Plan {
    path: PathBuf,
    former: Option<Former>,
    owners: Owners,
    tablespaces: Tablespaces,
}

impl Plan {
    /// Refuses what can be refused, and touches nothing.
    pub(super) fn of(options: &RestoreOptions) -> Result<Self> {
        let (path, former) = match (target::vacant(&options.target), options.existing) {
            (Ok(path), _) => (path, None),
            (
                Err(Error::TargetNotEmpty { path } | Error::TargetUnfinished { path }),
                Existing::Reuse,
            ) => {
                let facts = options.facts.as_ref();
                let system_id = facts.and_then(|facts| facts.text(facts::SYSTEM_ID));
                let system_id = system_id.ok_or_else(|| Error::NotFormer {
                    path: path.clone(),
                    why: "nothing says of which system the snapshot is".into(),
                })?;
                let former = Former::find(&path, system_id)?;
                (path, Some(former))
            }
            (Err(error), _) => return Err(error.into()),
        };
        if let Some(facts) = &options.facts {
            let needed = [facts::START, facts::STOP, facts::SYSTEM_ID];
            if let Some(missing) = needed.into_iter().find(|name| facts.get(name).is_none()) {
                let why = format!(
                    "it does not say its {missing}, so it is no finished backup of a cluster"
                );
                return Err(not_restorable(why));
            }
        }
        let owners = Owners::new(options.ownership)?;
        let tablespaces = Tablespaces::new(
            &path,
            options.tablespaces.clone(),
            options.facts.as_ref(),
            former.clone(),
        )?;
        Ok(Self { path, former, owners, tablespaces })
    }
}

impl ClusterWriting {
    /// Checks, and then makes the target. Blocks.
    pub(super) fn begin(options: RestoreOptions) -> Result<Self> {
        let Plan { path, former, owners, tablespaces } = Plan::of(&options)?;
        let made = !path.exists();
        let restore = Restore {
            root: target::make_directory(&path)?,
            made,
            former,
            tablespaces,
            owners,
            recovery: options.recovery,
            histories: options.histories,
            archiving: options.archiving,
            state: Mutex::default(),
            working: Gate::new(),
        };
        if !path.join(ClusterSink::MARKER).exists() {
            restore.write_whole(&marker()?, MARKER_TEXT.as_bytes(), &Attributes::new())?;
        }
        if let Some(former) = &restore.former {
            former.gather(&restore.root)?;
        }
        restore.root.set_top_mode(0o700)?;
        Ok(Self(Arc::new(restore)))
    }

    /// Does work that blocks; [`Writing::abort`] waits for its end.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Restore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (restore, ticket) = (Arc::clone(&self.0), self.0.working.ticket());
        blocking(move || {
            let done = work(&restore);
            drop(ticket);
            done
        })
        .await
    }

    async fn file(&self, root: Root, path: EntryPath, mut entry: Entry) -> Result<u64> {
        if self.0.former.is_some() {
            let (at, place, attributes) = (root.clone(), path.clone(), entry.attributes.clone());
            let taken = self.work(move |restore| restore.former_file(&at, &place, &attributes));
            if let Some(file) = taken.await? {
                let done = patch_file(file, root.show(&path), entry.content).await?;
                let mut state = self.0.state.lock();
                state.kept += done.length - done.written.min(done.length);
                return Ok(done.length);
            }
        }
        let head = Head::pull(&mut entry.content, SMALL).await?;
        let attributes = entry.attributes;
        let name = root.show(&path);
        if head.is_whole() {
            let work = self.work(move |restore| {
                let file = restore.new_file(&root, &path, &attributes)?;
                let written = head.write(&file, 0);
                written.map_err(|error| lifeboat_core::local::failed("write", &name, error))
            });
            return work.await;
        }
        let file = self.work(move |restore| restore.new_file(&root, &path, &attributes)).await?;
        head.write_with_rest(file, name, entry.content).await
    }

    /// Files that are held against each other at the commit.
    async fn note(&self, note: Note, path: &EntryPath, mut content: Content) -> Result<()> {
        let mut bytes = Vec::new();
        while let Some(extent) = content.next().await? {
            match extent {
                lifeboat_core::Extent::Data(data) => bytes.extend_from_slice(&data),
                lifeboat_core::Extent::Hole(length) => {
                    let length = usize::try_from(length).unwrap_or(usize::MAX);
                    bytes.resize(bytes.len().saturating_add(length).min(LARGEST_NOTE + 1), 0);
                }
                lifeboat_core::Extent::Unchanged(_) => {
                    return Err(not_restorable(format!("{path} refers to another snapshot")));
                }
            }
            if bytes.len() > LARGEST_NOTE {
                return Err(not_restorable(format!("{path} is too long")));
            }
        }
        let mut state = self.0.state.lock();
        let place = match note {
            Note::Label => &mut state.label,
            Note::Control => &mut state.control,
            Note::TablespaceMap => &mut state.tablespace_map,
        };
        *place = Some(bytes);
        Ok(())
    }

    async fn wal(&self, name: Vec<u8>, entry: Entry) -> Result<()> {
        let path = EntryPath::new("pg_wal")?.join(&name)?;
        let length = self.file(self.0.root.clone(), path.clone(), entry).await?;
        self.work(move |restore| {
            // The server will write into the file again, and does not expect to run out of room
            // there. Where room cannot be reserved, it takes its chance as anybody does.
            let file = restore.root.open_dir(path.parent().as_ref())?;
            let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NOFOLLOW;
            if length > 0
                && let Ok(file) = rustix::fs::openat(&file, path.name(), flags, Mode::empty())
            {
                let _ = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, length);
            }
            restore.state.lock().wal.insert(name, length);
            Ok(())
        })
        .await
    }

    async fn put_inside(&self, root: Root, path: EntryPath, entry: Entry) -> Result<()> {
        match entry.kind {
            EntryKind::File => {
                self.file(root, path.clone(), entry).await?;
                let mut state = self.0.state.lock();
                state.version |= path.as_bytes() == b"PG_VERSION";
                state.configured |= path.as_bytes() == b"postgresql.conf";
                Ok(())
            }
            EntryKind::Directory => {
                let attributes = entry.attributes;
                self.work(move |restore| {
                    root.create_dir_all(&path, 0o700)?;
                    let mode = restore.mode(&attributes, 0o700);
                    if let Some((uid, gid)) = restore.owners.of(&attributes) {
                        root.set_owner(&path, uid, gid)?;
                    }
                    root.set_mode(&path, mode)
                })
                .await
            }
            EntryKind::Symlink => {
                let attributes = entry.attributes;
                self.work(move |restore| {
                    let target = attributes.bytes(names::TARGET).unwrap_or_default();
                    root.create_parents(&path)?;
                    root.symlink(target, &path)?;
                    match restore.owners.of(&attributes) {
                        Some((uid, gid)) => root.set_owner(&path, uid, gid),
                        None => Ok(()),
                    }
                })
                .await
            }
            _ => Err(not_restorable(format!("{path} is of a kind that no cluster has"))),
        }
    }

    async fn tablespace(&self, oid: Vec<u8>, entry: Entry) -> Result<()> {
        let numeric = oid.iter().all(u8::is_ascii_digit);
        if entry.kind != EntryKind::Directory || !numeric {
            let path = EntryPath::new("pg_tblspc")?.join(&oid)?;
            return self.put_inside(self.0.root.clone(), path, entry).await;
        }
        self.work(move |restore| {
            let link = EntryPath::new("pg_tblspc")?.join(&oid)?;
            let attributes = entry.attributes;
            restore.root.create_parents(&link)?;
            let owner = restore.owners.of(&attributes);
            match restore.tablespaces.make(&oid, attributes.bytes(names::TARGET))? {
                Place::InPlace => {
                    restore.root.create_dir_all(&link, 0o700)?;
                    if let Some((uid, gid)) = owner {
                        restore.root.set_owner(&link, uid, gid)?;
                    }
                    restore.root.set_mode(&link, restore.mode(&attributes, 0o700))
                }
                Place::Apart(root) => {
                    use std::os::unix::ffi::OsStrExt;
                    if let Some((uid, gid)) = owner {
                        root.set_top_owner(uid, gid)?;
                    }
                    root.set_top_mode(restore.mode(&attributes, 0o700))?;
                    restore.root.symlink(root.path().as_os_str().as_bytes(), &link)?;
                    match owner {
                        Some((uid, gid)) => restore.root.set_owner(&link, uid, gid),
                        None => Ok(()),
                    }
                }
            }
        })
        .await
    }
}

impl Restore {
    /// Permission bits; nobody's set-id bits come back.
    pub(super) fn mode(&self, attributes: &Attributes, usual: u32) -> u32 {
        let mode = attributes.unsigned(names::MODE).and_then(|mode| u32::try_from(mode).ok());
        mode.unwrap_or(usual) & 0o777
    }

    /// Blocks.
    fn new_file(&self, root: &Root, path: &EntryPath, attributes: &Attributes) -> Result<File> {
        root.create_parents(path)?;
        let file = root.create_file(path, 0o600)?;
        self.give(&file, root, path, attributes)?;
        Ok(file)
    }

    /// The former version of a file, in its place. Blocks.
    fn former_file(
        &self,
        root: &Root,
        path: &EntryPath,
        attributes: &Attributes,
    ) -> Result<Option<File>> {
        root.create_parents(path)?;
        let Some(file) = former::take(root, path)? else {
            return Ok(None);
        };
        self.give(&file, root, path, attributes)?;
        Ok(Some(file))
    }

    /// Sets owner and mode. Blocks.
    fn give(
        &self,
        file: &File,
        root: &Root,
        path: &EntryPath,
        attributes: &Attributes,
    ) -> Result<()> {
        let failed = |error: rustix::io::Errno| {
            lifeboat_core::local::failed("set owner and mode of", &root.show(path), error)
        };
        if let Some((uid, gid)) = self.owners.of(attributes) {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::fchown(file, uid, gid).map_err(failed)?;
        }
        let mode = Mode::from_raw_mode(self.mode(attributes, 0o600));
        rustix::fs::fchmod(file, mode).map_err(failed)
    }

    /// Blocks.
    pub(super) fn write_whole(
        &self,
        path: &EntryPath,
        bytes: &[u8],
        attributes: &Attributes,
    ) -> Result<()> {
        let file = self.new_file(&self.root, path, attributes)?;
        let written = std::io::Write::write_all(&mut &file, bytes).and_then(|()| file.sync_all());
        written.map_err(|error| lifeboat_core::local::failed("write", &self.root.show(path), error))
    }

    /// Removes everything. Blocks.
    fn undo(&self) {
        if self.former.is_some() {
            // What there was is in pieces already; the next restore goes on from it.
            return;
        }
        // Both were empty when this restore began. What cannot be removed stays without a
        // pg_control, and with the marker.
        for (_, root) in self.tablespaces.apart() {
            let _ = root.remove_contents();
        }
        let marker = marker().ok();
        let rest = self.root.list(None).unwrap_or_default();
        let mut clean = true;
        for listed in rest {
            let Ok(path) = EntryPath::new(&listed.name) else {
                continue;
            };
            if Some(&path) != marker.as_ref() {
                clean &= self.root.remove(&path).is_ok();
            }
        }
        if clean && let Some(marker) = marker {
            let _ = self.root.remove(&marker);
            if self.made {
                let _ = std::fs::remove_dir(self.root.path());
            }
        }
    }
}

#[async_trait]
impl Writing for ClusterWriting {
    fn lane(&self, path: &EntryPath) -> Option<Lane> {
        if let Ok(Goes::Tablespace(oid)) = Goes::of(path) {
            self.0.tablespaces.announce(&oid);
        }
        None
    }

    async fn put(&self, _: u64, entry: Entry) -> Result<()> {
        let root = self.0.root.clone();
        match Goes::of(&entry.path)? {
            Goes::Nowhere => Ok(()),
            Goes::Top => {
                self.0.state.lock().top = entry.attributes;
                Ok(())
            }
            Goes::Inside(path) => self.put_inside(root, path, entry).await,
            Goes::Tablespace(oid) => self.tablespace(oid, entry).await,
            Goes::InTablespace(oid, path) => match self.0.tablespaces.place(&oid).await? {
                Place::Apart(root) => self.put_inside(root, path, entry).await,
                Place::InPlace => {
                    let inside = entry.path.strip_prefix(&EntryPath::new(CLUSTER)?);
                    let inside =
                        inside.ok_or_else(|| not_restorable(format!("{path} is misplaced")))?;
                    self.put_inside(root, inside, entry).await
                }
            },
            Goes::Wal(name) => self.wal(name, entry).await,
            Goes::Note(note) => {
                let path = entry.path.clone();
                self.note(note, &path, entry.content).await
            }
        }
    }

    async fn commit(self: Arc<Self>, completion: Completion) -> Result<Receipt> {
        self.work(move |restore| restore.finish(&completion)).await
    }

    async fn abort(self: Arc<Self>) {
        self.0.working.idle().await;
        // Nobody is left to tell when even that fails: the marker tells.
        let undo = self.work(|restore| {
            restore.undo();
            Ok(())
        });
        let _ = undo.await;
    }
}
