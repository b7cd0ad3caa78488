//! Key slots: what the repository's key is kept in, one for each holder.
//!
//! A slot has a key pair. What its holder is given is encrypted to the public half, so that a new
//! epoch of the key can be given to every holder by one of them; who keeps the private half is
//! what tells kinds of holders apart.
//!
//! A slot is authenticated by a key that follows from the root key, the access and the public
//! half. Whoever holds the root key can check every slot: one that a stranger planted is given
//! nothing. A holder whose private half is in his slot finds that key beside it, and so takes no
//! root key that a stranger made up. (Who opens his slot with an identity of his own cannot know
//! that; `docs/format.md` section 18 says what follows.)

use minicbor::Encoder;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::aead::Algorithm;
use super::agreement::{PrivateKey, PublicKey};
use super::command::KeyCommand;
use super::root::{Access, RootKey, Share};
use super::secret::{KdfCost, stretch};
use super::{age, random};
use crate::error::{Error, Result};
use crate::id::RepositoryId;

/// What authenticates a slot.
type Authenticator = Zeroizing<[u8; 32]>;

/// A slot with a key pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) repository: RepositoryId,
    pub(crate) label: String,
    pub(crate) access: Access,
    /// The newest epoch that it holds.
    pub(crate) epoch: u32,
    /// RFC 3339, by the clock of the host that made it; for people.
    pub(crate) created: String,
    pub(crate) public: PublicKey,
    pub(crate) keeper: Keeper,
    /// What the holder is given: a file of age.
    pub(crate) share: Vec<u8>,
    pub(crate) mac: [u8; 32],
}

/// Where the private half of a slot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// With the holder: an identity of age.
    Owner,
    /// In the slot, wrapped with a passphrase.
    Passphrase(Stretched),
    /// In the slot, wrapped by a command.
    Command(Vec<u8>),
}

/// What a passphrase wraps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stretched {
    pub(crate) cost: KdfCost,
    pub(crate) salt: [u8; 32],
    pub(crate) wrapped: Vec<u8>,
}

/// The private half of a slot.
#[derive(Clone)]
pub(crate) struct HolderKey {
    private: PrivateKey,
    /// What authenticates his slot, where his private half is in it.
    authenticator: Option<Authenticator>,
}

impl HolderKey {
    /// A new one, for a holder with `access`.
    pub(crate) fn generate(root: &RootKey, access: Access) -> Result<Self> {
        let private = PrivateKey::generate()?;
        let authenticator = Some(root.authenticator(access, &private.public()?));
        Ok(Self { private, authenticator })
    }

    /// An identity that its owner keeps.
    pub(crate) fn of_owner(identity: &PrivateKey) -> Self {
        Self { private: identity.clone(), authenticator: None }
    }

    pub(crate) fn public(&self) -> Result<PublicKey> {
        self.private.public()
    }

    /// What is wrapped: the private half, and what authenticates the slot.
    fn to_bytes(&self) -> Zeroizing<[u8; 64]> {
        let mut bytes = Zeroizing::new([0; 64]);
        bytes[..32].copy_from_slice(self.private.as_bytes());
        if let Some(authenticator) = &self.authenticator {
            bytes[32..].copy_from_slice(&**authenticator);
        }
        bytes
    }

    /// `None` when it is not of the slot with the public half `public`.
    fn from_bytes(bytes: &[u8], public: &PublicKey) -> Result<Option<Self>> {
        let (Some(private), Some(rest)) = (bytes.first_chunk(), bytes.get(32..)) else {
            return Ok(None);
        };
        let Ok(authenticator) = <[u8; 32]>::try_from(rest) else {
            return Ok(None);
        };
        let private = PrivateKey::from_bytes(private);
        let own = private.public()? == *public;
        let authenticator = Some(Zeroizing::new(authenticator));
        Ok(own.then_some(Self { private, authenticator }))
    }

    /// Wraps it with a passphrase. It takes as long as the cost says.
    pub(crate) fn wrap(
        &self,
        repository: RepositoryId,
        passphrase: &SecretString,
        cost: KdfCost,
    ) -> Result<Keeper> {
        if !cost.is_sane() {
            return Err(Error::BadParameter {
                what: "the cost of the passphrase must be within 1 GiB, 16 passes and 16 lanes"
                    .into(),
            });
        }
        let salt = random()?;
        let key = stretch(passphrase, &salt, cost)?;
        let bound = bound(repository, cost, &salt, &self.public()?);
        let mut wrapped = self.to_bytes().to_vec();
        // The salt makes the key one of a kind, so its only nonce can be zero.
        Algorithm::Aes256Gcm.key(&key)?.seal(0, &bound, &mut wrapped)?;
        Ok(Keeper::Passphrase(Stretched { cost, salt, wrapped }))
    }

