//! What the packs say of themselves, to whoever has no key.

use std::sync::Arc;

use futures_util::TryStreamExt;
use lifeboat_core::Context;
use object_store::ObjectStore;

use crate::config::{self, Config};
use crate::error::{Error, Result};
use crate::objects::{Objects, PACKS, id_of, pack_name};
use crate::pack::read_directory;

/// How many packs are asked at once.
const AT_ONCE: usize = 16;

/// What an index can be made from again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackSurvey {
    /// Packs that say what is in them.
    pub packs: u64,
    /// The chunks in them; one that is in several packs counts for each.
    pub chunks: u64,
    /// The bytes of these packs.
    pub bytes: u64,
    /// Packs that cannot say what is in them, and why.
    pub unreadable: Vec<(String, String)>,
}

/// Reads what all packs say of themselves, a few KiB of each, without a key: from how much of a
/// repository an index could be made again.
///
/// It looks at structure only. Whether a directory was written by somebody with the key, and an
/// index object, which is sealed, takes the key: `lifeboat repair index`.
///
/// # Errors
/// When the store cannot be read, or there is no repository.
pub async fn survey_without_key(
    store: Arc<dyn ObjectStore>,
    context: &Context,
) -> Result<PackSurvey> {
    let objects = Objects::new(store);
    let config = objects.read(config::NAME, config::MAX_SIZE).await?;
    let repository = Config::parse(&config.ok_or(Error::NotARepository)?)?.id;
    context.phase("read the directories of packs");
    let packs = objects.list(PACKS);
    let packs =
        packs.try_filter_map(async |listed| Ok(id_of(&listed.name).map(|id| (id, listed.size))));
    let read = packs
        .map_ok(|(id, size)| {
            let objects = &objects;
            async move { Ok((id, size, read_directory(objects, id, size).await)) }
        })
        .try_buffer_unordered(AT_ONCE);
    let mut read = std::pin::pin!(read);
    let mut survey = PackSurvey::default();
    while let Some((id, size, result)) = read.try_next().await? {
        context.check()?;
        match result {
            Ok((record, _)) if record.header.repository != repository => {
                let what = "it belongs to another repository".to_owned();
                survey.unreadable.push((pack_name(id), what));
            }
            Ok((record, _)) => {
                survey.packs += 1;
                survey.chunks += record.chunks.len() as u64;
                survey.bytes += size;
            }
            Err(Error::Damaged { what, .. }) => survey.unreadable.push((pack_name(id), what)),
            Err(error) => return Err(error),
        }
    }
    survey.unreadable.sort();
    Ok(survey)
}
