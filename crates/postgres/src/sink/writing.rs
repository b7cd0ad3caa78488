//! One restore.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use async_trait::async_trait;
use lifeboat_core::local::{Head, Root};
use lifeboat_core::{
    Attributes, Completion, Content, Entry, EntryKind, EntryPath, Lane, Receipt, Result, Writing,
    names,
};
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, Gid, Mode, Uid};

use super::goes::{Goes, Note, not_restorable};
use super::owner::Owners;
use super::tablespace::{Place, Tablespaces};
use super::{Archiving, ClusterSink, RestoreOptions, target};
use crate::control::Control;
use crate::gate::Gate;
use crate::lsn::Lsn;
use crate::recovery::{AUTO_CONF, RecoverySettings, rewrite};
use crate::source::{CLUSTER, Label, blocking, facts};

/// A file up to this size is made, written and finished in one go.
const SMALL: u64 = 256 * 1024;

/// `backup_label`, `pg_control` and `tablespace_map` are smaller than this.
const LARGEST_NOTE: usize = 1 << 20;

const MARKER_TEXT: &str = "\
This directory is being restored, or a restore into it was broken off. No server can start here as
long as there is no global/pg_control. Empty the directory and restore again.
";

/// A cluster being restored.
pub(super) struct ClusterWriting(Arc<Restore>);

struct Restore {
    root: Root,
    /// Whether the target was made by this restore.
    made: bool,
    tablespaces: Tablespaces,
    owners: Owners,
    recovery: Option<RecoverySettings>,
    archiving: Archiving,
    state: Mutex<State>,
    /// Work on blocking threads, which goes on when a put is dropped.
    working: Gate,
}

#[derive(Default)]
struct State {
    /// Attributes of the data directory itself.
    top: Attributes,
    label: Option<Vec<u8>>,
    control: Option<Vec<u8>>,
    tablespace_map: Option<Vec<u8>>,
    /// WAL segments and history files, and their lengths.
    wal: BTreeMap<Vec<u8>, u64>,
    /// The content of `PG_VERSION`.
    version: bool,
    configured: bool,
}

fn marker() -> Result<EntryPath> {
    EntryPath::new(ClusterSink::MARKER)
}