    /// Has a command wrap it.
    pub(crate) async fn entrust(
        &self,
        repository: RepositoryId,
        command: &KeyCommand,
    ) -> Result<Keeper> {
        Ok(Keeper::Command(command.wrap(repository, &*self.to_bytes()).await?))
    }

    /// Has a command unwrap it; `None` when what comes is not of the slot.
    pub(crate) async fn fetch(
        repository: RepositoryId,
        command: &KeyCommand,
        wrapped: &[u8],
        public: &PublicKey,
    ) -> Result<Option<Self>> {
        let bytes = command.unwrap(repository, wrapped).await?;
        Self::from_bytes(&bytes, public)
    }
}

impl Stretched {
    /// Unwraps the private half with a passphrase: `None` when it is another one. It takes as long
    /// as the cost says.
    pub(crate) fn open(
        &self,
        repository: RepositoryId,
        public: &PublicKey,
        passphrase: &SecretString,
    ) -> Result<Option<HolderKey>> {
        let key = stretch(passphrase, &self.salt, self.cost)?;
        let bound = bound(repository, self.cost, &self.salt, public);
        let mut wrapped = Zeroizing::new(self.wrapped.clone());
        match Algorithm::Aes256Gcm.key(&key)?.open(0, &bound, &mut wrapped) {
            Some(plain) => HolderKey::from_bytes(plain, public),
            None => Ok(None),
        }
    }
}

fn bound(repository: RepositoryId, cost: KdfCost, salt: &[u8; 32], public: &PublicKey) -> Vec<u8> {
    let parts: [&[u8]; 5] =
        [b"lifeboat v1 private half", repository.as_bytes(), &cost.to_bytes(), salt, &public.0];
    parts.concat()
}

/// What a new slot says of its holder.
pub(crate) struct Description {
    pub(crate) label: String,
    pub(crate) access: Access,
    pub(crate) created: String,
    pub(crate) public: PublicKey,
    pub(crate) keeper: Keeper,
}

impl Slot {
    /// A slot that gives a holder what his access says of the root key.
    pub(crate) fn grant(
        root: &RootKey,
        repository: RepositoryId,
        description: Description,
    ) -> Result<Self> {
        let Description { label, access, created, public, keeper } = description;
        let share = age::encrypt(&public, &root.share(access)?)?;
        let (epoch, mac) = (root.epoch(), [0; 32]);
        let mut slot =
            Self { repository, label, access, epoch, created, public, keeper, share, mac };
        slot.mac = slot.compute(&root.authenticator(access, &public))?;
        Ok(slot)
    }

    /// The same holder's slot for a newer root key.
    pub(crate) fn renewed(&self, root: &RootKey) -> Result<Self> {
        let description = Description {
            label: self.label.clone(),
            access: self.access,
            created: self.created.clone(),
            public: self.public,
            keeper: self.keeper.clone(),
        };
        Self::grant(root, self.repository, description)
    }

