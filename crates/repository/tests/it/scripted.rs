//! A source that gives just the extents it was told to give.

use std::sync::Arc;

use lifeboat_core::{
    Attributes, Baseline, Completion, Content, Context, Entry, EntryKind, EntryPath, Extent,
    Inspection, Layout, Reading, Result, Source, StoreRef, Timestamp, async_trait,
};

/// A file of the source.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) path: EntryPath,
    pub(crate) attributes: Attributes,
    pub(crate) layout: Layout,
    pub(crate) extents: Vec<Extent>,
}

/// The source.
#[derive(Debug)]
pub(crate) struct Scripted {
    store: StoreRef,
    files: Vec<File>,
}

impl Scripted {
    pub(crate) fn new(name: &str) -> Self {
        Self { store: StoreRef::new("scripted", name), files: Vec::new() }
    }

    /// Adds a file, which must come after those before.
    pub(crate) fn file(self, path: &str, layout: Layout, extents: Vec<Extent>) -> Self {
        let path = crate::common::path(path);
        self.with(File { path, attributes: Attributes::new(), layout, extents })
    }

    pub(crate) fn with(mut self, file: File) -> Self {
        self.files.push(file);
        self
    }
}

#[async_trait]
impl Source for Scripted {
    fn store(&self) -> &StoreRef {
        &self.store
    }

    async fn inspect(&self) -> Result<Inspection> {
        Ok(Inspection::default())
    }

    async fn read(&self, _: Option<Arc<dyn Baseline>>, _: &Context) -> Result<Box<dyn Reading>> {
        Ok(Box::new(ScriptedReading(self.files.clone().into_iter())))
    }
}

struct ScriptedReading(std::vec::IntoIter<File>);

#[async_trait]
impl Reading for ScriptedReading {
    async fn next(&mut self) -> Result<Option<Entry>> {
        let Some(File { path, attributes, layout, extents }) = self.0.next() else {
            return Ok(None);
        };
        let size = extents.iter().map(Extent::len).sum();
        // Whole at hand when there is one extent only, as real sources do.
        let content = if extents.len() < 2 {
            Content::extents(extents)
        } else {
            Content::stream(futures_util::stream::iter(extents.into_iter().map(Ok)))
        };
        let entry = Entry::new(path, EntryKind::File, attributes).with_content(size, content);
        Ok(Some(entry.with_layout(layout)))
    }

    async fn finish(self: Box<Self>) -> Result<Completion> {
        Ok(Completion::at(Timestamp::now()))
    }
}
