//! A snapshot and its copies as one source: what one repository cannot give, another one does.
//!
//! Copies of one snapshot have the same entries with the same bytes, however each repository cut
//! and named them. So when an entry's content, or a page of the tree, cannot be read in one of
//! them, the reading goes on at the same place in another. Nothing is read twice, and bytes that
//! were delivered stay as good as they were: each was authenticated where it came from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use futures_util::stream;
use lifeboat_core::{
    Baseline, Completion, Content, Context, Entry, EntryInfo, EntryPath, ErrorKind, Extent,
    Inspection, Reading, Source, StoreRef,
};

use super::source::{Selection, SnapshotSource, contains, decode, read_range};
use crate::error::{Error, Result};
use crate::snapshot::Snapshot;
use crate::tree::{EntryRecord, TreeCursor};

/// A snapshot and its copies in other repositories. Clones share the counts.
#[derive(Clone, Debug)]
pub struct SnapshotCopies(Arc<Members>);

#[derive(Debug, Default)]
struct Members(Vec<Member>);

/// One of the copies; the first is asked first.
#[derive(Debug)]
struct Member {
    place: String,
    snapshot: Snapshot,
    /// Its store did not answer: it is asked only when no other one can help.
    down: AtomicBool,
    served: AtomicU64,
}

impl Member {
    fn new(place: String, snapshot: Snapshot) -> Self {
        Self { place, snapshot, down: AtomicBool::new(false), served: AtomicU64::new(0) }
    }
}

impl SnapshotCopies {
    /// The snapshots, each with what its place is called in messages. They are asked in this order.
    ///
    /// # Errors
    /// When there is none, or they are not copies of one and the same snapshot.
    pub fn new(copies: impl IntoIterator<Item = (String, Snapshot)>) -> Result<Self> {
        let members: Vec<_> =
            copies.into_iter().map(|(place, snapshot)| Member::new(place, snapshot)).collect();
        let Some((first, others)) = members.split_first() else {
            return Err(Error::NoSuchSnapshot { name: String::new() });
        };
        for other in others {
            let (a, b) = (first.snapshot.info(), other.snapshot.info());
            let same = first.snapshot.origin() == other.snapshot.origin()
                && (&a.store, a.taken) == (&b.store, b.taken)
                && (a.entries, a.bytes) == (b.entries, b.bytes);
            if !same {
                let (snapshot, original) = (b.id.short(), a.id.short());
                return Err(Error::NotACopy { snapshot, original });
            }
        }
        Ok(Self(Arc::new(Members(members))))
    }

    /// All of them as one source, to be moved into a sink.
    ///
    /// What was read from another place than the first is told by
    /// [`Context::note`]: nothing is missing because of it.
    pub fn source(&self, selection: &Selection) -> impl Source + use<> {
        CopiesSource { members: Arc::clone(&self.0), selection: selection.clone() }
    }

    /// How many bytes of content each place gave so far.
    pub fn served(&self) -> Vec<(&str, u64)> {
        let served = |member: &Member| member.served.load(Ordering::Relaxed);
        self.0.0.iter().map(|member| (member.place.as_str(), served(member))).collect()
    }
}

impl Members {
    fn first(&self) -> &Snapshot {
        // There is one at least.
        &self.0[0].snapshot
    }

    /// The next one to ask, when these were asked in vain.
    fn next(&self, tried: &[usize]) -> Option<usize> {
        let left = || (0..self.0.len()).filter(|at| !tried.contains(at));
        left().find(|at| !self.0[*at].down.load(Ordering::Relaxed)).or_else(|| left().next())
    }

    /// Takes note of a failure, and says whether it is the first of its kind to be told.
    fn failed(&self, at: usize, error: &lifeboat_core::Error) -> bool {
        let is_down = error.kind() == ErrorKind::Unavailable;
        !(is_down && self.0[at].down.swap(true, Ordering::Relaxed))
    }
}