impl ClusterWriting {
    /// Checks, and then makes the target. Blocks.
    pub(super) fn begin(options: RestoreOptions) -> Result<Self> {
        let path = target::vacant(&options.target)?;
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
        let tablespaces = Tablespaces::new(&path, options.tablespaces, options.facts.as_ref())?;

        let made = !path.exists();
        let restore = Restore {
            root: target::make_directory(&path)?,
            made,
            tablespaces,
            owners,
            recovery: options.recovery,
            archiving: options.archiving,
            state: Mutex::default(),
            working: Gate::new(),
        };
        restore.write_whole(&marker()?, MARKER_TEXT.as_bytes(), &Attributes::new())?;
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
    fn mode(&self, attributes: &Attributes, usual: u32) -> u32 {
        let mode = attributes.unsigned(names::MODE).and_then(|mode| u32::try_from(mode).ok());
        mode.unwrap_or(usual) & 0o777
    }

    /// Blocks.
    fn new_file(&self, root: &Root, path: &EntryPath, attributes: &Attributes) -> Result<File> {
        root.create_parents(path)?;
        let file = root.create_file(path, 0o600)?;
        let failed = |error: rustix::io::Errno| {
            lifeboat_core::local::failed("set owner and mode of", &root.show(path), error)
        };
        if let Some((uid, gid)) = self.owners.of(attributes) {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::fchown(&file, uid, gid).map_err(failed)?;
        }
        let mode = Mode::from_raw_mode(self.mode(attributes, 0o600));
        rustix::fs::fchmod(&file, mode).map_err(failed)?;
        Ok(file)
    }

    /// Blocks.
    fn write_whole(&self, path: &EntryPath, bytes: &[u8], attributes: &Attributes) -> Result<()> {
        let file = self.new_file(&self.root, path, attributes)?;
        let written = std::io::Write::write_all(&mut &file, bytes).and_then(|()| file.sync_all());
        written.map_err(|error| lifeboat_core::local::failed("write", &self.root.show(path), error))
    }

    /// Holds what recovery needs against each other; returns what `pg_control` shall be. Blocks.
    fn check(&self, completion: &Completion) -> Result<Control> {
        let state = self.state.lock();
        let missing = |what: &str| not_restorable(format!("it has no {what}"));
        if !state.version {
            return Err(missing("PG_VERSION"));
        }
        let label = state.label.as_deref().ok_or_else(|| missing("backup_label"))?;
        let label = std::str::from_utf8(label)
            .map_err(|error| error.to_string())
            .and_then(Label::parse)
            .map_err(not_restorable)?;
        let control = state.control.clone().ok_or_else(|| missing("pg_control"))?;
        let control = Control::parse(control)
            .map_err(|why| not_restorable(format!("its pg_control is not valid: {why}")))?;
        let stop: Option<Lsn> = completion.position.parse().ok();
        // Without a word about the end, at least the beginning must be there.
        let end = stop.unwrap_or(Lsn(label.checkpoint.0 + 1));
        let size = control.segment_size;
        for segment in size.holding(label.start)..=size.ending_at(end) {
            let name = size.name(label.timeline, segment);
            match state.wal.get(name.as_bytes()) {
                Some(length) if *length == size.bytes() => {}
                Some(length) => {
                    let why =
                        format!("its WAL segment {name} has {length} bytes, not {}", size.bytes());
                    return Err(not_restorable(why));
                }
                None => return Err(missing(&format!("WAL segment {name}"))),
            }
        }
        let map = state.tablespace_map.as_deref().unwrap_or_default();
        for line in map.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let oid = line.split(|byte| *byte == b' ').next().unwrap_or_default();
            if !self.tablespaces.has(oid) {
                return Err(missing(&format!("tablespace {}", oid.escape_ascii())));
            }
        }
        Ok(control)
    }

    /// Makes all of it durable, and then gives `pg_control` its name. Blocks.
    fn finish(&self, completion: &Completion) -> Result<Receipt> {
        let control = self.check(completion)?;
        let (top, label, wal, configured) = {
            let state = self.state.lock();
            let names: Vec<Vec<u8>> = state.wal.keys().cloned().collect();
            (state.top.clone(), state.label.clone().unwrap_or_default(), names, state.configured)
        };
        let owner = self.owners.of(&top);
        // As files of the server's own: its account, and nobody else.
        let own = match owner {
            Some((uid, gid)) => Attributes::new().with(names::UID, uid).with(names::GID, gid),
            None => Attributes::new(),
        };
        self.root.create_dir_all(&EntryPath::new("pg_wal")?, 0o700)?;
        self.write_whole(&EntryPath::new("backup_label")?, &label, &own)?;
        if let Some((uid, gid)) = owner {
            for name in &wal {
                self.root.set_owner(&EntryPath::new("pg_wal")?.join(name)?, uid, gid)?;
            }
            self.root.set_top_owner(uid, gid)?;
        }
        self.configure(&wal, &own)?;
        // The server refuses any other mode.
        let mode = if self.mode(&top, 0o700) == 0o750 { 0o750 } else { 0o700 };
        self.root.set_top_mode(mode)?;

        let prepared = EntryPath::new("global/pg_control.lifeboat")?;
        self.write_whole(&prepared, &control.for_restore(), &own)?;
        for (_, root) in self.tablespaces.apart() {
            root.sync_file_system()?;
        }
        self.root.sync_file_system()?;

        let control_path = EntryPath::new("global/pg_control")?;
        let global = EntryPath::new("global")?;
        let visible = self.root.rename(&prepared, &control_path).and_then(|()| {
            self.root.sync_dir(Some(&global))?;
            self.root.remove(&marker()?)?;
            self.root.sync_dir(None)
        });
        if let Err(error) = visible {
            // What is not known to be durable must not start.
            let _ = self.root.remove(&control_path);
            return Err(error);
        }
        Ok(self.receipt(completion, owner, configured))
    }

