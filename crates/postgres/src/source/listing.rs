//! From the files of a data directory to entries: opened, or known to be unchanged.
//!
//! Runs on a thread of its own, a few entries ahead of whoever asks for them. A file is opened
//! before it is announced, so that the server may remove it afterwards.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use lifeboat_core::{
    Attributes, Baseline, Context, EntryInfo, EntryKind, EntryPath, Layout, names,
};
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::cluster::Cluster;
use super::damage::{Pages, known_damage};
use super::summaries::Changes;
use super::walk::{CLUSTER, Found, ServerLogs, Visitor, bytes_to_path, walk};
use super::{Unchanged, VerifyPages, facts};
use crate::accounts::Accounts;
use crate::error::{Error, Result};

/// How many entries the listing runs ahead. Each may hold a file open.
const AHEAD: usize = 64;

/// A file may be taken for unchanged when it was last changed this long before the last backup
/// began: more than the coarsest clock of any file system ticks.
const SAFETY_NS: i128 = 2_000_000_000;

/// File systems of other hosts, whose clocks and caches decide about change times: NFS, SMB, CIFS,
/// SMB2, FUSE, Ceph, AFS, 9P, Lustre, GPFS.
const REMOTE: [u64; 10] = [
    0x6969,
    0x517B,
    0xFF53_4D42,
    0xFE53_4D42,
    0x6573_5546,
    0x00C3_6400,
    0x5346_414F,
    0x0102_1997,
    0x0BD0_0BD0,
    0x4750_4653,
];

/// What the listing gives.
pub(super) enum Item {
    /// A directory, or a link.
    Plain { path: EntryPath, kind: EntryKind, attributes: Attributes },
    /// A file.
    File { path: EntryPath, attributes: Attributes, size: u64, layout: Layout, content: Origin },
    /// The last one. Without it, the listing broke off.
    End,
}

/// Where the content of a file comes from.
pub(super) enum Origin {
    /// From the baseline.
    Unchanged,
    /// From the file.
    Read {
        file: File,
        on_disk: PathBuf,
        pages: Option<Pages>,
        /// Which bytes are read, where the baseline has the rest.
        ranges: Option<VecDeque<Range<u64>>>,
    },
}

/// What a listing is made of.
pub(super) struct Listing {
    pub(super) cluster: Arc<Cluster>,
    pub(super) logs: ServerLogs,
    pub(super) verify: bool,
    pub(super) trust: Option<Trust>,
    pub(super) changes: Option<Changes>,
    pub(super) context: Context,
    /// Filled as tablespaces are met: the device that holds each.
    pub(super) places: Arc<Mutex<Places>>,
}

/// Where the data is.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// 0 for the data directory.
    pub(super) devices: BTreeMap<u32, u64>,
    pub(super) tablespaces: BTreeMap<u32, Vec<u8>>,
}

impl Listing {
    /// Starts the listing; dropping the receiver ends it.
    pub(super) fn start(self) -> mpsc::Receiver<Result<Item>> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            let cluster = Arc::clone(&self.cluster);
            let logs = self.logs;
            let mut lister = Lister {
                listing: self,
                accounts: Accounts::read(),
                runtime,
                sender: sender.clone(),
                remote: BTreeMap::new(),
            };
            let last = walk(&cluster, logs, &mut lister).map(|()| Item::End);
            // Nobody waits for it when the reading was dropped.
            let _ = sender.blocking_send(last);
        });
        receiver
    }
}

/// The size of all files that a backup would read. Blocks.
pub(crate) fn measure(cluster: &Cluster, logs: ServerLogs) -> Result<u64> {
    struct Sum(u64);
    impl Visitor for Sum {
        fn directory(&mut self, _: EntryPath, _: &Stat, _: Option<Vec<u8>>) -> Result<()> {
            Ok(())
        }
        fn link(&mut self, _: EntryPath, _: &Stat, _: Vec<u8>) -> Result<()> {
            Ok(())
        }
        fn file(&mut self, file: Found<'_>) -> Result<()> {
            self.0 += length(&file.stat);
            Ok(())
        }
        fn skipped(&mut self, _: &EntryPath, _: &str) {}
    }
    let mut sum = Sum(0);
    walk(cluster, logs, &mut sum)?;
    Ok(sum.0)
}

struct Lister {
    listing: Listing,
    accounts: Accounts,
    runtime: Handle,
    sender: mpsc::Sender<Result<Item>>,
    /// Which devices are file systems of other hosts.
    remote: BTreeMap<u64, bool>,
}

