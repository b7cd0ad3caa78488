//! What was checked, when, and what was found.
//!
//! Every check of packs appends an object to `checks/`. From `checks/verified-<id>` the next check
//! knows which packs were read least recently; from `checks/damaged-<id>` every writer knows which
//! packs it must not rely on, and need not read the others for it. When there are many, they are
//! merged. All of it is advice: where it cannot be read or written, nothing fails.

use std::collections::HashMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use lifeboat_core::Timestamp;
use minicbor::{Decode, Encode};
use object_store::PutPayload;

use crate::crypto::Keys;
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::objects::{CHECKS, Listed, Objects};
use crate::repository::Shared;
use crate::sealed::{SealedKind, open, seal};

/// More objects of one part than this are merged.
const MANY: usize = 16;
/// So many packs are named by one object.
const PACKS: usize = 100_000;
/// How many objects are fetched at once.
const FETCHES: usize = 8;
/// How often a listing is read again because an object of it was merged meanwhile.
const LISTINGS: usize = 3;

/// The content of an object in `checks/`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct LedgerRecord {
    #[n(0)]
    runs: Vec<Run>,
}

/// What one check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Run {
    /// Nanoseconds since 1970 UTC by the store's clock; without it, when the object was written.
    #[n(0)]
    at: Option<i64>,
    /// The ids of packs of which every byte is sound, one after the other.
    #[cbor(n(1), with = "minicbor::bytes")]
    sound: Vec<u8>,
    /// Packs that are damaged, and what is wrong with them.
    #[n(2)]
    damaged: Vec<(ObjectId, String)>,
}

/// Which objects are meant, by the beginning of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Which packs were read, and when.
    Verified,
    /// Which packs are damaged, and which of those are sound again.
    Damaged,
}

impl Part {
    fn prefix(self) -> &'static str {
        match self {
            Self::Verified => "verified-",
            Self::Damaged => "damaged-",
        }
    }

    fn name(self, id: ObjectId) -> String {
        format!("{CHECKS}/{}{id}", self.prefix())
    }

    /// The id in the name of an object of this part.
    pub(crate) fn id_of(self, name: &str) -> Option<ObjectId> {
        let last = name.strip_prefix(CHECKS)?.strip_prefix('/')?;
        let digits = last.strip_prefix(self.prefix())?;
        let lower = !digits.bytes().any(|byte| byte.is_ascii_uppercase());
        ObjectId::from_hex(digits).filter(|_| lower)
    }
}

/// The newest word on a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    at: Timestamp,
    /// What is wrong with it; `None` when it is sound.
    what: Option<String>,
}

/// The objects of one part, read together.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    objects: Vec<String>,
    words: HashMap<ObjectId, Word>,
    /// Objects that cannot be read, and why.
    pub(crate) unreadable: Vec<(String, String)>,
    /// When the last check wrote.
    pub(crate) last: Option<Timestamp>,
}

impl Ledger {
    /// Reads all objects of a part.
    pub(crate) async fn read(objects: &Objects, keys: &Keys, part: Part) -> Result<Self> {
        let mut ledger = Self::default();
        for _ in 0..LISTINGS {
            ledger = Self::default();
            let listed: Vec<_> = objects
                .list(CHECKS)
                .try_filter(|listed| std::future::ready(part.id_of(&listed.name).is_some()))
                .try_collect()
                .await?;
            let read: Vec<_> = stream::iter(listed)
                .map(async |listed: Listed| (read(objects, keys, part, &listed.name).await, listed))
                .buffer_unordered(FETCHES)
                .collect()
                .await;
            let mut merged_meanwhile = false;
            for (result, listed) in read {
                match result {
                    Ok(Some(record)) => ledger.take(record, listed),
                    Ok(None) => merged_meanwhile = true,
                    Err(Error::Damaged { what, .. }) => ledger.unreadable.push((listed.name, what)),
                    Err(error) => return Err(error),
                }
            }
            if !merged_meanwhile {
                break;
            }
        }
        Ok(ledger)
    }

