//! A snapshot that the server is told of, so that it sends only what changed since.
//!
//! From version 17 on a server that summarises its WAL (`summarize_wal = on`) compares with the
//! manifest of an earlier backup (`UPLOAD_MANIFEST`). It wants to know which files there were, and
//! from where on WAL has changed them; so a manifest can be made of any snapshot, however it was
//! taken. What the server then leaves out is in the repository, and the new snapshot is as complete
//! as any.
//!
//! Only main forks are named in it, of which the repository has everything, and no
//! page was damaged; the server sends all else as a whole. And only a server whose history is that
//! of the snapshot is told of it (`lineage`).

use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::digest;
use futures_util::TryStreamExt;
use lifeboat_core::{Baseline, EntryInfo, EntryKind, EntryPath, Layout};

use super::changes::Changes;
use super::error::Result;
use super::files::PIECE;
use super::server::Server;
use crate::connect::{ConnectOptions, Session};
use crate::lsn::Lsn;
use crate::relation::{Fork, RelationDirectory, RelationFile};
use crate::source::{CLUSTER, facts, known_damage, lineage};

/// Servers that can send changes.
const FIRST_MAJOR: u32 = 17;

/// So much of a manifest is sent at once, in bytes.
const AT_ONCE: usize = 64 << 10;

/// A snapshot that a server was told of.
pub(super) struct Prior {
    baseline: Arc<dyn Baseline>,
    /// Where it begins.
    pub(super) start: Lsn,
    pub(super) timeline: u32,
}

/// Whether a server was told of a snapshot.
pub(super) enum Offered {
    /// It was.
    Taken(Prior),
    /// The snapshot is of no use, and nobody expects it to be.
    Unfit,
    /// It could have been of use; why it is not.
    Not(String),
    /// It could have been, too; and the connection is of no use any more.
    Refused(String),
}

impl Prior {
    /// Tells a server of a snapshot. `verify` is whether pages must have been looked at in it.
    pub(super) async fn offer(
        server: &mut Server,
        baseline: Arc<dyn Baseline>,
        connection: &ConnectOptions,
        verify: bool,
    ) -> lifeboat_core::Result<Offered> {
        let about = server.about.clone();
        let known = &baseline.snapshot().facts;
        let system_id = about.identity.system_id.to_string();
        let longest = Changes::longest_header(about.page_size, about.relation_segment_pages);
        let (start, stop) = (position(known.text(facts::START)), position(known.text(facts::STOP)));
        let (Some(start), Some(stop)) = (start, stop) else {
            return Ok(Offered::Unfit);
        };
        if about.major < FIRST_MAJOR
            || longest > PIECE
            || known.text(facts::SYSTEM_ID) != Some(&system_id)
            || known.unsigned(facts::BLOCK_SIZE) != Some(about.page_size.into())
        {
            return Ok(Offered::Unfit);
        }
        let timeline = about.identity.timeline;
        let not = |why: &str| Ok(Offered::Not(why.to_owned()));
        if known.unsigned(facts::TIMELINE) != Some(timeline.into()) {
            return not("the last snapshot is of another timeline");
        }
        let checksums = known.unsigned(facts::CHECKSUM_VERSION).is_some_and(|kind| kind != 0);
        let verified = known.text(facts::PAGES) == Some(facts::VERIFIED);
        if checksums != about.checksums || (verify && !verified) {
            return not("the pages of the last snapshot were not verified");
        }
        let Some(damaged) = known_damage(known) else {
            return not("the last snapshot has more damaged pages than it names");
        };
        if server.client.setting("summarize_wal").await?.as_deref() != Some("on") {
            return not(
                "summarize_wal is off; to have only changed pages sent: ALTER SYSTEM SET summarize_wal = on; SELECT pg_reload_conf();",
            );
        }
        let same = async {
            let session = Session::open(connection).await?;
            lineage::is_same(&session, known.text(facts::SUMMARIES), timeline, start).await
        };
        match same.await {
            Ok(true) => {}
            Ok(false) => return not(lineage::OTHER),
            Err(error) => {
                let why = lifeboat_core::Error::from(error).one_line();
                return Ok(Offered::Not(format!(
                    "the server cannot be asked for its WAL summaries, which takes an ordinary connection: {why}"
                )));
            }
        }
        let Some(mut entries) = baseline.entries() else {
            return not("the last snapshot cannot be listed");
        };
        let mut manifest = Text::begin(&system_id);
        server.client.begin_manifest().await?;
        loop {
            let entry = match entries.try_next().await {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(error) => return Ok(Offered::Refused(error.one_line())),
            };
            if let Some(path) = named(&entry, about.page_size)
                && !damaged.contains(entry.path.as_bytes())
            {
                manifest.file(path, entry.size);
            }
            if manifest.text.len() > AT_ONCE {
                server.client.send_manifest(&manifest.take()).await?;
            }
        }
        drop(entries);
        manifest.end(timeline, start, stop);
        server.client.send_manifest(&manifest.take()).await?;
        if let Err(error) = server.client.end_manifest().await {
            return Ok(Offered::Refused(lifeboat_core::Error::from(error).one_line()));
        }
        Ok(Offered::Taken(Self { baseline, start, timeline }))
    }

