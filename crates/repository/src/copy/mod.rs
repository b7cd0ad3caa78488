//! Copies of snapshots in another repository, with keys of its own.
//!
//! Chunks are named by a key that only their repository has, so what one repository holds cannot
//! be told from the names of another. A copy is therefore a transfer like any other: content is
//! read and checked as in a restore, and cut, named and sealed anew, so that it is one with what
//! the destination holds already.
//!
//! **Only what is missing.** The destination's copy of an earlier snapshot of the same store is the
//! baseline. What differs between the two *source* snapshots is known from their trees and lists
//! of pieces alone: where both name the same piece of the same chunk, the content is the same, and
//! the destination's copy of the earlier one has it. So an unchanged snapshot is copied without
//! reading any content, and a changed one by reading what changed. What the destination has lost
//! meanwhile is read again, and so healed.
//!
//! **Never twice.** A copy names its origin: the repository and the snapshot that it was made of,
//! the first one of all where a copy is copied. What the destination has is passed over.
//!
//! **Pins and journals** are copied with all snapshots: a pin holds the copy of the snapshot that it
//! holds, and a segment of a journal has the same place in both repositories.
//!
//! **Resumable.** Snapshots are copied one after the other, the oldest first, each committed by
//! itself. A copy that is stopped leaves chunks that the next one finds in the index.

mod content;
mod journals;
mod pins;
mod plan;
mod report;
mod source;
mod verify;

pub use journals::{CopiedTimeline, MissingJournals, MissingTimeline};
pub use pins::{MissingPin, MissingPins};
pub use plan::CopyPlan;
pub use report::{Copied, CopyOptions, CopyReport, CopySelection, Verification};

use lifeboat_core::{Context, ErrorKind, Failure};

use crate::error::Result;
use crate::repository::Repository;

impl Repository {
    /// Finds out which snapshots `destination` lacks. Nothing is copied yet.
    ///
    /// # Errors
    /// When one of the repositories cannot be listed, both are the same one, or a snapshot that
    /// was asked for does not exist.
    pub async fn plan_copy(&self, destination: &Self, options: &CopyOptions) -> Result<CopyPlan> {
        CopyPlan::new(self, destination, options).await
    }

    /// Copies snapshots into `destination`, those that it lacks, the oldest first; with
    /// [`CopySelection::All`] then the pins that hold them, and the journals.
    ///
    /// A snapshot or a segment that is damaged here is told in the report, and does not keep the others from
    /// being copied.
    ///
    /// # Errors
    /// As for [`Repository::plan_copy`]; and when either store fails, or the context is cancelled.
    /// What was copied until then stays.
    pub async fn copy_to(
        &self,
        destination: &Self,
        options: &CopyOptions,
        context: &Context,
    ) -> Result<CopyReport> {
        let mut plan = self.plan_copy(destination, options).await?;
        let mut report = CopyReport { present: plan.present().to_vec(), ..CopyReport::default() };
        for original in plan.missing().to_vec() {
            match plan.copy(&original, context).await {
                Ok(copied) => report.copied.push(copied),
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    report.failed.push((original, error));
                }
                Err(error) => return Err(error),
            }
        }
        if options.selection == CopySelection::All {
            for missing in plan.missing_pins().await?.pins {
                report.pins.extend(plan.copy_pin(&missing).await?);
            }
            for missing in plan.missing_journals().await?.timelines {
                match plan.copy_timeline(&missing, context).await {
                    Ok(copied) => {
                        report.segments += copied.segments;
                        report.failed_segments.extend(copied.failed);
                    }
                    // The snapshots are there all the same.
                    Err(error) if is_of_destination(&error) => {
                        report.failed_segments.push((missing.journal.to_string(), error));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(report)
    }
}

/// Whether the destination cannot take a journal, or has something else in its place.
fn is_of_destination(error: &lifeboat_core::Error) -> bool {
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::AlreadyExists)
}
