//! Physical backup and restore, with real servers of every major installed.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod bad_input;
mod base_backup;
mod base_backup_changes;
mod base_backup_faults;
mod branches;
mod common;
mod conformance;
mod connection;
mod contents;
mod following;
mod receive;
mod receive_faults;
mod receive_hostile;
mod round_trip;
