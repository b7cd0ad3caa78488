//! Small objects that are sealed as a whole: index objects and snapshot roots.
//!
//! A clear header, then the sealed and compressed content. The header is the associated data, so
//! nothing of it can be changed.

use minicbor::{Decode, Encode};

use crate::chunk::{compress, decompress};
use crate::crypto::{Cipher, Keys, Purpose, SALT, TAG};
use crate::error::{Error, Result};
use crate::id::{ObjectId, RepositoryId};

const MAGIC: [u8; 8] = *b"LBSEAL\x00\x01";

/// What is sealed. The number is part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SealedKind {
    Index = 1,
    Snapshot = 2,
    Session = 4,
    Trash = 5,
    Lease = 7,
    Check = 8,
    References = 9,
    Pin = 10,
}

impl SealedKind {
    fn purpose(self) -> Purpose {
        match self {
            Self::Index => Purpose::Index,
            Self::Snapshot => Purpose::Snapshots,
            Self::Session | Self::Trash | Self::Lease | Self::Check | Self::Pin => {
                Purpose::Maintenance
            }
            Self::References => Purpose::Trees,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Index => "index object",
            Self::Snapshot => "snapshot root",
            Self::Session => "session",
            Self::Trash => "list of marked packs",
            Self::Lease => "lease",
            Self::Check => "record of a check",
            Self::References => "list of references",
            Self::Pin => "pin",
        }
    }

    /// No object of the kind is larger, stored or opened.
    pub(crate) fn limit(self) -> u64 {
        match self {
            Self::Index | Self::References => 64 << 20,
            Self::Snapshot | Self::Check => 16 << 20,
            Self::Trash => 8 << 20,
            Self::Session | Self::Lease | Self::Pin => 64 << 10,
        }
    }
}

/// The fixed header of 72 bytes.
struct Header {
    kind: u8,
    cipher: u8,
    encoding: u8,
    epoch: u32,
    repository: RepositoryId,
    salt: [u8; SALT],
    plain: u64,
}

const HEADER: usize = 8 + 4 + 4 + 16 + SALT + 8;

impl Header {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[self.kind, self.cipher, self.encoding, 0]);
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(self.repository.as_bytes());
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&self.plain.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (&[kind, cipher, encoding, 0], rest) = rest.split_first_chunk()? else {
            return None;
        };
        let (epoch, rest) = rest.split_first_chunk()?;
        let (repository, rest) = rest.split_first_chunk()?;
        let (salt, rest) = rest.split_first_chunk()?;
        let (plain, _) = rest.split_first_chunk()?;
        Some(Self {
            kind,
            cipher,
            encoding,
            epoch: u32::from_le_bytes(*epoch),
            repository: RepositoryId::from_bytes(*repository),
            salt: *salt,
            plain: u64::from_le_bytes(*plain),
        })
    }
}

/// Encodes and seals; the name of the result is its hash.
pub(crate) fn seal<T: Encode<()>>(
    keys: &Keys,
    kind: SealedKind,
    content: &T,
) -> Result<(ObjectId, Vec<u8>)> {
    let what = Error::Crypto { doing: "encode an object" };
    let plain = minicbor::to_vec(content).map_err(|_| what)?;
    if plain.len() as u64 > kind.limit() {
        return Err(Error::ObjectTooLarge { kind: kind.name() });
    }
    let (encoding, mut sealed) = compress(&plain, 3);
    let new = keys.seal(kind.purpose())?;
    let header = Header {
        kind: kind as u8,
        cipher: new.cipher,
        encoding: encoding as u8,
        epoch: new.epoch,
        repository: keys.repository(),
        salt: new.salt,
        plain: plain.len() as u64,
    };
    let mut bytes = header.to_bytes();
    new.sealer.seal(0, &bytes, &mut sealed)?;
    bytes.append(&mut sealed);
    if bytes.len() as u64 > kind.limit() {
        return Err(Error::ObjectTooLarge { kind: kind.name() });
    }
    Ok((ObjectId::of(&bytes), bytes))
}

/// Opens what [`seal`] made, from bytes that may be anything.
pub(crate) fn open<T: for<'b> Decode<'b, ()>>(
    keys: &Keys,
    kind: SealedKind,
    name: &str,
    bytes: &[u8],
) -> Result<T> {
    let damaged = |what: &str| Error::damaged(name, what);
    let header = Header::parse(bytes).ok_or_else(|| damaged("it has no valid header"))?;
    let cipher = Cipher::from_number(header.cipher);
    let (Some(cipher), true) = (cipher, header.kind == kind as u8) else {
        return Err(damaged("it is of another kind"));
    };
    if header.repository != keys.repository() {
        return Err(damaged("it belongs to another repository"));
    }
    if header.plain > kind.limit() || bytes.len() < HEADER + TAG {
        return Err(damaged("its size is out of range"));
    }
    let (clear, sealed) = bytes.split_at(HEADER);
    let mut sealed = sealed.to_vec();
    let sealer = keys.sealer(cipher, header.epoch, kind.purpose(), &header.salt)?;
    let opened =
        sealer.open(0, clear, &mut sealed).ok_or_else(|| damaged("it is not authentic"))?;
    let plain = decompress(header.encoding, opened, header.plain as usize)
        .ok_or_else(|| damaged("it does not decompress"))?;
    minicbor::decode(&plain).map_err(|error| damaged(&format!("it does not decode: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RootKey;
    use proptest::prelude::*;

    fn keys() -> Keys {
        Keys::derive(&RootKey::fixed(1), RepositoryId::from_bytes([3; 16]))
    }

    #[test]
    fn every_flipped_byte_is_found() {
        let keys = keys();
        let content = vec!["snapshot".to_owned(); 40];
        let (_, bytes) = seal(&keys, SealedKind::Snapshot, &content).unwrap();
        let open = |bytes: &[u8]| open::<Vec<String>>(&keys, SealedKind::Snapshot, "x", bytes);
        assert_eq!(open(&bytes).unwrap(), content);
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            assert!(open(&bytes).is_err(), "byte {at}");
        }
        assert!(open(&bytes[..bytes.len() - 1]).is_err());
        assert!(super::open::<Vec<String>>(&keys, SealedKind::Index, "x", &bytes).is_err());
    }

    proptest! {
        #[test]
        fn anything_else_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = bytes;
            prop_assert!(open::<u32>(&keys(), SealedKind::Index, "x", &bytes).is_err());
            bytes.splice(0..0, MAGIC);
            prop_assert!(open::<u32>(&keys(), SealedKind::Index, "x", &bytes).is_err());
        }
    }
}
