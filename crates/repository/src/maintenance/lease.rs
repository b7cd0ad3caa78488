//! The right to do what only one may do at a time.
//!
//! A lease is a chain of objects `leases/<what>-<number>`, of which the one with the highest number
//! counts. It is made only where none is, so of two that want the next number one wins, on every
//! store. The holder prolongs the lease by taking the next number; after some minutes without,
//! anybody may. A lease that is given back is a number that says so.
//!
//! # How long a dead holder is believed in
//!
//! A holder that is killed gives nothing back, and whoever comes next waits until the lease runs
//! out: [`EXPIRY`] after it was last prolonged, by the store's clock. That is short, and need not
//! be longer:
//!
//! - what is deleted is deleted one by one, and before each the holder knows that the lease was
//!   still its own at most [`FRESH`] ago ([`Lease::still`]); a request that is not done in
//!   [`REQUEST`] is given up, not tried on and on. Both together are shorter than the lease. So a
//!   holder that was cut off from the store, or whose host slept, stops before another one begins;
//! - what remains is a holder that stands still within the blink between that look and the request,
//!   or a request that the network keeps for minutes. Then two work at once, and still nothing goes
//!   that somebody needs unless a writer that had been taken for dead comes back in the same
//!   moment: that rests on marks, sessions and snapshots (see the module above), not on the lease.
//!
//! It is not shorter, since a holder must be able to miss several signs of life. And that a process
//! of this host is gone is no reason not to wait: in two containers, the name of the host and the
//! number of the process can be the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use lifeboat_core::Timestamp;
use minicbor::{Decode, Encode};
use object_store::PutPayload;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::clock::StoreClock;
use crate::crypto::{Keys, random};
use crate::error::{Error, Result};
use crate::objects::{LEASES, Listed, Objects};
use crate::sealed::{SealedKind, open, seal};
use crate::snapshot::{nanoseconds, timestamp};