    /// Tells the server about its recovery, and of WAL that it need not be archived: it came from
    /// there. Blocks.
    fn configure(&self, wal: &[Vec<u8>], own: &Attributes) -> Result<()> {
        let mut settings = Vec::new();
        if let Some(recovery) = &self.recovery {
            self.write_whole(&EntryPath::new(recovery.signal.file())?, &[], own)?;
            let done = EntryPath::new("pg_wal/archive_status")?;
            self.root.create_dir_all(&done, 0o700)?;
            if let (Some(uid), Some(gid)) = (own.unsigned(names::UID), own.unsigned(names::GID)) {
                let id = |id: u64| u32::try_from(id).unwrap_or(u32::MAX);
                self.root.set_owner(&done, id(uid), id(gid))?;
            }
            for name in wal {
                let mark = [name.as_slice(), b".done"].concat();
                self.write_whole(&done.join(&mark)?, &[], own)?;
            }
            settings.extend(recovery.lines.iter().cloned());
        }
        if self.archiving == Archiving::Off {
            settings.push(("archive_mode".to_owned(), "off".to_owned()));
        }
        if settings.is_empty() {
            return Ok(());
        }
        let path = EntryPath::new(AUTO_CONF)?;
        let mut former = Vec::new();
        match self.root.open_file(&path) {
            Ok(file) => {
                let read = std::io::Read::read_to_end(&mut &file, &mut former);
                read.map_err(|error| {
                    lifeboat_core::local::failed("read", &self.root.show(&path), error)
                })?;
                self.root.remove(&path)?;
            }
            Err(error) if error.kind() == lifeboat_core::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.write_whole(&path, &rewrite(&former, &settings), own)
    }

    fn receipt(
        &self,
        completion: &Completion,
        owner: Option<(u32, u32)>,
        configured: bool,
    ) -> Receipt {
        let directory = self.root.path().display().to_string();
        let version = completion.facts.text(facts::VERSION).unwrap_or_default();
        let major = version.split(['.', ' ']).next().unwrap_or_default();
        let account = owner.and_then(|(uid, _)| self.owners.account_name(uid));
        let as_whom = account.map(|name| format!(", as the account {name}")).unwrap_or_default();
        let mut facts = Attributes::new()
            .with(facts::DIRECTORY, directory.as_str())
            .with(
                "postgres.next",
                format!("start it with PostgreSQL {major}{as_whom}: pg_ctl -D '{directory}' start"),
            )
            .with(
                "postgres.note.unlogged",
                "unlogged tables come back empty, and replication slots do not come back",
            );
        if !configured {
            facts.set(
                "postgres.note.configuration",
                "postgresql.conf was not in the data directory: give it with -c config_file=…",
            );
        }
        if let Some(recovery) = &self.recovery {
            facts.set("postgres.note.recovery", recovery.told.as_str());
        } else if self.archiving == Archiving::Kept
            && completion.facts.text(facts::ARCHIVE_MODE).is_some_and(|mode| mode != "off")
        {
            facts.set(
                "postgres.note.archiving",
                "archive_mode is not off: a copy beside the original would archive into the original's archive; start a copy with -c archive_mode=off",
            );
        }
        for (oid, root) in self.tablespaces.apart() {
            let name = format!("postgres.tablespace.{}", oid.escape_ascii());
            facts.set(name, root.path().display().to_string());
        }
        Receipt { snapshot: None, facts }
    }

    /// Removes everything. Blocks.
    fn undo(&self) {
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
