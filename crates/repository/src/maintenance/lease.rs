//! The right to do what only one may do at a time.
//!
//! A lease is a chain of objects `leases/<what>-<number>`, of which the one with the highest number
//! counts. It is made only where none is, so of two that want the next number one wins, on every
//! store. The holder prolongs the lease by taking the next number; after some minutes without,
//! anybody may. A lease that is given back is a number that says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use minicbor::{Decode, Encode};
use object_store::PutPayload;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::clock::StoreClock;
use crate::crypto::{Keys, random};
use crate::error::{Error, Result};
use crate::objects::{LEASES, Listed, Objects};
use crate::sealed::{SealedKind, open, seal};

/// How often the holder prolongs its lease.
const PROLONG: Duration = Duration::from_mins(2);
/// Without that for so long, the lease is anybody's.
const EXPIRY: Duration = Duration::from_mins(10);
/// The only lease there is: whatever deletes or replaces objects.
const MAINTENANCE: &str = "maintenance";

/// The content of a lease's object.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct LeaseRecord {
    #[cbor(n(0), with = "minicbor::bytes")]
    owner: [u8; 16],
    #[n(1)]
    host: String,
    #[n(2)]
    what: String,
    /// 0: held; 1: given back.
    #[n(3)]
    state: u8,
}

const HELD: u8 = 0;
const GIVEN_BACK: u8 = 1;

/// The lease of maintenance, held.
pub(crate) struct Lease {
    chain: Arc<Chain>,
    prolonging: JoinHandle<()>,
}

struct Chain {
    objects: Objects,
    keys: Arc<Keys>,
    record: LeaseRecord,
    number: Mutex<u64>,
    lost: AtomicBool,
}

impl Lease {
    /// Takes the lease, or says who has it.
    pub(crate) async fn take(
        objects: &Objects,
        keys: &Arc<Keys>,
        clock: &StoreClock,
        what: &str,
    ) -> Result<Self> {
        let last = last(objects).await?;
        if let Some((_, listed)) = &last {
            let age = clock.age(listed.modified);
            match read(objects, keys, &listed.name).await? {
                Some(held) if held.state == HELD && age <= EXPIRY => {
                    let (host, what) = (held.host, held.what);
                    return Err(Error::LeaseHeld { host, what, seconds: age.as_secs() });
                }
                // One that cannot be read ends with its time.
                None if age <= EXPIRY => {
                    let (host, what) = ("unknown".into(), "unknown".into());
                    return Err(Error::LeaseHeld { host, what, seconds: age.as_secs() });
                }
                _ => {}
            }
        }
        let host = lifeboat_core::host();
        let record = LeaseRecord { owner: random()?, host, what: what.to_owned(), state: HELD };
        let chain = Arc::new(Chain {
            objects: objects.clone(),
            keys: Arc::clone(keys),
            record,
            number: Mutex::new(last.map_or(0, |(number, _)| number)),
            lost: AtomicBool::new(false),
        });
        chain.next(HELD).await?;
        let prolonging = tokio::spawn({
            let chain = Arc::clone(&chain);
            async move {
                loop {
                    tokio::time::sleep(PROLONG).await;
                    match chain.next(HELD).await {
                        Ok(()) => {}
                        Err(Error::LeaseLost) => return,
                        Err(error) => tracing::debug!(%error, "the lease could not be prolonged"),
                    }
                }
            }
        });
        Ok(Self { chain, prolonging })
    }

    /// Sees that the lease is still held. Before every step that deletes.
    pub(crate) async fn check(&self) -> Result<()> {
        let held = *self.chain.number.lock().await;
        let last = last(&self.chain.objects).await?;
        if self.chain.lost.load(Ordering::Relaxed) || last.is_none_or(|(number, _)| number > held) {
            return Err(Error::LeaseLost);
        }
        Ok(())
    }

    /// Gives it back. That this fails only makes the next one wait.
    pub(crate) async fn give_back(self) {
        self.prolonging.abort();
        if let Err(error) = self.chain.next(GIVEN_BACK).await {
            tracing::debug!(%error, "the lease could not be given back");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.prolonging.abort();
    }
}

impl Chain {
    /// Takes the next number, and removes the one before.
    async fn next(&self, state: u8) -> Result<()> {
        let mut number = self.number.lock().await;
        let next = *number + 1;
        let record = LeaseRecord { state, ..self.record.clone() };
        let (_, bytes) = seal(&self.keys, SealedKind::Lease, &record)?;
        match self.objects.create(&name(next), PutPayload::from(bytes)).await {
            Ok(()) => {}
            Err(Error::Conflict { .. }) => {
                self.lost.store(true, Ordering::Relaxed);
                return Err(Error::LeaseLost);
            }
            Err(error) => return Err(error),
        }
        let before = std::mem::replace(&mut *number, next);
        if before > 0
            && let Err(error) = self.objects.delete(&name(before)).await
        {
            tracing::debug!(%error, "an old lease could not be removed");
        }
        Ok(())
    }
}

fn name(number: u64) -> String {
    format!("{LEASES}/{MAINTENANCE}-{number:020}")
}

/// The object that counts.
async fn last(objects: &Objects) -> Result<Option<(u64, Listed)>> {
    let listed: Vec<_> = objects.list(LEASES).try_collect().await?;
    let number = |listed: &Listed| -> Option<u64> {
        let name = listed.name.strip_prefix(LEASES)?.strip_prefix('/')?;
        let digits = name.strip_prefix(MAINTENANCE)?.strip_prefix('-')?;
        (digits.len() == 20).then(|| digits.parse().ok()).flatten()
    };
    let numbered = listed.into_iter().filter_map(|listed| Some((number(&listed)?, listed)));
    Ok(numbered.max_by_key(|(number, _)| *number))
}

async fn read(objects: &Objects, keys: &Keys, name: &str) -> Result<Option<LeaseRecord>> {
    let Some(bytes) = objects.read(name, SealedKind::Lease.limit()).await? else {
        return Ok(None);
    };
    match open(keys, SealedKind::Lease, name, &bytes) {
        Ok(record) => Ok(Some(record)),
        Err(Error::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RootKey;
    use crate::id::RepositoryId;
    use object_store::memory::InMemory;

    #[tokio::test]
    async fn only_one_holds_it_and_a_dead_one_does_not_hold_it_for_ever() {
        let objects = Objects::new(Arc::new(InMemory::new()));
        let keys = Arc::new(Keys::derive(&RootKey::fixed(1), RepositoryId::from_bytes([1; 16])));
        let clock = StoreClock::ask(&objects).await.unwrap();
        let take = async |clock: &StoreClock| Lease::take(&objects, &keys, clock, "a test").await;

        let first = take(&clock).await.unwrap();
        first.check().await.unwrap();
        first.chain.next(HELD).await.unwrap();
        let held = take(&clock).await.err();
        assert!(
            matches!(&held, Some(Error::LeaseHeld { what, .. }) if what == "a test"),
            "{held:?}"
        );

        // After its time another one takes over, and the first one notices.
        let later = clock.later(EXPIRY + Duration::from_secs(5));
        let second = take(&later).await.unwrap();
        assert!(matches!(first.check().await, Err(Error::LeaseLost)));
        assert!(matches!(first.chain.next(HELD).await, Err(Error::LeaseLost)));
        second.check().await.unwrap();
        second.give_back().await;
        take(&clock).await.unwrap().give_back().await;
    }
}
