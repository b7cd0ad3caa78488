//! Memory does not grow with what content stands for. Alone in its process, so that it can ask
//! for the most that the process has had.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "it/common.rs"]
mod common;
#[path = "it/scripted.rs"]
mod scripted;

use lifeboat_core::{Extent, Layout};

use common::{back_up, noise, path, repository};
use scripted::Scripted;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_hole_takes_no_memory() {
    let (_, repository) = repository().await;
    let end = noise(1, 12_288);
    let hole = 1_u64 << 33;
    let bytes = |from: usize| Extent::Data(end[from..].to_vec().into());
    for extents in [
        vec![Extent::Hole(hole), bytes(0)],
        vec![Extent::Hole(100), Extent::Unchanged(hole - 100), bytes(0)],
        vec![Extent::Unchanged(hole + 8192), bytes(8192)],
    ] {
        let peak = peak_memory();
        let source = Scripted::new("sparse").file("file", Layout::Pages(512), extents);
        let (id, _) = back_up(&source, &repository).await;
        let grown = peak_memory() - peak;
        assert!(grown < 100 << 20, "{} MiB more", grown >> 20);
        let snapshot = repository.snapshot(&id).await.unwrap();
        let mut content = snapshot.content(&path("file")).await.unwrap().unwrap();
        let (mut length, mut last) = (0, Vec::new());
        while let Some(extent) = content.next().await.unwrap() {
            length += extent.len();
            if let Extent::Data(bytes) = extent {
                last.extend_from_slice(&bytes);
            }
        }
        assert_eq!(length, hole + end.len() as u64);
        assert!(last == end);
    }
}

/// The most memory that this process has had, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}
