//! The keys that the repository works with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::aead::{Algorithm, Cipher, Sealer};
use super::agreement::{PrivateKey, PublicKey};
use super::root::{Access, NameKeys, RootKey, Share, key_pair};
use super::{SALT, random};
use crate::chunk::ChunkKind;
use crate::error::{Error, Result};
use crate::id::{ChunkId, RepositoryId};

/// What is sealed. Each has keys of its own, so that a holder can be given some and not others:
/// who backs up must read the index, and need not read the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    Data,
    Trees,
    Index,
    Snapshots,
    /// Segments of journals.
    Journals,
    /// Sessions, marks, leases, and what else those write who keep the repository in order.
    Maintenance,
}

impl Purpose {
    const ALL: [Self; 6] =
        [Self::Data, Self::Trees, Self::Index, Self::Snapshots, Self::Journals, Self::Maintenance];

    pub(super) fn context(self) -> &'static str {
        match self {
            Self::Data => "lifeboat v1 sealing data",
            Self::Trees => "lifeboat v1 sealing trees",
            Self::Index => "lifeboat v1 sealing index",
            Self::Snapshots => "lifeboat v1 sealing snapshots",
            Self::Journals => "lifeboat v1 sealing journals",
            Self::Maintenance => "lifeboat v1 sealing maintenance",
        }
    }
}

/// What is known of the key of one purpose.
#[derive(Zeroize, ZeroizeOnDrop)]
enum PurposeKey {
    /// All of it: seals and opens.
    Secret([u8; 32]),
    /// The public half of the key pair that comes from it: seals.
    Public([u8; 32]),
    Nothing,
}

/// The keys of one epoch, in the order of [`Purpose::ALL`].
#[derive(Zeroize, ZeroizeOnDrop)]
struct EpochKeys {
    number: u32,
    keys: [PurposeKey; 6],
}

/// A key that was never used, and what a reader needs to know to derive it.
pub(crate) struct Seal {
    /// The cipher's number.
    pub(crate) cipher: u8,
    pub(crate) epoch: u32,
    pub(crate) salt: [u8; SALT],
    pub(crate) sealer: Sealer,
}

/// What the repository works with, derived when it is opened. All of it is wiped when dropped.
pub(crate) struct Keys {
    repository: RepositoryId,
    names: NameKeys,
    sealing: RwLock<Arc<Sealing>>,
    /// The newest epoch that any holder was given, as far as it was seen.
    latest: AtomicU32,
}

/// What changes when the key is rotated.
struct Sealing {
    epochs: Vec<EpochKeys>,
    /// To give to other holders; not there for who may only write.
    root: Option<RootKey>,
}

impl Sealing {
    fn full(root: &RootKey) -> Self {
        let epochs = root.epochs.iter().map(|epoch| EpochKeys {
            number: epoch.number,
            keys: Purpose::ALL.map(|purpose| PurposeKey::Secret(*epoch.secret(purpose))),
        });
        Self { epochs: epochs.collect(), root: Some(root.clone()) }
    }

    fn of(share: &Share) -> Self {
        let key = match share {
            Share::Full(root) => return Self::full(root),
            Share::WriteOnly(key) => key,
        };
        let newest = share.epoch();
        let epochs = key.epochs.iter().map(|epoch| {
            let keys = Purpose::ALL.map(|purpose| {
                let public = match purpose {
                    Purpose::Index => return PurposeKey::Secret(epoch.index),
                    Purpose::Maintenance => return PurposeKey::Secret(epoch.maintenance),
                    Purpose::Data => key.publics.data,
                    Purpose::Trees => key.publics.trees,
                    Purpose::Snapshots => key.publics.snapshots,
                    Purpose::Journals => key.publics.journals,
                };
                if epoch.number == newest {
                    PurposeKey::Public(public)
                } else {
                    PurposeKey::Nothing
                }
            });
            EpochKeys { number: epoch.number, keys }
        });
        Self { epochs: epochs.collect(), root: None }
    }

    fn newest(&self) -> u32 {
        self.epochs.last().map_or(0, |epoch| epoch.number)
    }
}

impl Keys {
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn derive(root: &RootKey, repository: RepositoryId) -> Self {
        Self::of(&Share::Full(root.clone()), repository)
    }

    /// The keys of a holder.
    pub(crate) fn of(share: &Share, repository: RepositoryId) -> Self {
        let names = match share {
            Share::Full(root) => root.names(),
            Share::WriteOnly(key) => key.names.clone(),
        };
        let sealing = RwLock::new(Arc::new(Sealing::of(share)));
        Self { repository, names, sealing, latest: AtomicU32::new(share.epoch()) }
    }

    /// Takes what the same holder was given later, if it is of a newer epoch.
    pub(crate) fn adopt(&self, share: &Share) {
        let mut sealing = self.sealing.write();
        if share.epoch() > sealing.newest() {
            *sealing = Arc::new(Sealing::of(share));
        }
    }

    /// Notes that some holder was given an epoch, whether or not it is known here.
    pub(crate) fn saw(&self, epoch: u32) {
        self.latest.fetch_max(epoch, Ordering::Relaxed);
    }

