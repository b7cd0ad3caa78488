//! Files of the archives on their way into a snapshot.
//!
//! Most go out as they come. A few are read here first, and some go nowhere; all are counted for
//! the manifest.

use bytes::Bytes;
use jiff::Timestamp;
use lifeboat_core::{
    Attributes, Buffer, Content, Entry, EntryInfo, EntryKind, EntryPath, Extent, Layout, names,
};

use super::changes::Changes;
use super::error::{BaseBackupError, Result};
use super::member::{Archive, Place, of_file};
use super::proof::Proof;
use super::pump::{Item, Prepared, Pump, bad, file, missing, recovery};
use super::tar::Member;
use crate::control::Control;
use crate::crc::Crc32c;
use crate::lsn::Lsn;
use crate::source::{Label, Pages};
use crate::wal::{Expected, is_segment, magic};

/// How much is given at once: a multiple of every page size. Smaller files are given as a whole.
pub(super) const PIECE: u64 = 1 << 20;

/// `backup_label`, `pg_control` and `tablespace_map` are smaller than this, in bytes.
const LARGEST_NOTE: u64 = 1 << 20;

/// Prepared transactions wait for the WAL in memory. Each has some hundred bytes, and
/// `max_prepared_transactions` bounds how many there are.
const MOST_PREPARED: u64 = 64 << 20;

/// A file on its way.
pub(super) struct Current {
    /// As the manifest names it.
    path: Vec<u8>,
    size: u64,
    crc: Crc32c,
    offset: u64,
    buffer: Option<Buffer>,
    goes: Goes,
}

impl Current {
    pub(super) fn new(path: Vec<u8>, size: u64, goes: Goes) -> Self {
        Self { path, size, crc: Crc32c::new(), offset: 0, buffer: None, goes }
    }
}

/// Where the content of a file goes.
pub(super) enum Goes {
    /// Nowhere.
    Nowhere,
    /// Into memory, to be used here.
    Kept(Place, Attributes),
    /// Out as a whole.
    Whole(EntryInfo, Look),
    /// Out in pieces.
    Pieces(EntryPath, Look),
    /// Pages that changed, of a file of which the last snapshot has so many bytes.
    Changes(Changed),
}

/// A file of which only changed pages are sent.
pub(super) struct Changed {
    pub(super) info: EntryInfo,
    pub(super) pages: Pages,
    /// How many bytes the last snapshot has of it.
    pub(super) former: u64,
    /// Once its header was read.
    pub(super) begun: Option<Changes>,
}

/// What the bytes of a file are held against.
pub(super) enum Look {
    /// The manifest alone.
    Nothing,
    /// The checksums of its pages.
    Pages(Pages),
    /// What the pages of WAL say of themselves.
    Wal(Expected),
}

impl Pump {
    /// Where the content of a file goes.
    pub(super) async fn goes(
        &mut self,
        archive: &Archive,
        member: &Member,
        place: Place,
        former: Option<u64>,
    ) -> Result<Goes> {
        let too_large = |limit: u64| {
            (member.size > limit).then(|| bad(archive, format!("{place:?} is too large")))
        };
        Ok(match &place {
            Place::LeftOut => Goes::Nowhere,
            Place::Done => {
                // The server has just made it, after the end of the backup: within this second.
                if self.notes.ended.is_none() {
                    let seconds = i64::try_from(member.modified).unwrap_or_default();
                    self.notes.ended = Timestamp::from_second(seconds.saturating_add(1)).ok();
                }
                Goes::Nowhere
            }
            Place::Label | Place::Map | Place::Control | Place::History(_) => {
                too_large(LARGEST_NOTE).map_or(Ok(()), Err)?;
                Goes::Kept(place, Attributes::new().with(names::MODE, 0o600_u32))
            }
            Place::Prepared { .. } => {
                let held: u64 =
                    self.notes.prepared.iter().map(|held| held.bytes.len() as u64).sum();
                too_large(MOST_PREPARED.saturating_sub(held)).map_or(Ok(()), Err)?;
                Goes::Kept(place, of_file(member))
            }
            Place::Segment { timeline, segment } => {
                return self.segment(archive, member, *timeline, *segment).await;
            }
            Place::Cluster { path, relation } => {
                let mut info = info_of(path.clone(), of_file(member), member.size);
                let mut look = Look::Nothing;
                if let Some((directory, file)) = relation {
                    info.layout = Layout::Pages(self.about.page_size);
                    let first = file.segment.wrapping_mul(self.about.relation_segment_pages);
                    let pages = Pages {
                        directory: *directory,
                        file: *file,
                        page_size: self.about.page_size,
                        first_block: first,
                    };
                    if let Some(former) = former {
                        return Ok(Goes::Changes(Changed { info, pages, former, begun: None }));
                    }
                    if self.verify {
                        look = Look::Pages(pages);
                    }
                }
                self.out(info, look).await?
            }
        })
    }

