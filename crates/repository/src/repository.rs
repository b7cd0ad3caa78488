//! The handle on a repository.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join;
use futures_util::{StreamExt, TryStreamExt, stream};
use lifeboat_core::{Origin, PinId, Sink, SnapshotId, SnapshotInfo, StoreRef, Warehouse};
use object_store::{ObjectStore, PutPayload};
use parking_lot::RwLock;

use crate::chunk::{Chunker, Gear};
use crate::config::{self, Config, Features, Parameters};
use crate::crypto::{Holder, KdfCost, Keys, RootKey, Secret, Share, Slot, random};
use crate::error::{Error, Result};
use crate::id::{ChunkId, ObjectId, RepositoryId};
use crate::index::{Cache, CacheDirectory, Index};
use crate::keyring::{self, OwnKey};
use crate::maintenance::{Lease, StoreClock};
use crate::objects::{KEYS, Objects, id_of, name_in};
use crate::pool::Pool;
use crate::probe::{self, ConditionalPut};
use crate::read::ChunkReader;
use crate::snapshot::{RootArea, Snapshot, SnapshotRecord, choose};
use crate::storage;
use crate::write::RepositorySink;

/// How many snapshot roots are read at once.
const FETCHES: usize = 16;

/// How a repository is made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct InitOptions {
    /// What the first key is called in listings.
    pub label: String,
    /// What trying one passphrase costs.
    pub cost: KdfCost,
    /// How content is cut and packed.
    pub parameters: Parameters,
    /// What the store must promise.
    pub promise: Promise,
    /// The class of storage for packs of data, as the store calls it; `None` is its usual one. With
    /// an archive, and parameters that nobody chose, packs are made larger.
    pub data_class: Option<String>,
    /// What the store keeps of objects beside their bytes.
    pub warehouse: Option<Arc<dyn Warehouse>>,
}

/// What is asked of a store before a repository is made on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Promise {
    /// That it makes an object only if there is none, when it is asked to. It is tried.
    #[default]
    ConditionalPuts,
    /// Nothing but to keep what it is given. Snapshots are as safe: names derive from content. But
    /// the store cannot tell whether two hosts prune at once, and journals cannot be kept.
    Weaker,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self {
            label: "first".into(),
            cost: KdfCost::default(),
            parameters: Parameters::default(),
            promise: Promise::default(),
            data_class: None,
            warehouse: None,
        }
    }
}

/// How a repository is opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Where this host keeps what it read of the index for the next time.
    pub cache: Cache,
    /// What the store keeps of objects beside their bytes. Without it, data in a class of its own
    /// can be read and added to; what asks about classes fails.
    pub warehouse: Option<Arc<dyn Warehouse>>,
}

impl OpenOptions {
    /// With what the store keeps beside bytes, see [`OpenOptions::warehouse`].
    #[must_use]
    pub fn with_warehouse(mut self, warehouse: Arc<dyn Warehouse>) -> Self {
        self.warehouse = Some(warehouse);
        self
    }

    /// With a cache of the index, see [`OpenOptions::cache`].
    #[must_use]
    pub fn with_cache(mut self, cache: Cache) -> Self {
        self.cache = cache;
        self
    }
}

/// How a snapshot is written.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WriteOptions {
    /// How hard chunks are compressed.
    pub compression: Compression,
    /// How often a write that takes long commits an incomplete snapshot, which a later run takes
    /// up where this one ends too early. `None` is never.
    pub checkpoint_every: Option<Duration>,
}

impl Default for WriteOptions {
    /// Balanced compression, and a checkpoint every five minutes.
    fn default() -> Self {
        let checkpoint_every = Some(Duration::from_mins(5));
        Self { compression: Compression::default(), checkpoint_every }
    }
}

/// How hard chunks are compressed, by zstd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Level 1: the fastest that still finds most.
    Fast,
    /// Level 2: as small as level 3, within half a per cent, for two thirds of the work.
    #[default]
    Balanced,
    /// Level 9: for archives, at a quarter of the speed.
    Small,
}