impl Lister {
    fn give(&self, item: Item) -> Result<()> {
        // The reading was dropped: any error ends the walk, and nobody hears of it.
        self.sender.blocking_send(Ok(item)).map_err(|_| Error::Unfinished)
    }

    fn owner(&self, stat: &Stat) -> Attributes {
        let mut attributes = Attributes::new()
            .with(names::MODE, u64::from(stat.st_mode & 0o7777))
            .with(names::UID, stat.st_uid)
            .with(names::GID, stat.st_gid);
        if let Some(user) = self.accounts.user_name(stat.st_uid) {
            attributes.set(names::USER, user);
        }
        if let Some(group) = self.accounts.group_name(stat.st_gid) {
            attributes.set(names::GROUP, group);
        }
        attributes
    }

    fn times(&self, stat: &Stat) -> Attributes {
        let clamp = |nanoseconds: i128| i64::try_from(nanoseconds).unwrap_or_default();
        self.owner(stat)
            .with(names::MODIFIED, clamp(nanoseconds(stat.st_mtime, stat.st_mtime_nsec)))
            .with(names::CHANGED, clamp(changed(stat)))
            .with(names::INODE, stat.st_ino)
    }

    fn layout(&self, file: &Found<'_>) -> (Layout, Option<Pages>) {
        let Some((directory, relation)) = file.relation else {
            return (Layout::Stream, None);
        };
        let control = &self.listing.cluster.control;
        let pages = Pages {
            directory,
            file: relation,
            page_size: control.block_size,
            first_block: relation.segment.wrapping_mul(control.relation_segment_blocks),
        };
        let looked_at = self.listing.verify.then_some(pages);
        (Layout::Pages(control.block_size), looked_at)
    }

    /// Whether the baseline has exactly the bytes that reading the file would give now.
    fn is_unchanged(&mut self, file: &Found<'_>, layout: Layout, attributes: &Attributes) -> bool {
        let Some(trust) = &self.listing.trust else {
            return false;
        };
        let looked_at = self.listing.verify && file.relation.is_some();
        if trust.devices.get(&file.tablespace) != Some(&file.stat.st_dev)
            || changed(&file.stat) + SAFETY_NS > trust.started
            || trust.damaged.contains(file.path.as_bytes())
            || (looked_at && !trust.verified)
        {
            return false;
        }
        // A baseline that cannot be read saves no work, and does no harm.
        let Ok(Some(old)) = self.runtime.block_on(trust.baseline.entry(&file.path)) else {
            return false;
        };
        let EntryInfo { kind, size, layout: old_layout, attributes: had, .. } = old;
        let same = |name: &str| had.get(name).is_some() && had.get(name) == attributes.get(name);
        kind == EntryKind::File
            && size == length(&file.stat)
            && old_layout == layout
            && [names::MODIFIED, names::CHANGED, names::INODE].into_iter().all(same)
            && !self.is_remote(file)
    }

    /// Which bytes must be read of a file that changed, where the server told which pages did.
    fn ranges(&self, file: &Found<'_>, layout: Layout) -> Option<VecDeque<Range<u64>>> {
        let (trust, changes) = (self.listing.trust.as_ref()?, self.listing.changes.as_ref()?);
        let (directory, relation) = file.relation?;
        if trust.damaged.contains(file.path.as_bytes()) || (self.listing.verify && !trust.verified)
        {
            return None;
        }
        let old = self.runtime.block_on(trust.baseline.entry(&file.path)).ok().flatten()?;
        if old.kind != EntryKind::File || old.layout != layout {
            return None;
        }
        let control = &self.listing.cluster.control;
        let pages =
            (control.block_size.into(), control.relation_segment_blocks, length(&file.stat));
        changes.to_read(directory, relation, pages, old.size).map(VecDeque::from)
    }

    fn is_remote(&mut self, file: &Found<'_>) -> bool {
        *self.remote.entry(file.stat.st_dev).or_insert_with(|| {
            rustix::fs::fstatfs(file.directory)
                .map_or(true, |about| REMOTE.contains(&(about.f_type as u64 & 0xFFFF_FFFF)))
        })
    }
}