    async fn segment(
        &mut self,
        archive: &Archive,
        member: &Member,
        timeline: u32,
        segment: u64,
    ) -> Result<Goes> {
        let size = self.about.segment_size;
        // Of other timelines, what a standby has left over.
        if timeline != self.begun.timeline || segment < size.holding(self.begun.start) {
            return Ok(Goes::Nowhere);
        }
        if member.size != size.bytes() {
            let name = size.name(timeline, segment);
            return Err(bad(archive, format!("its WAL segment {name} has {} bytes", member.size)));
        }
        // The first segment of a timeline begins with pages of those before, which a primary has
        // left when it begins a backup, and a standby not.
        let first = if self.about.standby { 1 } else { timeline };
        let expected = Expected {
            magic: magic(self.about.major),
            system_id: self.about.identity.system_id,
            timelines: first..=timeline,
            size,
            segment,
            end: Lsn(u64::MAX),
        };
        if self.notes.proof.is_none() {
            self.context.phase("copy the WAL");
            let label = self.notes.label.as_ref().ok_or_else(|| missing("backup_label"))?;
            self.notes.proof = Some(Proof::new(size, label.checkpoint));
        }
        let path = recovery(size.name(timeline, segment).as_bytes())?;
        let attributes = Attributes::new().with(names::MODE, 0o600_u32);
        self.out(info_of(path, attributes, member.size), Look::Wal(expected)).await
    }

    async fn out(&self, info: EntryInfo, look: Look) -> Result<Goes> {
        if info.size <= PIECE {
            return Ok(Goes::Whole(info, look));
        }
        let path = info.path.clone();
        self.give(Item::Begin(entry_of(info))).await?;
        Ok(Goes::Pieces(path, look))
    }

    /// Some content of a file.
    pub(super) async fn content(&mut self, current: &mut Current, mut bytes: Bytes) -> Result<()> {
        current.crc.update(&bytes);
        if matches!(current.goes, Goes::Nowhere) {
            return Ok(());
        }
        while !bytes.is_empty() {
            // What is kept here is bounded when it begins, and everything else is of the budget.
            let most = match current.goes {
                Goes::Kept(..) => MOST_PREPARED,
                _ => PIECE,
            };
            let capacity = most.min(current.size - current.offset);
            let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
            let mut buffer = match current.buffer.take() {
                Some(buffer) => buffer,
                None => self.context.budget().buffer(capacity).await,
            };
            let room = capacity - buffer.as_ref().len();
            let taken = bytes.split_to(room.min(bytes.len()));
            buffer.data_mut().extend_from_slice(&taken);
            if buffer.as_ref().len() < capacity {
                current.buffer = Some(buffer);
                continue;
            }
            let size = current.size;
            if let Goes::Changes(changed) = &mut current.goes
                && size > PIECE
            {
                let bytes = buffer.freeze();
                current.offset += bytes.len() as u64;
                self.changed_piece(changed, size, bytes).await?;
            } else if let Goes::Pieces(..) = current.goes {
                self.piece(current, buffer.freeze()).await?;
            } else {
                current.buffer = Some(buffer);
            }
        }
        Ok(())
    }

    /// A piece of a large file is there.
    async fn piece(&mut self, current: &mut Current, bytes: Bytes) -> Result<()> {
        if let Goes::Pieces(path, look) = &current.goes {
            self.look(path, look, current.offset, &bytes).await;
        }
        current.offset += bytes.len() as u64;
        self.context.count_read(bytes.len() as u64);
        self.give(Item::Extent(Extent::Data(bytes))).await
    }