/// How often the holder prolongs its lease.
const PROLONG: Duration = Duration::from_secs(30);
/// Without that for so long, the lease is anybody's.
const EXPIRY: Duration = Duration::from_mins(3);
/// For so long, what was known of the lease is as good as asking again.
const FRESH: Duration = Duration::from_mins(1);
/// A request that takes something away is given up after so long.
pub(super) const REQUEST: Duration = Duration::from_mins(1);
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
    /// Since when its holder has it, by the store's clock: nanoseconds since 1970 UTC.
    #[n(4)]
    since: Option<i64>,
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
    /// When it was known last that the lease is ours. By two clocks: one stands still while a host
    /// sleeps, the other one can be set.
    known: parking_lot::Mutex<(Instant, Timestamp)>,
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
            let seen = listed.modified;
            let until = seen.saturating_add(EXPIRY).unwrap_or(Timestamp::MAX);
            let runs = clock.age(seen) <= EXPIRY;
            match read(objects, keys, &listed.name).await? {
                Some(held) if held.state == HELD && runs => {
                    let since = held.since.map_or(seen, timestamp);
                    let (host, what) = (held.host, held.what);
                    return Err(Error::LeaseHeld { host, what, since, seen, until });
                }
                // One that cannot be read ends with its time.
                None if runs => {
                    let (host, what) = ("an unknown host".into(), "unknown".into());
                    return Err(Error::LeaseHeld { host, what, since: seen, seen, until });
                }
                _ => {}
            }
        }
        let record = LeaseRecord {
            owner: random()?,
            host: lifeboat_core::host(),
            what: what.to_owned(),
            state: HELD,
            since: Some(nanoseconds(clock.now())),
        };
        let chain = Arc::new(Chain {
            objects: objects.clone(),
            keys: Arc::clone(keys),
            record,
            number: Mutex::new(last.map_or(0, |(number, _)| number)),
            lost: AtomicBool::new(false),
            known: parking_lot::Mutex::new(now()),
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
        let asked = now();
        let held = *self.chain.number.lock().await;
        let last = last(&self.chain.objects).await?;
        // A listing may be behind; whether there is one object, the store knows. Whoever takes over
        // makes the next number, and deletes ours.
        let objects = &self.chain.objects;
        let taken = objects.head(&name(held)).await?.is_none()
            || objects.head(&name(held + 1)).await?.is_some();
        let lost = self.chain.lost.load(Ordering::Relaxed);
        if lost || taken || last.is_some_and(|(number, _)| number > held) {
            return Err(Error::LeaseLost);
        }
        *self.chain.known.lock() = asked;
        Ok(())
    }

    /// As [`Lease::check`], without asking the store when it was known just now. Before every
    /// single deletion.
    pub(crate) async fn still(&self) -> Result<()> {
        let (instant, time) = *self.chain.known.lock();
        let slept = Timestamp::now().duration_since(time).unsigned_abs();
        if self.chain.lost.load(Ordering::Relaxed) || instant.elapsed().max(slept) > FRESH {
            return self.check().await;
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
        let asked = now();
        let mut number = self.number.lock().await;
        let next = *number + 1;
        let record = LeaseRecord { state, ..self.record.clone() };
        let (_, bytes) = seal(&self.keys, SealedKind::Lease, &record)?;
        match self.objects.create(&name(next), PutPayload::from(bytes)).await {
            Ok(()) => *self.known.lock() = asked,
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

fn now() -> (Instant, Timestamp) {
    (Instant::now(), Timestamp::now())
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
        // One of an epoch that is not known here is as good as one that cannot be read.
        Err(Error::Damaged { .. } | Error::Rotated { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RootKey;
    use crate::id::RepositoryId;
    use object_store::memory::InMemory;

    /// What a holder knew, and a request that it begins then, must come before anybody else.
    #[test]
    fn a_holder_stops_before_another_one_begins() {
        assert!(FRESH + REQUEST < EXPIRY);
        assert!(3 * PROLONG < EXPIRY);
    }

    #[tokio::test]
    async fn only_one_holds_it_and_a_dead_one_does_not_hold_it_for_ever() {
        let objects = Objects::new(Arc::new(InMemory::new()));
        let keys = Arc::new(Keys::derive(&RootKey::fixed(1), RepositoryId::from_bytes([1; 16])));
        let clock = StoreClock::ask(&objects).await.unwrap();
        let take = async |clock: &StoreClock| Lease::take(&objects, &keys, clock, "a test").await;

        let first = take(&clock).await.unwrap();
        first.check().await.unwrap();
        first.chain.next(HELD).await.unwrap();
        let Some(Error::LeaseHeld { what, host, since, seen, until }) = take(&clock).await.err()
        else {
            panic!("two have it");
        };
        assert_eq!((what.as_str(), host), ("a test", lifeboat_core::host()));
        // It was prolonged since it was taken, and runs out three minutes after that.
        assert!(clock.now() >= since && since <= seen, "{since}, {seen}");
        assert_eq!(until, seen + Duration::from_mins(3));

        // After its time another one takes over, and the first one notices.
        let later = clock.later(EXPIRY + Duration::from_secs(5));
        let second = take(&later).await.unwrap();
        // What it knew is believed for a minute, and no longer; whether or not its host slept.
        let (instant, time) = *first.chain.known.lock();
        let ago = FRESH + Duration::from_secs(1);
        first.still().await.unwrap();
        for known in [(instant.checked_sub(ago).unwrap(), time), (instant, time - ago)] {
            *first.chain.known.lock() = known;
            assert!(matches!(first.still().await, Err(Error::LeaseLost)));
        }
        assert!(matches!(first.check().await, Err(Error::LeaseLost)));
        assert!(matches!(first.chain.next(HELD).await, Err(Error::LeaseLost)));
        // When it has noticed, it believes nothing any more.
        *first.chain.known.lock() = (instant, time);
        assert!(matches!(first.still().await, Err(Error::LeaseLost)));
        second.check().await.unwrap();
        second.still().await.unwrap();
        second.give_back().await;
        take(&clock).await.unwrap().give_back().await;
    }
}
