//! Which packs a write may rely on: those that are there, whole as far as anybody knows.
//!
//! What the index says of a pack that is missing, of another size, or damaged as a check found, is
//! not relied on. So a backup stores again whatever of it is still in the store that is backed up,
//! and snapshots that were hurt are whole again: who reads tries every copy of a chunk.

use futures_util::TryStreamExt;
use lifeboat_core::Context;

use crate::check::{Ledger, Part};
use crate::error::Result;
use crate::id::ObjectId;
use crate::objects::{PACKS, id_of};
use crate::repository::Shared;

/// More packs than this are listed only by a write that reads everything anyway: it would take
/// longer than most backups.
const MOST: usize = 50_000;

/// How thorough the look is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thoroughness {
    /// The packs are listed unless they are very many.
    Usual,
    /// They are listed in any case.
    Full,
}

/// Finds the packs on which nothing new may rely. The index must have been read before.
pub(super) async fn take(
    shared: &Shared,
    thoroughness: Thoroughness,
    context: &Context,
) -> Result<()> {
    let mut known = shared.index.packs();
    let ledger = Ledger::read_or_default(shared, Part::Damaged).await;
    let mut lost: Vec<_> = ledger.damaged().map(|(id, _)| id).collect();
    lost.retain(|id| known.contains_key(id));
    if thoroughness == Thoroughness::Full || known.len() <= MOST {
        let mut listing = shared.objects.list(PACKS);
        while let Some(listed) = listing.try_next().await? {
            if let Some(id) = id_of(&listed.name)
                && known.get(&id).is_some_and(|pack| pack.size == listed.size)
            {
                known.remove(&id);
            }
        }
        lost.extend(known.into_keys());
    }
    lost.sort_unstable();
    lost.dedup();
    if !lost.is_empty() {
        let packs = lost.len();
        context.warn(
            "packs",
            format!(
                "{packs} of them are missing or damaged; what this snapshot needs of them is \
                 stored again; `lifeboat verify` says which snapshots are hurt"
            ),
        );
    }
    shared.index.lose(lost);
    Ok(())
}

/// Takes note for later writers that a pack is damaged. That this fails only costs them the same.
pub(super) async fn note_damage(shared: &Shared, pack: ObjectId, what: String) {
    let found = [(pack, what)];
    let noted = Ledger::append(&shared.objects, &shared.keys, Part::Damaged, &[], &found).await;
    if let Err(error) = noted {
        tracing::debug!(%error, %pack, "that this pack is damaged could not be noted");
    }
}