impl Compression {
    pub(crate) fn level(self) -> i32 {
        match self {
            Self::Fast => 1,
            Self::Balanced => 2,
            Self::Small => 9,
        }
    }
}

/// What every part of an open repository works with.
pub(crate) struct Shared {
    pub(crate) objects: Objects,
    pub(crate) config: Config,
    /// Those of the configuration, and what was added since it was read.
    features: RwLock<Features>,
    pub(crate) keys: Arc<Keys>,
    /// The holder's key that gave `keys`.
    own: RwLock<Arc<OwnKey>>,
    pub(crate) index: Index,
    pub(crate) pool: Pool,
    pub(crate) chunker: Chunker,
    /// For streams of small records.
    pub(crate) record_chunker: Chunker,
    pub(crate) warehouse: Option<Arc<dyn Warehouse>>,
}

impl Shared {
    /// What the repository asks of a program.
    pub(crate) fn features(&self) -> Features {
        self.features.read().clone()
    }

    /// The holder's key that the repository was opened with.
    pub(crate) fn own(&self) -> Arc<OwnKey> {
        Arc::clone(&self.own.read())
    }

    /// Another key of the same holder takes its place.
    pub(crate) fn take(&self, own: OwnKey) {
        *self.own.write() = Arc::new(own);
    }

    /// Looks whether the key was rotated, and takes the newest epoch.
    pub(crate) async fn renew_keys(&self) -> Result<()> {
        self.own().renew(&self.objects, &self.keys).await
    }

    /// Opens the object `name`. Where that meets an epoch of the key that is not known here, it looks
    /// whether the key was rotated, and opens it again. An epoch that no holder was ever given is
    /// damage.
    pub(crate) async fn renewing<T>(&self, name: &str, open: impl Fn() -> Result<T>) -> Result<T> {
        match open() {
            Err(Error::Rotated { .. }) => {}
            other => return other,
        }
        self.renew_keys().await?;
        match open() {
            Err(Error::Rotated { epoch }) if epoch > self.keys.latest() => {
                let what = format!("it names epoch {epoch} of the key, and there never was one");
                Err(Error::damaged(name, what))
            }
            other => other,
        }
    }

    /// Takes the lease of whoever replaces or deletes objects.
    pub(crate) async fn lease(&self, what: &str) -> Result<Lease> {
        let clock = StoreClock::ask(&self.objects).await?;
        Lease::take(&self.objects, &self.keys, &clock, what).await
    }

    /// Loads what is new in the index.
    pub(crate) async fn refresh_index(&self) -> Result<()> {
        match self.index.refresh(&self.objects, &self.keys).await {
            Err(Error::Rotated { .. }) => {
                self.renew_keys().await?;
                self.index.refresh(&self.objects, &self.keys).await
            }
            other => other,
        }
    }

    /// Reads again what the repository asks of a program. Whoever deletes does so first: a later
    /// version may have added something.
    pub(crate) async fn refresh_features(&self) -> Result<Features> {
        let bytes = self.objects.read(config::NAME, config::MAX_SIZE).await?;
        let parsed = Config::parse(&bytes.ok_or(Error::NotARepository)?)?;
        let features = parsed.verify(&self.keys)?.features;
        self.features.write().clone_from(&features);
        Ok(features)
    }

    /// Makes the repository ask for more of every program, durably, before something is done that
    /// programs without it would not understand.
    ///
    /// The configuration is the one object that is ever replaced; two that add different words at
    /// once are kept apart by the lease of maintenance.
    pub(crate) async fn demand(&self, more: &Features) -> Result<()> {
        let known = self.refresh_features().await?;
        let features = known.with(more);
        if features == known {
            return Ok(());
        }
        let config = Config { features: features.clone(), ..self.config.clone() };
        let file = config.to_file(&self.keys)?;
        self.objects.replace(config::NAME, PutPayload::from(file)).await?;
        self.features.write().clone_from(&features);
        Ok(())
    }
}

/// An open repository. Clones share it.
#[derive(Clone)]
pub struct Repository {
    shared: Arc<Shared>,
}

