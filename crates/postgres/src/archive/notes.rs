//! Notes of what was archived ahead of its own call.
//!
//! A note says: this very file, told by device, inode, length and the time of its last change, was
//! durable in this place when it was read. A call that finds a note for its file acknowledges it
//! as the call that made the note would have done. A note for
//! anything else is no note: a file that was changed, copied or renamed has another time of change,
//! and a repository elsewhere is another place, as is another one where that was. So a note that is stale, lost, or torn costs a
//! second look, and never a segment.

use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// No notes are larger.
const MAX_NOTES: u64 = 64 << 10;
/// What the first line begins with.
const HEADER: &str = "lifeboat wal notes 1 ";

/// Where notes are kept, and of which place they speak.
#[derive(Debug, Clone)]
pub struct Notes {
    directory: PathBuf,
    place: String,
}

impl Notes {
    /// Notes in a directory, which is made when it is not there. `place` names where the WAL goes:
    /// a repository and a journal in it; notes of another place count for nothing.
    pub fn new(directory: impl Into<PathBuf>, place: &str) -> Self {
        let place = place.chars().flat_map(char::escape_debug).collect();
        Self { directory: directory.into(), place }
    }

    fn file(&self) -> PathBuf {
        self.directory.join("archived")
    }

    /// Whether the file at `path` was archived as it is now. Blocks.
    pub fn has(&self, path: &Path) -> bool {
        let Some(identity) = self.identify(path) else {
            return false;
        };
        let mut text = String::new();
        let read = fs::File::open(self.file())
            .and_then(|file| file.take(MAX_NOTES).read_to_string(&mut text));
        let mut lines = text.lines();
        let ours = read.is_ok()
            && lines.next().and_then(|line| line.strip_prefix(HEADER)) == Some(&self.place);
        ours && lines.any(|line| line == identity)
    }

    /// What tells a file from all others, and from itself before it was changed.
    pub(super) fn identify(&self, path: &Path) -> Option<String> {
        let meta = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
        let name = path.file_name()?.to_str()?;
        Some(format!(
            "{name} {} {} {} {}.{:09} {}.{:09} .",
            meta.dev(),
            meta.ino(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        ))
    }

    /// Notes files, in place of all that was noted before. That it fails costs nothing but time.
    pub(super) async fn write(&self, identities: Vec<String>) {
        let (notes, mut text) = (self.clone(), format!("{HEADER}{}\n", self.place));
        for identity in identities {
            let _ = writeln!(text, "{identity}");
        }
        let write = move || -> std::io::Result<()> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&notes.directory)?;
            let next = notes.directory.join(format!("archived.{}", std::process::id()));
            fs::write(&next, text)?;
            fs::rename(next, notes.file())
        };
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the notes of WAL cannot be written"),
            Err(error) => tracing::debug!(%error, "the notes of WAL cannot be written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_note_is_for_one_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let notes = Notes::new(file("notes/deep"), "s3://a postgres/main/wal");
        for name in ["one", "two", "three"] {
            fs::write(file(name), name).unwrap();
        }
        assert!(!notes.has(&file("one")));
        let noted = ["one", "two"].map(|name| notes.identify(&file(name)).unwrap());
        notes.write(noted.to_vec()).await;
        assert!(notes.has(&file("one")) && notes.has(&file("two")));
        assert!(!notes.has(&file("three")) && !notes.has(&file("four")));
        // Another place, another content, another file under the name.
        assert!(!Notes::new(file("notes/deep"), "s3://b postgres/main/wal").has(&file("one")));
        fs::remove_file(file("one")).unwrap();
        fs::write(file("one"), "one").unwrap();
        assert!(!notes.has(&file("one")));
        fs::rename(file("two"), file("two.old")).unwrap();
        fs::copy(file("two.old"), file("two")).unwrap();
        assert!(!notes.has(&file("two")));
        // What is noted later counts alone; a torn note is none.
        let third = notes.identify(&file("three")).unwrap();
        notes.write(vec![third.clone()]).await;
        assert!(notes.has(&file("three")) && !notes.has(&file("two")));
        let text = fs::read_to_string(notes.file()).unwrap();
        fs::write(notes.file(), &text[..text.len() - 3]).unwrap();
        assert!(!notes.has(&file("three")));
        fs::write(notes.file(), format!("{third}\n")).unwrap();
        assert!(!notes.has(&file("three")));
    }
}
