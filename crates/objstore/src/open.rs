//! From a location to a store.

use std::collections::HashMap;
use std::io;
use std::path::Path as FilePath;
use std::sync::{Arc, LazyLock};

use lifeboat_core::Warehouse;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use parking_lot::Mutex;

use crate::anchored::Anchored;
use crate::cloud;
use crate::error::{Error, Result};
use crate::location::{Location, Place};
use crate::options::{Intent, StoreOptions};
use crate::patient::Patient;
use crate::warehouse::{PlainWarehouse, S3Warehouse};

/// Opens the store at `location`. Names in it are relative to the location's prefix.
///
/// For a cloud store nothing is asked of the network yet: that a bucket is missing or a key is
/// wrong, the first request says. A directory is looked at here, and blocks the caller for the
/// moment that this takes.
///
/// What the stores promise, and [`conformance::store_suite`](crate::conformance::store_suite)
/// checks: a put is whole or not there; of several puts *if absent* one wins; what was put is
/// durable when the put returns (a directory's files and their directories are synced).
///
/// # Errors
/// When the store certainly cannot be used: settings are missing or wrong, a directory is not
/// there and [`StoreOptions::intent`] does not allow to make it.
pub fn open(location: &Location, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>> {
    open_whole(location, options).map(|opened| opened.store)
}

/// A store, and what it keeps of objects beside their bytes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Opened {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// Its classes, archives and locks, by the same names; `None` where there is nothing of the
    /// kind, as in a directory.
    pub warehouse: Option<Arc<dyn Warehouse>>,
}

/// As [`open`], with what the store keeps beside the bytes of objects.
///
/// # Errors
/// As [`open`].
pub fn open_whole(location: &Location, options: &StoreOptions) -> Result<Opened> {
    let alone = |store| Opened { store, warehouse: None };
    match location.place() {
        Place::Local(path) => local(path, location, options.intent).map(alone),
        Place::Memory { name, prefix } => {
            Ok(alone(beneath(prefix, memory(name, location, options.intent)?)))
        }
        Place::Cloud(cloud) => {
            let built = cloud::build(cloud, location, options)?;
            let (patience, retries) = (options.patience.clone(), options.retries.clone());
            let patient = Patient::new(built.store, patience, retries, cloud::order(cloud));
            let warehouse: Arc<dyn Warehouse> = match built.asked {
                Some((s3, http)) => {
                    let (prefix, policy) = (cloud.prefix.clone(), patient.policy());
                    Arc::new(S3Warehouse::new(s3, http, prefix, policy, location.clone()))
                }
                None => Arc::new(PlainWarehouse(location.provider())),
            };
            let store = beneath(&cloud.prefix, Arc::new(patient));
            Ok(Opened { store, warehouse: Some(warehouse) })
        }
    }
}

fn beneath(prefix: &Path, store: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    if prefix.is_root() { store } else { Arc::new(PrefixStore::new(store, prefix.clone())) }
}

fn local(path: &FilePath, location: &Location, intent: Intent) -> Result<Arc<dyn ObjectStore>> {
    let failed = |action| move |source| Error::Directory { action, path: path.to_owned(), source };
    match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() => {
            return Err(Error::NotADirectory { path: path.to_owned() });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => match intent {
            Intent::Existing => {
                return Err(Error::Missing { location: location.clone() });
            }
            Intent::Create => make_directory(path).map_err(failed("make directory"))?,
        },
        Err(error) => return Err(failed("look at")(error)),
    }
    let store = LocalFileSystem::new_with_prefix(path)
        .map_err(|source| Error::Settings { location: location.clone(), source })?
        .with_fsync(true)
        // An empty directory harms nobody. Removing it could: another writer may be about to put
        // a file there.
        .with_automatic_cleanup(false);
    Ok(Arc::new(Anchored::new(store, path)))
}

/// Makes a directory that only its owner can enter, with those above it, durably.
fn make_directory(path: &FilePath) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let parent = path.parent().unwrap_or(path);
    let mut missing = Vec::new();
    let mut above = Some(parent);
    while let Some(dir) = above.filter(|dir| !dir.exists()) {
        missing.push(dir);
        above = dir.parent();
    }
    std::fs::create_dir_all(parent)?;
    let made = std::fs::DirBuilder::new().mode(0o700).create(path);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        other => other?,
    }
    for dir in missing.into_iter().chain(above) {
        std::fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// A store in memory lives as long as the process, so that a test can close and reopen it.
fn memory(name: &str, location: &Location, intent: Intent) -> Result<Arc<InMemory>> {
    static STORES: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);
    let mut stores = STORES.lock();
    match (stores.get(name), intent) {
        (Some(store), _) => Ok(Arc::clone(store)),
        (None, Intent::Create) => {
            let store = Arc::new(InMemory::new());
            stores.insert(name.to_owned(), Arc::clone(&store));
            Ok(store)
        }
        (None, Intent::Existing) => Err(Error::Missing { location: location.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifeboat_core::{ErrorKind, Failure};
    use object_store::ObjectStoreExt;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_is_made_only_when_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/repository");
        let location = Location::directory(&path).unwrap();
        let error = open(&location, &StoreOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(!path.exists());
        open(&location, &StoreOptions::new(Intent::Create)).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        open(&location, &StoreOptions::default()).unwrap();

        std::fs::write(dir.path().join("file"), "x").unwrap();
        for beneath in ["file", "file/deeper"] {
            let location = Location::directory(dir.path().join(beneath)).unwrap();
            assert!(open(&location, &StoreOptions::new(Intent::Create)).is_err());
        }
    }

    #[tokio::test]
    async fn a_store_in_memory_is_found_again() {
        let whole: Location = "memory://found-again".parse().unwrap();
        let part: Location = "memory://found-again/part".parse().unwrap();
        assert!(open(&whole, &StoreOptions::default()).is_err());
        let store = open(&part, &StoreOptions::new(Intent::Create)).unwrap();
        store.put(&"x".into(), "content".into()).await.unwrap();
        drop(store);
        let store = open(&whole, &StoreOptions::default()).unwrap();
        assert_eq!(store.head(&"part/x".into()).await.unwrap().size, 7);
    }
}
