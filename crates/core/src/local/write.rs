//! A stream of extents into a new file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::error::failed;
use crate::content::{Content, Extent};
use crate::error::{Error, ErrorKind, Result};

/// How much is gathered for one write, so that many small extents are not as many tasks.
const BATCH: u64 = 1 << 20;

/// The beginning of a content, pulled into memory. It lets a sink make, write and finish a small
/// file in one blocking call, and still stream a large one.
#[derive(Debug)]
pub struct Head {
    extents: Vec<Extent>,
    length: u64,
    whole: bool,
}

impl Head {
    /// Pulls extents until the content ends, or more than `limit` bytes of data are at hand (one
    /// extent beyond it at most).
    ///
    /// # Errors
    /// Those of the content; [`ErrorKind::InvalidInput`] when it refers to a baseline, which a
    /// file does not have, or is longer than a file can be.
    pub async fn pull(content: &mut Content, limit: u64) -> Result<Self> {
        let mut head = Self { extents: Vec::new(), length: 0, whole: false };
        let mut data = 0;
        while data <= limit {
            let Some(extent) = content.next().await? else {
                head.whole = true;
                break;
            };
            match &extent {
                Extent::Data(bytes) => data += bytes.len() as u64,
                Extent::Hole(_) => {}
                Extent::Unchanged(_) => {
                    return Err(Error::new(
                        ErrorKind::InvalidInput,
                        "the content refers to a baseline, which a file does not have",
                    ));
                }
            }
            head.length = checked_end(head.length, extent.len())?;
            head.extents.push(extent);
        }
        Ok(head)
    }

    /// Whether this is all of the content.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// How many bytes it stands for, holes included.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether it stands for nothing.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Writes it into `file` at `offset`; a hole at the end lengthens the file. Blocks. The file
    /// must hold nothing at `offset` and beyond.
    ///
    /// # Errors
    /// The operating system's; [`failed`] says them.
    pub fn write(&self, file: &File, offset: u64) -> std::io::Result<u64> {
        let mut at = offset;
        for extent in &self.extents {
            if let Extent::Data(bytes) = extent {
                file.write_all_at(bytes, at)?;
            }
            at += extent.len();
        }
        if matches!(self.extents.last(), Some(Extent::Hole(_))) {
            file.set_len(at)?;
        }
        Ok(at)
    }

    /// Writes it and the rest of `content`, from which it was pulled, into a new and empty file,
    /// and returns how many bytes that has; see [`write_file`].
    ///
    /// # Errors
    /// As for [`write_file`].
    pub async fn write_with_rest(
        self,
        file: impl Into<Arc<File>>,
        name: impl Into<Arc<str>>,
        mut content: Content,
    ) -> Result<u64> {
        let mut writer = Writer { file: file.into(), name: name.into(), at: 0, writing: None };
        let mut head = self;
        loop {
            let whole = head.is_whole();
            writer.write(head).await?;
            if whole {
                writer.settle().await?;
                return Ok(writer.at);
            }
            head = Self::pull(&mut content, BATCH - 1).await?;
        }
    }
}

fn checked_end(at: u64, length: u64) -> Result<u64> {
    at.checked_add(length).filter(|end| i64::try_from(*end).is_ok()).ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, "the content is longer than a file can be")
    })
}

/// Writes `content` into a new and empty file, holes as holes, and returns how many bytes it has.
/// `name` is what people know the file by.
///
/// The next extents are pulled while the last ones are written. Nothing is durable yet; see the
/// [module](super). When this is dropped, a write under way still ends by itself, on a
/// descriptor of its own.
///
/// # Errors
/// Those of the content, as they are; those of the file, with its name;
/// [`ErrorKind::InvalidInput`] when the content refers to a baseline.
pub async fn write_file(
    file: impl Into<Arc<File>>,
    name: impl Into<Arc<str>>,
    mut content: Content,
) -> Result<u64> {
    let head = Head::pull(&mut content, BATCH - 1).await?;
    head.write_with_rest(file, name, content).await
}

struct Writer {
    file: Arc<File>,
    name: Arc<str>,
    at: u64,
    writing: Option<JoinHandle<std::io::Result<u64>>>,
}

impl Writer {
    async fn write(&mut self, head: Head) -> Result<()> {
        let at = self.at;
        self.at = checked_end(at, head.len())?;
        self.settle().await?;
        let file = Arc::clone(&self.file);
        self.writing = Some(tokio::task::spawn_blocking(move || head.write(&file, at)));
        Ok(())
    }

    /// Waits for the write under way.
    async fn settle(&mut self) -> Result<()> {
        let Some(writing) = self.writing.take() else {
            return Ok(());
        };
        let done = writing.await.map_err(|panic| {
            Error::new(ErrorKind::Other, "the writing of a file panicked").with_source(panic)
        })?;
        done.map_err(|error| failed("write", &*self.name, error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::{Status, read_file};
    use crate::{Bytes, Context};

    #[tokio::test]
    async fn what_was_written_reads_back_with_its_holes() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let data = Bytes::from(vec![9; 300_000]);
        let pieces = [
            Extent::Hole(1 << 20),
            Extent::Data(data.clone()),
            Extent::Data(data.slice(..65_536)),
            Extent::Data(data.clone()),
            Extent::Data(data.clone()),
            Extent::Data(data.clone()),
            Extent::Hole(3 << 20),
        ];
        let length: u64 = pieces.iter().map(Extent::len).sum();
        let written = write_file(Arc::clone(&file), "x", Content::extents(pieces.clone()));
        assert_eq!(written.await.unwrap(), length);
        let status = Status::of(&*file).unwrap();
        assert_eq!(status.size, length);
        assert!(status.allocated < 2 << 20);
        let mut content = read_file(file, "x", length, &Context::silent());
        let mut at = 0;
        while let Some(extent) = content.next().await.unwrap() {
            if let Extent::Data(bytes) = &extent {
                let inside = (1 << 20..length - (3 << 20)).contains(&at);
                assert!(inside || bytes.iter().all(|byte| *byte == 0));
            }
            at += extent.len();
        }
        assert_eq!(at, length);
    }

    #[tokio::test]
    async fn a_full_disk_is_said_with_the_name() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let error = write_file(full, "/target/file", Content::bytes("abc")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert!(error.one_line().starts_with("write /target/file: "), "{error:?}");
        assert!(error.hint().is_some());
    }

    #[tokio::test]
    async fn senseless_content_is_refused() {
        for extents in [
            vec![Extent::Unchanged(1)],
            vec![Extent::Hole(u64::MAX)],
            vec![Extent::Hole(1 << 62), Extent::Hole(1 << 62)],
        ] {
            let file = tempfile::tempfile().unwrap();
            let error = write_file(file, "x", Content::extents(extents)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }
}
