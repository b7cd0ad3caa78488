//! Siblings of snapshots that lack something for good.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use lifeboat_core::{
    Context, EntryInfo, EntryKind, EntryPath, SnapshotId, SnapshotInfo, Timestamp, names,
};

use super::{Originals, RepairMode, RepairOptions, Right, snapshot_name};
use crate::check::Health;
use crate::chunk::ChunkKind;
use crate::content::{ContentRecord, Piece, PieceList, push};
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::read::ChunkReader;
use crate::repository::{Compression, Repository};
use crate::snapshot::{RootArea, SnapshotRecord};
use crate::tree::{EntryRecord, Page, TreeReader, TreeWriter, compare};
use crate::write::{ChunkWriter, record_of};

/// What the name of a file ends with of which a part is lost.
const SUFFIX: &str = ".lifeboat-damaged";
/// The word that a sibling has among its tags.
const TAG: &str = "repaired";
/// So many lost entries are named in the facts of a sibling.
const NAMED: usize = 1000;
/// The fact of a sibling that names the snapshot of which it has what was left.
const OF: &str = "repair.of";
const LOST_ENTRIES: &str = "repair.lost_entries";
const LOST_BYTES: &str = "repair.lost_bytes";
const LOST: &str = "repair.lost";

/// The snapshot of which `info` has what was left, when it is the sibling that a repair made.
pub fn repaired_original(info: &SnapshotInfo) -> Option<SnapshotId> {
    info.facts.text(OF)?.parse().ok()
}

/// What a repair of snapshots did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotsRepair {
    /// The snapshots that lack something, the oldest first.
    pub snapshots: Vec<SnapshotRepair>,
    /// Snapshots of which nothing can be read, and why.
    pub beyond_repair: Vec<(String, String)>,
}

impl SnapshotsRepair {
    /// Whether there was nothing to do.
    pub fn is_idle(&self) -> bool {
        self.snapshots.is_empty() && self.beyond_repair.is_empty()
    }
}

/// One snapshot that lacks something.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotRepair {
    /// The hurt one.
    pub snapshot: SnapshotId,
    /// Its sibling; `None` in a dry run. It may have been made by an earlier repair.
    pub sibling: Option<SnapshotId>,
    /// How many entries cannot be restored in full.
    pub lost_entries: u64,
    /// How many bytes of content are lost.
    pub lost_bytes: u64,
    /// What is lost, in words: the first thousand of them.
    pub lost: Vec<String>,
}

pub(super) async fn repair(
    repository: &Repository,
    options: &RepairOptions,
    right: &Right,
    context: &Context,
) -> Result<SnapshotsRepair> {
    context.phase("look for snapshots that lack something");
    let listed = repository.roots().await?;
    let mut report =
        SnapshotsRepair { beyond_repair: listed.damaged.clone(), ..SnapshotsRepair::default() };
    let health = Health::of(repository).await?;
    let hurt = health.hurt(repository, &listed.snapshots, context).await?;
    let siblings: HashMap<_, _> = listed
        .snapshots
        .iter()
        .filter_map(|info| Some((info.facts.text(OF)?.to_owned(), info.id)))
        .collect();
    for info in listed.snapshots.iter().filter(|info| hurt.contains(&info.id)) {
        context.check()?;
        context.phase(format!("go through snapshot {}", info.id.short()));
        let known = siblings.get(&info.id.to_string()).filter(|id| !hurt.contains(*id)).copied();
        let mode = if known.is_some() { RepairMode::DryRun } else { options.mode };
        let mut repair = match Sibling::make(repository, info, &health, mode, context).await {
            Ok(repair) => repair,
            Err(error) if error.is_damage() => {
                report.beyond_repair.push((snapshot_name(&info.id), error.to_string()));
                continue;
            }
            Err(error) => return Err(error),
        };
        repair.sibling = repair.sibling.or(known);
        let forget = options.mode == RepairMode::Apply && options.originals == Originals::Forget;
        if forget && repair.sibling.is_some() {
            right.check().await?;
            repository.shared().objects.delete(&snapshot_name(&info.id)).await?;
        }
        report.snapshots.push(repair);
    }
    Ok(report)
}

/// A sibling on its way.
struct Sibling<'a> {
    health: &'a Health,
    chunks: Arc<ChunkReader>,
    writer: Option<Arc<ChunkWriter>>,
    tree: Option<TreeWriter>,
    /// Entries with a new name that come later in the order.
    later: BTreeMap<Key, EntryRecord>,
    /// New names of files, for their hard links.
    renamed: HashMap<Vec<u8>, Vec<u8>>,
    /// Files of which nothing is left: a hard link to one would lead nowhere.
    gone: HashSet<Vec<u8>>,
    lost_entries: u64,
    lost_bytes: u64,
    lost: Vec<String>,
}