/// Asks one member after the other for the same thing.
struct Attempts {
    members: Arc<Members>,
    context: Context,
    tried: Vec<usize>,
    first: Option<lifeboat_core::Error>,
    /// What is to be told once another one has helped.
    untold: Vec<String>,
}

impl Attempts {
    fn new(members: Arc<Members>, context: Context) -> Self {
        Self { members, context, tried: Vec::new(), first: None, untold: Vec::new() }
    }

    /// After a failure of `at`: which one to ask now.
    ///
    /// # Errors
    /// The first one, when all have failed; at once, when the work was cancelled.
    fn after(&mut self, at: usize, error: lifeboat_core::Error) -> lifeboat_core::Result<usize> {
        if error.kind() == ErrorKind::Cancelled {
            return Err(error);
        }
        if self.members.failed(at, &error) {
            self.untold.push(format!("{}: {}", self.members.0[at].place, error.one_line()));
        }
        self.tried.push(at);
        let next = self.members.next(&self.tried);
        match (next, self.first.take()) {
            (Some(next), first) => {
                self.first = Some(first.unwrap_or(error));
                Ok(next)
            }
            (None, first) => Err(first.unwrap_or(error)),
        }
    }

    /// `at` has given what was asked for.
    fn helped(&mut self, at: usize, subject: &str) {
        self.tried.clear();
        self.first = None;
        for why in self.untold.drain(..) {
            let place = &self.members.0[at].place;
            self.context.note(subject, format!("it comes from {place}, since {why}"));
        }
    }
}

struct CopiesSource {
    members: Arc<Members>,
    selection: Selection,
}

#[async_trait]
impl Source for CopiesSource {
    fn store(&self) -> &StoreRef {
        &self.members.first().info().store
    }

    async fn inspect(&self) -> lifeboat_core::Result<Inspection> {
        SnapshotSource::new(self.members.first().clone(), self.selection.clone(), None)
            .inspect()
            .await
    }

    async fn read(
        &self,
        _: Option<Arc<dyn Baseline>>,
        context: &Context,
    ) -> lifeboat_core::Result<Box<dyn Reading>> {
        let info = self.members.first().info();
        if self.selection.paths.is_empty() {
            context.expect(info.bytes);
        }
        for path in &self.selection.paths {
            let mut attempts = Attempts::new(Arc::clone(&self.members), context.clone());
            let mut at = self.members.next(&[]).unwrap_or_default();
            let found = loop {
                match contains(&self.members.0[at].snapshot, path).await {
                    Ok(found) => break found,
                    Err(error) => at = attempts.after(at, error.into())?,
                }
            };
            attempts.helped(at, &path.to_string());
            if !found {
                let (path, snapshot) = (path.to_string(), info.id.short());
                return Err(Error::NoSuchEntry { path, snapshot }.into());
            }
        }
        let at = self.members.next(&[]).unwrap_or_default();
        Ok(Box::new(CopiesReading {
            entries: self.members.0[at].snapshot.tree().entries(None),
            at,
            attempts: Attempts::new(Arc::clone(&self.members), context.clone()),
            members: Arc::clone(&self.members),
            last: None,
            selection: self.selection.clone(),
            context: context.clone(),
        }))
    }
}

struct CopiesReading {
    members: Arc<Members>,
    /// Whose tree is gone through.
    at: usize,
    entries: TreeCursor,
    attempts: Attempts,
    last: Option<EntryPath>,
    selection: Selection,
    context: Context,
}

impl CopiesReading {
    /// The next entry of the tree, whichever copy tells it.
    async fn entry(&mut self) -> lifeboat_core::Result<Option<(EntryRecord, EntryInfo)>> {
        loop {
            let found = match self.entries.next().await {
                Ok(None) => return Ok(None),
                Ok(Some(record)) => decode(&record).map(|info| (record, info)),
                Err(error) => Err(error),
            };
            match found {
                // After a change of trees, the last entry comes once more.
                Ok((_, info)) if self.last.as_ref() == Some(&info.path) => {}
                Ok((record, info)) => {
                    self.attempts.helped(self.at, "the list of entries");
                    self.last = Some(info.path.clone());
                    return Ok(Some((record, info)));
                }
                Err(error) => {
                    self.at = self.attempts.after(self.at, error.into())?;
                    let tree = self.members.0[self.at].snapshot.tree();
                    self.entries = tree.entries(self.last.clone());
                }
            }
        }
    }
}

