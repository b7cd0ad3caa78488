//! The objects of a repository, on any object store.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use lifeboat_core::{Archived, Failure, Timestamp};
use object_store::path::Path;
use object_store::{
    Attribute, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload,
};

use crate::error::{Error, Result};
use crate::id::ObjectId;

/// Where a pack is.
pub(crate) fn pack_name(id: ObjectId) -> String {
    let name = id.to_string();
    format!("{PACKS}/{}/{name}", &name[..2])
}

pub(crate) const PACKS: &str = "packs";
pub(crate) const INDEX: &str = "index";
pub(crate) const SNAPSHOTS: &str = "snapshots";
pub(crate) const KEYS: &str = "keys";
pub(crate) const CHECKPOINTS: &str = "checkpoints";
pub(crate) const SESSIONS: &str = "sessions";
pub(crate) const TRASH: &str = "trash";
pub(crate) const LEASES: &str = "leases";
pub(crate) const REFERENCES: &str = "references";
pub(crate) const PINS: &str = "pins";
pub(crate) const CHECKS: &str = "checks";
pub(crate) const JOURNALS: &str = "journals";

/// The name of an object whose id is the hash of its content.
pub(crate) fn name_in(area: &str, id: ObjectId) -> String {
    format!("{area}/{id}")
}

/// An object's id, from the last part of its name.
pub(crate) fn id_of(name: &str) -> Option<ObjectId> {
    let last = name.rsplit('/').next()?;
    let lower = !last.bytes().any(|byte| byte.is_ascii_uppercase());
    ObjectId::from_hex(last).filter(|_| lower)
}

/// Checks that an object's name is the hash of its content.
pub(crate) fn check_name(name: &str, bytes: &[u8]) -> Result<()> {
    if id_of(name) == Some(ObjectId::of(bytes)) {
        Ok(())
    } else {
        Err(Error::damaged(name, "its content does not match its name"))
    }
}

/// An object in a listing.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) size: u64,
    /// When it was written last, by the store's clock.
    pub(crate) modified: Timestamp,
}

impl Listed {
    fn from(meta: &ObjectMeta) -> Self {
        let (seconds, nanos) =
            (meta.last_modified.timestamp(), meta.last_modified.timestamp_subsec_nanos());
        // A time beyond all calendars is as good as the first moment of all.
        let modified = Timestamp::new(seconds, nanos as i32).unwrap_or(Timestamp::MIN);
        Self { name: meta.location.to_string(), size: meta.size, modified }
    }
}

/// A handle on the store. Objects are made once and never changed.
#[derive(Debug, Clone)]
pub(crate) struct Objects(Arc<dyn ObjectStore>);

