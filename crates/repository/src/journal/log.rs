//! A journal of a repository.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use lifeboat_core::journal::{
    Appended, JournalLog, JournalName, ListedSegment, Need, Place, Segment, SegmentInfo, Span,
    Timeline, TimelineInfo, Trim, removable,
};
use lifeboat_core::{Content, Timestamp};
use parking_lot::Mutex;

use super::contents::{content, gather};
use super::header::{HEADER, Header, Identity, Kind};
use super::names::{TimelineId, journal_folder, parse, timeline_record};
use super::record::Record;
use super::seal::{Sealed, open_record, seal};
use super::{Exclusivity, FETCHES, JournalOptions};
use crate::error::{Error, Result};
use crate::repository::Shared;

/// So many bytes hold the header and the record of all but odd segments.
const FRONT: u64 = 4 << 10;
/// How often a store is asked again that says both that an object is there and that it is not.
const ATTEMPTS: u32 = 5;

/// The handle. Clones share what they learned.
#[derive(Clone)]
pub(super) struct RepositoryJournal {
    shared: Arc<Shared>,
    name: JournalName,
    options: JournalOptions,
    /// Timelines that are known to have been begun.
    begun: Arc<Mutex<HashSet<TimelineId>>>,
}

impl RepositoryJournal {
    pub(super) fn new(shared: Arc<Shared>, name: JournalName, options: JournalOptions) -> Self {
        Self { shared, name, options, begun: Arc::default() }
    }

    fn id(&self, timeline: &Timeline) -> Result<TimelineId> {
        TimelineId::new(&self.shared.keys, &self.name, timeline)
    }

    fn words(&self, what: &impl std::fmt::Display) -> String {
        format!("{} {what}", self.name)
    }

    /// Where a segment or a gap is, and which object that is.
    fn locate(&self, place: &Place) -> Result<(String, Identity)> {
        let id = self.id(&place.timeline)?;
        let identity = Identity { kind: place.kind.into(), id, span: Some(place.span) };
        Ok((id.segment(place.span, place.kind), identity))
    }

    /// Whether a timeline was begun, as far as that is told without opening anything.
    async fn is_begun(&self, timeline: &Timeline) -> Result<bool> {
        let id = self.id(timeline)?;
        if self.begun.lock().contains(&id) {
            return Ok(true);
        }
        let name = timeline_record(&id.folder());
        let identity = Identity { kind: Kind::Timeline, id, span: None };
        let found = read_header(&self.shared, &name, &identity).await?.is_some();
        if found {
            self.begun.lock().insert(id);
        }
        Ok(found)
    }

    /// Refuses to append to a timeline of which nobody could tell where it comes from.
    async fn check_begun(&self, timeline: &Timeline) -> Result<()> {
        match self.is_begun(timeline).await? {
            true => Ok(()),
            false => Err(Error::NoSuchTimeline { timeline: self.words(timeline) }),
        }
    }

    /// Seals and stores an object, unless it is there.
    async fn put(
        &self,
        what: String,
        (name, identity): (String, Identity),
        record: Record,
        frames: Vec<(crate::chunk::Encoding, Vec<u8>)>,
    ) -> Result<Appended> {
        let shared = Arc::clone(&self.shared);
        let work = move || seal(&shared.keys, &identity, record, frames);
        let sealed = self.shared.pool.run("seal a segment", work).await??;
        let looks = self.options.exclusivity == Exclusivity::LookFirst;
        if self.shared.features().has_weak_puts() && !looks {
            return Err(Error::NotExclusive { what });
        }
        if looks && let Some(header) = read_header(&self.shared, &name, &identity).await? {
            return judge(&header, &sealed, what);
        }
        let mut attempt = 1;
        loop {
            let put = self.shared.objects.put_if_absent(&name, sealed.payload.clone()).await;
            let error = match put {
                Ok(Some(true)) => return Ok(Appended::New),
                Ok(Some(false)) => None,
                Ok(None) if looks => {
                    self.shared.objects.replace(&name, sealed.payload.clone()).await?;
                    return Ok(Appended::New);
                }
                Ok(None) => return Err(Error::NotExclusive { what }),
                Err(error) => Some(error),
            };
            // "It exists already" may be the echo of our own request, tried again below us after
            // its answer was lost; and after any other error the object may exist all the same.
            match (read_header(&self.shared, &name, &identity).await, error) {
                (Ok(Some(header)), _) => return judge(&header, &sealed, what),
                (Ok(None) | Err(_), Some(error)) => return Err(error),
                (Err(error), None) => return Err(error),
                // Two requests met, and the other one was not done when ours was refused.
                (Ok(None), None) if attempt < ATTEMPTS => {
                    tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
                    attempt += 1;
                }
                (Ok(None), None) => return Err(Error::Conflict { object: name }),
            }
        }
    }
}

