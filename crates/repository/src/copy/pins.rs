//! Copies of pins: what holds a snapshot holds its copy as well.

use std::collections::HashSet;

use lifeboat_core::{Pin, PinId, SnapshotId, SnapshotInfo, Timestamp};

use super::CopyPlan;
use crate::error::Result;

/// A pin of the source that the destination lacks.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MissingPin {
    /// The pin.
    pub pin: Pin,
    /// The snapshot that it holds.
    pub snapshot: SnapshotInfo,
    /// What that snapshot is called in the destination; `None` while it is not there.
    pub copy: Option<SnapshotId>,
}

/// The pins that the destination lacks.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct MissingPins {
    /// Those that can be read.
    pub pins: Vec<MissingPin>,
    /// Those of the source that cannot be read, and why. They are not copied.
    pub damaged: Vec<(PinId, String)>,
}

impl CopyPlan {
    /// Finds out which live pins the destination lacks. One is there when its copy of the same
    /// snapshot is held for the same reason by the same person since the same time, as long.
    ///
    /// # Errors
    /// When one of the repositories cannot be listed or read.
    pub async fn missing_pins(&self) -> Result<MissingPins> {
        type Told = (SnapshotId, String, String, Timestamp, Option<Timestamp>);
        let told = |pin: &Pin, snapshot: SnapshotId| -> Told {
            (snapshot, pin.reason.clone(), pin.by.clone(), pin.made, pin.until)
        };
        let (here, there) = (self.source.pins().await?, self.destination.pins().await?);
        let there: HashSet<_> = there.pins.iter().map(|pin| told(pin, pin.snapshot)).collect();
        let now = Timestamp::now();
        let mut missing = MissingPins { pins: Vec::new(), damaged: here.damaged };
        for pin in here.pins.into_iter().filter(|pin| pin.is_live(now)) {
            let wanted = |info: &&SnapshotInfo| {
                info.id == pin.snapshot
                    && self.options.store.as_ref().is_none_or(|store| info.store == *store)
            };
            let Some(snapshot) = self.all.iter().find(wanted).cloned() else { continue };
            let copy = self.copies.get(&self.source.origin_of(&snapshot)).copied();
            if copy.is_none_or(|copy| !there.contains(&told(&pin, copy))) {
                missing.pins.push(MissingPin { pin, snapshot, copy });
            }
        }
        Ok(missing)
    }

    /// Holds the copy of a snapshot as the snapshot is held. `None` while there is no copy.
    ///
    /// # Errors
    /// When the copy is gone, or the destination cannot be written.
    pub async fn copy_pin(&self, missing: &MissingPin) -> Result<Option<Pin>> {
        match missing.copy {
            Some(copy) => self.destination.pin_like(&copy, &missing.pin).await.map(Some),
            None => Ok(None),
        }
    }
}