    /// How many bytes the snapshot has of a file; `None` when it does not have it after all.
    pub(super) async fn size_of(&self, path: &EntryPath) -> Option<u64> {
        self.baseline.entry(path).await.ok().flatten().map(|entry| entry.size)
    }

    /// `backup_label` without the two lines that say since when changes were sent: those of a
    /// backup that is complete by itself.
    pub(super) fn strip(&self, label: &str) -> Result<String, String> {
        let lines = [
            format!("INCREMENTAL FROM LSN: {}\n", self.start),
            format!("INCREMENTAL FROM TLI: {}\n", self.timeline),
        ];
        let mut text = label.to_owned();
        for line in lines {
            let at = text.find(&line).ok_or("does not say since when changes were sent")?;
            text.replace_range(at..at + line.len(), "");
        }
        if text.contains("INCREMENTAL") {
            return Err("says twice since when changes were sent".into());
        }
        Ok(text)
    }
}

fn position(text: Option<&str>) -> Option<Lsn> {
    text.and_then(|text| text.parse().ok())
}

/// The path in the data directory of a file of which changes may be sent.
fn named(entry: &EntryInfo, page: u32) -> Option<&str> {
    let path = entry.path.as_bytes().strip_prefix(CLUSTER.as_bytes())?.strip_prefix(b"/")?;
    let components: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let (name, parents) = components.split_last()?;
    RelationDirectory::parse(parents)?;
    let file = RelationFile::parse(name)?;
    let fit = entry.kind == EntryKind::File
        && entry.layout == Layout::Pages(page)
        && matches!(file.fork, Fork::Main)
        && entry.size.is_multiple_of(page.into());
    std::str::from_utf8(path).ok().filter(|_| fit)
}

/// A manifest that is being written.
struct Text {
    text: String,
    hash: digest::Context,
    first: bool,
}

impl Text {
    fn begin(system_id: &str) -> Self {
        let text = format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {system_id},\n\"Files\": ["
        );
        Self { text, hash: digest::Context::new(&digest::SHA256), first: true }
    }

    /// Paths of relations need no quoting.
    fn file(&mut self, path: &str, size: u64) {
        let separator = if std::mem::replace(&mut self.first, false) { "" } else { "," };
        let _ = write!(
            self.text,
            "{separator}\n{{ \"Path\": \"{path}\", \"Size\": {size}, \"Last-Modified\": \"1970-01-01 00:00:00 GMT\" }}"
        );
    }

    /// What was written since the last time.
    fn take(&mut self) -> Vec<u8> {
        let text = std::mem::take(&mut self.text).into_bytes();
        self.hash.update(&text);
        text
    }

    fn end(&mut self, timeline: u32, start: Lsn, stop: Lsn) {
        let _ = write!(
            self.text,
            "\n],\n\"WAL-Ranges\": [\n{{ \"Timeline\": {timeline}, \"Start-LSN\": \"{start}\", \"End-LSN\": \"{stop}\" }}\n],\n"
        );
        let mut hash = self.hash.clone();
        hash.update(self.text.as_bytes());
        let _ = write!(self.text, "\"Manifest-Checksum\": \"");
        for byte in hash.finish().as_ref() {
            let _ = write!(self.text, "{byte:02x}");
        }
        self.text.push_str("\"}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifeboat_core::Attributes;

    fn entry(path: &str, size: u64, layout: Layout) -> EntryInfo {
        let path = EntryPath::new(path).unwrap();
        EntryInfo { path, kind: EntryKind::File, attributes: Attributes::new(), layout, size }
    }

    #[test]
    fn only_what_the_server_may_leave_out_is_named() {
        let pages = Layout::Pages(8192);
        let name = |path: &str| named(&entry(path, 16384, pages), 8192).map(str::to_owned);
        assert_eq!(name("cluster/base/5/1249").as_deref(), Some("base/5/1249"));
        assert_eq!(name("cluster/global/1262.1").as_deref(), Some("global/1262.1"));
        for other in [
            "cluster/base/5/1249_fsm",
            "cluster/base/5/1249_vm",
            "cluster/base/5/PG_VERSION",
            "cluster/pg_xact/0000",
            "recovery/backup_label",
            "cluster2/base/5/1249",
        ] {
            assert_eq!(name(other), None, "{other}");
        }
        assert!(named(&entry("cluster/base/5/1249", 5000, pages), 8192).is_none());
        assert!(named(&entry("cluster/base/5/1249", 8192, Layout::Stream), 8192).is_none());
    }
}