impl Visitor for Lister {
    fn directory(
        &mut self,
        path: EntryPath,
        stat: &Stat,
        tablespace: Option<Vec<u8>>,
    ) -> Result<()> {
        let mut attributes = self.owner(stat);
        {
            let mut places = self.listing.places.lock();
            places.devices.entry(0).or_insert(stat.st_dev);
            let components: Vec<&[u8]> = path.components().collect();
            if let [_, b"pg_tblspc", oid] = components.as_slice() {
                let oid = std::str::from_utf8(oid).ok().and_then(|oid| oid.parse().ok());
                if let Some(oid) = oid {
                    places.devices.insert(oid, stat.st_dev);
                    places.tablespaces.insert(oid, tablespace.clone().unwrap_or_default());
                }
            }
        }
        if let Some(location) = tablespace {
            attributes.set(names::TARGET, location);
        }
        self.give(Item::Plain { path, kind: EntryKind::Directory, attributes })
    }

    fn link(&mut self, path: EntryPath, stat: &Stat, target: Vec<u8>) -> Result<()> {
        let attributes = self.owner(stat).with(names::TARGET, target);
        self.give(Item::Plain { path, kind: EntryKind::Symlink, attributes })
    }

    fn file(&mut self, mut found: Found<'_>) -> Result<()> {
        let (layout, pages) = self.layout(&found);
        let attributes = self.times(&found.stat);
        if self.is_unchanged(&found, layout, &attributes) {
            return self.give(Item::File {
                size: length(&found.stat),
                path: found.path,
                attributes,
                layout,
                content: Origin::Unchanged,
            });
        }
        let inner = found.path.as_bytes().get(CLUSTER.len() + 1..).unwrap_or_default();
        let on_disk = self.listing.cluster.directory.join(bytes_to_path(inner));
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(found.directory, found.name, flags, Mode::empty());
        let opened = opened.and_then(|file| Ok((rustix::fs::fstat(&file)?, file)));
        let (stat, file) = match opened {
            // Removed since it was listed: the WAL says so, too.
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => {
                return Err(Error::File { what: "open", path: on_disk, source: error.into() });
            }
            Ok(opened) => opened,
        };
        found.stat = stat;
        let ranges = self.ranges(&found, layout);
        self.give(Item::File {
            attributes: self.times(&found.stat),
            size: length(&found.stat),
            path: found.path,
            layout,
            content: Origin::Read { file: File::from(file), on_disk, pages, ranges },
        })
    }

    fn skipped(&mut self, path: &EntryPath, why: &str) {
        self.listing.context.warn(path, why);
    }
}

fn length(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or_default()
}

fn nanoseconds(seconds: i64, nanoseconds: u64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

fn changed(stat: &Stat) -> i128 {
    nanoseconds(stat.st_ctime, stat.st_ctime_nsec)
}

/// A baseline of the same cluster, in the same place.
pub(super) struct Trust {
    baseline: Arc<dyn Baseline>,
    /// When its files began to be read, by this host's clock.
    started: i128,
    devices: BTreeMap<u32, u64>,
    damaged: HashSet<Vec<u8>>,
    verified: bool,
}

impl Trust {
    /// What the source recorded in it.
    pub(super) fn facts(&self) -> &Attributes {
        &self.baseline.snapshot().facts
    }

    /// What can be trusted of a baseline, if anything.
    pub(super) fn of(
        baseline: Option<Arc<dyn Baseline>>,
        cluster: &Cluster,
        unchanged: Unchanged,
        verify: VerifyPages,
    ) -> Option<Self> {
        let baseline = baseline.filter(|_| unchanged == Unchanged::ByChangeTime)?;
        let known = &baseline.snapshot().facts;
        if known.text(facts::SYSTEM_ID) != Some(&cluster.control.system_id.to_string())
            || known.unsigned(facts::BLOCK_SIZE) != Some(cluster.control.block_size.into())
        {
            return None;
        }
        let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse().ok();
        let rows = known.pairs(facts::DEVICES)?.iter();
        let devices = rows.map(|(oid, device)| {
            let oid = number(oid).and_then(|oid| u32::try_from(oid).ok())?;
            Some((oid, number(device)?))
        });
        let now_checked = verify == VerifyPages::Verify && cluster.control.checksum_version != 0;
        let trust = Self {
            started: known.signed(facts::STARTED)?.into(),
            devices: devices.collect::<Option<_>>()?,
            damaged: known_damage(known)?,
            verified: !now_checked || known.text(facts::PAGES) == Some(facts::VERIFIED),
            baseline,
        };
        // A clock that went back makes every time worthless.
        (trust.started <= Timestamp::now().as_nanosecond()).then_some(trust)
    }
}
