//! Marks: packs that are about to be deleted.
//!
//! An object `trash/<id>` names packs. Its time, by the store's clock, is when they were marked.
//! Whoever reads a repository pays no heed to it; a writer relies on no marked pack.

use std::collections::HashSet;

use futures_util::TryStreamExt;
use lifeboat_core::Timestamp;
use minicbor::{Decode, Encode};
use object_store::PutPayload;

use crate::crypto::Keys;
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::objects::{Objects, TRASH, check_name, id_of, name_in};
use crate::sealed::{SealedKind, open, seal};

/// So many packs are named by one object.
const PACKS: usize = 50_000;

/// The content of an object `trash/<id>`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct TrashRecord {
    #[n(0)]
    pub(crate) packs: Vec<ObjectId>,
}

/// The packs that one object marks.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    pub(crate) name: String,
    /// When they were marked, by the store's clock.
    pub(crate) since: Timestamp,
    pub(crate) packs: Vec<ObjectId>,
}

/// All marks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks {
    pub(crate) marks: Vec<Mark>,
    /// Those that cannot be read, and why. What they mark stays: no sweeper can read them either.
    pub(crate) damaged: Vec<(String, String)>,
}

impl Marks {
    /// Reads them all.
    pub(crate) async fn read(objects: &Objects, keys: &Keys) -> Result<Self> {
        let listed: Vec<_> = objects.list(TRASH).try_collect().await?;
        let mut all = Self::default();
        for object in listed.into_iter().filter(|object| id_of(&object.name).is_some()) {
            let read = match read(objects, keys, &object.name).await {
                // The harm may have happened on the way.
                Err(Error::Damaged { .. }) => read(objects, keys, &object.name).await,
                other => other,
            };
            match read {
                Ok(Some(TrashRecord { packs })) => {
                    all.marks.push(Mark { name: object.name, since: object.modified, packs });
                }
                // It was rescued or swept since the listing.
                Ok(None) => {}
                Err(Error::Damaged { what, .. }) => all.damaged.push((object.name, what)),
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Every pack that is marked.
    pub(crate) fn packs(&self) -> HashSet<ObjectId> {
        self.marks.iter().flat_map(|mark| &mark.packs).copied().collect()
    }

    /// Marks packs, durably.
    pub(crate) async fn add(objects: &Objects, keys: &Keys, packs: &[ObjectId]) -> Result<()> {
        for packs in packs.chunks(PACKS) {
            let record = TrashRecord { packs: packs.to_vec() };
            let (id, bytes) = seal(keys, SealedKind::Trash, &record)?;
            objects.create(&name_in(TRASH, id), PutPayload::from(bytes)).await?;
        }
        Ok(())
    }
}

async fn read(objects: &Objects, keys: &Keys, name: &str) -> Result<Option<TrashRecord>> {
    let Some(bytes) = objects.read(name, SealedKind::Trash.limit()).await? else {
        return Ok(None);
    };
    check_name(name, &bytes)?;
    open(keys, SealedKind::Trash, name, &bytes).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RootKey;
    use crate::id::RepositoryId;
    use object_store::memory::InMemory;
    use std::sync::Arc;

    #[tokio::test]
    async fn marks_are_found_again_and_damage_hides_no_others() {
        let objects = Objects::new(Arc::new(InMemory::new()));
        let keys = Keys::derive(&RootKey::fixed(1), RepositoryId::from_bytes([1; 16]));
        let pack = |byte| ObjectId::from_bytes([byte; 32]);
        Marks::add(&objects, &keys, &[pack(1), pack(2)]).await.unwrap();
        Marks::add(&objects, &keys, &[pack(2), pack(3)]).await.unwrap();
        let name = name_in(TRASH, pack(9));
        objects.replace(&name, PutPayload::from_static(b"nonsense")).await.unwrap();
        let marks = Marks::read(&objects, &keys).await.unwrap();
        assert_eq!(marks.packs(), HashSet::from([pack(1), pack(2), pack(3)]));
        assert_eq!(marks.damaged.len(), 1);
    }
}