    /// The newest epoch that any holder was given, as far as it was seen. Nothing can be sealed
    /// with a later one than was there at the last look.
    pub(crate) fn latest(&self) -> u32 {
        self.latest.load(Ordering::Relaxed).max(self.epoch())
    }

    fn sealing(&self) -> Arc<Sealing> {
        Arc::clone(&self.sealing.read())
    }

    pub(crate) fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// The root key, when the holder may read.
    pub(crate) fn root(&self) -> Result<RootKey> {
        self.sealing().root.clone().ok_or(Error::WriteOnly)
    }

    /// What the holder may do.
    pub(crate) fn access(&self) -> Access {
        if self.sealing().root.is_some() { Access::Full } else { Access::WriteOnly }
    }

    /// Fails for a holder who may only write.
    pub(crate) fn may_read(&self) -> Result<()> {
        match self.access() {
            Access::Full => Ok(()),
            Access::WriteOnly => Err(Error::WriteOnly),
        }
    }

    /// The name of a chunk.
    pub(crate) fn chunk_id(&self, kind: ChunkKind, plain: &[u8]) -> ChunkId {
        let mut hasher = blake3::Hasher::new_keyed(&self.names.chunk_id);
        hasher.update(plain);
        // The kind comes last, so that the hash of large input runs on aligned blocks.
        hasher.update(&[kind as u8]);
        ChunkId::from_bytes(*hasher.finalize().as_bytes())
    }

    /// Tells one content of a page from another.
    pub(crate) fn fingerprint(&self, page: &[u8]) -> [u8; 16] {
        let mut short = [0; 16];
        let hash = blake3::keyed_hash(&self.names.fingerprint, page);
        short.copy_from_slice(&hash.as_bytes()[..16]);
        short
    }

    /// A number that decides where pages of a tree end.
    pub(crate) fn boundary(&self, name: &[u8]) -> u32 {
        let hash = blake3::keyed_hash(&self.names.boundary, name);
        let bytes = hash.as_bytes();
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// The key of the chunker's table.
    pub(crate) fn chunker(&self) -> &[u8; 32] {
        &self.names.chunker
    }

    /// Authenticates the repository's configuration.
    pub(crate) fn config_mac(&self, bytes: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.names.config, bytes).as_bytes()
    }

    /// Authenticates a pack's directory.
    pub(crate) fn directory_mac(&self, bytes: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.names.directory, bytes).as_bytes()
    }

    /// What stands for the name of a journal or a timeline where outsiders can see it.
    pub(crate) fn journal_id(&self, names: &[u8]) -> [u8; 16] {
        let mut short = [0; 16];
        let hash = blake3::keyed_hash(&self.names.journal_name, names);
        short.copy_from_slice(&hash.as_bytes()[..16]);
        short
    }

    /// By which the same content in the same place of a journal is known again.
    pub(crate) fn journal_tag(&self, bytes: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.names.journal_tag, bytes).as_bytes()
    }

    /// Authenticates what this host caches of the index.
    pub(crate) fn cache_hasher(&self) -> blake3::Hasher {
        let key =
            Zeroizing::new(blake3::derive_key("lifeboat v1 index cache", &self.names.directory));
        blake3::Hasher::new_keyed(&key)
    }

    /// The epoch that seals what is new.
    pub(crate) fn epoch(&self) -> u32 {
        self.sealing().newest()
    }

    /// A new key of the newest epoch, for one pack or one object.
    pub(crate) fn seal(&self, purpose: Purpose) -> Result<Seal> {
        let sealing = self.sealing();
        let newest =
            sealing.epochs.last().ok_or(Error::Crypto { doing: "find the newest epoch" })?;
        let algorithm = Algorithm::fastest();
        let (salt, key, agreed) = match &newest.keys[purpose as usize] {
            PurposeKey::Secret(secret) => {
                let salt = random()?;
                (salt, salted(secret, &salt), false)
            }
            PurposeKey::Public(public) => {
                let (fresh, public) = (PrivateKey::generate()?, PublicKey(*public));
                let share = fresh.public()?;
                (share.0, agreed(&fresh, &public, &share, &public)?, true)
            }
            PurposeKey::Nothing => return Err(Error::WriteOnly),
        };
        let cipher = Cipher { algorithm, agreed }.number();
        Ok(Seal { cipher, epoch: newest.number, salt, sealer: algorithm.key(&key)? })
    }

    /// The key of the one pack or object that drew `salt`.
    pub(crate) fn sealer(
        &self,
        cipher: Cipher,
        epoch: u32,
        purpose: Purpose,
        salt: &[u8; SALT],
    ) -> Result<Sealer> {
        let sealing = self.sealing();
        let Some(known) = sealing.epochs.iter().find(|known| known.number == epoch) else {
            if epoch > sealing.newest() {
                return Err(Error::Rotated { epoch });
            }
            return Err(Error::damaged("a key", format!("there is none of epoch {epoch}")));
        };
        let PurposeKey::Secret(secret) = &known.keys[purpose as usize] else {
            return Err(Error::WriteOnly);
        };
        let key = if cipher.agreed {
            let own = key_pair(secret);
            let share = PublicKey(*salt);
            // Nobody's writer made such a public half.
            agreed(&own, &share, &share, &own.public()?)
                .map_err(|_| Error::damaged("a sealed object", "its public key is none"))?
        } else {
            salted(secret, salt)
        };
        cipher.algorithm.key(&key)
    }
}

