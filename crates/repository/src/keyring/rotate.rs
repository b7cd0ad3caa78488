//! A new epoch of the repository's key.
//!
//! Old epochs stay with all holders: what they sealed is read as before, and sealed anew when it
//! is repacked. What is new is sealed under the newest epoch that its writer knows; a writer that
//! runs on with an older one does no harm.
//!
//! The order makes it safe to be killed at any instant:
//!
//! 1. Our own new slot. From here on the new epoch is known to us, whatever happens.
//! 2. The new slots of all others.
//! 3. The old slots are deleted.
//!
//! A run that finds slots of an older epoch than its own knows that one before it did not come to
//! its end, and finishes that instead of beginning another. A run that finds a newer epoch than
//! its own leaves it to whoever began it: two different keys of one epoch would tear the
//! repository apart.

use super::KeyInfo;
use super::change::finished;
use super::ring::{self, Entry, Form};
use super::unlock::{OwnKey, by_passphrase};
use crate::crypto::{
    Access, Description, DirectSlot, Given, HolderKey, RootKey, Secret, Share, Slot,
};
use crate::error::{Error, Result};
use crate::repository::Repository;
use lifeboat_core::Timestamp;
use secrecy::SecretString;

/// How the key is rotated.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RotateOptions {
    /// Passphrases of keys of the first form, which cannot be given a new epoch without.
    pub passphrases: Vec<Secret>,
}

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rotation {
    /// The epoch that seals what is new from now on.
    pub epoch: u32,
    /// Whether a rotation that had not come to its end was finished, and no new epoch made.
    pub resumed: bool,
    /// Who holds it.
    pub renewed: Vec<KeyInfo>,
    /// Keys that were given nothing, since nobody with the repository's key made them.
    pub refused: Vec<KeyInfo>,
}

/// A slot, and what it is to be replaced with.
struct Renewal {
    old: Vec<Entry>,
    slot: Slot,
    own: bool,
    /// A private half that was made just now.
    key: Option<HolderKey>,
}

impl Repository {
    /// Makes a new epoch of the repository's key and gives it to all holders. This handle goes on
    /// with it.
    ///
    /// What was written before stays under the older epochs until it is repacked. A run that is
    /// stopped is finished by the next.
    ///
    /// # Errors
    /// When this key may only write; a key of the first form opens with none of the passphrases
    /// that were given; a key is of a later version; somebody else rotates the key; or the store
    /// fails.
    pub async fn rotate_key(&self, options: &RotateOptions) -> Result<Rotation> {
        let shared = self.shared();
        // A run before this one may have gone far.
        shared.renew_keys().await?;
        let root = shared.keys.root()?;
        finished(&ring::read(&shared.objects, self.id()).await?, &root)?;
        let lease = shared.lease("rotate the key").await?;
        let rotated = self.rotate(&root, options).await;
        lease.give_back().await;
        rotated
    }

    async fn rotate(&self, root: &RootKey, options: &RotateOptions) -> Result<Rotation> {
        let shared = self.shared();
        let entries = ring::read(&shared.objects, self.id()).await?;
        let (mut plan, refused) = self.plan(entries, root, options).await?;
        if !plan.iter().any(|renewal| renewal.own) {
            let what = "the one that is in use was removed; open the repository with another";
            return Err(Error::KeyChange { what: what.into() });
        }
        let resumed = plan.iter().any(|renewal| renewal.is_behind(root.epoch()));
        let next = if resumed { root.clone() } else { root.rotated()? };
        // Our own first: then no epoch can be in use that nobody could give to the others.
        plan.sort_by_key(|renewal| !renewal.own);
        let mut renewed = Vec::new();
        for renewal in &plan {
            if let Some(entry) = renewal.old.iter().find(|entry| entry.is_of(&next)) {
                renewed.push(entry.info(Some(&next), renewal.own));
                continue;
            }
            let slot = renewal.slot.renewed(&next)?;
            let written = ring::write(&shared.objects, slot).await?;
            if renewal.own {
                if !resumed {
                    self.alone(&written, &next).await?;
                }
                if let Some(key) = &renewal.key {
                    let public = renewal.slot.public;
                    shared.take(OwnKey::Pair { public, holder: Some(key.clone()) });
                }
                shared.keys.adopt(&Share::Full(next.clone()));
            }
            renewed.push(written.info(Some(&next), renewal.own));
        }
        for renewal in &plan {
            for old in renewal.old.iter().filter(|entry| !entry.is_of(&next)) {
                ring::delete(&shared.objects, old.id).await?;
            }
        }
        Ok(Rotation { epoch: next.epoch(), resumed, renewed, refused })
    }