#[async_trait]
impl Reading for CopiesReading {
    async fn next(&mut self) -> lifeboat_core::Result<Option<Entry>> {
        while let Some((record, info)) = self.entry().await? {
            if !self.selection.selects(&info.path) {
                continue;
            }
            let content = if info.size == 0 && record.content.list.len() == 0 {
                Content::empty()
            } else {
                Assembly::content(&self.members, &info, (self.at, record), &self.context)
            };
            let entry = Entry::new(info.path, info.kind, info.attributes);
            return Ok(Some(entry.with_layout(info.layout).with_content(info.size, content)));
        }
        Ok(None)
    }

    async fn finish(self: Box<Self>) -> lifeboat_core::Result<Completion> {
        let info = self.members.first().info();
        Ok(Completion {
            taken: info.taken,
            position: info.position.clone(),
            facts: info.facts.clone(),
        })
    }
}

/// The content of one entry, put together from whoever has it.
struct Assembly {
    members: Arc<Members>,
    attempts: Attempts,
    info: EntryInfo,
    /// The entry as one of them has it.
    known: (usize, EntryRecord),
    current: Option<Content>,
    at: usize,
    done: u64,
    context: Context,
}

impl Assembly {
    fn content(
        members: &Arc<Members>,
        info: &EntryInfo,
        known: (usize, EntryRecord),
        context: &Context,
    ) -> Content {
        let assembly = Self {
            members: Arc::clone(members),
            attempts: Attempts::new(Arc::clone(members), context.clone()),
            info: info.clone(),
            known,
            current: None,
            at: members.next(&[]).unwrap_or_default(),
            done: 0,
            context: context.clone(),
        };
        Content::stream(stream::unfold(Some(assembly), |assembly| async move {
            let mut assembly = assembly?;
            match assembly.next().await {
                Ok(None) => None,
                Ok(Some(extent)) => Some((Ok(extent), Some(assembly))),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }

    async fn next(&mut self) -> lifeboat_core::Result<Option<Extent>> {
        loop {
            match self.extent().await {
                Ok(Some(extent)) => {
                    let member = &self.members.0[self.at];
                    member.served.fetch_add(extent.len(), Ordering::Relaxed);
                    self.done += extent.len();
                    self.context.count_read(extent.len());
                    self.attempts.helped(self.at, &self.info.path.to_string());
                    return Ok(Some(extent));
                }
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.current = None;
                    self.at = self.attempts.after(self.at, error)?;
                }
            }
        }
    }

    async fn extent(&mut self) -> lifeboat_core::Result<Option<Extent>> {
        if self.current.is_none() {
            self.current = Some(self.open().await?);
        }
        match &mut self.current {
            Some(content) => content.next().await,
            None => Ok(None),
        }
    }

    /// The content from where it is needed, of the one that is asked now.
    async fn open(&mut self) -> Result<Content> {
        let snapshot = &self.members.0[self.at].snapshot;
        let path = &self.info.path;
        let record = if self.known.0 == self.at {
            self.known.1.clone()
        } else {
            let found = snapshot.tree().get(path).await?;
            let found = found
                .ok_or_else(|| Error::damaged(path.to_string(), "the copy does not have it"))?;
            EntryRecord::clone(&found)
        };
        if decode(&record)? != self.info {
            return Err(Error::damaged(path.to_string(), "the copy says other things of it"));
        }
        let chunks = Arc::clone(snapshot.chunks());
        // What is fetched ahead may never be delivered: it is counted when it is.
        let (size, silent) = (self.info.size, Context::silent());
        Ok(read_range(chunks, &record.content, size, self.done..size, silent))
    }
}
