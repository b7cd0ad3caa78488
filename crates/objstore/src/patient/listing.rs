//! A listing, which may break off between two pages.

use futures_util::stream::{BoxStream, StreamExt, try_unfold};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, Result};

use super::effort::Repeat;
use super::{Order, Patient};

/// Lists what lies under `prefix` and after `offset`, and goes on where it breaks off.
pub(super) fn patient(
    store: Patient,
    prefix: Option<Path>,
    offset: Option<Path>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let listing = Listing { store, prefix, last: offset, given: false, stream: None };
    try_unfold(listing, async |mut listing: Listing| {
        Ok(listing.next().await?.map(|meta| (meta, listing)))
    })
    .boxed()
}

struct Listing {
    store: Patient,
    prefix: Option<Path>,
    /// The last name given, or the one that the caller named.
    last: Option<Path>,
    given: bool,
    stream: Option<BoxStream<'static, Result<ObjectMeta>>>,
}

impl Listing {
    async fn next(&mut self) -> Result<Option<ObjectMeta>> {
        let policy = self.store.policy.clone();
        let root = Path::default();
        let subject = self.prefix.clone().unwrap_or(root);
        let mut effort = policy.begin("list", &subject, Repeat::Always);
        loop {
            let stream = self.stream.get_or_insert_with(|| match &self.last {
                Some(last) => self.store.inner.list_with_offset(self.prefix.as_ref(), last),
                None => self.store.inner.list(self.prefix.as_ref()),
            });
            let next = async { stream.next().await.transpose() };
            match policy.within(policy.limit(0), next).await {
                Ok(Some(meta)) => {
                    if self.store.order == Order::ByName {
                        self.last = Some(meta.location.clone());
                    }
                    self.given = true;
                    return Ok(Some(meta));
                }
                Ok(None) => return Ok(None),
                // Names that were given would come again, or others be left out.
                Err(error) if self.given && self.store.order == Order::Unspecified => {
                    return Err(error);
                }
                Err(error) => {
                    self.stream = None;
                    effort.after(error).await?;
                }
            }
        }
    }
}
