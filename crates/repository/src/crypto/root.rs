//! What a holder is given: the root key, or what writing takes of it.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::agreement::{PrivateKey, PublicKey};
use super::keys::Purpose;
use super::random;
use crate::error::{Error, Result};

/// A key slot has room for more; but nobody rotates so often.
const MAX_EPOCHS: usize = 256;

/// What a holder of a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Access {
    /// Everything.
    Full,
    /// Back up, and nothing that reads what was backed up.
    WriteOnly,
}

impl Access {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Full => 1,
            Self::WriteOnly => 2,
        }
    }

    /// The word for it, as it is stored and shown: `full`, `write-only`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::WriteOnly => "write-only",
        }
    }
}

/// The secret from which everything is derived. It never leaves memory except wrapped for a
/// holder, it cannot be printed, and it is wiped when dropped.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Zeroize, ZeroizeOnDrop)]
#[cbor(array)]
pub(crate) struct RootKey {
    /// Names, cut points and fingerprints come from this one; it stays the same for the life of
    /// the repository, since deduplication depends on it.
    #[cbor(n(0), with = "minicbor::bytes")]
    identity: [u8; 32],
    /// Sealing keys come from these, one for each epoch; the last one seals what is new.
    #[n(1)]
    pub(super) epochs: Vec<EpochKey>,
}

#[derive(Clone, PartialEq, Eq, Encode, Decode, Zeroize, ZeroizeOnDrop)]
#[cbor(array)]
pub(super) struct EpochKey {
    #[n(0)]
    pub(super) number: u32,
    #[cbor(n(1), with = "minicbor::bytes")]
    secret: [u8; 32],
}

impl EpochKey {
    pub(super) fn secret(&self, purpose: Purpose) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(purpose.context(), &self.secret))
    }
}

/// The keys that are the same in every epoch.
#[derive(Clone, Encode, Decode, Zeroize, ZeroizeOnDrop)]
#[cbor(array)]
pub(super) struct NameKeys {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(super) chunk_id: [u8; 32],
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) fingerprint: [u8; 32],
    #[cbor(n(2), with = "minicbor::bytes")]
    pub(super) boundary: [u8; 32],
    #[cbor(n(3), with = "minicbor::bytes")]
    pub(super) chunker: [u8; 32],
    #[cbor(n(4), with = "minicbor::bytes")]
    pub(super) config: [u8; 32],
    #[cbor(n(5), with = "minicbor::bytes")]
    pub(super) directory: [u8; 32],
    #[cbor(n(6), with = "minicbor::bytes")]
    pub(super) journal_name: [u8; 32],
    #[cbor(n(7), with = "minicbor::bytes")]
    pub(super) journal_tag: [u8; 32],
}

