//! A store with classes, an archive and locks, for what moto cannot be made to do.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use lifeboat_core::{
    Access, Archived, ClassVisitor, Keeping, Standing, StorageClass, Telling, ThawTier, Warehouse,
    async_trait,
};
use object_store::path::Path;
use object_store::{
    Attribute, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};
use parking_lot::Mutex;

/// What an object of the class `FROZEN` is billed for at least.
pub(crate) const LEAST: Duration = Duration::from_hours(90 * 24);

/// The store. `FROZEN` is an archive, `COOL` is only cheap.
pub(crate) struct Cold {
    inner: Arc<dyn ObjectStore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    classes: BTreeMap<String, String>,
    access: BTreeMap<String, Access>,
    /// How often a thaw under way is looked at before it is done.
    looks: u32,
    looked: BTreeMap<String, u32>,
    /// What was asked for, in order.
    asked: Vec<(String, ThawTier, u16)>,
    /// Reads that were refused.
    refused: Vec<String>,
    /// What begins so can be neither deleted nor written over.
    locked: Option<&'static str>,
    keeping: Keeping,
}

impl Cold {
    pub(crate) fn on(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self { inner, state: Mutex::default() })
    }

    /// From now on a thaw takes so many looks.
    pub(crate) fn be_slow(&self, looks: u32) {
        self.state.lock().looks = looks;
    }

    /// From now on, what has a name that begins so can be neither deleted nor written over.
    pub(crate) fn lock(&self, beginning: &'static str) {
        self.state.lock().locked = Some(beginning);
    }

    /// The time of all locks is over.
    pub(crate) fn unlock(&self) {
        self.state.lock().locked = None;
    }

    fn is_locked(&self, path: &Path) -> bool {
        self.state.lock().locked.is_some_and(|beginning| path.as_ref().starts_with(beginning))
    }

    /// What the store says becomes of deleted objects.
    pub(crate) fn keep(&self, keeping: Keeping) {
        self.state.lock().keeping = keeping;
    }

    /// Moves objects into the archive, as a rule of the bucket does.
    pub(crate) fn freeze(&self, names: impl IntoIterator<Item = String>) {
        let classes = names.into_iter().map(|name| (name, "FROZEN".to_owned()));
        self.state.lock().classes.extend(classes);
    }

    /// The names of the objects of a class.
    pub(crate) fn of_class(&self, class: &str) -> Vec<String> {
        let state = self.state.lock();
        let of = state.classes.iter().filter(|(_, known)| *known == class);
        of.map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn asked(&self) -> Vec<(String, ThawTier, u16)> {
        self.state.lock().asked.clone()
    }

    pub(crate) fn refused(&self) -> Vec<String> {
        self.state.lock().refused.clone()
    }

    fn access(&self, name: &str) -> Access {
        let state = self.state.lock();
        if state.classes.get(name).is_none_or(|class| class != "FROZEN") {
            return Access::AtOnce;
        }
        state.access.get(name).copied().unwrap_or(Access::Archived)
    }
}

impl fmt::Debug for Cold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cold")
    }
}

impl fmt::Display for Cold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cold")
    }
}

fn denied(path: &Path, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::PermissionDenied { path: path.to_string(), source }
}

#[async_trait]
impl ObjectStore for Cold {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let is_new = options.mode == PutMode::Create;
        if !is_new && self.is_locked(location) && self.inner.head(location).await.is_ok() {
            return Err(denied(location, "the object is locked".into()));
        }
        let class = options.attributes.get(&Attribute::StorageClass).map(|it| it.to_string());
        if class.as_deref().is_some_and(|class| !["FROZEN", "COOL"].contains(&class)) {
            let source = "InvalidStorageClass".into();
            return Err(Error::Generic { store: "cold", source });
        }
        let put = self.inner.put_opts(location, payload, options).await?;
        if let Some(class) = class {
            self.state.lock().classes.insert(location.to_string(), class);
        }
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if !options.head && !self.access(location.as_ref()).is_readable() {
            self.state.lock().refused.push(location.to_string());
            return Err(denied(location, Box::new(Archived)));
        }
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (inner, locked) = (Arc::clone(&self.inner), self.state.lock().locked);
        let delete = move |path: Result<Path>| {
            let inner = Arc::clone(&inner);
            async move {
                let path = path?;
                if locked.is_some_and(|beginning| path.as_ref().starts_with(beginning)) {
                    return Err(denied(&path, "the object is locked".into()));
                }
                inner.delete(&path).await.map(|()| path)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl Warehouse for Cold {
    fn class(&self, name: &str) -> StorageClass {
        let hours = |hours| Duration::from_hours(hours);
        match name {
            "FROZEN" => StorageClass::new(name, LEAST)
                .with_thaws([(ThawTier::Bulk, hours(48)), (ThawTier::Standard, hours(12))]),
            "COOL" => StorageClass::new(name, LEAST / 3),
            other => StorageClass::new(other, Duration::ZERO),
        }
    }

    fn choose(&self, name: &str) -> lifeboat_core::Result<StorageClass> {
        Ok(self.class(name))
    }

    async fn standing(&self, object: &str) -> lifeboat_core::Result<Option<Standing>> {
        let mut state = self.state.lock();
        let State { access, looked, looks, .. } = &mut *state;
        if let Some(access) = access.get_mut(object)
            && *access == Access::Thawing
        {
            let times = looked.entry(object.to_owned()).or_default();
            *times += 1;
            if *times > *looks {
                *access = Access::Thawed { until: None };
            }
        }
        drop(state);
        Ok(Some(Standing::new("FROZEN", self.access(object))))
    }

    async fn classes(
        &self,
        area: &str,
        each: &mut ClassVisitor<'_>,
    ) -> lifeboat_core::Result<Telling> {
        let classes = self.state.lock().classes.clone();
        for (name, class) in classes.iter().filter(|(name, _)| name.starts_with(area)) {
            each(name, class);
        }
        Ok(Telling::All)
    }

    async fn thaw(&self, object: &str, tier: ThawTier, days: u16) -> lifeboat_core::Result<()> {
        let mut state = self.state.lock();
        state.asked.push((object.to_owned(), tier, days));
        state.access.insert(object.to_owned(), Access::Thawing);
        Ok(())
    }

    async fn keeping(&self) -> lifeboat_core::Result<Keeping> {
        Ok(self.state.lock().keeping)
    }
}
