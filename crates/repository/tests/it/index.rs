//! What an index can be made from.

use std::sync::Arc;

use futures_util::TryStreamExt;
use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{Attributes, Context, Entry};
use lifeboat_repository::survey_without_key;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::common::{back_up, noise, path, repository};

async fn count(store: &Arc<dyn ObjectStore>, area: &str) -> usize {
    let listed: Vec<_> = store.list(Some(&Path::from(area))).try_collect().await.unwrap();
    listed.len()
}

/// A store that has one file more each time.
async fn grown(files: u64) -> MemoryStore {
    let store = MemoryStore::new("grows");
    for file in 0..files {
        let name = path(&format!("file-{file}"));
        let entry = Entry::file(name, Attributes::new(), noise(file, 50_000));
        store.insert(entry).await.unwrap();
    }
    store
}

#[tokio::test]
async fn packs_say_what_is_in_them_to_who_has_no_key() {
    let (store, writer) = repository().await;
    back_up(&grown(8).await, &writer).await;
    let survey = survey_without_key(Arc::clone(&store), &Context::silent()).await.unwrap();
    assert_eq!(survey.packs as usize, count(&store, "packs").await);
    assert!(survey.chunks >= 9 && survey.bytes > 400_000 && survey.unreadable.is_empty());

    let packs: Vec<_> = store.list(Some(&Path::from("packs"))).try_collect().await.unwrap();
    let cut = &packs[0].location;
    let bytes = store.get(cut).await.unwrap().bytes().await.unwrap();
    store.put(cut, bytes.slice(..bytes.len() - 1).into()).await.unwrap();
    let survey = survey_without_key(Arc::clone(&store), &Context::silent()).await.unwrap();
    assert_eq!(survey.packs as usize, packs.len() - 1);
    assert_eq!(survey.unreadable.len(), 1);
    assert_eq!(survey.unreadable[0].0, cut.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_index_object_names_all_packs_of_a_small_backup() {
    for files in 1..6 {
        let (store, writer) = repository().await;
        back_up(&grown(files).await, &writer).await;
        // Data in one of two packs that are open, and the pages that list it in their own.
        assert!((2..=3).contains(&count(&store, "packs").await));
        assert_eq!(count(&store, "index").await, 1);
    }
}
