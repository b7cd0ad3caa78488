//! The stored form of a part of the index.

use minicbor::{Decode, Encode};
use object_store::PutPayload;

use crate::crypto::Keys;
use crate::error::Result;
use crate::id::ObjectId;
use crate::objects::{INDEX, Objects, check_name, name_in};
use crate::pack::PackRecord;
use crate::sealed::{SealedKind, open, seal};

/// An object `index/<id>`: what some packs hold.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct IndexObject {
    #[n(0)]
    pub(crate) packs: Vec<PackRecord>,
}

impl IndexObject {
    /// Reads one by its name; `None` when it does not exist.
    pub(crate) async fn read(objects: &Objects, keys: &Keys, id: ObjectId) -> Result<Option<Self>> {
        let name = name_in(INDEX, id);
        let Some(bytes) = objects.read(&name, SealedKind::Index.limit()).await? else {
            return Ok(None);
        };
        check_name(&name, &bytes)?;
        open(keys, SealedKind::Index, &name, &bytes).map(Some)
    }

    /// Stores it, and returns its name and its size.
    pub(crate) async fn write(&self, objects: &Objects, keys: &Keys) -> Result<(ObjectId, u64)> {
        let (id, bytes) = seal(keys, SealedKind::Index, self)?;
        let size = bytes.len() as u64;
        objects.create(&name_in(INDEX, id), PutPayload::from(bytes)).await?;
        Ok((id, size))
    }
}
