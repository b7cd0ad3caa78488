//! The local cache of the index: files that may always be deleted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{PackRow, RunFile};
use super::merge::Merge;
use super::run::{Named, Run};
use super::table::{Pack, Sources};
use super::writer::RunWriter;
use crate::crypto::{Keys, random};
use crate::id::{ObjectId, RepositoryId};

/// Where a handle keeps what it read of the index, for the next time.
///
/// It saves time and nothing else. What is wrong in a cache, or was meant for another repository
/// or version, is found out and deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cache {
    /// Nowhere: the index is read from the repository whenever one is opened, and held in memory,
    /// 32 bytes a chunk.
    #[default]
    None,
    /// In a directory within this one, which repositories may share. It is made where it is
    /// missing, for this user only.
    Directory(PathBuf),
}

/// Unfinished files of processes that were killed go after so long.
const STALE: Duration = Duration::from_hours(24);
const RUN: &str = "run";
const UNFINISHED: &str = "unfinished";

/// The directory of one repository.
#[derive(Debug)]
pub(crate) struct CacheDirectory {
    path: PathBuf,
    repository: RepositoryId,
    /// Has the key.
    hasher: blake3::Hasher,
}

impl CacheDirectory {
    /// `None` where there is no cache. The directory is made with the first file.
    pub(crate) fn new(cache: &Cache, keys: &Keys) -> Option<Self> {
        let Cache::Directory(path) = cache else { return None };
        let repository = keys.repository();
        let path = path.join(repository.to_string());
        Some(Self { path, repository, hasher: keys.cache_hasher() })
    }

    /// The files that are right, the largest first. Others are deleted.
    pub(super) fn open(&self) -> Vec<RunFile> {
        let mut runs = Vec::new();
        let Ok(entries) = fs::read_dir(&self.path) else { return runs };
        for entry in entries.flatten() {
            let path = entry.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(RUN) => match RunFile::open(&path, self.repository, self.hasher.clone()) {
                    Ok(Some(run)) => runs.push(run),
                    Ok(None) => {
                        tracing::info!(path = %path.display(), "a cached index is not right");
                        remove(&path);
                    }
                    Err(error) => {
                        tracing::warn!(path = %path.display(), %error, "read a cached index");
                        remove(&path);
                    }
                },
                Some(UNFINISHED) if is_stale(&entry) => remove(&path),
                _ => {}
            }
        }
        runs.sort_by_key(|run| std::cmp::Reverse(run.len()));
        runs
    }

    /// Writes what counts of some runs into one file.
    ///
    /// `pack` tells what is known of the pack of a number.
    pub(super) fn write(
        &self,
        runs: &[std::sync::Arc<Run>],
        sources: &Sources,
        pack: impl Fn(u32) -> Option<Pack>,
    ) -> io::Result<Run> {
        let mut named: Vec<Named> = Vec::new();
        let moved: Vec<_> = runs.iter().map(|run| run.moved(sources, &mut named)).collect();
        let mut writer = self.begin(runs.iter().map(|run| run.len()).sum())?;
        let mut merge = Merge::new(runs.to_vec())?;
        while let Some((at, mut record)) = merge.next()? {
            let within = moved[at].get(record.place.pack() as usize).copied().flatten();
            if let Some(within) = within {
                record.place = record.place.in_pack(within).ok_or(io::ErrorKind::FileTooLarge)?;
                writer.record(&record)?;
            }
        }
        let mut made_of = indexmap::IndexSet::new();
        for of in &named {
            let pack = pack(of.pack).ok_or(io::ErrorKind::InvalidData)?;
            let source = made_of.insert_full(of.source).0 as u32;
            let size = pack.size as u32;
            writer.pack(&PackRow { id: pack.id, header: pack.header, size, source })?;
        }
        let made_of: Vec<_> = made_of.into_iter().filter_map(|of| sources.get(of)).collect();
        Ok(Run::of_file(self.finish(writer, &made_of)?, named))
    }

    /// Begins a file for at most so many records.
    pub(super) fn begin(&self, records: u64) -> io::Result<RunWriter> {
        make(&self.path)?;
        let name: [u8; 8] = random().map_err(io::Error::other)?;
        let path = self.path.join(format!("{}.{UNFINISHED}", hex::encode(name)));
        RunWriter::create(&path, self.repository, &self.hasher, records)
    }

    /// Ends a file, with the index objects that it was made of.
    pub(super) fn finish(&self, writer: RunWriter, sources: &[ObjectId]) -> io::Result<RunFile> {
        let name = |mac: &[u8; 32]| self.path.join(format!("{}.{RUN}", hex::encode(&mac[..16])));
        let file = writer.finish(sources, name)?;
        file.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Deletes a file of the cache. Who has it open goes on reading it.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "delete a cached index");
    }
}