    /// As [`Ledger::read`]. That it cannot be read is no reason not to check, or to write.
    pub(crate) async fn read_or_default(shared: &Shared, part: Part) -> Self {
        Self::read(&shared.objects, &shared.keys, part).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "what checks found cannot be read");
            Self::default()
        })
    }

    fn take(&mut self, record: LedgerRecord, listed: Listed) {
        self.last = self.last.max(Some(listed.modified));
        for run in record.runs {
            let at = run.at.and_then(|at| Timestamp::from_nanosecond(at.into()).ok());
            let at = at.unwrap_or(listed.modified);
            for id in run.sound.as_chunks::<32>().0 {
                self.say(ObjectId::from_bytes(*id), Word { at, what: None });
            }
            for (id, what) in run.damaged {
                self.say(id, Word { at, what: Some(what) });
            }
        }
        self.objects.push(listed.name);
    }

    /// The newest word counts; of two of the same time the one that warns.
    fn say(&mut self, id: ObjectId, word: Word) {
        let known = self.words.get(&id);
        if known
            .is_none_or(|known| (known.at, known.what.is_some()) < (word.at, word.what.is_some()))
        {
            self.words.insert(id, word);
        }
    }

    /// The packs that are damaged, and what is wrong with them.
    pub(crate) fn damaged(&self) -> impl Iterator<Item = (ObjectId, &str)> {
        self.words.iter().filter_map(|(id, word)| Some((*id, word.what.as_deref()?)))
    }

    /// What is wrong with a pack, when that is known.
    pub(crate) fn damage_of(&self, id: &ObjectId) -> Option<&str> {
        self.words.get(id)?.what.as_deref()
    }

    /// When a pack was found sound last.
    pub(crate) fn verified(&self, id: &ObjectId) -> Option<Timestamp> {
        self.words.get(id).filter(|word| word.what.is_none()).map(|word| word.at)
    }

    /// Appends what a check found.
    pub(crate) async fn append(
        objects: &Objects,
        keys: &Keys,
        part: Part,
        sound: &[ObjectId],
        damaged: &[(ObjectId, String)],
    ) -> Result<()> {
        for sound in sound.chunks(PACKS) {
            let run = Run { at: None, sound: joined(sound), damaged: Vec::new() };
            write(objects, keys, part, vec![run]).await?;
        }
        for damaged in damaged.chunks(PACKS / 10) {
            let run = Run { at: None, sound: Vec::new(), damaged: damaged.to_vec() };
            write(objects, keys, part, vec![run]).await?;
        }
        Ok(())
    }

    /// Merges the objects where there are many. `stays` says which packs are still of interest.
    ///
    /// Beside another one that does the same, words may be lost that warn of nothing; then a pack
    /// is read once more than it had to be.
    pub(crate) async fn merge(
        &self,
        objects: &Objects,
        keys: &Keys,
        part: Part,
        stays: impl Fn(&ObjectId) -> bool,
    ) -> Result<()> {
        if self.objects.len() <= MANY {
            return Ok(());
        }
        let mut words: Vec<_> = self.words.iter().filter(|(id, _)| stays(id)).collect();
        // That a pack is sound again is news only beside the word that it is damaged.
        words.retain(|(_, word)| part == Part::Verified || word.what.is_some());
        words.sort_by_key(|(id, word)| (word.at, **id));
        let mut written = Vec::new();
        for part_of_words in words.chunks(PACKS / 10) {
            let mut runs: Vec<Run> = Vec::new();
            for same in part_of_words.chunk_by(|(_, a), (_, b)| a.at == b.at) {
                let at = i64::try_from(same[0].1.at.as_nanosecond()).unwrap_or(i64::MAX);
                let mut run = Run { at: Some(at), ..Run::default() };
                for (id, word) in same {
                    match &word.what {
                        None => run.sound.extend_from_slice(id.as_bytes()),
                        Some(what) => run.damaged.push((**id, what.clone())),
                    }
                }
                runs.push(run);
            }
            written.push(write(objects, keys, part, runs).await?);
        }
        for name in self.objects.iter().filter(|name| !written.contains(name)) {
            objects.delete_if_allowed(name).await?;
        }
        Ok(())
    }
}

fn joined(ids: &[ObjectId]) -> Vec<u8> {
    ids.iter().flat_map(ObjectId::as_bytes).copied().collect()
}

