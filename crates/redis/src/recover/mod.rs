//! Bringing a server back to a moment between two snapshots.
//!
//! A snapshot and the changes behind it, in the server's own format: the RDB as the base of a set of
//! append-only files and the stream as what was appended, so that the server itself recovers.
//!
//! - [`BaseSnapshot`]: a snapshot from which that can begin.
//! - [`Windows`]: from when to when moments can be restored.
//! - [`RecoveryPlan`]: from which snapshot, and with which part of the journal, a moment is restored;
//!   or why it cannot be. It is known before anything is written.
//! - [`RecoverySource`]: the snapshot and that part, to be moved to an
//!   [`AppendOnlySink`](crate::AppendOnlySink).
//!
//! # Which changes belong to a moment
//!
//! Those that had come by then, by the clock of the host that received them: the journal says so of
//! every piece of the stream, to 20 ms. A change that the server made just before is therefore left
//! out when it was still on its way; one that it made after the moment is never there, unless that
//! clock is behind the server's. The stream ends between two commands, and never inside a
//! transaction.

mod base;
mod chain;
mod error;
mod journal;
mod plan;
mod source;
mod window;

pub use self::base::BaseSnapshot;
pub(crate) use self::chain::{Chain, Survey};
pub use self::error::RecoveryError;
pub use self::journal::StreamJournal;
pub use self::plan::{Moment, RecoveryPlan};
pub use self::source::RecoverySource;
pub(crate) use self::source::STREAM_FILE;
pub use self::window::{Window, Windows};
