//! Where packs lie: classes of storage, archives, and what becomes of deleted objects.
//!
//! **What is put where.** Content is most of what a repository holds, and is read only by restores
//! and by checks of every byte; all else is read by every command, and much of it lives for minutes.
//! So a repository may say in which class its packs of data are put, and everything else (trees,
//! index, keys, snapshots, journals, sessions, marks) has the store's usual class, always. Listing,
//! comparing, forgetting, and looking for damage in the structure work as ever while all data is
//! in an archive.
//!
//! **Who says so.** The class belongs to the repository and not to a host: it decides what a prune
//! may touch and what a restore has to wait for, and one backup that forgot an option would put a
//! year's data into the wrong drawer. It is kept in `lifeboat.json`, authenticated, as a word that
//! whoever writes or deletes must know (`data-class=NAME`): a program that does not know about
//! classes can still read, and can neither write packs elsewhere nor delete too early. It can be
//! changed; what was put stays where it is.
//!
//! **What is where** the store says itself, when it is asked: rules of the bucket and hands of people
//! move objects too. Where the store does not tell, packs of data count as lying in the class that
//! the repository names.

mod shelf;
mod thaw;

use std::sync::Arc;

use lifeboat_core::{Keeping, StorageClass, Warehouse};
use object_store::PutPayload;

use crate::config::{self, Config};
use crate::error::{Error, Result};
use crate::repository::{Repository, Shared};

pub(crate) use shelf::Shelf;
pub use thaw::{ThawNeed, ThawOptions, ThawPlan};

/// Packs that are archived should be at least this large: each is asked for, waited for, and billed
/// by itself.
pub(crate) const ARCHIVED_PACK: u32 = 64 << 20;

impl Repository {
    /// The class of storage that packs of data are put into, as the store calls it; `None` is the
    /// store's usual one.
    pub fn data_class(&self) -> Option<String> {
        self.shared().data_class()
    }

    /// Has packs of data put into another class from now on; `None` is the store's usual one. What
    /// is there stays where it is. Writers that are at work go on with the class that they know.
    ///
    /// # Errors
    /// When the store has no such class or no classes at all, somebody else keeps the repository in
    /// order just now, or the key may not.
    pub async fn set_data_class(&self, name: Option<&str>) -> Result<Option<StorageClass>> {
        let shared = self.shared();
        let class = match name {
            Some(name) => Some(choose(name, shared.warehouse.as_ref())?),
            None => None,
        };
        if let Some(class) = &class {
            crate::probe::class(&shared.objects, &class.name).await?;
        }
        let lease = shared.lease("set the class of data").await?;
        let changed = self.write_data_class(class.as_ref()).await;
        lease.give_back().await;
        changed.map(|()| class)
    }

    async fn write_data_class(&self, class: Option<&StorageClass>) -> Result<()> {
        let shared = self.shared();
        let known = shared.refresh_features().await?;
        known.may_write()?;
        known.may_delete()?;
        let features = known.with_data_class(class.map(|class| class.name.as_str()));
        if features == known {
            return Ok(());
        }
        let config = Config { features, ..shared.config.clone() };
        let file = config.to_file(&shared.keys)?;
        shared.objects.replace(config::NAME, PutPayload::from(file)).await?;
        shared.refresh_features().await.map(drop)
    }

    /// What becomes of objects that are replaced or deleted, as the store says; `None` when it was
    /// opened without a [`Warehouse`].
    ///
    /// # Errors
    /// When the store has no answer to this, or may not be asked it.
    pub async fn keeping(&self) -> Result<Option<Keeping>> {
        match &self.shared().warehouse {
            Some(warehouse) => Ok(Some(warehouse.keeping().await?)),
            None => Ok(None),
        }
    }
}

impl Shared {
    /// The class for packs of data.
    pub(crate) fn data_class(&self) -> Option<String> {
        self.features().data_class().map(ToOwned::to_owned)
    }
}

/// The class of this name, where the store has classes.
pub(crate) fn choose(name: &str, warehouse: Option<&Arc<dyn Warehouse>>) -> Result<StorageClass> {
    match warehouse {
        Some(warehouse) => Ok(warehouse.choose(name)?),
        None => Err(Error::NoClasses { name: name.to_owned() }),
    }
}