/// The snapshots of a repository.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SnapshotList {
    /// Those that can be read, the oldest first.
    pub snapshots: Vec<SnapshotInfo>,
    /// The objects that should be snapshots and cannot be read, and why.
    pub damaged: Vec<(String, String)>,
    /// The pins that cannot be read, and why: nobody knows which snapshot they hold.
    pub damaged_pins: Vec<(PinId, String)>,
}

impl SnapshotList {
    /// As [`Repository::find`], in a list that was read already.
    ///
    /// # Errors
    /// When none or more than one is meant, or the one that is meant is damaged.
    pub fn find(&self, name: &str, store: Option<&StoreRef>) -> Result<SnapshotInfo> {
        choose(name, store, self)
    }
}

/// What the repository at a place says of who it is, read by one request and without a key: enough
/// to see that it is not another one than before, and no proof that it is what it says.
///
/// # Errors
/// When there is none, it is of a newer version, it is damaged, or it cannot be reached.
pub async fn id_without_key(store: Arc<dyn ObjectStore>) -> Result<RepositoryId> {
    Ok(read_config(&Objects::new(store)).await?.id)
}

async fn read_config(objects: &Objects) -> Result<config::Parsed> {
    let bytes = objects.read(config::NAME, config::MAX_SIZE).await?;
    Config::parse(&bytes.ok_or(Error::NotARepository)?)
}

impl Repository {
    /// Makes a repository where nothing is, with a key for whoever has `secret`, and opens it.
    ///
    /// # Errors
    /// When anything is at the place, or it cannot be written.
    pub async fn init(
        store: Arc<dyn ObjectStore>,
        secret: &Secret,
        options: &InitOptions,
    ) -> Result<Self> {
        Self::init_for(store, &Holder::of(secret)?, options).await
    }

    /// Makes a repository where nothing is, with a key for `holder`, and opens it. Who runs this
    /// need not be able to open it again.
    ///
    /// # Errors
    /// When anything is at the place, or it cannot be written.
    pub async fn init_for(
        store: Arc<dyn ObjectStore>,
        holder: &Holder,
        options: &InitOptions,
    ) -> Result<Self> {
        let (objects, warehouse) = (Objects::new(store), options.warehouse.as_ref());
        let class = options.data_class.as_deref();
        let class = class.map(|name| storage::choose(name, warehouse)).transpose()?;
        if objects.read(config::NAME, config::MAX_SIZE).await?.is_some() {
            return Err(Error::AlreadyARepository);
        }
        if let Some(found) = objects.anything().await? {
            return Err(Error::PlaceNotEmpty { found });
        }
        let id = RepositoryId::from_bytes(random()?);
        let puts = probe::conditional_put(&objects).await?;
        if puts == ConditionalPut::Ignored && options.promise == Promise::ConditionalPuts {
            return Err(Error::NoConditionalPut);
        }
        let mut parameters = options.parameters;
        if let Some(class) = &class {
            probe::class(&objects, &class.name).await?;
            if class.is_archive() && parameters == Parameters::default() {
                parameters.pack = storage::ARCHIVED_PACK;
            }
        }
        let class = class.as_ref().map(|class| class.name.as_str());
        let config = Config::new(id, parameters, puts, class)?;
        let pool = Pool::new()?;
        let root = RootKey::generate()?;
        let share = Share::Full(root.clone());
        let keys = Keys::of(&share, id);
        let file = config.to_file(&keys)?;
        let first = keyring::first(&options.label, options.cost);
        let description = keyring::describe(&pool, id, &root, holder, &first).await?;
        let own = OwnKey::Pair { public: description.public, holder: None };
        let slot = Slot::grant(&root, id, description)?.to_file()?;
        // The configuration comes last: it is what makes the place a repository.
        objects.create(&name_in(KEYS, ObjectId::of(&slot)), PutPayload::from(slot)).await?;
        objects.create(config::NAME, PutPayload::from(file)).await.map_err(
            |error| match error {
                Error::Conflict { .. } => Error::AlreadyARepository,
                other => other,
            },
        )?;
        let opened = OpenOptions { warehouse: options.warehouse.clone(), ..OpenOptions::default() };
        Ok(Self::assemble(objects, config, keys, own, pool, &opened))
    }