/// What it means that an object is there already.
fn judge(stored: &Header, own: &Sealed, what: String) -> Result<Appended> {
    if stored.salt == own.salt {
        Ok(Appended::New)
    } else if stored.tag == own.tag {
        Ok(Appended::Same)
    } else {
        Err(Error::SegmentConflict { segment: what })
    }
}

/// The header of an object that is meant to be `identity`; `None` when the store says that it does
/// not exist. What cannot be checked here is only what sealing protects.
async fn read_header(shared: &Shared, name: &str, identity: &Identity) -> Result<Option<Header>> {
    let Some((bytes, size)) = shared.objects.front(name, HEADER as u64).await? else {
        return Ok(None);
    };
    let header = Header::parse(&shared.keys, name, size, &bytes)?;
    header.expect(name, identity)?;
    Ok(Some(header))
}

/// The header and the record of an object that is meant to be `identity`.
pub(super) async fn read_record(
    shared: &Shared,
    name: &str,
    identity: &Identity,
) -> Result<Option<(Header, Record)>> {
    let Some((header, record)) = read_front(shared, name).await? else {
        return Ok(None);
    };
    header.expect(name, identity)?;
    Ok(Some((header, record)))
}

/// The record of an object of which only the kind is known.
pub(super) async fn read_any(shared: &Shared, name: &str, kind: Kind) -> Result<Option<Record>> {
    let Some((header, record)) = read_front(shared, name).await? else {
        return Ok(None);
    };
    let identity = header.identity(name)?;
    if identity.kind != kind || timeline_record(&identity.id.folder()) != name {
        return Err(Error::damaged(name, "it is another object than its name says"));
    }
    Ok(Some(record))
}

async fn read_front(shared: &Shared, name: &str) -> Result<Option<(Header, Record)>> {
    let Some((mut bytes, size)) = shared.objects.front(name, FRONT).await? else {
        return Ok(None);
    };
    let header = Header::parse(&shared.keys, name, size, &bytes)?;
    if header.first_frame() > bytes.len() as u64 {
        bytes = shared.objects.range(name, 0..header.first_frame()).await?;
    }
    let open = || open_record(&shared.keys, name, &header, &bytes[HEADER..]);
    let record = shared.renewing(name, open).await?;
    Ok(Some((header, record)))
}

#[async_trait]
impl JournalLog for RepositoryJournal {
    fn name(&self) -> &JournalName {
        &self.name
    }

    async fn begin(&self, timeline: &TimelineInfo) -> lifeboat_core::Result<Appended> {
        self.shared.features().may_write()?;
        let id = self.id(&timeline.timeline)?;
        let record = Record::timeline(&self.name, timeline)?;
        let object = timeline_record(&id.folder());
        let identity = Identity { kind: Kind::Timeline, id, span: None };
        let what = self.words(&timeline.timeline);
        let appended = self.put(what, (object, identity), record, Vec::new()).await?;
        self.begun.lock().insert(id);
        Ok(appended)
    }

    async fn timeline(&self, timeline: &Timeline) -> lifeboat_core::Result<Option<TimelineInfo>> {
        let id = self.id(timeline)?;
        let name = timeline_record(&id.folder());
        let identity = Identity { kind: Kind::Timeline, id, span: None };
        let found = read_record(&self.shared, &name, &identity).await?;
        Ok(found.map(|(_, record)| record.to_timeline(&name)).transpose()?)
    }

    async fn timelines(&self) -> lifeboat_core::Result<Vec<TimelineInfo>> {
        let Shared { objects, keys, .. } = &*self.shared;
        let folders = objects.folders(&journal_folder(keys, &self.name)?).await?;
        let mut found: Vec<_> = stream::iter(folders)
            .map(async |folder| {
                let name = timeline_record(&folder);
                let record = read_any(&self.shared, &name, Kind::Timeline).await?;
                let record = record.ok_or_else(|| Error::damaged(&name, "it is missing"))?;
                record.to_timeline(&name)
            })
            .buffer_unordered(FETCHES)
            .try_collect()
            .await?;
        found.sort_by(|a, b| a.timeline.cmp(&b.timeline));
        Ok(found)
    }

    async fn append(
        &self,
        timeline: &Timeline,
        span: Span,
        info: &SegmentInfo,
        content: Content,
    ) -> lifeboat_core::Result<Appended> {
        self.shared.features().may_write()?;
        self.check_begun(timeline).await?;
        let level = self.options.compression.level();
        let gathered = gather(&self.shared.pool, content, level).await?;
        let place = Place::sealed(timeline, span);
        let mut record = Record::segment(&self.name, timeline, info);
        (record.size, record.digest) = (gathered.size, gathered.digest);
        let located = self.locate(&place)?;
        Ok(self.put(self.words(&place), located, record, gathered.frames).await?)
    }