    async fn look(&mut self, path: &EntryPath, look: &Look, offset: u64, bytes: &[u8]) {
        match look {
            Look::Nothing => {}
            Look::Pages(pages) => {
                let damaged = pages.damaged_before(bytes, offset, self.begun.start);
                self.damage.report(path, pages, &damaged, &self.context).await;
            }
            Look::Wal(expected) => {
                if let Some(proof) = &mut self.notes.proof {
                    proof.look_at(expected, offset, bytes);
                }
            }
        }
    }

    /// All of a file has come.
    pub(super) async fn end_of_file(&mut self, current: Current) -> Result<()> {
        let Current { path, size, crc, buffer, goes, .. } = current;
        // The manifest is silent about segments of WAL.
        if !path.strip_prefix(b"pg_wal/").is_some_and(is_segment) {
            self.arrived.push(&path, size, crc.value());
        }
        let bytes = buffer.map(Buffer::freeze).unwrap_or_default();
        match goes {
            Goes::Nowhere => Ok(()),
            Goes::Pieces(..) => self.give(Item::End).await,
            Goes::Changes(changed) => self.changed_end(changed, size, bytes).await,
            Goes::Whole(info, look) => {
                self.look(&info.path, &look, 0, &bytes).await;
                self.context.count_read(size);
                let entry = entry_of(info).with_content(size, Content::bytes(bytes));
                self.give(Item::Entry(entry)).await
            }
            Goes::Kept(place, attributes) => self.keep(place, attributes, bytes).await,
        }
    }

    /// A file that is used here.
    async fn keep(&mut self, place: Place, attributes: Attributes, mut bytes: Bytes) -> Result<()> {
        self.context.count_read(bytes.len() as u64);
        let path = match place {
            Place::Prepared { path, name } => {
                // Not of the budget: it stays until the end.
                let bytes = Bytes::copy_from_slice(&bytes);
                self.notes.prepared.push(Prepared { name, path, attributes, bytes });
                return Ok(());
            }
            Place::Label => {
                let wrong = |why: String| file("backup_label", why);
                let text = std::str::from_utf8(&bytes).map_err(|error| wrong(error.to_string()))?;
                let text = match &self.prior {
                    Some(prior) => prior.strip(text).map_err(wrong)?,
                    None => text.to_owned(),
                };
                let label = Label::parse(&text).map_err(wrong)?;
                bytes = text.into();
                if (label.start, label.timeline) != (self.begun.start, self.begun.timeline) {
                    let why = format!("names the start {}, not {}", label.start, self.begun.start);
                    return Err(file("backup_label", why));
                }
                self.notes.label = Some(label);
                recovery(b"backup_label")?
            }
            Place::Control => {
                let control = Control::parse(bytes.to_vec());
                let control = control.map_err(|why| file("pg_control", why))?;
                self.same_server(&control)?;
                self.notes.control = Some(control);
                recovery(b"pg_control")?
            }
            // A server without tablespaces sends an empty one, or none.
            Place::Map if bytes.is_empty() => return Ok(()),
            Place::Map => recovery(b"tablespace_map")?,
            Place::History(name) => recovery(name.as_bytes())?,
            _ => return Ok(()),
        };
        self.give(Item::Entry(Entry::file(path, attributes, bytes))).await
    }

    /// Whether `pg_control` is of the server that was asked.
    fn same_server(&self, control: &Control) -> Result<()> {
        let about = &self.about;
        let wrong =
            |what: &str| Err(file("pg_control", format!("is of a cluster with another {what}")));
        if control.system_id != about.identity.system_id {
            return wrong("system identifier");
        }
        if control.block_size != about.page_size {
            return wrong("page size");
        }
        if control.relation_segment_blocks != about.relation_segment_pages {
            return wrong("size of its files");
        }
        if control.segment_size != about.segment_size {
            return wrong("size of its WAL segments");
        }
        if control.timeline != self.begun.timeline {
            let (from, to) = (self.begun.timeline, control.timeline);
            return Err(BaseBackupError::TimelineChanged { from, to });
        }
        Ok(())
    }
}

fn info_of(path: EntryPath, attributes: Attributes, size: u64) -> EntryInfo {
    EntryInfo { path, kind: EntryKind::File, attributes, layout: Layout::Stream, size }
}

/// Without its content.
pub(super) fn entry_of(info: EntryInfo) -> Entry {
    let size = info.size;
    let entry = Entry::new(info.path, info.kind, info.attributes).with_layout(info.layout);
    entry.with_content(size, Content::empty())
}
