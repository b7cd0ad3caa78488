//! Extents as no source of ours gives them yet, but any may.

use std::time::Duration;

use lifeboat_core::{Context, Extent, Layout, TransferOptions, transfer};
use lifeboat_repository::{Repository, WriteOptions};

use crate::common::{back_up, noise, path, repository, restore};
use crate::scripted::Scripted;

const PAGE: usize = 4096;

fn data(bytes: &[u8]) -> Extent {
    Extent::Data(bytes.to_vec().into())
}

/// Backs up one file given as each of `versions` in turn, and compares what is restored.
async fn compare(repository: &Repository, versions: Vec<(Layout, Vec<Extent>, Vec<u8>)>) {
    for (number, (layout, extents, content)) in versions.into_iter().enumerate() {
        let source = Scripted::new("one").file("file", layout, extents);
        let (id, _) = back_up(&source, repository).await;
        let restored = restore(repository, id).await.content(&path("file")).unwrap();
        assert_eq!(restored.len(), content.len(), "version {number}");
        assert!(restored == content, "version {number} came back different");
    }
}

fn pages(seeds: impl IntoIterator<Item = u64>) -> Vec<u8> {
    seeds.into_iter().flat_map(|seed| noise(seed, PAGE)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_unchanged_in_part_is_not_taken_for_the_old_one() {
    let (_, repository) = repository().await;
    let layout = Layout::Pages(PAGE as u32);
    let first = pages(1..=100);
    // The last page keeps its first bytes, and gets others after them.
    let (kept, end) = (99 * PAGE + 100, noise(1000, PAGE - 100));
    let second = [&first[..kept], &end].concat();
    let partly = vec![Extent::Unchanged(kept as u64), data(&end)];
    // Then it is what it was at first.
    let third = first.clone();
    let versions = vec![
        (layout, vec![data(&first)], first),
        (layout, partly, second),
        (layout, vec![data(&third)], third),
    ];
    compare(&repository, versions).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_that_ends_within_a_page_does_not_shift_what_pages_are_compared_with() {
    let (_, repository) = repository().await;
    let layout = Layout::Pages(PAGE as u32);
    let first = pages(1..=100);
    // A hole of a hundred bytes; every page after the first stretch moves up by one.
    let second = [&[0; 100], &noise(7, PAGE - 100)[..], &pages(3..=101)].concat();
    let extents = vec![Extent::Hole(100), data(&second[100..])];
    let versions = vec![(layout, vec![data(&first)], first), (layout, extents, second)];
    compare(&repository, versions).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_another_size_are_not_compared() {
    let (_, repository) = repository().await;
    let (small, large) = (Layout::Pages(PAGE as u32), Layout::Pages(2 * PAGE as u32));
    // 161 small pages, 80 large ones and a half: page 80 of the small ones is the last half.
    let first = pages(1..=161);
    let mut second = first.clone();
    second[160 * PAGE..].copy_from_slice(&noise(81, PAGE));
    let versions = vec![
        (small, vec![data(&first)], first.clone()),
        (large, vec![Extent::Unchanged(first.len() as u64)], first),
        (large, vec![data(&second)], second),
    ];
    compare(&repository, versions).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_larger_than_packs_do_not_wait_for_ever() {
    let mut options = crate::common::small();
    options.parameters.chunk_average = 1 << 20;
    options.parameters.chunk_max = 8 << 20;
    options.parameters.stretch = 8 << 20;
    options.parameters.pack = 1 << 20;
    let store = std::sync::Arc::new(object_store::memory::InMemory::new());
    let repository = Repository::init(store, &crate::common::secret(), &options).await.unwrap();
    let content = noise(5, 20 << 20);
    let source = Scripted::new("large")
        .file("pages", Layout::Pages(8192), vec![data(&content)])
        .file("stream", Layout::Stream, vec![data(&content[1..])]);
    let sink = repository.sink(&WriteOptions::default());
    let (options, context) = (TransferOptions::default(), Context::silent());
    let all = transfer(&source, &sink, &options, &context);
    let summary = tokio::time::timeout(Duration::from_secs(60), all).await;
    let id = summary.expect("it hangs").unwrap().receipt.snapshot.unwrap();
    let restored = restore(&repository, id).await;
    assert!(restored.content(&path("pages")).unwrap() == content);
    assert!(restored.content(&path("stream")).unwrap() == content[1..]);
}
