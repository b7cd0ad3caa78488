//! A directory that must still be the one that was opened.
//!
//! A disk that is unmounted, or a directory that is moved away, leaves an empty place behind, in
//! which files can be made. What is put there is durable, and nowhere: whoever relied on it loses it
//! when the disk is mounted again. And what is not found there was never looked for.
//!
//! A repository's directory is known by its `lifeboat.json`, and that by the `id` in it. Once it has
//! been seen, every write is held against it before *and* after, so that nothing is acknowledged
//! that did not go there; and so is everything that is not found. Another mount of the same disk is
//! the same place; another repository is not. A directory without that file is not watched.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as Raw, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
    UploadPart,
};
use parking_lot::Mutex;

/// What makes a directory a repository.
const ANCHOR: &str = "lifeboat.json";
/// It is smaller than this.
const LARGEST: u64 = 1 << 20;

/// A directory as a store, watched.
#[derive(Debug, Clone)]
pub(crate) struct Anchored<S> {
    inner: Arc<S>,
    place: Arc<Place>,
}

#[derive(Debug)]
struct Place {
    root: PathBuf,
    known: Mutex<Option<Known>>,
}

/// The file as it was seen last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    /// Device, inode, length, and time of the last change.
    stamp: (u64, u64, u64, i64, i64),
    id: Option<String>,
}

impl<S: ObjectStore> Anchored<S> {
    /// Watches the directory beneath `inner`. Blocks for a moment.
    pub(crate) fn new(inner: S, root: &FilePath) -> Self {
        let place = Place { root: root.to_owned(), known: Mutex::new(None) };
        // What cannot be read now is told by whoever reads it.
        let _ = place.look();
        Self { inner: Arc::new(inner), place: Arc::new(place) }
    }
}

impl Place {
    /// Whether the directory is the one that is known. Blocks.
    fn look(&self) -> io::Result<()> {
        let path = self.root.join(ANCHOR);
        let found = match std::fs::metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match &*self.known.lock() {
                    Some(_) => Err(gone(&self.root)),
                    None => Ok(()),
                };
            }
            Err(error) => return Err(error),
        };
        let stamp = (found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec());
        let known = self.known.lock().clone();
        if known.as_ref().is_some_and(|known| known.stamp == stamp) {
            return Ok(());
        }
        let id = if stamp.2 <= LARGEST { id(&std::fs::read(&path)?) } else { None };
        if known.is_some_and(|known| known.id != id) {
            return Err(another(&self.root));
        }
        *self.known.lock() = Some(Known { stamp, id });
        Ok(())
    }

    async fn check(self: &Arc<Self>) -> Result<()> {
        let place = Arc::clone(self);
        let looked = tokio::task::spawn_blocking(move || place.look()).await;
        looked.map_err(io::Error::other).and_then(|looked| looked).map_err(raw)
    }

    /// What a result means once it is known whether the place is the right one.
    async fn sure<T>(self: &Arc<Self>, result: Result<T>) -> Result<T> {
        match result {
            Err(Raw::NotFound { .. }) => self.check().await.and(result),
            result => result,
        }
    }
}

/// The `id` of a configuration.
fn id(bytes: &[u8]) -> Option<String> {
    let parsed: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    parsed.pointer("/config/id")?.as_str().map(str::to_owned)
}

fn gone(root: &FilePath) -> io::Error {
    let what = "the repository is not there any more: see that its disk is mounted at";
    away(format!("{what} {}", root.display()))
}

fn another(root: &FilePath) -> io::Error {
    let what = "another repository is there now: mount the disk of the former one at";
    away(format!("{what} {}", root.display()))
}

/// It may come back: whoever waits for a store goes on waiting.
fn away(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, what)
}

fn raw(error: io::Error) -> Raw {
    Raw::Generic { store: "LocalFileSystem", source: Box::new(error) }
}