impl Objects {
    pub(crate) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self(store)
    }

    /// Makes an object, durably.
    ///
    /// "It exists already" may be the echo of our own request, tried again below us after its
    /// answer was lost; and after any other error the object may exist all the same. So the object
    /// is read back and compared before either is believed.
    pub(crate) async fn create(&self, name: &str, payload: PutPayload) -> Result<()> {
        self.create_in(None, name, payload).await
    }

    /// As [`Objects::create`], in a class of storage; without one in the store's usual one.
    pub(crate) async fn create_in(
        &self,
        class: Option<&str>,
        name: &str,
        payload: PutPayload,
    ) -> Result<()> {
        let path = Path::from(name);
        let put = self.0.put_opts(&path, payload.clone(), put_in(class, PutMode::Create)).await;
        let error = match put {
            Ok(_) => return Ok(()),
            Err(object_store::Error::NotImplemented { .. }) => {
                return self.create_unconditionally(class, name, payload).await;
            }
            Err(error) => error,
        };
        match self.holds(name, &payload).await {
            Ok(Some(true)) => Ok(()),
            Ok(Some(false)) => Err(Error::Conflict { object: name.into() }),
            Ok(None) | Err(_) => Err(Error::store("write", name, error)),
        }
    }

    /// One bare conditional put: whether it made the object. `None` when the store does not know
    /// how. Nothing is read back: to find out what a store does.
    pub(crate) async fn put_if_absent(
        &self,
        name: &str,
        payload: PutPayload,
    ) -> Result<Option<bool>> {
        match self.0.put_opts(&Path::from(name), payload, PutMode::Create.into()).await {
            Ok(_) => Ok(Some(true)),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => Ok(Some(false)),
            Err(
                object_store::Error::NotImplemented { .. }
                | object_store::Error::NotSupported { .. },
            ) => Ok(None),
            Err(error) => Err(Error::store("write", name, error)),
        }
    }

    /// For stores without a conditional put: names derive from content, so that a race can only
    /// write the same bytes twice.
    async fn create_unconditionally(
        &self,
        class: Option<&str>,
        name: &str,
        payload: PutPayload,
    ) -> Result<()> {
        match self.holds(name, &payload).await? {
            Some(true) => Ok(()),
            Some(false) => Err(Error::Conflict { object: name.into() }),
            None => {
                let options = put_in(class, PutMode::Overwrite);
                let put = self.0.put_opts(&Path::from(name), payload, options).await;
                put.map(drop).map_err(|error| Error::store("write", name, error))
            }
        }
    }

    /// Whether the object exists, and consists of `payload`.
    async fn holds(&self, name: &str, payload: &PutPayload) -> Result<Option<bool>> {
        let size = payload.content_length() as u64;
        match self.0.head(&Path::from(name)).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(Error::store("read", name, error)),
            Ok(meta) if meta.size != size => return Ok(Some(false)),
            Ok(_) => {}
        }
        let stored = match self.read(name, size).await {
            Ok(Some(stored)) => stored,
            Ok(None) => return Ok(None),
            // It cannot be read back. Only packs lie in archives, and the name of a pack is the
            // hash of its bytes, a salt that nobody else drew among them: it is ours.
            Err(error) if Archived::is_cause_of(&error) => return Ok(Some(true)),
            Err(error) => return Err(error),
        };
        let mut at = 0;
        let same = payload.iter().all(|part| {
            let equal = stored.get(at..at + part.len()) == Some(&part[..]);
            at += part.len();
            equal
        });
        Ok(Some(same && at == stored.len()))
    }

    /// Reads a whole object, which must not have more than `limit` bytes. `None` when the store
    /// says that it does not exist.
    pub(crate) async fn read(&self, name: &str, limit: u64) -> Result<Option<Bytes>> {
        let result = match self.0.get_opts(&Path::from(name), GetOptions::default()).await {
            Ok(result) => result,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(Error::store("read", name, error)),
        };
        let size = result.meta.size;
        if size > limit {
            return Err(Error::damaged(
                name,
                format!("it has {size} bytes, {limit} at most are right"),
            ));
        }
        let bytes = result.bytes().await.map_err(|error| Error::store("read", name, error))?;
        if bytes.len() as u64 != size {
            return Err(Error::damaged(name, format!("{} of {size} bytes came", bytes.len())));
        }
        Ok(Some(bytes))
    }

    /// Reads a whole object that must exist, and checks that its name is the hash of its content.
    pub(crate) async fn read_named(&self, name: &str, limit: u64) -> Result<Bytes> {
        let bytes = self.read(name, limit).await?;
        let bytes = bytes.ok_or_else(|| Error::damaged(name, "it is missing"))?;
        check_name(name, &bytes)?;
        Ok(bytes)
    }

    /// Reads a part of an object.
    pub(crate) async fn range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        let (length, end) = (range.end.saturating_sub(range.start), range.end);
        match self.0.get_range(&Path::from(name), range).await {
            Ok(bytes) if bytes.len() as u64 == length => Ok(bytes),
            Ok(_) => Err(Error::damaged(name, "it is shorter than it must be")),
            Err(object_store::Error::NotFound { .. }) => Err(Error::damaged(name, "it is missing")),
            Err(error) => match self.0.head(&Path::from(name)).await {
                Ok(meta) if meta.size < end => {
                    Err(Error::damaged(name, "it is shorter than it must be"))
                }
                _ => Err(Error::store("read", name, error)),
            },
        }
    }

    /// The first `length` bytes of an object, or all of a shorter one, and its whole size. `None`
    /// when the store says that it does not exist.
    pub(crate) async fn front(&self, name: &str, length: u64) -> Result<Option<(Bytes, u64)>> {
        let range = Some(GetRange::Bounded(0..length));
        let options = GetOptions { range, ..GetOptions::default() };
        let result = match self.0.get_opts(&Path::from(name), options).await {
            Ok(result) => result,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            // Of an empty object no range can be read.
            Err(error) => match self.head(name).await? {
                Some(listed) if listed.size == 0 => {
                    return Err(Error::damaged(name, "it is empty"));
                }
                Some(_) => return Err(Error::store("read", name, error)),
                None => return Ok(None),
            },
        };
        let size = result.meta.size;
        let bytes = result.bytes().await.map_err(|error| Error::store("read", name, error))?;
        if bytes.len() as u64 != length.min(size) {
            return Err(Error::damaged(name, "it is shorter than it must be"));
        }
        Ok(Some((bytes, size)))
    }

    /// What a listing says of one object; `None` when the store says that it does not exist.
    pub(crate) async fn head(&self, name: &str) -> Result<Option<Listed>> {
        match self.0.head(&Path::from(name)).await {
            Ok(meta) => Ok(Some(Listed::from(&meta))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Error::store("read", name, error)),
        }
    }

    /// Writes an object whether there is one or not. Only for what its one owner rewrites: a sign
    /// of life, the configuration.
    pub(crate) async fn replace(&self, name: &str, payload: PutPayload) -> Result<()> {
        let put = self.0.put(&Path::from(name), payload).await;
        put.map(drop).map_err(|error| Error::store("write", name, error))
    }

    /// Deletes an object if it may be. The result is whether it is gone: under a lock, and for who
    /// may only write, it stays.
    pub(crate) async fn delete_if_allowed(&self, name: &str) -> Result<bool> {
        match self.delete(name).await {
            Ok(()) => Ok(true),
            Err(error) if !error.is_retryable() => {
                tracing::debug!(%error, object = name, "it could not be deleted, and stays");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes an object. That it is not there is what was wanted.
    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        match self.0.delete(&Path::from(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Error::store("delete", name, error)),
        }
    }

    /// Lists an area. The order is the store's own.
    pub(crate) fn list(&self, area: &str) -> BoxStream<'static, Result<Listed>> {
        let area = area.to_owned();
        self.0
            .list(Some(&Path::from(area.as_str())))
            .map(move |meta| match meta {
                Ok(meta) => Ok(Listed::from(&meta)),
                Err(error) => Err(Error::store("list", &area, error)),
            })
            .boxed()
    }

    /// Lists all there is. The order is the store's own.
    pub(crate) fn list_all(&self) -> BoxStream<'static, Result<Listed>> {
        let told = |error| Error::store("list", "the repository", error);
        self.0
            .list(None)
            .map(move |meta| meta.map(|meta| Listed::from(&meta)).map_err(told))
            .boxed()
    }

    /// The folders in an area, by name.
    pub(crate) async fn folders(&self, area: &str) -> Result<Vec<String>> {
        match self.0.list_with_delimiter(Some(&Path::from(area))).await {
            Ok(result) => Ok(result.common_prefixes.iter().map(ToString::to_string).collect()),
            Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(Error::store("list", area, error)),
        }
    }

    /// Anything that is at the place where a repository is to be made.
    pub(crate) async fn anything(&self) -> Result<Option<String>> {
        match self.0.list(None).next().await {
            None | Some(Err(object_store::Error::NotFound { .. })) => Ok(None),
            Some(Ok(meta)) => Ok(Some(meta.location.to_string())),
            Some(Err(error)) => Err(Error::store("list", "the repository", error)),
        }
    }
}

fn put_in(class: Option<&str>, mode: PutMode) -> PutOptions {
    let attribute = class.map(|class| (Attribute::StorageClass, class.to_owned()));
    PutOptions { mode, attributes: attribute.into_iter().collect(), ..PutOptions::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    #[tokio::test]
    async fn the_same_object_twice_is_fine_and_another_one_is_not() {
        let objects = Objects::new(Arc::new(InMemory::new()));
        let payload = |text: &'static str| PutPayload::from(text);
        objects.create("index/x", payload("one")).await.unwrap();
        objects.create("index/x", payload("one")).await.unwrap();
        let error = objects.create("index/x", payload("two")).await.unwrap_err();
        assert!(matches!(error, Error::Conflict { .. }));
        assert_eq!(objects.read("index/x", 3).await.unwrap().unwrap(), "one");
        assert!(objects.read("index/x", 2).await.is_err());
        assert!(objects.read_named("index/x", 9).await.is_err());
        assert!(objects.read("index/y", 2).await.unwrap().is_none());
    }
}
