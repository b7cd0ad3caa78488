//! A writer at work.
//!
//! `sessions/<id>` says that one has begun, and the store's time of it since when.
//! `sessions/<id>.alive` is written again and again; its time says that the writer was there.
//! Both go when the work ends. Who may not delete writes `sessions/<id>.ended` instead, and leaves
//! the rest to the next sweeper.
//!
//! # Where nothing can be deleted or written again
//!
//! In a bucket with locks, objects may have to stay, and the signs of life cannot always be written
//! over: each then gets a name of its own, `sessions/<id>.alive-<n>`. A sweeper that takes a writer
//! for dead and cannot take its session away says so by `sessions/<id>.ended`; so a session stands
//! only as long as that object is not there. Whatever stays goes when a later sweeper may delete it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::try_join;
use lifeboat_core::{Failure, Timestamp};
use minicbor::{Decode, Encode};
use object_store::PutPayload;
use parking_lot::Mutex;

use super::clock::StoreClock;
use crate::crypto::{Keys, random};
use crate::error::Result;
use crate::objects::{Objects, SESSIONS};
use crate::sealed::{SealedKind, seal};

/// How often a writer says that it is alive.
const SIGN_OF_LIFE: Duration = Duration::from_mins(2);
/// Without a sign of life for so long, a writer is taken for dead. One that is not notices before
/// it commits, and makes good what was deleted meanwhile.
const EXPIRY: Duration = Duration::from_hours(1);
const ALIVE: &str = ".alive";
const ENDED: &str = ".ended";

/// What a session tells people. Nothing depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct SessionRecord {
    #[n(0)]
    host: String,
    #[n(1)]
    what: String,
    #[n(2)]
    program: String,
}

/// The session of a writer. It ends when it is dropped, as far as that is possible.
pub(crate) struct Session {
    objects: Objects,
    keys: Arc<Keys>,
    record: SessionRecord,
    name: Mutex<Option<String>>,
    /// How many signs of life could not be written over the one before.
    signs: AtomicU32,
}

impl Session {
    /// Publishes a session. From here on, nothing that is marked is deleted.
    pub(crate) async fn begin(
        objects: &Objects,
        keys: &Arc<Keys>,
        host: &str,
        what: &str,
    ) -> Result<Arc<Self>> {
        let record = SessionRecord {
            host: host.to_owned(),
            what: what.to_owned(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let session = Arc::new(Self {
            objects: objects.clone(),
            keys: Arc::clone(keys),
            record,
            name: Mutex::new(None),
            signs: AtomicU32::new(0),
        });
        session.publish().await?;
        tokio::spawn(stay_alive(Arc::downgrade(&session)));
        Ok(session)
    }

    async fn publish(&self) -> Result<()> {
        let name = format!("{SESSIONS}/{}", hex::encode(random::<16>()?));
        let (_, bytes) = seal(&self.keys, SealedKind::Session, &self.record)?;
        // Told before it is written: a writer that is stopped in between takes it away as well.
        *self.name.lock() = Some(name.clone());
        self.objects.create(&name, PutPayload::from(bytes)).await
    }

    fn name(&self) -> Option<String> {
        self.name.lock().clone()
    }

    /// Whether the session still stands: nobody has taken the writer for dead.
    pub(crate) async fn stands(&self) -> Result<bool> {
        let Some(name) = self.name() else {
            return Ok(false);
        };
        let ended = format!("{name}{ENDED}");
        let (there, ended) = try_join(self.objects.head(&name), self.objects.head(&ended)).await?;
        Ok(there.is_some() && ended.is_none())
    }

    /// Publishes it anew where it was taken away. The result is whether it stood.
    pub(crate) async fn renew(&self) -> Result<bool> {
        let stood = self.stands().await?;
        if !stood {
            self.publish().await?;
        }
        Ok(stood)
    }

    async fn sign(&self) -> Result<()> {
        let Some(name) = self.name() else {
            return Ok(());
        };
        let sign = || PutPayload::from_static(b"alive");
        let alive = format!("{name}{ALIVE}");
        let signs = self.signs.load(Ordering::Relaxed);
        if signs == 0 {
            match self.objects.replace(&alive, sign()).await {
                Err(error) if !error.is_retryable() => {
                    tracing::debug!(%error, "signs of life get names of their own");
                }
                done => return done,
            }
        }
        self.objects.create(&format!("{alive}-{}", signs + 1), sign()).await?;
        self.signs.store(signs + 1, Ordering::Relaxed);
        Ok(())
    }

    /// Ends it. That this fails hurts nobody: it only delays what is to be deleted.
    pub(crate) async fn end(&self) {
        let name = self.name.lock().take();
        if let Some(name) = name {
            end(&self.objects, &name).await;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (name, objects) = (self.name.lock().take(), self.objects.clone());
        if let (Some(name), Ok(runtime)) = (name, tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { end(&objects, &name).await });
        }
    }
}

async fn end(objects: &Objects, name: &str) {
    let alive = format!("{name}{ALIVE}");
    let gone = match objects.delete(name).await {
        // Signs with names of their own are where nothing can be deleted.
        Ok(()) => objects.delete(&alive).await,
        Err(error) => Err(error),
    };
    let Err(error) = gone else {
        return;
    };
    tracing::debug!(%error, session = name, "a session could not be deleted");
    if !error.is_retryable() {
        let name = format!("{name}{ENDED}");
        if let Err(error) = objects.replace(&name, PutPayload::from_static(b"ended")).await {
            tracing::debug!(%error, session = name, "a session could not be ended");
        }
    }
}

async fn stay_alive(session: Weak<Session>) {
    loop {
        tokio::time::sleep(SIGN_OF_LIFE).await;
        let Some(session) = session.upgrade() else {
            return;
        };
        if session.name().is_none() {
            return;
        }
        if let Err(error) = session.sign().await {
            tracing::debug!(%error, "a sign of life could not be given");
        }
    }
}

/// A session as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) begun: Timestamp,
    pub(crate) alive: Timestamp,
}

/// The sessions that stand.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sessions(pub(crate) Vec<Seen>);

impl Sessions {
    /// Reads the sessions, and takes away those that have ended or shown no life for long.
    ///
    /// What deletes must do this before it reads the snapshots.
    pub(crate) async fn sweep(objects: &Objects, clock: &StoreClock) -> Result<Self> {
        let mut seen: HashMap<String, Parts> = HashMap::new();
        let listed: Vec<_> = objects.list(SESSIONS).try_collect().await?;
        for object in listed {
            let (name, part) = match object.name.rsplit_once('.') {
                None => (object.name.clone(), Part::Begun),
                Some((name, "ended")) => (name.to_owned(), Part::Ended),
                Some((name, word)) if is_alive(word) => (name.to_owned(), Part::Alive),
                Some(_) => continue,
            };
            if !is_session(&name) {
                continue;
            }
            let parts = seen.entry(name).or_default();
            match part {
                Part::Begun => parts.begun = Some(object.modified),
                Part::Alive => {
                    parts.alive = parts.alive.max(Some(object.modified));
                    parts.signs.push(object.name);
                }
                Part::Ended => parts.ended = true,
            }
        }
        let mut standing = Vec::new();
        for (name, parts) in seen {
            let last = parts.begun.max(parts.alive);
            let dead = parts.ended || last.is_none_or(|last| clock.age(last) > EXPIRY);
            match parts.begun {
                Some(begun) if !dead => {
                    standing.push(Seen { name, begun, alive: last.unwrap_or(begun) });
                }
                // A lone sign of life was late: its session has ended.
                _ => take_away(objects, &name, &parts).await?,
            }
        }
        standing.sort_by_key(|session| session.begun);
        Ok(Self(standing))
    }

