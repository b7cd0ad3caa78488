//! In which class each pack lies.

use std::collections::HashMap;
use std::sync::Arc;

use lifeboat_core::{Context, StorageClass, Telling, Warehouse};

use crate::crypto::Purpose;
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::objects::{PACKS, id_of};
use crate::repository::Shared;

/// The classes of the packs that do not lie in an ordinary one: billed for a least time, or
/// archives.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    classes: Vec<StorageClass>,
    /// Which of them, by pack.
    packs: HashMap<ObjectId, u16>,
    /// What packs of data lie in where the store does not tell.
    assumed: Option<StorageClass>,
}

impl Shelf {
    /// Asks the store. Where the repository names no class, that the store cannot be asked is a
    /// warning: then nothing is known of classes.
    pub(crate) async fn ask(shared: &Shared, context: &Context) -> Result<Self> {
        let named = shared.data_class();
        let Some(warehouse) = &shared.warehouse else {
            return match named {
                Some(name) => Err(Error::NoWarehouse { name }),
                None => Ok(Self::default()),
            };
        };
        let mut shelf = Self::default();
        match shelf.fill(warehouse).await {
            Ok(Telling::All) => Ok(shelf),
            Ok(Telling::Nothing) => {
                let assumed = named.map(|name| warehouse.class(&name)).filter(is_special);
                Ok(Self { assumed, ..Self::default() })
            }
            Err(error) if named.is_none() => {
                let told = format!("their classes of storage are not known: {}", error.one_line());
                context.warn(PACKS, told);
                Ok(Self::default())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn fill(&mut self, warehouse: &Arc<dyn Warehouse>) -> lifeboat_core::Result<Telling> {
        let mut known: HashMap<String, Option<u16>> = HashMap::new();
        let (classes, packs) = (&mut self.classes, &mut self.packs);
        let mut each = |name: &str, class: &str| {
            let Some(id) = id_of(name) else {
                return;
            };
            if !known.contains_key(class) {
                let class_of = Some(warehouse.class(class)).filter(is_special);
                let number = class_of.and_then(|class| {
                    let number = u16::try_from(classes.len()).ok()?;
                    classes.push(class);
                    Some(number)
                });
                known.insert(class.to_owned(), number);
            }
            if let Some(Some(number)) = known.get(class) {
                packs.insert(id, *number);
            }
        };
        warehouse.classes(PACKS, &mut each).await
    }

    /// The class of a pack, unless it is an ordinary one.
    pub(crate) fn of(&self, shared: &Shared, pack: &ObjectId) -> Option<&StorageClass> {
        if let Some(number) = self.packs.get(pack) {
            return self.classes.get(usize::from(*number));
        }
        self.assumed.as_ref().filter(|_| is_data(shared, pack))
    }

    /// Whether a pack lies in an archive, thawed or not.
    pub(crate) fn is_archived(&self, shared: &Shared, pack: &ObjectId) -> bool {
        self.of(shared, pack).is_some_and(StorageClass::is_archive)
    }

    /// Whether any pack lies in an archive.
    pub(crate) fn has_archived(&self) -> bool {
        self.classes.iter().chain(&self.assumed).any(StorageClass::is_archive)
    }
}

fn is_special(class: &StorageClass) -> bool {
    class.is_archive() || !class.least.is_zero()
}

/// Whether a pack holds data, or may: what no index knows counts as data.
fn is_data(shared: &Shared, pack: &ObjectId) -> bool {
    let known = shared.index.number(pack).and_then(|number| shared.index.pack(number));
    known.is_none_or(|pack| pack.header.purpose() != Some(Purpose::Trees))
}
