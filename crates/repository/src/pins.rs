//! Pins: what holds a snapshot whatever a policy says.
//!
//! A pin is a small sealed object of its own, so that it is made and released without touching the
//! snapshot, and by any number of people at once.
//!
//! Nobody locks anything while a pin is made and snapshots are forgotten at the same time. Whoever
//! pins writes the pin first and then sees that the snapshot is still there; whoever forgets deletes
//! the snapshot first and then looks for pins once more, and puts back what was pinned meanwhile.
//! Whatever the order, one of the two sees the other: a pin that was reported as made holds a
//! snapshot that is there.

use std::collections::HashMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use lifeboat_core::{Pin, PinId, SnapshotId, Timestamp};
use minicbor::{Decode, Encode};
use object_store::PutPayload;

use crate::crypto::Keys;
use crate::error::{Error, Result};
use crate::id::ObjectId;
use crate::objects::{Objects, PINS, SNAPSHOTS, check_name, id_of, name_in};
use crate::repository::Repository;
use crate::sealed::{SealedKind, open, seal};
use crate::snapshot::{nanoseconds, timestamp};

/// How many pins are read at once.
const FETCHES: usize = 16;
/// No reason is longer, in bytes.
const MAX_REASON: usize = 1024;

/// The content of an object `pins/<id>`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct PinRecord {
    #[n(0)]
    snapshot: ObjectId,
    #[n(1)]
    reason: String,
    #[n(2)]
    by: String,
    /// Times are nanoseconds since 1970 UTC.
    #[n(3)]
    made: i64,
    #[n(4)]
    until: Option<i64>,
}

impl PinRecord {
    fn pin(self, id: ObjectId) -> Pin {
        let snapshot = SnapshotId::from_bytes(*self.snapshot.as_bytes());
        let mut pin = Pin::new(PinId::from_bytes(*id.as_bytes()), snapshot, self.reason);
        pin.by = self.by;
        pin.made = timestamp(self.made);
        pin.until = self.until.map(timestamp);
        pin
    }
}

/// How a snapshot is pinned.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PinOptions {
    /// Why: 1 to 1024 bytes, shown wherever the pin is met.
    pub reason: String,
    /// Who pins it, for people.
    pub by: String,
    /// When the pin runs out by itself, by the store's clock. `None` holds until it is released.
    pub until: Option<Timestamp>,
}

impl PinOptions {
    /// A pin without an end.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..Self::default() }
    }

    fn check(&self) -> Result<()> {
        let bad = |what: &str| Err(Error::BadPin { what: what.to_owned() });
        if self.reason.trim().is_empty() || self.reason.len() > MAX_REASON {
            return bad("a reason has 1 to 1024 bytes");
        }
        if self.by.len() > MAX_REASON {
            return bad("who pins it takes 1024 bytes at most");
        }
        match self.until {
            Some(until) if until <= Timestamp::now() => bad("it would have run out already"),
            _ => Ok(()),
        }
    }
}

/// The pins of a repository.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PinList {
    /// Those that can be read, the oldest first; also what has run out, and what holds a snapshot
    /// that is not there.
    pub pins: Vec<Pin>,
    /// The objects that should be pins and cannot be read, and why. While there is one, nothing is
    /// forgotten: nobody knows what it holds.
    pub damaged: Vec<(PinId, String)>,
}

impl PinList {
    /// The pin whose id begins with `digits`, also when it is damaged.
    ///
    /// # Errors
    /// When none or more than one does.
    pub fn find(&self, digits: &str) -> Result<PinId> {
        let ids = self.pins.iter().map(|pin| pin.id).chain(self.damaged.iter().map(|(id, _)| *id));
        let found: Vec<_> = ids.filter(|id| id.to_string().starts_with(digits)).collect();
        match found[..] {
            [one] if !digits.is_empty() => Ok(one),
            [] => Err(Error::NoSuchPin { name: digits.to_owned() }),
            _ => Err(Error::AmbiguousPin { name: digits.to_owned(), count: found.len() }),
        }
    }
}

/// Refuses to go on when a pin cannot be read: it may hold anything.
pub(crate) fn all_known(damaged: &[(PinId, String)]) -> Result<()> {
    match damaged.first() {
        Some((id, what)) => Err(Error::DamagedPin { pin: id.to_string(), what: what.clone() }),
        None => Ok(()),
    }
}

/// Reads pins, each once: they never change.
#[derive(Default)]
pub(crate) struct PinReader(HashMap<ObjectId, Result<Pin, String>>);

