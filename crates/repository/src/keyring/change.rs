//! Adding holders, and removing them.

use super::ring::{self, Entry, Form};
use super::{KeyInfo, describe};
use crate::config::{Features, SEALED_TO_KEY};
use crate::crypto::{Access, Holder, KdfCost, Owner, RootKey, Slot};
use crate::error::{Error, Result};
use crate::repository::Repository;

/// How a key is added.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AddKeyOptions {
    /// What it is called: 1 to 128 bytes, and no other key has the same.
    pub label: String,
    /// What its holder may do.
    pub access: Access,
    /// What trying one passphrase costs, where it is a passphrase that opens it.
    pub cost: KdfCost,
}

impl AddKeyOptions {
    /// Full access, under this label.
    pub fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), access: Access::Full, cost: KdfCost::default() }
    }
}

/// How a key is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RemoveKeyOptions {
    /// Not if it is the one that the repository was opened with.
    #[default]
    NotInUse,
    /// Also if it is the one that the repository was opened with.
    AlsoInUse,
}

impl Repository {
    /// Who holds a key of this repository, by label.
    ///
    /// # Errors
    /// When the store cannot be listed. A key that cannot be read is told by its standing.
    pub async fn keys(&self) -> Result<Vec<KeyInfo>> {
        let shared = self.shared();
        let root = shared.keys.root().ok();
        let entries = ring::read(&shared.objects, self.id()).await?;
        let own = shared.own();
        let info = |entry: &Entry| entry.info(root.as_ref(), own.is(entry));
        let mut keys: Vec<_> = entries.iter().map(info).collect();
        keys.sort_by(|one, two| (&one.label, one.epoch).cmp(&(&two.label, two.epoch)));
        Ok(keys)
    }

    /// What the key that the repository was opened with may do.
    pub fn access(&self) -> Access {
        self.shared().keys.access()
    }

    /// Gives `holder` a key.
    ///
    /// The first key that may only write makes the repository ask readers for the feature
    /// `sealed-to-key`: programs that do not know it cannot read the repository any more.
    ///
    /// # Errors
    /// When this key may only write, another one has the label, `holder` has one already, or the
    /// store or a command fails.
    pub async fn add_key(&self, holder: &Holder, options: &AddKeyOptions) -> Result<KeyInfo> {
        let shared = self.shared();
        let root = shared.keys.root()?;
        let entries = ring::read(&shared.objects, self.id()).await?;
        if entries.iter().any(|entry| entry.label() == options.label) {
            let what = format!("there is one that is called \"{}\" already", options.label);
            return Err(Error::KeyChange { what });
        }
        if let Owner::Recipient(public) = &holder.0 {
            let slots = entries.iter().filter_map(|entry| entry.authentic(&root));
            if let Some(same) = slots.into_iter().find(|slot| slot.public == *public) {
                let what = format!("\"{}\" is of the same recipient", same.label);
                return Err(Error::KeyChange { what });
            }
        }
        finished(&entries, &root)?;
        let description = describe(&shared.pool, self.id(), &root, holder, options).await?;
        if options.access == Access::WriteOnly {
            let read = vec![SEALED_TO_KEY.to_owned()];
            let lease = shared.lease("add a key that may only write").await?;
            let demanded = shared.demand(&Features { read, ..Features::default() }).await;
            lease.give_back().await;
            demanded?;
        }
        let slot = Slot::grant(&root, self.id(), description)?;
        let entry = ring::write(&shared.objects, slot).await?;
        Ok(entry.info(Some(&root), false))
    }

    /// Takes a key away: the one of this label, of this recipient, or whose id begins so.
    ///
    /// Its holder may have kept what it opened, so this alone takes nothing from him that he can
    /// still fetch; [`Repository::rotate_key`] keeps from him what is written later.
    ///
    /// # Errors
    /// When this key may only write; none or several have the name; it is the last with full
    /// access; it is in use and `options` do not allow that; or the store fails.
    pub async fn remove_key(&self, name: &str, options: RemoveKeyOptions) -> Result<Vec<KeyInfo>> {
        let shared = self.shared();
        let root = shared.keys.root()?;
        let entries = ring::read(&shared.objects, self.id()).await?;
        let found: Vec<_> = entries.iter().filter(|entry| is_named(entry, name)).collect();
        let refused = |what: String| Err(Error::KeyChange { what });
        let Some(first) = found.first() else {
            return refused(format!("no key is called \"{name}\", and no id begins so"));
        };
        // A holder has two slots while the key is being rotated.
        let same = |entry: &&Entry| match (&entry.form, &first.form) {
            (Form::Pair(one), Form::Pair(two)) => one.public == two.public,
            _ => entry.id == first.id,
        };
        if !found.iter().all(same) {
            return refused(format!("\"{name}\" means {} keys: give more of an id", found.len()));
        }
        let own = shared.own();
        let in_use = found.iter().any(|entry| own.is(entry));
        if in_use && options == RemoveKeyOptions::NotInUse {
            return Err(Error::KeyInUse { name: name.to_owned() });
        }
        // Only what is known to open counts as what is left.
        let opens = |entry: &&Entry| {
            let slot = entry.authentic(&root);
            own.is(entry) || slot.is_some_and(|slot| slot.access == Access::Full)
        };
        let is_left = |entry: &&Entry| !found.iter().any(|found| found.id == entry.id);
        if !entries.iter().filter(is_left).any(|entry| opens(&entry)) {
            return refused(format!("\"{name}\" is the last one with full access"));
        }
        // A rotation that did not come to its end may have given the newest epoch to this one only,
        // and what is sealed with it nobody else could read ever after.
        let newest = |entries: &mut dyn Iterator<Item = &Entry>| {
            entries.filter_map(|entry| entry.authentic(&root)).map(|slot| slot.epoch).max()
        };
        let (all, left) =
            (newest(&mut entries.iter()), newest(&mut entries.iter().filter(is_left)));
        if all > left && all > Some(root.epoch()) {
            return refused(format!(
                "only \"{name}\" has epoch {}, to which its holder began to rotate the key; let him \
                 run `lifeboat key rotate` once more; if he cannot, delete its objects beneath keys/ \
                 yourself: what was sealed with that epoch is lost then",
                all.unwrap_or_default()
            ));
        }
        let mut removed = Vec::new();
        for entry in found {
            ring::delete(&shared.objects, entry.id).await?;
            removed.push(entry.info(Some(&root), own.is(entry)));
        }
        Ok(removed)
    }
}

/// Fails when somebody else began to rotate the key to an epoch that is not known here.
pub(super) fn finished(entries: &[Entry], root: &RootKey) -> Result<()> {
    let slots = entries.iter().filter_map(|entry| entry.authentic(root));
    match slots.into_iter().find(|slot| slot.epoch > root.epoch()) {
        None => Ok(()),
        Some(newer) => {
            let what = format!(
                "somebody began to rotate it to epoch {}; let the holder of \"{}\" run `lifeboat \
                 key rotate` once more",
                newer.epoch, newer.label
            );
            Err(Error::KeyChange { what })
        }
    }
}

fn is_named(entry: &Entry, name: &str) -> bool {
    let recipient = match &entry.form {
        Form::Pair(slot) => slot.public.to_text().ok(),
        _ => None,
    };
    !name.is_empty()
        && (entry.label() == name
            || recipient.as_deref() == Some(name)
            || entry.id.to_string().starts_with(name))
}
