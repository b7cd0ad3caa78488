//! Some of the keys of a snapshot as an RDB of their own.
//!
//! A thread reads the RDB of the snapshot and copies the records of the keys that are wanted, byte for
//! byte, into another one: with the same version of the format, so that the same servers load it. The
//! snapshot is read to its end and its checksum compared, before anything appears. Functions, and what
//! modules keep besides keys, belong to the whole and are left out. One value may be of any size: it
//! passes through.

use std::io::{self, Write};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::fed::Fed;
use crate::rdb::{Item, RdbError, RdbReader};
use crate::selection::KeySelection;

/// How many buffers may wait, before it and behind it.
const WAITING: usize = 2;

/// How many keys the snapshot has, and how many of them were wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sliced {
    pub(super) wanted: u64,
    pub(super) unwanted: u64,
}

pub(super) struct Slicer {
    /// Takes the bytes of the snapshot.
    pub(super) feed: mpsc::Sender<Bytes>,
    /// Gives those of the slice. It ends with the thread.
    pub(super) sliced: mpsc::Receiver<Bytes>,
    pub(super) thread: JoinHandle<Result<Sliced, RdbError>>,
}

pub(super) fn start(selection: KeySelection) -> Slicer {
    let (feed, fed) = mpsc::channel(WAITING);
    let (out, sliced) = mpsc::channel(WAITING);
    let work = move || slice(Fed::new(fed), Out(out), selection);
    Slicer { feed, sliced, thread: tokio::task::spawn_blocking(work) }
}

fn slice(
    from: impl io::Read,
    to: impl Write + Send + 'static,
    selection: KeySelection,
) -> Result<Sliced, RdbError> {
    let chosen = selection.clone();
    let choose = Box::new(move |database, name: &[u8]| selection.place_of(database, name));
    let mut rdb = RdbReader::new(from).copying(Box::new(to), choose);
    let mut counts = Sliced::default();
    while let Some(item) = rdb.next()? {
        if let Item::Key(key) = item {
            match chosen.place_of(key.database, &key.name) {
                Some(_) => counts.wanted += 1,
                None => counts.unwanted += 1,
            }
        }
        if rdb.copy_has_failed() {
            break;
        }
    }
    let offset = rdb.offset();
    let copied = rdb.finish_copy();
    copied.map_err(|source| RdbError::Read { offset, source })?;
    let (_, length) = rdb.finish()?;
    if length != offset {
        return Err(RdbError::Trailing { offset });
    }
    Ok(counts)
}

/// Gives buffers to who writes them. Blocks.
struct Out(mpsc::Sender<Bytes>);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use proptest::prelude::*;

    use super::*;
    use crate::live::KeyPattern;
    use crate::rdb::{Dialect, RdbWriter, check};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn whole(keys: &[(u64, String, Option<i64>)]) -> Vec<u8> {
        let mut rdb = RdbWriter::begin(Vec::new(), Dialect::Redis, 10);
        rdb.aux(b"redis-ver", b"7.0.15").unwrap();
        rdb.aux(b"repl-id", b"1234").unwrap();
        rdb.raw(b"\xf5\x03lib").unwrap();
        for (database, name, expires) in keys {
            rdb.database(*database);
            rdb.key(*expires, 0, name.as_bytes());
            rdb.raw(b"\x05value").unwrap();
        }
        rdb.end().unwrap()
    }

    proptest! {
        #[test]
        fn a_slice_is_what_would_be_written_of_these_keys_alone(
            keys in prop::collection::vec((0..4_u64, "[ab][a-z]{0,90}", prop::option::of(1..9_i64)), 0..20),
        ) {
            let mut keys = keys;
            keys.sort_by_key(|key| key.0);
            let selection = KeySelection {
                keys: vec![KeyPattern::new("a*")],
                databases: [(0, 0), (1, 7)].into(),
            };
            let kept = Kept::default();
            let counts = slice(&whole(&keys)[..], kept.clone(), selection).unwrap();
            let wanted: Vec<_> =
                keys.iter().filter(|key| key.0 < 2 && key.1.starts_with('a')).collect();
            prop_assert_eq!(counts.wanted, wanted.len() as u64);
            prop_assert_eq!(counts.wanted + counts.unwanted, keys.len() as u64);
            let mut expected = RdbWriter::begin(Vec::new(), Dialect::Redis, 10);
            expected.aux(b"redis-ver", b"7.0.15").unwrap();
            for (database, name, expires) in wanted {
                expected.database(database * 7);
                expected.key(*expires, 0, name.as_bytes());
                expected.raw(b"\x05value").unwrap();
            }
            let slice = kept.0.lock().clone();
            prop_assert_eq!(&slice, &expected.end().unwrap());
            check(&slice[..]).unwrap();
        }
    }

    #[test]
    fn of_a_damaged_snapshot_there_is_no_slice() {
        let keys = [(0, "a".to_owned(), None), (0, "b".to_owned(), Some(5))];
        let whole = whole(&keys);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x21;
            let found = slice(&damaged[..], io::sink(), KeySelection::default());
            assert!(found.is_err(), "byte {at}");
            assert!(slice(&whole[..at], io::sink(), KeySelection::default()).is_err());
        }
    }
}