impl<S: ObjectStore> fmt::Display for Anchored<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for Anchored<S> {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.place.check().await?;
        let put = self.inner.put_opts(location, payload, options).await?;
        self.place.check().await?;
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.place.check().await?;
        let inner = self.inner.put_multipart_opts(location, options).await?;
        Ok(Box::new(Upload { inner, place: Arc::clone(&self.place) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let got = self.inner.get_opts(location, options).await;
        self.place.sure(got).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let place = Arc::clone(&self.place);
        let deleted = self.inner.delete_stream(locations);
        deleted
            .then(move |deleted| {
                let place = Arc::clone(&place);
                async move { place.sure(deleted).await }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        watched(self.inner.list(prefix), &self.place)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        watched(self.inner.list_with_offset(prefix, offset), &self.place)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let listed = self.inner.list_with_delimiter(prefix).await?;
        self.place.check().await?;
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.place.check().await?;
        self.inner.copy_opts(from, to, options).await?;
        self.place.check().await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.place.check().await?;
        self.inner.rename_opts(from, to, options).await?;
        self.place.check().await
    }
}

/// A listing that ends only when the place is still the right one.
fn watched(
    listing: BoxStream<'static, Result<ObjectMeta>>,
    place: &Arc<Place>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let place = Arc::clone(place);
    let end = stream::once(async move { place.check().await });
    let end = end.filter_map(|checked| async move { checked.err().map(Err) });
    listing.chain(end).boxed()
}

/// An upload in parts, which counts only when the place is the right one at its end.
#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    place: Arc<Place>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.place.check().await?;
        let done = self.inner.complete().await?;
        self.place.check().await?;
        Ok(done)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt;
    use object_store::ObjectStoreExt;
    use object_store::local::LocalFileSystem;
    use std::fs;

    fn config(id: &str) -> String {
        format!("{{\"config\": {{\"id\": \"{id}\"}}, \"mac\": \"\"}}")
    }

    #[tokio::test]
    async fn what_is_moved_away_is_neither_written_nor_taken_for_empty() {
        let dir = tempfile::tempdir().unwrap();
        let (root, away) = (dir.path().join("repo"), dir.path().join("away"));
        fs::create_dir(&root).unwrap();
        let store = Anchored::new(LocalFileSystem::new_with_prefix(&root).unwrap(), &root);
        let name = Path::from("packs/a");
        // Not a repository yet.
        store.put(&Path::from(ANCHOR), config("1").into()).await.unwrap();
        store.put(&name, "x".into()).await.unwrap();
        for leave_empty in [false, true] {
            fs::rename(&root, &away).unwrap();
            if leave_empty {
                fs::create_dir(&root).unwrap();
            }
            let told = store.put(&Path::from("packs/b"), "y".into()).await.unwrap_err();
            assert!(told.to_string().contains("mounted"), "{told}");
            let got = store.get(&name).await.unwrap_err();
            assert!(!matches!(got, Raw::NotFound { .. }), "{got}");
            assert!(store.list(None).try_collect::<Vec<_>>().await.is_err());
            assert!(store.list_with_delimiter(None).await.is_err());
            assert!(!root.join("packs").exists());
            let _ = fs::remove_dir(&root);
            // Another repository at the same place.
            fs::create_dir(&root).unwrap();
            fs::write(root.join(ANCHOR), config("2")).unwrap();
            let told = store.put(&Path::from("packs/b"), "y".into()).await.unwrap_err();
            assert!(told.to_string().contains("another repository is there"), "{told}");
            fs::remove_dir_all(&root).unwrap();
            // Back again, by a copy: as another mount has other numbers.
            fs::create_dir_all(root.join("packs")).unwrap();
            fs::write(root.join(ANCHOR), config("1")).unwrap();
            fs::write(root.join("packs/a"), "x").unwrap();
            fs::remove_dir_all(&away).unwrap();
            assert_eq!(store.get(&name).await.unwrap().bytes().await.unwrap(), "x");
            store.put(&Path::from("packs/c"), "z".into()).await.unwrap();
            fs::remove_file(root.join("packs/c")).unwrap();
        }
    }
}
