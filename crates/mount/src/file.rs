//! An open file.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use lifeboat_core::{Content, Extent};
use lifeboat_repository::SnapshotFile;
use tokio::sync::Mutex;

/// An open file. Its readings come one after the other, so that a chunk is not fetched twice.
pub(crate) struct OpenFile {
    snapshot: u32,
    file: SnapshotFile,
    reading: Mutex<Reading>,
}

/// Where the last reading stopped.
struct Reading {
    at: u64,
    /// What follows there: fetched ahead for those who read on.
    ahead: Option<(Content, Option<Extent>)>,
}

impl OpenFile {
    /// A file of the snapshot with this number.
    pub(crate) fn new(snapshot: u32, file: SnapshotFile) -> Self {
        Self { snapshot, file, reading: Mutex::new(Reading { at: 0, ahead: None }) }
    }

    pub(crate) fn snapshot(&self) -> u32 {
        self.snapshot
    }

    pub(crate) fn file(&self) -> &SnapshotFile {
        &self.file
    }

    /// The bytes in `range`, as far as the file has them.
    pub(crate) async fn read(&self, range: Range<u64>) -> lifeboat_core::Result<Bytes> {
        let mut reading = self.reading.lock().await;
        let goes_on = range.start == reading.at && range.start > 0;
        // Until all of it worked, nothing is ahead: an error ends a content.
        let (mut content, mut rest) = match reading.ahead.take() {
            Some(ahead) if goes_on => ahead,
            // Who comes back where he stopped is likely to want the rest of it.
            _ if goes_on => (self.file.read(range.start..u64::MAX), None),
            _ => (self.file.read(range.clone()), None),
        };
        let bytes = take(&mut content, &mut rest, range.end - range.start).await?;
        reading.at = range.start + bytes.len() as u64;
        reading.ahead = goes_on.then_some((content, rest));
        Ok(bytes)
    }
}

/// The next `length` bytes of a content; fewer when it ends. What is left of an extent goes to
/// `rest`, from where it is taken next time.
async fn take(
    content: &mut Content,
    rest: &mut Option<Extent>,
    length: u64,
) -> lifeboat_core::Result<Bytes> {
    let mut bytes = BytesMut::new();
    while (bytes.len() as u64) < length {
        let next = match rest.take() {
            Some(extent) => Some(extent),
            None => content.next().await?,
        };
        let wanted = length - bytes.len() as u64;
        match next {
            None => break,
            Some(Extent::Data(mut data)) => {
                if data.len() as u64 > wanted {
                    *rest = Some(Extent::Data(data.split_off(wanted as usize)));
                }
                if bytes.is_empty() && data.len() as u64 == length {
                    return Ok(data);
                }
                bytes.extend_from_slice(&data);
            }
            Some(Extent::Unchanged(hole) | Extent::Hole(hole)) => {
                let zeros = hole.min(wanted);
                if hole > zeros {
                    *rest = Some(Extent::Hole(hole - zeros));
                }
                bytes.resize(bytes.len() + zeros as usize, 0);
            }
        }
    }
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn extents_are_cut_as_readers_want_them() {
        let extents = [Extent::Data("abcdef".into()), Extent::Hole(5), Extent::Data("xyz".into())];
        let mut content = Content::extents(extents);
        let mut rest = None;
        let mut all = Vec::new();
        for length in [2, 3, 4, 1, 9] {
            all.push(take(&mut content, &mut rest, length).await.unwrap());
        }
        assert_eq!(all, [&b"ab"[..], b"cde", b"f\0\0\0", b"\0", b"\0xyz"]);
        assert!(take(&mut content, &mut rest, 1).await.unwrap().is_empty());
    }
}