/// A path in the order of a tree.
#[derive(Debug, PartialEq, Eq)]
struct Key(Vec<u8>);

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<'a> Sibling<'a> {
    async fn make(
        repository: &Repository,
        info: &SnapshotInfo,
        health: &'a Health,
        mode: RepairMode,
        context: &Context,
    ) -> Result<SnapshotRepair> {
        let shared = repository.shared();
        let writer = match mode {
            RepairMode::DryRun => None,
            RepairMode::Apply => {
                let (shared, level) = (Arc::clone(shared), Compression::default().level());
                let what = "a repair of snapshots";
                Some(ChunkWriter::begin(shared, context.clone(), level, what).await?)
            }
        };
        // Pages of the tree that only damaged packs have are not relied on either.
        shared.index.lose(health.unreliable());
        let chunks = Arc::new(ChunkReader::new(Arc::clone(shared)));
        let tree = writer.as_ref();
        let tree = tree.map(|writer| TreeWriter::new(Arc::clone(writer), Arc::clone(&shared.keys)));
        let mut sibling = Self {
            health,
            chunks: Arc::clone(&chunks),
            writer,
            tree,
            later: BTreeMap::new(),
            renamed: HashMap::new(),
            gone: HashSet::new(),
            lost_entries: 0,
            lost_bytes: 0,
            lost: Vec::new(),
        };
        let (objects, keys) = (&shared.objects, &shared.keys);
        let record = SnapshotRecord::read(objects, keys, RootArea::Snapshots, &info.id).await?;
        let gone = || Error::NoSuchSnapshot { name: info.id.to_string() };
        let record = record.ok_or_else(gone)?;
        let old = TreeReader::new(chunks, record.root());
        let root = old.page(record.root(), None).await?;
        sibling.page(&old, &root, context).await?;
        let id = sibling.commit(repository, info, record).await?;
        Ok(SnapshotRepair {
            snapshot: info.id,
            sibling: id,
            lost_entries: sibling.lost_entries,
            lost_bytes: sibling.lost_bytes,
            lost: sibling.lost,
        })
    }

    fn note(&mut self, what: String, entries: u64, bytes: u64) {
        self.lost_entries += entries;
        self.lost_bytes += bytes;
        if self.lost.len() < NAMED {
            self.lost.push(what);
        }
    }

    async fn page(&mut self, old: &TreeReader, page: &Page, context: &Context) -> Result<()> {
        context.check()?;
        for entry in &page.entries {
            self.entry(entry).await?;
        }
        for (at, child) in page.children.iter().enumerate() {
            let below = page.level.saturating_sub(1);
            match old.page(child.page, Some(below)).await {
                Ok(page) => Box::pin(self.page(old, &page, context)).await?,
                Err(error) if error.is_damage() => {
                    let first = child.first.escape_ascii();
                    let end = page.children.get(at + 1).map_or_else(
                        || "what follows it in the order of paths".to_owned(),
                        |next| format!("before {}", next.first.escape_ascii()),
                    );
                    let what = format!("{} entries from {first} to {end}", child.entries);
                    self.note(what, child.entries, child.bytes);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn entry(&mut self, record: &EntryRecord) -> Result<()> {
        let name = record.raw_path().escape_ascii().to_string();
        let Ok(mut info) = record.info() else {
            self.note(name, 1, record.size);
            return Ok(());
        };
        match info.kind {
            EntryKind::File => {}
            EntryKind::HardLink => {
                let target = info.attributes.bytes(names::TARGET).map(<[u8]>::to_vec);
                let target = target.unwrap_or_default();
                if self.gone.contains(&target) {
                    self.note(format!("{name}: a hard link to what is lost"), 0, 0);
                    return Ok(());
                }
                if let Some(new) = self.renamed.get(&target) {
                    info.attributes.set(names::TARGET, new.clone());
                    return self.push(EntryRecord::new(&info, record.content.clone())).await;
                }
                return self.push(record.clone()).await;
            }
            _ => return self.push(record.clone()).await,
        }
        let found = self.survey(&record.content).await?;
        let total: u64 = found.pieces.iter().map(|piece| piece.length).sum();
        if found.lost == 0 && total == record.size {
            let mut content = record.content.clone();
            if let Some(fingerprints) = &content.fingerprints
                && !self.has_all(fingerprints).await?
            {
                content.fingerprints = None;
            }
            return self.push(EntryRecord::new(&info, content)).await;
        }
        let lost = found.lost.max(record.size.saturating_sub(total));
        self.note(format!("{name}: {lost} of {} bytes", record.size), 1, lost);
        if lost < record.size {
            self.rename(&mut info, found.pieces, lost).await?;
        } else {
            self.gone.insert(record.raw_path().to_vec());
        }
        Ok(())
    }

    /// Keeps what is left of a file under another name.
    async fn rename(&mut self, info: &mut EntryInfo, pieces: Vec<Piece>, lost: u64) -> Result<()> {
        let old = info.path.as_bytes().to_vec();
        let Ok(path) = EntryPath::new([&old, SUFFIX.as_bytes()].concat()) else {
            return Ok(());
        };
        info.size = pieces.iter().map(|piece| piece.length).sum();
        info.attributes.set(LOST_BYTES, lost);
        let content = match &self.writer {
            Some(writer) => record_of(writer, pieces, None).await?,
            None => ContentRecord::default(),
        };
        info.path = path;
        let new = info.path.as_bytes().to_vec();
        self.renamed.insert(old, new.clone());
        self.later.insert(Key(new), EntryRecord::new(info, content));
        Ok(())
    }

    /// Appends an entry, and before it those with new names that come first.
    async fn push(&mut self, record: EntryRecord) -> Result<()> {
        while let Some(first) = self.later.first_entry() {
            match compare(&first.key().0, record.raw_path()) {
                std::cmp::Ordering::Less => {}
                // An entry of that name is there already: it stays.
                std::cmp::Ordering::Equal => {
                    first.remove();
                    continue;
                }
                std::cmp::Ordering::Greater => break,
            }
            let renamed = first.remove();
            if let Some(tree) = &mut self.tree {
                tree.push(&renamed).await?;
            }
        }
        match &mut self.tree {
            Some(tree) => tree.push(&record).await,
            None => Ok(()),
        }
    }

    async fn readable(&self, kind: ChunkKind, id: ChunkId, end: u64) -> Result<bool> {
        Ok(self.health.trouble(&self.chunks, kind, id, end).await?.is_none())
    }

    async fn has_all(&self, record: &ContentRecord) -> Result<bool> {
        for id in record.list.chunks() {
            let kind = if record.depth == 0 { ChunkKind::Fingerprints } else { ChunkKind::List };
            if !self.readable(kind, *id, 0).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What of a content is there: its pieces, with holes for those that are lost.
    async fn survey(&self, record: &ContentRecord) -> Result<Survey> {
        let mut survey = Survey::default();
        if let Some(pieces) = record.list.decode() {
            self.list(pieces, record.depth, &mut survey).await?;
        }
        Ok(survey)
    }

    async fn list(&self, pieces: Vec<Piece>, depth: u8, survey: &mut Survey) -> Result<()> {
        for piece in pieces {
            let Some(id) = piece.chunk else {
                push(&mut survey.pieces, piece);
                continue;
            };
            if depth > 0 {
                match self.page_of_list(id, piece.length).await? {
                    Some(page) => Box::pin(self.list(page, depth - 1, survey)).await?,
                    None => survey.lose(piece.length),
                }
                continue;
            }
            let end = u64::from(piece.offset).saturating_add(piece.length);
            if self.readable(ChunkKind::Data, id, end).await? {
                push(&mut survey.pieces, piece);
            } else {
                survey.lose(piece.length);
            }
        }
        Ok(())
    }

    async fn page_of_list(&self, id: ChunkId, length: u64) -> Result<Option<Vec<Piece>>> {
        let bytes = match self.chunks.read(ChunkKind::List, id).await {
            Err(error) if error.is_damage() => return Ok(None),
            read => read?,
        };
        let list: Option<PieceList> = minicbor::decode(&bytes).ok();
        let whole = list.filter(|list| list.length() == Some(length) && list.len() > 0);
        Ok(whole.and_then(|list| list.decode()))
    }

    async fn commit(
        &mut self,
        repository: &Repository,
        info: &SnapshotInfo,
        record: SnapshotRecord,
    ) -> Result<Option<SnapshotId>> {
        let (Some(writer), Some(mut tree)) = (self.writer.take(), self.tree.take()) else {
            return Ok(None);
        };
        for renamed in std::mem::take(&mut self.later).into_values() {
            tree.push(&renamed).await?;
        }
        let (root, entries, bytes) = tree.finish().await?;
        writer.settle().await?;
        let facts = info
            .facts
            .clone()
            .with(OF, info.id.to_string())
            .with(LOST_ENTRIES, self.lost_entries)
            .with(LOST_BYTES, self.lost_bytes)
            .with(LOST, self.lost.join("\n"));
        let warnings = info.warnings.saturating_add(self.lost_entries);
        let sibling = record
            .sibling(info.id, root, TAG, &facts)
            .counted(entries, bytes, writer.written(), warnings)
            .committed_at(Timestamp::now());
        let shared = repository.shared();
        let (id, _) = sibling.write(&shared.objects, &shared.keys).await?;
        if let Err(error) = writer.confirm().await {
            shared.objects.delete(&snapshot_name(&id)).await?;
            return Err(error);
        }
        Ok(Some(id))
    }
}

#[derive(Default)]
struct Survey {
    pieces: Vec<Piece>,
    lost: u64,
}

impl Survey {
    fn lose(&mut self, length: u64) {
        self.lost = self.lost.saturating_add(length);
        push(&mut self.pieces, Piece::hole(length));
    }
}
