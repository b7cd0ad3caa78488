//! What can go wrong with a repository.

mod failure;

use lifeboat_core::{StoreRef, Timestamp};

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and with which object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no repository at the place that was named.
    #[error("open the repository: there is none at this place")]
    NotARepository,
    /// A repository is there already.
    #[error("create a repository: there is one at this place already")]
    AlreadyARepository,
    /// Other things are at the place where a repository was to be made.
    #[error("create a repository: the place is not empty, it holds {found}")]
    PlaceNotEmpty {
        /// One of the things found.
        found: String,
    },
    /// The repository was made by a newer version.
    #[error(
        "open the repository: it has format version {found}, and this program reads up to {known}"
    )]
    NewerVersion {
        /// The version found.
        found: u32,
        /// The newest version that is understood.
        known: u32,
    },
    /// The repository needs something that this version cannot do.
    #[error(
        "open the repository: it uses the feature \"{feature}\", which this program does not know"
    )]
    UnknownFeature {
        /// The feature's name.
        feature: String,
    },
    /// No key of the repository opens with what was given.
    #[error("open the repository: {secret} does not open {}", its_keys(*keys))]
    WrongSecret {
        /// What was tried: `the passphrase`, `the identity`, `the command`.
        secret: &'static str,
        /// How many keys were tried.
        keys: usize,
    },
    /// The repository has no key at all.
    #[error("open the repository: it has no keys")]
    NoKeys,
    /// The repository was opened with a key that may write and not read.
    #[error("read the repository: this key may write and not read")]
    WriteOnly,
    /// The repository's key was rotated, and the new one is not known here.
    #[error("use the repository: its key was rotated, epoch {epoch} is not known here")]
    Rotated {
        /// The epoch that is not known.
        epoch: u32,
    },
    /// A text holds no identity of age.
    #[error("read the identity: {what}")]
    BadIdentity {
        /// What is wrong with it; nothing of the text.
        what: &'static str,
    },
    /// A text is no recipient of age.
    #[error("read the recipient \"{text}\": it is none of the form age1…, or it was mistyped")]
    BadRecipient {
        /// The text.
        text: String,
    },
    /// A command that keeps a key failed.
    #[error("ask the key command {program}: {what}")]
    KeyCommand {
        /// The program.
        program: String,
        /// What went wrong.
        what: String,
    },
    /// The key that is to be removed is the one that is in use.
    #[error("remove the key \"{name}\": it is the one that is in use")]
    KeyInUse {
        /// What it was called.
        name: String,
    },
    /// A change of keys that must not be made.
    #[error("change the keys: {what}")]
    KeyChange {
        /// Why not, and what to do instead.
        what: String,
    },
    /// The object store answered with an error.
    #[error("{doing} {object}")]
    Store {
        /// What was being done: `read`, `write`, `list`, `delete`.
        doing: &'static str,
        /// The object.
        object: String,
        /// The store's error.
        source: object_store::Error,
    },
    /// An object is not what was written.
    #[error("{object} is damaged: {what}")]
    Damaged {
        /// The object.
        object: String,
        /// What is wrong with it.
        what: String,
    },
    /// A chunk is in no pack that the index knows.
    #[error("chunk {id} is missing: no index knows it")]
    MissingChunk {
        /// The chunk.
        id: String,
    },
    /// A different object has the name that was to be written.
    #[error("write {object}: another object with this name is there")]
    Conflict {
        /// The object.
        object: String,
    },
    /// No snapshot has the name that was asked for.
    #[error("find snapshot \"{name}\": there is none")]
    NoSuchSnapshot {
        /// What was asked for.
        name: String,
    },
    /// More than one snapshot has a name that begins so.
    #[error("find snapshot \"{name}\": {count} snapshots begin with it")]
    AmbiguousSnapshot {
        /// What was asked for.
        name: String,
        /// How many there are.
        count: usize,
    },
    /// A pin holds a snapshot that was to be forgotten.
    #[error("forget snapshot {snapshot}: it is pinned ({why})")]
    Pinned {
        /// The snapshot.
        snapshot: String,
        /// The pin.
        pin: String,
        /// Its reason, and when it runs out.
        why: String,
    },
    /// A store would have lost its last snapshot.
    #[error("forget snapshots: {store} would have none left")]
    LastSnapshot {
        /// The store.
        store: StoreRef,
    },
    /// A pin cannot be read, so that nobody knows what it holds.
    #[error("forget snapshots: pin {pin} cannot be read, and may hold any of them: {what}")]
    DamagedPin {
        /// The pin.
        pin: String,
        /// What is wrong with it.
        what: String,
    },
    /// A pin was to be made that makes no sense.
    #[error("pin a snapshot: {what}")]
    BadPin {
        /// What is wrong with it.
        what: String,
    },
    /// No pin has the name that was asked for.
    #[error("find pin \"{name}\": there is none")]
    NoSuchPin {
        /// What was asked for.
        name: String,
    },
    /// More than one pin has a name that begins so.
    #[error("find pin \"{name}\": {count} pins begin with it")]
    AmbiguousPin {
        /// What was asked for.
        name: String,
        /// How many there are.
        count: usize,
    },
    /// `latest` was asked for without a store, and there are snapshots of more than one.
    #[error(
        "find snapshot \"latest\": there are snapshots of more than one store: {}",
        list(stores)
    )]
    AmbiguousLatest {
        /// The stores, in order.
        stores: Vec<StoreRef>,
    },
    /// A snapshot has no entry of this name.
    #[error("find \"{path}\" in snapshot {snapshot}: there is no such entry")]
    NoSuchEntry {
        /// The path.
        path: String,
        /// The snapshot.
        snapshot: String,
    },
    /// The content of an entry was asked for that has none.
    #[error("read \"{path}\": it is no file but a {kind}")]
    NotAFile {
        /// The path.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// What was to stand in for a snapshot is no copy of it.
    #[error("read snapshot {original} or a copy of it: {snapshot} is none")]
    NotACopy {
        /// The one that is no copy.
        snapshot: String,
        /// The one that it should be a copy of.
        original: String,
    },
    /// A repository was to be copied into itself.
    #[error("copy into another repository: it is the same one")]
    SameRepository,
    /// A source said that something is unchanged which the baseline does not have.
    #[error(
        "store {path}: the source says it is unchanged, but the last snapshot does not hold it"
    )]
    NothingUnchanged {
        /// The entry.
        path: String,
    },
    /// A source gave an entry twice.
    #[error("store {path}: the source gave it twice")]
    Twice {
        /// The entry.
        path: String,
    },
    /// An entry is larger than the format allows.
    #[error("store {path}: its {part} are larger than the format allows")]
    TooLarge {
        /// The entry.
        path: String,
        /// Which part of it.
        part: &'static str,
    },
    /// An object is larger than readers accept.
    #[error("write a {kind}: it is larger than the format allows")]
    ObjectTooLarge {
        /// Which kind of object.
        kind: &'static str,
    },
    /// The clocks of this host and of the store do not agree.
    #[error(
        "delete from the repository: the clocks of this host and of the store are {seconds} seconds apart"
    )]
    ClockSkew {
        /// By how many seconds they differ.
        seconds: u64,
    },
    /// Somebody else does what only one may do at a time.
    #[error(
        "keep the repository in order: {host} is at work already ({what}), since {since:.0}, last \
         seen at {seen:.0}"
    )]
    LeaseHeld {
        /// The host.
        host: String,
        /// What it does.
        what: String,
        /// Since when, by the store's clock.
        since: Timestamp,
        /// When it was last seen, by the store's clock.
        seen: Timestamp,
        /// Until when it is believed in if it is not seen again, by the store's clock.
        until: Timestamp,
    },
    /// Somebody else took over what only one may do at a time.
    #[error("keep the repository in order: another process has taken over")]
    LeaseLost,
    /// What a write relied on was deleted while it stood still.
    #[error(
        "commit: pack {pack} was deleted while this backup was not heard of, and cannot be made good"
    )]
    Overtaken {
        /// The pack.
        pack: String,
    },
    /// Data was to be kept in a class of storage where there are none.
    #[error("keep data in the class \"{name}\": this store has no classes")]
    NoClasses {
        /// The class.
        name: String,
    },
    /// The data is in a class of its own, and the store cannot be asked about classes.
    #[error(
        "ask where packs lie: data is kept in the class \"{name}\", and the store was opened without what knows its classes"
    )]
    NoWarehouse {
        /// The class.
        name: String,
    },
    /// An archive has no such haste.
    #[error("thaw packs: this class has no tier \"{tier}\"")]
    NoSuchTier {
        /// What was asked for.
        tier: &'static str,
        /// What there is.
        tiers: String,
    },
    /// Packs are being thawed.
    #[error("thaw packs: {packs} of them are not ready yet")]
    StillThawing {
        /// How many.
        packs: u64,
    },
    /// Packs that are to be read lie in an archive.
    #[error("read packs: {packs} of them ({bytes} bytes) lie in an archive, and are not thawed")]
    NotThawed {
        /// How many.
        packs: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// The store cannot make an object only if there is none.
    #[error("create a repository: the store takes no notice of conditional puts")]
    NoConditionalPut,
    /// On a store without conditional puts nobody can tell whether two do what only one may.
    #[error(
        "keep the repository in order: its store cannot tell whether another process does so too"
    )]
    NotAlone,
    /// A pack on which a write relied turned out to be damaged.
    #[error("commit: pack {pack}, which holds a part of it already, turned out to be damaged")]
    FoundDamaged {
        /// The pack.
        pack: String,
    },
    /// What snapshots need cannot be told, so nothing may be deleted.
    #[error("delete what is not needed: it is not known what is needed, since {what}")]
    NotKnown {
        /// What cannot be read.
        what: String,
    },
    /// A file of this host could not be used.
    #[error("{doing}")]
    Local {
        /// What was being done.
        doing: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// A segment of a journal has the positions that were to be appended, and other content.
    #[error("append {segment}: a segment with other content is there")]
    SegmentConflict {
        /// The journal, the timeline and the positions.
        segment: String,
    },
    /// A segment was to be appended to a timeline that nobody began.
    #[error("append to {timeline}: this timeline was not begun")]
    NoSuchTimeline {
        /// The journal and the timeline.
        timeline: String,
    },
    /// A journal was to be written to a store that cannot keep two writers apart.
    #[error("append {what}: this object store cannot make an object only where there is none")]
    NotExclusive {
        /// What was to be appended.
        what: String,
    },
    /// A parameter is outside its range.
    #[error("create a repository: {what}")]
    BadParameter {
        /// Which, and its range.
        what: String,
    },
    /// The cryptographic library refused to work.
    #[error("{doing}: the cryptographic library refused")]
    Crypto {
        /// What was being done.
        doing: &'static str,
    },
    /// A task of this process ended without an answer.
    #[error("{doing}: a worker of this process stopped")]
    Worker {
        /// What was being done.
        doing: &'static str,
    },
    /// An earlier error in the same write, told again.
    #[error(transparent)]
    Earlier(std::sync::Arc<Error>),
    /// What was met while content was read.
    #[error(transparent)]
    Source(lifeboat_core::Error),
}

fn list(stores: &[StoreRef]) -> String {
    stores.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn its_keys(count: usize) -> String {
    if count == 1 { "its key".to_owned() } else { format!("any of its {count} keys") }
}

impl Error {
    pub(crate) fn damaged(object: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Damaged { object: object.into(), what: what.into() }
    }

    /// Whether something that was stored is not as it was: what is left may be used without it.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::MissingChunk { .. } => true,
            Self::Earlier(earlier) => earlier.is_damage(),
            _ => false,
        }
    }

    pub(crate) fn store(
        doing: &'static str,
        object: &(impl ToString + ?Sized),
        source: object_store::Error,
    ) -> Self {
        Self::Store { doing, object: object.to_string(), source }
    }
}

impl From<lifeboat_core::Error> for Error {
    fn from(error: lifeboat_core::Error) -> Self {
        Self::Source(error)
    }
}
