//! The slots of a repository.

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::PutPayload;

use super::{KeyInfo, KeyKind, Standing};
use crate::crypto::{Access, AnySlot, DirectSlot, MAX_KEY_FILE, RootKey, Slot, Unread};
use crate::error::{Error, Result};
use crate::id::{ObjectId, RepositoryId};
use crate::objects::{KEYS, Objects, check_name, id_of, name_in};

/// How many slots are read at once.
const FETCHES: usize = 8;
/// How often they are looked for when some vanish.
const LOOKS: usize = 3;

/// A slot where it lies.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: ObjectId,
    pub(super) form: Form,
}

#[derive(Debug)]
pub(super) enum Form {
    Direct(DirectSlot),
    Pair(Slot),
    Later,
    Unreadable(Error),
}

/// Reads all slots, in the order of their names.
pub(super) async fn read(objects: &Objects, repository: RepositoryId) -> Result<Vec<Entry>> {
    let mut looks = 0;
    loop {
        let mut ids: Vec<_> = objects
            .list(KEYS)
            .try_filter_map(async |listed| Ok(id_of(&listed.name)))
            .try_collect()
            .await?;
        ids.sort();
        let read: Vec<_> = stream::iter(ids)
            .map(async |id| (id, fetch(objects, repository, id).await))
            .buffered(FETCHES)
            .collect()
            .await;
        looks += 1;
        // What is deleted meanwhile was replaced first, and a second look finds by what. A listing
        // that goes on naming what is not there must not hold anybody up for ever.
        if looks == LOOKS || read.iter().all(|(_, form)| form.is_some()) {
            let found = read.into_iter().filter_map(|(id, form)| Some(Entry { id, form: form? }));
            return Ok(found.collect());
        }
    }
}

/// `None` when there is no such object any more.
async fn fetch(objects: &Objects, repository: RepositoryId, id: ObjectId) -> Option<Form> {
    let name = name_in(KEYS, id);
    let bytes = match objects.read(&name, MAX_KEY_FILE).await {
        Ok(bytes) => bytes?,
        Err(error) => return Some(Form::Unreadable(error)),
    };
    if let Err(error) = check_name(&name, &bytes) {
        return Some(Form::Unreadable(error));
    }
    // It is what was written; so what cannot be read is of a later version.
    Some(match AnySlot::parse(&bytes, repository) {
        Ok(AnySlot::Direct(slot)) => Form::Direct(slot),
        Ok(AnySlot::Pair(slot)) => Form::Pair(slot),
        Err(Unread::Later) => Form::Later,
        Err(Unread::Nonsense(what)) => Form::Unreadable(Error::damaged(name, what)),
    })
}

/// Stores a slot, and returns where it lies.
pub(super) async fn write(objects: &Objects, slot: Slot) -> Result<Entry> {
    let bytes = slot.to_file()?;
    let id = ObjectId::of(&bytes);
    objects.create(&name_in(KEYS, id), PutPayload::from(bytes)).await?;
    Ok(Entry { id, form: Form::Pair(slot) })
}

/// Deletes a slot.
pub(super) async fn delete(objects: &Objects, id: ObjectId) -> Result<()> {
    objects.delete(&name_in(KEYS, id)).await
}

impl Entry {
    pub(super) fn label(&self) -> &str {
        match &self.form {
            Form::Direct(slot) => &slot.label,
            Form::Pair(slot) => &slot.label,
            Form::Later | Form::Unreadable(_) => "",
        }
    }

    /// The slot, if somebody made it who holds `root`.
    pub(super) fn authentic(&self, root: &RootKey) -> Option<&Slot> {
        match &self.form {
            Form::Pair(slot) => Some(slot).filter(|slot| slot.is_authentic(root)),
            _ => None,
        }
    }

    /// What is shown of it. Without a root key nothing can be said of its standing.
    pub(super) fn info(&self, root: Option<&RootKey>, in_use: bool) -> KeyInfo {
        let mut info = KeyInfo {
            id: self.id,
            label: self.label().to_owned(),
            kind: KeyKind::Unknown,
            access: None,
            created: None,
            epoch: None,
            recipient: None,
            standing: Standing::Unproven,
            in_use,
        };
        match &self.form {
            Form::Direct(_) => {
                (info.kind, info.access) = (KeyKind::Passphrase, Some(Access::Full));
            }
            Form::Pair(slot) => {
                info.kind = KeyKind::of(&slot.keeper);
                (info.access, info.epoch) = (Some(slot.access), Some(slot.epoch));
                info.created = slot.created.parse().ok();
                info.recipient = slot.public.to_text().ok();
                if let Some(root) = root {
                    let authentic = slot.is_authentic(root);
                    info.standing = if authentic { Standing::Authentic } else { Standing::Forged };
                }
            }
            Form::Later => info.standing = Standing::Later,
            Form::Unreadable(Error::Damaged { what, .. }) => {
                info.standing = Standing::Damaged(what.clone());
            }
            Form::Unreadable(error) => info.standing = Standing::Damaged(error.to_string()),
        }
        info
    }
}