    /// When the oldest one began.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        self.0.first().map(|session| session.begun)
    }
}

/// Takes away a session that has ended or is taken for dead. In this order: its writer, if it lives
/// after all, must see at every moment that it does not stand any more.
async fn take_away(objects: &Objects, name: &str, parts: &Parts) -> Result<()> {
    let ended = format!("{name}{ENDED}");
    if parts.begun.is_some() && !objects.delete_if_allowed(name).await? {
        if !parts.ended {
            objects.create(&ended, PutPayload::from_static(b"ended")).await?;
        }
        // The word that it has ended stays as long as what it is about.
        return Ok(());
    }
    for sign in &parts.signs {
        objects.delete_if_allowed(sign).await?;
    }
    objects.delete_if_allowed(&ended).await.map(drop)
}

#[derive(Default)]
struct Parts {
    begun: Option<Timestamp>,
    alive: Option<Timestamp>,
    /// The names of the signs of life.
    signs: Vec<String>,
    ended: bool,
}

fn is_alive(word: &str) -> bool {
    let number = word.strip_prefix("alive").map(|rest| rest.strip_prefix('-').unwrap_or(rest));
    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

enum Part {
    Begun,
    Alive,
    Ended,
}

fn is_session(name: &str) -> bool {
    let id = name.strip_prefix(SESSIONS).and_then(|rest| rest.strip_prefix('/'));
    id.is_some_and(|id| {
        id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RootKey;
    use crate::id::RepositoryId;
    use futures_util::StreamExt;
    use futures_util::stream::BoxStream;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
        ObjectStoreExt, PutMultipartOptions, PutOptions, PutResult,
    };

    async fn names(objects: &Objects) -> Vec<String> {
        objects.list(SESSIONS).map_ok(|listed| listed.name).try_collect().await.unwrap()
    }

    #[tokio::test]
    async fn a_session_stands_until_it_ends_or_is_taken_away() {
        let objects = Objects::new(Arc::new(InMemory::new()));
        let keys = Arc::new(Keys::derive(&RootKey::fixed(1), RepositoryId::from_bytes([1; 16])));
        let clock = StoreClock::ask(&objects).await.unwrap();
        let session = Session::begin(&objects, &keys, "here", "a test").await.unwrap();
        assert!(session.stands().await.unwrap());
        session.sign().await.unwrap();
        assert_eq!(Sessions::sweep(&objects, &clock).await.unwrap().0.len(), 1);
        assert_eq!(names(&objects).await.len(), 2);

        // An hour later nobody believes in it any more.
        let later = clock.later(EXPIRY + Duration::from_secs(5));
        assert!(Sessions::sweep(&objects, &later).await.unwrap().0.is_empty());
        assert!(!session.stands().await.unwrap());
        assert!(!session.renew().await.unwrap());
        assert!(session.renew().await.unwrap());
        session.end().await;
        assert!(names(&objects).await.is_empty());
    }

    /// A store in which nothing is written over and nothing is deleted.
    #[derive(Debug)]
    struct Kept(InMemory);

    fn kept(path: &Path) -> object_store::Error {
        let path = path.to_string();
        object_store::Error::PermissionDenied { path, source: "it is locked".into() }
    }

    impl std::fmt::Display for Kept {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Kept")
        }
    }

    #[lifeboat_core::async_trait]
    impl ObjectStore for Kept {
        async fn put_opts(
            &self,
            location: &Path,
            payload: PutPayload,
            options: PutOptions,
        ) -> object_store::Result<PutResult> {
            if self.0.head(location).await.is_ok() {
                return Err(kept(location));
            }
            self.0.put_opts(location, payload, options).await
        }

        async fn put_multipart_opts(
            &self,
            location: &Path,
            options: PutMultipartOptions,
        ) -> object_store::Result<Box<dyn MultipartUpload>> {
            self.0.put_multipart_opts(location, options).await
        }

        async fn get_opts(
            &self,
            location: &Path,
            options: GetOptions,
        ) -> object_store::Result<GetResult> {
            self.0.get_opts(location, options).await
        }

        fn delete_stream(
            &self,
            locations: BoxStream<'static, object_store::Result<Path>>,
        ) -> BoxStream<'static, object_store::Result<Path>> {
            locations.map(|path| Err(kept(&path?))).boxed()
        }

        fn list(
            &self,
            prefix: Option<&Path>,
        ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
            self.0.list(prefix)
        }

        async fn list_with_delimiter(
            &self,
            prefix: Option<&Path>,
        ) -> object_store::Result<ListResult> {
            self.0.list_with_delimiter(prefix).await
        }

        async fn copy_opts(
            &self,
            from: &Path,
            to: &Path,
            options: CopyOptions,
        ) -> object_store::Result<()> {
            self.0.copy_opts(from, to, options).await
        }
    }

    #[tokio::test]
    async fn where_nothing_can_be_written_over_each_sign_of_life_has_a_name() {
        let objects = Objects::new(Arc::new(Kept(InMemory::new())));
        let keys = Arc::new(Keys::derive(&RootKey::fixed(1), RepositoryId::from_bytes([1; 16])));
        let clock = StoreClock::ask(&objects).await.unwrap();
        let session = Session::begin(&objects, &keys, "here", "a test").await.unwrap();
        for _ in 0..3 {
            session.sign().await.unwrap();
        }
        let name = session.name().unwrap();
        let signs = [".alive", ".alive-1", ".alive-2"].map(|sign| format!("{name}{sign}"));
        let mut all = names(&objects).await;
        all.sort();
        assert_eq!(all, [&[name.clone()][..], &signs].concat());
        let seen = Sessions::sweep(&objects, &clock).await.unwrap().0;
        assert_eq!(seen.len(), 1);
        assert!(seen[0].alive > seen[0].begun, "a later sign counts");

        // Taken for dead, it cannot be taken away; its writer learns of it all the same.
        let later = clock.later(EXPIRY + Duration::from_secs(5));
        assert!(Sessions::sweep(&objects, &later).await.unwrap().0.is_empty());
        assert!(objects.head(&name).await.unwrap().is_some());
        assert!(!session.stands().await.unwrap());
        assert!(!session.renew().await.unwrap());
        assert!(session.renew().await.unwrap() && session.name().unwrap() != name);
    }

    #[tokio::test]
    async fn who_may_not_delete_says_that_it_ended() {
        let objects = Objects::new(Arc::new(InMemory::new()));
        let clock = StoreClock::ask(&objects).await.unwrap();
        let name = format!("{SESSIONS}/{}", "ab".repeat(16));
        for name in [name.clone(), format!("{name}{ENDED}"), format!("{SESSIONS}/other")] {
            objects.replace(&name, PutPayload::from_static(b"x")).await.unwrap();
        }
        assert!(Sessions::sweep(&objects, &clock).await.unwrap().0.is_empty());
        assert_eq!(names(&objects).await, [format!("{SESSIONS}/other")]);
    }
}