async fn write(objects: &Objects, keys: &Keys, part: Part, runs: Vec<Run>) -> Result<String> {
    let (id, bytes) = seal(keys, SealedKind::Check, &LedgerRecord { runs })?;
    let name = part.name(id);
    objects.create(&name, PutPayload::from(bytes)).await?;
    Ok(name)
}

async fn read(
    objects: &Objects,
    keys: &Keys,
    part: Part,
    name: &str,
) -> Result<Option<LedgerRecord>> {
    let Some(bytes) = objects.read(name, SealedKind::Check.limit()).await? else {
        return Ok(None);
    };
    if part.id_of(name) != Some(ObjectId::of(&bytes)) {
        return Err(Error::damaged(name, "its content does not match its name"));
    }
    open(keys, SealedKind::Check, name, &bytes).map(Some)
}

/// What a holder of the key with a faulty program may have written, for the fuzz targets.
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use super::{Ledger, LedgerRecord, Run, joined};
    use crate::fuzzing::{Outcome, encoded, unsealed};
    use crate::id::ObjectId;
    use crate::objects::Listed;
    use crate::sealed::SealedKind;
    use lifeboat_core::Timestamp;

    pub(crate) fn seeds() -> Vec<Vec<u8>> {
        let (one, two) = (ObjectId::of(b"one"), ObjectId::of(b"two"));
        let sound = Run { at: Some(5), sound: joined(&[one, two]), damaged: Vec::new() };
        let damaged = Run { at: None, sound: Vec::new(), damaged: vec![(two, "cut".to_owned())] };
        encoded(&[LedgerRecord::default(), LedgerRecord { runs: vec![sound, damaged] }])
    }

    pub(crate) fn ledger(bytes: &[u8]) -> Outcome {
        let record: LedgerRecord =
            unsealed(SealedKind::Check, bytes).map_err(|error| error.to_string())?;
        let modified = Timestamp::UNIX_EPOCH;
        let mut ledger = Ledger::default();
        ledger.take(record, Listed { name: "checks/one".to_owned(), size: 0, modified });
        let words = ledger.words.len();
        if words > bytes.len() { Err("more packs than bytes".to_owned()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RootKey;
    use crate::id::RepositoryId;
    use object_store::memory::InMemory;
    use std::sync::Arc;

    fn pack(byte: u8) -> ObjectId {
        ObjectId::from_bytes([byte; 32])
    }

    #[tokio::test]
    async fn the_last_word_counts_and_merging_changes_nothing() {
        let objects = Objects::new(Arc::new(InMemory::new()));
        let keys = Keys::derive(&RootKey::fixed(1), RepositoryId::from_bytes([1; 16]));
        let damaged = |byte| [(pack(byte), "torn".to_owned())];
        let say = async |sound: &[ObjectId], damaged: &[(ObjectId, String)]| {
            Ledger::append(&objects, &keys, Part::Damaged, sound, damaged).await.unwrap();
        };
        say(&[], &damaged(1)).await;
        say(&[], &damaged(2)).await;
        say(&[pack(2)], &[]).await;
        for _ in 0..MANY {
            say(&[], &damaged(3)).await;
        }
        objects.replace(&Part::Damaged.name(pack(9)), "nonsense".into()).await.unwrap();
        objects.replace("checks/foreign", "nonsense".into()).await.unwrap();
        let read = async || Ledger::read(&objects, &keys, Part::Damaged).await.unwrap();
        let told = |ledger: &Ledger| {
            let mut told: Vec<_> = ledger.damaged().map(|(id, _)| id).collect();
            told.sort();
            told
        };
        let ledger = read().await;
        assert_eq!((told(&ledger), ledger.unreadable.len()), (vec![pack(1), pack(3)], 1));
        assert_eq!((ledger.damage_of(&pack(1)), ledger.damage_of(&pack(2))), (Some("torn"), None));
        ledger.merge(&objects, &keys, Part::Damaged, |id| *id != pack(3)).await.unwrap();
        let merged = read().await;
        assert_eq!((told(&merged), merged.objects.len()), (vec![pack(1)], 1));
        assert_eq!(merged.words[&pack(1)], ledger.words[&pack(1)]);
        // The other part is another matter.
        let other = Ledger::read(&objects, &keys, Part::Verified).await.unwrap();
        assert!(other.words.is_empty() && other.last.is_none());
    }
}
