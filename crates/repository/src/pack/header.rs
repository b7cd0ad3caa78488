//! The first bytes of a pack: everything but the key that opening its chunks takes.

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use super::{HEADER, MAGIC};
use crate::crypto::{Cipher, Keys, Purpose, SALT, Sealer};
use crate::error::Result;
use crate::id::RepositoryId;

/// What a pack holds. The number is part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Contents {
    /// Content of entries.
    Data = 1,
    /// What describes content.
    Trees = 2,
}

impl Contents {
    pub(crate) fn purpose(self) -> Purpose {
        match self {
            Self::Data => Purpose::Data,
            Self::Trees => Purpose::Trees,
        }
    }
}

/// The header of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct PackHeader {
    #[n(0)]
    contents: u8,
    #[n(1)]
    cipher: u8,
    #[n(2)]
    pub(crate) epoch: u32,
    #[n(3)]
    pub(crate) repository: RepositoryId,
    #[n(4)]
    salt: ByteArray<SALT>,
}

impl PackHeader {
    /// A header with a salt of its own, and the key that goes with it.
    pub(crate) fn begin(keys: &Keys, contents: Contents) -> Result<(Self, Sealer)> {
        let seal = keys.seal(contents.purpose())?;
        let header = Self {
            contents: contents as u8,
            cipher: seal.cipher,
            epoch: seal.epoch,
            repository: keys.repository(),
            salt: seal.salt.into(),
        };
        Ok((header, seal.sealer))
    }

    /// A header for tests that seal nothing.
    #[cfg(test)]
    pub(crate) fn draw(keys: &Keys, contents: Contents) -> Result<Self> {
        Self::begin(keys, contents).map(|(header, _)| header)
    }

    /// The cipher; `None` for one of a later version.
    pub(crate) fn cipher(&self) -> Option<Cipher> {
        Cipher::from_number(self.cipher)
    }

    /// Which key seals its chunks; `None` for contents of a later version.
    pub(crate) fn purpose(&self) -> Option<Purpose> {
        let known = [Contents::Data, Contents::Trees];
        known.into_iter().find(|known| *known as u8 == self.contents).map(Contents::purpose)
    }

    pub(crate) fn salt(&self) -> &[u8; SALT] {
        &self.salt
    }

    pub(crate) fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = self.contents;
        bytes[9] = self.cipher;
        bytes[12..16].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[16..32].copy_from_slice(self.repository.as_bytes());
        bytes[32..].copy_from_slice(self.salt.as_slice());
        bytes
    }

    pub(crate) fn parse(bytes: &[u8; HEADER]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (&[contents, cipher, 0, 0], rest) = rest.split_first_chunk()? else {
            return None;
        };
        let (epoch, rest) = rest.split_first_chunk()?;
        let (repository, rest) = rest.split_first_chunk()?;
        let salt: &[u8; SALT] = rest.first_chunk()?;
        Some(Self {
            contents,
            cipher,
            epoch: u32::from_le_bytes(*epoch),
            repository: RepositoryId::from_bytes(*repository),
            salt: (*salt).into(),
        })
    }
}