impl RootKey {
    pub(crate) fn generate() -> Result<Self> {
        Ok(Self { identity: random()?, epochs: vec![EpochKey { number: 1, secret: random()? }] })
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn fixed(byte: u8) -> Self {
        let epochs = vec![EpochKey { number: 1, secret: [byte ^ 0xff; 32] }];
        Self { identity: [byte; 32], epochs }
    }

    /// The same with one epoch more.
    pub(crate) fn rotated(&self) -> Result<Self> {
        let mut next = self.clone();
        let number = self.epoch().checked_add(1);
        let (Some(number), true) = (number, self.epochs.len() < MAX_EPOCHS) else {
            return Err(Error::KeyChange { what: "the key was rotated too often".into() });
        };
        next.epochs.push(EpochKey { number, secret: random()? });
        Ok(next)
    }

    /// The epoch that seals what is new.
    pub(crate) fn epoch(&self) -> u32 {
        self.epochs.last().map_or(0, |epoch| epoch.number)
    }

    pub(super) fn names(&self) -> NameKeys {
        let from = |context: &str| blake3::derive_key(context, &self.identity);
        NameKeys {
            chunk_id: from("lifeboat v1 chunk id"),
            fingerprint: from("lifeboat v1 page fingerprint"),
            boundary: from("lifeboat v1 tree boundary"),
            chunker: from("lifeboat v1 chunker"),
            config: from("lifeboat v1 configuration"),
            directory: from("lifeboat v1 pack directory"),
            journal_name: from("lifeboat v1 journal name"),
            journal_tag: from("lifeboat v1 journal tag"),
        }
    }

    /// What authenticates the slot of a holder: known to those with full access, and to the holder
    /// himself. It does not change when the key is rotated.
    pub(crate) fn authenticator(&self, access: Access, public: &PublicKey) -> Zeroizing<[u8; 32]> {
        let holders = blake3::derive_key("lifeboat v1 key holders", &self.identity);
        let holders = Zeroizing::new(holders);
        let mut hasher = blake3::Hasher::new_keyed(&holders);
        hasher.update(&[access.number()]).update(&public.0);
        Zeroizing::new(*hasher.finalize().as_bytes())
    }

    /// What writing takes, and nothing that reads data, trees, snapshots or journals.
    fn write_key(&self) -> Result<WriteKey> {
        let epochs = self.epochs.iter().map(|epoch| WriteEpoch {
            number: epoch.number,
            index: *epoch.secret(Purpose::Index),
            maintenance: *epoch.secret(Purpose::Maintenance),
        });
        let last = self.epochs.last().ok_or(Error::Crypto { doing: "find the newest epoch" })?;
        let public =
            |purpose| -> Result<[u8; 32]> { Ok(key_pair(&last.secret(purpose)).public()?.0) };
        Ok(WriteKey {
            names: self.names(),
            epochs: epochs.collect(),
            publics: Publics {
                data: public(Purpose::Data)?,
                trees: public(Purpose::Trees)?,
                snapshots: public(Purpose::Snapshots)?,
                journals: public(Purpose::Journals)?,
            },
        })
    }

    /// What a holder with `access` is given.
    pub(crate) fn share(&self, access: Access) -> Result<Zeroizing<Vec<u8>>> {
        let doing = |_| Error::Crypto { doing: "encode a key" };
        // Room from the start: growing would leave copies behind in memory.
        let mut bytes = Zeroizing::new(Vec::with_capacity(512 + self.epochs.len() * 128));
        match access {
            Access::Full => minicbor::encode(self, &mut *bytes).map_err(doing)?,
            Access::WriteOnly => {
                minicbor::encode(self.write_key()?, &mut *bytes).map_err(doing)?;
            }
        }
        Ok(bytes)
    }

    fn is_sane(&self) -> bool {
        (1..=MAX_EPOCHS).contains(&self.epochs.len())
            && self.epochs.is_sorted_by(|one, two| one.number < two.number)
    }
}

/// What a holder who may write and not read is given.
#[derive(Clone, Encode, Decode, Zeroize, ZeroizeOnDrop)]
#[cbor(array)]
pub(crate) struct WriteKey {
    #[n(0)]
    pub(super) names: NameKeys,
    /// The index has to be read in full, so of every epoch.
    #[n(1)]
    pub(super) epochs: Vec<WriteEpoch>,
    /// Of the last epoch.
    #[n(2)]
    pub(super) publics: Publics,
}

#[derive(Clone, Encode, Decode, Zeroize, ZeroizeOnDrop)]
#[cbor(array)]
pub(super) struct WriteEpoch {
    #[n(0)]
    pub(super) number: u32,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) index: [u8; 32],
    #[cbor(n(2), with = "minicbor::bytes")]
    pub(super) maintenance: [u8; 32],
}

/// Public halves, to which is sealed what must not be read. They are not published: who does not
/// know them cannot seal.
#[derive(Clone, Encode, Decode, Zeroize, ZeroizeOnDrop)]
#[cbor(array)]
pub(super) struct Publics {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(super) data: [u8; 32],
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) trees: [u8; 32],
    #[cbor(n(2), with = "minicbor::bytes")]
    pub(super) snapshots: [u8; 32],
    #[cbor(n(3), with = "minicbor::bytes")]
    pub(super) journals: [u8; 32],
}

impl WriteKey {
    fn is_sane(&self) -> bool {
        (1..=MAX_EPOCHS).contains(&self.epochs.len())
            && self.epochs.is_sorted_by(|one, two| one.number < two.number)
    }
}

/// The key pair of the repository to which holders who may not read seal, from the key of an epoch
/// for what is sealed.
pub(super) fn key_pair(secret: &[u8; 32]) -> PrivateKey {
    let private = Zeroizing::new(blake3::derive_key("lifeboat v1 key pair", secret));
    PrivateKey::from_bytes(&private)
}

/// What a slot held.
#[derive(Clone)]
pub(crate) enum Share {
    Full(RootKey),
    WriteOnly(Box<WriteKey>),
}

impl Share {
    /// Reads what [`RootKey::share`] wrote.
    pub(crate) fn decode(access: Access, bytes: &[u8]) -> Option<Self> {
        match access {
            Access::Full => {
                let root: RootKey = minicbor::decode(bytes).ok()?;
                root.is_sane().then_some(Self::Full(root))
            }
            Access::WriteOnly => {
                let key: WriteKey = minicbor::decode(bytes).ok()?;
                key.is_sane().then(|| Self::WriteOnly(Box::new(key)))
            }
        }
    }

    /// The epoch that seals what is new.
    pub(crate) fn epoch(&self) -> u32 {
        match self {
            Self::Full(root) => root.epoch(),
            Self::WriteOnly(key) => key.epochs.last().map_or(0, |epoch| epoch.number),
        }
    }
}
