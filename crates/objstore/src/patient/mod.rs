//! A store that gives every request the time it needs, and tries again what can pass.
//!
//! `object_store` limits a request to 30 s with its body, whatever its size, and tries again
//! within three minutes: a pack of 64 MiB fails below 2 MB/s, and a reboot of a gateway ends a
//! backup of a day. So its own limits and retries are switched off when a store is opened, and
//! [`Patient`] does both for every request, one layer above: a new try is then a new request with
//! a new signature, each is counted, and each failure leaves as one readable line.
//!
//! What is safe to repeat is repeated:
//!
//! - Reading, listing, deleting, and putting an object whole are. A read that breaks off goes on
//!   where it broke, if the object is still the same one; a listing after the last name it gave.
//! - *Put if absent* is repeated as well, and its outcome is **not** decided here: after a failure
//!   whose outcome is unknown, `AlreadyExists` may be about our own bytes, and a last error may
//!   hide a success. Whoever must know reads the object back and compares; objects that are made
//!   once carry something that only their writer can have written.
//! - A conditional update is repeated only when the store certainly did not do it.

mod body;
mod deletion;
mod effort;
mod listing;
mod upload;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    RenameOptions, RenameTargetMode, Result,
};

use crate::options::{Patience, Retries};
pub(crate) use effort::{Policy, Repeat};

/// How many times as long as a single request the listing of one level may take.
const PAGES: u32 = 20;

/// An [`ObjectStore`] that forwards everything to another one, under limits that follow the size
/// of each request, and with new tries for what can pass.
///
/// [`open`](crate::open) wraps every cloud store in one; the store beneath must not have limits
/// and retries of its own, or the two multiply. Clones share the store and the counts.
#[derive(Debug, Clone)]
pub struct Patient {
    inner: Arc<dyn ObjectStore>,
    policy: Arc<Policy>,
    order: Order,
}

/// In which order a store lists, and with it whether a listing that broke off can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// By name: it goes on after the last name.
    ByName,
    /// In none: an error that comes after the first name is the caller's.
    Unspecified,
}

impl Patient {
    /// Wraps `inner`.
    pub fn new(
        inner: Arc<dyn ObjectStore>,
        patience: Patience,
        retries: Retries,
        order: Order,
    ) -> Self {
        let policy = Arc::new(Policy::new(inner.to_string(), patience, retries));
        Self { inner, policy, order }
    }

    /// The limits and new tries, for requests that are made beside the store.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }
}

impl fmt::Display for Patient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Patient {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let limit = self.policy.limit(payload.content_length() as u64);
        let repeat = match options.mode {
            PutMode::Overwrite => Repeat::Always,
            PutMode::Create => Repeat::Create,
            PutMode::Update(_) => Repeat::IfUndone,
        };
        let put = || self.inner.put_opts(location, payload.clone(), options.clone());
        self.policy.run("put", location, limit, repeat, put).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let options = options.with_retry_policy(self.policy.clone());
        let begin = || self.inner.put_multipart_opts(location, options.clone());
        let limit = self.policy.limit(0);
        // An upload that was begun twice leaves an empty one, which the bucket's rule removes.
        let upload = self.policy.run("begin the upload of", location, limit, Repeat::Always, begin);
        Ok(upload::patient(upload.await?, location.clone(), self.policy.clone()))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let get = || self.inner.get_opts(location, options.clone());
        let limit = self.policy.limit(0);
        let result = self.policy.run("get", location, limit, Repeat::Always, get).await?;
        Ok(body::patient(result, &options, self.inner.clone(), self.policy.clone()))
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        deletion::patient(locations, self.inner.clone(), self.policy.clone())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        listing::patient(self.clone(), prefix.cloned(), None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        listing::patient(self.clone(), prefix.cloned(), Some(offset.clone()))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        // All pages of it are one call, which nobody can look into.
        let limit = self.policy.limit(0) * PAGES;
        let root = Path::default();
        let what = prefix.unwrap_or(&root);
        let list = || self.inner.list_with_delimiter(prefix);
        self.policy.run("list", what, limit, Repeat::Always, list).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        // The store does the work, yet it takes its time, which follows the size.
        let size = self.head(from).await?.size;
        let repeat = match options.mode {
            CopyMode::Overwrite => Repeat::Always,
            CopyMode::Create => Repeat::Create,
        };
        let copy = || self.inner.copy_opts(from, to, options.clone());
        self.policy.run("copy", from, self.policy.limit(size), repeat, copy).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        // As two steps, each of which can be repeated; cloud stores do no other.
        let mode = match options.target_mode {
            RenameTargetMode::Overwrite => CopyMode::Overwrite,
            RenameTargetMode::Create => CopyMode::Create,
        };
        let copy = CopyOptions { mode, extensions: options.extensions };
        self.copy_opts(from, to, copy).await?;
        let once = futures_util::stream::iter([Ok(from.clone())]).boxed();
        self.delete_stream(once).next().await.transpose().map(drop)
    }
}
