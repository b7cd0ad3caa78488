//! Classes, archives and locks: what the providers have beside putting and getting.

mod s3;
mod xml;

use async_trait::async_trait;
use lifeboat_core::{
    ClassVisitor, Error, ErrorKind, Keeping, Result, Standing, StorageClass, Telling, ThawTier,
    Warehouse,
};

use crate::classes;
use crate::location::Provider;

pub(crate) use s3::S3Warehouse;

/// A provider whose classes are known and can be chosen, and that is asked no more here: Google
/// reads all of its classes at once, and of Azure the archive is not used.
#[derive(Debug)]
pub(crate) struct PlainWarehouse(pub(crate) Provider);

impl PlainWarehouse {
    fn unsupported(doing: &str) -> Error {
        Error::new(ErrorKind::Unsupported, format!("{doing}: this version asks S3 only"))
    }
}

#[async_trait]
impl Warehouse for PlainWarehouse {
    fn class(&self, name: &str) -> StorageClass {
        classes::class(self.0, name)
    }

    fn choose(&self, name: &str) -> Result<StorageClass> {
        classes::choose(self.0, name)
    }

    async fn standing(&self, object: &str) -> Result<Option<Standing>> {
        Err(Self::unsupported(&format!("ask how {object} is stored")))
    }

    async fn classes(&self, _: &str, _: &mut ClassVisitor<'_>) -> Result<Telling> {
        Ok(Telling::Nothing)
    }

    async fn thaw(&self, object: &str, _: ThawTier, _: u16) -> Result<()> {
        Err(Self::unsupported(&format!("thaw {object}"))
            .with_hint("bring it back with the provider's own tools"))
    }

    async fn keeping(&self) -> Result<Keeping> {
        Err(Self::unsupported("ask what becomes of deleted objects"))
    }
}
