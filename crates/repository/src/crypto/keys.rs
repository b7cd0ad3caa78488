//! The repository's keys.

use minicbor::{Decode, Encode};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::aead::{Algorithm, Sealer};
use super::{SALT, random};
use crate::chunk::ChunkKind;
use crate::error::{Error, Result};
use crate::id::{ChunkId, RepositoryId};

/// The secret from which everything is derived. It never leaves memory except wrapped for a
/// holder, it cannot be printed, and it is wiped when dropped.
#[derive(Clone, Encode, Decode, Zeroize, ZeroizeOnDrop)]
#[cbor(array)]
pub(crate) struct RootKey {
    /// Names, cut points and fingerprints come from this one; it stays the same for the life of
    /// the repository, since deduplication depends on it.
    #[cbor(n(0), with = "minicbor::bytes")]
    identity: [u8; 32],
    /// Sealing keys come from these, one for each epoch; the last one seals what is new.
    #[n(1)]
    epochs: Vec<EpochKey>,
}

#[derive(Clone, Encode, Decode, Zeroize, ZeroizeOnDrop)]
#[cbor(array)]
struct EpochKey {
    #[n(0)]
    number: u32,
    #[cbor(n(1), with = "minicbor::bytes")]
    secret: [u8; 32],
}

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

    fn context(self) -> &'static str {
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

/// The keys of one epoch, in the order of [`Purpose::ALL`].
#[derive(Zeroize, ZeroizeOnDrop)]
struct SealingKeys {
    number: u32,
    secrets: [[u8; 32]; 6],
}

impl RootKey {
    pub(crate) fn generate() -> Result<Self> {
        Ok(Self { identity: random()?, epochs: vec![EpochKey { number: 1, secret: random()? }] })
    }

    #[cfg(test)]
    pub(crate) fn fixed(byte: u8) -> Self {
        let epochs = vec![EpochKey { number: 1, secret: [byte ^ 0xff; 32] }];
        Self { identity: [byte; 32], epochs }
    }
}

/// What the repository works with, derived once when it is opened.
#[derive(ZeroizeOnDrop)]
pub(crate) struct Keys {
    #[zeroize(skip)]
    repository: RepositoryId,
    chunk_id: [u8; 32],
    fingerprint: [u8; 32],
    boundary: [u8; 32],
    chunker: [u8; 32],
    config: [u8; 32],
    directory: [u8; 32],
    sealing: Vec<SealingKeys>,
}

impl Keys {
    pub(crate) fn derive(root: &RootKey, repository: RepositoryId) -> Self {
        let from = |context: &str, secret: &[u8; 32]| blake3::derive_key(context, secret);
        let sealing = root.epochs.iter().map(|epoch| SealingKeys {
            number: epoch.number,
            secrets: Purpose::ALL.map(|purpose| from(purpose.context(), &epoch.secret)),
        });
        Self {
            repository,
            chunk_id: from("lifeboat v1 chunk id", &root.identity),
            fingerprint: from("lifeboat v1 page fingerprint", &root.identity),
            boundary: from("lifeboat v1 tree boundary", &root.identity),
            chunker: from("lifeboat v1 chunker", &root.identity),
            config: from("lifeboat v1 configuration", &root.identity),
            directory: from("lifeboat v1 pack directory", &root.identity),
            sealing: sealing.collect(),
        }
    }

    pub(crate) fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// The name of a chunk.
    pub(crate) fn chunk_id(&self, kind: ChunkKind, plain: &[u8]) -> ChunkId {
        let mut hasher = blake3::Hasher::new_keyed(&self.chunk_id);
        hasher.update(plain);
        // The kind comes last, so that the hash of large input runs on aligned blocks.
        hasher.update(&[kind as u8]);
        ChunkId::from_bytes(*hasher.finalize().as_bytes())
    }

    /// Tells one content of a page from another.
    pub(crate) fn fingerprint(&self, page: &[u8]) -> [u8; 16] {
        let mut short = [0; 16];
        short.copy_from_slice(&blake3::keyed_hash(&self.fingerprint, page).as_bytes()[..16]);
        short
    }

    /// A number that decides where pages of a tree end.
    pub(crate) fn boundary(&self, name: &[u8]) -> u32 {
        let hash = blake3::keyed_hash(&self.boundary, name);
        let bytes = hash.as_bytes();
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// The key of the chunker's table.
    pub(crate) fn chunker(&self) -> &[u8; 32] {
        &self.chunker
    }

    /// Authenticates the repository's configuration.
    pub(crate) fn config_mac(&self, bytes: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.config, bytes).as_bytes()
    }

    /// Authenticates a pack's directory.
    pub(crate) fn directory_mac(&self, bytes: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.directory, bytes).as_bytes()
    }

    /// The epoch that seals what is new.
    pub(crate) fn epoch(&self) -> u32 {
        self.sealing.last().map_or(0, |epoch| epoch.number)
    }

    /// The key of the one pack or object that drew `salt`.
    pub(crate) fn sealer(
        &self,
        algorithm: Algorithm,
        epoch: u32,
        purpose: Purpose,
        salt: &[u8; SALT],
    ) -> Result<Sealer> {
        let known = self.sealing.iter().find(|known| known.number == epoch);
        let known = known.ok_or_else(|| {
            Error::damaged("a key", format!("the repository has no key of epoch {epoch}"))
        })?;
        let key =
            Zeroizing::new(*blake3::keyed_hash(&known.secrets[purpose as usize], salt).as_bytes());
        algorithm.key(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