fn salted(secret: &[u8; 32], salt: &[u8; SALT]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(*blake3::keyed_hash(secret, salt).as_bytes())
}

/// The key that a fresh key pair, of which `share` is the public half, and the repository's agree
/// on.
fn agreed(
    own: &PrivateKey,
    peer: &PublicKey,
    share: &PublicKey,
    repository: &PublicKey,
) -> Result<Zeroizing<[u8; 32]>> {
    let shared = own.agree(peer)?;
    let mut material = Zeroizing::new([0; 96]);
    material[..32].copy_from_slice(&*shared);
    material[32..64].copy_from_slice(&share.0);
    material[64..].copy_from_slice(&repository.0);
    Ok(Zeroizing::new(blake3::derive_key("lifeboat v1 sealing to a key", &*material)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_only(root: &RootKey, repository: RepositoryId) -> Keys {
        let share = root.share(Access::WriteOnly).unwrap();
        Keys::of(&Share::decode(Access::WriteOnly, &share).unwrap(), repository)
    }

    #[test]
    fn the_same_bytes_have_other_names_elsewhere() {
        let id = RepositoryId::from_bytes([1; 16]);
        let (one, two) =
            (Keys::derive(&RootKey::fixed(1), id), Keys::derive(&RootKey::fixed(2), id));
        let name = one.chunk_id(ChunkKind::Data, b"x");
        assert_ne!(name, two.chunk_id(ChunkKind::Data, b"x"));
        assert_ne!(name, one.chunk_id(ChunkKind::Tree, b"x"));
        assert_eq!(name, one.chunk_id(ChunkKind::Data, b"x"));
    }

    #[test]
    fn who_may_only_write_opens_nothing_but_the_index_and_maintenance() {
        let id = RepositoryId::from_bytes([1; 16]);
        let root = RootKey::fixed(1).rotated().unwrap();
        let (full, writer) = (Keys::derive(&root, id), write_only(&root, id));
        assert_eq!(writer.chunk_id(ChunkKind::Data, b"x"), full.chunk_id(ChunkKind::Data, b"x"));
        for purpose in Purpose::ALL {
            let readable = matches!(purpose, Purpose::Index | Purpose::Maintenance);
            for (sealing, agreed) in [(&full, false), (&writer, !readable)] {
                let seal = sealing.seal(purpose).unwrap();
                let cipher = Cipher::from_number(seal.cipher).unwrap();
                assert_eq!((cipher.agreed, seal.epoch), (agreed, 2));
                let mut sealed = b"content".to_vec();
                seal.sealer.seal(0, b"", &mut sealed).unwrap();
                let open = |keys: &Keys| -> Result<Option<Vec<u8>>> {
                    let sealer = keys.sealer(cipher, 2, purpose, &seal.salt)?;
                    Ok(sealer.open(0, b"", &mut sealed.clone()).map(<[u8]>::to_vec))
                };
                assert_eq!(open(&full).unwrap().as_deref(), Some(&b"content"[..]));
                let opened = open(&writer);
                assert_eq!(opened.is_ok(), readable, "{purpose:?}");
                let stranger = open(&Keys::derive(&RootKey::fixed(2).rotated().unwrap(), id));
                assert_eq!(stranger.unwrap(), None);
            }
        }
        // What was sealed before the key was rotated is not for him either.
        let cipher = Cipher { algorithm: Algorithm::fastest(), agreed: false };
        assert!(writer.sealer(cipher, 1, Purpose::Data, &[0; 32]).is_err());
        assert!(writer.sealer(cipher, 1, Purpose::Index, &[0; 32]).is_ok());
        assert!(writer.root().is_err() && writer.may_read().is_err());
    }

    #[test]
    fn a_newer_epoch_is_adopted_and_an_older_one_is_not() {
        let root = RootKey::fixed(1);
        let next = root.rotated().unwrap();
        let keys = Keys::derive(&root, RepositoryId::from_bytes([1; 16]));
        keys.adopt(&Share::Full(next.clone()));
        keys.adopt(&Share::Full(root));
        assert_eq!(keys.epoch(), 2);
        assert!(keys.root().unwrap() == next);
    }

    #[test]
    fn a_newer_epoch_is_told_from_damage() {
        let keys = Keys::derive(&RootKey::fixed(1), RepositoryId::from_bytes([1; 16]));
        let cipher = Cipher { algorithm: Algorithm::fastest(), agreed: false };
        let of = |epoch| keys.sealer(cipher, epoch, Purpose::Data, &[0; 32]).err();
        assert!(of(1).is_none());
        assert!(matches!(of(2), Some(Error::Rotated { epoch: 2 })));
        assert!(matches!(of(0), Some(Error::Damaged { .. })));
    }
}
