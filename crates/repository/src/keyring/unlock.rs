//! Finding the slot that a secret opens.

use secrecy::SecretString;

use super::ring::{self, Entry, Form};
use crate::crypto::{Given, HolderKey, Keeper, KeyCommand, Keys, PublicKey, Secret, Share, Slot};
use crate::error::{Error, Result};
use crate::id::{ObjectId, RepositoryId};
use crate::objects::{KEYS, Objects, name_in};
use crate::pool::Pool;

/// The key that a repository was opened with.
pub(crate) enum OwnKey {
    /// One of the first form, by its slot.
    Direct(ObjectId),
    /// One with a key pair; the private half, if it is known here, opens a newer epoch.
    Pair { public: PublicKey, holder: Option<HolderKey> },
}

impl OwnKey {
    /// Whether a slot is of this key.
    pub(super) fn is(&self, entry: &Entry) -> bool {
        match (self, &entry.form) {
            (Self::Direct(id), _) => entry.id == *id,
            (Self::Pair { public, .. }, Form::Pair(slot)) => slot.public == *public,
            (Self::Pair { .. }, _) => false,
        }
    }

    /// Takes what the holder was given meanwhile, if it is of a newer epoch; and notes which one
    /// others were given.
    pub(crate) async fn renew(&self, objects: &Objects, keys: &Keys) -> Result<()> {
        let entries = ring::read(objects, keys.repository()).await?;
        // Who may only write cannot tell who made a slot.
        let root = keys.root().ok();
        for entry in &entries {
            let Form::Pair(slot) = &entry.form else { continue };
            if root.as_ref().is_none_or(|root| slot.is_authentic(root)) {
                keys.saw(slot.epoch);
            }
            if let Self::Pair { public, holder: Some(holder) } = self
                && slot.public == *public
                && let Ok(share) = slot.open(holder)
            {
                keys.adopt(&share);
            }
        }
        Ok(())
    }
}

/// Opens a repository's key with `secret`.
pub(crate) async fn unlock(
    objects: &Objects,
    pool: &Pool,
    repository: RepositoryId,
    secret: &Secret,
) -> Result<(Share, OwnKey)> {
    let mut entries = ring::read(objects, repository).await?;
    if entries.is_empty() {
        return Err(Error::NoKeys);
    }
    // Where a holder has two slots because the key is being rotated, the newest epoch counts. The
    // first form cannot be of a newer one.
    entries.sort_by_key(|entry| match &entry.form {
        Form::Pair(slot) => std::cmp::Reverse(slot.epoch),
        _ => std::cmp::Reverse(0),
    });
    let mut trying = Trying { pool, repository, tried: Vec::new() };
    let mut failure = None;
    for entry in &entries {
        let opened = match &entry.form {
            Form::Pair(slot) => trying.pair(&name_in(KEYS, entry.id), slot, secret).await,
            Form::Direct(slot) => match &secret.0 {
                Given::Passphrase(passphrase) => {
                    let (slot, passphrase) = (slot.clone(), passphrase.clone());
                    let opened = pool.run("unwrap the key", move || slot.open(&passphrase)).await?;
                    let own = OwnKey::Direct(entry.id);
                    opened.map(|share| share.map(|share| (share, own)))
                }
                _ => Ok(None),
            },
            Form::Later => Ok(None),
            Form::Unreadable(error) => {
                failure.get_or_insert_with(|| described(error));
                Ok(None)
            }
        };
        match opened {
            Ok(Some(opened)) => return Ok(opened),
            Ok(None) => {}
            // A damaged key must not keep the others from being tried.
            Err(error) => failure = Some(error),
        }
    }
    let wrong = Error::WrongSecret { secret: secret.name(), keys: entries.len() };
    Err(failure.unwrap_or(wrong))
}

/// What cannot be read, told once more.
fn described(error: &Error) -> Error {
    match error {
        Error::Damaged { object, what } => Error::damaged(object, what),
        other => Error::damaged(KEYS, other.to_string()),
    }
}

struct Trying<'a> {
    pool: &'a Pool,
    repository: RepositoryId,
    /// What was tried, and what it gave: the slots of one holder differ in their epochs only.
    tried: Vec<(PublicKey, Keeper, Option<HolderKey>)>,
}

impl Trying<'_> {
    async fn pair(
        &mut self,
        name: &str,
        slot: &Slot,
        secret: &Secret,
    ) -> Result<Option<(Share, OwnKey)>> {
        let before = self
            .tried
            .iter()
            .find(|(public, keeper, _)| *public == slot.public && *keeper == slot.keeper);
        let holder = match before {
            Some((.., holder)) => holder.clone(),
            None => {
                let holder = self.holder(slot, secret).await?;
                self.tried.push((slot.public, slot.keeper.clone(), holder.clone()));
                holder
            }
        };
        let Some(holder) = holder else { return Ok(None) };
        let share = slot.open(&holder).map_err(|what| Error::damaged(name, what))?;
        Ok(Some((share, OwnKey::Pair { public: slot.public, holder: Some(holder) })))
    }

    /// The private half of a slot, if `secret` gives it.
    async fn holder(&self, slot: &Slot, secret: &Secret) -> Result<Option<HolderKey>> {
        match (&secret.0, &slot.keeper) {
            // Whoever keeps the private half, it opens the slot.
            (Given::Identities(identities), _) => {
                for identity in identities {
                    if identity.public()? == slot.public {
                        return Ok(Some(HolderKey::of_owner(identity)));
                    }
                }
                Ok(None)
            }
            (Given::Passphrase(passphrase), Keeper::Passphrase(_)) => {
                by_passphrase(self.pool, slot, passphrase).await
            }
            (Given::Command(command), Keeper::Command(wrapped)) => {
                by_command(self.repository, slot, wrapped, command).await
            }
            _ => Ok(None),
        }
    }
}

/// The private half of a slot that a passphrase wraps.
pub(super) async fn by_passphrase(
    pool: &Pool,
    slot: &Slot,
    passphrase: &SecretString,
) -> Result<Option<HolderKey>> {
    let Keeper::Passphrase(stretched) = &slot.keeper else { return Ok(None) };
    let (stretched, passphrase) = (stretched.clone(), passphrase.clone());
    let (repository, public) = (slot.repository, slot.public);
    let open = move || stretched.open(repository, &public, &passphrase);
    pool.run("unwrap the key", open).await?
}

async fn by_command(
    repository: RepositoryId,
    slot: &Slot,
    wrapped: &[u8],
    command: &KeyCommand,
) -> Result<Option<HolderKey>> {
    HolderKey::fetch(repository, command, wrapped, &slot.public).await
}