    async fn record_gap(
        &self,
        timeline: &Timeline,
        span: Span,
        reason: &str,
        at: Timestamp,
    ) -> lifeboat_core::Result<Appended> {
        self.shared.features().may_write()?;
        self.check_begun(timeline).await?;
        let place = Place::gap(timeline, span);
        let record = Record::gap(&self.name, timeline, reason, at);
        let located = self.locate(&place)?;
        Ok(self.put(self.words(&place), located, record, Vec::new()).await?)
    }

    async fn segment(&self, place: &Place) -> lifeboat_core::Result<Option<Segment>> {
        let (name, identity) = self.locate(place)?;
        let found = read_record(&self.shared, &name, &identity).await?;
        Ok(found.map(|(_, record)| record.to_segment(place.clone())))
    }

    async fn has_begun(&self, timeline: &Timeline) -> lifeboat_core::Result<bool> {
        Ok(self.is_begun(timeline).await?)
    }

    async fn has(&self, place: &Place) -> lifeboat_core::Result<bool> {
        let (name, identity) = self.locate(place)?;
        Ok(read_header(&self.shared, &name, &identity).await?.is_some())
    }

    async fn read(&self, place: &Place) -> lifeboat_core::Result<Option<Content>> {
        let (name, identity) = self.locate(place)?;
        match read_record(&self.shared, &name, &identity).await? {
            Some((header, record)) => Ok(Some(content(&self.shared, &name, header, &record)?)),
            None => Ok(None),
        }
    }

    async fn list(
        &self,
        timeline: &Timeline,
        within: Span,
    ) -> lifeboat_core::Result<Vec<ListedSegment>> {
        let mut found: Vec<_> = self
            .shared
            .objects
            .list(&self.id(timeline)?.folder())
            .try_filter_map(async |listed| {
                let parsed = parse(&listed.name);
                let inside = parsed.filter(|(span, _)| span.intersect(&within).is_some());
                Ok(inside.map(|(span, kind)| ListedSegment {
                    place: Place { timeline: timeline.clone(), span, kind },
                    stored: listed.size,
                }))
            })
            .try_collect()
            .await?;
        found.sort();
        Ok(found)
    }

    async fn trim(&self, needs: &[Need], mode: Trim) -> lifeboat_core::Result<Vec<ListedSegment>> {
        if mode == Trim::Delete {
            self.shared.refresh_features().await?.may_delete()?;
        }
        let timelines = self.timelines().await?;
        let mut segments = Vec::new();
        for info in &timelines {
            segments.extend(self.list(&info.timeline, Span::ALL).await?);
        }
        let gone = removable(&timelines, &segments, needs)?;
        if mode == Trim::Delete {
            let located = gone.iter().map(|one| Ok(self.locate(&one.place)?.0));
            let names = located.collect::<Result<Vec<_>>>()?;
            stream::iter(names)
                .map(async |name| self.shared.objects.delete(&name).await)
                .buffered(FETCHES)
                .try_collect::<()>()
                .await?;
        }
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Features;
    use crate::crypto::{KdfCost, Secret};
    use crate::repository::{InitOptions, Repository};
    use lifeboat_core::journal::Position;
    use lifeboat_core::{ErrorKind, StoreRef};

    #[tokio::test]
    async fn what_the_repository_demands_binds_journals_too() {
        let cost = KdfCost { memory_kib: 64, passes: 1, lanes: 1 };
        let options = InitOptions { cost, ..InitOptions::default() };
        let store = Arc::new(object_store::memory::InMemory::new());
        let repository = Repository::init(store, &Secret::passphrase("x"), &options).await.unwrap();
        let name = JournalName::new(StoreRef::new("postgres", "main"), "wal").unwrap();
        let log = repository.journal(&name, &JournalOptions::default());
        let (timeline, info) = (Timeline::new("1").unwrap(), SegmentInfo::default());
        log.begin(&TimelineInfo::first(timeline.clone())).await.unwrap();
        let span = |from, to| Span::new(Position(from), Position(to)).unwrap();
        log.append(&timeline, span(0, 1), &info, Content::bytes("x")).await.unwrap();
        let later = |delete: &[&str], write: &[&str]| {
            let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
            Features { read: Vec::new(), write: words(write), delete: words(delete) }
        };
        repository.shared().demand(&later(&["later"], &[])).await.unwrap();
        let need = [Need { timeline: timeline.clone(), from: Position(1) }];
        let refused = log.trim(&need, Trim::Delete).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        assert_eq!(log.trim(&need, Trim::DryRun).await.unwrap().len(), 1);
        log.append(&timeline, span(1, 2), &info, Content::bytes("y")).await.unwrap();
        repository.shared().demand(&later(&[], &["later"])).await.unwrap();
        let refused = log.append(&timeline, span(2, 3), &info, Content::bytes("z")).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(log.list(&timeline, Span::ALL).await.unwrap().len(), 2);
    }
}
