//! Point-in-time recovery: from a snapshot and the WAL after it to any moment between.
//!
//! | what | where |
//! |---|---|
//! | from when to when a cluster can be recovered, with gaps | [`Windows`], [`Window`] |
//! | where to, and what is done there | [`RecoveryTarget`], [`RecoveryOptions`] |
//! | the base, the timeline and the WAL that are chosen | [`RecoveryPlan`] |
//! | the snapshot with that WAL, as a source | [`RecoverySource`] |
//! | what the server is told | [`RecoverySettings`], [`WalSupply`] |
//!
//! # A plan is a promise
//!
//! The server finds out at the end of a recovery that its target is not there, hours later perhaps,
//! and promotes without a word when its WAL ends too early. So the target is looked for before
//! anything is touched: WAL is read as the server reads it (`records`), and a plan is made only when
//! the record is found at which recovery will stop, and all WAL from the base to there.
//!
//! - *A moment*: the first transaction that ended after it. When none did although the WAL of that
//!   moment is there, the server would say that its target was not reached; it is given the last
//!   record as the target instead.
//! - *A position*: the first record that begins there or later; at the very end of the WAL, the last
//!   one.
//! - *A transaction, a named point*: read for, in the newest WAL first.
//!
//! # The way
//!
//! A timeline leads through its ancestors, of each up to the fork (`way`). The newest timeline is
//! taken that a base can reach, as the server would; what an ancestor holds after it was left is
//! told, since it is another server's present.

mod base;
mod error;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod plan;
mod records;
mod settings;
mod source;
mod target;
mod way;
mod window;

pub use self::base::BaseBackup;
pub use self::error::RecoveryError;
pub use self::plan::{RecoveryOptions, RecoveryPlan};
pub(crate) use self::settings::{AUTO_CONF, Signal, rewrite};
pub use self::settings::{RecoverySettings, WalSupply};
pub use self::source::RecoverySource;
pub use self::target::{Bound, RecoveryTarget, TargetAction, TargetTimeline};
pub use self::window::{Window, Windows};
