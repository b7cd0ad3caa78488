//! Whether a store keeps the promise of conditional puts.

use object_store::PutPayload;

use crate::crypto::random;
use crate::error::{Error, Result};
use crate::objects::Objects;

/// What a store does with "make this object only if there is none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ConditionalPut {
    /// It does so, and says when there is one.
    Kept,
    /// It does not know how, or takes no notice.
    Ignored,
}

/// Tries it: two puts of the same new name, with different bytes, of which the second must fail.
/// What was made for it is removed; where that is refused, a few bytes in `leases/` stay.
pub(crate) async fn conditional_put(objects: &Objects) -> Result<ConditionalPut> {
    let name = format!("{}/probe-{}", crate::objects::LEASES, hex::encode(random::<16>()?));
    let first = objects.put_if_absent(&name, PutPayload::from_static(b"first")).await?;
    let second = objects.put_if_absent(&name, PutPayload::from_static(b"second")).await?;
    let stored = objects.read(&name, 6).await?;
    if let Err(error) = objects.delete(&name).await {
        tracing::debug!(%error, "the probe could not be removed");
    }
    judge(first, second, stored.as_deref())
        .ok_or_else(|| Error::damaged(name, "the store does not give back what was written last"))
}

/// What the answers to both puts, and what was stored, say of a store.
fn judge(
    first: Option<bool>,
    second: Option<bool>,
    stored: Option<&[u8]>,
) -> Option<ConditionalPut> {
    match (first, second, stored) {
        // The first one is there "already" when its answer was lost, and it was sent again.
        (Some(_), Some(false), Some(b"first")) => Some(ConditionalPut::Kept),
        (None, ..) | (Some(true), Some(true), Some(b"second")) => Some(ConditionalPut::Ignored),
        _ => None,
    }
}

/// Tries whether the store takes an object of this class, by putting a few bytes, which are removed.
pub(crate) async fn class(objects: &Objects, class: &str) -> Result<()> {
    let name = format!("{}/probe-{}", crate::objects::LEASES, hex::encode(random::<16>()?));
    objects.create_in(Some(class), &name, PutPayload::from_static(b"class")).await?;
    objects.delete_if_allowed(&name).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;

    #[test]
    fn a_put_whose_answer_was_lost_counts() {
        let kept = Some(ConditionalPut::Kept);
        assert_eq!(judge(Some(true), Some(false), Some(b"first")), kept);
        assert_eq!(judge(Some(false), Some(false), Some(b"first")), kept);
        assert_eq!(judge(Some(false), Some(false), Some(b"second")), None);
        assert_eq!(judge(Some(false), Some(true), Some(b"second")), None);
        assert_eq!(judge(Some(true), Some(false), None), None);
    }

    #[tokio::test]
    async fn memory_and_directories_keep_the_promise_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let local = LocalFileSystem::new_with_prefix(dir.path()).unwrap();
        let stores: [Arc<dyn object_store::ObjectStore>; 2] =
            [Arc::new(InMemory::new()), Arc::new(local)];
        for store in stores {
            let objects = Objects::new(store);
            assert_eq!(conditional_put(&objects).await.unwrap(), ConditionalPut::Kept);
            assert!(objects.anything().await.unwrap().is_none());
        }
    }
}
