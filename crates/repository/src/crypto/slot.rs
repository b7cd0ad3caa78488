//! The repository's key, wrapped for one holder.

use argon2::{Argon2, Params, Version};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::aead::Algorithm;
use super::keys::RootKey;
use super::random;
use crate::error::{Error, Result};
use crate::id::RepositoryId;

/// What opens a repository. It cannot be printed.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// A passphrase.
    pub fn passphrase(passphrase: impl Into<SecretString>) -> Self {
        Self(passphrase.into())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What trying one passphrase costs: the parameters of Argon2id (RFC 9106).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KdfCost {
    /// Memory in KiB: 8 × lanes to 1 048 576 (1 GiB).
    pub memory_kib: u32,
    /// Passes over the memory: 1 to 16.
    pub passes: u32,
    /// Lanes: 1 to 16.
    pub lanes: u32,
}

impl Default for KdfCost {
    /// 64 MiB, three passes, four lanes: the second recommendation of RFC 9106, section 4.
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 }
    }
}

impl KdfCost {
    /// The bounds hold on reading too: a hostile key file must not ask for all memory.
    pub(crate) fn is_sane(self) -> bool {
        (1..=16).contains(&self.passes)
            && (1..=16).contains(&self.lanes)
            && (8 * self.lanes..=1024 * 1024).contains(&self.memory_kib)
    }
}

/// The stored form: an object `keys/<id>`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SlotFile {
    version: u32,
    repository: String,
    label: String,
    holder: Slot,
}

/// The kinds of holders.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Slot {
    /// Whoever knows the passphrase.
    Passphrase { cost: KdfCost, salt: String, wrapped: String },
}

impl SlotFile {
    /// Wraps `root` for whoever knows `secret`.
    pub(crate) fn wrap(
        root: &RootKey,
        repository: RepositoryId,
        label: &str,
        secret: &Secret,
        cost: KdfCost,
    ) -> Result<Self> {
        if !cost.is_sane() {
            return Err(Error::BadParameter {
                what: "the cost of the passphrase must be within 1 GiB, 16 passes and 16 lanes"
                    .into(),
            });
        }
        let salt: [u8; 32] = random()?;
        let key = stretch(secret, &salt, cost)?;
        let encode = Error::Crypto { doing: "wrap the key" };
        let mut wrapped = minicbor::to_vec(root).map_err(|_| encode)?;
        // The salt makes the key one of a kind, so its only nonce can be zero.
        let bound = associated(repository, cost, &salt);
        Algorithm::Aes256Gcm.key(&key)?.seal(0, &bound, &mut wrapped)?;
        let (salt, wrapped) = (hex::encode(salt), hex::encode(wrapped));
        let holder = Slot::Passphrase { cost, salt, wrapped };
        Ok(Self { version: 1, repository: repository.to_string(), label: label.into(), holder })
    }

    /// Unwraps the key, or `None` when `secret` is not the one.
    pub(crate) fn unwrap(
        &self,
        name: &str,
        repository: RepositoryId,
        secret: &Secret,
    ) -> Result<Option<RootKey>> {
        let Slot::Passphrase { cost, salt, wrapped } = &self.holder;
        let damaged = |what: &str| Error::damaged(name, what);
        if self.version != 1 || !cost.is_sane() {
            return Err(damaged("its parameters are out of range"));
        }
        if self.repository != repository.to_string() {
            return Err(damaged("it belongs to another repository"));
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(salt, &mut bytes).map_err(|_| damaged("its salt is unreadable"))?;
        let wrapped = hex::decode(wrapped).map_err(|_| damaged("its content is unreadable"))?;
        let mut wrapped = Zeroizing::new(wrapped);
        let key = stretch(secret, &bytes, *cost)?;
        let bound = associated(repository, *cost, &bytes);
        let sealer = Algorithm::Aes256Gcm.key(&key)?;
        let Some(plain) = sealer.open(0, &bound, &mut wrapped) else {
            return Ok(None);
        };
        let root = minicbor::decode(plain).map_err(|_| damaged("its content is unreadable"))?;
        Ok(Some(root))
    }
}

fn stretch(secret: &Secret, salt: &[u8; 32], cost: KdfCost) -> Result<Zeroizing<[u8; 32]>> {
    let refused = |_| Error::Crypto { doing: "stretch the passphrase" };
    let params =
        Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(refused)?;
    let argon = Argon2::new(argon2::Algorithm::Argon2id, Version::V0x13, params);
    let mut key = Zeroizing::new([0; 32]);
    argon
        .hash_password_into(secret.0.expose_secret().as_bytes(), salt, key.as_mut())
        .map_err(refused)?;
    Ok(key)
}

fn associated(repository: RepositoryId, cost: KdfCost, salt: &[u8; 32]) -> Vec<u8> {
    let mut bound = b"lifeboat v1 key slot".to_vec();
    bound.extend_from_slice(repository.as_bytes());
    for number in [cost.memory_kib, cost.passes, cost.lanes] {
        bound.extend_from_slice(&number.to_le_bytes());
    }
    bound.extend_from_slice(salt);
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: KdfCost = KdfCost { memory_kib: 64, passes: 1, lanes: 1 };

    #[test]
    fn only_the_right_secret_in_the_right_repository_opens_it() {
        let here = RepositoryId::from_bytes([1; 16]);
        let secret = Secret::passphrase("correct horse");
        let file = SlotFile::wrap(&RootKey::fixed(9), here, "first", &secret, CHEAP).unwrap();
        let json = serde_json::to_string(&file).unwrap();
        let file: SlotFile = serde_json::from_str(&json).unwrap();
        assert!(file.unwrap("k", here, &secret).unwrap().is_some());
        assert!(file.unwrap("k", here, &Secret::passphrase("wrong")).unwrap().is_none());
        let there = RepositoryId::from_bytes([2; 16]);
        assert!(file.unwrap("k", there, &secret).is_err());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }

    #[test]
    fn a_hostile_file_cannot_ask_for_all_memory() {
        for cost in [
            KdfCost { memory_kib: u32::MAX, ..CHEAP },
            KdfCost { passes: 1 << 20, ..CHEAP },
            KdfCost { lanes: 0, ..CHEAP },
        ] {
            let holder = Slot::Passphrase { cost, salt: "00".repeat(32), wrapped: String::new() };
            let id = RepositoryId::from_bytes([1; 16]);
            let repository = id.to_string();
            let file = SlotFile { version: 1, repository, label: String::new(), holder };
            assert!(file.unwrap("k", id, &Secret::passphrase("x")).is_err());
        }
    }
}