impl PinReader {
    /// The pins that are there now.
    pub(crate) async fn read(&mut self, objects: &Objects, keys: &Keys) -> Result<PinList> {
        let listed: HashMap<_, _> = objects
            .list(PINS)
            .try_filter_map(async |listed| Ok(id_of(&listed.name).map(|id| (id, listed.name))))
            .try_collect()
            .await?;
        self.0.retain(|id, _| listed.contains_key(id));
        let new = listed.into_iter().filter(|(id, _)| !self.0.contains_key(id));
        let mut fetched = stream::iter(new.collect::<Vec<_>>())
            .map(async |(id, name)| (id, fetch(objects, keys, id, &name).await))
            .buffer_unordered(FETCHES);
        while let Some((id, result)) = fetched.next().await {
            match result {
                Ok(Some(pin)) => drop(self.0.insert(id, Ok(pin))),
                // Released since it was listed.
                Ok(None) => {}
                Err(Error::Damaged { what, .. }) => drop(self.0.insert(id, Err(what))),
                Err(error) => return Err(error),
            }
        }
        let mut list = PinList::default();
        for (id, pin) in &self.0 {
            match pin {
                Ok(pin) => list.pins.push(pin.clone()),
                Err(what) => {
                    list.damaged.push((PinId::from_bytes(*id.as_bytes()), what.clone()));
                }
            }
        }
        list.pins.sort_by_key(|pin| (pin.made, pin.id));
        list.damaged.sort();
        Ok(list)
    }
}

async fn fetch(objects: &Objects, keys: &Keys, id: ObjectId, name: &str) -> Result<Option<Pin>> {
    let Some(bytes) = objects.read(name, SealedKind::Pin.limit()).await? else {
        return Ok(None);
    };
    check_name(name, &bytes)?;
    let record: PinRecord = open(keys, SealedKind::Pin, name, &bytes)?;
    Ok(Some(record.pin(id)))
}

impl Repository {
    /// The pins. One that cannot be read does not hide the others.
    ///
    /// # Errors
    /// When the store cannot be listed or read.
    pub async fn pins(&self) -> Result<PinList> {
        let shared = self.shared();
        PinReader::default().read(&shared.objects, &shared.keys).await
    }

    /// Holds a snapshot: nothing forgets it until the pin has run out or is released. Any number
    /// of pins can hold one snapshot.
    ///
    /// # Errors
    /// When the snapshot is not there, the options are out of range, or the store cannot be
    /// written.
    pub async fn pin(&self, snapshot: &SnapshotId, options: &PinOptions) -> Result<Pin> {
        options.check()?;
        let mut pin = Pin::new(PinId::from_bytes([0; 32]), *snapshot, options.reason.clone());
        (pin.by, pin.made) = (options.by.clone(), Timestamp::now());
        pin.until = options.until;
        self.pin_like(snapshot, &pin).await
    }

    /// Holds a snapshot for the reason, and as long, as `pin` holds another one.
    pub(crate) async fn pin_like(&self, snapshot: &SnapshotId, pin: &Pin) -> Result<Pin> {
        let shared = self.shared();
        shared.features().may_write()?;
        let id = ObjectId::from_bytes(*snapshot.as_bytes());
        let root = name_in(SNAPSHOTS, id);
        let absent = || Error::NoSuchSnapshot { name: snapshot.to_string() };
        shared.objects.head(&root).await?.ok_or_else(absent)?;
        let record = PinRecord {
            snapshot: id,
            reason: pin.reason.clone(),
            by: pin.by.clone(),
            made: nanoseconds(pin.made),
            until: pin.until.map(nanoseconds),
        };
        let (pin, bytes) = seal(&shared.keys, SealedKind::Pin, &record)?;
        let name = name_in(PINS, pin);
        shared.objects.create(&name, PutPayload::from(bytes)).await?;
        // Somebody may have forgotten it meanwhile: see the module above.
        if shared.objects.head(&root).await?.is_none() {
            shared.objects.delete(&name).await?;
            return Err(absent());
        }
        Ok(record.pin(pin))
    }

    /// Releases a pin, also one that cannot be read. Whether it was there.
    ///
    /// # Errors
    /// When this program may not delete from the repository, or the store refuses it.
    pub async fn unpin(&self, pin: &PinId) -> Result<bool> {
        let shared = self.shared();
        shared.refresh_features().await?.may_delete()?;
        let name = name_in(PINS, ObjectId::from_bytes(*pin.as_bytes()));
        let there = shared.objects.head(&name).await?.is_some();
        shared.objects.delete(&name).await?;
        Ok(there)
    }
}

/// What a holder of the key with a faulty program may have written, for the fuzz targets.
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use super::PinRecord;
    use crate::fuzzing::{Outcome, encoded, unsealed};
    use crate::id::ObjectId;
    use crate::sealed::SealedKind;

    pub(crate) fn seeds() -> Vec<Vec<u8>> {
        let (snapshot, by) = (ObjectId::of(b"root"), "host".to_owned());
        let reason = "before the migration".to_owned();
        let pin = PinRecord { snapshot, reason, by, made: 5, until: None };
        encoded(&[PinRecord { until: Some(i64::MAX), ..pin.clone() }, pin])
    }

    pub(crate) fn pin(bytes: &[u8]) -> Outcome {
        let record: PinRecord =
            unsealed(SealedKind::Pin, bytes).map_err(|error| error.to_string())?;
        let pin = record.pin(ObjectId::of(bytes));
        if pin.reason.len() > bytes.len() { Err("it grew".to_owned()) } else { Ok(()) }
    }
}
