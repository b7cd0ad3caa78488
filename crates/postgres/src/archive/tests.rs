//! Tests of the archive over journals in memory.

use std::collections::HashMap;
use std::sync::Arc;

use lifeboat_core::journal::{Appended, JournalLog, JournalName, SegmentInfo};
use lifeboat_core::memory::MemoryJournal;
use lifeboat_core::{Bytes, Content, ErrorKind, Extent, StoreRef};

use super::{NewSystem, TimelineHistory, WalArchive, WalLine};
use crate::lsn::Lsn;

/// An archive in memory, and the same again as another process would open it.
pub(super) fn archive() -> WalArchive {
    let mut journals: HashMap<JournalName, MemoryJournal> = HashMap::new();
    WalArchive::open(&StoreRef::new("postgres", "main"), |name| -> Arc<dyn JournalLog> {
        let journal = journals.entry(name.clone());
        Arc::new(journal.or_insert_with(|| MemoryJournal::new(name.clone())).clone())
    })
    .unwrap()
}

pub(super) async fn bytes(mut content: Content) -> lifeboat_core::Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(extent) = content.next().await? {
        match extent {
            Extent::Data(data) => all.extend_from_slice(&data),
            Extent::Hole(length) | Extent::Unchanged(length) => {
                all.resize(all.len() + length as usize, 0);
            }
        }
    }
    Ok(all)
}

const ONE: WalLine = WalLine { system_id: 7, timeline: 1 };

async fn add(archive: &WalArchive, from: u64, content: &[u8]) {
    let content = Bytes::copy_from_slice(content);
    archive.append(ONE, Lsn(from), content, &SegmentInfo::default()).await.unwrap();
}

#[tokio::test]
async fn a_timeline_is_begun_with_its_history_and_keeps_it() {
    let archive = archive();
    let refuse = NewSystem::Refuse;
    let two = ONE.sibling(2);
    let history = TimelineHistory::parse(2, "1\t0/3000000\tfirst\n").unwrap();
    let other = TimelineHistory::parse(2, "1\t0/3000000\tanother reason\n").unwrap();
    assert_eq!(archive.begin(ONE, None, refuse).await.unwrap(), Appended::New);
    let unknown = archive.begin(two, None, refuse).await.unwrap_err();
    assert!(unknown.one_line().contains("00000002.history into pg_wal"), "{unknown}");
    // A history of another timeline is none.
    assert!(archive.begin(ONE.sibling(3), Some(&history), refuse).await.is_err());
    assert_eq!(archive.begin(two, Some(&history), refuse).await.unwrap(), Appended::New);
    assert_eq!(archive.begin(two, Some(&history), refuse).await.unwrap(), Appended::Same);
    assert_eq!(archive.begin(two, None, refuse).await.unwrap(), Appended::Same);
    let refused = archive.begin(two, Some(&other), refuse).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert_eq!(archive.history(two).await.unwrap().unwrap(), *history.bytes());
    assert_eq!(archive.history(ONE).await.unwrap(), None);
    assert_eq!(archive.history(ONE.sibling(3)).await.unwrap(), None);
}

#[tokio::test]
async fn another_system_is_let_in_on_purpose_only() {
    let archive = archive();
    assert!(!archive.knows(7).await.unwrap());
    archive.begin(ONE, None, NewSystem::Refuse).await.unwrap();
    let other = WalLine::new(8, 1);
    let refused = archive.begin(other, None, NewSystem::Refuse).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(refused.one_line().contains("lifeboat wal adopt"), "{}", refused.one_line());
    assert!(!archive.has(other).await.unwrap());
    archive.begin(other, None, NewSystem::Adopt).await.unwrap();
    assert!(archive.knows(7).await.unwrap() && archive.knows(8).await.unwrap());
    // From then on it needs no words, and the old one is still known.
    archive.begin(other, None, NewSystem::Refuse).await.unwrap();
    archive.begin(ONE, None, NewSystem::Refuse).await.unwrap();
}

#[tokio::test]
async fn pieces_make_up_a_whole_only_without_a_gap() {
    let archive = archive();
    archive.begin(ONE, None, NewSystem::Refuse).await.unwrap();
    let all: Vec<u8> = (0..100).collect();
    let read = async |from: u64, to: u64| match archive.read(ONE, Lsn(from), Lsn(to)).await.unwrap()
    {
        Some(content) => Some(bytes(content).await.unwrap()),
        None => None,
    };
    assert_eq!(read(1000, 1100).await, None);
    // Two runs of a receiver, whose pieces overlap; the second begins anew.
    for (from, to) in [(0, 30), (30, 40), (0, 25), (25, 60), (70, 100)] {
        add(&archive, 1000 + from, &all[from as usize..to]).await;
    }
    assert_eq!(read(1000, 1100).await, None);
    assert_eq!(read(1010, 1055).await.unwrap(), all[10..55]);
    let tail = async |limit: u64| {
        let tail = archive.read_tail(ONE, Lsn(1000), Lsn(limit)).await.unwrap();
        match tail {
            Some((content, end)) => Some((bytes(content).await.unwrap(), end)),
            None => None,
        }
    };
    assert_eq!(tail(1100).await, None, "there is more beyond the gap");
    add(&archive, 1055, &all[55..72]).await;
    assert_eq!(read(1000, 1100).await.unwrap(), all);
    assert_eq!(tail(1100).await.unwrap(), (all.clone(), Lsn(1100)));
    assert_eq!(tail(1099).await, None, "there is more than this segment");
    add(&archive, 1000, &all).await;
    assert_eq!(read(1000, 1100).await.unwrap(), all);
}

#[tokio::test]
async fn what_is_too_long_for_one_is_cut() {
    let archive = archive();
    archive.begin(ONE, None, NewSystem::Refuse).await.unwrap();
    let long: Vec<u8> = (0..(130_u32 << 20)).map(|at| (at >> 12) as u8).collect();
    let content = Bytes::from(long.clone());
    let append =
        async || archive.append(ONE, Lsn(1 << 30), content.clone(), &SegmentInfo::default()).await;
    assert_eq!(append().await.unwrap(), Appended::New);
    assert_eq!(append().await.unwrap(), Appended::Same);
    let end = archive.end(ONE).await.unwrap().unwrap();
    assert_eq!(end, Lsn((1 << 30) + (130 << 20)));
    let read = archive.read(ONE, Lsn(1 << 30), end).await.unwrap().unwrap();
    assert!(bytes(read).await.unwrap() == long);
}
