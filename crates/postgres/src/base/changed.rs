//! Changed pages on their way into a snapshot.

use bytes::Bytes;
use lifeboat_core::{Content, EntryInfo, Extent};

use super::changes::Changes;
use super::error::{BaseBackupError, Result};
use super::files::{Changed, entry_of};
use super::member::Archive;
use super::pump::{Item, Pump, bad};

impl Pump {
    /// A piece of a file of changes that is larger than a piece.
    pub(super) async fn changed_piece(
        &mut self,
        changed: &mut Changed,
        size: u64,
        mut bytes: Bytes,
    ) -> Result<()> {
        self.context.count_read(bytes.len() as u64);
        if changed.begun.is_none() {
            let begun = self.begin_changes(changed, size, &mut bytes)?;
            changed.info.size = begun.size();
            self.give(Item::Begin(entry_of(changed.info.clone()))).await?;
            changed.begun = Some(begun);
        }
        let extents = self.extents(changed, bytes, End::Follows).await?;
        for extent in extents {
            self.give(Item::Extent(extent)).await?;
        }
        Ok(())
    }

    /// All of a file of changes is there; `bytes` is what was not given as a piece.
    pub(super) async fn changed_end(
        &mut self,
        mut changed: Changed,
        size: u64,
        mut bytes: Bytes,
    ) -> Result<()> {
        if changed.begun.is_some() {
            for extent in self.extents(&mut changed, bytes, End::Here).await? {
                self.give(Item::Extent(extent)).await?;
            }
            return self.give(Item::End).await;
        }
        self.context.count_read(bytes.len() as u64);
        let begun = self.begin_changes(&changed, size, &mut bytes)?;
        changed.info.size = begun.size();
        changed.begun = Some(begun);
        let extents = self.extents(&mut changed, bytes, End::Here).await?;
        let size = changed.info.size;
        let entry = entry_of(changed.info).with_content(size, Content::extents(extents));
        self.give(Item::Entry(entry)).await
    }

    fn begin_changes(&self, changed: &Changed, size: u64, bytes: &mut Bytes) -> Result<Changes> {
        let (page, in_file) = (self.about.page_size, self.about.relation_segment_pages);
        Changes::begin(bytes, size, page, in_file, changed.former)
            .map_err(|why| misunderstood(&changed.info, &why))
    }

    async fn extents(
        &mut self,
        changed: &mut Changed,
        bytes: Bytes,
        end: End,
    ) -> Result<Vec<Extent>> {
        let Changed { info, pages, begun: Some(changes), .. } = changed else {
            return Err(BaseBackupError::Unfinished);
        };
        if self.verify {
            let page = self.about.page_size;
            let sent = bytes.chunks(page as usize).zip(changes.upcoming());
            let damaged: Vec<u32> = sent
                .flat_map(|(bytes, number)| {
                    let offset = u64::from(number) * u64::from(page);
                    pages.damaged_before(bytes, offset, self.begun.start)
                })
                .collect();
            self.damage.report(&info.path, pages, &damaged, &self.context).await;
        }
        let mut extents = Vec::new();
        let mut fed = changes.feed(bytes, &mut extents);
        if end == End::Here {
            fed = fed.and_then(|()| changes.finish(&mut extents));
        }
        fed.map_err(|why| misunderstood(info, &why))?;
        let kept = extents.iter().map(|extent| match extent {
            Extent::Unchanged(length) => *length,
            Extent::Data(_) | Extent::Hole(_) => 0,
        });
        self.context.count_unchanged(kept.sum());
        Ok(extents)
    }
}

/// Whether a file ends with what has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Follows,
    Here,
}

fn misunderstood(info: &EntryInfo, why: &str) -> BaseBackupError {
    bad(&Archive::Base, format!("the changes of {}: {why}", info.path))
}