    /// Opens a repository, with the default options.
    ///
    /// # Errors
    /// As [`Repository::open_with`].
    pub async fn open(store: Arc<dyn ObjectStore>, secret: &Secret) -> Result<Self> {
        Self::open_with(store, secret, &OpenOptions::default()).await
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// When there is none, it is of a newer version, it is damaged, or `secret` opens none of its
    /// keys.
    pub async fn open_with(
        store: Arc<dyn ObjectStore>,
        secret: &Secret,
        options: &OpenOptions,
    ) -> Result<Self> {
        let objects = Objects::new(store);
        let parsed = read_config(&objects).await?;
        let pool = Pool::new()?;
        let (share, own) = keyring::unlock(&objects, &pool, parsed.id, secret).await?;
        let keys = Keys::of(&share, parsed.id);
        let config = parsed.verify(&keys)?;
        Ok(Self::assemble(objects, config, keys, own, pool, options))
    }

    fn assemble(
        objects: Objects,
        config: Config,
        keys: Keys,
        own: OwnKey,
        pool: Pool,
        options: &OpenOptions,
    ) -> Self {
        let chunker = Chunker::new(Gear::new(keys.chunker()), &config.parameters);
        let gear = Gear::new(keys.chunker());
        let record_chunker = Chunker::of_records(gear, &config.parameters);
        let index = Index::new(CacheDirectory::new(&options.cache, &keys));
        let keys = Arc::new(keys);
        let features = RwLock::new(config.features.clone());
        let own = RwLock::new(Arc::new(own));
        let warehouse = options.warehouse.clone();
        let shared = Shared {
            objects,
            config,
            features,
            keys,
            own,
            index,
            pool,
            chunker,
            record_chunker,
            warehouse,
        };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What tells this repository from every other.
    pub fn id(&self) -> RepositoryId {
        self.shared.keys.repository()
    }

    /// Where a snapshot of this repository is from: what it says itself, if it is a copy, and else
    /// this repository and its own name. All copies of one snapshot have the same origin.
    pub fn origin_of(&self, snapshot: &SnapshotInfo) -> Origin {
        let own = || Origin { repository: self.id().to_string(), snapshot: snapshot.id };
        snapshot.origin.clone().unwrap_or_else(own)
    }

    /// How content is cut and packed.
    pub fn parameters(&self) -> Parameters {
        self.shared.config.parameters
    }

    /// The snapshots with their pins, the oldest first. One that cannot be read does not hide the
    /// others.
    ///
    /// # Errors
    /// When the store cannot be listed or read.
    pub async fn snapshots(&self) -> Result<SnapshotList> {
        let (mut list, pins) = try_join(self.roots(), self.pins()).await?;
        let mut by_snapshot: HashMap<_, Vec<_>> = HashMap::new();
        for pin in pins.pins {
            by_snapshot.entry(pin.snapshot).or_default().push(pin);
        }
        for info in &mut list.snapshots {
            info.pins = by_snapshot.remove(&info.id).unwrap_or_default();
        }
        list.damaged_pins = pins.damaged;
        Ok(list)
    }

    /// The snapshots without their pins.
    pub(crate) async fn roots(&self) -> Result<SnapshotList> {
        self.listed(RootArea::Snapshots).await
    }

    /// The checkpoints, the oldest first: incomplete snapshots, of backups that are under way or
    /// ended too early.
    ///
    /// # Errors
    /// When the store cannot be listed or read.
    pub async fn checkpoints(&self) -> Result<SnapshotList> {
        self.listed(RootArea::Checkpoints).await
    }

    async fn listed(&self, area: RootArea) -> Result<SnapshotList> {
        let (records, damaged) = self.records(area).await?;
        let mut list = SnapshotList { damaged, ..SnapshotList::default() };
        list.snapshots = records.into_iter().map(|(id, record)| record.info(id)).collect();
        list.snapshots.sort_by_key(|info| (info.taken, info.id));
        list.damaged.sort();
        Ok(list)
    }

    /// The roots of all snapshots, and the objects that should be some and cannot be read.
    pub(crate) async fn records(&self, area: RootArea) -> Result<Records> {
        self.shared.keys.may_read()?;
        match self.read_records(area).await {
            Err(Error::Rotated { .. }) => {
                self.shared.renew_keys().await?;
                self.read_records(area).await
            }
            other => other,
        }
    }

    async fn read_records(&self, area: RootArea) -> Result<Records> {
        let Shared { objects, keys, .. } = &*self.shared;
        let ids: Vec<_> = objects
            .list(area.name())
            .try_filter_map(async |listed| Ok(id_of(&listed.name)))
            .map_ok(|id| SnapshotId::from_bytes(*id.as_bytes()))
            .try_collect()
            .await?;
        let read: Vec<_> = stream::iter(ids)
            .map(async |id| (id, SnapshotRecord::read(objects, keys, area, &id).await))
            .buffer_unordered(FETCHES)
            .collect()
            .await;
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        for (id, result) in read {
            let name = area.name_of(&id);
            match result {
                Ok(Some(record)) => records.push((id, record)),
                // It was forgotten since the listing.
                Ok(None) => {}
                Err(Error::Damaged { what, .. }) => damaged.push((name, what)),
                Err(Error::UnknownFeature { .. }) => {
                    damaged.push((name, "a later version made it, of a kind of its own".into()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((records, damaged))
    }

    /// The snapshot called `name`: the first digits of its id, or `latest`; only among those of
    /// `store`, when one is given. `latest` passes over a snapshot of which a repair made a sibling:
    /// see [`repaired_original`](crate::repaired_original).
    ///
    /// # Errors
    /// When none or more than one is meant, as `latest` does without a store in a repository of
    /// several; and when the one that is meant is damaged.
    pub async fn find(&self, name: &str, store: Option<&StoreRef>) -> Result<SnapshotInfo> {
        self.snapshots().await?.find(name, store)
    }

    /// The top page of a snapshot's tree.
    pub(crate) async fn root(&self, id: &SnapshotId) -> Result<ChunkId> {
        Ok(self.record(id).await?.root())
    }

    /// The root of a snapshot, whole or not.
    async fn record(&self, id: &SnapshotId) -> Result<SnapshotRecord> {
        self.shared.keys.may_read()?;
        match self.read_record(id).await {
            Err(Error::Rotated { .. }) => {
                self.shared.renew_keys().await?;
                self.read_record(id).await
            }
            other => other,
        }
    }

    async fn read_record(&self, id: &SnapshotId) -> Result<SnapshotRecord> {
        let Shared { objects, keys, .. } = &*self.shared;
        for area in [RootArea::Snapshots, RootArea::Checkpoints] {
            if let Some(record) = SnapshotRecord::read(objects, keys, area, id).await? {
                return Ok(record);
            }
        }
        Err(Error::NoSuchSnapshot { name: id.to_string() })
    }

    /// The top pages of some snapshots' trees, in the same order.
    pub(crate) async fn top_pages(&self, ids: &[SnapshotId]) -> Result<Vec<ChunkId>> {
        let reading = stream::iter(ids.iter().copied());
        reading.map(async |id| self.root(&id).await).buffered(FETCHES).try_collect().await
    }

    /// Opens a snapshot, or a checkpoint.
    ///
    /// # Errors
    /// When it does not exist or cannot be read.
    pub async fn snapshot(&self, id: &SnapshotId) -> Result<Snapshot> {
        let record = self.record(id).await?;
        // The snapshot first, then the index: what it needs was indexed before it came to be.
        self.shared.refresh_index().await?;
        let chunks = Arc::new(ChunkReader::new(Arc::clone(&self.shared)));
        Ok(Snapshot::new(record.info(*id), record.root(), chunks))
    }

    /// The repository as a sink: every write makes a snapshot.
    pub fn sink(&self, options: &WriteOptions) -> impl Sink + use<> {
        RepositorySink::new(self.clone(), options.clone())
    }
}

/// The roots of snapshots, and objects that should be some with what is wrong with them.
type Records = (Vec<(SnapshotId, SnapshotRecord)>, Vec<(String, String)>);

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Repository").field(&self.id()).finish()
    }
}