    /// Opens it with its private half. The error says what is wrong with it.
    pub(crate) fn open(&self, key: &HolderKey) -> Result<Share, &'static str> {
        let plain = age::decrypt(&key.private, &self.share).ok_or("it is not for its own key")?;
        let share = Share::decode(self.access, &plain).ok_or("what it holds is unreadable")?;
        let own = match &share {
            Share::Full(root) => Some(root.authenticator(self.access, &self.public)),
            Share::WriteOnly(_) => None,
        };
        // What was kept with the private half cannot have been made up together with the slot.
        let known = key.authenticator.as_ref().or(own.as_ref());
        let authentic = match known {
            Some(known) => self.is_signed_by(known) && own.as_ref().is_none_or(|own| own == known),
            // Nothing is known to whoever may only write, but what his own identity opened.
            None => true,
        };
        if !authentic {
            return Err("it was made by somebody who does not hold the repository's key");
        }
        if share.epoch() != self.epoch {
            return Err("it holds another epoch than it says");
        }
        Ok(share)
    }

    /// Whether somebody made it who holds the root key.
    pub(crate) fn is_authentic(&self, root: &RootKey) -> bool {
        self.is_signed_by(&root.authenticator(self.access, &self.public))
    }

    fn is_signed_by(&self, authenticator: &Authenticator) -> bool {
        // Comparing hashes takes constant time.
        let stored = blake3::Hash::from_bytes(self.mac);
        self.compute(authenticator).is_ok_and(|own| blake3::Hash::from_bytes(own) == stored)
    }

    fn compute(&self, authenticator: &Authenticator) -> Result<[u8; 32]> {
        let failed = |_| Error::Crypto { doing: "encode a key slot" };
        let bytes = self.canonical().map_err(failed)?;
        Ok(*blake3::keyed_hash(authenticator, &bytes).as_bytes())
    }

    /// All that the slot says, in one form only.
    fn canonical(&self) -> Result<Vec<u8>, minicbor::encode::Error<std::convert::Infallible>> {
        let mut to = Encoder::new(Vec::new());
        to.array(8)?.bytes(self.repository.as_bytes())?.str(&self.label)?;
        to.u8(self.access.number())?.u32(self.epoch)?.str(&self.created)?;
        to.bytes(&self.public.0)?;
        match &self.keeper {
            Keeper::Owner => to.array(1)?.u8(1)?,
            Keeper::Passphrase(Stretched { cost, salt, wrapped }) => {
                to.array(6)?.u8(2)?.u32(cost.memory_kib)?.u32(cost.passes)?.u32(cost.lanes)?;
                to.bytes(salt)?.bytes(wrapped)?
            }
            Keeper::Command(wrapped) => to.array(2)?.u8(3)?.bytes(wrapped)?,
        };
        to.bytes(&self.share)?;
        Ok(to.into_writer())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: KdfCost = KdfCost { memory_kib: 64, passes: 1, lanes: 1 };

    fn here() -> RepositoryId {
        RepositoryId::from_bytes([1; 16])
    }

    fn slot(root: &RootKey, access: Access, passphrase: &str) -> (Slot, HolderKey) {
        let key = HolderKey::generate(root, access).unwrap();
        let keeper = key.wrap(here(), &passphrase.into(), CHEAP).unwrap();
        let (label, created) = ("first".to_owned(), "2026-11-21T00:00:00Z".to_owned());
        let public = key.public().unwrap();
        let description = Description { label, access, created, public, keeper };
        (Slot::grant(root, here(), description).unwrap(), key)
    }

    fn unlock(slot: &Slot, passphrase: &str) -> Option<HolderKey> {
        let Keeper::Passphrase(stretched) = &slot.keeper else {
            panic!("another keeper");
        };
        stretched.open(slot.repository, &slot.public, &passphrase.into()).unwrap()
    }

    #[test]
    fn only_the_right_passphrase_in_the_right_repository_opens_it() {
        for access in [Access::Full, Access::WriteOnly] {
            let root = RootKey::fixed(9);
            let (slot, _) = slot(&root, access, "correct horse");
            let key = unlock(&slot, "correct horse").unwrap();
            match slot.open(&key).unwrap() {
                Share::Full(opened) => assert!(opened == root && access == Access::Full),
                Share::WriteOnly(_) => assert_eq!(access, Access::WriteOnly),
            }
            assert!(unlock(&slot, "wrong").is_none());
            let there = Slot { repository: RepositoryId::from_bytes([2; 16]), ..slot.clone() };
            assert!(unlock(&there, "correct horse").is_none());
        }
    }

    #[test]
    fn nothing_of_a_slot_can_be_changed() {
        let root = RootKey::fixed(9);
        let (slot, key) = slot(&root, Access::WriteOnly, "x");
        assert!(slot.is_authentic(&root));
        let changes: [fn(&mut Slot); 7] = [
            |slot| slot.label.push('x'),
            |slot| slot.access = Access::Full,
            |slot| slot.epoch += 1,
            |slot| slot.created.push('x'),
            |slot| slot.public = PublicKey([9; 32]),
            |slot| slot.keeper = Keeper::Owner,
            |slot| slot.share.push(0),
        ];
        for change in changes {
            let mut changed = slot.clone();
            change(&mut changed);
            assert!(!changed.is_authentic(&root), "{changed:?}");
            assert!(changed.open(&key).is_err(), "{changed:?}");
        }
    }

    /// A stranger knows the public half, and can encrypt to it whatever he likes.
    #[test]
    fn a_holder_takes_no_root_key_that_a_stranger_made_up() {
        for access in [Access::Full, Access::WriteOnly] {
            let (slot, key) = slot(&RootKey::fixed(9), access, "x");
            let planted = slot.renewed(&RootKey::fixed(8)).unwrap();
            assert!(planted.open(&key).is_err());
            assert!(!planted.is_authentic(&RootKey::fixed(9)));
        }
    }

    #[test]
    fn a_newer_epoch_reaches_a_holder_whose_passphrase_nobody_gave() {
        let root = RootKey::fixed(9);
        let (slot, _) = slot(&root, Access::Full, "correct horse");
        let next = root.rotated().unwrap();
        let slot = slot.renewed(&next).unwrap();
        let key = unlock(&slot, "correct horse").unwrap();
        assert!(matches!(slot.open(&key).unwrap(), Share::Full(opened) if opened == next));
        assert_eq!(slot.epoch, 2);
    }
}