    /// What replaces what; and the slots that are given nothing.
    async fn plan(
        &self,
        entries: Vec<Entry>,
        root: &RootKey,
        options: &RotateOptions,
    ) -> Result<(Vec<Renewal>, Vec<KeyInfo>)> {
        let shared = self.shared();
        let mut plan: Vec<Renewal> = Vec::new();
        let (mut refused, mut direct) = (Vec::new(), Vec::new());
        for entry in entries {
            let own = shared.own().is(&entry);
            match &entry.form {
                Form::Direct(slot) => direct.push((slot.clone(), entry)),
                Form::Pair(slot) if slot.is_authentic(root) => {
                    let known = plan.iter_mut().find(|known| known.slot.public == slot.public);
                    match known {
                        // The newest one tells what its holder has.
                        Some(known) if known.slot.epoch < slot.epoch => {
                            known.slot = slot.clone();
                            known.old.push(entry);
                        }
                        Some(known) => known.old.push(entry),
                        None => {
                            let (slot, old) = (slot.clone(), vec![entry]);
                            plan.push(Renewal { old, slot, own, key: None });
                        }
                    }
                }
                Form::Pair(_) => refused.push(entry.info(Some(root), own)),
                Form::Later => {
                    let what = format!("key {} is of a later version of this program", entry.id);
                    return Err(Error::KeyChange { what });
                }
                Form::Unreadable(Error::Damaged { .. }) => {
                    refused.push(entry.info(Some(root), own));
                }
                Form::Unreadable(error) => {
                    let what = format!("key {} cannot be read: {error}", entry.id);
                    return Err(Error::KeyChange { what });
                }
            }
        }
        for (slot, entry) in direct {
            self.plan_direct(&mut plan, root, slot, entry, options).await?;
        }
        Ok((plan, refused))
    }

    /// Gives the holder of a key of the first form a key pair; without his passphrase nobody can.
    async fn plan_direct(
        &self,
        plan: &mut Vec<Renewal>,
        root: &RootKey,
        slot: DirectSlot,
        entry: Entry,
        options: &RotateOptions,
    ) -> Result<()> {
        let shared = self.shared();
        for secret in &options.passphrases {
            let Given::Passphrase(passphrase) = &secret.0 else { continue };
            let (trying, given) = (slot.clone(), passphrase.clone());
            let open = move || trying.open(&given);
            if shared.pool.run("unwrap the key", open).await??.is_none() {
                continue;
            }
            // A run before this one may have given him one already.
            for known in plan.iter_mut().filter(|known| known.slot.label == slot.label) {
                if by_passphrase(&shared.pool, &known.slot, passphrase).await?.is_some() {
                    known.old.push(entry);
                    return Ok(());
                }
            }
            let own = shared.own().is(&entry);
            let (slot, key) = self.paired(root, &slot, passphrase).await?;
            plan.push(Renewal { old: vec![entry], slot, own, key: Some(key) });
            return Ok(());
        }
        let what = format!(
            "\"{}\" (key {}) is of the first form: give its passphrase, or remove it",
            slot.label, entry.id
        );
        Err(Error::KeyChange { what })
    }

    async fn paired(
        &self,
        root: &RootKey,
        slot: &DirectSlot,
        passphrase: &SecretString,
    ) -> Result<(Slot, HolderKey)> {
        let (repository, cost) = (self.id(), slot.cost());
        let key = HolderKey::generate(root, Access::Full)?;
        let public = key.public()?;
        let (kept, passphrase) = (key.clone(), passphrase.clone());
        let wrap = move || key.wrap(repository, &passphrase, cost);
        let keeper = self.shared().pool.run("wrap the key", wrap).await??;
        let (label, created) = (slot.label.clone(), Timestamp::now().to_string());
        let access = Access::Full;
        let description = Description { label, access, created, public, keeper };
        Ok((Slot::grant(root, repository, description)?, kept))
    }

    /// Makes sure that nobody else rotates the key at the same time: his own slot would be there.
    /// The lease keeps others away for as long as time passes as it should; this does in any case.
    /// `written` is ours, and goes away again then.
    async fn alone(&self, written: &Entry, next: &RootKey) -> Result<()> {
        let objects = &self.shared().objects;
        let entries = ring::read(objects, self.id()).await?;
        let others = entries.iter().filter(|entry| entry.id != written.id);
        let mut slots = others.filter_map(|entry| entry.authentic(next));
        let Some(other) = slots.find(|slot| slot.epoch >= next.epoch()) else { return Ok(()) };
        let what = format!("the holder of \"{}\" is just rotating it; run it again", other.label);
        ring::delete(objects, written.id).await?;
        Err(Error::KeyChange { what })
    }
}

impl Renewal {
    /// Whether an earlier rotation to `epoch` has not come to its end here.
    fn is_behind(&self, epoch: u32) -> bool {
        self.old.iter().any(|entry| match &entry.form {
            Form::Pair(slot) => slot.epoch < epoch,
            // Only ever of the first epoch.
            _ => epoch > 1,
        })
    }
}

impl Entry {
    /// Whether it holds the newest epoch of `root`.
    fn is_of(&self, root: &RootKey) -> bool {
        self.authentic(root).is_some_and(|slot| slot.epoch == root.epoch())
    }
}
