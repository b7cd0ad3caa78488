//! What a second snapshot costs.

use lifeboat_core::{Attributes, Entry, Layout};

use crate::common::{assert_restores, back_up, noise, path, repository, sample};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_store_costs_only_a_root() {
    let (_, repository) = repository().await;
    let store = sample().await;
    let (first, _) = back_up(&store, &repository).await;
    let (second, summary) = back_up(&store, &repository).await;
    assert_eq!(summary.progress.read, 0);
    assert_eq!(summary.progress.new, 0);
    assert!(summary.progress.stored < 1000, "{:?}", summary.progress);
    for id in [first, second] {
        assert_restores(&repository, id, &store).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_changed_pages_are_stored() {
    const PAGE: usize = 8192;
    let (_, repository) = repository().await;
    let store = sample().await;
    let mut content = noise(9, 200 * PAGE + 100);
    let insert = async |content: &[u8]| {
        let entry = Entry::file(path("relation"), Attributes::new(), content.to_vec());
        store.insert(entry.with_layout(Layout::Pages(PAGE as u32))).await.unwrap();
    };
    insert(&content).await;
    let (first, _) = back_up(&store, &repository).await;
    let before = store.content(&path("relation")).unwrap();

    let mut changed = 0;
    for round in 0..12_usize {
        changed = 0;
        for page in (round..200).step_by(17) {
            content[page * PAGE + round] ^= 0x55;
            changed += PAGE as u64;
        }
        // It grows by half a page, too.
        content.extend_from_slice(&noise(round as u64, PAGE / 2));
        insert(&content).await;
        let (id, summary) = back_up(&store, &repository).await;
        let new = summary.progress.new;
        let bound = 3 * changed + 300_000;
        assert!(new < bound, "round {round}: {changed} changed, {new} stored");
        assert_restores(&repository, id, &store).await;
    }
    assert!(changed > 0);
    let old = crate::common::restore(&repository, first).await;
    assert!(old.content(&path("relation")).unwrap() == before, "the first snapshot changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn little_is_stored_for_records_that_changed_all_over() {
    let store: std::sync::Arc<dyn object_store::ObjectStore> =
        std::sync::Arc::new(object_store::memory::InMemory::new());
    let mut options = crate::common::small();
    options.parameters = lifeboat_repository::Parameters::default();
    let repository =
        lifeboat_repository::Repository::init(store, &crate::common::secret(), &options)
            .await
            .unwrap();
    let mut stored = Vec::new();
    for layout in [Layout::Stream, Layout::Records] {
        let store = lifeboat_core::memory::MemoryStore::new(format!("{layout:?}").to_lowercase());
        let mut content = noise(11, 8 << 20);
        let mut last = 0;
        for _ in 0..2 {
            let entry = Entry::file(path("dump"), Attributes::new(), content.clone());
            store.insert(entry.with_layout(layout)).await.unwrap();
            let (id, summary) = back_up(&store, &repository).await;
            last = summary.progress.new;
            assert_restores(&repository, id, &store).await;
            for at in (100_000..content.len()).step_by(400_000) {
                content.splice(at..at, *b"one more record");
            }
        }
        stored.push(last);
    }
    // 21 places: nearly every chunk of the stream, and some chunks of 16 KiB each.
    assert!(stored[0] > 6 << 20, "{stored:?}");
    assert!(stored[1] < 1 << 20, "{stored:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_shifted_are_found_again() {
    let (_, repository) = repository().await;
    let store = lifeboat_core::memory::MemoryStore::new("shift");
    let mut content = noise(4, 4_000_000);
    store.insert(Entry::file(path("log"), Attributes::new(), content.clone())).await.unwrap();
    back_up(&store, &repository).await;
    content.splice(1_000_000..1_000_000, *b"a few bytes more");
    store.insert(Entry::file(path("log"), Attributes::new(), content)).await.unwrap();
    let (id, summary) = back_up(&store, &repository).await;
    assert!(summary.progress.new < 400_000, "{:?}", summary.progress);
    assert_restores(&repository, id, &store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_changed_entry_of_many_costs_little_of_the_tree() {
    let (_, repository) = repository().await;
    let store = lifeboat_core::memory::MemoryStore::new("many");
    for number in 0..20_000_u64 {
        let bytes = number.to_le_bytes().to_vec();
        let name = path(&format!("folder-{:03}/file-{number}", number % 100));
        store.insert(Entry::file(name, Attributes::new(), bytes)).await.unwrap();
    }
    let (_, first) = back_up(&store, &repository).await;
    store.insert(Entry::file(path("folder-050/new"), Attributes::new(), "new")).await.unwrap();
    let (id, second) = back_up(&store, &repository).await;
    let (all, little) = (first.progress.stored, second.progress.stored);
    assert!(little * 20 < all, "the first cost {all}, the second {little}");
    assert_restores(&repository, id, &store).await;
}