fn make(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn is_stale(entry: &fs::DirEntry) -> bool {
    let modified = entry.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > STALE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RootKey;
    use crate::id::ChunkId;
    use crate::index::load::Loading;
    use crate::index::{Index, IndexObject, Reliance};
    use crate::objects::{INDEX, Objects, name_in};
    use crate::pack::{ChunkRecord, Contents, PackHeader, PackRecord};
    use object_store::PutPayload;
    use object_store::memory::InMemory;
    use std::collections::HashSet;
    use std::sync::Arc;

    /// A place with an index, and a directory for the cache.
    struct Scene {
        objects: Objects,
        keys: Keys,
        place: tempfile::TempDir,
        header: PackHeader,
    }

    fn id(number: u32) -> [u8; 32] {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    impl Scene {
        fn new() -> Self {
            let keys = Keys::derive(&RootKey::fixed(1), RepositoryId::from_bytes([1; 16]));
            let header = PackHeader::draw(&keys, Contents::Data).unwrap();
            let objects = Objects::new(Arc::new(InMemory::new()));
            Self { objects, keys, place: tempfile::tempdir().unwrap(), header }
        }

        fn index(&self) -> Index {
            let cache = Cache::Directory(self.place.path().join("made/here"));
            Index::new(CacheDirectory::new(&cache, &self.keys))
        }

        /// Stores an index object that names packs of 1000 chunks.
        async fn write(&self, packs: std::ops::Range<u32>) -> ObjectId {
            let chunk = |number| ChunkRecord {
                id: ChunkId::from_bytes(id(number)),
                stored: 100,
                plain: number % 1000,
                encoding: 1,
                kind: 1,
            };
            let packs = packs.map(|number| PackRecord {
                id: ObjectId::from_bytes(id(number)),
                header: self.header,
                size: 200_000,
                chunks: (number * 1000..(number + 1) * 1000).map(chunk).collect(),
            });
            let object = IndexObject { packs: packs.collect() };
            object.write(&self.objects, &self.keys).await.unwrap().0
        }

        async fn refreshed(&self) -> Index {
            let index = self.index();
            index.refresh(&self.objects, &self.keys).await.unwrap();
            index
        }

        fn files(&self) -> Vec<PathBuf> {
            let path = self.place.path().join("made/here").join(self.keys.repository().to_string());
            let entries = fs::read_dir(path).into_iter().flatten();
            entries.map(|entry| entry.unwrap().path()).collect()
        }

        /// Makes an index object unreadable: who wants to know what it says needs a cache.
        async fn spoil(&self, object: ObjectId) {
            let payload = PutPayload::from_static(b"spoilt");
            self.objects.replace(&name_in(INDEX, object), payload).await.unwrap();
        }
    }

    fn assert_knows(index: &Index, chunks: std::ops::Range<u32>) {
        let reliance = Reliance::default();
        for number in chunks {
            let chunk = ChunkId::from_bytes(id(number));
            assert!(index.rely(&chunk, &reliance), "chunk {number}");
            let found = index.locations(&chunk);
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].plain, found[0].stored), (number % 1000, 100));
            assert_eq!(found[0].offset, 64 + 100 * u64::from(number % 1000));
            assert_eq!(found[0].pack.id, ObjectId::from_bytes(id(number / 1000)));
        }
    }

    fn knows_nothing_of(index: &Index, chunks: std::ops::Range<u32>) -> bool {
        let chunks = chunks.map(|number| ChunkId::from_bytes(id(number)));
        chunks.into_iter().all(|chunk| index.locations(&chunk).is_empty())
    }

    #[tokio::test]
    async fn what_was_read_once_is_not_read_again() {
        let scene = Scene::new();
        let first = scene.write(0..50).await;
        scene.refreshed().await;
        // Small repositories take no room on the disk.
        assert!(scene.files().is_empty());

        let second = scene.write(50..70).await;
        let index = scene.refreshed().await;
        assert_eq!(scene.files().len(), 1);
        assert!(index.state.read().recent.is_empty());
        assert_knows(&index, 0..70_000);
        assert!(knows_nothing_of(&index, 70_000..90_000));

        scene.spoil(first).await;
        scene.spoil(second).await;
        let index = scene.refreshed().await;
        assert!(index.damaged().is_empty());
        assert_knows(&index, 0..70_000);
        assert!(knows_nothing_of(&index, 70_000..90_000));
        let scanned: Vec<_> = index.scan().map(Result::unwrap).collect();
        assert!(scanned.len() == 70_000 && scanned.is_sorted());
        assert_eq!(index.packs().len(), 70);
        let of_first = HashSet::from([ObjectId::from_bytes(id(0))]);
        assert_eq!(index.sources(&of_first), [first]);

        // What is new is added, and moves into the file when there is enough of it.
        scene.write(70..80).await;
        index.refresh(&scene.objects, &scene.keys).await.unwrap();
        assert_knows(&index, 60_000..80_000);
        scene.write(80..150).await;
        let reliance = Reliance::default();
        index.rely_on(&ObjectId::from_bytes(id(3)), &reliance);
        index.refresh(&scene.objects, &scene.keys).await.unwrap();
        assert_eq!(scene.files().len(), 1);
        assert_eq!(index.scan().count(), 150_000);
        assert!(index.broken(&reliance).is_empty());
        assert_knows(&scene.refreshed().await, 0..150_000);
    }

    #[tokio::test]
    async fn what_is_not_listed_any_more_does_not_count() {
        let scene = Scene::new();
        let first = scene.write(0..40).await;
        scene.write(40..80).await;
        let old = scene.refreshed().await;
        scene.objects.delete(&name_in(INDEX, first)).await.unwrap();
        let new = scene.refreshed().await;
        old.refresh(&scene.objects, &scene.keys).await.unwrap();
        for index in [&old, &new] {
            assert!(knows_nothing_of(index, 0..40_000));
            assert_knows(index, 40_000..80_000);
            assert_eq!(index.scan().count(), 40_000);
            assert_eq!(index.packs().len(), 40);
        }
        // It comes back with a compacted object that names the same packs.
        scene.write(0..20).await;
        new.refresh(&scene.objects, &scene.keys).await.unwrap();
        assert_knows(&new, 0..20_000);
        assert!(knows_nothing_of(&new, 20_000..40_000));
        // Of a file whose index objects are all gone nothing stays.
        let listed: Vec<_> = {
            use futures_util::TryStreamExt;
            scene.objects.list(INDEX).try_collect().await.unwrap()
        };
        for object in listed {
            scene.objects.delete(&object.name).await.unwrap();
        }
        new.refresh(&scene.objects, &scene.keys).await.unwrap();
        assert!(knows_nothing_of(&new, 0..80_000) && new.scan().next().is_none());
        assert!(scene.files().is_empty());
    }

    #[tokio::test]
    async fn a_wrong_file_is_as_good_as_none() {
        let scene = Scene::new();
        scene.write(0..70).await;
        scene.refreshed().await;
        let path = scene.files().remove(0);
        let right = fs::read(&path).unwrap();
        let directory = || {
            let cache = Cache::Directory(scene.place.path().join("made/here"));
            CacheDirectory::new(&cache, &scene.keys).unwrap()
        };
        let length = right.len();
        let mut wrong: Vec<Vec<u8>> = vec![Vec::new(), right[..40].to_vec()];
        wrong.push(right[..length - 1].to_vec());
        wrong.push([&right[..], &[0]].concat());
        for at in (0..length).step_by(length / 50).chain(length - 100..length) {
            let mut bytes = right.clone();
            bytes[at] ^= 0x10;
            wrong.push(bytes);
        }
        for (number, bytes) in wrong.into_iter().enumerate() {
            fs::write(&path, bytes).unwrap();
            assert!(directory().open().is_empty(), "wrong file {number}");
            assert!(!path.exists());
        }
        // The same file for a repository with the same id and another key.
        fs::write(&path, &right).unwrap();
        assert_eq!(directory().open().len(), 1);
        let keys = Keys::derive(&RootKey::fixed(2), scene.keys.repository());
        let cache = Cache::Directory(scene.place.path().join("made/here"));
        assert!(CacheDirectory::new(&cache, &keys).unwrap().open().is_empty());
        // And the index is read again.
        assert_knows(&scene.refreshed().await, 0..70_000);
    }

    #[tokio::test]
    async fn a_file_that_fails_costs_reading_again() {
        let scene = Scene::new();
        scene.write(0..70).await;
        scene.refreshed().await;
        let index = scene.refreshed().await;
        // As a disk that loses blocks does: the file is cut off behind the handle's back.
        let file = fs::OpenOptions::new().write(true).open(scene.files().remove(0)).unwrap();
        file.set_len(1000).unwrap();
        assert!(knows_nothing_of(&index, 1000..1001));
        assert!(index.scan().any(|found| found.is_err()));
        index.refresh(&scene.objects, &scene.keys).await.unwrap();
        assert_knows(&index, 0..70_000);
    }

    #[tokio::test]
    async fn no_room_for_a_cache_is_no_error() {
        let scene = Scene::new();
        scene.write(0..70).await;
        fs::write(scene.place.path().join("made"), "a file").unwrap();
        let index = scene.refreshed().await;
        assert!(matches!(*index.loading.lock().await, Loading::InMemory));
        assert_knows(&index, 0..70_000);
        scene.write(70..80).await;
        index.refresh(&scene.objects, &scene.keys).await.unwrap();
        assert_knows(&index, 0..80_000);
    }

    #[test]
    fn an_unfinished_file_goes_with_its_writer() {
        let scene = Scene::new();
        let cache = Cache::Directory(scene.place.path().join("made/here"));
        let directory = CacheDirectory::new(&cache, &scene.keys).unwrap();
        assert!(!directory.path.exists());
        let writer = directory.begin(1).unwrap();
        assert_eq!((scene.files().len(), directory.open().len()), (1, 0));
        assert_eq!(scene.files().len(), 1);
        drop(writer);
        assert!(scene.files().is_empty());
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&directory.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
